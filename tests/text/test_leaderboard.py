"""Numbers, money, times, titles and contractions count as what they are said as."""

from __future__ import annotations

import json
import pickle
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
import yaml

from lightning_audiorl.judges import AsrJudge
from lightning_audiorl.metrics import SpeechEvaluation
from lightning_audiorl.rewards import Accuracy, SpeechAccuracy
from lightning_audiorl.types import Hypothesis, Speech, Utterance

CONFIGS = Path(__file__).parents[2] / "configs"

READ = [
    ("seven two three", "7 2 3"),
    ("seven two three", "7, 2, 3."),
    ("fifty", "50"),
    ("she paid twenty three dollars", "She paid $23."),
    ("mister brown", "Mr. Brown"),
    ("at nine thirty", "at 9:30"),
    ("at nine o five", "At 9:05."),
    ("doctor smith lives at first street", "Dr. Smith lives at 1st Street."),
    ("ok", "okay"),
    ("it is two o'clock", "It’s 2 o'clock."),
    ("two o'clock", "2:00"),
    ("nine a m", "9:00 a.m."),
    ("O'Neil", "o’neil"),
    ("minus five degrees", "-5 degrees"),
    ("double oh seven", "007"),
    ("five five five one two one two", "555-1212"),
    ("twenty twenty five", "2025"),
    ("three point five percent of ten thousand", "3.5% of 10,000"),
    ("hmm", "Hmm."),
]


class Says(AsrJudge):
    """Hears the same in every sample."""

    def __init__(self, text: str) -> None:
        super().__init__("says", 8000)
        self.text = text
        self.freeze()

    def listen(self, waveforms: list[torch.Tensor], rows: list[Utterance]) -> Sequence[str]:
        return [self.text] * len(waveforms)


def spoken(text: str, lang: str = "en") -> Hypothesis:
    speech = Speech(0.1 * torch.sin(torch.arange(8000.0)), 8000, torch.zeros(25).long())
    return Hypothesis(Utterance("r", (), text, 1.0, lang), "", 26, True, speech)


def named_in(path: str) -> dict[str, dict[str, str]]:
    """The normalisers that a shipped configuration names for its first reward; those of its evaluation are the same."""
    config = yaml.safe_load((CONFIGS / path).read_text())["model"]["init_args"]
    reward = config["rewards"].get("init_args", config["rewards"])["rewards"][0]
    normalisers = reward["init_args"].get("normalisers", {})
    assert normalisers == config["evaluation"]["init_args"].get("normalisers", {})
    return dict(normalisers)


@pytest.mark.fault(
    "Text",
    "a perfect reading that a judge writes with digits, money, times, titles or contractions",
    "is worth 1 with the normaliser that the shipped Llasa and Whisper configurations name",
)
def test_the_shipped_normaliser_reads_numbers_and_titles() -> None:
    import lightning_audiorl.text as text

    named = named_in("llasa/grpo.yaml")
    assert list(named) == ["en"], (
        "no normaliser is named: 'seven two three' heard as '7 2 3' is worth 0"
    )
    assert named == named_in("llasa/grpo_diffro.yaml")
    # The short way to name a class without arguments.
    assert named_in("whisper.yaml") == {"en": named["en"]["class_path"]}
    normalisers = {"en": getattr(text, named["en"]["class_path"])()}

    for reference, heard in READ:
        reward = SpeechAccuracy(Says(heard), unit="language", normalisers=normalisers)
        assert reward.score([spoken(reference)]) == [1.0], (reference, heard)
        metric = SpeechEvaluation(judge=Says(heard), normalisers=normalisers).new()
        metric.update([spoken(reference)])
        assert float(metric.compute()["cer"]) == 0.0, (reference, heard)
        row = Utterance("r", (), reference, 1.0, "en-US")
        assert Accuracy(normalisers=normalisers).score([Hypothesis(row, heard)]) == [1.0]


def test_the_plain_normaliser_stays_the_default() -> None:
    assert SpeechAccuracy(Says("50"), unit="language").score([spoken("fifty")]) == [0.0]


def test_the_leaderboard_normaliser_keeps_the_promises_of_the_interface() -> None:
    from lightning_audiorl.text import LeaderboardNormaliser

    normaliser = LeaderboardNormaliser()
    texts = [text for pair in READ for text in pair]
    texts += [
        "",
        "%",
        "$",
        "...",
        "£ hmm",
        "1" * 5000,
        "[laughs] hi",
        "zero five six",
        "o's",
        "1/2",
    ]
    for text in texts:
        once = normaliser.normalise(text)
        assert normaliser.normalise(once) == once, text
    for text in ("", "%", "$", "...", "❤️"):
        assert normaliser.units(text) == []
    assert normaliser.units("um, hello") == ["hello"]
    assert normaliser.units("um") == ["um"]
    assert pickle.loads(pickle.dumps(normaliser)).normalise("fifty") == "50"


def test_spelling_is_taken_from_a_whisper_folder(tmp_path: Path) -> None:
    from lightning_audiorl.text import LeaderboardNormaliser

    (tmp_path / "normalizer.json").write_text(json.dumps({"colour": "color"}))
    for given in (tmp_path, tmp_path / "normalizer.json"):
        assert LeaderboardNormaliser(str(given)).normalise("Colour") == "color"
    with pytest.raises(FileNotFoundError, match=r"no_folder.*normalizer\.json"):
        LeaderboardNormaliser(str(tmp_path / "no_folder"))


def test_the_basic_normaliser_is_that_of_transformers() -> None:
    from lightning_audiorl.text import BasicNormaliser

    assert BasicNormaliser().normalise(" Él (bajito) dijo: «café» ") == "él dijo café"
    assert BasicNormaliser(True, True).units("né") == ["n", "e"]


@pytest.mark.parametrize(("lang", "package"), [("zh-CN", "wetext"), ("German", "num2words")])
def test_a_missing_package_is_named_with_its_extra(
    lang: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lightning_audiorl.text import SpokenNumberNormaliser, numbers

    monkeypatch.setattr(numbers, "find_spec", lambda name: None)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=rf"{package}.*lightning-audiorl\[numbers\]"):
        SpokenNumberNormaliser(lang)


@pytest.mark.fault(
    "Text",
    "numbers in digits in Chinese, Japanese, German or another language",
    "are read as they are said, with the extra `numbers`",
)
@pytest.mark.parametrize(
    ("lang", "reference", "heard"),
    [
        ("zh", "二零二五年", "2025年"),
        ("cmn", "二十三块钱", "23块钱"),
        ("zh-TW", "繁體中文", "繁体中文"),
        ("ja", "三十", "30"),
        ("de", "Bei zehn Metern", "Bei 10 Metern"),
        ("deu", "zehntausend", "10.000"),
        ("de", "drei Komma fünf", "3,5"),
        ("fr", "quatre-vingt-dix", "90"),
    ],
)
def test_numbers_are_read_as_they_are_said(lang: str, reference: str, heard: str) -> None:
    pytest.importorskip("wetext")
    pytest.importorskip("num2words")
    from lightning_audiorl.text import SpokenNumberNormaliser

    normalisers = {lang: SpokenNumberNormaliser(lang)}
    reward = SpeechAccuracy(Says(heard), unit="language", normalisers=normalisers)
    assert reward.score([spoken(reference, lang)]) == [1.0]
    assert pickle.loads(pickle.dumps(normalisers[lang])).normalise(heard)
