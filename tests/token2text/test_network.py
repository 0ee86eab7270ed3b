from __future__ import annotations

import json
import math
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from lightning_audiorl.judges import JudgeError
from lightning_audiorl.token2text import Token2Text, with_end
from lightning_audiorl.token2text.labels import class_ids, label_of
from lightning_audiorl.types import Utterance
from tests.helpers import assert_close

CODES = torch.tensor([[3, 1, 4, 1, 5, 9], [2, 6, 5, 0, 0, 0]])
LENGTHS = torch.tensor([6, 3])
ROWS = [
    Utterance("a", (), "one two", 1.0, speaker="ann"),
    Utterance("b", (), "See", 1.0, extra={"mood": "glad"}),
]


def make(**sizes: Any) -> Token2Text:
    sizes = {"width": 16, "dilations": (1, 2), "heads": 2, "decoder_layers": 1} | sizes
    return Token2Text(10, "enostw ", **sizes).double().eval()


def test_embeddings_of_hard_and_one_hot_codes_are_the_same() -> None:
    network = make()
    one_hot = torch.nn.functional.one_hot(CODES, 11).double()
    assert_close(one_hot @ network.table, network.embed(CODES), "exact")
    assert network.table.shape == (11, 16)


def test_a_row_alone_scores_as_in_a_batch() -> None:
    """Whatever stands behind its end, NaN included."""
    network = make(labels={"speaker": ["ann", "bob"]})
    targets = network.targets(ROWS)
    embedded = network.embed(CODES)
    embedded[1, 3:] = math.nan
    together = network.encode(embedded, LENGTHS)
    for i, length in enumerate(LENGTHS.tolist()):
        alone = network(CODES[i : i + 1, :length], LENGTHS[i : i + 1])
        for score in (network.text_log_likelihood, network.ctc_log_likelihood):
            assert_close(
                score(together, targets)[i], score(alone, targets[i : i + 1])[0], "float64"
            )
        assert_close(
            network.head_log_probs("speaker", together)[i],
            network.head_log_probs("speaker", alone)[0],
            "float64",
        )


def test_likelihood_is_that_of_each_character_given_those_before() -> None:
    network = make()
    (ids,) = network.targets(ROWS[1:])
    assert [network.characters[i - 1] for i in ids] == ["s", "e", "e"]
    encoded = network(CODES[:1], LENGTHS[:1])
    by_hand = torch.zeros((), dtype=torch.float64)
    for n, wanted in enumerate([*ids, 0]):
        by_hand += network._written(encoded, torch.tensor([[0, *ids[:n]]]))[0, -1].log_softmax(-1)[
            wanted
        ]
    assert_close(
        network.text_log_likelihood(encoded, [ids])[0].detach(), (by_hand / 4).detach(), "float64"
    )
    assert network.text_log_likelihood(encoded, [[]]).isfinite().all()


def test_ctc_is_the_sum_over_all_alignments() -> None:
    network = make(ctc_upsample=1)
    encoded = network(CODES[:1, :4], torch.tensor([4]))
    log_probs = network.ctc_log_probs(encoded)[0][0]

    def collapsed(path: tuple[int, ...]) -> list[int]:
        return [
            now for now, before in zip(path, (0, *path), strict=False) if now not in (0, before)
        ]

    paths = [path for path in product((0, 1, 2), repeat=4) if collapsed(path) == [1, 2, 1]]
    each = torch.stack(
        [torch.stack([log_probs[t, c] for t, c in enumerate(path)]).sum() for path in paths]
    )
    assert_close(
        network.ctc_log_likelihood(encoded, [[1, 2, 1]])[0].detach(),
        each.logsumexp(0).detach() / 3,
        "float64",
    )


def test_too_few_frames_have_a_low_likelihood_with_a_gradient() -> None:
    """Two codes for seven characters: neither infinite, nor without gradient, nor better than where there is room."""
    network = make(ctc_upsample=1)
    embedded = network.embed(CODES).detach().requires_grad_(True)
    targets = network.targets([ROWS[0], ROWS[0]])
    scores = network.ctc_log_likelihood(network.encode(embedded, torch.tensor([6, 2])), targets)
    assert scores.isfinite().all()
    assert scores[1] < scores[0] + 1
    scores.sum().backward()
    assert embedded.grad is not None
    assert embedded.grad.isfinite().all()
    assert (embedded.grad[1, :2].abs().sum(-1) > 0).all()


