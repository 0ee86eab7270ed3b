"""Is a hallucination subset mined from a model worth its name? Its rate on fresh samples against a matched control."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

from asr_grounds import Ground
from figure_runs import Spec, audiorl, spec

from lightning_audiorl.data import AsrRLDataModule


def made(value: Any) -> Any:
    """The object that a spec (class path and arguments, nested) describes."""
    if isinstance(value, dict) and "class_path" in value:
        module, _, name = value["class_path"].rpartition(".")
        return getattr(importlib.import_module(module), name)(**made(value["init_args"]))
    if isinstance(value, dict):
        return {key: made(item) for key, item in value.items()}
    return [made(item) for item in value] if isinstance(value, list) else value


def rate(hypotheses: Path) -> float:
    """Share of samples in which a hallucination rule fired."""
    lines = [json.loads(line) for line in hypotheses.read_text().splitlines()]
    fired = [bool(sample["rules"]) for line in lines for sample in line["samples"]]
    return sum(fired) / len(fired)


def mined(
    ground: Ground,
    start: str,
    folder: Path,
    hypotheses: Path,
    seed: int,
    speech_only: bool,
    num_rows: int = 40,
) -> dict[str, Any]:
    """Choose both subsets, decode them anew with other draws, and compare.

    Args:
        hypotheses: what the subset is chosen by: the start's, over the pool.
        speech_only: choose among the rows with speech.
        num_rows: of each subset; the control has the same kinds (speech, non-speech), and durations to within 2 s.

    Returns:
        ``mined`` and ``control``: hallucination rate over 8 fresh samples a row; ``rows`` of each.
    """
    builders = {
        "mined": spec("data.subsets.Hallucinating", num_rows=num_rows, min_rate=0.5),
        "control": spec("data.subsets.RandomControl", like="mined", bin_s=2.0),
    }

    source = ground.speech if speech_only else ground.pool
    subsets = {
        name: spec("data.RLSubset", source=source, builder=made_of)
        for name, made_of in builders.items()
    }
    subsets["mined"]["init_args"]["hypotheses"] = [str(hypotheses)]

    data = AsrRLDataModule(
        subsets=made(subsets),
        cache_dir=str(folder / "rl_data"),
        val=made(ground.evaluation),
        seed=seed,
    )
    data.prepare_data()

    out: dict[str, Any] = {"rows": {}}
    for name in builders:
        manifest = data.folder / f"{name}.jsonl"
        rows = spec("data.ManifestRows", path=str(manifest), allow_empty_text=True)
        fresh = folder / name / "fresh.jsonl"

        # With draws of another seed than those that the subset was chosen by: it would look worse than it is.
        sampled = {"sampled": {"decoding": ground.sampling(), "num_samples": 8}}
        settings: Spec = {
            "models": {"start": ground.policy(start)},
            "rows": rows,
            "out": str(fresh),
        }
        audiorl("predict", settings | {"decodings": sampled, "seed": seed + 1000}, folder / name)

        out[name] = rate(fresh)
        out["rows"][name] = len(manifest.read_text().splitlines())
    return out
