"""Real speech for RL on Whisper: training rows, evaluation sets and a pool to mine, from a folder of recordings.

    python -m experiments.real.data REAL OUT [--fsdd ROOT] [--seed 0]

REAL holds ``asterisk/{train,dev,test,nonspeech}.jsonl``: prompts of one voice with their texts, and beeps, tones and
silence. OUT gets wav files of 16 kHz and manifests that name them relative to OUT, so that the folder may move:

=======================  ==============================================================================================
train_prompts            prompts of the train part that fit into Whisper's window
train_joined             the same prompts, each in at most two rows, joined to 15 s or more (D2)
train_nonspeech          noise and music made here, no text
mine_pool                a draw of train_prompts, and train_joined: what the start decodes, and is mined from
dev_prompts              to choose settings by
dev_nonspeech            the kinds of train_nonspeech, another draw
test_prompts             the whole test part
test_nonspeech           recorded beeps, tones, silence; another draw of noise and music, half of the kinds untrained
test_long                test prompts, each in at most two rows, joined to 30 to 120 s
test_fsdd_short, _long   connected digits of the Free Spoken Digit Dataset, up to 5 and from 25 words (with --fsdd)
=======================  ==============================================================================================

Each row says its ``kind``; rows without speech also whether training has it (``kind_in_training``). Every draw is keyed
by the seed: the same command writes the same bytes. What is there is kept, so a command that was killed goes on.
Rows are mixed by `experiments.real.mix`.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from experiments.real.wavs import as_wav, counts, named, write_json, write_rows
from lightning_audiorl.data import FsddDigits, JoinedNeighbours, NonSpeech, RowSource, read_manifest
from lightning_audiorl.data.manifest.source import PickedRows
from lightning_audiorl.ops.randomness import keyed_generator
from lightning_audiorl.types import Utterance

#: Whisper hears 30 s at a time.
WINDOW_S = 29.9
TRAINED_KINDS = ("white", "pink", "music")
UNTRAINED_KINDS = ("brown", "hum", "clicks")
#: Silence between joined prompts, in seconds.
_GAP_S = (0.3, 1.0)
#: How often a prompt may occur among joined rows.
_TURNS = 2
#: Levels at which noise and music stay below full scale; clicks are louder than their mean.
_LEVEL_DB = (-50.0, -25.0)
_CLICKS_DB = (-65.0, -45.0)


@dataclass(frozen=True)
class Sizes:
    """Rows of each set; where prompts do not suffice there are fewer joined ones.

    Args:
        pool: prompts of the mining pool, without the joined ones.
        joined: at most so many joined training rows.
        nonspeech: training rows without speech.
        dev_nonspeech: rows without speech to choose settings by.
        test_per_kind: test rows of each kind of noise and music.
        long_rows: at most so many long test rows.
        long_s: at most so many seconds of them.
        fsdd: short and long rows of digits.
    """

    pool: int = 90
    joined: int = 60
    nonspeech: int = 60
    dev_nonspeech: int = 12
    test_per_kind: int = 5
    long_rows: int = 12
    long_s: float = 900.0
    fsdd: tuple[int, int] = (60, 12)


def build(
    real: Path, out: Path, fsdd: Path | None = None, seed: int = 0, sizes: Sizes | None = None
) -> dict[str, Any]:
    """Write everything into ``out``; what is there is kept.

    Args:
        real: folder of recordings, see the module.
        out: gets wav files, manifests and ``summary.json``.
        fsdd: the Free Spoken Digit Dataset; without it there are no sets of digits.
        seed: another seed gives other draws.
        sizes: rows of each set; None is the default of each.

    Returns:
        What ``summary.json`` holds: settings, and rows, minutes, words and kinds of each manifest.

    Raises:
        ValueError: ``out`` holds data of other settings or recordings.
        ManifestError, AudioError: bad input.
    """
    sizes = sizes or Sizes()
    parts = {part: _recordings(real, part) for part in ("train", "dev", "test", "nonspeech")}
    settings = _settings(parts, fsdd is not None, seed, sizes)
    out = out.absolute()
    out.mkdir(parents=True, exist_ok=True)
    _begin(out, settings)

    # Prompts come first: what is joined is joined from their files.
    sets: dict[str, RowSource] = {}
    for part in ("train", "dev", "test"):
        rows = named(parts[part], "prompt")
        fitting = [row for row in rows if part == "test" or row.duration_s <= WINDOW_S]
        written = [as_wav(row, out, "prompts") for row in fitting]
        sets[f"{part}_prompts"] = write_rows(written, out / f"{part}_prompts.jsonl")

    made = _training(sets["train_prompts"], seed, sizes)
    made["test_long"] = _long(sets["test_prompts"], out, seed, sizes)
    made |= _nonspeech(parts["nonspeech"], out, seed, sizes)
    if fsdd is not None:
        made |= _digits(fsdd, out, seed, sizes)
    for name, chosen in made.items():
        sets[name] = write_rows(chosen, out / f"{name}.jsonl")

    summary = {**settings, "sets": {name: counts(rows) for name, rows in sets.items()}}
    write_json(summary, out / "summary.json")
    return summary


def _recordings(real: Path, part: str) -> list[Utterance]:
    """The rows of a manifest, each recording once."""
    rows = read_manifest(real / "asterisk" / f"{part}.jsonl", allow_empty_text=True)
    by_file = {row.segments[0].audio_filepath: row for row in reversed(rows)}
    return list(reversed(by_file.values()))


def _settings(
    parts: dict[str, list[Utterance]], has_digits: bool, seed: int, sizes: Sizes
) -> dict[str, Any]:
    """What decides the data, in JSON."""
    digest = hashlib.sha256()
    for part, rows in parts.items():
        for row in rows:
            digest.update(repr((part, row.id, row.text, row.duration_s)).encode())

    settings = {"seed": seed, "digits": has_digits, "sizes": asdict(sizes)}
    settings["recordings"] = digest.hexdigest()[:16]
    return dict(json.loads(json.dumps(settings)))


def _begin(out: Path, settings: dict[str, Any]) -> None:
    """Note the settings; ValueError where the folder was begun with others."""
    path = out / "settings.json"
    if not path.is_file():
        write_json(settings, path)
        return

    found = json.loads(path.read_text())
    changed = sorted(key for key in settings if settings[key] != found.get(key))
    if changed:
        raise ValueError(
            f"{out}: holds data of other {', '.join(changed)}; remove the folder, or name another one"
        )


def _shuffled(rows: RowSource, seed: int, *key: str | int) -> RowSource:
    generator = keyed_generator("real", seed, *key)
    return PickedRows(rows, torch.randperm(len(rows), generator=generator).tolist())


def _joined(
    prompts: RowSource, part: str, seed: int, min_s: float, max_s: float
) -> list[Utterance]:
    """Prompts joined in drawn orders, one order after the other; within one no prompt occurs twice."""
    rows: list[Utterance] = []
    for turn in range(_TURNS):
        source = _shuffled(prompts, seed, "joined", part, turn)
        rows += JoinedNeighbours(
            source, min_s=min_s, max_s=max_s, by="speaker", gap_s=_GAP_S, seed=_TURNS * seed + turn
        )
    return rows


def _training(prompts: RowSource, seed: int, sizes: Sizes) -> dict[str, Sequence[Utterance]]:
    """Joined training rows, and the pool to mine.

    Joined rows name the files of their prompts, so that a mix sees which audio they hold.
    """
    joined = named(_joined(prompts, "train", seed, 15.0, WINDOW_S)[: sizes.joined], "joined")
    drawn = list(islice(_shuffled(prompts, seed, "pool"), sizes.pool))
    return {"train_joined": joined, "mine_pool": [*drawn, *joined]}


def _long(prompts: RowSource, out: Path, seed: int, sizes: Sizes) -> list[Utterance]:
    """Long test rows, each one file: whoever decodes them need not know how to join."""
    rows: list[Utterance] = []
    left_s = sizes.long_s
    for row in _joined(prompts, "test", seed, 30.0, 120.0):
        if len(rows) < sizes.long_rows and row.duration_s <= left_s:
            left_s -= row.duration_s
            rows.append(as_wav(row, out, "long"))
    return named(rows, "long")


def _nonspeech(
    recorded: Sequence[Utterance], out: Path, seed: int, sizes: Sizes
) -> dict[str, list[Utterance]]:
    """Rows without speech for training, for choosing settings, and for the test."""
    made = {
        "train": _sounds(TRAINED_KINDS, sizes.nonspeech, seed, draw=0),
        "dev": _sounds(TRAINED_KINDS, sizes.dev_nonspeech, seed, draw=1),
        "test": named(recorded, _recorded_kind),
    }
    for kind in (*TRAINED_KINDS, *UNTRAINED_KINDS):
        made["test"] += _sounds((kind,), sizes.test_per_kind, seed, draw=2)

    found: dict[str, list[Utterance]] = {}
    for part, rows in made.items():
        name = f"{part}_nonspeech"
        found[name] = []
        for row in rows:
            flag = {"kind_in_training": row.extra["kind"] in TRAINED_KINDS}
            written = as_wav(row, out, name)
            found[name].append(replace(written, extra={**row.extra, **flag}))
    return found


def _sounds(kinds: Sequence[str], num_rows: int, seed: int, draw: int) -> list[Utterance]:
    level_db = _CLICKS_DB if "clicks" in kinds else _LEVEL_DB
    source = NonSpeech(
        num_rows, kinds, min_s=1.0, max_s=25.0, seed=3 * seed + draw, level_db=level_db
    )
    return list(source)


def _recorded_kind(row: Utterance) -> str:
    """What a recording without words is, by its name."""
    for kind in ("silence", "beep", "tone"):
        if kind in row.id:
            return kind
    # Joining and leaving a conference is told by tones; what is left are animals.
    return "tone" if row.id.startswith("confbridge") else "animal"


def _digits(root: Path, out: Path, seed: int, sizes: Sizes) -> dict[str, list[Utterance]]:
    """Connected digits of the data set's test part, which nothing is trained on."""
    num_short, num_long = sizes.fsdd
    short = FsddDigits(str(root), "test", num_words=(1, 5), num_rows=num_short, seed=seed)

    # Slow speakers go beyond the window: more rows than are wanted.
    candidates = FsddDigits(str(root), "test", num_words=(25, 45), num_rows=4 * num_long, seed=seed)
    fitting = (row for row in candidates if row.duration_s <= 29.0)
    rows = {"test_fsdd_short": list(short), "test_fsdd_long": list(islice(fitting, num_long))}
    return {
        name: [as_wav(row, out, "fsdd") for row in named(found, "digits")]
        for name, found in rows.items()
    }


def table(summary: dict[str, Any]) -> str:
    """The sets of a summary, one a line."""
    lines = [f"seed {summary['seed']}"]
    for name, found in summary["sets"].items():
        kinds = ", ".join(f"{kind} {number}" for kind, number in found["kinds"].items())
        lines.append(
            f"{name:16} {found['rows']:4} rows {found['minutes']:6.2f} min, longest {found['longest_s']:6.2f} s, "
            f"{found['words']:5} words: {kinds}"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("real", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--fsdd", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    print(table(build(args.real, args.out, args.fsdd, args.seed)))


if __name__ == "__main__":
    main()
