"""Tokens per second of a rollout by our own sampler and by vLLM, on the same CPU and the same prompts.

    python benchmarks/vllm_bench/rollout.py --python envs/vllm/bin/python
    python benchmarks/vllm_bench/rollout.py --python envs/vllm/bin/python --cases 1x1500x16

A random Llama of 512 x 8 layers x 32,000 tokens, completions of 64 tokens. A case is the number of prompts, the tokens
of each, and G. CPU seconds are those of the process that samples, all of its threads, read from /proc; behind the rows
stand quotients of the medians, which other programs disturb least. Our own sampler runs twice: as it is by default, and
with copies of the weights, which are made within its time.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path
from statistics import median
from typing import Any

import torch

from lightning_audiorl.models import SampleKey, TextLMPolicy, TinyCausalLM
from lightning_audiorl.serving import Engine, LocalEngine, VllmEngine
from lightning_audiorl.types import Decoding, PromptBatch, Utterance

NEW_TOKENS = 64

#: Prompts, tokens of each, samples of each.
Case = tuple[int, int, int]


def make_policy() -> TextLMPolicy:
    """Random weights: completions reach their cap."""
    words = tuple(f"w{number}" for number in range(31_995))
    return TextLMPolicy(TinyCausalLM(words, width=512, layers=8, heads=8, max_positions=4096))


def make_batch(num_prompts: int, prompt_tokens: int) -> PromptBatch:
    """Prompts of words at random."""
    generator = torch.Generator().manual_seed(0)
    rows = []
    for number in range(num_prompts):
        words = torch.randint(0, 31_995, (prompt_tokens - 1,), generator=generator)
        prompt = " ".join(f"w{word}" for word in words.tolist())
        rows.append(Utterance(f"row-{number}", (), "w0", 1.0, extra={"prompt": prompt}))
    empty = torch.zeros(num_prompts, 0)
    return PromptBatch(empty, torch.zeros(num_prompts, dtype=torch.long), 16_000, tuple(rows))


def cpu_seconds(pid: int) -> float:
    """Of a process, all of its threads."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def sampling_process(engine: Engine) -> int:
    """Its process id; our own for a sampler in this process."""
    link: Any = getattr(engine, "_link", None)
    return os.getpid() if link is None else link._process.pid


def name_of(engine: Engine) -> str:
    """In the table."""
    copies = isinstance(engine, LocalEngine) and engine.copy_weights
    return f"{type(engine).__name__}{', copied weights' if copies else ''}"


def measure(engine: Engine, policy: TextLMPolicy, case: Case, repeats: int) -> float:
    """Tokens per CPU second of rounds behind one that warms up, their median; prints a row for each."""
    num_prompts, prompt_tokens, group_size = case
    decoding = Decoding(max_new_tokens=NEW_TOKENS, min_cap=NEW_TOKENS, tokens_per_second=0)
    context = policy.encode(make_batch(num_prompts, prompt_tokens))
    rates = []
    for repeat in range(repeats + 1):
        before = cpu_seconds(sampling_process(engine)) if repeat else 0.0
        start = time.perf_counter()
        with engine.rollout(policy):
            rollout = engine.sample(policy, context, group_size, decoding, SampleKey(0, repeat))
        seconds = time.perf_counter() - start
        if not repeat:
            engine.costs()
            continue

        spent = cpu_seconds(sampling_process(engine)) - before
        costs = engine.costs()
        apart = sum(value for name, value in costs.items() if name.startswith("seconds/"))
        tokens = int(rollout.lengths.sum())
        rates.append(tokens / spent)
        print(
            f"| {name_of(engine)} | {num_prompts} | {prompt_tokens} | {group_size} | {tokens} "
            f"| {tokens / (seconds - apart):.0f} | {rates[-1]:.0f} | {costs.get('seconds/push', 0.0):.2f} |",
            flush=True,
        )
    return median(rates)


def case(text: str) -> Case:
    """Prompts, tokens of each, and G, as ``4x384x8``."""
    num_prompts, prompt_tokens, group_size = text.split("x")
    return int(num_prompts), int(prompt_tokens), int(group_size)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--python", required=True, help="of the environment with vLLM")
    cases = [(4, 384, 8), (4, 384, 32), (1, 1500, 16)]
    parser.add_argument("--cases", type=case, nargs="+", default=cases, help="such as 4x384x8")
    parser.add_argument("--repeats", type=int, default=2)
    arguments = parser.parse_args()

    policy = make_policy().eval()
    threads = str(torch.get_num_threads())
    by_vllm = VllmEngine(
        python=arguments.python,
        cache_gib=4,
        environment={"OMP_NUM_THREADS": threads, "TORCHDYNAMO_DISABLE": "1"},
        arguments={"enforce_eager": True},
    )
    print(f"{threads} thread(s), float32")
    print("| engine | B | P | G | tokens | tokens per second | tokens per CPU second | push, s |")
    print("|---|---|---|---|---|---|---|---|")
    ratios = []
    for one in arguments.cases:
        # In turns: a case's engines see the same machine.
        engines = (LocalEngine(), LocalEngine(copy_weights=True), by_vllm)
        ours, copied, theirs = (
            measure(engine, policy, one, arguments.repeats) for engine in engines
        )
        num_prompts, prompt_tokens, group_size = one
        ratios.append(
            f"B {num_prompts}, P {prompt_tokens}, G {group_size}: {ours / theirs:.2f}, with copied weights "
            f"{copied / theirs:.2f}"
        )
    by_vllm.close()
    print("our sampler's tokens per CPU second over vLLM's: " + "; ".join(ratios))


if __name__ == "__main__":
    main()
