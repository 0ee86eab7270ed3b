"""A recogniser that is kept to the words of a list."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_audiorl.judges import TransformersJudge
from lightning_audiorl.judges.base import JudgeError
from lightning_audiorl.judges.models.closed_vocabulary import ClosedVocabulary
from lightning_audiorl.models import TinyWhisper
from lightning_audiorl.models.tiny import build_whisper
from tests.judges.test_whisper_window import clip, sample

END = 9


class Letters:
    """A tokenizer with one token per letter, 0 for a."""

    def encode(self, text: str, add_special_tokens: bool) -> list[int]:
        assert not add_special_tokens
        assert text.startswith(" ")
        return ["abcdefgh".index(letter) for letter in text.strip()]


def test_after_each_token_there_is_what_the_words_leave_open() -> None:
    vocabulary = ClosedVocabulary(Letters(), ["ab", "abc", "d"], [END])
    assert vocabulary.after([]) == [0, 3, END]
    assert vocabulary.after([0]) == [1]
    # "ab" has ended, or goes on as "abc".
    assert vocabulary.after([0, 1]) == [2, 0, 3, END]
    assert vocabulary.after([0, 1, 2]) == [0, 3, END]
    assert vocabulary.after([0, 1, 3]) == [0, 3, END]
    assert vocabulary.after([3, END, END]) == [END]


def test_scores_of_what_may_come_stay_what_they_are() -> None:
    vocabulary = ClosedVocabulary(Letters(), ["ab", "d"], [END])
    scores = torch.arange(20.0).reshape(2, 10)
    prompt = torch.tensor([[7, 8], [7, 8]])
    kept = vocabulary(prompt, scores)
    assert kept[0].isfinite().nonzero().flatten().tolist() == [0, 3, END]
    assert kept[1, END] == scores[1, END]

    kept = vocabulary(torch.tensor([[7, 8, 0], [7, 8, 3]]), scores)
    assert kept[0].isfinite().nonzero().flatten().tolist() == [1]
    assert kept[1].isfinite().nonzero().flatten().tolist() == [0, 3, END]


def test_a_model_that_suppresses_all_of_it_is_refused() -> None:
    vocabulary = ClosedVocabulary(Letters(), ["ab"], [END])
    scores = torch.full((1, 10), -torch.inf)
    with pytest.raises(JudgeError, match="suppress every token of the words"):
        vocabulary(torch.tensor([[7]]), scores)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("whisper")
    sizes = TinyWhisper(words=("one", "two", "three"), width=16, encoder_layers=2, decoder_layers=1)
    model, processor = build_whisper(sizes)
    model.save_pretrained(path)
    processor.save_pretrained(path)
    return str(path)


@pytest.mark.parametrize("settings", [{}, {"window_tail_s": 0.5}, {"confidence": True}])
def test_a_judge_writes_nothing_but_its_words(folder: str, settings: dict[str, Any]) -> None:
    listens = TransformersJudge(
        folder,
        "seq2seq",
        generate={"max_new_tokens": 5},
        batch_size=2,
        words=["two"],
        **settings,
    )
    heard = listens.transcribe([sample(clip(1.0, "a")), sample(clip(1.2, "b"))])
    assert all(set(str(text).split()) <= {"two"} for text in heard)
    free = TransformersJudge(folder, "seq2seq", generate={"max_new_tokens": 5}, batch_size=2)
    assert any(
        set(str(text).split()) - {"two"}
        for text in free.transcribe([sample(clip(1.0, "a")), sample(clip(1.2, "b"))])
    )


def test_words_are_for_models_that_write_token_by_token(folder: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"TransformersJudge\.words: wants kind: seq2seq, got ctc"):
        TransformersJudge(folder, "ctc", words=["one"])
    for words in ([], "one"):
        with pytest.raises(ValueError, match=r"TransformersJudge\.words: want a list of words"):
            TransformersJudge(folder, "seq2seq", words=words)


def test_more_than_a_window_is_a_failure_of_the_judge(
    folder: str, caplog: pytest.LogCaptureFixture
) -> None:
    listens = TransformersJudge(folder, "seq2seq", words=["one"])
    assert listens.transcribe([sample(clip(9.0))]) == [None]
    assert "kept to words it hears no more" in caplog.text
