"""The one table of languages: what a manifest may call them, and the code that everything else knows them by."""

from __future__ import annotations

import re
from difflib import get_close_matches
from functools import lru_cache

#: Text that mixes languages; its script says what counts as a unit.
MIXED = "mixed"

# A line a language: its code, further codes (ISO 639-2 B and T, 639-3, retired ones, and of a language that has its own
# code within a larger one the code of either), then its names, English first. All of ISO 639-1, and what Whisper knows.
_TABLE = """
aa aar : Afar
ab abk : Abkhazian, Abkhaz, аԥсуа
ae ave : Avestan
af afr : Afrikaans
ak aka twi : Akan, Twi
am amh : Amharic, አማርኛ
an arg : Aragonese
ar ara arb arz apc ary ajp acm afb : Arabic, العربية
as asm : Assamese, অসমীয়া
av ava : Avaric
ay aym : Aymara
az aze azj azb : Azerbaijani, Azeri, azərbaycanca, azərbaycan dili
ba bak : Bashkir, башҡортса
be bel : Belarusian, беларуская
bg bul : Bulgarian, български
bh bih bho : Bihari, Bhojpuri
bi bis : Bislama
bm bam : Bambara
bn ben : Bengali, Bangla, বাংলা
bo tib bod : Tibetan, བོད་སྐད
br bre : Breton, brezhoneg
bs bos : Bosnian, bosanski
ca cat : Catalan, Valencian, català
ce che : Chechen
ch cha : Chamorro
co cos : Corsican
cr cre : Cree
cs cze ces : Czech, čeština
cu chu : Church Slavic, Church Slavonic
cv chv : Chuvash
cy wel cym : Welsh, Cymraeg
da dan : Danish, dansk
de ger deu : German, Deutsch
dv div : Divehi, Dhivehi, Maldivian
dz dzo : Dzongkha
ee ewe : Ewe
el gre ell : Greek, Ελληνικά
en eng : English, American English, British English
eo epo : Esperanto
es spa : Spanish, Castilian, español
et est ekk : Estonian, eesti
eu baq eus : Basque, euskara
fa per fas pes prs : Persian, Farsi, Dari, فارسی
ff ful : Fulah, Fula
fi fin : Finnish, suomi
fj fij : Fijian
fo fao : Faroese, føroyskt
fr fre fra : French, français
fy fry : Western Frisian, Frisian, Frysk
ga gle : Irish, Gaeilge
gd gla : Scottish Gaelic, Gaelic, Gàidhlig
gl glg : Galician, galego
gn grn gug : Guarani
gu guj : Gujarati, ગુજરાતી
gv glv : Manx
ha hau : Hausa
haw : Hawaiian, ʻŌlelo Hawaiʻi
he iw heb : Hebrew, עברית
hi hin : Hindi, हिन्दी, हिंदी
ho hmo : Hiri Motu
hr scr hrv : Croatian, hrvatski
ht hat : Haitian Creole, Haitian, Kreyòl ayisyen
hu hun : Hungarian, magyar
hy arm hye : Armenian, հայերեն
hz her : Herero
ia ina : Interlingua
id in ind : Indonesian, Bahasa Indonesia
ie ile : Interlingue, Occidental
ig ibo : Igbo
ii iii : Sichuan Yi, Nuosu
ik ipk : Inupiaq
io ido : Ido
is ice isl : Icelandic, íslenska
it ita : Italian, italiano
iu iku : Inuktitut
ja jp jpn : Japanese, 日本語, 日文
jv jw jav : Javanese, Basa Jawa
ka geo kat : Georgian, ქართული
kg kon : Kongo
ki kik : Kikuyu, Gikuyu
kj kua : Kuanyama
kk kaz : Kazakh, қазақша, қазақ тілі
kl kal : Kalaallisut, Greenlandic
km khm : Khmer, Cambodian, ខ្មែរ, ភាសាខ្មែរ
kn kan : Kannada, ಕನ್ನಡ
ko kor : Korean, 한국어, 韩语
kr kau : Kanuri
ks kas : Kashmiri
ku kur kmr : Kurdish, Kurmanji, Kurdî
ckb : Central Kurdish, Sorani, کوردی
kv kom : Komi
kw cor : Cornish
ky kir : Kyrgyz, Kirghiz, кыргызча
la lat : Latin, latina
lb ltz : Luxembourgish, Letzeburgesch, Lëtzebuergesch
lg lug : Ganda, Luganda
li lim : Limburgish, Limburgan
ln lin : Lingala, lingála
lo lao : Lao, Laotian, ລາວ, ພາສາລາວ
lt lit : Lithuanian, lietuvių
lu lub : Luba-Katanga
lv lav lvs : Latvian, latviešu
mg mlg plt : Malagasy
mh mah : Marshallese
mi mao mri : Maori, Māori
mk mac mkd : Macedonian, македонски
ml mal : Malayalam, മലയാളം
mn mon khk : Mongolian, монгол
mr mar : Marathi, मराठी
ms may msa zsm : Malay, Bahasa Melayu
mt mlt : Maltese, Malti
my bur mya : Burmese, Myanmar, မြန်မာ, မြန်မာဘာသာ
na nau : Nauru
nd nde : North Ndebele
ne nep npi : Nepali, नेपाली
ng ndo : Ndonga
nl dut nld : Dutch, Flemish, Nederlands
nn nno : Norwegian Nynorsk, Nynorsk
no nb nor nob : Norwegian, Norwegian Bokmål, Bokmål, norsk
nr nbl : South Ndebele
nv nav : Navajo
ny nya : Chichewa, Nyanja
oc oci : Occitan
oj oji : Ojibwa
om orm : Oromo
or ori ory : Oriya, Odia, ଓଡ଼ିଆ
os oss : Ossetian
pa pan : Punjabi, Panjabi, ਪੰਜਾਬੀ
pi pli : Pali
pl pol : Polish, polski
ps pus pbt pbu : Pashto, Pushto, پښتو
pt por : Portuguese, Brazilian Portuguese, português
qu que : Quechua
rm roh : Romansh
rn run : Rundi, Kirundi
ro mo rum ron mol : Romanian, Moldavian, Moldovan, română
ru rus : Russian, русский
rw kin : Kinyarwanda
sa san : Sanskrit, संस्कृतम्
sc srd : Sardinian
sd snd : Sindhi, سنڌي
se sme : Northern Sami
sg sag : Sango
si sin : Sinhala, Sinhalese, සිංහල
sk slo slk : Slovak, slovenčina
sl slv : Slovenian, Slovene, slovenščina
sm smo : Samoan
sn sna : Shona, chiShona
so som : Somali, Soomaali
sq alb sqi als : Albanian, shqip
sr scc srp sh hbs : Serbian, Serbo-Croatian, српски, srpski
ss ssw : Swati
st sot : Southern Sotho, Sesotho
su sun : Sundanese, Basa Sunda
sv swe : Swedish, svenska
sw swa swh : Swahili, Kiswahili
ta tam : Tamil, தமிழ்
te tel : Telugu, తెలుగు
tg tgk : Tajik, тоҷикӣ
th tha : Thai, ไทย, ภาษาไทย
ti tir : Tigrinya
tk tuk : Turkmen, türkmençe
tl fil tgl : Tagalog, Filipino
tn tsn : Tswana
to ton : Tonga, Tongan
tr tur : Turkish, Türkçe
ts tso : Tsonga
tt tat : Tatar, татарча
ty tah : Tahitian
ug uig : Uyghur, Uighur
uk ukr : Ukrainian, українська
ur urd : Urdu, اردو
uz uzb uzn : Uzbek, oʻzbekcha
ve ven : Venda
vi vie : Vietnamese, Tiếng Việt
vo vol : Volapük
wa wln : Walloon
wo wol : Wolof
xh xho : Xhosa
yi ji yid ydd : Yiddish, ייִדיש
yo yor : Yoruba, Yorùbá
za zha : Zhuang
zh cn chi zho cmn : Chinese, Mandarin, Mandarin Chinese, Simplified Chinese, Traditional Chinese, 中文, 汉语, 普通话
yue : Cantonese, Yue, 粤语, 粵語, 广东话
wuu : Wu, Wu Chinese, Shanghainese, 吴语, 上海话
nan : Min Nan, Hokkien, Taiwanese, 闽南语
hak : Hakka, 客家话
zu zul : Zulu, isiZulu
"""

