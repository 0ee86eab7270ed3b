"""What is timed: GRPO steps of the step benchmark, steps of ``audiorl fit``, and the start of a process."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import yaml
from compare.scenarios import merged, scenarios
from grpo_bench.case import Case

#: So many steps that no evaluation, checkpoint or end comes in a measured run.
_NEVER = 1_000_000


@dataclass(frozen=True)
class StepCase:
    """A step of GRPO in the step benchmark.

    Args:
        about: in words.
        case: its sizes.
        steps: measured in every round.
    """

    about: str
    case: Case
    steps: int


@dataclass(frozen=True)
class FitCase:
    """A step of ``audiorl fit`` on one of compare_builds.py's scenarios.

    Args:
        about: in words.
        scenario: its name.
        steps: measured in every round.
    """

    about: str
    scenario: str
    steps: int

    def text(self, fixtures: str, out: str) -> str:
        """The scenario as a YAML file: endless, and without what is done every so many steps."""
        settings: dict[str, Any] = {
            "trainer": {
                "callbacks": [{"class_path": "ratio.stepper.Stepper"}],
                "val_check_interval": _NEVER,
            },
            "model": {"init_args": {"num_steps": _NEVER}},
            "checkpoint": {"every_n_steps": _NEVER},
            "samples": {"every_n_steps": _NEVER},
        }
        laid_over = merged(scenarios()[self.scenario].settings, settings)
        dumped: str = yaml.safe_dump(laid_over, sort_keys=False)
        return dumped.replace("FIXTURES", fixtures).replace("OUT", out)


@dataclass(frozen=True)
class StartCase:
    """A process that starts, does next to nothing, and ends.

    Args:
        about: in words.
        code: what Python runs.
    """

    about: str
    code: str


_SMALL = Case(num_prompts=2, prompt_tokens=250, new_tokens=16, layers=4, vocab_size=8000)
_AUDIO = Case(audio_s=12.0, new_tokens=32, width=256, layers=4, heads=4, vocab_size=1000)
_MANY = Case(
    num_prompts=16,
    prompt_tokens=12,
    group_size=2,
    new_tokens=4,
    width=32,
    layers=1,
    intermediate=64,
    heads=2,
    vocab_size=100,
    accumulate=16,
)
_TINY = replace(_MANY, num_prompts=2, accumulate=2)

_AUDIORL = "from lightning_audiorl.cli import main; main({args})"

STEP_CASES = {
    "grpo": StepCase("GRPO, text prompts: the step benchmark's model, half as deep", _SMALL, 12),
    "grpo_audio": StepCase("GRPO, 12 s of audio: the step benchmark's Fun-ASR-Nano", _AUDIO, 8),
    "micro_batches": StepCase("GRPO, a tiny model, 16 micro-batches", _MANY, 40),
}
FIT_CASES = {
    "fit_grpo": FitCase("audiorl fit: GRPO on tiny ASR, 4 micro-batches", "grpo", 40),
    "fit_diffro": FitCase("audiorl fit: DiffRO on tiny TTS, 4 x 2 micro-batches", "diffro", 20),
    "fit_grpo_diffro": FitCase("audiorl fit: GRPO + DiffRO on tiny TTS", "grpo_diffro", 20),
}
START_CASES = {
    "import": StartCase(
        "import lightning_audiorl.algorithms", "import lightning_audiorl.algorithms"
    ),
    "help": StartCase("audiorl --help", _AUDIORL.format(args=["--help"])),
    "print_config": StartCase(
        "audiorl fit --config configs/quickstart.yaml --print_config",
        _AUDIORL.format(args=["fit", "--config", "configs/quickstart.yaml", "--print_config"]),
    ),
}

AnyCase = StepCase | FitCase | StartCase
CASES: dict[str, AnyCase] = {**STEP_CASES, **FIT_CASES, **START_CASES}


def tiny(case: AnyCase) -> AnyCase:
    """The same with sizes that end in seconds."""
    if isinstance(case, StepCase):
        return replace(case, case=replace(_TINY, audio_s=min(case.case.audio_s, 0.5)), steps=2)
    return replace(case, steps=2) if isinstance(case, FitCase) else case
