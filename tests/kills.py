"""Runs that are killed at a chosen point, and go on: each in a process forked from one that has imported everything.

    python -m tests.kills GRPO FOLDER

runs the algorithm once undisturbed and once for each of its points, killed there by SIGKILL and resumed with
``--ckpt_path last``. The runs' folders are ``FOLDER/<point>/run``; ``FOLDER/codes.json`` says how each process ended.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests import test_resume_speech
from tests.command import class_of, run, tiny_config, write_manifest


@dataclass(frozen=True)
class Point:
    """Where a run is killed.

    Args:
        target: a function or method, ``module:name`` within the package.
        step: the RL step at which its calls count; None counts all.
        nth: call that kills.
        after: whether it is killed behind the call, not before.
        half: bytes of a file that the call leaves behind first; 0 leaves none.
    """

    target: str
    step: int | None = None
    nth: int = 1
    after: bool = False
    half: int = 0


_EVALUATE = "engine.evaluation_hooks:EvaluationHooks.validation_step"
_EVALUATED = "callbacks.checkpoint:RLCheckpoint.on_validation_end"
_BEGUN = "callbacks.report:RunReport.on_validation_start"
_PUBLISH = "callbacks.checkpoint:publish"
_WRITE = "lightning.fabric.plugins.io.torch_io:_atomic_save"

_replace = os.replace

#: Of every algorithm; each run saves and is evaluated every second step.
POINTS = {
    "in the first evaluation": Point(_EVALUATE, step=0, after=True),
    "in an update": Point("engine.update:Updater.clip_and_step", nth=5, after=True),
    "in the middle of a checkpoint's write": Point(_WRITE, nth=3, half=5000),
    "while a checkpoint is published": Point("os:replace", step=None, nth=5),
    "between two names of a checkpoint": Point(_PUBLISH, nth=4, after=True),
    "between a checkpoint and its evaluation": Point(_BEGUN, step=2),
    "in an evaluation": Point(_EVALUATE, step=2, after=True),
    "evaluated and not saved": Point(_EVALUATED, step=2),
}

#: And of each.
OWN = {
    "GRPO": {
        "in a reward": Point("rewards:RewardMix.score", nth=4),
        "in the export": Point("callbacks.export:Export._export_best"),
    },
    "SFT": {
        "in the last evaluation": Point(_EVALUATE, step=6, after=True),
        "in the report": Point("callbacks.report:report_text"),
    },
    "DiffRO": {
        "in the evaluation before an early stop": Point(_EVALUATE, step=4, after=True),
        "before the export": Point("callbacks.export:Export.on_fit_end"),
    },
    "GRPODiffRO": {
        "in a reward": Point("rewards:RewardMix.score", nth=3, after=True),
        "in the report": Point("callbacks.report:write_report"),
    },
}


def points(algorithm: str) -> dict[str, Point]:
    """The points of an algorithm by name."""
    return POINTS | OWN[algorithm]


def prepare(folder: Path, algorithm: str) -> None:
    """What the runs of an algorithm share."""
    if algorithm in ("GRPO", "SFT"):
        write_manifest(folder)
    else:
        test_resume_speech.parts(folder)


def settings(folder: Path, algorithm: str, name: str) -> dict[str, Any]:
    """A run that saves and is evaluated every second step, keeps its best, and writes all that a run writes."""
    monitor = "val/digits/held_out_cer"
    if algorithm in ("DiffRO", "GRPODiffRO"):
        config = test_resume_speech.config(folder, name, algorithm)
    else:
        monitor = "val/tones/cer"
        more = {"num_updates": 2} if algorithm == "GRPO" else {}
        optim = {"lr": 0.003, "schedule": "cosine", "warmup_steps": 2}
        config = tiny_config(folder, algorithm, num_steps=6, optim=optim, **more)
        augment = {"speed": [0.9, 1.1], "noise_snr_db": [5, 20]}
        noise = class_of("data.NonSpeech", num_rows=9, min_s=0.1, max_s=0.3)
        train = [
            {"source": str(folder / "train.jsonl"), "share": {0: 1.0, 3: 0.7}},
            {"source": noise, "share": 0.3},
        ]
        config["data"]["init_args"] |= {"train": train, "pool": 3, "augment": augment}

    config["trainer"] |= {"default_root_dir": str(folder / name / "run"), "val_check_interval": 2}
    config["trainer"].pop("logger")
    # Where the error rises a best by the lowest would be the start: there would be none.
    mode = "max" if algorithm == "GRPODiffRO" else "min"
    config["checkpoint"] = {"every_n_steps": 2, "keep": 2, "monitor": monitor, "mode": mode}
    config["hacking_watch"] = {"tolerance": 0.0, "window": 2}
    return config | {"report": {"enabled": True}, "export": {"enabled": True, "best": True}}


def arm(point: Point) -> None:
    """Have this process kill itself at the point."""
    module_name, _, name = point.target.partition(":")
    is_own = module_name.split(".")[0] not in ("lightning", "os")
    owner: Any = importlib.import_module(
        f"lightning_audiorl.{module_name}" if is_own else module_name
    )
    *path, last = name.split(".")
    for part in path:
        owner = getattr(owner, part)
    setattr(owner, last, _dying(getattr(owner, last), point))


def _dying(call: Callable[..., Any], point: Point) -> Callable[..., Any]:
    count = 0

    def dying(*args: Any, **kwargs: Any) -> Any:
        nonlocal count
        steps = [arg.rl_step for arg in args if hasattr(arg, "rl_step")]
        is_one = point.step is None or point.step in steps
        # Other files than checkpoints take their names in the same way.
        is_other = call is _replace and not str(args[1]).endswith(".ckpt")
        count += is_one and not is_other
        is_now = is_one and not is_other and count == point.nth
        if is_now and point.half:
            Path(args[1]).write_bytes(b"half" * (point.half // 4))
        if is_now and not point.after:
            os.kill(os.getpid(), signal.SIGKILL)
        result = call(*args, **kwargs)
        if is_now:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    return dying


def in_a_fork(log: Path, work: Callable[[], Any]) -> int:
    """Do the work in a process of its own; returns its exit code, negative where a signal has ended it."""
    child = os.fork()
    if child:
        _, status = os.waitpid(child, 0)
        return os.waitstatus_to_exitcode(status)

    code = 0
    with log.open("a") as out:
        os.dup2(out.fileno(), 1)
        os.dup2(out.fileno(), 2)
        try:
            work()
        except BaseException:  # noqa: BLE001 - whatever ends the work ends the process
            traceback.print_exc()
            code = 1
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


def main(algorithm: str, folder: Path) -> None:
    """All runs of an algorithm."""
    codes: dict[str, list[int]] = {}

    def fit(name: str, *args: str, point: Point | None = None) -> None:
        (folder / name).mkdir(exist_ok=True)

        def work() -> None:
            if point is not None:
                arm(point)
            run(folder / name, settings(folder, algorithm, name), *args)

        codes.setdefault(name, []).append(in_a_fork(folder / f"{name}.log", work))

    assert in_a_fork(folder / "parts.log", lambda: prepare(folder, algorithm)) == 0
    fit("whole")
    for name, point in points(algorithm).items():
        fit(name, point=point)
        fit(name, "--ckpt_path", "last")
    (folder / "codes.json").write_text(json.dumps(codes))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
