"""Rollout with a key/value cache that grows in place against transformers' DynamicCache, in one run, alternating.

    python benchmarks/rollout_cache.py --seconds 5 15 30 --group-size 8

Same tiny model, prompts, keys and hence tokens on both sides. Prints the median of 5 rollouts after 2 warm-ups.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from unittest import mock

import torch

from lightning_audiorl.models import FunAsrNanoPolicy, SampleKey, TinyFunAsrNano
from lightning_audiorl.types import Decoding, PromptBatch, Utterance

_RATE_HZ = 16000


def batch(num_prompts: int, seconds: float) -> PromptBatch:
    wave = 0.1 * torch.randn(
        num_prompts, int(seconds * _RATE_HZ), generator=torch.Generator().manual_seed(0)
    )
    rows = tuple(Utterance(f"clip{i}", (), "one", seconds) for i in range(num_prompts))
    return PromptBatch(wave, torch.full((num_prompts,), wave.shape[1]), _RATE_HZ, rows)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, nargs="+", default=[5.0, 15.0, 30.0])
    parser.add_argument("--num-prompts", type=int, default=4)
    parser.add_argument("--group-size", type=int, default=8)
    parser.add_argument("--num-tokens", type=int, default=64)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()

    torch.set_num_threads(args.threads)
    policy = FunAsrNanoPolicy(TinyFunAsrNano())
    policy.stop_ids = [0]  # a token that is never drawn: every completion runs to its cap
    decoding = Decoding(max_new_tokens=args.num_tokens, min_cap=args.num_tokens)

    print(
        f"torch {torch.__version__}, {platform.machine()}, {args.threads} thread(s); seconds: median [range]"
    )
    for seconds in args.seconds:
        context = policy.encode(batch(args.num_prompts, seconds))
        times: dict[str, list[float]] = {"grows in place": [], "DynamicCache": []}
        tokens = {}

        # In turn, so that a slow moment of the machine meets both.
        for _ in range(7):
            for name, taken in times.items():
                target = "lightning_audiorl.models.decoding.decoder_only.make_room"
                off = mock.patch(target) if name == "DynamicCache" else mock.MagicMock()
                with off:
                    start = time.perf_counter()
                    tokens[name] = policy.sample(
                        context, args.group_size, decoding, SampleKey(0, 0)
                    ).tokens
                    taken.append(time.perf_counter() - start)

        assert torch.equal(*tokens.values())

        # The first two are the warm-up.
        medians = {}
        for name, taken in times.items():
            kept = taken[2:]
            medians[name] = statistics.median(kept)
            print(
                f"{seconds:5.1f} s  {name:15s} {medians[name]:.3f} [{min(kept):.3f}, {max(kept):.3f}]"
            )
        print(f"{seconds:5.1f} s  ratio {medians['DynamicCache'] / medians['grows in place']:.2f}")


if __name__ == "__main__":
    main()
