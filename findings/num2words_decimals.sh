#!/usr/bin/env bash
# num2words 0.5.14: a decimal is read right in English and German, and as another number in Arabic and Turkish, where
# 3.5 becomes "three, fifty" (as an amount of money would be read). Negative decimals raise a ValueError in Polish.
# There is no Chinese at all; the Japanese year is that of the emperor's era.
#
# Seen: Python 3.11.7. Output then:
#   tr 3.5 -> üçvirgülelli
#   ar 3.5 -> ثلاثة  , خمسون
#   pl -3.5 -> ValueError
#   zh 21 -> NotImplementedError
#   ja year 1999 -> 平成十一年
# What follows for word error rates in which digits are spelled out: a right transcript of a decimal counts as wrong in
# these languages; leave decimals as digits there.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check num2words==0.5.14

cat > "$folder/spell.py" <<'PYTHON'
from num2words import num2words

turkish = num2words(3.5, lang="tr")
print("tr 3.5 ->", turkish)
# elli is fifty, beş would be five.
assert turkish == "üçvirgülelli"

arabic = num2words(3.5, lang="ar")
print("ar 3.5 ->", arabic)
assert num2words(50, lang="ar") in arabic

for lang, number, error in (("pl", -3.5, ValueError), ("zh", 21, NotImplementedError)):
    try:
        num2words(number, lang=lang)
    except error:
        print(f"{lang} {number} -> {error.__name__}")
    else:
        raise SystemExit(f"{lang}: {number} is spelled now")

year = num2words(1999, lang="ja", to="year")
print("ja year 1999 ->", year)
assert year == "平成十一年"
PYTHON
"$folder/venv/bin/python" "$folder/spell.py"
