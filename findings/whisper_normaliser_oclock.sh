#!/usr/bin/env bash
# transformers 5.24.0: the English normaliser of Whisper, by which the Open ASR Leaderboard compares, reads "o'clock" as
# "0 clock" behind a number, and the O of Irish names as a zero; a second pass drops signs.
#
# "two o'clock" becomes "20 clock" and O'Neil "0 neil". A reference and a transcript that went through it a different
# number of times differ: "minus 5" becomes "-5", and that becomes "5".
#
# Seen: Python 3.11.7. Output then:
#   two o'clock -> 20 clock
#   O'Neil called -> 0 neil called
#   minus 5 -> -5 -> 5
# What follows for word error rates: normalise once, and mend these before the call.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check transformers==5.24.0

cat > "$folder/normalise.py" <<'PYTHON'
from transformers.models.whisper.english_normalizer import EnglishTextNormalizer

normalise = EnglishTextNormalizer({})
for text, expected in (("two o'clock", "20 clock"), ("O'Neil called", "0 neil called")):
    print(f"{text} -> {normalise(text)}")
    assert normalise(text) == expected

once = normalise("minus 5")
twice = normalise(once)
print(f"minus 5 -> {once} -> {twice}")
assert (once, twice) == ("-5", "5")
PYTHON
"$folder/venv/bin/python" "$folder/normalise.py"
