"""The shared clip: in the rollout, all samples of a group attend to one copy of their clip's keys and values.

Whisper's are 1,500 frames in every layer, however short the clip: repeated for each sample they were the largest thing
that a rollout held, and each token read all of it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from lightning_audiorl.fields import Checked, Shape

#: Attribute of a cross-attention that gets no keywords from its layer: the `ClipRows` of the call.
HANDED_ON = "clip_rows_of_layer"


@dataclass(frozen=True)
class ClipRows(Checked):
    """Which clip each row of a rollout attends to.

    Args:
        clips: [R] int64, the place of each row's clip, in ascending order.
        slots: [R] int64, the row's place among those of its clip.
        num_slots: more than the largest slot.

    Example: two clips, of whose samples two and one go on.
        >>> rows = ClipRows.of(torch.tensor([0, 0, 1]))
        >>> rows.slots, rows.num_slots
        (tensor([0, 1, 0]), 2)
    """

    clips: Annotated[Tensor, Shape("R")]
    slots: Annotated[Tensor, Shape("R")]
    num_slots: int

    @classmethod
    def of(cls, clips: Tensor) -> ClipRows:
        """The rows of ``clips`` [R], which ascend from 0 and leave none out."""
        counts = clips.bincount()
        first = counts.cumsum(0) - counts
        slots = torch.arange(len(clips), device=clips.device) - first[clips]
        return cls(clips, slots, int(counts.max()))


def attend_to_clips(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    rows: ClipRows,
    scaling: float,
    frames: Tensor | None = None,
) -> Tensor:
    """Cross-attention of one token for each row, [R, 1, heads, D].

    Every query is a sequence of its own, as where keys and values are repeated: the same numbers, bit for bit. The
    samples of a clip come one after the other for each head, whose keys and values the processor then has at hand.

    Args:
        query: [R, heads, 1, D].
        key, value: [B, heads, F, D] of the clips.
        rows: where the queries belong.
        scaling: of the scores.
        frames: [B, 1, 1, F] bool, those of each clip that are attended to; None are all.
    """
    num_clips, heads, num_frames, width = key.shape
    shape = (num_clips, rows.num_slots, heads, width)

    # A clip with fewer samples than others has places without one, whose result nobody reads.
    is_full = len(query) == num_clips * rows.num_slots
    if is_full:
        grid = query.reshape(shape)
    else:
        grid = query.new_zeros(shape)
        grid[rows.clips, rows.slots] = query.squeeze(2)

    # Heads of clips stand where rows do, samples where heads do: a stride of 0 then repeats keys and values.
    one_each = grid.transpose(1, 2).reshape(num_clips * heads, rows.num_slots, 1, width)
    shared = (num_clips * heads, 1, num_frames, width)

    mask = None
    if frames is not None:
        mask = frames.repeat_interleave(heads, 0).expand(-1, rows.num_slots, -1, -1)

    out = scaled_dot_product_attention(
        one_each,
        key.reshape(shared).expand(-1, rows.num_slots, -1, -1),
        value.reshape(shared).expand(-1, rows.num_slots, -1, -1),
        mask,
        scale=scaling,
    )
    out = out.view(num_clips, heads, rows.num_slots, width).transpose(1, 2)
    if is_full:
        return out.reshape(len(query), 1, heads, width)
    return out[rows.clips, rows.slots][:, None]


def hand_on_clip_rows(layers: Iterable[nn.Module]) -> None:
    """Have layers hand ``clip_rows`` on to their cross-attention, which some families' layers give no keywords."""
    for layer in layers:
        layer.register_forward_pre_hook(_hand_on, with_kwargs=True)


def _hand_on(layer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    setattr(layer.encoder_attn, HANDED_ON, kwargs.get("clip_rows"))
