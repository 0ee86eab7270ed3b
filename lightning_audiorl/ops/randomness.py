"""Randomness keyed by what it is for, so that no draw depends on batch composition, ranks or retries."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor


def key_to_seed(*key: int | str) -> int:
    """A 63-bit seed from a key such as ``("sample", seed, rl_step, prompt_id, sample_index)``.

    Parts are length-prefixed before hashing, so ("a", "bc") and ("ab", "c") differ.
    """
    text = "".join(f"{len(str(part))}:{part}" for part in key)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def keyed_generator(*key: int | str) -> torch.Generator:
    """A CPU generator for this key alone."""
    return torch.Generator().manual_seed(key_to_seed(*key))


def keyed_uniform(num: int, *key: int | str) -> Tensor:
    """[num] float64 draws in [0, 1). The first n draws do not depend on ``num``."""
    return torch.rand(num, generator=keyed_generator(*key), dtype=torch.float64)
