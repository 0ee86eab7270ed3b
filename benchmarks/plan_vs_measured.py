"""What `audiorl plan` foretells against what a process took: ``python benchmarks/plan_vs_measured.py``.

A fresh process builds a language model of more than 1 GB with random weights, takes a first step so that the optimizer
has its state, and then runs rollout, reference and update one by one. Its memory is read from outside the planner: on a
CPU the growth of the resident set over what the process had before the model (the kernel's high-water mark, reset
before each phase; glibc is told to give every block of 64 KiB and more back to the system when it is freed), on a GPU
the allocator's peak.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from dataclasses import replace
from typing import Any

import torch

from lightning_audiorl import ops
from lightning_audiorl.commands.plan import Settings, plan, trace
from lightning_audiorl.models import Finetune, Reference, SampleKey, TextLMPolicy, TinyCausalLM
from lightning_audiorl.models.tts.text_lm import TextContext
from lightning_audiorl.strategies.ledger import PeakMemory
from lightning_audiorl.types import Decoding, Rollout

MIB = 2**20
WORDS = tuple(f"w{i}" for i in range(32_000))
# Freed memory goes back to the system at once, so that the resident set is what is held.
MALLOC = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": "65536",
    "MALLOC_TRIM_THRESHOLD_": "65536",
}


def case(args: argparse.Namespace) -> Settings:
    """The run that is planned and measured."""
    sizes = TinyCausalLM(
        words=WORDS, width=args.width, layers=args.layers, heads=16, max_positions=4096
    )
    finetune = Finetune(gradient_checkpointing=args.gradient_checkpointing)
    return Settings(
        make_policy=lambda: TextLMPolicy(sizes, finetune),
        autocast=None,
        group_size=args.group_size,
        needs_rollout=True,
        beta=0.04,
        batch_size=args.batch_size,
        rollout_batch_size=0,
        micro_batch_size=args.micro_batch_size,
        max_tokens=0,
        chunk_size=None,
        decoding=Decoding(
            max_new_tokens=args.new_tokens, tokens_per_second=0.0, min_cap=args.new_tokens
        ),
        keep_context=False,
        accelerator=args.device,
    )


def update(
    policy: TextLMPolicy, settings: Settings, context: TextContext, rollout: Rollout, optimizer: Any
) -> None:
    """One update as `GRPO` makes it, with a loss of the log-probs alone."""
    size = settings.micro_batch_size or len(context)
    for start in range(0, len(context), size):
        index = list(range(start, min(start + size, len(context))))
        part = rollout.select(index)
        hidden = policy.hidden(context.select(index), part)
        tokens, keep = part.tokens.flatten(0, 1), part.keep.flatten(0, 1)
        scored = ops.token_log_probs(hidden, policy.head, tokens, keep, with_entropy=True)
        (-scored.log_probs.mean()).backward()
        del hidden, scored
    torch.nn.utils.clip_grad_norm_(list(policy.trainable().values()), 1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


def measure(args: argparse.Namespace) -> dict[str, dict[str, int]]:
    """By phase: bytes held when it began and at its peak, over what the process had before the model."""
    settings, device = case(args), torch.device(args.device)
    peak = PeakMemory(device)
    small = TextLMPolicy(TinyCausalLM()).to(device)  # libraries, thread buffers
    warm = TextContext(["warm"], [1.0], [[5, 6, 7]])
    small.sample(warm, 2, Decoding(max_new_tokens=4), SampleKey(0, 0))
    del small
    before = in_use(device)
    policy = settings.make_policy().to(device).eval()
    assert isinstance(policy, TextLMPolicy)
    reference = Reference(policy)
    for name, value in reference._values.items():
        reference._values[name] = value.to(device)  # the placement "resident"
    prompt = [5 + i % 1000 for i in range(args.prompt_tokens)]
    ids = [str(i) for i in range(settings.batch_size)]
    context = TextContext(ids, [1.0] * len(ids), [prompt] * len(ids))
    optimizer = torch.optim.AdamW(list(policy.trainable().values()), foreach=device.type == "cuda")
    shape = (settings.batch_size, settings.group_size, args.new_tokens)
    tokens = torch.randint(5, 1000, shape, device=device)
    keep, finished = (
        torch.ones(shape, dtype=torch.bool, device=device),
        torch.ones(shape[:2], dtype=torch.bool),
    )
    rollout = Rollout(tokens, keep, torch.zeros(shape, device=device), finished.to(device))

    def scored() -> None:
        with torch.no_grad(), reference.swapped_in(policy):
            size = settings.micro_batch_size or len(context)
            for start in range(0, len(context), size):
                index = list(range(start, min(start + size, len(context))))
                part = rollout.select(index)
                hidden = policy.hidden(context.select(index), part)
                ops.token_log_probs(
                    hidden, policy.head, part.tokens.flatten(0, 1), part.keep.flatten(0, 1)
                )

    update(policy, settings, context, rollout, optimizer)
    phases = {
        "rollout": lambda: policy.sample(
            context, settings.group_size, settings.decoding, SampleKey(0, 0)
        ),
        "reference": scored,
        "update": lambda: update(policy, settings, context, rollout, optimizer),
    }
    out = {}
    for name, run in phases.items():
        start = in_use(device)
        peak.reset()
        run()
        most = peak.read()
        assert most is not None, "this system does not tell a process's peak memory"
        out[name] = {"start_bytes": start - before, "peak_bytes": most - before}
    return out


def in_use(device: torch.device) -> int:
    """Bytes in use now."""
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device)
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name, default in {"width": 1024, "layers": 20, "batch_size": 2, "group_size": 4}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    for name, default in {"micro_batch_size": 1, "prompt_tokens": 192, "new_tokens": 32}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--gradient_checkpointing", action="store_true")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        print(json.dumps(measure(args)))
        return

    settings = case(args)
    working = trace(replace(settings), audio_s=1.0, text_tokens=args.prompt_tokens)
    planned = plan(working, "resident")

    # A process of its own: what the plan held must not be in its resident set.
    command = [sys.executable, __file__, *sys.argv[1:], "--child"]
    run = subprocess.run(
        command, env=os.environ | MALLOC, capture_output=True, text=True, check=False
    )
    if run.returncode:
        raise SystemExit(run.stderr)
    measured = json.loads(run.stdout.splitlines()[-1])

    weights = sum(p.nbytes for p in working.policy.parameters())
    print(
        f"weights {weights / MIB:.0f} MiB on {args.device}; MiB over the process before the model\n"
    )
    print("| phase | planned peak | measured | apart | planned working memory | measured | apart |")
    print("|---|---|---|---|---|---|---|")
    for name, found in measured.items():
        expected, inside = planned.peak_bytes[name], planned.working_bytes[name]
        work = found["peak_bytes"] - found["start_bytes"]
        row = [expected, found["peak_bytes"], inside, work]
        cells = [f"{value / MIB:.0f}" for value in row]
        apart = [f"{100 * (row[i] / row[i + 1] - 1):+.1f} %" for i in (0, 2)]
        print("| " + " | ".join([name, *cells[:2], apart[0], *cells[2:], apart[1]]) + " |")


if __name__ == "__main__":
    main()
