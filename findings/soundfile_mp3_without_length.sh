#!/usr/bin/env bash
# soundfile 0.13.1 (libsndfile 1.2.2): of a variable-rate mp3 without a Xing header the number of frames is a guess from
# the first ones, and a whole read ends there, without a word.
#
# Streaming encoders, encoders that write to a pipe, and cuts without re-encoding leave the header out. Ten seconds with a
# pause in the middle are written as mp3 by soundfile itself; then its first frame, which is that header, is taken off.
# Every frame of sound is still there. frames, and what read() returns, are about an eighth of it.
#
# Seen: Python 3.11.7. Output then:
#   with the header: 160000 frames, 160000 read
#   without it: 18777 frames, 18777 read
# What follows for corpora: do not take an mp3's length from such a header; count its frames.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check soundfile==0.13.1 numpy==2.4.0

cat > "$folder/mp3.py" <<'PYTHON'
import io

import numpy as np
import soundfile

RATE = 16000
time = np.arange(10 * RATE) / RATE
wave = 0.3 * np.sin(2 * np.pi * (200 + 40 * time) * time)
wave[2 * RATE : 8 * RATE] = 0

file = io.BytesIO()
soundfile.write(file, wave, RATE, format="MP3", bitrate_mode="VARIABLE", compression_level=0.5)
whole = file.getvalue()

# The first frame of MPEG-2, layer 3: its size stands in its header.
start = next(i for i in range(len(whole)) if whole[i] == 0xFF and whole[i + 1] & 0xE0 == 0xE0)
KBPS = [0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160]
padding = whole[start + 2] >> 1 & 1
size = 72 * KBPS[whole[start + 2] >> 4] * 1000 // RATE + padding

found = []
for name, data in (("with the header", whole), ("without it", whole[start + size :])):
    frames = soundfile.info(io.BytesIO(data)).frames
    read = len(soundfile.read(io.BytesIO(data))[0])
    print(f"{name}: {frames} frames, {read} read")
    found.append(read)

assert found[0] == 160000
assert found[1] < 40000, "it is read whole now"
PYTHON
"$folder/venv/bin/python" "$folder/mp3.py"
