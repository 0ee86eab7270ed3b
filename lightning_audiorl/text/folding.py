"""What is one to the ear made one to the eye: width, case, apostrophes, digits, marks that no letter carries."""

from __future__ import annotations

import re
import unicodedata

# <unk>, <|en|>, [PAD]: what a tokenizer writes and no person says.
_SPECIAL_TOKENS = re.compile(r"<[^<>\s]*>|\[(?:UNK|PAD|CLS|SEP|MASK)\]")

# Quotation marks, primes, modifier letters and accents that are typed as an apostrophe.
_APOSTROPHES = "’‘‛`´′ʹʻʼʽ＇՚׳"
_TO_APOSTROPHE = str.maketrans(dict.fromkeys(_APOSTROPHES, "'"))

#: Characters that are a unit each: Chinese, Japanese, Korean, Thai, Lao, Burmese and Khmer ones.
UNSPACED = re.compile(
    "([々〇\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003ffff"
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff])"
)

# Signs that compatibility would spell out, though they are pictures: a sign before the selector of its picture, squared
# characters (🈁), ™ and ℠.
_PICTURES = re.compile("[^0-9A-Za-z#*\\s]\ufe0f|[\U0001f200-\U0001f2ff™℠]")
# Selectors of how a character is drawn, marks drawn around others (keycaps), blank letters: nobody says them.
_UNSEEN = re.compile(
    "[\ufe00-\ufe0f\U000e0100-\U000e01ef\u180b-\u180d\u180f\u034f\u0488\u0489\u20dd-\u20e4\ua670-\ua672"
    "\u115f\u1160\u3164\uffa0\u17b4\u17b5]"
)
# Spelled with a joiner before these letters of Malayalam and Bengali had a place of their own.
_JOINED_LETTERS = {
    "ണ്\u200d": "ൺ",
    "ന്\u200d": "ൻ",
    "ര്\u200d": "ർ",
    "ല്\u200d": "ൽ",
    "ള്\u200d": "ൾ",
    "ക്\u200d": "ൿ",
    "ত্\u200d": "ৎ",
}

# Points of Hebrew and Arabic, which few texts have, and the stroke that only lengthens a word.
_POINTS = re.compile(
    "[\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7"
    "\u0610-\u061a\u0640\u064b-\u065f\u0670\u06d6-\u06dc\u06df-\u06e4\u06e7\u06e8\u06ea-\u06ed\u08d3-\u08ff]"
)
# Keyboards of Persian and Urdu have forms of their own of letters that Arabic has.
_ARABIC_LETTERS = str.maketrans("یکہۃ", "يكهة")
_NOT_IN_ASCII_WORDS = re.compile("[^A-Za-z0-9']+")
_ASCII_WORD = re.compile("[A-Za-z0-9]")
_PLAIN = re.compile("[a-z0-9]+(?: [a-z0-9]+)*")
# Tone before or behind the nikhahit of a sara am, in Thai and Lao.
_TONE_BEHIND = re.compile("([\u0e4d\u0ecd])([\u0e48-\u0e4b\u0ec8-\u0ecb])")


def fold(text: str) -> str:
    """Special tokens out; one width (NFKC), one case, one apostrophe, one order of marks.

    Example:
        >>> fold("<|de|>Die Straße, O’Neil, ＡＢＣ")
        " die strasse, o'neil, abc"
    """
    # Before one case: [UNK] is told from a word in brackets by its capitals.
    if "<" in text or "[" in text:
        text = _SPECIAL_TOKENS.sub(" ", text)
    if text.isascii():
        return text.lower().replace("`", "'")

    text = _PICTURES.sub(" ", text)
    for spelled, letter in _JOINED_LETTERS.items():
        text = text.replace(spelled, letter)
    text = "".join(char for char in text if unicodedata.category(char) != "Cf")
    text = _UNSEEN.sub("", text)

    # Each of the steps may leave work for another: ŉ is an apostrophe and a letter, one case takes İ apart.
    before = ""
    while text != before:
        before = text
        text = unicodedata.normalize("NFKC", text.translate(_TO_APOSTROPHE))
        # One case makes a letter of the iota below, which is none where it stands alone.
        text = text.replace("\u0345", "").casefold()
        text = unicodedata.normalize("NFKC", text).replace("i\u0307", "i")
        text = _fold_scripts(text)
    return text


def _fold_scripts(text: str) -> str:
    """Points of Arabic and Hebrew out, letters of Arabic and marks of Thai in one form."""
    text = _POINTS.sub("", text).translate(_ARABIC_LETTERS)
    return _TONE_BEHIND.sub(r"\2\1", text)


def only_words(text: str) -> str:
    """Letters with their marks, digits, and apostrophes inside words; all else becomes one space.

    Digits of any script are those of ASCII. A mark that no letter carries, such as the dot of an emoji's selector, is
    left out.

    Example:
        >>> only_words("one: two ٣ 'four' don't")
        "one two 3 four don't"
    """
    if text.isascii():
        return bare_words(_NOT_IN_ASCII_WORDS.sub(" ", text))

    kept = []
    in_word = False
    for char in text:
        category = unicodedata.category(char)
        if category[0] == "M":
            if in_word:
                kept.append(char)
            continue

        in_word = category[0] == "L"
        if in_word or char == "'":
            kept.append(char)
        elif category[0] == "N":
            digit = unicodedata.digit(char, None)
            kept.append(char if digit is None else str(digit))
        else:
            kept.append(" ")
    return bare_words("".join(kept))


def bare_words(text: str) -> str:
    """The words with one space between them and no apostrophe at their ends.

    Example:
        >>> bare_words(" the  dogs' 'n' ")
        'the dogs n'
    """
    words = text.split()
    if "'" in text:
        bare = [word.strip("'") for word in words]
        words = [word for word in bare if word]
    return " ".join(words)


def has_words(text: str) -> bool:
    """Whether anything in a text can be said: a letter or a digit, special tokens left out.

    Example:
        >>> has_words("hm!"), has_words("..."), has_words("<unk>"), has_words("❤️")
        (True, False, False, False)
    """
    # A letter of ASCII stays one, unless it may stand in a special token.
    if "<" not in text and "[" not in text and _ASCII_WORD.search(text):
        return True
    return bool(only_words(fold(text)))


def is_plain(text: str) -> bool:
    """Whether a text is small letters and digits of ASCII with one space between words: normalising changes nothing.

    Example:
        >>> is_plain("one two 3"), is_plain("one, two"), is_plain("one  two"), is_plain("")
        (True, False, False, False)
    """
    return _PLAIN.fullmatch(text) is not None


def turkish_case(text: str) -> str:
    """The letters I and İ in small, as Turkish and Azerbaijani have them: ı and i.

    Example:
        >>> turkish_case("IŞIK, İzmir")
        'ıŞıK, izmir'
    """
    composed = unicodedata.normalize("NFC", text)
    return composed.replace("I", "ı").replace("İ", "i")


def without_accents(text: str) -> str:
    """Letters without the marks that stand above and below them in Latin script.

    Example:
        >>> without_accents("naïve café")
        'naive cafe'
    """
    decomposed = unicodedata.normalize("NFKD", text)

    # NFKD puts an accent behind its letter, as a character of this block.
    kept = "".join(char for char in decomposed if not "\u0300" <= char <= "\u036f")
    return unicodedata.normalize("NFKC", kept)
