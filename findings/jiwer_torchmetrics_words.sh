#!/usr/bin/env bash
# jiwer 4.0.0 and torchmetrics 1.9.0 give one pair of texts two word error rates: jiwer cuts words at U+0020 alone,
# torchmetrics at any white space. A tab, a line break, a no-break space or the ideographic space of Chinese and Japanese
# texts in a transcript is 200 % for the one and 0 % for the other.
#
# A reference without words: jiwer returns the number of inserted words, so that the "rate" of "" against "a b" is 2;
# torchmetrics returns infinity.
#
# Seen: Python 3.11.7. Output then:
#   tab: jiwer 2.0, torchmetrics 0.0
#   line break: jiwer 2.0, torchmetrics 0.0
#   no-break space: jiwer 2.0, torchmetrics 0.0
#   ideographic space: jiwer 2.0, torchmetrics 0.0
#   empty reference: jiwer 2, torchmetrics inf
# What follows: normalise white space before either, and count rows without reference words apart.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check jiwer==4.0.0 torchmetrics==1.9.0 torch==2.11.0

cat > "$folder/rates.py" <<'PYTHON'
import math

import jiwer
from torchmetrics.functional.text import word_error_rate

spaces = {"tab": "\t", "line break": "\n", "no-break space": "\u00a0", "ideographic space": "\u3000"}
for name, space in spaces.items():
    reference = f"a{space}b"
    by_jiwer = jiwer.wer(reference, "a b")
    by_torchmetrics = float(word_error_rate("a b", reference))
    print(f"{name}: jiwer {by_jiwer}, torchmetrics {by_torchmetrics}")
    assert (by_jiwer, by_torchmetrics) == (2.0, 0.0)

inserted = jiwer.wer("", "a b")
rate = float(word_error_rate("a b", ""))
print(f"empty reference: jiwer {inserted}, torchmetrics {rate}")
assert inserted == 2
assert math.isinf(rate)
PYTHON
"$folder/venv/bin/python" "$folder/rates.py"
