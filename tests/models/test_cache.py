"""The cache with room to grow holds what transformers' own holds."""

from __future__ import annotations

import torch
from transformers import DynamicCache

from lightning_audiorl.models.decoding.cache import make_room


def test_a_roomy_cache_equals_a_plain_one() -> None:
    generator = torch.Generator().manual_seed(0)
    plain, roomy = DynamicCache(), DynamicCache()

    def extend(rows: int, length: int) -> None:
        for layer in range(2):
            keys, values = torch.randn(2, rows, 3, length, 4, generator=generator)
            expected = plain.update(keys, values, layer)
            actual = roomy.update(keys, values, layer)
            assert all(torch.equal(a, b) for a, b in zip(actual, expected, strict=True))

    extend(2, 5)
    make_room(roomy)
    for cache in (plain, roomy):
        cache.batch_repeat_interleave(3)
    for _ in range(70):
        make_room(roomy)
        extend(6, 1)
    for cache in (plain, roomy):
        cache.batch_select_indices(torch.tensor([4, 1]))
    extend(2, 150)
    extend(2, 1)
    assert roomy.get_seq_length() == plain.get_seq_length() == 226
    assert len(roomy) == len(plain) == 2
