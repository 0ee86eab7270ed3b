"""Data sets in the layouts of other tools: one module each, one line in this table for a new one."""

from __future__ import annotations

from lightning_audiorl.data.layouts.aishell import Aishell
from lightning_audiorl.data.layouts.base import Layout
from lightning_audiorl.data.layouts.commonvoice import CommonVoice
from lightning_audiorl.data.layouts.cv3eval import Cv3Eval
from lightning_audiorl.data.layouts.fleurs import Fleurs
from lightning_audiorl.data.layouts.folder import Folder
from lightning_audiorl.data.layouts.hf import HuggingFace
from lightning_audiorl.data.layouts.kaldi import Kaldi
from lightning_audiorl.data.layouts.lhotse_cuts import Lhotse
from lightning_audiorl.data.layouts.librispeech import LibriSpeech
from lightning_audiorl.data.layouts.ljspeech import LJSpeech
from lightning_audiorl.data.layouts.seedtts import SeedTts
from lightning_audiorl.data.layouts.tar import Tar

#: By the name that ``audiorl manifest --kind`` takes.
LAYOUTS: dict[str, type[Layout]] = {
    "folder": Folder,
    "ljspeech": LJSpeech,
    "commonvoice": CommonVoice,
    "librispeech": LibriSpeech,
    "aishell": Aishell,
    "fleurs": Fleurs,
    "kaldi": Kaldi,
    "lhotse": Lhotse,
    "hf": HuggingFace,
    "tar": Tar,
    "seedtts": SeedTts,
    "cv3eval": Cv3Eval,
}

__all__ = ["LAYOUTS", "Layout"]
