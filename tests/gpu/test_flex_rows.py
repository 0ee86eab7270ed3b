"""On CUDA, packed rows by compiled FlexAttention have the numbers and gradients of those by blocks."""

from __future__ import annotations

import pytest
import torch

from lightning_audiorl.models.decoding.shared_prefix import Layout, attention, packed_arguments
from tests.gpu.runs import NEEDS_GPU
from tests.helpers import assert_close, assert_gradients_close
from tests.models.test_packed import SELF_ATTENTION

pytestmark = NEEDS_GPU


@pytest.mark.parametrize(("heads", "key_heads"), [(4, 4), (4, 2)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rows_and_gradients_as_by_blocks(heads: int, key_heads: int, dtype: torch.dtype) -> None:
    """Of two lengths, one after the other: what was compiled for the first takes the second."""
    generator = torch.Generator().manual_seed(0)
    for num_prompt, length in ((200, 40), (77, 30)):
        lengths = torch.tensor([num_prompt, num_prompt // 2])
        keep = (torch.arange(num_prompt) < lengths[:, None]).cuda()
        num_places = num_prompt + 3 * length
        shapes = [(2, num, num_places, 32) for num in (heads, key_heads, key_heads)]
        values = [torch.randn(shape, generator=generator).to("cuda", dtype) for shape in shapes]
        outer = torch.randn(2, num_places, heads, 32, generator=generator).to("cuda", dtype)
        # What stands on padding is read by nobody.
        outer[:, :num_prompt] *= keep[..., None, None]

        results = []
        for flex in (False, True):
            layout = Layout(keep, group_size=3, length=length, flex=flex)
            assert layout.is_flex == flex
            states = [x.clone().requires_grad_() for x in values]
            mask = packed_arguments(layout)["attention_mask"]
            out, _ = attention(SELF_ATTENTION, *states, mask, layout)
            (out * outer).sum().backward()
            results.append([out.detach() * (outer != 0), *(x.grad for x in states)])

        by_blocks, by_flex = results
        if dtype == torch.bfloat16:
            torch.testing.assert_close(by_flex, by_blocks, atol=0.05, rtol=0.05)
            continue
        assert_close(by_flex[0], by_blocks[0], "float32")
        for one, other in zip(by_flex[1:], by_blocks[1:], strict=True):
            assert_gradients_close(one, other)
