"""Judges of speech: recognisers, speaker encoders and quality predictors, and the panel that asks them."""

from lightning_audiorl.judges.base import AsrJudge, Judge, JudgeError, SpeakerEncoder
from lightning_audiorl.judges.models.ctc import CtcJudge, LogMelGru, MfccConv
from lightning_audiorl.judges.models.mos import DnsmosQuality, PackageQuality
from lightning_audiorl.judges.models.policy import PolicyJudge
from lightning_audiorl.judges.models.pretrained import (
    TransformersJudge,
    TransformersSpeakerEncoder,
)
from lightning_audiorl.judges.models.quality import (
    QualityPredictor,
    SquimQuality,
    TorchmetricsQuality,
)
from lightning_audiorl.judges.models.resemblyzer import ResemblyzerEncoder
from lightning_audiorl.judges.models.speakers import (
    EcapaEncoder,
    EcapaNetwork,
    XvectorEncoder,
    XvectorNetwork,
)
from lightning_audiorl.judges.models.sphinx import PocketSphinxJudge
from lightning_audiorl.judges.panel import JudgePanel
from lightning_audiorl.judges.pitch import Pitch, f0_spread_semitones, pitch_of, voiced_f0_hz
from lightning_audiorl.judges.silence import says_nothing, sound_dbfs
from lightning_audiorl.judges.training.ctc import CtcTraining
from lightning_audiorl.judges.training.speaker import SpeakerTraining
from lightning_audiorl.judges.transcript import Transcript

__all__ = [
    "AsrJudge",
    "CtcJudge",
    "CtcTraining",
    "DnsmosQuality",
    "EcapaEncoder",
    "EcapaNetwork",
    "Judge",
    "JudgeError",
    "JudgePanel",
    "LogMelGru",
    "MfccConv",
    "PackageQuality",
    "Pitch",
    "PocketSphinxJudge",
    "PolicyJudge",
    "QualityPredictor",
    "ResemblyzerEncoder",
    "SpeakerEncoder",
    "SpeakerTraining",
    "SquimQuality",
    "TorchmetricsQuality",
    "Transcript",
    "TransformersJudge",
    "TransformersSpeakerEncoder",
    "XvectorEncoder",
    "XvectorNetwork",
    "f0_spread_semitones",
    "pitch_of",
    "says_nothing",
    "sound_dbfs",
    "voiced_f0_hz",
]
