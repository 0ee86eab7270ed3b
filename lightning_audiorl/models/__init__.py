"""Policies over transformers classes."""

from __future__ import annotations

from lightning_audiorl.models.finetune import Finetune
from lightning_audiorl.models.fun_asr_nano import FunAsrNanoPolicy
from lightning_audiorl.models.policy import Context, Policy, SampleKey
from lightning_audiorl.models.reference import Reference, content_hash
from lightning_audiorl.models.tiny import DIGIT_WORDS, TinyFunAsrNano

__all__ = [
    "DIGIT_WORDS",
    "Context",
    "Finetune",
    "FunAsrNanoPolicy",
    "Policy",
    "Reference",
    "SampleKey",
    "TinyFunAsrNano",
    "content_hash",
]
