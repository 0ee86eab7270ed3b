"""The long runs behind docs/tts_long.md: GRPO, DiffRO and both, each a folder that goes on after a kill."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tts_runs
from figure_runs import audiorl
from tts import MODEL, R2, REWARDS, ROWS, folder_name, mix

#: Row of the figure -> configuration and what is changed in it; as in the table of docs/tts_figures.md.
ARMS: dict[str, tuple[str, dict[str, Any]]] = {
    "GRPO": ROWS["GRPO R1+R2"],
    "DiffRO": ROWS["DiffRO"],
    "both + filter": ROWS["both + filter, R1+R2"],
    "both, no filter": (
        "grpo_diffro",
        {REWARDS: mix(R2), f"{MODEL}.diffro_filters": []},
    ),
}
#: Half the texts a step of the short runs.
TEXTS_A_STEP = 4
#: RL steps between two evaluations by the judges that were trained here.
EVALUATE_EVERY = 100
#: RL steps between two checkpoints: what a kill costs, and where the real ears listen.
SAVE_EVERY = 125
#: Points along a run at which the real ears listen, the start included.
NUM_POINTS = 5
#: Rows of dev that the trained judges hear at each evaluation.
NUM_DEV_ROWS = 100


def points(num_steps: int) -> list[int]:
    """RL steps at which the real ears listen: the start, the end, and evenly between them.

    Example:
        >>> points(1500)
        [0, 375, 750, 1125, 1500]
    """
    between = NUM_POINTS - 1
    if num_steps % (between * SAVE_EVERY):
        raise ValueError(
            f"want a multiple of {between * SAVE_EVERY} steps, so that a checkpoint stands at each point; "
            f"got {num_steps}"
        )
    return [num_steps * point // between for point in range(NUM_POINTS)]


def folder_of(out: Path, seed: int, arm: str, num_steps: int) -> Path:
    """Where a long run is."""
    return out / f"seed{seed}" / f"long{num_steps}_{folder_name(arm)}"


def long_run(out: Path, seed: int, arm: str, num_steps: int) -> Path:
    """One long run, at a constant learning rate; one that was killed goes on from its last checkpoint."""
    config, changes = ARMS[arm]
    folder = folder_of(out, seed, arm, num_steps)
    changes = changes | {
        f"{MODEL}.num_steps": num_steps,
        f"{MODEL}.optim.schedule": "constant",
        "data.init_args.batch_size": TEXTS_A_STEP,
        "data.init_args.val.dev": tts_runs.dev(NUM_DEV_ROWS),
        "trainer.val_check_interval": EVALUATE_EVERY,
        "trainer.num_sanity_val_steps": -1,
    }
    settings = tts_runs.placed(
        tts_runs.changed(tts_runs.shipped(config), changes), tts_runs.parts_and_start(out, seed)
    )

    settings = tts_runs.in_folder(settings, folder, seed)
    settings["trainer"]["enable_checkpointing"] = True
    settings["checkpoint"] = {
        "every_n_steps": SAVE_EVERY,
        "keep": num_steps // SAVE_EVERY,
    }
    audiorl("fit", settings, folder, resume=True)
    return folder


def model_at(out: Path, seed: int, arm: str, num_steps: int, step: int) -> Path:
    """The language model of a long run after ``step`` steps; at 0 the start of its seed."""
    if step == 0:
        return tts_runs.start_model(out, seed)
    folder = folder_of(out, seed, arm, num_steps)
    return folder / "checkpoints" / f"step-{step:06d}.ckpt"
