"""A Whisper judge whose window ends a little behind the clip."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import WhisperForConditionalGeneration

from lightning_audiorl.judges import TransformersJudge
from lightning_audiorl.judges.models import whisper_window
from lightning_audiorl.judges.models.whisper_window import CutWindow
from lightning_audiorl.judges.transcript import measures_of
from lightning_audiorl.models import TinyWhisper
from lightning_audiorl.models.tiny import build_whisper
from lightning_audiorl.ops.randomness import keyed_generator
from lightning_audiorl.types import Hypothesis, Speech, Utterance
from tests.helpers import assert_close
from tests.judges.test_pretrained import ctc_folder

RATE_HZ = 16000
#: Of the tiny Whisper, as 30 s is of the published ones.
WINDOW_S = 8


def clip(duration_s: float, key: str = "clip") -> Tensor:
    return 0.1 * torch.randn(round(duration_s * RATE_HZ), generator=keyed_generator(key))


def sample(wave: Tensor, lang: str = "en") -> Hypothesis:
    row = Utterance(id="row", segments=(), text="one two", duration_s=1.0, lang=lang)
    return Hypothesis(row, "", 6, True, Speech(wave, RATE_HZ, torch.zeros(5).long()))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A tiny Whisper whose cross-attention is loud enough to be heard in its transcripts."""
    path = tmp_path_factory.mktemp("whisper")
    sizes = TinyWhisper(words=("one", "two", "three"), width=16, encoder_layers=2, decoder_layers=1)
    model, processor = build_whisper(sizes)
    for name, weight in model.named_parameters():
        if "encoder_attn" in name:
            weight.data.mul_(20)
    model.save_pretrained(path)
    processor.save_pretrained(path)
    return str(path)


def judge(folder: str, **settings: Any) -> TransformersJudge:
    return TransformersJudge(
        folder, "seq2seq", generate={"max_new_tokens": 6}, batch_size=8, **settings
    )


def cut(listens: TransformersJudge, tail_s: float = 1.0, rest_step: int = 8) -> CutWindow:
    return CutWindow(listens.model, listens.processor.feature_extractor, tail_s, rest_step)


def whole_features(listens: TransformersJudge, wave: Tensor) -> Tensor:
    """As the model takes them without the setting."""
    extractor = listens.processor.feature_extractor
    features: Tensor = extractor(wave.numpy(), sampling_rate=RATE_HZ, return_tensors="pt")[
        "input_features"
    ]
    return features


def test_the_window_is_the_clip_its_tail_and_what_is_left_to_half_a_second(folder: str) -> None:
    window = cut(judge(folder), tail_s=1.0)
    lengths = {0: 16000, 1: 24000, 32000: 48000, 32001: 56000, 112000: 128000, 128000: 128000}
    assert {length: window.num_samples(length) for length in lengths} == lengths
    assert cut(judge(folder), tail_s=0.0).num_samples(0) == 8000


def test_encoder_and_positions_are_those_of_a_whisper_made_for_the_short_window(
    folder: str,
) -> None:
    listens = judge(folder)
    wave = clip(1.7)
    encoded = cut(listens, rest_step=0).encode([wave]).last_hidden_state

    # 1.7 s, 1 s of tail, rounded up: 3 s of 50 positions each.
    config = copy.deepcopy(listens.model.config)
    config.max_source_positions = 150
    short = WhisperForConditionalGeneration(config).eval()
    weights = listens.model.state_dict()
    name = "model.encoder.embed_positions.weight"
    short.load_state_dict(weights | {name: weights[name][:150]})

    expected = short.model.encoder(whole_features(listens, wave)[..., :300]).last_hidden_state
    assert encoded.shape == (1, 150, 16)
    assert_close(encoded, expected)


def test_with_the_whole_rest_it_is_the_whole_window(folder: str) -> None:
    listens = judge(folder)
    wave = clip(1.7)
    expected = listens.model.model.encoder(whole_features(listens, wave)).last_hidden_state
    assert_close(cut(listens, rest_step=1).encode([wave]).last_hidden_state, expected)


