"""Training mixes of the rows that `experiments.real.data` wrote: subsets for `AsrRLDataModule`, by the package's rules.

``paper``: non-speech has a share of every batch (one half: two rows of a batch of four); what is left is dealt out
equally among

================  ======================================================================================
prompts (D0)      drawn at random
joined (D2)       long audio
hard (D1)         rows of the pool whose sampled hypotheses disagree
hallucinating     rows of the pool in which a hallucination rule fires in the start's own samples
================  ======================================================================================

``random``: as many rows, drawn from everything there is, prompts, joined and non-speech, without a share of its own for
anything: what the choice of data is worth beside taking data as it comes. ``random_matched``: the same draw, but
non-speech has the share that it has in ``paper``; then only the choice among rows with speech differs.

Hypotheses are compared as the builders compare them, by the plain normaliser: "4" and "four" disagree.

    python -m experiments.real.mix DATA HYPOTHESES     # says what each rule finds
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

from experiments.figure_runs import Spec, spec
from experiments.real.wavs import counts, write_rows
from lightning_audiorl.data import (
    Candidate,
    Hallucinating,
    Hard,
    HypothesisFiles,
    Learnable,
    ManifestRows,
    RLSubset,
)
from lightning_audiorl.data.mix.build import MixPlan
from lightning_audiorl.types import Utterance

Kind = Literal["paper", "random", "random_matched"]
#: Rows of each subset of the paper's mix, at most, and of its non-speech.
SIZE = 40
NONSPEECH_SIZE = 60
#: A mined subset of fewer rows would be the same few clips over and over: it is left out, and that is said.
LEAST = 8
#: No training row may hold audio of these.
HELD_OUT = (
    "dev_prompts",
    "dev_nonspeech",
    "test_prompts",
    "test_nonspeech",
    "test_long",
    "test_fsdd_short",
    "test_fsdd_long",
)
#: Rules by subset, and what they are given. Only sampled hypotheses count, where greedy ones are in the file, too.
_MINED: dict[str, tuple[type[Hard | Hallucinating | Learnable], dict[str, Any]]] = {
    "hard": (Hard, {"min_disagreement": 0.05, "max_disagreement": 1.0}),
    "hallucinating": (Hallucinating, {"min_rate": 0.1}),
    "learnable": (Learnable, {}),
}


def held_out(data: Path) -> dict[str, str]:
    """Manifests of the evaluation sets by name: ``forbid`` of the data module."""
    found = {name: data / f"{name}.jsonl" for name in HELD_OUT}
    return {name: str(path) for name, path in found.items() if path.is_file()}


def mined(pool: Path, hypotheses: Path, decoding: str = "sampled") -> dict[str, int]:
    """How many rows of the pool each rule on hypotheses admits.

    Args:
        pool: ``mine_pool.jsonl``.
        hypotheses: what ``audiorl predict`` wrote about it.
        decoding: name of the sampled decoding in that file.

    Raises:
        HypothesisError: hypotheses of other rows. ValueError: none of this decoding.
    """
    files = HypothesisFiles([str(hypotheses)])
    found = dict.fromkeys(_MINED, 0)
    for number, row in enumerate(ManifestRows(str(pool))):
        candidate = Candidate(number, row, files.of(row))
        for name, (rule, settings) in _MINED.items():
            builder = rule(decodings=[decoding], **settings)
            found[name] += builder.judge(candidate).keep
    return found


def subsets(
    data: Path,
    hypotheses: Path,
    kind: Kind = "paper",
    nonspeech: float = 0.5,
    decoding: str = "sampled",
) -> dict[str, Spec]:
    """The setting ``subsets`` of `AsrRLDataModule`, as YAML has it.

    Args:
        data: folder of the manifests.
        hypotheses: what ``audiorl predict`` wrote about ``mine_pool.jsonl``.
        kind: see the module. All of them have as many rows, of which some may be the same in ``paper``.
        nonspeech: share of every batch that has no speech.
        decoding: name of the sampled decoding among the hypotheses.

    Raises:
        ValueError: no rule finds rows; also what `mined` raises.
    """
    paper = _paper(data, hypotheses, nonspeech, decoding)
    if kind == "paper":
        return paper

    sizes = {name: subset["builder"]["init_args"]["num_rows"] for name, subset in paper.items()}
    speech = [_rows(data, "train_prompts"), _rows(data, "train_joined")]
    if kind == "random":
        everything = [*speech, _rows(data, "train_nonspeech")]
        return {"random": _random(everything, sum(sizes.values()), 1.0)}

    size = sum(sizes.values()) - sizes["nonspeech"]
    return {
        "random": _random(speech, size, 1.0 - nonspeech),
        "nonspeech": paper["nonspeech"],
    }


def _paper(data: Path, hypotheses: Path, nonspeech: float, decoding: str) -> dict[str, Spec]:
    found = mined(data / "mine_pool.jsonl", hypotheses, decoding)
    names = [name for name in ("hard", "hallucinating") if found[name] >= LEAST]
    if not names:
        raise ValueError(
            f"{hypotheses}: neither hard nor hallucinating rows ({found}), at least {LEAST} wanted; predict with more "
            "samples or a higher temperature, or lower LEAST"
        )

    share = (1.0 - nonspeech) / (2 + len(names))
    made = {
        "prompts": _drawn(data, "train_prompts", SIZE, share),
        "joined": _drawn(data, "train_joined", SIZE, share),
    }
    for name in names:
        rule, settings = _MINED[name]
        builder = spec(
            f"data.{rule.__name__}",
            num_rows=min(SIZE, found[name]),
            decodings=[decoding],
            **settings,
        )
        made[name] = {
            "source": str(data / "mine_pool.jsonl"),
            "hypotheses": [str(hypotheses)],
            "builder": builder,
            "share": share,
        }

    silent = _drawn(data, "train_nonspeech", NONSPEECH_SIZE, nonspeech)
    made["nonspeech"] = {**silent, "allow_empty_text": True}
    return made


def _rows(data: Path, name: str) -> Spec:
    path = str(data / f"{name}.jsonl")
    return spec("data.ManifestRows", path=path, allow_empty_text=True)


def _drawn(data: Path, name: str, num_rows: int, share: float) -> Spec:
    """Rows of one manifest, drawn; all of them where it has fewer."""
    path = data / f"{name}.jsonl"
    num_there = len(path.read_text().splitlines())
    builder = spec("data.RandomControl", num_rows=min(num_rows, num_there))
    return {"source": str(path), "builder": builder, "share": share}


def _random(sources: list[Spec], num_rows: int, share: float) -> Spec:
    return {
        "source": spec("data.JoinedRows", sources=sources),
        "builder": spec("data.RandomControl", num_rows=num_rows),
        "share": share,
    }


def mix(
    data: Path, hypotheses: Path, kind: Kind = "paper", nonspeech: float = 0.5, seed: int = 0
) -> dict[str, object]:
    """Write the rows of a mix as ``train_mix_<kind>.jsonl`` beside the others, with the subset that each is of.

    A run needs no such file, as its data module builds the mix itself; it is there to be looked at and listened to.

    Args:
        data: folder of the manifests.
        hypotheses: of its pool.
        kind: see the module.
        nonspeech: share of non-speech in a batch.
        seed: of the run: draws among rows of equal rank.

    Returns:
        Its rows, minutes, words and kinds.
    """
    chosen = _made(subsets(data, hypotheses, kind, nonspeech))
    kept_out: dict[str, list[Utterance]] = {}
    for name, path in held_out(data).items():
        kept_out[name] = list(ManifestRows(path, allow_empty_text=True))
    folder = MixPlan(chosen, kept_out, cache_dir=str(data / "rl_data"), seed=seed).build()

    rows: list[Utterance] = []
    for name in chosen:
        for row in ManifestRows(str(folder / f"{name}.jsonl"), allow_empty_text=True):
            rows.append(replace(row, id=f"{name}/{row.id}", extra={**row.extra, "subset": name}))
    return counts(write_rows(rows, data / f"train_mix_{kind}.jsonl"))


def _made(value: Any) -> Any:
    """The objects that specs describe; a subset is one, too."""
    if isinstance(value, list):
        return [_made(item) for item in value]
    if not isinstance(value, dict):
        return value

    if "class_path" in value:
        module, _, name = value["class_path"].rpartition(".")
        return getattr(import_module(module), name)(**_made(value["init_args"]))
    made = {key: _made(item) for key, item in value.items()}
    if "builder" in made:
        return RLSubset(**made)
    return made


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("hypotheses", type=Path)
    parser.add_argument("--nonspeech", type=float, default=0.5)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    print(json.dumps(mined(args.data / "mine_pool.jsonl", args.hypotheses)))
    kinds: tuple[Kind, ...] = ("paper", "random", "random_matched")
    for kind in kinds:
        found = mix(args.data, args.hypotheses, kind, args.nonspeech, args.seed)
        print(kind, json.dumps(found))


if __name__ == "__main__":
    main()
