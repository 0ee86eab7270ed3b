"""PocketSphinx as a judge: what it may say, and that a clip is heard as if it were the first."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
import torch

from lightning_audiorl.judges import PocketSphinxJudge
from lightning_audiorl.judges.models import sphinx
from lightning_audiorl.ops.randomness import keyed_generator
from tests.judges.fakes import said, tone

WORDS = ["one", "two", "three"]


def test_a_missing_package_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sphinx, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"pip install 'lightning-audiorl\[judges\]'"):
        PocketSphinxJudge(WORDS)


class FakeDecoder:
    """Hears what it heard before, too, unless its features are set back."""

    def __init__(self, **settings: Any) -> None:
        self.settings = settings
        self.before: list[str] = []
        self.now = ""

    def lookup_word(self, word: str) -> str | None:
        return None if word == "llasa" else "W"

    def add_word(self, word: str, phones: str, update: bool) -> None: ...

    def add_jsgf_string(self, name: str, grammar: str) -> None:
        if "#JSGF" not in grammar:
            raise ValueError("Failed to parse JSGF")
        self.settings["grammar"] = grammar

    def activate_search(self, name: str) -> None: ...

    def reinit_feat(self) -> None:
        self.before = []

    def start_utt(self) -> None: ...

    def end_utt(self) -> None: ...

    def process_raw(self, data: bytes, full_utt: bool) -> None:
        assert full_utt
        self.now = f"<s> [NOISE] {len(data) // 2} {' '.join(self.before)} </s>"
        self.before.append("before")

    def hyp(self) -> Any:
        return type("Hypothesis", (), {"hypstr": self.now})


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> None:
    module = type("pocketsphinx", (), {"Decoder": FakeDecoder})
    monkeypatch.setattr(sphinx, "find_spec", lambda name: True)
    monkeypatch.setattr(sphinx, "import_module", lambda name: module)


@pytest.mark.usefixtures("fake")
def test_words_alone_and_each_clip_by_itself() -> None:
    judge = PocketSphinxJudge(WORDS, options={"beam": 1e-60})
    samples = [said(waveform=tone(100.0, seconds)) for seconds in (0.5, 1.0)]
    assert judge.transcribe(samples) == ["8000", "16000"]
    assert judge._decoder.settings["grammar"].endswith("( one | two | three )+;\n")
    assert (judge._decoder.settings["beam"], judge._decoder.settings["lm"]) == (1e-60, None)
    assert pickle.loads(pickle.dumps(judge)).transcribe(samples) == ["8000", "16000"]
    assert "lm" not in PocketSphinxJudge()._decoder.settings


@pytest.mark.usefixtures("fake")
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"words": WORDS, "grammar": "#JSGF"}, "give words or a grammar, not both"),
        ({"words": "one two"}, "words: want a list of words"),
        ({"words": ["llasa"]}, "the dictionary has no llasa.*pronunciations"),
        ({"grammar": "one | two"}, "grammar: Failed to parse JSGF; it is no JSGF"),
        ({"model": "folder"}, "a model wants a dictionary"),
    ],
)
def test_what_it_cannot_use_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PocketSphinxJudge(**settings)


def test_the_real_one_does_not_remember() -> None:
    pytest.importorskip("pocketsphinx")
    judge = PocketSphinxJudge(WORDS)
    noise = torch.randn(8000, generator=keyed_generator("sphinx"))
    clips = [tone(120.0, 0.7, 5.0), 0.3 * noise, 0.01 * noise, tone(300.0, 0.4)]
    samples = [said(waveform=clip) for clip in clips]
    heard = judge.transcribe(samples)
    assert heard == judge.transcribe(samples[::-1])[::-1]
    assert set(" ".join(text or "" for text in heard).split()) <= set(WORDS)
    with pytest.raises(ValueError, match="the dictionary has no llasa"):
        PocketSphinxJudge(["llasa"])
    assert PocketSphinxJudge(["llasa"], pronunciations={"llasa": "L AA S AH"}).words == ("llasa",)