def test_both_forms_are_differentiable_in_the_codes() -> None:
    network = make()
    targets = network.targets(ROWS[1:])
    generator = torch.Generator().manual_seed(0)
    embedded = torch.randn(1, 3, 16, generator=generator, dtype=torch.float64, requires_grad=True)

    def scores(x: Tensor) -> tuple[Tensor, Tensor]:
        encoded = network.encode(x, LENGTHS[1:])
        return network.text_log_likelihood(encoded, targets), network.ctc_log_likelihood(
            encoded, targets
        )

    assert torch.autograd.gradcheck(scores, (embedded,), atol=1e-6)


def test_transcripts_are_greedy_and_end() -> None:
    network = make(max_characters=5)
    texts = network.transcribe(CODES, LENGTHS)
    assert all(len(text) <= 5 and set(text) <= set(network.characters) for text in texts)
    with torch.no_grad():
        network.write.bias.copy_(torch.tensor([0.0, *([-99.0] * 7)]))
    assert network.transcribe(CODES, LENGTHS) == ["", ""]
    with torch.no_grad():
        network.ctc.bias.copy_(torch.tensor([0.0, 99.0, *([0.0] * 6)] * 2))
    assert network.transcribe(CODES, LENGTHS, ctc=True) == ["e", "e"]


def test_the_end_of_speech_is_appended_where_it_was_said() -> None:
    codes, lengths = with_end(CODES, LENGTHS, 10, torch.tensor([True, True]))
    assert codes.tolist() == [[3, 1, 4, 1, 5, 9, 10], [2, 6, 5, 10, 0, 0, 0]]
    assert lengths.tolist() == [7, 4]
    codes, lengths = with_end(CODES, LENGTHS, 10, torch.tensor([False, True]))
    assert codes.tolist()[0][:6] == CODES.tolist()[0]
    assert lengths.tolist() == [6, 4]


def test_a_folder_gives_the_same_network(tmp_path: Path) -> None:
    network = make(labels={"mood": ["glad", "sad"]}, codec_hash="abc", max_characters=40).float()
    network.save(str(tmp_path))
    again = Token2Text.load(str(tmp_path)).eval()
    assert (again.labels, again.codec_hash, again.max_characters) == (
        {"mood": ["glad", "sad"]},
        "abc",
        40,
    )
    targets = network.targets(ROWS)
    scores = [n.text_log_likelihood(n(CODES, LENGTHS), targets) for n in (network, again)]
    assert_close(scores[1].detach(), scores[0].detach(), "exact")
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"kind": "LogMelGru"}))
    with pytest.raises(JudgeError, match="kind is 'LogMelGru'"):
        Token2Text.load(str(tmp_path))


def test_labels_of_rows() -> None:
    assert [label_of(ROWS[0], "speaker"), label_of(ROWS[1], "mood"), label_of(ROWS[0], "mood")] == [
        "ann",
        "glad",
        "",
    ]
    assert class_ids(ROWS, "mood", ["sad", "glad"], missing_ok=True) == [-1, 1]
    with pytest.raises(ValueError, match="row 'a': its field 'mood' is ''"):
        class_ids(ROWS, "mood", ["sad", "glad"])
    with pytest.raises(ValueError, match="row 'a': its speaker is 'ann'; the head knows bob, eve"):
        class_ids([ROWS[0]], "speaker", ["bob", "eve"], missing_ok=True)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("one two one", "row 'a': its text has 11 characters, Token2Text knows texts of up to 8"),
        ("six", "row 'a': its text has 'i'"),
    ],
)
def test_texts_that_it_does_not_know(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(max_characters=8).targets([replace(ROWS[0], text=text)])


def test_bad_input() -> None:
    with pytest.raises(ValueError, match="lengths must be within 1 and 6"):
        make()(CODES, torch.tensor([6, 0]))
    with pytest.raises(ValueError, match=r"labels\['mood'\]"):
        make(labels={"mood": ["glad", "glad"]})
    with pytest.raises(ValueError, match="every size at least 1"):
        make(ctc_upsample=0)