#: Written without spaces between words. Korean has them, but writers disagree where.
WITHOUT_SPACES = frozenset(["zh", "yue", "wuu", "nan", "hak", "ja", "ko", "th", "lo", "my", "km"])

# Second parts that make a pair of languages: no region has such a code. "en-th" is English in Thailand.
_SECOND_LANGUAGES = frozenset(("en", "zh", "ja", "ko"))
# zh-yue, zh-min-nan: a language that is named within the larger one.
_OF_CHINESE = frozenset(("cmn", "yue", "wuu", "nan", "hak"))
_SUBTAGS = re.compile(r"[a-z0-9]{1,8}(-[a-z0-9]{1,8})*")


def _read_table() -> tuple[dict[str, str], dict[str, str], dict[str, str]]:
    """Code by any code, code by any name, English name by code."""
    by_code: dict[str, str] = {}
    by_name: dict[str, str] = {}
    english: dict[str, str] = {}
    for line in _TABLE.strip().splitlines():
        codes, _, names = line.partition(":")
        code = codes.split()[0]
        by_code.update(dict.fromkeys(codes.split(), code))
        listed = [name.strip() for name in names.split(",")]
        by_name.update({_folded(name): code for name in listed})
        english[code] = listed[0]
    return by_code, by_name, english


def _folded(text: str) -> str:
    # "English (US)"; underlines and hyphens stand between parts of codes and of names alike.
    text = re.sub(r"\([^)]*\)", " ", text)
    return " ".join(text.casefold().replace("_", " ").replace("-", " ").split())


