"""What a training mix is made of: its subsets, checked, in building order, and the key that it is cached under."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any

from lightning_audiorl.data.manifest.source import RowSource
from lightning_audiorl.data.mix.selection import SubsetBuilder
from lightning_audiorl.data.mix.shares import Share, share_at

#: Another number makes every cached mix be built again.
FORMAT = 1
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")


@dataclass
class RLSubset:
    """A part of the training mix, and the rule by which its rows are chosen.

    Args:
        source: the rows to choose from, or the path of a JSONL manifest.
        builder: the rule; None takes every row.
        hypotheses: JSONL files of ``audiorl predict`` over ``source``, for builders that need them.
        share: part of every batch, ``{0: 1.0, 200: 0.5}`` to change it from step 200 on. Shares of all subsets add up
            to 1; without any, all get the same.
        allow_empty_text: take rows of the manifest that have no words (non-speech).

    Example:
        >>> from lightning_audiorl.data import Length
        >>> subset = RLSubset("pool.jsonl", Length(num_rows=500, min_s=8.0), share={0: 0.2, 100: 0.5})
        >>> subset.builder.num_rows
        500
    """

    source: RowSource | str
    builder: SubsetBuilder | None = None
    hypotheses: list[str] | None = None
    share: Share | None = None
    allow_empty_text: bool = False


def check_subsets(subsets: Mapping[str, RLSubset]) -> None:
    """Names, hypotheses and shares.

    Raises:
        ValueError: no subset; a name that cannot be a file's; a builder without the hypotheses it needs; see `shares`
            and `building_order`.
    """
    if not subsets:
        raise ValueError("the training mix has no subset; give at least one")
    for name, subset in subsets.items():
        if not _NAME.fullmatch(name):
            raise ValueError(
                f"subset {name!r}: a name has letters, digits, - and _ only, as it names a file"
            )
        builder = subset.builder
        if builder is not None and builder.needs_hypotheses and not subset.hypotheses:
            raise ValueError(
                f"subset {name!r}: {type(builder).__name__} judges by hypotheses; decode the rows with "
                "`audiorl predict` and name the files it wrote under `hypotheses`"
            )

    shares(subsets)
    building_order(subsets)


def shares(subsets: Mapping[str, RLSubset]) -> dict[str, Share]:
    """The share of each subset; 1 / number of subsets where none is given.

    Raises:
        ValueError: shares of some subsets only, below 0, or which do not add up to 1 at a step that one of them names.

    Example:
        >>> shares({"hard": RLSubset("a.jsonl"), "long": RLSubset("b.jsonl")})
        {'hard': 0.5, 'long': 0.5}
        >>> shares({"hard": RLSubset("a.jsonl", share=0.75), "long": RLSubset("b.jsonl", share=0.25)})
        {'hard': 0.75, 'long': 0.25}
    """
    given: dict[str, Share] = {}
    for name, subset in subsets.items():
        if subset.share is not None:
            given[name] = subset.share
    if not given:
        return {name: 1.0 / len(subsets) for name in subsets}

    if missing := [name for name in subsets if name not in given]:
        raise ValueError(
            f"shares: {', '.join(missing)} has none; give one to every subset, or to none for equal ones"
        )
    for name, share in given.items():
        values = list(share.values()) if isinstance(share, Mapping) else [share]
        are_fine = [math.isfinite(value) and value >= 0 for value in values]
        if not values or not all(are_fine):
            raise ValueError(f"subset {name!r}: want shares of 0 or more, got {share}")

    # Between the steps that somebody names, no share changes.
    steps = {0}
    for share in given.values():
        if isinstance(share, Mapping):
            steps.update(share)
    for step in sorted(steps):
        _check_sum({name: share_at(share, step) for name, share in given.items()}, step)
    return given


def _check_sum(at_step: Mapping[str, float], step: int) -> None:
    total = sum(at_step.values())
    if abs(total - 1) <= 1e-6:
        return

    listed = [f"{name} {share:g}" for name, share in at_step.items()]
    found = f"shares add up to {total:g} at step {step} ({' + '.join(listed)}), want 1"
    if total <= 0:
        raise ValueError(f"{found}; give at least one subset a share")

    mended = [f"{name}: {share / total:.6g}" for name, share in at_step.items()]
    raise ValueError(f"{found}; in the same proportions: {', '.join(mended)}")


def building_order(subsets: Mapping[str, RLSubset]) -> list[list[str]]:
    """Names in waves: a subset that follows another one (``builder.like``) comes in a later wave than that one.

    Within a wave the order is that of ``subsets``.

    Raises:
        ValueError: a subset that follows one which does not exist, or itself by a circle.

    Example:
        >>> from lightning_audiorl.data import RandomControl
        >>> control = RLSubset("pool.jsonl", RandomControl(like="hard"))
        >>> building_order({"control": control, "hard": RLSubset("pool.jsonl")})
        [['hard'], ['control']]
    """
    follows: dict[str, str] = {}
    for name, subset in subsets.items():
        if subset.builder is not None and subset.builder.like is not None:
            follows[name] = subset.builder.like

    for name, other in follows.items():
        if other not in subsets:
            raise ValueError(
                f"subset {name!r} is like {other!r}, which does not exist; there are {', '.join(subsets)}"
            )

    waves: list[list[str]] = []
    done: set[str] = set()
    while len(done) < len(subsets):
        waiting = [name for name in subsets if name not in done]
        wave = [name for name in waiting if name not in follows or follows[name] in done]
        if not wave:
            circle = ", ".join(f"{name} is like {follows[name]}" for name in waiting)
            raise ValueError(
                f"subsets follow each other in a circle: {circle}; let one of them stand by itself"
            )

        waves.append(wave)
        done.update(wave)
    return waves


def mix_key(
    subsets: Mapping[str, RLSubset], evaluation: str, seed: int, on_bad_row: str = "error"
) -> str:
    """A hash of all that decides the rows of a mix, but for the audio of the training rows.

    That is settings of subsets and builders, bytes of manifests and hypotheses files, the rows of other sources, the
    identity of the evaluation sets, the seed, what becomes of bad rows, and `FORMAT`.
    """
    # Several subsets often choose from the same large files: each is read once.
    hash_of_source: dict[str | int, str] = {}
    hash_of_file = cache(file_hash)

    described = []
    for name, subset in subsets.items():
        known = subset.source if isinstance(subset.source, str) else id(subset.source)
        if known not in hash_of_source:
            hash_of_source[known] = source_hash(subset.source)

        described.append(
            {
                "name": name,
                "source": hash_of_source[known],
                "builder": describe(subset.builder),
                "hypotheses": [hash_of_file(path) for path in subset.hypotheses or []],
                "share": describe(subset.share),
                "allow_empty_text": subset.allow_empty_text,
            }
        )

    whole = {"format": FORMAT, "seed": seed, "evaluation": evaluation, "subsets": described}
    if on_bad_row == "skip":
        whole["on_bad_row"] = on_bad_row
    return hashlib.blake2b(json.dumps(whole).encode(), digest_size=12).hexdigest()


def file_hash(path: str | Path) -> str:
    """A hash of the bytes of a file.

    Raises:
        FileNotFoundError: names it.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"{path.absolute()}: no such file")
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def source_hash(source: RowSource | str) -> str:
    """A hash of a manifest's bytes and folder (relative audio paths start there), or of the rows of a source."""
    if isinstance(source, str):
        return f"{Path(source).expanduser().absolute()} {file_hash(source)}"

    digest = hashlib.sha256()
    for row in source:
        digest.update(repr(row).encode("utf-8", "surrogatepass"))
        if row.origin is not None and row.origin.skip:
            digest.update(b"may be skipped")
    return digest.hexdigest()


