from __future__ import annotations

import math
import random

import jiwer
import pytest
import torch
from torch import Tensor
from torchmetrics import MetricCollection
from torchmetrics.text import CharErrorRate, WordErrorRate

from lightning_audiorl.metrics import AsrMetrics, UtteranceCounts, asr_rates, utterance_counts
from lightning_audiorl.metrics.functional import Alignment, align, is_hallucination, is_loop
from lightning_audiorl.types import Hypothesis
from tests.text.cases import hypothesis

KEYS = {
    "wer",
    "cer",
    "substitution_rate",
    "insertion_rate",
    "deletion_rate",
    "correct_rate",
    "exact_match",
    "hallucination_rate",
    "loop_rate",
    "keyword_precision",
    "keyword_recall",
    "keyword_f1",
    "length_ratio",
    "nonspeech_text_rate",
    "nonspeech_words_per_minute",
    "unfinished_rate",
    "real_time_factor",
    "num_utterances",
    "num_reference_words",
}


def metrics(
    hypotheses: list[Hypothesis], compute_seconds: float = 0.0, **arguments: object
) -> dict[str, float]:
    metric = AsrMetrics(**arguments)  # type: ignore[arg-type]
    metric.update(hypotheses, compute_seconds)
    return {name: value.item() for name, value in metric.compute().items()}


def random_pairs(num: int, min_words: int = 1) -> list[tuple[str, str]]:
    draw = random.Random(0)

    def text(least: int) -> str:
        return " ".join(draw.choices(["one", "two", "three", "oh"], k=draw.randint(least, 9)))

    return [(text(min_words), text(0)) for _ in range(num)]


def test_worked_numbers() -> None:
    batch = [
        hypothesis("a b c d", "A x, c d e"),
        hypothesis("one two", "two", finished=False),
        hypothesis("", "", duration_s=10.0),
        hypothesis("", "thank you", duration_s=20.0),
    ]
    assert metrics(batch, compute_seconds=21.0) == pytest.approx(
        {
            "wer": 5 / 6,
            "cer": (3 + 4 + 9) / (7 + 7),
            "substitution_rate": 1 / 6,
            "insertion_rate": 3 / 6,
            "deletion_rate": 1 / 6,
            "correct_rate": 4 / 6,
            "exact_match": 1 / 4,
            "hallucination_rate": 1 / 4,
            "loop_rate": 0,
            "keyword_precision": math.nan,
            "keyword_recall": math.nan,
            "keyword_f1": math.nan,
            "length_ratio": 8 / 6,
            "nonspeech_text_rate": 1 / 2,
            "nonspeech_words_per_minute": 4,
            "unfinished_rate": 1 / 4,
            "real_time_factor": 0.5,
            "num_utterances": 4,
            "num_reference_words": 6,
        },
        nan_ok=True,
    )


def test_agrees_with_jiwer_and_torchmetrics() -> None:
    pairs = random_pairs(60)
    references, texts = [p[0] for p in pairs], [p[1] for p in pairs]
    ours = metrics([hypothesis(*pair) for pair in pairs])
    theirs = jiwer.process_words(references, texts)
    words = sum(len(reference.split()) for reference in references)
    assert ours["wer"] == pytest.approx(theirs.wer)
    assert ours["wer"] == pytest.approx(WordErrorRate()(texts, references).item())
    assert ours["cer"] == pytest.approx(CharErrorRate()(texts, references).item())
    assert ours["cer"] == pytest.approx(jiwer.cer(references, texts))
    assert ours["substitution_rate"] == pytest.approx(theirs.substitutions / words)
    assert ours["insertion_rate"] == pytest.approx(theirs.insertions / words)
    assert ours["deletion_rate"] == pytest.approx(theirs.deletions / words)
    assert ours["correct_rate"] == pytest.approx(theirs.hits / words)


def test_chinese_counts_characters() -> None:
    ours = metrics([hypothesis("你好，世界", "你好 世间了", lang="zh")])
    assert (ours["wer"], ours["cer"], ours["num_reference_words"]) == (0.5, 0.5, 4)
    assert metrics([hypothesis("我要 go home", "我要 go", lang="zh-en")])["deletion_rate"] == 0.25


@pytest.mark.parametrize(
    "batch",
    [
        [],
        [hypothesis("", "")],
        [hypothesis("", "a b")],
        [hypothesis("a b", "")],
        [hypothesis("", "", duration_s=0.0)],
        [hypothesis(" ", "<unk>"), hypothesis("...", "a")],
    ],
)
def test_never_infinite(batch: list[Hypothesis]) -> None:
    values = metrics(batch)
    assert set(values) == KEYS
    assert not any(math.isinf(value) for value in values.values())


def test_undefined_is_nan() -> None:
    silence = metrics([hypothesis("", "a b")])
    undefined = {name for name, value in silence.items() if math.isnan(value)}
    errors = {
        name
        for name in KEYS
        if name.endswith(("er", "_ratio", "correct_rate")) or "tion_rate" in name
    }
    keywords = {name for name in KEYS if name.startswith("keyword")}
    assert undefined == errors - {"hallucination_rate"} | keywords | {"real_time_factor"}
    assert math.isnan(metrics([hypothesis("a", "a")])["nonspeech_text_rate"])
    assert math.isnan(metrics([hypothesis("a", "a")])["nonspeech_words_per_minute"])


