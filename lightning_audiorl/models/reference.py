"""The reference policy: the value of the trainable tensors at RL start, swapped in when it is asked."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from lightning_audiorl.models.finetune import adapters_off
from lightning_audiorl.models.policy import Policy
from lightning_audiorl.ops.shards import local


def content_hash(model: nn.Module) -> str:
    """Hash of every tensor in ``model.state_dict()``, names included; the same on every device.

    Example:
        >>> content_hash(nn.Linear(1, 1)) == content_hash(nn.Linear(1, 1))
        False
        >>> len(content_hash(nn.Linear(1, 1)))
        32
    """
    digest = hashlib.blake2b(digest_size=16)
    for name, value in sorted(model.state_dict().items()):
        digest.update(f"{name}{tuple(value.shape)}{value.dtype}".encode())
        # As bytes: numpy has no bfloat16.
        as_bytes = value.detach().cpu().contiguous().flatten().view(torch.uint8)
        digest.update(as_bytes.numpy().tobytes())
    return digest.hexdigest()


class Reference:
    """A parked copy of the trainable tensors; everything frozen is shared with the policy.

    Fresh LoRA adapters that are all that trains need no copy: the reference is the model with adapters off.
    Not a module, so neither Lightning, DDP, FSDP nor a checkpoint sees it.
    """

    def __init__(self, policy: Policy) -> None:
        trainable = policy.trainable()
        only_adapters = bool(trainable) and all("lora_" in name for name in trainable)
        # The product of a fresh adapter's two matrices is zero, since the second one is.
        second = [local(p) for name, p in trainable.items() if "lora_B" in name]
        fresh = not any(values.any() for values in second)
        self.adapters_only = only_adapters and fresh

        self._values: dict[str, Tensor] = {}
        if not self.adapters_only:
            self._values = {name: local(p).cpu().clone() for name, p in trainable.items()}

    def tensors(self) -> list[Tensor]:
        """The reference's values, for a strategy to place."""
        return list(self._values.values())

    @property
    def num_bytes(self) -> int:
        """Bytes of the values held."""
        return sum(t.untyped_storage().nbytes() for t in self._values.values())

    @contextmanager
    def swapped_in(self, policy: Policy) -> Iterator[None]:
        """Inside, ``policy`` computes as the reference; no gradients. The policy's values come back after."""
        with torch.no_grad():
            if self.adapters_only:
                with adapters_off(policy):
                    yield
                return
            with _exchanged(policy.trainable(), self._values):
                # Autocast keeps its casts of a parameter through a change of values: the reference would be the policy.
                torch.clear_autocast_cache()
                yield
            torch.clear_autocast_cache()


@contextmanager
def _exchanged(parameters: dict[str, nn.Parameter], values: dict[str, Tensor]) -> Iterator[None]:
    """Whole tensors change their data; FSDP keeps its own view of a shard's memory, so a shard is written into."""
    own = {
        name: local(p).clone() if isinstance(p, DTensor) else p.data
        for name, p in parameters.items()
    }

    def put(new: dict[str, Tensor]) -> None:
        for name, p in parameters.items():
            if isinstance(p, DTensor):
                local(p).copy_(new[name])
            else:
                p.data = new[name].to(device=p.device, dtype=p.dtype)

    try:
        put(values)
        yield
    finally:
        put(own)
