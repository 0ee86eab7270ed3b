"""Speech as codes: what every codec declares, a tiny one of our own, those of transformers, an adapter for others."""

from __future__ import annotations

from lightning_audiorl.codecs.base import Codec, CodecError, SpeakerCondition
from lightning_audiorl.codecs.cosyvoice import CosyVoice2Codec
from lightning_audiorl.codecs.hf import AudioTokenizationCodec, NeuCodecCodec, Xcodec2Codec
from lightning_audiorl.codecs.tiny import TinyCodec, TinyCodecConfig
from lightning_audiorl.codecs.training import CodecTraining

__all__ = [
    "AudioTokenizationCodec",
    "Codec",
    "CodecError",
    "CodecTraining",
    "CosyVoice2Codec",
    "NeuCodecCodec",
    "SpeakerCondition",
    "TinyCodec",
    "TinyCodecConfig",
    "Xcodec2Codec",
]
