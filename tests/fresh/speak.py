"""What transformers alone speaks by an export: a script for an environment that has it and torch.

python tests/fresh/speak.py FOLDER    # with an export and inputs.pt in each folder of it; writes spoken.json
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import load_file

MAX_NEW_TOKENS = 8


def main(folder: Path) -> None:
    """Generate from every prompt by every export, and write the tokens by the exports' names."""
    found = {}
    for export in sorted(path.parent for path in folder.glob("*/inputs.pt")):
        found[export.name] = spoken(export)
    (folder / "spoken.json").write_text(json.dumps(found))


def spoken(folder: Path) -> list[Any]:
    """Tokens, or frames of codes, of each prompt in ``inputs.pt``."""
    model = loaded(folder)
    how: dict[str, Any] = {"do_sample": False, "max_new_tokens": MAX_NEW_TOKENS}
    has_frames = model.config.model_type == "csm"
    if has_frames:
        how["depth_decoder_do_sample"] = False

    rows = []
    for inputs in torch.load(folder / "inputs.pt", weights_only=True):
        with torch.no_grad():
            out = model.generate(**inputs, **how)[0]
        # Frames come without their prompt.
        rows.append((out if has_frames else out[inputs["input_ids"].shape[1] :]).tolist())
    return rows


def loaded(folder: Path) -> Any:
    """The model by the class that its config.json names; a head's bias, which some classes drop, is put back."""
    [name] = json.loads((folder / "config.json").read_text())["architectures"]
    kind = getattr(transformers, name, transformers.AutoModelForCausalLM)
    model = kind.from_pretrained(folder, attn_implementation="sdpa").eval()
    weights = load_file(folder / "model.safetensors")
    if "lm_head.bias" in weights:
        model.lm_head.bias = torch.nn.Parameter(weights["lm_head.bias"])
    return model


if __name__ == "__main__":
    main(Path(sys.argv[1]))
