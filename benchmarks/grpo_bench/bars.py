"""What the figures should reach, and what they reached."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from grpo_bench.case import Case, step_flops


@dataclass(frozen=True)
class Bar:
    """One bar.

    Args:
        name: what is measured.
        wanted: the bound as text.
        reached: the figure.
        ok: whether it is within the bound.
    """

    name: str
    wanted: str
    reached: float
    ok: bool

    def __str__(self) -> str:
        return f"{'reached   ' if self.ok else 'NOT reached'} {self.name}: {self.reached:.2f} (wanted {self.wanted})"


def _seconds(result: dict[str, Any]) -> float:
    return result["seconds"]["median"]


def flops(result: dict[str, Any]) -> dict[str, float]:
    """Model FLOPs of a result's case by phase."""
    return step_flops(Case(**result["case"]))


def efficiency(result: dict[str, Any], phase: str = "update") -> float:
    """Model FLOPs of a phase over its time, over the rate of a plain product measured in the same run."""
    return flops(result)[phase] / result["phases"][phase]["median"] / result["product_flops_per_s"]


def growth_over_flops(small: dict[str, Any], large: dict[str, Any]) -> tuple[float, float]:
    """(Ratio of the times, ratio of the model FLOPs) of two results."""
    return _seconds(large) / _seconds(small), sum(flops(large).values()) / sum(
        flops(small).values()
    )


def bars(sections: dict[str, Any]) -> list[Bar]:
    """Every bar whose section was run."""
    out = []

    def at_least(name: str, reached: float, bound: float, more: str = "") -> None:
        out.append(Bar(name, f"at least {bound:g}{more}", reached, reached >= bound))

    def at_most(name: str, reached: float, bound: float) -> None:
        out.append(Bar(name, f"at most {bound:g}", reached, reached <= bound))

    if "case" in sections:
        ours, trl = (sections["case"]["results"].get(name) for name in ("ours", "trl"))
        if trl is not None:
            at_least("step time, TRL over ours", _seconds(trl) / _seconds(ours), 3.7, " (goal 4.2)")
            at_most(
                "added peak memory, ours over TRL", ours["added_bytes"] / trl["added_bytes"], 0.5
            )
        at_least("efficiency of the update", efficiency(ours), 0.5)
    if "groups" in sections:
        times, work = growth_over_flops(*sections["groups"]["results"].values())
        at_most("time over FLOP ratio when G doubles", times / work, 1.15)
    if "before" in sections:
        results = sections["before"]["results"]
        names = [name.removeprefix("before/") for name in results if name.startswith("before/")]
        # A rollout of the case, and one of a minute of audio.
        for name, bound, goal in zip(names, (1.5, 2.0), (1.7, 2.3), strict=True):
            earlier = results[f"before/{name}"]
            ours = results[f"ours/{name}"]
            seconds = [result["phases"]["rollout"]["median"] for result in (earlier, ours)]
            at_least(
                f"rollout, before over now, {name}",
                seconds[0] / seconds[1],
                bound,
                f" (goal {goal})",
            )
            at_most(
                f"added peak memory, now over before, {name}",
                ours["added_bytes"] / earlier["added_bytes"],
                1.0,
            )
    if "long" in sections:
        ours, trl = (sections["long"]["results"][name] for name in ("ours", "trl"))
        ratio = _seconds(trl) / _seconds(ours)
        at_least("step time, TRL over ours, a minute of audio", ratio, 7.0, " (goal 8)")
    return out
