"""The shared prompt of a rollout: its keys and values are held once, and read once for all samples of its group.

A decoding step attends in two blocks, to the prompt (the samples of a group are then so many queries over one set of
keys) and to what each sample appended, and joins them by their normalisers: exact, at a group's share of the reading.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache, PreTrainedModel

from lightning_audiorl.models.decoding.blocks import attend, by_key_head, join
from lightning_audiorl.models.decoding.cache import SharedPromptLayer
from lightning_audiorl.models.decoding.group_rows import GroupRows


def has_window(model: PreTrainedModel) -> bool:
    """Whether some layers attend to the last tokens only."""
    config = model.config
    if not getattr(config, "sliding_window", None):
        return False
    layer_types = getattr(config, "layer_types", None)
    return layer_types is None or "sliding_attention" in layer_types


@dataclass
class SharedPrompt:
    """Prompts in a cache whose rows are those of their groups' samples.

    Args:
        cache: of `SharedPromptLayer`s.
        rows: which prompt each row goes on from.
        keep: [B, P] bool, the prompts' tokens; None where there is no padding.
        fused: whether torch's fused kernel of the CPU attends, as of `shared_prefix.Layout`.
    """

    cache: DynamicCache
    rows: GroupRows
    keep: Tensor | None
    fused: bool

    @classmethod
    def of(
        cls, cache: DynamicCache, keep: Tensor, group_size: int, fused: bool | None
    ) -> SharedPrompt:
        """Take over a ``cache`` that holds B prompts [B, P]; each gets ``group_size`` rows.

        Args:
            cache: filled by one call.
            keep: [B, P] bool.
            group_size: G.
            fused: by the device where it is None.
        """
        num_prompts = len(keep)
        device = keep.device
        if fused is None:
            fused = device.type == "cpu"

        # Under autocast attention computes in less than what some layers cache.
        dtype: torch.dtype | None = None
        if torch.is_autocast_enabled(device.type):
            dtype = torch.get_autocast_dtype(device.type)

        # One after the other: of no more than one layer are there two copies.
        layers: list[Any] = cache.layers
        for number, layer in enumerate(layers):
            layers[number] = SharedPromptLayer(
                layer.keys.to(dtype or layer.keys.dtype),
                layer.values.to(dtype or layer.values.dtype),
                num_prompts * group_size,
            )
        rows = GroupRows.whole(num_prompts, group_size, device)
        return cls(cache, rows, keep if _is_padded(keep) else None, fused)

    def select(self, rows: Tensor) -> None:
        """Go on with these rows only, and with the prompts that they are of."""
        layers: list[Any] = self.cache.layers
        num_prompts = len(layers[0].prompt_keys)
        prompts, self.rows = self.rows.selected(rows)
        for layer in layers:
            layer.batch_select_indices(rows)
            if len(prompts) < num_prompts:
                layer.select_prompts(prompts)
        if self.keep is not None:
            self.keep = self.keep[prompts]

    def arguments(self) -> dict[str, Any]:
        """What the model wants beside a token of each row, its position and the cache."""
        # Not a mask at all: transformers leaves it alone, and an attention function that ignores the prompts fails.
        device = self.rows.prompts.device
        return {
            "attention_mask": torch.empty(1, 1, 1, 0, dtype=torch.bool, device=device),
            "shared_prompt": self,
        }

    def attend(
        self, module: nn.Module, query: Tensor, key: Tensor, value: Tensor, scaling: float
    ) -> Tensor:
        """Attention of one token for each row, [R, 1, heads, D].

        Args:
            module: the layer's attention, which knows its number.
            query: [R, heads, 1, D].
            key, value: [R, key heads, t, D], what the rows appended so far.
            scaling: of the scores.
        """
        layer: Any = self.cache.layers[int(module.layer_idx)]  # type: ignore[arg-type]
        query = query.to(layer.prompt_keys.dtype)

        out_p, norm_p = self._over_prompt(query, layer.prompt_keys, layer.prompt_values, scaling)
        out_r, norm_r = attend(
            by_key_head(query, key), key, value, None, False, scaling, self.fused
        )
        # Heads that share a key stood as queries, one token each.
        num_rows, heads, _, width = query.shape
        out_r = out_r.reshape(num_rows, heads, width)
        norm_r = norm_r.reshape(num_rows, heads)
        out, _ = join(out_p, norm_p, out_r, norm_r)
        return out[:, None]

    def _over_prompt(
        self, query: Tensor, key: Tensor, value: Tensor, scaling: float
    ) -> tuple[Tensor, Tensor]:
        """Rows over their prompts: the result [R, heads, D] and its log-sum-exp [R, heads]."""
        num_prompts = len(key)
        grid = self.rows.grid(query.squeeze(2), num_prompts).transpose(1, 2)
        out, norm = attend(
            by_key_head(grid, key), key, value, self._bias(query), False, scaling, self.fused
        )
        out = out.reshape(grid.shape).transpose(1, 2)
        norm = norm.reshape(grid.shape[:3]).transpose(1, 2)
        return self.rows.rows(out), self.rows.rows(norm)

    def _bias(self, like: Tensor) -> Tensor | None:
        """[B, 1, 1, P] to be added to scores: -inf on the prompts' padding."""
        if self.keep is None:
            return None
        keep = self.keep[:, None, None]
        return torch.zeros_like(keep, dtype=like.dtype).masked_fill_(~keep, -torch.inf)


def _is_padded(keep: Tensor) -> bool:
    return not bool(keep.all())
