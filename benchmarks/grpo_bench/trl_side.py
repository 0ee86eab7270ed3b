"""One step of TRL's GRPOTrainer after another, on command, in the fastest setting that does the same work.

Options and why:
- ``use_vllm`` off: it needs a GPU. ``use_transformers_continuous_batching`` off: it too is made for one.
- ``per_device_train_batch_size`` = B*G / accumulate: one optimizer step covers all samples of B prompts.
- ``num_iterations`` 1 and one optimizer step per generation: TRL then skips the old log-probs.
- ``gradient_checkpointing`` off (TRL's default is on), ``bf16`` off (TRL's default is on): no recomputation, float32.
- ``loss_type`` "grpo", ``scale_rewards`` "group", the same beta with a reference model of its own, temperature 1, no
  top-k or top-p; ``min_new_tokens`` = ``max_completion_length``: completions run to the cap, as ours do.
- ``optim`` "adamw_torch_fused"; dropout off; logging, saving, reporting, progress bar off.
- "trl" scores completion tokens only, as TRL does on a GPU: one function is patched to make it do so on a CPU too,
  where as shipped ("trl_as_shipped") it sends every prompt position through the head and throws the result away.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from typing import Any
from unittest import mock

import datasets
import trl.trainer.utils
from transformers import AutoTokenizer, TrainerCallback
from trl import GRPOConfig, GRPOTrainer

from grpo_bench.case import Case, prompt_texts, reward_of
from grpo_bench.driver import Driver
from grpo_bench.meters import StepCounter, TokenCounter, now

_NUM_BATCHES = 64


class _Phases:
    """Seconds by phase, and the present one."""

    def __init__(self, device: str) -> None:
        self.device = device
        self.current: str | None = "update"
        self.seconds: dict[str, float] = {}

    def timed(
        self, function: Callable[..., Any], name: Callable[..., str | None]
    ) -> Callable[..., Any]:
        """``function`` with its time counted under ``name(*its arguments)``; None counts nothing."""

        def wrapper(*args: Any, **kwargs: Any) -> Any:
            phase = name(*args, **kwargs)
            if phase is None:
                return function(*args, **kwargs)
            outer, self.current = self.current, phase
            start = now(self.device)
            try:
                return function(*args, **kwargs)
            finally:
                self.seconds[phase] = self.seconds.get(phase, 0.0) + now(self.device) - start
                self.current = outer

        return wrapper

    def take(self, total: float) -> dict[str, float]:
        """Seconds by phase; what no wrapped function took is the update: loss, backward pass, optimizer."""
        out, self.seconds = self.seconds, {}
        return out | {"update": total - sum(out.values())}


class _Measured(TrainerCallback):
    """Takes a step when it is told to, and reports it."""

    def __init__(self, driver: Driver, case: Case) -> None:
        self.driver, self.case = driver, case
        self.phases = _Phases(driver.device)
        self.tokens = TokenCounter(lambda: self.phases.current)
        self.optimizer_steps = StepCounter()
        self.completions: list[list[int]] = []
        self.num_prompts = 0
        self.start = 0.0
        self.trainer: Any = None

    def attach(self, trainer: Any) -> None:
        """Wrap what is timed, and count what goes through the models."""
        self.trainer = trainer
        timed, reference = self.phases.timed, trainer.ref_model
        generate = timed(trainer._generate, lambda *_: "rollout")

        def generate_and_count(prompts: Any) -> Any:
            out = generate(prompts)
            self.num_prompts, self.completions = len(set(map(tuple, out[0]))), out[1]
            return out

        trainer._generate = generate_and_count
        trainer._calculate_rewards = timed(trainer._calculate_rewards, lambda *_: "reward")
        trainer._get_per_token_logps_and_entropies = timed(
            trainer._get_per_token_logps_and_entropies,
            lambda model, *_, **__: "reference" if model is reference else None,
        )
        for model in (trainer.model, reference):
            if model is not None:
                self.tokens.watch(model.base_model.layers[0])

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.optimizer_steps.watch(kwargs["optimizer"])
        if not self.driver.wait():
            control.should_training_stop = True

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.start = now(self.driver.device)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        seconds = now(self.driver.device) - self.start
        metrics = self.trainer._metrics["train"]
        self.driver.report(
            seconds=seconds,
            phases=self.phases.take(seconds),
            lm_tokens=self.tokens.take(),
            prompts=self.num_prompts,
            completions=len(self.completions),
            generated=sum(map(len, self.completions)),
            optimizer_steps=self.optimizer_steps.take(),
            encoder_rows=0,
            figures={
                name: metrics[name][-1] for name in ("kl", "entropy", "reward") if metrics[name]
            },
        )
        metrics.clear()
        if not self.driver.wait():
            control.should_training_stop = True


def config(case: Case, folder: str, device: str) -> GRPOConfig:
    """See the head of this file."""
    return GRPOConfig(
        output_dir=folder,
        per_device_train_batch_size=case.num_rows // case.accumulate,
        gradient_accumulation_steps=case.accumulate,
        num_generations=case.group_size,
        max_completion_length=case.new_tokens,
        max_steps=_NUM_BATCHES,
        num_iterations=1,
        beta=case.beta,
        loss_type="grpo",
        scale_rewards="group",
        temperature=1.0,
        generation_kwargs={"min_new_tokens": case.new_tokens},
        learning_rate=1e-6,
        lr_scheduler_type="constant",
        weight_decay=0.0,
        adam_beta2=0.99,
        max_grad_norm=1.0,
        optim="adamw_torch_fused",
        gradient_checkpointing=False,
        bf16=False,
        disable_dropout=True,
        shuffle_dataset=False,
        logging_strategy="no",
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        use_cpu=device == "cpu",
        dataloader_pin_memory=device != "cpu",
        model_init_kwargs={"dtype": "float32"},
        seed=case.seed,
    )


def _rewards(completions: list[str], **_: Any) -> list[float | None]:
    return [reward_of(text) for text in completions]


def serve(case: Case, model: str, driver: Driver, as_shipped: bool = False) -> None:
    """Take steps until the driver is told to stop (at most `_NUM_BATCHES`)."""
    tokenizer = AutoTokenizer.from_pretrained(model)
    start = tokenizer.bos_token
    texts = [f"{start} {text}" for step in range(_NUM_BATCHES) for text in prompt_texts(case, step)]
    measured = _Measured(driver, case)
    completions_only = mock.patch.object(trl.trainer.utils, "_use_triton", return_value=True)
    with tempfile.TemporaryDirectory() as folder:
        trainer = GRPOTrainer(
            model,
            _rewards,
            config(case, folder, driver.device),
            datasets.Dataset.from_dict({"prompt": texts}),
            processing_class=tokenizer,
            callbacks=[measured],
        )
        measured.attach(trainer)
        with mock.MagicMock() if as_shipped else completions_only:
            trainer.train()
