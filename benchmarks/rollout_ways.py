"""A rollout with a copy of the prompt for each sample, with a prompt that its group shares, and by copied weights.

    python benchmarks/rollout_ways.py                      # the case (P 384, G 8) and a minute of audio (P 1,500, G 16)
    python benchmarks/rollout_ways.py --cases long --rounds 3

The same model, prompts and keys on all sides, in turns in one process; that the tokens are the same is checked. CPU
seconds of the process decide, as others may use the machine. The first way is how every build up to e801c8e sampled,
but for the head and the draws, which are faster on all sides: `benchmarks/grpo_step.py --sections before` runs such a
build itself. The last way is `LocalEngine(copy_weights=True)`, off by default: making the copies is part of its time.
"""

from __future__ import annotations

import argparse
import statistics
import time
from contextlib import AbstractContextManager
from pathlib import Path
from unittest import mock

import torch
from grpo_bench.case import Case, build_model
from grpo_bench.ours import Batches, make_policy
from grpo_bench.sections import CASE, LONG, tiny_plan

from lightning_audiorl.models import SampleKey, TextLMPolicy
from lightning_audiorl.models.decoding.cache import held_bytes
from lightning_audiorl.serving import LocalEngine
from lightning_audiorl.types import Decoding, Rollout

WAYS = ("copies of the prompt", "shared prompt", "shared prompt, copied weights")


def prompt_of(way: str) -> AbstractContextManager[object]:
    """A model with a window keeps a copy of the prompt for each sample, which is what all did."""
    name = "lightning_audiorl.models.decoding.decoder_only.has_window"
    return mock.patch(name, return_value=way == WAYS[0])


def sampled(policy: TextLMPolicy, case: Case, way: str) -> tuple[float, Rollout]:
    """CPU seconds of one rollout, and what it drew."""
    context = policy.encode(Batches(case)[0])
    decoding = Decoding(
        max_new_tokens=case.new_tokens, min_cap=case.new_tokens, tokens_per_second=0.0
    )
    engine = LocalEngine(copy_weights=way == WAYS[2])
    start = time.process_time()
    with prompt_of(way), engine.rollout(policy):
        rollout = engine.sample(policy, context, case.group_size, decoding, SampleKey(0, 0))
    return time.process_time() - start, rollout


@torch.no_grad()
def cache_mib(policy: TextLMPolicy, case: Case, way: str) -> float:
    """Held by the key-value cache after the first token."""
    state = policy.prefill(policy.encode(Batches(case)[0]))
    with prompt_of(way):
        state.expand(case.group_size)
        state.advance(torch.zeros(case.num_rows, dtype=torch.long))
    return held_bytes(state.cache) / 2**20


def measure(name: str, case: Case, models: Path, rounds: int) -> None:
    """Print a table of one case."""
    policy = make_policy(case, str(build_model(case, models)), naive=False)
    assert isinstance(policy, TextLMPolicy)
    seconds: dict[str, list[float]] = {way: [] for way in WAYS}
    first: Rollout | None = None

    for number in range(rounds):
        for way in WAYS if number % 2 == 0 else reversed(WAYS):
            taken, rollout = sampled(policy, case, way)
            seconds[way].append(taken)
            first = first or rollout
            same = rollout.tokens.shape == first.tokens.shape and torch.equal(
                rollout.tokens, first.tokens
            )
            apart = float((rollout.log_probs - first.log_probs).abs().max()) if same else None
            print(
                f"{name}, round {number}: {way} {taken:.2f} CPU s, same tokens {same}, {apart}",
                flush=True,
            )

    tokens = case.num_rows * case.new_tokens
    earlier = statistics.median(seconds[WAYS[0]])
    print(f"\n{name}: B {case.num_prompts}, P {case.prompt_tokens}, G {case.group_size}")
    print("| way | CPU s | times faster | tokens per CPU second | cache, MiB |")
    print("| --- | --- | --- | --- | --- |")
    for way, taken in seconds.items():
        median = statistics.median(taken)
        print(
            f"| {way} | {median:.2f} [{min(taken):.2f}, {max(taken):.2f}] | {earlier / median:.2f} "
            f"| {tokens / median:.0f} | {cache_mib(policy, case, way):.0f} |",
            flush=True,
        )


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cases", nargs="+", default=["case", "long"], choices=["case", "long"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--models", type=Path, default=Path("runs/benchmarks/models"))
    parser.add_argument(
        "--tiny", action="store_true", help="shapes that end in seconds; the numbers mean nothing"
    )
    args = parser.parse_args()

    torch.set_num_threads(args.threads)
    cases = {"case": CASE, "long": LONG}
    if args.tiny:
        plan = tiny_plan(args.models)
        cases = {"case": plan.case, "long": plan.long}
    for name in args.cases:
        measure(name, cases[name], args.models, args.rounds)


if __name__ == "__main__":
    main()
