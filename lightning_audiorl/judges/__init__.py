"""Machines that listen: speech recognisers and speaker encoders that judge what a policy said."""

from lightning_audiorl.judges.base import AsrJudge, Judge, JudgeError, SpeakerEncoder
from lightning_audiorl.judges.ctc import CtcJudge, LogMelGru, MfccConv
from lightning_audiorl.judges.ctc_training import CtcTraining
from lightning_audiorl.judges.panel import JudgePanel
from lightning_audiorl.judges.pitch import f0_spread_semitones, voiced_f0_hz
from lightning_audiorl.judges.pretrained import (
    PolicyJudge,
    TransformersJudge,
    TransformersSpeakerEncoder,
)
from lightning_audiorl.judges.quality import QualityPredictor, SquimQuality, TorchmetricsQuality
from lightning_audiorl.judges.speaker_training import SpeakerTraining
from lightning_audiorl.judges.speakers import (
    EcapaEncoder,
    EcapaNetwork,
    XvectorEncoder,
    XvectorNetwork,
)

__all__ = [
    "AsrJudge",
    "CtcJudge",
    "CtcTraining",
    "EcapaEncoder",
    "EcapaNetwork",
    "Judge",
    "JudgeError",
    "JudgePanel",
    "LogMelGru",
    "MfccConv",
    "PolicyJudge",
    "QualityPredictor",
    "SpeakerEncoder",
    "SpeakerTraining",
    "SquimQuality",
    "TorchmetricsQuality",
    "TransformersJudge",
    "TransformersSpeakerEncoder",
    "XvectorEncoder",
    "XvectorNetwork",
    "f0_spread_semitones",
    "voiced_f0_hz",
]
