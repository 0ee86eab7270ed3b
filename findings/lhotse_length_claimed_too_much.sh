#!/usr/bin/env bash
# lhotse 1.33.0: where a manifest claims up to half a second more than a file holds, load_audio() gives as much as is
# claimed, without a word: what is missing is the end of the file played backwards.
#
# Manifests come to claim too much where files were cut, resampled or encoded again after they were listed. A second of
# a ramp is written, and its recording claims 0.3 s, 0.5 s and 0.6 s more. The first two are filled up with a mirror of
# the end (numpy's pad with mode reflect); only the last is refused. A recogniser is then trained on speech that runs
# backwards, or, with a supervision that ends behind the file, on a text whose end nobody says.
#
# Seen: Python 3.11.7. Output then:
#   0.3 s more claimed: 20800 samples of 16000, the rest is the end played backwards: True
#   0.5 s more claimed: 24000 samples of 16000, the rest is the end played backwards: True
#   0.6 s more claimed: refused
# (urllib3 is needed by its import and named by none of its requirements.)
# What follows for corpora: compare the lengths in a manifest with the files before they are used.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check lhotse==1.33.0 soundfile==0.13.1 numpy==2.4.0 \
    torch==2.11.0 urllib3==2.5.0

cat > "$folder/claim.py" <<'PYTHON'
import sys

import numpy as np
import soundfile
from lhotse import MonoCut, Recording

RATE = 16000
path = sys.argv[1]
soundfile.write(path, np.arange(RATE) / RATE, RATE, subtype="PCM_16")
sources = Recording.from_file(path).sources


def heard(more_s):
    """What a cut of the recording gives, which claims so many seconds more than there are."""
    num_samples = round((1 + more_s) * RATE)
    seconds = num_samples / RATE
    claimed = Recording("a", sources, RATE, num_samples, seconds, channel_ids=[0])
    return MonoCut("a", 0, seconds, 0, recording=claimed).load_audio()[0]


for more_s in (0.3, 0.5):
    samples = heard(more_s)
    rest = samples[RATE:]
    # Before the last sample, in the other direction.
    mirrored = samples[RATE - 1 - len(rest) : RATE - 1][::-1]
    same = np.array_equal(rest, mirrored)
    print(
        f"{more_s} s more claimed: {len(samples)} samples of {RATE}, "
        f"the rest is the end played backwards: {same}"
    )
    assert same, "it is filled up otherwise now"

try:
    heard(0.6)
except Exception:
    print("0.6 s more claimed: refused")
else:
    raise AssertionError("it is taken now")
PYTHON
"$folder/venv/bin/python" "$folder/claim.py" "$folder/a.wav"
