#!/usr/bin/env bash
# kaldi-native-fbank 1.23.0: filter banks of one and the same clip differ from call to call. Dither is on by default, as a
# random number of 3e-5 added to every sample. On digital silence, or where a clip has silence in it, two calls differ by
# more than 1 nat; nothing seeds it.
#
# Seen: Python 3.11.7. Output then (random in its digits):
#   default dither: 3e-05
#   silence, two calls: largest difference 1.9
#   tone in samples of 1: largest difference 1.6
#   dither 0: largest difference 0.0
# What follows: policies, references and judges that read these features see another clip at each pass; set
# frame_opts.dither to 0.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check kaldi_native_fbank==1.23.0 numpy

cat > "$folder/features.py" <<'PYTHON'
import kaldi_native_fbank as knf
import numpy as np


def features(samples, dither=None):
    options = knf.FbankOptions()
    if dither is not None:
        options.frame_opts.dither = dither
    bank = knf.OnlineFbank(options)
    bank.accept_waveform(16000, samples.tolist())
    bank.input_finished()
    return np.stack([bank.get_frame(i) for i in range(bank.num_frames_ready)])


def difference(samples, dither=None):
    return float(abs(features(samples, dither) - features(samples, dither)).max())


seconds = np.arange(16000) / 16000
silence = np.zeros(16000, dtype=np.float32)
tone = (0.1 * np.sin(2 * np.pi * 440 * seconds)).astype(np.float32)

print(f"default dither: {knf.FbankOptions().frame_opts.dither:.0e}")
print(f"silence, two calls: largest difference {difference(silence):.1f}")
print(f"tone in samples of 1: largest difference {difference(tone):.1f}")
print(f"dither 0: largest difference {difference(tone, 0.0):.1f}")
assert difference(silence) > 1
assert difference(tone) > 1
assert difference(tone, 0.0) == 0
PYTHON
"$folder/venv/bin/python" "$folder/features.py"
