"""One instance of a judge that is named in several places: in two rewards, in the rewards and in the evaluation."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import is_dataclass
from typing import Any, TypeVar

import torch
from torch import nn

from lightning_audiorl.judges.base import Judge, JudgeError

_M = TypeVar("_M")
_PLAIN = (str, bytes, bool, int, float, list, tuple, dict, set, frozenset, type(None))


def settings_of(judge: Judge) -> dict[str, Any]:
    """What a judge was told: its plain, public attributes."""
    return {
        k: v for k, v in vars(judge).items() if not k.startswith("_") and (isinstance(v, _PLAIN) or is_dataclass(v))
    }


def difference(one: Judge, other: Judge) -> str:
    """In what two judges differ, in a few words; empty where they are the same: class, settings, weights."""
    if type(one) is not type(other):
        return f"one is a {type(one).__name__}, the other a {type(other).__name__}"
    mine, theirs = settings_of(one), settings_of(other)
    for key in sorted(mine.keys() | theirs.keys()):
        if mine.get(key) != theirs.get(key):
            return f"{key} is {mine.get(key)!r} in one and {theirs.get(key)!r} in the other"
    return "" if same_weights(one, other) else "their weights differ"


def same_weights(one: Judge, other: Judge) -> bool:
    """Whether two judges hold the same tensors under the same names; so do two that hold none."""
    ours, others = one.state_dict(), other.state_dict()
    return ours.keys() == others.keys() and all(
        ours[key].dtype == others[key].dtype and torch.equal(ours[key], others[key]) for key in ours
    )


def shared(judge: _M, known: Iterable[nn.Module]) -> _M:
    """The one of ``known`` that has the judge's name; the judge itself where there is none, or where it is no judge.

    Judges keep what they heard under their name, so that those of one name listen as one. They have to be the same, and
    one of them is enough: its weights are held, placed and moved once. YAML that names a judge twice still reads it
    twice; the second is then let go.

    Raises:
        JudgeError: for another judge of that name, saying in what it differs.
    """
    for other in known:
        if not isinstance(judge, Judge) or not isinstance(other, Judge) or judge.name != other.name:
            continue
        if judge is not other and (what := difference(judge, other)):
            raise JudgeError(
                f"two judges have the name '{judge.name}', but {what}; what a judge hears is kept by its name: set "
                "init_args.name of one of them, or name the same judge"
            )
        return other  # type: ignore[return-value]
    return judge
