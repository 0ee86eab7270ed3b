"""GRPO as it is, on a policy that speaks: the checks of text, with judges that listen to its waveforms."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Callback, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from lightning_audiorl.algorithms import GRPO, Optim
from lightning_audiorl.callbacks import HackingWatch, RLCheckpoint
from lightning_audiorl.judges import CtcJudge, EcapaEncoder, JudgeError, XvectorEncoder
from lightning_audiorl.metrics import SpeechEvaluation
from lightning_audiorl.rewards import DurationConsistency, RewardMix, SpeechAccuracy
from lightning_audiorl.strategies import PhaseSingleDevice
from lightning_audiorl.types import PromptBatch
from tests import speech
from tests.algorithms.tiny import Recorder, fit
from tests.callbacks import runs
from tests.data.fakes import fake_fsdd
from tests.helpers import assert_close, assert_gradients_close
from tests.models.families import DECODING, batch_of, clip, make
from tests.strategies.test_placement import PLACEMENTS, Look, same
from tests.test_resume import load, scalars, tensors

FAMILY, NAMES = "speech_lm", ["a", "b", "c", "d"]


@pytest.fixture(scope="module")
def judges(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the folders of random judges are."""
    return tmp_path_factory.mktemp("judges")


def grpo(judges: Path, mode: str = "all", num_steps: int = 1, **settings: Any) -> GRPO:
    """R1 by a judge that listens, and R2."""
    settings = {
        "rewards": RewardMix(
            [SpeechAccuracy(speech.judge(judges), "exp"), DurationConsistency(0.5)]
        ),
        "group_size": 3,
        "decoding": DECODING,
        "beta": 0.1,
        "optim": Optim(lr=1e-3, max_grad_norm=0.0),
    } | settings
    return GRPO(make(FAMILY, mode), num_steps, **settings)


def run(
    module: GRPO, batch: PromptBatch | None = None, *callbacks: Callback, **settings: Any
) -> Recorder:
    """Every step sees the same batch."""
    batch = batch_of(NAMES) if batch is None else batch
    return fit(module, [batch] * module.num_steps, *callbacks, **settings)


def said(module: GRPO) -> list[list[list[int]]]:
    """The codes of each sample of the last step."""
    assert module.last_step is not None
    return [
        [h.speech.codes.tolist() for h in group if h.speech is not None]
        for group in module.last_step.groups
    ]


