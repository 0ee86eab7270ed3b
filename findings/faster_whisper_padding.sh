#!/usr/bin/env bash
# faster-whisper 1.2.1 gives Whisper another input than transformers 5.24.0 for every clip shorter than 30 s: transformers pads
# the samples with silence, whose features are the lowest value of the clip; faster-whisper pads the features with 0, which
# is louder than silence. The features of the clip itself are equal to 1e-5.
#
# Seen: Python 3.11.7, ctranslate2 4.8.5. Output then:
#   in the clip: largest difference 7e-06
#   behind the clip: transformers -0.76, faster-whisper 0.00
# What follows: with the same weights, short clips get other texts by the two ("paused" and "Pause", for one, by a fine-tuned
# Whisper base); compare word error rates within one of them.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check faster-whisper==1.2.1 transformers==5.24.0

cat > "$folder/features.py" <<'PYTHON'
import numpy as np
from faster_whisper.audio import pad_or_trim
from faster_whisper.feature_extractor import FeatureExtractor
from transformers import WhisperFeatureExtractor

# Two seconds of a tone that swells three times a second.
seconds = np.arange(32_000) / 16_000
clip = 0.1 * np.sin(2 * np.pi * 440 * seconds) * (1 + np.sin(2 * np.pi * 3 * seconds))
clip = clip.astype(np.float32)

by_transformers = WhisperFeatureExtractor()(clip, sampling_rate=16_000, return_tensors="np")["input_features"][0]
by_faster_whisper = pad_or_trim(FeatureExtractor()(clip))
assert by_transformers.shape == by_faster_whisper.shape == (80, 3000)

difference = abs(by_transformers[:, :195] - by_faster_whisper[:, :195]).max()
print(f"in the clip: largest difference {difference:.0e}")
assert difference < 1e-3

behind = by_transformers[:, 260:], by_faster_whisper[:, 260:]
print(f"behind the clip: transformers {behind[0].mean():.2f}, faster-whisper {behind[1].mean():.2f}")
assert (behind[0] == behind[0].min()).all() and behind[0].min() < -0.5
assert (behind[1] == 0).all()
PYTHON
"$folder/venv/bin/python" "$folder/features.py"
