"""Token2Text: the frozen network that DiffRO differentiates, its training and its validation."""

from lightning_audiorl.token2text.network import Encoded, Token2Text, with_end
from lightning_audiorl.token2text.training import Token2TextTraining
from lightning_audiorl.token2text.validation import Calibration, calibration

__all__ = ["Calibration", "Encoded", "Token2Text", "Token2TextTraining", "calibration", "with_end"]
