"""Which prompt each row of a rollout goes on from, for what is held once for each prompt."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from lightning_audiorl.fields import Checked, Shape


@dataclass(frozen=True)
class GroupRows(Checked):
    """The rows of B prompts, prompt by prompt.

    Args:
        prompts: [R] int64, the place of each row's prompt, in ascending order.
        slots: [R] int64, the row's place among those of its prompt.
        num_slots: more than the largest slot.

    Example: two prompts, of whose samples two and one go on.
        >>> rows = GroupRows.of(torch.tensor([0, 0, 1]))
        >>> rows.slots, rows.num_slots
        (tensor([0, 1, 0]), 2)
        >>> rows.grid(torch.tensor([5, 6, 7]), num_prompts=2)
        tensor([[5, 6],
                [7, 0]])
    """

    prompts: Annotated[Tensor, Shape("R")]
    slots: Annotated[Tensor, Shape("R")]
    num_slots: int

    @classmethod
    def of(cls, prompts: Tensor) -> GroupRows:
        """The rows of ``prompts`` [R], which ascend from 0 and leave none out."""
        counts = prompts.bincount()
        first = counts.cumsum(0) - counts
        slots = torch.arange(len(prompts), device=prompts.device) - first[prompts]
        return cls(prompts, slots, int(counts.max()))

    @classmethod
    def whole(cls, num_prompts: int, group_size: int, device: torch.device) -> GroupRows:
        """The rows of ``num_prompts`` prompts with ``group_size`` samples each."""
        prompts = torch.arange(num_prompts, device=device).repeat_interleave(group_size)
        slots = torch.arange(group_size, device=device).repeat(num_prompts)
        return cls(prompts, slots, group_size)

    def selected(self, rows: Tensor) -> tuple[Tensor, GroupRows]:
        """The places of the prompts that ``rows`` are of, and these rows among them."""
        prompts, places = self.prompts[rows].unique(return_inverse=True)
        return prompts, GroupRows.of(places)

    def grid(self, x: Tensor, num_prompts: int) -> Tensor:
        """[R, ...] -> [B, num_slots, ...]; a prompt with fewer rows than others has zeros behind them."""
        shape = (num_prompts, self.num_slots, *x.shape[1:])
        if len(x) == num_prompts * self.num_slots:
            return x.reshape(shape)
        grid = x.new_zeros(shape)
        grid[self.prompts, self.slots] = x
        return grid

    def rows(self, grid: Tensor) -> Tensor:
        """[B, num_slots, ...] -> [R, ...], the way back of `grid`."""
        if len(self.prompts) == grid.shape[0] * grid.shape[1]:
            return grid.flatten(0, 1)
        return grid[self.prompts, self.slots]
