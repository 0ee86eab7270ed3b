#!/usr/bin/env bash
# speechmos 0.0.1.1 (DNSMOS, the ONNX models inside): digital silence is rated far above noise, nothing of it is refused,
# and the end of a clip may go unheard.
#
# Ten seconds of digital silence have a signal quality (sig_mos) of 2.5 and white noise of 1.2; noise at a level of 0.001
# is rated like silence, at 0.01 like noise. A clip of 10 s is rated by its first 9.01 s: windows move by whole seconds and
# the rest is dropped, so that noise in the last .9 s changes no digit.
#
# Seen: Python 3.11.7, numpy 2.4.6, onnxruntime 1.20 and newer. Output then:
#   silence: sig 2.51, ovrl 1.84
#   noise at 0.1: sig 1.18, ovrl 1.11
#   noise at 0.001: sig 2.30, ovrl 1.80
#   10 s with a clean end and with a noisy end: equal
# What follows for a reward: a policy that falls silent is paid for it; take silent clips out first, and pad a clip to
# 9.01 s plus whole seconds where its end counts.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check speechmos==0.0.1.1 numpy==2.4.6 onnxruntime librosa

cat > "$folder/rate.py" <<'PYTHON'
import numpy as np
from speechmos import dnsmos


def rated(samples):
    scores = dnsmos.run(samples.astype(np.float32), 16000)
    return {name: float(scores[name]) for name in ("sig_mos", "ovrl_mos")}


def line(name, scores):
    print(f"{name}: sig {scores['sig_mos']:.2f}, ovrl {scores['ovrl_mos']:.2f}")


noise = np.random.default_rng(0).standard_normal(160_000)
silence = rated(np.zeros(160_000))
loud = rated(np.clip(0.1 * noise, -1, 1))
faint = rated(0.001 * noise)
line("silence", silence)
line("noise at 0.1", loud)
line("noise at 0.001", faint)
assert silence["sig_mos"] > loud["sig_mos"] + 1
assert faint["sig_mos"] > loud["sig_mos"] + 0.8

# A buzz of 120 Hz that swells three times a second, ten seconds long.
seconds = np.arange(160_000) / 16_000
buzz = sum(np.sin(2 * np.pi * 120 * k * seconds) / k for k in range(1, 30))
clean = 0.1 * buzz * (1 + np.sin(2 * np.pi * 3 * seconds))
noisy_end = clean.copy()
noisy_end[-14_400:] = np.clip(0.3 * noise[-14_400:], -1, 1)
assert rated(clean) == rated(noisy_end)
print("10 s with a clean end and with a noisy end: equal")
PYTHON
"$folder/venv/bin/python" "$folder/rate.py"