_BY_CODE, _BY_NAME, _ENGLISH = _read_table()


class LanguageError(ValueError):
    """A language that is neither a code nor a name."""


@lru_cache(maxsize=4096)
def known_language(lang: str) -> str | None:
    """The code of a language by any of its codes or names; None for what is neither.

    Regions and scripts are passed over. Two languages of which one has no spaces between words are `MIXED`. A
    three-letter code that is not in the table is its own code.

    Example:
        >>> [known_language(lang) for lang in ("zh-Hant-TW", "cmn", "Mandarin", "EN_us", "zh-en", "tlh")]
        ['zh', 'zh', 'zh', 'en', 'mixed', 'tlh']
        >>> known_language("englsh") is None
        True

    Args:
        lang: as a manifest has it, in capitals or not.
    """
    folded = _folded(lang)
    if folded in (MIXED, "mul"):
        return MIXED
    if folded in _BY_NAME:
        return _BY_NAME[folded]

    # A code has no space in it.
    tag = lang.strip().lower().replace("_", "-")
    if not _SUBTAGS.fullmatch(tag):
        return None
    first, *others = tag.split("-")
    code = _BY_CODE.get(first)
    if code is None:
        # ISO 639-3 has eight thousand codes; those of two letters are all in the table.
        is_code = len(first) == 3 and first.isascii() and first.isalpha()
        return first if is_code else None

    within = next((part for part in others if part in _OF_CHINESE), None)
    if code == "zh" and within:
        return _BY_CODE[within]
    if len(others) == 1 and others[0] in _SECOND_LANGUAGES:
        second = _BY_CODE[others[0]]
        if second != code and {code, second} & WITHOUT_SPACES:
            return MIXED
    return code


def language_of(lang: str) -> str:
    """`known_language`, and "" for what is neither a code nor a name.

    Example:
        >>> language_of("ja-JP"), language_of("gibberish!")
        ('ja', '')
    """
    return known_language(lang) or ""


def english_name(code: str) -> str:
    """The English name of a language of the table; the code itself of another one.

    Example:
        >>> english_name("zh"), english_name("tlh")
        ('Chinese', 'tlh')
    """
    return _ENGLISH.get(code, code)


def check_language(lang: str) -> None:
    """Refuse what is neither a code nor a name of a language.

    Raises:
        LanguageError: with the nearest known name or code.

    Example:
        >>> check_language("englsh")
        Traceback (most recent call last):
        ...
        lightning_audiorl.languages.LanguageError: 'englsh' is no language: expected an ISO 639 code or an English
        name, such as 'en' (English)
    """
    if known_language(lang) is not None:
        return

    folded = _folded(lang)
    # A misspelt name, or a code with something behind it.
    near = get_close_matches(folded, [*_BY_NAME, *_BY_CODE], n=1, cutoff=0.6)
    such_as = "such as 'en', 'zh-CN' or 'German'"
    if near:
        code = _BY_NAME.get(near[0]) or _BY_CODE[near[0]]
        such_as = f"such as '{code}' ({english_name(code)})"
    raise LanguageError(
        f"{lang!r} is no language: expected an ISO 639 code or an English name, {such_as}"
    )
