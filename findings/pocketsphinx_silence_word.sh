#!/usr/bin/env bash
# pocketsphinx 5.1.1, default model and settings: a second of digital silence is heard as a word, and its probability is
# said to be 1. Which word depends on what the decoder heard before, because the mean of the features goes on from one
# utterance to the next; cmn="batch" does not make an utterance independent of the ones before, either.
#
# Seen: Python 3.11.7. Output then:
#   silence, new decoder: 'dog', probability 1.0
#   silence again: 'dog', probability 1.0
#   silence after a tone and noise: "i'm", probability 1.0
#   with cmn=batch: 'dog', then "i'm"
# What follows for a recogniser that judges synthesised speech: a decoder for each clip, and no trust in its probability
# where a clip is silent.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check pocketsphinx==5.1.1 numpy

cat > "$folder/hear.py" <<'PYTHON'
import numpy as np
from pocketsphinx import Decoder


def heard(decoder, samples):
    decoder.start_utt()
    decoder.process_raw(samples.astype(np.int16).tobytes(), full_utt=True)
    decoder.end_utt()
    hypothesis = decoder.hyp()
    return (hypothesis.hypstr, hypothesis.prob)


seconds = np.arange(16000) / 16000
silence = np.zeros(16000)
tone = 8000 * np.sin(2 * np.pi * 440 * seconds)
noise = 1000 * np.random.default_rng(0).standard_normal(16000)

decoder = Decoder(samprate=16000, loglevel="FATAL")
first = heard(decoder, silence)
again = heard(decoder, silence)
heard(decoder, tone)
heard(decoder, noise)
after = heard(decoder, silence)
print(f"silence, new decoder: {first[0]!r}, probability {first[1]}")
print(f"silence again: {again[0]!r}, probability {again[1]}")
print(f"silence after a tone and noise: {after[0]!r}, probability {after[1]}")
assert first[0] and first[1] == 1.0
assert after[0] and after[1] == 1.0
assert after[0] != first[0]

batch = Decoder(samprate=16000, loglevel="FATAL", cmn="batch")
first = heard(batch, silence)
heard(batch, tone)
heard(batch, noise)
after = heard(batch, silence)
print(f"with cmn=batch: {first[0]!r}, then {after[0]!r}")
assert first[0] != after[0]
PYTHON
"$folder/venv/bin/python" "$folder/hear.py"
