"""The runs of experiments/sentences.py: configs/tts/sentences with its folders elsewhere; each goes on after a kill."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sentences_data
import yaml
from figure_runs import Figures, Spec, audiorl, last_figures, newest_evaluation
from tts_runs import changed, in_folder, with_seed

from lightning_audiorl.reports.row_files import read_rows

Parts = dict[str, list[tuple[float, float]]]
"""By metric, errors and length of each text of the evaluation set, in the order of their ids."""

MODEL = "model.init_args"
CONFIGS = Path(__file__).parents[1] / "configs" / "tts" / "sentences"
#: The root of every path in the configurations, and the name of the judge there.
ROOT = "runs/tts/sentences"
WHISPER = "openai/whisper-base"
#: Steps between two checkpoints: what a kill costs.
SAVE_EVERY = 20

#: Row of the table -> configuration and what is changed in it.
ROWS: dict[str, tuple[str, dict[str, Any]]] = {
    "SFT control": ("control", {}),
    "GRPO R1+R2": ("grpo", {}),
    "DiffRO": ("diffro", {}),
    "both + filter, R1+R2": ("grpo_diffro", {}),
}


@dataclass(frozen=True)
class Place:
    """Where the runs are, and where what they did not make is.

    Args:
        out: the folder of everything.
        whisper: folder of Whisper base, which rewards.
        flite: the program that speaks the recordings.
    """

    out: Path
    whisper: Path
    flite: str

    @property
    def data(self) -> Path:
        """The recordings and their manifests."""
        return self.out / "data"

    def export(self, part: str) -> Path:
        """A trained part: codec or token2text."""
        return self.out / part / "export"

    def start(self, seed: int) -> Path:
        """The language model that the rows of a seed start from."""
        return self.out / f"seed{seed}" / "start" / "export"

    def settings(self, config: str, seed: int | None = None) -> Spec:
        """configs/tts/sentences/<config>.yaml with the paths of this place; ``seed`` says whose start."""
        text = (CONFIGS / f"{config}.yaml").read_text()
        if seed is not None:
            text = text.replace(f"{ROOT}/sft/export", str(self.start(seed)))
        text = text.replace(ROOT, str(self.out))
        text = text.replace(WHISPER, str(self.whisper))
        loaded: Spec = yaml.safe_load(text)
        return loaded


def resumed(settings: Spec, folder: Path, seed: int) -> Path:
    """A fit that is done once, and goes on from its last checkpoint after a kill; its folder."""
    settings = in_folder(settings, folder, seed)
    settings["trainer"]["enable_checkpointing"] = True
    settings["checkpoint"] = {"every_n_steps": SAVE_EVERY, "keep": 0}
    audiorl("fit", settings, folder, resume=True)
    return folder


def data(place: Place) -> None:
    """The recordings, unless all manifests are there."""
    manifests = [place.data / f"{part}_unprompted.jsonl" for part in sentences_data.NUM_ROWS]
    if not all(manifest.is_file() for manifest in manifests):
        sentences_data.write(place.data, place.flite)


def part(place: Place, name: str) -> None:
    """Codec or Token2Text, trained once; a kill begins it anew, it takes minutes."""
    settings = place.settings(name)
    folder = place.out / name
    audiorl("fit", in_folder(settings, folder, settings.get("seed_everything", 0)), folder)


def start(place: Place, seed: int) -> None:
    """The language model of one seed: initial weights, prompts, order and draws are its own.

    No judge is asked on the way: `of_start` does it once, on the evaluation set.
    """
    settings = place.settings("sft")
    read, spoken = settings["data"]["init_args"]["train"]
    settings = changed(
        settings,
        {
            f"{MODEL}.policy.init_args.init_from.init_args.seed": seed,
            "data.init_args.train": [read, with_seed(spoken, 100 + seed)],
            "data.init_args.val": None,
        },
    )
    for asked in ("judges", "evaluation", "eval_decodings"):
        del settings["model"]["init_args"][asked]
    resumed(settings, place.start(seed).parent, seed)


def texts(place: Place) -> Spec:
    """The evaluation set: texts that no recording of training has, with prompts of the test part."""
    rows: Spec = place.settings("grpo")["data"]["init_args"]["val"]["dev"]
    recordings = str(place.data / "test.jsonl")
    return {"test": changed(rows, {"init_args.recordings": recordings})}


def row_folder(place: Place, seed: int, name: str) -> Path:
    """Where one row of the table is."""
    words = "".join(letter if letter.isalnum() else " " for letter in name.lower()).split()
    return place.out / f"seed{seed}" / "_".join(words)


def row(place: Place, seed: int, name: str, changes: Mapping[str, Any] = {}) -> Path:
    """One row of the table; the folder of its run."""
    config, of_row = ROWS[name]
    settings = changed(place.settings(config, seed), of_row | dict(changes))
    settings["data"]["init_args"]["val"] = texts(place)
    if config == "control":
        recordings = settings["data"]["init_args"]["train"]
        settings["data"]["init_args"]["train"] = [
            with_seed(each, 100 + seed) for each in recordings
        ]
    return resumed(settings, row_folder(place, seed, name), seed)


def of_start(place: Place, seed: int) -> Figures:
    """The start on the evaluation set."""
    folder = place.out / f"seed{seed}" / "start_test"
    settings = place.settings("grpo", seed)
    settings = changed(settings, {"data.init_args.val": texts(place), "data.init_args.train": None})
    settings = in_folder(settings, folder, seed)
    settings["trainer"]["logger"] = False
    audiorl("validate", settings, folder)
    return last_figures(newest_evaluation(folder))


def row_parts(place: Place, seed: int, name: str) -> Parts:
    """What the last evaluation of a row says of each text."""
    report = row_folder(place, seed, name) / "report" / "report.json"
    # A run that evaluates once keeps it as its first.
    return _parts(report, report.with_name("report.before.jsonl"))


def start_parts(place: Place, seed: int) -> Parts:
    """The same of the start."""
    report = newest_evaluation(place.out / f"seed{seed}" / "start_test")
    return _parts(report, report.with_name("validate.rows.jsonl"))


def _parts(report: Path, rows: Path) -> Parts:
    rl_step = json.loads(report.read_text())["evaluations"][-1]["rl_step"]
    parts: Parts = {}
    for result in read_rows(rows, rl_step)["test"]:
        for name, part in result.parts.items():
            parts.setdefault(name, []).append(part)
    return parts
