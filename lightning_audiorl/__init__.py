"""Reinforcement learning for LLM-based ASR and TTS, as PyTorch Lightning modules (arXiv 2509.18569).

``from lightning_audiorl import GRPO, WhisperPolicy, train``: the names that a program begins with stand here. The
package of a name, and torch with it, is imported when the name is asked for.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
from typing import Any

from lightning_audiorl import moved

__version__ = version("lightning-audiorl")

moved.install()

# By package; each of them has more.
_NAMES = {
    "training": "Run train",
    "algorithms": "DiffRO EvalDecoding GRPO GRPODiffRO Optim SFT",
    "data": (
        "AsrDataModule AsrRLDataModule EspeakCorpus ManifestRows NonSpeech RLSubset Subset TtsDataModule "
        "TtsRLDataModule read_audio read_manifest write_manifest"
    ),
    "models": (
        "CanaryPolicy EncoderCache Finetune FunAsrNanoPolicy GlmAsrPolicy GraniteSpeechPolicy MoonshinePolicy "
        "Qwen2AudioPolicy Qwen3ASRPolicy SpeechLMPolicy TextLMPolicy VoxtralPolicy WhisperPolicy"
    ),
    "rewards": (
        "Accuracy Diversity DurationConsistency ExactMatch ExpAccuracy FunctionReward Hallucination Keyword "
        "LengthError Reward RewardMix SoftOverlong SpeakerSimilarity SpeechAccuracy SpeechBounds TextReward"
    ),
    "types": "Decoding Hypothesis Utterance",
}
_PACKAGES = {name: package for package, names in _NAMES.items() for name in names.split()}

__all__ = ["__version__", *sorted(_PACKAGES)]


def __getattr__(name: str) -> Any:
    """One of `_NAMES`, from its package."""
    if name not in _PACKAGES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_PACKAGES[name]}"), name)
    globals()[name] = value
    return value
