"""The encoder's CPU time with a cache of its outputs, beside an earlier build that has none, in one run.

    python benchmarks/encoder_cache.py                                        # a tiny Whisper on made clips
    python benchmarks/encoder_cache.py --model FOLDER --train A.jsonl --eval B.jsonl

Supervised training of the decoder's last layer on 64 clips for four epochs, evaluated on 32 others before it and after
each epoch: 416 clips to encode without a cache, 96 with one. Each build has a process of its own, with its own code
alone and one thread; they take turns, an evaluation or an epoch with its evaluation each, and which goes first changes
every time. CPU seconds are those of the process within ``Policy.encode``: features, keys and copies are in them. Exit
code 1 where the cache encodes another number of clips, a loss differs by more than --tolerance, or the earlier build
does not take --at-least times as long; never by the last with the tiny model.

Both builds read the checkpoint with empty lists of suppressed tokens: the earlier one took such tokens out of the
softmax in supervised training, too, and its losses were lower by that, with a cache or without.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cache_bench.worker import EPOCHS, NUM_EVAL, NUM_TRAIN
from compare_builds import BASE, clone, git
from grpo_step import machine

_WORKER = Path(__file__).resolve().parent / "cache_bench" / "worker.py"
_ENCODED_ONCE = NUM_TRAIN + NUM_EVAL
_ENCODED_EACH_TIME = EPOCHS * NUM_TRAIN + (EPOCHS + 1) * NUM_EVAL


@dataclass
class Side:
    """One build at work.

    Args:
        name: in the table.
        root: of its repository.
        folder: for its settings and what it says.
        settings: of the worker.

    Attributes:
        encode_s: CPU seconds of the encoder, by turn.
        losses: of all steps.
        num_encoded: clips so far.
    """

    name: str
    root: Path
    folder: Path
    settings: dict[str, Any]
    encode_s: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    num_encoded: int = 0
    process: subprocess.Popen[str] = field(init=False)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True)
        settings = self.folder / "settings.json"
        settings.write_text(json.dumps({**self.settings, "root": str(self.root)}))
        environment = os.environ | {
            "PYTHONPATH": str(self.root),
            # The worker's own folder is not to stand before the build.
            "PYTHONSAFEPATH": "1",
            "OMP_NUM_THREADS": "1",
            "MKL_NUM_THREADS": "1",
            "HF_HUB_OFFLINE": "1",
            "CUDA_VISIBLE_DEVICES": "",
        }
        with (self.folder / "log").open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, str(_WORKER), str(settings)],
                cwd=self.folder,
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )

    def turn(self) -> None:
        """Let it work until its next evaluation has ended.

        Raises:
            RuntimeError: where it died, with its last words.
        """
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write("go on\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            said = (self.folder / "log").read_text()[-2000:]
            raise RuntimeError(f"{self.name}: ended with {self.process.wait()}\n{said}")

        report = json.loads(line)
        self.encode_s.append(report["encode_s"])
        self.losses += report["losses"]
        self.num_encoded = report["num_encoded"]


def compare(sides: list[Side]) -> None:
    """Both builds in turn, with a line for each pair of turns."""
    print(f"{'turn':14s} " + " ".join(f"{side.name:>22s}" for side in sides) + "   (CPU s, clips)")
    for number in range(EPOCHS + 1):
        order = sides if number % 2 == 0 else sides[::-1]
        for side in order:
            side.turn()
        name = "evaluation" if number == 0 else f"epoch {number}"
        cells = [f"{side.encode_s[-1]:14.2f} {side.num_encoded:7d}" for side in sides]
        print(f"{name:14s} " + " ".join(cells))


def verdicts(base: Side, present: Side, at_least: float, tolerance: float) -> list[str]:
    """What is not as it should be, after the last lines of the table."""
    ratio = sum(base.encode_s) / sum(present.encode_s)
    pairs = zip(base.losses, present.losses, strict=True)
    apart = max(abs(before - now) for before, now in pairs)
    print(f"{'all':14s} {sum(base.encode_s):14.2f} {'':7s} {sum(present.encode_s):14.2f}")
    print(f"encoder CPU time, base over present: {ratio:.2f}")
    first = base.losses[0]
    last = base.losses[-1]
    said = f"losses of {len(base.losses)} steps, {first:.4f} at first and {last:.4f} at last"
    print(f"{said}: at most {apart:.2g} apart")

    wrong = []
    encoded = (base.num_encoded, present.num_encoded)
    if encoded != (_ENCODED_EACH_TIME, _ENCODED_ONCE):
        wrong.append(f"clips encoded: {encoded}, not {(_ENCODED_EACH_TIME, _ENCODED_ONCE)}")
    if not apart <= tolerance:
        wrong.append(f"losses differ by more than {tolerance:g}")
    if ratio < at_least:
        wrong.append(f"less than {at_least:g} times less")
    return wrong


def without_suppressed(model: Path, folder: Path) -> str:
    """The checkpoint with nothing suppressed, as links in ``folder`` and a generation config of its own."""
    folder.mkdir()
    for file in model.iterdir():
        (folder / file.name).symlink_to(file)

    config = folder / "generation_config.json"
    lists = {"suppress_tokens": [], "begin_suppress_tokens": []}
    changed = json.loads(config.read_text()) | lists
    config.unlink()
    config.write_text(json.dumps(changed))
    return str(folder)


def arguments() -> argparse.Namespace:
    """Of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--base", default=BASE, metavar="COMMIT", help="the earlier build")
    parser.add_argument("--model", metavar="FOLDER", help="a Whisper; default a tiny one")
    parser.add_argument("--train", metavar="FILE", help=f"manifest of {NUM_TRAIN} rows or more")
    parser.add_argument("--eval", metavar="FILE", help=f"manifest of {NUM_EVAL} rows or more")
    parser.add_argument("--dtype", default="float32", help="that outputs are kept in")
    parser.add_argument("--at-least", type=float, default=3.5, help="ratio; default 3.5")
    parser.add_argument("--tolerance", type=float, default=1e-5, help="of losses; default 1e-5")
    return parser.parse_args()


def main() -> None:
    """Entry point."""
    args = arguments()
    root = Path(git(_WORKER.parent, "rev-parse", "--show-toplevel"))
    commit = git(root, "rev-parse", "--verify", f"{args.base}^{{commit}}")
    # A run that is asked to stop leaves no folder and no process behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]

    where = machine("cpu")
    versions = ", ".join(f"{name} {number}" for name, number in where["versions"].items())
    print(
        f"base {commit[:7]}, present {where['commit']}; {where['processor']}, 1 thread; {versions}"
    )
    given = {"train": args.train, "eval": args.eval}
    paths = {name: path and str(Path(path).resolve()) for name, path in given.items()}
    with tempfile.TemporaryDirectory(prefix="encoder_cache_") as temporary:
        work = Path(temporary)
        model = args.model and without_suppressed(Path(args.model).resolve(), work / "model")
        settings = {"model": model, **paths}
        clone(root, commit, work / "build")
        sides: list[Side] = []
        try:
            sides.append(Side("base", work / "build", work / "base", {**settings, "cache": None}))
            cache = {"memory_gib": 4.0, "dtype": args.dtype}
            sides.append(Side("present", root, work / "present", {**settings, "cache": cache}))
            compare(sides)
        finally:
            for side in sides:
                side.process.kill()
                side.process.communicate()
    wrong = verdicts(*sides, args.at_least if args.model else 0.0, args.tolerance)
    print("; ".join(wrong) if wrong else "as it should be")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