@pytest.mark.parametrize(("group_size", "num_updates", "sizes"), [(2, 1, (0, 0)), (4, 2, (1, 2))])
def test_each_prompt_is_encoded_once_per_step(
    judges: Path,
    group_size: int,
    num_updates: int,
    sizes: tuple[int, int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By the policy's count, and by the rows that the codec gets to see."""
    rollout, micro = sizes
    module = grpo(
        judges,
        num_steps=2,
        group_size=group_size,
        num_updates=num_updates,
        rollout_batch_size=rollout,
        micro_batch_size=micro,
    )
    codec, rows = module.policy.codec, []
    encode = codec.encode

    def counting(waveform: Tensor, num_samples: Tensor) -> Any:
        rows.append(len(waveform))
        return encode(waveform, num_samples)

    monkeypatch.setattr(codec, "encode", counting)
    run(module)
    assert sum(rows) == module.policy.num_encoded == 2 * len(NAMES)


def test_another_voice_changes_its_own_group_only(judges: Path) -> None:
    """Samples, rewards and advantages; the prompt of the second row is another one, of another length."""
    batch = batch_of(NAMES)
    clips = [wave[: int(num)] for wave, num in zip(batch.waveform, batch.num_samples, strict=True)]
    clips[1] = clip("another", 1.9)
    num_samples = torch.tensor([len(wave) for wave in clips])
    voice = replace(batch, waveform=pad_sequence(clips, batch_first=True), num_samples=num_samples)
    one, other = grpo(judges), grpo(judges)
    run(one, batch)
    run(other, voice)
    first, second = one.last_step, other.last_step
    assert first is not None
    assert second is not None
    differs = [mine != theirs for mine, theirs in zip(said(one), said(other), strict=True)]
    assert differs == [False, True, False, False]
    others = [0, 2, 3]
    assert_close(second.scores.total[others], first.scores.total[others], "policy")
    assert_close(second.advantages.values[others], first.advantages.values[others], "policy")
    assert not torch.allclose(second.scores.total[1], first.scores.total[1])


def test_samples_depend_neither_on_company_nor_on_passes(judges: Path) -> None:
    """Keyed draws; the gradient of a step is that of its pieces."""
    whole, pieces, part = (
        grpo(judges),
        grpo(judges, rollout_batch_size=1, micro_batch_size=2),
        grpo(judges, rollout_batch_size=2),
    )
    recorded, in_pieces = run(whole), run(pieces)
    run(part, batch_of(["d", "b"]))
    assert said(pieces) == said(whole)
    assert said(part) == [said(whole)[3], said(whole)[1]]
    assert len({tuple(codes) for group in said(whole) for codes in group}) > 6, (
        "samples hardly differ"
    )
    assert_gradients_close(in_pieces.gradient(), recorded.gradient())
    assert_close(in_pieces.metrics[0]["loss"], recorded.metrics[0]["loss"], "policy")
    assert in_pieces.metrics[0]["reward/mean"] == pytest.approx(recorded.metrics[0]["reward/mean"])


def test_another_seed_says_other_things(judges: Path) -> None:
    one, other = grpo(judges), grpo(judges, seed=1)
    run(one)
    run(other)
    assert said(one) != said(other)


@pytest.mark.parametrize("micro_batch_size", [0, 2])
@pytest.mark.parametrize("mode", ["all", "lora"])
def test_kl_is_exactly_zero_at_the_start(judges: Path, mode: str, micro_batch_size: int) -> None:
    module = grpo(judges, mode, num_steps=2, micro_batch_size=micro_batch_size)
    recorder = run(module)
    assert recorder.metrics[0]["kl"] == 0.0
    assert recorder.metrics[1]["kl"] > 0.0
    assert module.reference is not None
    assert (module.reference.num_bytes == 0) == (mode == "lora")


@pytest.mark.parametrize(
    "changes", [{}, {"temperature": 0.7}, {"temperature": 1.4, "top_k": 6, "top_p": 0.8}], ids=str
)
def test_rollout_and_update_score_alike(judges: Path, changes: dict[str, float]) -> None:
    decoding = replace(DECODING, **changes)
    module = grpo(
        judges, decoding=decoding, sampler_cap=2.0, rollout_batch_size=1, micro_batch_size=2
    )
    recorder = run(module)
    step = module.last_step
    (prepared,) = module.last_prepared
    assert step is not None
    assert prepared.old_log_probs is not None
    assert prepared.weights is not None
    keep = step.rollout.keep
    assert_close(prepared.old_log_probs[keep], step.rollout.log_probs[keep], "policy")
    assert_close(prepared.weights[keep], torch.ones(int(keep.sum())), "policy")
    assert recorder.metrics[0]["clip_low"] == recorder.metrics[0]["clip_high"] == 0


@pytest.mark.parametrize("mode", ["all", "lora"])
def test_placement_changes_no_number(judges: Path, mode: str) -> None:
    """Codec and judge are where the table says: the first in encode and reward, the second in reward alone."""

    def module() -> GRPO:
        return grpo(judges, mode, num_steps=2, num_updates=2, micro_batch_size=2)

    plain, look = run(module()), Look()
    for name in ("resident", "offload"):
        seen = [look] if name == "offload" else []
        same(plain, run(module(), None, *seen, strategy=PhaseSingleDevice(**PLACEMENTS[name])))
    assert {phase for phase, held in look.bytes.items() if held["codec"]} == {"encode", "reward"}
    assert {phase for phase, held in look.bytes.items() if held["judge"]} == {"reward"}
    first, last = plain.weights
    assert any(not torch.equal(first[name], last[name]) for name in first)


def test_a_judge_of_rewards_and_evaluation_is_one(judges: Path) -> None:
    """One module in one part, moved once; what listens in the evaluation alone is a part of its own."""
    module = speech.speech_grpo(
        judges, 1, policy=make(FAMILY), eval_decodings=None, decoding=DECODING
    )
    (own,) = module.reward_judges()
    listeners = list(module.evaluation.judges())
    assert listeners[0] is own
    assert len(listeners) == 4
    placed = [id(tensor) for part in module.parts() for tensor in part.tensors()]
    assert len(placed) == len(set(placed))
    of_part = {part.name: {id(tensor) for tensor in part.tensors()} for part in module.parts()}
    assert of_part["judge"] == {id(tensor) for tensor in (*own.parameters(), *own.buffers())}
    others = [
        tensor for judge in listeners[1:] for tensor in (*judge.parameters(), *judge.buffers())
    ]
    assert of_part["judge of the evaluation"] == {id(tensor) for tensor in others}
    look = Look()
    run(module, None, look, strategy=PhaseSingleDevice("offload"))
    size = sum(tensor.nbytes for tensor in (*own.parameters(), *own.buffers()))
    assert look.bytes["reward"]["judge"] == pytest.approx(size, rel=0.01)

    other = speech.evaluation(judges)
    with torch.no_grad():
        next(other.judges()[0].parameters()).flatten()[0] += 1.0
    with pytest.raises(
        JudgeError, match="two judges have the name 'judge', but their weights differ"
    ):
        speech.speech_grpo(judges, 1, policy=make(FAMILY), evaluation=other)


def test_judges_by_name_are_those_given_one_by_one(judges: Path) -> None:
    """Same weights and figures; each judge hears each sample once, and the panel forgets them with the step."""
    folders = speech.judge_folders(judges)
    settings: dict[str, Any] = {
        "policy": make(FAMILY),
        "decoding": DECODING,
        "eval_decodings": None,
    }
    given = speech.speech_grpo(judges, 2, **settings)
    named = {
        "judge": CtcJudge(str(folders["judge"]), "whatever"),
        "held_out_judge": CtcJudge(str(folders["held_out_judge"])),
        "encoder": EcapaEncoder(str(folders["encoder"])),
        "held_out_encoder": XvectorEncoder(str(folders["held_out_encoder"])),
    }
    rewards = RewardMix(
        [SpeechAccuracy("judge", "exp"), SpeechAccuracy("judge", weight=0.0, name="rate")]
    )
    rewards.rewards.append(DurationConsistency(0.5))
    by_name = speech.speech_grpo(
        judges,
        2,
        **settings | {"policy": make(FAMILY)},
        judges=named,
        rewards=rewards,
        evaluation=SpeechEvaluation(*named),
    )
    assert by_name.reward_judges() == [named["judge"]]
    assert list(by_name.evaluation.judges()) == list(named.values())
    heard, listen = [], named["judge"].listen

    def counting(waveforms: list[Tensor], rows: Any) -> Any:
        heard.append(len(waveforms))
        return listen(waveforms, rows)

    named["judge"].listen = counting  # type: ignore[method-assign]
    same(run(given), run(by_name))
    step = by_name.last_step
    assert step is not None
    assert sum(heard) <= 2 * len(NAMES) * by_name.sampler.group_size
    assert sum(heard) > len(NAMES) * by_name.sampler.group_size
    assert {name for group in step.groups for one in group for name in one.transcripts} == {"judge"}
    assert by_name.panel.with_transcripts(step.groups)[0][0].transcripts == {}


# --- killed and resumed, with everything that has a state


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A tiny data set in the layout of the Free Spoken Digit Dataset."""
    return fake_fsdd(tmp_path_factory.mktemp("fsdd"), num_index=11)


class Killed(Exception):
    """In place of SIGKILL."""


class KillIn(Callback):
    """Dies in the midst of the RL step after ``rl_step``."""

    def __init__(self, rl_step: int) -> None:
        self.rl_step = rl_step

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: Any, optimizer: Any) -> None:
        if pl_module.rl_step == self.rl_step:
            raise Killed


def long_run(
    folder: Path, root: str, judges: Path, *more: Callback, ckpt_path: str | None = None
) -> GRPO:
    """Five steps of two inner updates, four listeners at every second step, checkpoints at every second."""
    optim = Optim(lr=3e-3, schedule="cosine", warmup_steps=2)
    module = speech.speech_grpo(judges, 5, num_updates=2, optim=optim)
    callbacks = [HackingWatch(window=1), *more, RLCheckpoint(every_n_steps=2, keep=9)]
    settings: dict[str, Any] = {
        "val_check_interval": 2,
        "logger": TensorBoardLogger(folder, name="", version=""),
    }
    trainer = runs.trainer(folder, callbacks, **settings)
    trainer.fit(module, speech.speech_data(root), ckpt_path=ckpt_path)
    return module


def timeless(evaluations: list[dict[str, Any]]) -> list[str]:
    """Figures by name, but for those of the clock; NaN equals NaN."""
    return [
        repr({k: v for k, v in one["results"]["digits"].items() if k != "rtf"})
        for one in evaluations
    ]


def test_killed_and_resumed_is_bit_for_bit_the_whole_run(
    judges: Path, root: str, tmp_path: Path
) -> None:
    """Curves, figures of all judges, alerts, weights, optimiser."""
    whole = long_run(tmp_path / "whole", root, judges)
    with pytest.raises(Killed):
        long_run(tmp_path / "cut", root, judges, KillIn(3))
    checkpoints = tmp_path / "cut" / "checkpoints"
    assert load(checkpoints / "last.ckpt")["audiorl"]["rl_step"] == 2
    resumed = long_run(tmp_path / "cut", root, judges, ckpt_path=str(checkpoints / "last.ckpt"))

    assert [one["rl_step"] for one in resumed.evaluations] == [0, 2, 4, 5]
    assert timeless(resumed.evaluations) == timeless(whole.evaluations)
    timed = ("rtf", "seconds")
    curves, again = (
        {k: v for k, v in scalars(tmp_path / name).items() if not k[0].endswith(timed)}
        for name in ("whole", "cut")
    )
    assert {step for tag, step in curves if tag == "reward/mean"} == {1, 2, 3, 4, 5}
    assert all(len(values) == 1 for values in again.values())
    assert again == curves
    first, second = (
        load(tmp_path / name / "checkpoints" / "last.ckpt") for name in ("whole", "cut")
    )
    ours, theirs = tensors(first), tensors(second)
    assert ours.keys() == theirs.keys()
    assert any("optimizer_states" in path for path in ours)
    assert all(torch.equal(ours[path], theirs[path]) for path in ours)