def test_keywords_by_place() -> None:
    batch = [
        hypothesis("call anna in new york", "call anna in york new", keywords=("Anna", "New York")),
        hypothesis("hello", "hello bob"),
    ]
    ours = metrics(batch, keywords=["bob"])
    assert ours["keyword_recall"] == 1 / 2
    assert ours["keyword_precision"] == 1 / 2
    assert ours["keyword_f1"] == 1 / 2
    split = hypothesis("in new york", "in new old york", keywords=("new york",))
    assert metrics([split])["keyword_recall"] == 0
    moved = hypothesis("anna one two three", "one two three anna", keywords=("anna",))
    assert metrics([moved])["keyword_recall"] == 0, "said, but not where it was spoken"
    invented = metrics([hypothesis("hello", "bob")], keywords=["bob"])
    assert (invented["keyword_precision"], invented["keyword_f1"]) == (0, 0)
    assert math.isnan(invented["keyword_recall"])


def aligned(reference: str, text: str) -> Alignment:
    return align(reference, text)


@pytest.mark.parametrize(
    ("reference", "text", "loops"),
    [
        ("the cat", "the cat the cat the cat the cat", True),
        ("one two three", "one two three three three three three", True),
        ("1 2 3 4 5 6 7 8 9 1", "1 2 3 4 3 4 3 4 3 4", True),
        ("a b c d e", "a b c d e a b c d e", True),
        ("", "go go go go go", True),
        ("5 5 5 5 5 5", "5 5 5 5 5 5", False),
        ("5 5 5 5 5 5", "6 6 6 6 6 6", False),
        ("5 5 5 5 5 1 2", "5 5 5 5 5 5 2", False),
        ("5 5 5 5 5 5", "5 5 5 5 5 5 5 5 5 5 5 5 5", True),
        ("one two three", "one two two three", False),
        ("a b c d", "e f g h i j k l", False),
        ("a", "", False),
        ("", "", False),
    ],
)
def test_loop(reference: str, text: str, loops: bool) -> None:
    assert is_loop(aligned(reference, text)) is loops
    assert metrics([hypothesis(reference, text)])["loop_rate"] == loops


@pytest.mark.parametrize(
    ("reference", "text", "invented"),
    [
        ("", "thanks", True),
        ("", "", False),
        ("call me", "call me and then i went", True),
        ("good morning to you", "早 上 好", True),
        ("one two three four five six", "one two five", False),
        ("yes", "yet", False),
        ("yes", "yes it is", False),
        ("1 2 3 4 5 6 7 8 9 1", "1 2 3 4 3 4 3 4 3 4", True),
        ("a b c", "", False),
    ],
)
def test_hallucination(reference: str, text: str, invented: bool) -> None:
    assert is_hallucination(aligned(reference, text)) is invented
    assert metrics([hypothesis(reference, text)])["hallucination_rate"] == invented


def test_random_guesses_are_no_loops() -> None:
    draw = random.Random(0)
    guesses = [
        aligned(*(" ".join(draw.choices("0123456789", k=30)) for _ in range(2))) for _ in range(200)
    ]
    assert sum(map(is_loop, guesses)) <= 10


def test_alignment_counts() -> None:
    alignment = aligned("a b c d", "x b d")
    theirs = jiwer.process_words("a b c d", "x b d")
    assert alignment.hit_at == {1: 1, 3: 2}
    assert (alignment.substitutions, alignment.deletions, alignment.insertions) == (
        theirs.substitutions,
        theirs.deletions,
        theirs.insertions,
    )


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> None:
    assert first.keys() == second.keys()
    for name in first:
        torch.testing.assert_close(first[name], second[name], rtol=0, atol=0, equal_nan=True)


def test_states_of_two_processes_add_up() -> None:
    batch = [hypothesis(*pair, keywords=("one",)) for pair in random_pairs(20, min_words=0)]
    whole, left, right = AsrMetrics(), AsrMetrics(), AsrMetrics()
    whole.update(batch, 3.0)
    left.update(batch[:7], 1.0)
    right.update(batch[7:], 2.0)
    left.merge_state(right)
    same(left.compute(), whole.compute())


def test_sync_sums_over_processes() -> None:
    batch = [hypothesis(*pair) for pair in random_pairs(8)]
    half, twice = (
        AsrMetrics(
            dist_sync_fn=lambda state, group: [state, state], distributed_available_fn=lambda: True
        ),
        AsrMetrics(),
    )
    half.update(batch)
    twice.update(batch + batch)
    same(half.compute(), twice.compute())


@pytest.mark.filterwarnings("ignore:The ``compute`` method")
def test_reset_forward_and_collection() -> None:
    metric = AsrMetrics()
    now = metric([hypothesis("a b", "a")])
    assert now["wer"] == 0.5
    metric([hypothesis("a b", "a b")])
    assert metric.compute()["wer"] == 0.25
    metric.reset()
    assert metric.compute()["num_utterances"] == 0
    collection = MetricCollection({"asr": AsrMetrics()}, prefix="val/")
    collection.update([hypothesis("a b", "a")])
    assert any(key.endswith("wer") for key in collection.compute())


def test_pure_functions() -> None:
    counts = utterance_counts(hypothesis("a b", "a c d", duration_s=2.0))
    assert (counts.hits, counts.substitutions, counts.insertions, counts.audio_s) == (1, 1, 1, 2.0)
    assert UtteranceCounts(*counts.values()) == counts
    assert asr_rates(counts)["wer"] == 1.0
    assert set(asr_rates(counts)) == KEYS
