"""One RL step is read in few places: at most four files and 450 lines, docstrings and comments counted."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "lightning_audiorl"
MAX_FILES = 4
MAX_LINES = 450

# The stages from top to bottom, and the passes and optimizer step behind the last of them.
LOOP = {
    "engine/module.py": [
        *("RLModule.training_step", "RLModule.collect_rollouts", "RLModule.refilled_step"),
        *("RLModule.step_of", "RLModule.prepare", "RLModule.update", "RLModule.updater"),
        "RLModule.micro_batches",
    ],
    "engine/update.py": [
        *("Updater.step", "Updater.accumulate", "Updater.clip_and_step", "Updater._can_skip"),
    ],
}
DIFFRO_LOSS = [
    *("candidates", "select", "prepare", "compute", "metrics", "_positions", "_relaxed", "_keys"),
]
# What is open on the desk of somebody who reads a step of each. Of both together: each loss is read by itself.
STEPS = {
    "GRPO": LOOP | {"losses/policy_gradient.py": ["PolicyGradient"]},
    "DiffRO": LOOP
    | {
        "losses/diffro/loss.py": [f"DiffROLoss.{name}" for name in DIFFRO_LOSS],
        "losses/diffro/relaxation.py": ["RelaxedChunk.__call__", "RelaxedChunk._weights"],
    },
    "GRPO + DiffRO": LOOP
    | {
        "algorithms/grpo_diffro.py": ["GRPODiffRO"],
        "losses/combine.py": ["take_gradients", "compare", "put_sum", "WeightedGradients"],
    },
    "SFT": {
        "engine/update.py": LOOP["engine/update.py"],
        "algorithms/sft.py": ["SFT.training_step", "SFT.supervised_micro_batches", "SFT._encode"],
        "losses/cross_entropy.py": ["CrossEntropy"],
    },
}


def num_lines(path: str, wanted: list[str]) -> int:
    """Lines of the classes, functions and methods with these names, each of which must be there."""
    found: dict[str, int] = {}
    for node in ast.parse((PACKAGE / path).read_text()).body:
        if not isinstance(node, ast.ClassDef | ast.FunctionDef):
            continue
        found[node.name] = (node.end_lineno or 0) - node.lineno + 1
        for inner in node.body if isinstance(node, ast.ClassDef) else ():
            if isinstance(inner, ast.FunctionDef):
                name = f"{node.name}.{inner.name}"
                found[name] = (inner.end_lineno or 0) - inner.lineno + 1
    return sum(found[name] for name in wanted)


@pytest.mark.parametrize("algorithm", STEPS)
def test_a_step_is_read_in_few_places(algorithm: str) -> None:
    places = STEPS[algorithm]
    lines = {path: num_lines(path, names) for path, names in places.items()}
    assert len(lines) <= MAX_FILES
    assert sum(lines.values()) <= MAX_LINES, lines
    assert min(lines.values()) > 10
