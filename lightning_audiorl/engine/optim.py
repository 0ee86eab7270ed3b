"""Optimiser and learning-rate schedule; both count RL steps."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, ReduceLROnPlateau

from lightning_audiorl.checks import check_count, check_number
from lightning_audiorl.weights.families import first_line

#: This library's own, and further ones by the names that transformers gives them.
ScheduleName = Literal[
    "constant",
    "linear",
    "cosine",
    "constant_with_warmup",
    "cosine_with_restarts",
    "cosine_with_min_lr",
    "cosine_warmup_with_min_lr",
    "inverse_sqrt",
    "polynomial",
    "warmup_stable_decay",
]
_OWN = ("constant", "linear", "cosine")


@dataclass(frozen=True)
class Optim:
    """AdamW with linear warm-up and a decay that ends at ``num_steps``; or any other optimiser and schedule.

    In YAML, another optimiser and another schedule are class paths, with arguments of their own::

        optim:
          optimizer: {class_path: torch.optim.SGD, init_args: {lr: 0.01, momentum: 0.9}}
          schedule: {class_path: torch.optim.lr_scheduler.StepLR, init_args: {step_size: 100}}

    Args:
        lr: peak learning rate.
        schedule: "constant", "linear" or "cosine" decay after the warm-up, down to ``min_lr_ratio`` x lr; a further
            name that ``transformers.get_scheduler`` knows, which is told ``warmup_steps`` and the run's length; or a
            torch scheduler's class path. transformers' warm-up begins at 0, ours one step later.
        warmup_steps: RL steps of linear warm-up.
        min_lr_ratio: floor of the decay.
        weight_decay, betas: AdamW's.
        max_grad_norm: gradient clipping by global norm; 0 is off.
        optimizer: in place of AdamW; ``lr``, ``weight_decay`` and ``betas`` are then its own arguments.
        schedule_args: further arguments of a schedule of transformers, such as ``{num_cycles: 2}``.
        max_skipped_updates: updates in a row that may be skipped because a loss or the gradient is NaN or infinite; the
            next one ends the run. 0 ends it at the first. Those without any gradient, as of equal rewards, do not
            count. Weights that are NaN or infinite end a run at once, whatever this says.

    Example:
        >>> optim = Optim(lr=1.0, schedule="linear", warmup_steps=2)
        >>> [optim.factor(6)(step) for step in range(6)]
        [0.5, 1.0, 1.0, 0.75, 0.5, 0.25]
    """

    lr: float = 1e-5
    schedule: ScheduleName | Callable[[Optimizer], LRScheduler] = "constant"
    warmup_steps: int = 0
    min_lr_ratio: float = 0.0
    weight_decay: float = 0.0
    betas: tuple[float, float] = (0.9, 0.99)
    max_grad_norm: float = 1.0
    optimizer: Callable[[Iterable[nn.Parameter]], Optimizer] | None = None
    schedule_args: dict[str, Any] | None = None
    max_skipped_updates: int = 3

    def __post_init__(self) -> None:
        check_number("Optim.lr", self.lr, above=0)
        check_count("Optim.warmup_steps", self.warmup_steps)
        check_number("Optim.min_lr_ratio", self.min_lr_ratio, at_least=0, at_most=1)
        check_number("Optim.weight_decay", self.weight_decay, at_least=0)
        betas: Any = self.betas
        if not isinstance(betas, tuple | list) or len(betas) != 2:
            raise ValueError(f"Optim.betas: want two numbers, such as [0.9, 0.99], got {betas!r}")
        for beta in betas:
            check_number("Optim.betas", beta, at_least=0, below=1)
        check_number("Optim.max_grad_norm", self.max_grad_norm, at_least=0)
        check_count("Optim.max_skipped_updates", self.max_skipped_updates)
        for name, value in (self.schedule_args or {}).items():
            if isinstance(value, float):
                check_number(f"Optim.schedule_args.{name}", value)

        # An argument that nothing reads would look as if it were in force.
        if self.optimizer is not None:
            self._refuse_unread(
                ("lr", "weight_decay", "betas"), "give it to the optimizer, in its init_args"
            )

        # Each kind of schedule reads its own settings.
        if callable(self.schedule):
            self._refuse_unread(
                ("warmup_steps", "min_lr_ratio", "schedule_args"),
                "give it to the schedule's init_args",
            )
        elif self.schedule in _OWN:
            self._refuse_unread(
                ("schedule_args",), "it is of the further schedules of transformers"
            )
        else:
            self._refuse_unread(
                ("min_lr_ratio",), "give the schedule's own argument in schedule_args"
            )

    def _refuse_unread(self, names: tuple[str, ...], mend: str) -> None:
        fields = type(self).__dataclass_fields__
        for name in names:
            if getattr(self, name) != fields[name].default:
                raise ValueError(f"Optim.{name} is not read here; {mend}")

    def factor(self, num_steps: int) -> Callable[[int], float]:
        """Learning-rate factor of our own schedules by RL step (0 is the first step)."""

        def at(step: int) -> float:
            if step < self.warmup_steps:
                return (step + 1) / self.warmup_steps
            if self.schedule == "constant":
                return 1.0
            done = min(1.0, (step - self.warmup_steps) / max(1, num_steps - self.warmup_steps))
            if self.schedule == "linear":
                decay = 1 - done
            else:
                decay = 0.5 * (1 + math.cos(math.pi * done))
            return self.min_lr_ratio + (1 - self.min_lr_ratio) * decay

        return at

    def build(
        self, parameters: Iterable[nn.Parameter], num_steps: int
    ) -> tuple[Optimizer, LRScheduler]:
        """The optimiser over ``parameters``, and its schedule over ``num_steps`` RL steps.

        Raises:
            ValueError: for trained weights in half precision; for a schedule that waits for a metric; for arguments
                by which a schedule of transformers fails, or leaves the range of 0 to ``lr``.
        """
        trained = list(parameters)
        _refuse_half_precision(trained)
        if self.optimizer is None:
            optimizer: Optimizer = torch.optim.AdamW(
                trained, lr=self.lr, betas=self.betas, weight_decay=self.weight_decay
            )
        else:
            optimizer = self.optimizer(trained)
        return optimizer, self._schedule(optimizer, num_steps)

    def _schedule(self, optimizer: Optimizer, num_steps: int) -> LRScheduler:
        if callable(self.schedule):
            schedule = self.schedule(optimizer)
            if isinstance(schedule, ReduceLROnPlateau):
                raise ValueError(
                    "Optim.schedule: ReduceLROnPlateau waits for a metric; a step has none to give it"
                )
            return schedule
        if self.schedule in _OWN:
            return LambdaLR(optimizer, self.factor(num_steps))

        # Not above: most runs ask for none of these.
        from transformers import get_scheduler

        try:
            made: LRScheduler = get_scheduler(
                self.schedule,
                optimizer,
                self.warmup_steps,
                num_steps,
                scheduler_specific_kwargs=self.schedule_args,
            )
            _check_factors(made, num_steps)
        except (ArithmeticError, TypeError, ValueError) as error:
            raise ValueError(
                f"Optim.schedule_args: {self.schedule} does not run with {self.schedule_args or {}} and "
                f"{num_steps} steps: {first_line(error)}"
            ) from error
        return made


def step_schedule(schedule: LRScheduler) -> None:
    """One RL step further, also where the optimizer stood still: torch warns of that if it was in the first step."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Detected call of `lr_scheduler.step")
        schedule.step()


def _check_factors(schedule: LRScheduler, num_steps: int) -> None:
    """See before the first step that the learning rate is one up to the last: a failure there would cost the run."""
    if not isinstance(schedule, LambdaLR):
        return
    for step in {*range(0, num_steps, max(1, num_steps // 1000)), num_steps}:
        for factor_at in schedule.lr_lambdas:
            factor = factor_at(step)
            # A little more than 1 is rounding.
            if not 0 <= factor <= 1 + 1e-6:
                raise ValueError(f"the learning rate of step {step} would be {factor:g} times lr")


def _refuse_half_precision(trained: list[nn.Parameter]) -> None:
    """In bfloat16 neighbouring numbers lie 0.4 % apart: most updates of a weight would be rounded away."""
    half = [p for p in trained if p.dtype in (torch.bfloat16, torch.float16)]
    if half:
        raise ValueError(
            f"{len(half)} of {len(trained)} trained tensors are {half[0].dtype}, in which small updates are rounded "
            "away. Set the policy's dtype to float32 and trainer.precision to bf16-mixed, which still computes in "
            "bfloat16; or train adapters alone (finetune.lm: lora), which are float32 on weights of any dtype"
        )
