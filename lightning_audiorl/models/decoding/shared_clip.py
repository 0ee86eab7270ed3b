"""The shared clip: in the rollout, all samples of a group attend to one copy of their clip's keys and values.

Whisper's are 1,500 frames in every layer, however short the clip: repeated for each sample they were the largest thing
that a rollout held, and each token read all of it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from lightning_audiorl.models.decoding.group_rows import GroupRows

#: Attribute of a cross-attention that gets no keywords from its layer: the `GroupRows` of the call.
HANDED_ON = "clip_rows_of_layer"


def attend_to_clips(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    rows: GroupRows,
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
    # A clip with fewer samples than others has places without one, whose result nobody reads.
    grid = rows.grid(query.squeeze(2), num_clips)

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
    return rows.rows(out)[:, None]


def hand_on_clip_rows(layers: Iterable[nn.Module]) -> None:
    """Have layers hand ``clip_rows`` on to their cross-attention, which some families' layers give no keywords."""
    for layer in layers:
        layer.register_forward_pre_hook(_hand_on, with_kwargs=True)


def _hand_on(layer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    setattr(layer.encoder_attn, HANDED_ON, kwargs.get("clip_rows"))
