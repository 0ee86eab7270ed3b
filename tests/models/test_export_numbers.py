"""An export whose weights are no numbers is none."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from lightning_audiorl.commands.export import export
from tests.models.families import make


@pytest.mark.fault(
    "What is exported",
    "weights beyond what float16 holds, or NaN, in an export",
    "it is refused with the tensor's name; the model that was in the folder stays",
)
def test_an_export_of_what_is_not_finite_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "export"
    make("text_lm").export(str(folder))
    earlier = (folder / "model.safetensors").read_bytes()

    large = make("text_lm")
    with torch.no_grad():
        large.model.model.norm.weight[0] = 9e4
    with pytest.raises(ValueError, match=r"model\.norm\.weight.*float16"):
        export(large, str(folder), "float16")
    lost = make("text_lm")
    with torch.no_grad():
        lost.model.model.norm.weight[0] = math.nan
    with pytest.raises(ValueError, match=r"NaN or infinite values in model\.norm\.weight"):
        lost.export(str(folder))
    assert (folder / "model.safetensors").read_bytes() == earlier
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]
