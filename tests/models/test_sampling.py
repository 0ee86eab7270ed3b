"""The sampling loop against naive loops: draws, kept sets, caps, and rows that leave the batch."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor

from lightning_audiorl.models.decoding.sampling import draw, keyed_uniforms, sample
from lightning_audiorl.models.policy import SampleKey
from lightning_audiorl.ops.randomness import keyed_generator, keyed_uniform
from lightning_audiorl.types import Decoding, Rollout
from tests.helpers import assert_close

KEY = SampleKey(seed=0, rl_step=3)
STOP = 0


def random_logits(*shape: int) -> Tensor:
    return 2 * torch.randn(*shape, generator=keyed_generator("logits", *shape))


# --- one draw


def test_draws_follow_the_softmax() -> None:
    logits = torch.tensor([0.3, -1.0, 1.2, 0.0, -torch.inf, 0.7])
    num, temperature = 4000, 0.7
    uniform = keyed_uniforms([str(i) for i in range(num // 4)], 4, [1] * (num // 4), KEY)[:, 0]
    drawn = draw(logits.expand(num, -1), uniform, Decoding(temperature=temperature))
    expected = num * torch.softmax(logits / temperature, -1)
    counts = torch.bincount(drawn.tokens, minlength=6).float()
    assert counts[4] == 0
    possible = expected > 0
    chi_square = ((counts - expected)[possible] ** 2 / expected[possible]).sum()
    assert chi_square < 23.5, (
        f"p < 1e-4 with 4 degrees of freedom: {counts.tolist()} for {expected.tolist()}"
    )
    assert_close(drawn.log_probs, torch.log_softmax(logits / temperature, -1)[drawn.tokens])


def test_draw_is_the_inverse_of_the_cumulative_distribution() -> None:
    logits = torch.tensor([0.5, 0.0, 0.25, 0.25]).log()
    uniform = torch.tensor([0.0, 0.49, 0.51, 0.74, 0.76, 1 - 2**-53], dtype=torch.float64)
    assert draw(logits.expand(6, -1), uniform, Decoding()).tokens.tolist() == [0, 0, 2, 2, 3, 3]


@pytest.mark.parametrize("uniform", [0.0, 1 - 2**-53])
def test_forbidden_tokens_are_never_drawn(uniform: float) -> None:
    logits = random_logits(64, 9)
    logits[:, [0, 4, 8]] = -torch.inf
    drawn = draw(logits, torch.full((64,), uniform, dtype=torch.float64), Decoding())
    assert set(drawn.tokens.tolist()) == ({1} if uniform == 0 else {7})
    assert torch.isfinite(drawn.log_probs).all()


def test_greedy_takes_the_most_likely_token_at_temperature_one() -> None:
    logits = random_logits(50, 7)
    drawn = draw(logits, torch.zeros(50, dtype=torch.float64), Decoding(temperature=0.0, top_k=2))
    assert drawn.tokens.tolist() == logits.argmax(-1).tolist()
    assert drawn.support is None
    assert_close(drawn.log_probs, torch.log_softmax(logits, -1).amax(-1))


def kept_naively(logits: list[float], temperature: float, top_k: int, top_p: float) -> set[int]:
    """Top-k, then the smallest set of the rest with mass top-p."""
    weights = [math.exp(value / temperature) for value in logits]
    order = sorted((i for i, w in enumerate(weights) if w > 0), key=lambda i: -weights[i])
    order = order[:top_k] if top_k else order
    total, mass, kept = sum(weights[i] for i in order), 0.0, set()
    for i in order:
        if mass >= top_p:
            break
        kept.add(i)
        mass += weights[i] / total
    return kept


@pytest.mark.parametrize(
    ("top_k", "top_p"), [(3, 1.0), (0, 0.6), (4, 0.8), (1, 1.0), (0, 1e-9), (99, 1.0)]
)
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_truncation_keeps_exactly_the_naive_set(
    top_k: int, top_p: float, temperature: float
) -> None:
    logits = random_logits(60, 8)
    logits[::3, 2] = -torch.inf
    decoding = Decoding(temperature=temperature, top_k=top_k, top_p=top_p)
    drawn = draw(logits, keyed_uniform(60, "truncation"), decoding)
    assert drawn.support is not None
    for row, support, token, log_prob in zip(
        logits.tolist(),
        drawn.support.tolist(),
        drawn.tokens.tolist(),
        drawn.log_probs.tolist(),
        strict=True,
    ):
        kept = kept_naively(row, temperature, top_k, top_p)
        assert {i for i in support if i >= 0} == kept
        assert token in kept
        mass = sum(math.exp(row[i] / temperature) for i in kept)
        assert_close(log_prob, row[token] / temperature - math.log(mass))


def test_equal_logits_are_truncated_to_k() -> None:
    drawn = draw(torch.zeros(1, 6), torch.zeros(1, dtype=torch.float64), Decoding(top_k=2))
    assert drawn.support is not None
    assert drawn.support.shape == (1, 2)


# --- keys


def test_uniforms_depend_on_the_key_alone() -> None:
    together = keyed_uniforms(["a", "b"], 3, [5, 9], KEY)
    alone = keyed_uniforms(["b"], 2, [4], KEY)
    assert torch.equal(together[3:5, :4], alone)
    assert together[0, 5:].tolist() == [0.0] * 4
    assert len(together[:, :5].unique()) == 30


@pytest.mark.parametrize(
    "other", [SampleKey(1, 3), SampleKey(0, 4), SampleKey(0, 3, "evaluate/greedy")]
)
def test_another_key_gives_other_uniforms(other: SampleKey) -> None:
    assert not torch.isclose(
        keyed_uniforms(["a"], 2, [8], KEY), keyed_uniforms(["a"], 2, [8], other)
    ).any()


# --- the loop


@dataclass
class Chain:
    """A decoder whose next logits hang on its start and on all tokens so far; each row knows what it has seen."""

    starts: list[int]
    seen: list[list[int]] = field(default_factory=list)
    advanced: int = 0

    def __post_init__(self) -> None:
        self.seen = self.seen or [[start] for start in self.starts]

    @property
    def hidden(self) -> Tensor:
        """[rows, 6] logits, a pure function of what a row has seen; the head is the identity."""
        return torch.stack([chain_logits(row) for row in self.seen])

    def advance(self, tokens: Tensor) -> None:
        self.advanced += len(tokens)
        for row, token in zip(self.seen, tokens.tolist(), strict=True):
            row.append(token)

    def select(self, rows: Tensor) -> None:
        self.seen = [self.seen[i] for i in rows.tolist()]


def chain_logits(seen: list[int]) -> Tensor:
    return torch.randn(6, generator=keyed_generator("chain", *seen))


def sample_naively(
    start: int, prompt_id: str, g: int, cap: int, decoding: Decoding
) -> tuple[list[int], list[float], bool, list[set[int]]]:
    """One row alone, with Python floats: tokens, log-probs, finished, kept sets."""
    uniforms = keyed_uniform(cap, KEY.purpose, KEY.seed, KEY.rl_step, prompt_id, g).tolist()
    seen, log_probs, kept_sets = [start], [], []
    for uniform in uniforms:
        logits = chain_logits(seen).tolist()
        kept = kept_naively(logits, decoding.temperature, decoding.top_k, decoding.top_p)
        weights = [
            math.exp(x / decoding.temperature) if i in kept else 0.0 for i, x in enumerate(logits)
        ]
        masses = itertools.accumulate(weights)
        token = next(i for i, mass in enumerate(masses) if mass > uniform * sum(weights))
        seen.append(token)
        log_probs.append(math.log(weights[token] / sum(weights)))
        kept_sets.append(kept)
        if token == STOP:
            return seen[1:], log_probs, True, kept_sets
    return seen[1:], log_probs, False, kept_sets


def sample_chain(
    starts: list[int], group_size: int, caps: list[int], decoding: Decoding
) -> tuple[Rollout, Chain]:
    state = Chain([start for start in starts for _ in range(group_size)])
    ids = [str(start) for start in starts]
    return sample(state, lambda hidden: hidden, [STOP], ids, group_size, caps, decoding, KEY), state


@pytest.mark.parametrize(
    "decoding",
    [
        Decoding(),
        Decoding(temperature=0.7),
        Decoding(top_k=3),
        Decoding(temperature=1.3, top_p=0.7),
    ],
)
def test_loop_equals_rows_sampled_alone(decoding: Decoding) -> None:
    starts, caps, group_size = [7, 8, 9, 10, 11], [1, 4, 30, 12, 12], 4
    rollout, state = sample_chain(starts, group_size, caps, decoding)
    lengths = rollout.lengths.flatten().tolist()
    assert len(set(lengths)) > 4, "all of one length: nothing left the batch"
    assert state.advanced < len(lengths) * (max(lengths) - 1), "finished rows never left"
    for b, (start, cap) in enumerate(zip(starts, caps, strict=True)):
        for g in range(group_size):
            tokens, log_probs, finished, kept_sets = sample_naively(
                start, str(start), g, cap, decoding
            )
            assert rollout.tokens[b, g, rollout.keep[b, g]].tolist() == tokens
            assert_close(rollout.log_probs[b, g, : len(tokens)], log_probs)
            assert bool(rollout.finished[b, g]) == finished
            assert rollout.keep[b, g].tolist() == [
                t < len(tokens) for t in range(rollout.keep.shape[-1])
            ]
            if rollout.support is not None:
                found = [{i for i in row if i >= 0} for row in rollout.support[b, g].tolist()]
                assert found[: len(tokens)] == kept_sets
                assert not any(found[len(tokens) :])
    assert (rollout.support is None) == (decoding.top_k == 0 and decoding.top_p == 1)


def test_truncated_loops_carry_a_support_as_wide_as_needed() -> None:
    rollout, _ = sample_chain([7, 8], 2, [9, 9], Decoding(top_k=3))
    assert rollout.support is not None
    assert rollout.support.shape == (*rollout.tokens.shape, 3)


def test_caps_cut_and_a_stop_at_the_cap_is_finished() -> None:
    uncut, _ = sample_chain([9], 8, [40], Decoding())
    g = int(uncut.lengths[0].argmax())
    length = int(uncut.lengths[0, g])
    assert bool(uncut.finished[0, g])
    assert length > 2
    exact, _ = sample_chain([9], 8, [length], Decoding())
    assert bool(exact.finished[0, g])
    assert int(exact.tokens[0, g, length - 1]) == STOP
    short, _ = sample_chain([9], 8, [length - 1], Decoding())
    assert not bool(short.finished[0, g])
    assert int(short.lengths[0, g]) == length - 1
    assert torch.equal(short.tokens[0, g], uncut.tokens[0, g, : length - 1])
