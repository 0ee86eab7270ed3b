"""The arms of experiments/real/runs.py: settings as YAML writes them, which ``audiorl fit`` reads, too."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from experiments.figure_runs import Spec, spec

NUM_STEPS = 24
SFT_STEPS = 80
"""So many that the control takes the CPU seconds of GRPO with the reference, or more."""

#: Part of every batch by subset; a long clip costs several short ones.
SHARES = {"prompts": 0.2, "joined": 0.1, "hard": 0.1, "hallucinating": 0.1, "nonspeech": 0.5}
BATCH_SIZE = 4
GROUP_SIZE = 4
SEEDS = (0, 1, 2)

#: What each arm is called on the page, in the order of its tables.
ARMS = {
    "start": "start",
    "grpo": "GRPO",
    "grpo_reference": "GRPO, reference in the group",
    "grpo_sft": "GRPO + SFT term",
    "mwer": "MWER",
    "sft": "SFT control",
    "grpo_reference_random": "GRPO, reference in the group, random mix",
    "grpo_reference_lora": "GRPO, reference in the group, LoRA",
}

_OPTIM = {"lr": 1.0e-5, "schedule": "constant", "max_grad_norm": 1.0}
_LORA_OPTIM = _OPTIM | {"lr": 1.0e-4}
_WHOLE_DECODER = {"encoder": False, "projector": False, "lm": "all"}
_LORA = {
    "encoder": False,
    "projector": False,
    "lm": "lora",
    "lora_targets": ["q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"],
}


def policy(start: str, cache: Path, finetune: Spec = _WHOLE_DECODER) -> Spec:
    """The checkpoint with its encoder's outputs kept in ``cache``, which all runs share."""
    kept = spec("models.EncoderCache", folder=str(cache))
    return spec("models.WhisperPolicy", init_from=start, finetune=finetune, encoder_cache=kept)


def rewards() -> Spec:
    """R1 + R2, both with the normaliser that reads numbers: "13." is thirteen."""
    normalisers = {"en": spec("text.LeaderboardNormaliser")}
    accuracy = spec("rewards.Accuracy", floor=-1.0, normalisers=normalisers)
    hallucination = spec("rewards.Hallucination", normalisers=normalisers)
    return spec("rewards.RewardMix", rewards=[accuracy, hallucination])


def _grpo(start: str, cache: Path, seed: int) -> Spec:
    return spec(
        "algorithms.GRPO",
        policy=policy(start, cache),
        num_steps=NUM_STEPS,
        rewards=rewards(),
        beta=0.04,
        group_size=GROUP_SIZE,
        optim=_OPTIM,
        seed=seed,
    )


def _grpo_reference(start: str, cache: Path, seed: int) -> Spec:
    model = _grpo(start, cache, seed)
    model["init_args"]["reference_sample"] = spec("losses.ReferenceSample")
    return model


def _grpo_reference_lora(start: str, cache: Path, seed: int) -> Spec:
    model = _grpo_reference(start, cache, seed)
    return spec(
        "algorithms.GRPO",
        **model["init_args"] | {"policy": policy(start, cache, _LORA), "optim": _LORA_OPTIM},
    )


def _grpo_sft(start: str, cache: Path, seed: int) -> Spec:
    """0.1 x cross-entropy beside GRPO's loss, falling to 0 over the run."""
    weight = {"start": 0.1, "end": 0.0, "kind": "linear"}
    return spec(
        "engine.RLModule",
        policy=policy(start, cache),
        num_steps=NUM_STEPS,
        losses=[spec("losses.PolicyGradient", beta=0.04), spec("losses.CrossEntropy")],
        combiner={"weight": weight},
        rewards=rewards(),
        sampler={"group_size": GROUP_SIZE},
        optim=_OPTIM,
        seed=seed,
    )


def _mwer(start: str, cache: Path, seed: int) -> Spec:
    model = _grpo(start, cache, seed)
    model["init_args"] |= {"objective": spec("ops.MWER"), "beta": 0.0}
    return model


def _sft(start: str, cache: Path, seed: int) -> Spec:
    return spec(
        "algorithms.SFT",
        policy=policy(start, cache),
        num_steps=SFT_STEPS,
        optim=_OPTIM,
        seed=seed,
    )


MODELS: dict[str, Callable[[str, Path, int], Spec]] = {
    "grpo": _grpo,
    "grpo_reference": _grpo_reference,
    "grpo_sft": _grpo_sft,
    "mwer": _mwer,
    "sft": _sft,
    "grpo_reference_random": _grpo_reference,
    "grpo_reference_lora": _grpo_reference_lora,
}