def test_of_the_rest_every_eighth_position_is_there_and_the_last_one(folder: str) -> None:
    window = cut(judge(folder))
    positions = window.positions(48000)
    assert positions[:150] == list(range(150))
    assert positions[150:] == list(range(151, 400, 8))
    assert positions[-1] == 399
    assert window.positions(128000) == list(range(400))
    assert window.encode([clip(1.7)]).last_hidden_state.shape == (1, len(positions), 16)


def test_the_judge_itself_is_as_before(folder: str) -> None:
    whole = judge(folder)
    listens = judge(folder, window_tail_s=0.5)
    speech = [sample(clip(1.0))]
    before = whole.transcribe(speech)
    assert listens.transcribe(speech) != [None]

    assert listens.state_dict().keys() == whole.state_dict().keys()
    for name, weight in listens.state_dict().items():
        assert torch.equal(weight, whole.state_dict()[name]), name
    listens._window = None
    assert listens.transcribe(speech) == before


def test_clips_of_other_lengths_beside_it_change_no_transcript(
    folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes: list[list[int]] = []
    encode = CutWindow.encode

    def watched(self: CutWindow, waveforms: list[Tensor]) -> Any:
        passes.append([len(wave) for wave in waveforms])
        return encode(self, waveforms)

    monkeypatch.setattr(whisper_window.CutWindow, "encode", watched)
    listens = judge(folder, window_tail_s=0.2)
    seconds = [0.6, 2.0, 0.7, 5.0, 0.65, 1.9]
    group = [sample(clip(length, f"clip {i}")) for i, length in enumerate(seconds)]
    together = listens.transcribe(group)

    # Three of up to 1 s with the tail, two of up to 2.5 s, and a long one.
    by_window = [[round(length / RATE_HZ, 2) for length in one] for one in passes]
    assert by_window == [[0.6, 0.7, 0.65], [2.0, 1.9], [5.0]]
    assert together == [listens.transcribe([one])[0] for one in group]
    assert len(set(together)) > 1, "a model that says the same of all would pass"


def test_languages_are_heard_apart_in_a_cut_window_too(folder: str) -> None:
    listens = judge(folder, window_tail_s=1.0)
    group = [sample(clip(1.0)), sample(clip(1.0, "other"), lang="xx"), sample(clip(1.0, "third"))]
    assert listens.transcribe(group) == [listens.transcribe([one])[0] for one in group]


def test_a_clip_that_fills_the_window_is_heard_as_without_the_setting(folder: str) -> None:
    speech = [sample(clip(WINDOW_S - 0.3))]
    whole = judge(folder).transcribe(speech)
    assert judge(folder, window_tail_s=1.0).transcribe(speech) == whole


def test_what_has_no_such_window_is_refused(folder: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="window_tail_s: want a finite number at least 0, got -1"):
        judge(folder, window_tail_s=-1.0)
    with pytest.raises(ValueError, match="window_rest_step: want a whole number"):
        judge(folder, window_tail_s=1.0, window_rest_step=-1)
    with pytest.raises(ValueError, match="Wav2Vec2ForCTC has no window of one length"):
        TransformersJudge(ctc_folder(tmp_path), "ctc", window_tail_s=1.0)


def test_what_repeats_itself_in_a_cut_window_is_heard_again_in_the_whole_one(
    folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    listens = judge(folder, window_tail_s=0.5)
    one, two = (
        listens.processor.tokenizer.encode(word, add_special_tokens=False)[0]
        for word in ("one", "two")
    )
    heard: list[tuple[int, ...]] = []

    def generate(encoder_outputs: Any, **how: Any) -> Tensor:
        states = encoder_outputs.last_hidden_state
        heard.append(tuple(states.shape[:2]))
        is_whole = states.shape[1] == 400
        # In the cut window the second clip of the two says the same twice.
        lines = [[two, one]] if is_whole else [[one, two], [two, two]]
        return torch.tensor(lines)

    monkeypatch.setattr(listens.model, "generate", generate)
    texts = listens.transcribe([sample(clip(1.0, "a")), sample(clip(1.0, "b"))])
    assert [str(text).split() for text in texts] == [["one", "two"], ["two", "one"]]
    assert listens.reports == ("heard_again",)
    assert [measures_of(text) for text in texts] == [{"heard_again": 0.0}, {"heard_again": 1.0}]
    assert len(heard) == 2
    assert heard[0][0] == 2
    assert heard[1] == (1, 400)
