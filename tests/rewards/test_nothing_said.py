"""Silence is nothing said, whoever is asked; and no waveform, however odd, is worth more than speech or ends a run."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torchaudio.models import squim_objective_model

from lightning_audiorl.judges import (
    AsrJudge,
    CtcJudge,
    QualityPredictor,
    SpeakerEncoder,
    SquimQuality,
)
from lightning_audiorl.judges.models import quality
from lightning_audiorl.judges.models.ctc import LogMelGru
from lightning_audiorl.judges.models.speakers import EcapaNetwork, NetworkEncoder, XvectorNetwork
from lightning_audiorl.metrics import SpeechEvaluation
from lightning_audiorl.ops.randomness import keyed_generator
from lightning_audiorl.rewards import (
    Diversity,
    DurationConsistency,
    PredictedQuality,
    Reward,
    RewardMix,
    SpeakerSimilarity,
    SpeechAccuracy,
    SpeechBounds,
)
from lightning_audiorl.types import Hypothesis, Utterance
from tests.judges.fakes import RATE_HZ, FakeEncoder, said, tone

NUM = RATE_HZ // 2


def noise(key: str, num: int = NUM) -> Tensor:
    return torch.randn(num, generator=keyed_generator(key))


def silences() -> dict[str, Tensor]:
    """Waveforms in which there is nothing to hear."""
    return {
        "no sample": torch.zeros(0),
        "one sample": torch.full((1,), 0.5),
        "zeros": torch.zeros(NUM),
        "a constant": torch.full((NUM,), 0.5),
        "a small constant": torch.full((NUM,), -0.01),
        "hiss at -80 dBFS": 1e-4 * noise("hiss"),
        "hiss on a constant": 1e-4 * noise("hiss") + 0.2,
        "the last bit": (noise("bit") > 0).float() / 32768,
        "denormals": torch.full((NUM,), 1e-42),
    }


def oddities() -> dict[str, Tensor]:
    """Waveforms that nobody speaks."""
    click = torch.zeros(NUM)
    click[NUM // 2] = 0.9
    huge = 0.1 * noise("huge")
    huge[100] = 1e30
    holed = 0.1 * noise("holed")
    holed[100] = math.nan
    endless = 0.1 * noise("endless")
    endless[100] = -math.inf
    square = torch.tensor([1.0, -1.0]).repeat(NUM // 2)
    return {
        "a click": click,
        "two samples": torch.tensor([0.5, -0.5]),
        "forty samples": 0.1 * noise("forty", 40),
        "a quarter of a second": 0.1 * noise("quarter", RATE_HZ // 4),
        "white noise": 0.1 * noise("white"),
        "a square wave": square,
        "clipped noise": noise("clipped").clamp(-1, 1),
        "noise over full scale": 3 * noise("over"),
        "speech in 16-bit numbers": 32767 * tone(150.0, 0.5),
        "1e30 in a sample": huge,
        "NaN in a sample": holed,
        "infinity in a sample": endless,
        "all NaN": torch.full((NUM,), math.nan),
    }


BROKEN = {
    "speech in 16-bit numbers",
    "1e30 in a sample",
    "NaN in a sample",
    "infinity in a sample",
    "all NaN",
}


class Hallucinates(AsrJudge):
    """Hears the text in everything, as recognisers do that were trained on subtitles."""

    def __init__(self) -> None:
        super().__init__("hallucinates", RATE_HZ)
        self.num_heard = 0

    def listen(self, waveforms: list[Tensor], rows: list[Utterance]) -> list[str]:
        self.num_heard += len(waveforms)
        return ["one two"] * len(waveforms)


class Likes(QualityPredictor):
    """Finds everything excellent."""

    range = (1.0, 5.0)

    def __init__(self) -> None:
        super().__init__("likes", RATE_HZ)

    def predict(self, waveform: Tensor) -> float:
        return 5.0


PROMPT = tone(140.0, 0.5)


def sample(waveform: Tensor) -> Hypothesis:
    # Other codes for each: the samples of a group differ.
    first = int(waveform.nan_to_num(0.0).clamp(-9, 9).abs().sum() * 100) % 900
    codes = range(first, first + 12)
    return said("one two", waveform=waveform, codes=codes, prompt=PROMPT, duration_s=0.5)


def fooled() -> dict[str, Reward]:
    """Every reward of speech with judges that anything pleases."""
    return {
        "accuracy": SpeechAccuracy(Hallucinates()),
        "exp": SpeechAccuracy(Hallucinates(), form="exp"),
        "similarity": SpeakerSimilarity(FakeEncoder()),
        "quality": PredictedQuality(Likes()),
        "duration": DurationConsistency(),
        "diversity": Diversity(),
        "bounds": SpeechBounds(),
    }


@pytest.mark.fault(
    "Speech",
    "samples that are digitally silent: zeros, a constant, hiss at -80 dBFS",
    "the worst value of every reward, whatever a judge would hear in them",
)
def test_silence_is_worth_the_least_of_every_reward() -> None:
    quiet = silences()
    group = [sample(wave) for wave in quiet.values()]
    group += [sample(0.1 * noise("speech")), sample(tone(150.0, 0.5))]
    for name, reward in fooled().items():
        values = reward.score(group)
        found = dict(zip(quiet, values, strict=False))
        assert set(found.values()) == {reward.range[0]}, (name, found)
        assert all(value > reward.range[0] for value in values[-2:]), name


@pytest.mark.fault(
    "Speech",
    "an evaluation of samples that are digitally silent",
    "every character is wrong, the voice is nobody's, each counts as empty, and no judge hears it",
)
def test_silence_is_wrong_in_an_evaluation() -> None:
    quiet = [sample(wave) for wave in silences().values()]
    judge = Hallucinates()
    metric = SpeechEvaluation(judge=judge, encoder=FakeEncoder()).new()
    metric.update(quiet)
    found = {name: float(value) for name, value in metric.compute().items()}
    assert found["empty_rate"] == 1.0
    assert found["cer"] == 1.0
    assert found["similarity"] == -1.0
    assert found["judge_failure_rate"] == 0.0
    assert judge.num_heard == 0
    assert judge.transcribe(quiet) == [""] * len(quiet)


@pytest.mark.fault(
    "Speech",
    "a group of which every sample is silent",
    "the worst of each reward for all of them; nothing is invalid",
)
def test_a_group_of_silence() -> None:
    rewards = list(fooled_once().values())
    group = [sample(wave) for wave in (torch.zeros(NUM), torch.zeros(0), torch.ones(NUM))]
    scores = RewardMix(rewards).score([group])
    assert bool(scores.valid.all())
    worst = sum(reward.weight * reward.range[0] for reward in rewards)
    assert scores.total.tolist() == [[pytest.approx(worst)] * 3]


@pytest.mark.fault(
    "Speech",
    "a row that expects no length (duration 0)",
    "hard bounds hold it to its text alone, and the duration ratio is that of the other rows",
)
def test_a_row_without_an_expected_length() -> None:
    free = said("one two", waveform=tone(150.0, 0.4), num_codes=10, duration_s=0.0)
    timed = said("one two", waveform=tone(150.0, 0.4), num_codes=10, duration_s=0.4)
    bounds = SpeechBounds(tokens_per_second=(10, 40), tokens_per_character=(1, 5))
    assert bounds.score([free, timed]) == [0.0, 0.0]
    assert SpeechBounds(tokens_per_character=(5, 9)).score([free]) == [-1.0]

    metric = SpeechEvaluation().new()
    metric.update([free, timed])
    assert float(metric.compute()["duration_ratio"]) == pytest.approx(1.0)


def fooled_once() -> dict[str, Reward]:
    rewards = fooled()
    del rewards["exp"]
    return rewards


@pytest.mark.fault(
    "Speech",
    "a speaker prompt that is silent",
    "the similarity of its sample is a failure of the judge, and no number",
)
def test_similarity_to_a_silent_prompt_is_no_number() -> None:
    spoken = sample(tone(150.0, 1.0))
    silent = said(waveform=tone(150.0, 1.0), prompt=torch.zeros(RATE_HZ))
    values = SpeakerSimilarity(FakeEncoder()).score([spoken, silent])
    assert math.isfinite(values[0])
    assert math.isnan(values[1])

    metric = SpeechEvaluation(encoder=FakeEncoder()).new()
    metric.update([spoken, silent])
    found = metric.compute()
    assert float(found["judge_failure_rate"]) == 0.5
    assert float(found["similarity"]) == pytest.approx(values[0])


def small_squim() -> torch.nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return squim_objective_model(
            feat_dim=16,
            win_len=16,
            d_model=16,
            nhead=2,
            hidden_dim=8,
            num_blocks=1,
            rnn_type="LSTM",
            chunk_size=8,
        ).eval()


@pytest.fixture
def judges(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Callable[[], Reward]]:
    """Rewards by the judges that this package has, tiny ones."""
    monkeypatch.setattr(quality, "squim_objective_base", small_squim)
    torch.save(small_squim().state_dict(), tmp_path / "squim.pth")
    LogMelGru("onetw ", width=8).save(tmp_path / "ctc")
    ecapa: SpeakerEncoder = NetworkEncoder(
        EcapaNetwork(8000, num_mels=20, width=16, attention_width=8, se_width=8, dim=6), "ecapa"
    )
    xvector: SpeakerEncoder = NetworkEncoder(XvectorNetwork(8000, width=8, dim=6), "xvector")
    return {
        "ctc": lambda: SpeechAccuracy(CtcJudge(str(tmp_path / "ctc"))),
        "ecapa": lambda: SpeakerSimilarity(ecapa),
        "xvector": lambda: SpeakerSimilarity(xvector),
        "squim": lambda: PredictedQuality(SquimQuality(str(tmp_path / "squim.pth"))),
        "duration": DurationConsistency,
        "diversity": Diversity,
        "bounds": SpeechBounds,
    }


@pytest.mark.fault(
    "Speech",
    "twenty waveforms that nobody speaks (clicks, two samples, NaN, 1e30, 16-bit numbers) before every judge",
    "a value in the reward's range, or an invalid sample that is counted; silence is never worth more than speech",
)
def test_every_waveform_before_every_judge(judges: dict[str, Callable[[], Reward]]) -> None:
    waves = {**silences(), **oddities(), "speech": tone(150.0, 0.5, glide_semitones=4.0)}
    group = [sample(wave) for wave in waves.values()]
    for name, make in judges.items():
        reward = make()
        scores = RewardMix([reward]).score([group])
        values = dict(zip(waves, scores.parts[reward.name][0].tolist(), strict=True))
        low, high = reward.range

        invalid = {wave for wave, value in values.items() if math.isnan(value)}
        assert invalid <= BROKEN, (name, invalid)
        assert scores.failures.get(reward.name, 0) == len(invalid)
        assert all(low <= value <= high for value in values.values() if not math.isnan(value))
        for wave in silences():
            assert values[wave] == low, (name, wave, values[wave])

        # Who listens must not make a number of what is broken.
        if hasattr(reward, "score_with"):
            assert invalid == BROKEN, (name, invalid)


@pytest.mark.fault(
    "Speech",
    "a sample with NaN, 1e30 or 16-bit numbers in an evaluation",
    "the metrics of the other samples, and a failure of the judge for it",
)
def test_broken_samples_leave_an_evaluation_its_numbers() -> None:
    waves = oddities()
    broken = [sample(waves[name]) for name in sorted(BROKEN)]
    whole = [sample(tone(150.0, 0.5)), sample(0.1 * noise("speech"))]

    def measured(samples: list[Hypothesis]) -> dict[str, float]:
        metric = SpeechEvaluation(judge=Hallucinates(), encoder=FakeEncoder()).new()
        metric.update(samples)
        return {name: float(value) for name, value in metric.compute().items()}

    alone = measured(whole)
    found = measured(whole + broken)
    for name in ("cer", "similarity", "empty_rate"):
        assert math.isfinite(found[name]), name
    assert found["cer"] == alone["cer"]
    assert found["similarity"] == alone["similarity"]
    assert found["judge_failure_rate"] == pytest.approx(2 * len(broken) / len(whole + broken))
