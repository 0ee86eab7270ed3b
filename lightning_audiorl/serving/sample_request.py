"""What is sent to an engine and what comes back, both checked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lightning_audiorl.models.decoding.decoder_only import DecoderOnlyPolicy
from lightning_audiorl.models.policy import Context, SampleKey
from lightning_audiorl.ops.randomness import key_to_seed
from lightning_audiorl.serving.errors import EngineError
from lightning_audiorl.types import Decoding, Rollout


def engine_seed(key: SampleKey, prompt_id: str, sample: int) -> int:
    """32 bits that key the draws of one sample; neighbours have nothing in common.

    Example:
        >>> seeds = [engine_seed(SampleKey(0, 3), "a", g) for g in range(3)]
        >>> len(set(seeds)), max(seeds) < 2**32
        (3, True)
    """
    return key_to_seed(key.purpose, key.seed, key.rl_step, prompt_id, sample) % 2**32


@torch.no_grad()
def prompt_embeddings(
    policy: DecoderOnlyPolicy[Any], context: Context, ids: Sequence[str], dtype: str
) -> list[Tensor]:
    """[P, D] of each prompt on the CPU, as the language model reads it: audio and text, computed once.

    Raises:
        EngineError: naming the prompt whose embeddings an engine could not take.
    """
    with policy.evaluating():
        embeds, keep = policy.prompt(context, "right")
    width = policy.backbone.config.hidden_size
    rows = []
    for prompt_id, embed, length in zip(ids, embeds, keep.sum(-1).tolist(), strict=True):
        row = embed[:length].cpu()
        check_embeddings(row, prompt_id, width)

        # Once more: what is finite may not be so in less precision.
        rows.append(row.to(getattr(torch, dtype)).contiguous())
        check_embeddings(rows[-1], prompt_id, width)
    return rows


def check_embeddings(embeds: Tensor, prompt_id: str, width: int) -> None:
    """See that an engine may be given ``embeds``: ones that do not fit can cost it its life.

    Raises:
        EngineError: naming the prompt, and what is wrong.
    """
    what = f"prompt {prompt_id!r}: its embeddings"
    if embeds.ndim != 2 or embeds.shape[0] == 0 or embeds.shape[1] != width:
        raise EngineError(
            f"{what} have the shape {list(embeds.shape)}; the language model reads [tokens, {width}]"
        )
    if not embeds.is_floating_point():
        raise EngineError(f"{what} are {embeds.dtype}, no floating-point numbers")
    if not embeds.isfinite().all():
        raise EngineError(f"{what} are not finite")


@dataclass(frozen=True)
class SampleRequest:
    """All that a group of samples is drawn from.

    Args:
        ids: of B prompts.
        prompts: [P, D] of each.
        caps: most tokens of a completion, stop token included.
        seeds: G of each prompt.
        stops: tokens that end a completion.
        allowed: tokens that may be sampled.
        temperature: of the draws.
    """

    ids: list[str]
    prompts: list[Tensor]
    caps: list[int]
    seeds: list[list[int]]
    stops: list[int]
    allowed: list[int]
    temperature: float

    def message(self) -> tuple[dict[str, Any], list[bytes]]:
        """As it is sent."""
        message = {
            "op": "sample",
            "shapes": [list(prompt.shape) for prompt in self.prompts],
            "dtype": str(self.prompts[0].dtype).removeprefix("torch."),
            "caps": self.caps,
            "seeds": self.seeds,
            "stops": self.stops,
            "allowed": self.allowed,
            "temperature": self.temperature,
        }
        return message, [prompt.view(torch.uint8).numpy().tobytes() for prompt in self.prompts]

    def check_room(self, max_model_len: int) -> None:
        """See that prompts and completions fit.

        Raises:
            ValueError: naming a prompt that does not.
        """
        for prompt_id, prompt, cap in zip(self.ids, self.prompts, self.caps, strict=True):
            if len(prompt) + cap > max_model_len:
                raise ValueError(
                    f"row {prompt_id!r}: {len(prompt)} tokens of the prompt and {cap} of the completion are more than "
                    f"the engine's {max_model_len}; set decoding.max_new_tokens, or the engine's max_model_len"
                )

    def rollout(
        self, answer: dict[str, Any], blobs: Sequence[bytes], device: torch.device
    ) -> Rollout:
        """The engine's answer as a rollout.

        Raises:
            EngineError: for what these settings cannot have given.
        """
        group_size = len(self.seeds[0])
        lengths: list[int] = answer["lengths"]
        num_rows = len(self.ids) * group_size
        if len(lengths) != num_rows or len(blobs) != 2:
            raise EngineError(f"the engine gave {len(lengths)} samples; asked for were {num_rows}")

        tokens = torch.frombuffer(bytearray(blobs[0]), dtype=torch.int32).long()
        log_probs = torch.frombuffer(bytearray(blobs[1]), dtype=torch.float32)
        if not len(tokens) == len(log_probs) == sum(lengths):
            raise EngineError(
                f"the engine gave {len(tokens)} tokens and {len(log_probs)} log-probs for lengths of {sum(lengths)}"
            )
        caps = torch.tensor(self.caps).repeat_interleave(group_size)
        self._check(tokens, log_probs, torch.tensor(lengths), caps)

        # Side by side: a stop token stands behind the end.
        shape = (num_rows, max(lengths))
        keep = torch.arange(shape[1]) < torch.tensor(lengths)[:, None]
        wide = torch.full(shape, self.stops[0]).masked_scatter(keep, tokens)
        wide_log_probs = torch.zeros(shape).masked_scatter(keep, log_probs)
        last = wide.gather(1, torch.tensor(lengths)[:, None] - 1).squeeze(1)
        finished = torch.isin(last, torch.tensor(self.stops))

        groups = (len(self.ids), group_size)
        rollout = Rollout(
            wide.unflatten(0, groups),
            keep.unflatten(0, groups),
            wide_log_probs.unflatten(0, groups),
            finished.unflatten(0, groups),
        )
        return rollout.to(device)

    def _check(self, tokens: Tensor, log_probs: Tensor, lengths: Tensor, caps: Tensor) -> None:
        """Tokens, log-probs and lengths are such as these settings give."""
        if not ((lengths >= 1) & (lengths <= caps)).all():
            raise EngineError("the engine gave an empty completion, or one beyond its cap")
        if not torch.isin(tokens, torch.tensor(self.allowed)).all():
            raise EngineError("the engine gave a token that may not be sampled")

        ends = torch.zeros(len(tokens), dtype=torch.bool)
        ends[lengths.cumsum(0) - 1] = True
        stopped = torch.isin(tokens, torch.tensor(self.stops))
        if (stopped & ~ends).any():
            raise EngineError("the engine went on behind a stop token")
        if (~stopped[ends] & (lengths < caps)).any():
            raise EngineError("the engine ended a completion before a stop token or its cap")

        # A little above 0 is rounding.
        if not (log_probs.isfinite() & (log_probs < 1e-3)).all():
            raise EngineError("the engine gave log-probs that are none: NaN, infinite or above 0")


def sample_request(
    policy: DecoderOnlyPolicy[Any],
    context: Any,
    group_size: int,
    decoding: Decoding,
    key: SampleKey,
    dtype: str,
) -> SampleRequest:
    """What is asked of an engine for G samples of each prompt.

    Args:
        policy, context, group_size, decoding, key: see `Policy.sample`.
        dtype: of the embeddings.
    """
    ids: list[str] = context.ids
    seeds = [[engine_seed(key, prompt_id, g) for g in range(group_size)] for prompt_id in ids]
    return SampleRequest(
        ids,
        prompt_embeddings(policy, context, ids, dtype),
        policy.caps(context, decoding),
        seeds,
        list(policy.stop_ids),
        policy.allowed.nonzero().squeeze(-1).tolist(),
        decoding.temperature,
    )