def describe(value: Any) -> Any:
    """A value in JSON: objects by class path and attributes, sources by the hash of their rows.

    Raises:
        TypeError: for something whose settings cannot be seen.

    Example:
        >>> describe({"min_s": 8.0, "kinds": ["hum"]})
        [['min_s', 8.0], ['kinds', ['hum']]]
    """
    if value is None or isinstance(value, str | int | float | bool):
        return value
    if isinstance(value, RowSource):
        return {"rows": source_hash(value)}

    if isinstance(value, Mapping):
        return [[describe(key), describe(item)] for key, item in value.items()]
    if isinstance(value, Set):
        # A set has another order in every process.
        return sorted((describe(item) for item in value), key=json.dumps)
    if isinstance(value, Sequence):
        return [describe(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, re.Pattern):
        return [value.pattern, value.flags]

    # Objects: by what they were given.
    name = f"{type(value).__module__}.{type(value).__qualname__}"
    if is_dataclass(value):
        settings = {field.name: describe(getattr(value, field.name)) for field in fields(value)}
        return {"class": name, "settings": settings}
    if callable(value) and hasattr(value, "__qualname__"):
        return f"{value.__module__}.{value.__qualname__}"
    if hasattr(value, "__dict__"):
        settings = {key: describe(item) for key, item in sorted(vars(value).items())}
        return {"class": name, "settings": settings}
    raise TypeError(
        f"a builder holds a {name}, whose settings cannot be seen; keep plain values as attributes"
    )
