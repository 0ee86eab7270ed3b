"""Is Token2Text to be trusted: beside the held-out judge, on recordings and on samples of a start."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from tts_runs import SAMPLED, parts, parts_and_start

from lightning_audiorl.codecs import TinyCodec
from lightning_audiorl.commands.calibrate import SAMPLES, calibrations
from lightning_audiorl.data import FsddSpeech
from lightning_audiorl.judges import CtcJudge
from lightning_audiorl.models import SpeechLMPolicy
from lightning_audiorl.rewards import DifferentiableMix
from lightning_audiorl.types import Decoding

NUM_ROWS = 200


def validated(out: Path, seed: int) -> dict[str, Any]:
    """Error rates and rank correlations, on natural and on sampled speech of the dev part."""
    folders = {name: str(path) for name, path in parts(out).items()}
    judge = CtcJudge(folders["held_out_asr_judge"], name="held_out_asr")
    policy = SpeechLMPolicy(str(parts_and_start(out, seed)["sft"]), TinyCodec(folders["codec"]))
    rows = FsddSpeech(part="dev", num_words=(1, 4), prompt_words=(1, 2), num_rows=NUM_ROWS, seed=21)
    decoding = Decoding(**SAMPLED["sampled"]["decoding"])
    found = calibrations(
        DifferentiableMix(folders["token2text"]), judge, rows, policy, decoding=decoding
    )
    return {
        name.replace(SAMPLES, "samples of the start"): asdict(one) for name, one in found.items()
    }
