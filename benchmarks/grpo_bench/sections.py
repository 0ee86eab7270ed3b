"""Which systems meet on which cases."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from grpo_bench.case import Case
from grpo_bench.runner import Contestant, compete, one_after_another

#: Prompt tokens per second of audio: 5 s are 125, a minute is 1,500.
TOKENS_PER_SECOND = 25

CASE = Case()
LONG = Case(num_prompts=1, prompt_tokens=60 * TOKENS_PER_SECOND, group_size=16)
AUDIO = Case(audio_s=24.0, width=256, layers=4, heads=4, vocab_size=1000)
SMALL = Case(num_prompts=2, prompt_tokens=250, new_tokens=16, layers=4, vocab_size=8000)

Results = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Plan:
    """Sizes and settings of a whole run.

    Args:
        case: the benchmark's case.
        long: prompts of a minute of audio, against TRL; TRL splits its update to stay within memory.
        audio: a tiny Fun-ASR-Nano, where the encoder's rows are counted.
        small: what growth curves start from.
        seconds_of_audio, group_sizes, batch_sizes, widths: the axes of the growth curves.
        naive_tokens: growth curves of the naive way end where a pass would hold more tokens.
        before: folder of an earlier build of this repository, for the section of that name.
    """

    models: Path
    device: str = "cpu"
    threads: int = 0
    max_threads: int = 2
    warmup: int = 2
    steps: int = 5
    case: Case = CASE
    long: Case = LONG
    long_accumulate: int = 4
    audio: Case = AUDIO
    small: Case = SMALL
    seconds_of_audio: tuple[int, ...] = (5, 10, 20, 40, 60)
    group_sizes: tuple[int, ...] = (4, 8, 16, 32)
    batch_sizes: tuple[int, ...] = (1, 2, 4, 8, 16, 32)
    widths: tuple[int, ...] = (256, 512, 768, 1024)
    naive_tokens: int = 12_000
    before: Path | None = None

    def contestant(self, system: str, case: Case, name: str = "", threads: int = 0) -> Contestant:
        return Contestant(name or system, system, case, threads or self.threads)

    def compete(self, contestants: list[Contestant]) -> Results:
        return compete(contestants, self.models, self.device, self.warmup, self.steps)


def tiny_plan(models: Path, device: str = "cpu") -> Plan:
    """A plan that ends in seconds, to see that everything runs."""
    case = Case(2, 12, 3, 4, width=32, layers=2, intermediate=64, heads=2, vocab_size=100)
    return Plan(
        models=models,
        device=device,
        threads=1,
        max_threads=1,
        warmup=1,
        steps=2,
        case=case,
        long=replace(case, num_prompts=1, prompt_tokens=40, group_size=4),
        long_accumulate=2,
        audio=replace(case, audio_s=0.5),
        small=case,
        seconds_of_audio=(1, 2),
        group_sizes=(2, 3),
        batch_sizes=(1, 2),
        widths=(32, 64),
    )


def main_case(plan: Plan) -> Results:
    """Ours, the naive way and (where it is installed) TRL on the benchmark's case."""
    systems = ["ours", "naive"] + ["trl"] * (importlib.util.find_spec("trl") is not None)
    return plan.compete([plan.contestant(system, plan.case) for system in systems])


def as_shipped(plan: Plan) -> Results:
    """TRL without the patch that spares it the head on prompt positions, against ours."""
    return plan.compete(
        [plan.contestant(system, plan.case) for system in ("ours", "trl_as_shipped")]
    )


def groups(plan: Plan) -> Results:
    """Twice the samples per prompt."""
    size = plan.case.group_size
    cases = [replace(plan.case, group_size=g) for g in (size, 2 * size)]
    return plan.compete([plan.contestant("ours", case, f"G={case.group_size}") for case in cases])


def long_prompts(plan: Plan) -> Results:
    """A minute of audio against TRL."""
    split = replace(plan.long, accumulate=plan.long_accumulate)
    return plan.compete([plan.contestant("ours", plan.long), plan.contestant("trl", split)])


def before(plan: Plan) -> Results:
    """An earlier build of this repository against this one, on the case and at a minute of audio."""
    if plan.before is None:
        raise SystemExit("the section before wants the commit of an earlier build: --before COMMIT")
    out: Results = {}
    for case in (plan.case, plan.long):
        where = f"P={case.prompt_tokens}"
        earlier = replace(plan.contestant("ours", case, f"before/{where}"), root=plan.before)
        out |= plan.compete([earlier, plan.contestant("ours", case, f"ours/{where}")])
    return out


def audio(plan: Plan) -> Results:
    """Audio prompts: encoder rows. TRL has no audio."""
    return plan.compete([plan.contestant(system, plan.audio) for system in ("ours", "naive")])


def growth(plan: Plan) -> Results:
    """One axis at a time from the small case: ours everywhere, the naive way as far as memory allows."""
    small = plan.small
    named: dict[str, tuple[Case, int]] = {}

    for seconds in plan.seconds_of_audio:
        named[f"audio_s={seconds}"] = (replace(small, prompt_tokens=seconds * TOKENS_PER_SECOND), 0)
    for g in plan.group_sizes:
        named[f"group_size={g}"] = (replace(small, group_size=g), 0)
    for b in plan.batch_sizes:
        named[f"num_prompts={b}"] = (replace(small, num_prompts=b), 0)
    for width in plan.widths:
        case = replace(small, width=width, intermediate=width * 11 // 4, heads=max(1, width // 64))
        named[f"width={width}"] = (case, 0)
    for threads in range(1, plan.max_threads + 1):
        named[f"threads={threads}"] = (small, threads)

    out: Results = {}
    for system in ("ours", "naive"):
        contestants = [
            plan.contestant(system, case, f"{system}/{name}", threads)
            for name, (case, threads) in named.items()
            if system == "ours"
            or case.num_rows * (case.prompt_tokens + case.new_tokens) <= plan.naive_tokens
        ]
        out |= one_after_another(contestants, plan.models, plan.device, warmup=1, steps=3)
    return out


SECTIONS: dict[str, Callable[[Plan], Results]] = {
    "case": main_case,
    "groups": groups,
    "long": long_prompts,
    "before": before,
    "audio": audio,
    "growth": growth,
    "as_shipped": as_shipped,
}
