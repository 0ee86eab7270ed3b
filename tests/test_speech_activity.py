"""Where speech is heard, what is made of it in rows, manifests and metrics, and what is said without silero-vad."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import soundfile
import torch
from jsonargparse import ArgumentParser
from torch import Tensor

from lightning_audiorl import speech_activity
from lightning_audiorl.callbacks.metric_table import columns_of
from lightning_audiorl.commands.manifest import manifest
from lightning_audiorl.data import SpeechHeard, SubsetBuilder
from lightning_audiorl.data.audio.nonspeech import render
from lightning_audiorl.data.audio.reading import read_audio
from lightning_audiorl.data.corpora.espeak import EspeakCorpus, Lang
from lightning_audiorl.data.manifest.schema import ManifestError
from lightning_audiorl.data.mix.selection import Candidate, by_speech_activity
from lightning_audiorl.data.mix.spec import describe
from lightning_audiorl.metrics.activity import activity_counts, activity_rates
from lightning_audiorl.metrics.evaluation import SetEvaluation
from lightning_audiorl.metrics.speech import Judges, SpeechEvaluation, SpeechMetrics
from lightning_audiorl.speech_activity import SpeechActivity, SpeechDetector
from lightning_audiorl.types import Hypothesis, Segment, Speech, Utterance

RATE_HZ = 16000


def needs_silero() -> None:
    pytest.importorskip("silero_vad.data", reason="the extra vad")


def silence(seconds: float, rate_hz: int = RATE_HZ) -> Tensor:
    return torch.zeros(round(seconds * rate_hz))


def tone(seconds: float, rate_hz: int = RATE_HZ) -> Tensor:
    time_s = torch.arange(round(seconds * rate_hz)) / rate_hz
    return 0.3 * torch.sin(2 * math.pi * 300 * time_s)


@pytest.fixture
def loud_is_speech(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A detector that takes sound above 0.2 for speech, so that no wheel is needed; counts the clips that it hears."""
    clips: list[int] = []

    def probabilities(_: SpeechDetector, waveform: Tensor, sample_rate_hz: int) -> Tensor:
        clips.append(len(waveform))
        step = sample_rate_hz * 512 // RATE_HZ
        return torch.stack([(piece.abs().max() > 0.2).float() for piece in waveform.split(step)])

    monkeypatch.setattr(SpeechDetector, "probabilities", probabilities)
    for module in (by_speech_activity, sys.modules["lightning_audiorl.metrics.speech"]):
        monkeypatch.setattr(module, "detector_version", lambda: "0")
    by_speech_activity._heard.cache_clear()
    return clips


@pytest.fixture
def no_silero(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speech_activity.importlib.util, "find_spec", lambda name: None)
    speech_activity._network.cache_clear()


@pytest.mark.parametrize(
    ("windows", "spans"),
    [
        ("....", []),
        ("####", [(0, 4)]),
        # A pause of three windows ends it, one of two does not; two windows alone are no speech.
        ("###..###...###.", [(0, 8), (11, 14)]),
        ("..##....", []),
        # What began it may weaken, but not too much.
        ("..###+++....", [(2, 8)]),
        ("..++++....", []),
    ],
)
def test_spans_of_probabilities(windows: str, spans: list[tuple[int, int]]) -> None:
    """Pauses and stretches of 0.1 s are three windows of 32 ms."""
    heights = {".": 0.0, "+": 0.4, "#": 0.9}
    assert SpeechDetector().spans(torch.tensor([heights[window] for window in windows])) == spans


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"threshold": 0.0},
            r"SpeechDetector\.threshold: want a finite number above 0 and below 1",
        ),
        ({"threshold": 1.0}, r"SpeechDetector\.threshold"),
        ({"min_speech_s": -1.0}, r"SpeechDetector\.min_speech_s"),
        ({"min_silence_s": math.nan}, r"SpeechDetector\.min_silence_s"),
    ],
)
def test_bad_settings_of_the_detector(settings: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SpeechDetector(**settings)


@pytest.mark.fault(
    "Settings and messages",
    "a rule, a metric or a check that hears speech, without the extra `vad`",
    "is refused when it is made, with the command that installs it",
)
def test_without_the_wheel_the_error_names_the_extra(no_silero: None, tmp_path: Path) -> None:
    install = r"pip install 'lightning-audiorl\[vad\]'"
    with pytest.raises(ImportError, match=install):
        SpeechDetector().listen(tone(1.0), RATE_HZ)
    with pytest.raises(ImportError, match=install):
        SpeechHeard()
    with pytest.raises(ImportError, match=install):
        SpeechEvaluation(detector=SpeechDetector())
    with pytest.raises(ImportError, match=install):
        manifest(str(tmp_path), "folder", str(tmp_path / "rows.jsonl"), check_speech=True)
    # What does not want it does not ask for it.
    assert SpeechEvaluation().new().compute()


@pytest.mark.fault(
    "Settings and messages",
    "a version of silero-vad with another network",
    "is refused by its number",
)
def test_another_network_is_refused_by_its_version(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "data").mkdir()
    other = torch.jit.script(torch.nn.Linear(2, 2))
    torch.jit.save(other, str(tmp_path / "data" / "silero_vad.jit"))
    found = SimpleNamespace(submodule_search_locations=[str(tmp_path)])
    monkeypatch.setattr(speech_activity.importlib.util, "find_spec", lambda name: found)
    monkeypatch.setattr(speech_activity.metadata, "version", lambda name: "9.0")
    speech_activity._network.cache_clear()
    with pytest.raises(ImportError, match=r"silero-vad 9\.0 has another network than this build"):
        SpeechDetector().listen(tone(0.1), RATE_HZ)


def test_what_the_network_hears_is_what_its_own_file_hears() -> None:
    needs_silero()
    theirs = torch.jit.load(str(speech_activity.weights_file())).eval()
    generator = torch.Generator().manual_seed(0)
    row = EspeakCorpus("test", num_rows=1)[0]
    for clip in (
        read_audio(row, RATE_HZ),
        tone(0.512),
        0.01 * torch.randn(3 * RATE_HZ + 7, generator=generator),
    ):
        ours = SpeechDetector().probabilities(clip, RATE_HZ)
        with torch.no_grad():
            expected = theirs.audio_forward(clip[None], RATE_HZ)[0]
        assert torch.allclose(ours, expected, atol=1e-4)
    # Where the clip is cut into pieces for the convolutions.
    clip = read_audio(row, RATE_HZ)
    whole = SpeechDetector().probabilities(clip, RATE_HZ)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(speech_activity, "_AT_ONCE", 7)
        assert torch.allclose(SpeechDetector().probabilities(clip, RATE_HZ), whole, atol=1e-5)


@pytest.mark.parametrize("kind", ["silence", "white", "pink", "brown", "hum", "clicks"])
def test_no_speech_is_heard_in_noise(kind: str) -> None:
    needs_silero()
    for seed in range(3):
        clip = render(f"synthetic:{kind}?seed={seed}&level_db=-20", 3.0, RATE_HZ)
        assert SpeechDetector().listen(clip, RATE_HZ).spans == ()
    assert SpeechDetector().listen(tone(2.0), RATE_HZ).spans == ()
    assert SpeechDetector().listen(tone(0.0), RATE_HZ) == SpeechActivity(0.0, ())


@pytest.mark.parametrize(
    ("lang", "rate_hz"), [("en", 16000), ("zh", 16000), ("en", 8000), ("zh", 24000)]
)
def test_espeak_is_heard_between_its_edges(lang: Lang, rate_hz: int) -> None:
    """Half a second of silence stands at each edge; the voice itself takes some hundredths to begin."""
    needs_silero()
    torch_threads = torch.get_num_threads()
    for row in EspeakCorpus("test", num_rows=4, edge_s=(0.5, 0.5), lang=lang):
        heard = SpeechDetector().listen(read_audio(row, rate_hz), rate_hz)
        assert heard.speech_s > 0.7 * (row.duration_s - 1.0)
        assert 0.45 < heard.leading_s < 0.75
        assert 0.35 < heard.tail_s < 0.75
        assert heard.duration_s == pytest.approx(row.duration_s, abs=1e-3)
    assert torch.get_num_threads() == torch_threads


def clip_row(folder: Path, name: str, wave: Tensor, text: str) -> Utterance:
    path = folder / f"{name}.wav"
    soundfile.write(path, wave.numpy(), RATE_HZ)
    return Utterance(name, (Segment(str(path), len(wave) / RATE_HZ),), text, len(wave) / RATE_HZ)


def test_rows_are_kept_where_the_audio_is_what_the_text_says(
    tmp_path: Path, loud_is_speech: list[int]
) -> None:
    spoken = torch.cat([silence(0.512), tone(1.024), silence(2.048)])
    rows = {
        "spoken": clip_row(tmp_path, "spoken", spoken, "one"),
        "secret": clip_row(tmp_path, "secret", spoken, ""),
        "silent": clip_row(tmp_path, "silent", silence(1.0), ""),
        "missing": clip_row(tmp_path, "missing", silence(1.0), "two"),
        "text": Utterance("text", (), "three", 1.0),
    }
    rule = SpeechHeard()
    verdicts = {name: rule.judge(Candidate(0, row)) for name, row in rows.items()}
    assert {name: verdict.keep for name, verdict in verdicts.items()} == {
        "spoken": True,
        "secret": False,
        "silent": True,
        "missing": False,
        "text": False,
    }
    assert {verdict.reason for verdict in verdicts.values()} == {
        "1.0 s of speech heard, 0.5 s before and 2.0 s after it",
        "speech in a row without words",
        "0.0 s of speech heard",
        "no speech heard",
        "no audio",
    }

    # Heard once, whatever the rules are.
    num_heard = len(loud_is_speech)
    assert num_heard == 4
    limits = (({"max_leading_s": 0.5}, "more than 0.5 s before the first speech"),)
    limits += (({"max_tail_s": 2.0}, "more than 2 s after the last speech"),)
    for settings, reason in limits:
        verdict = SpeechHeard(**settings).judge(Candidate(0, rows["spoken"]))
        assert (verdict.keep, verdict.reason) == (False, reason)
    assert SpeechHeard(max_speech_s=1.1).judge(Candidate(0, rows["secret"])).keep
    assert not SpeechHeard(min_speech_s=1.1).judge(Candidate(0, rows["spoken"])).keep
    assert len(loud_is_speech) == num_heard
    other = SpeechHeard(detector=SpeechDetector(threshold=0.6))
    assert other.judge(Candidate(0, rows["spoken"])).keep
    assert len(loud_is_speech) == num_heard + 1


def test_yaml_names_the_rule_and_the_mix_knows_its_version(
    loud_is_speech: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--builder", type=SubsetBuilder)
    settings = {
        "class_path": "lightning_audiorl.data.SpeechHeard",
        "init_args": {"max_tail_s": 1.5, "detector": {"threshold": 0.4}},
    }
    made = parser.instantiate_classes(parser.parse_object({"builder": settings})).builder
    assert (made.max_tail_s, made.detector) == (1.5, SpeechDetector(threshold=0.4))
    parser.add_argument("--evaluation", type=SetEvaluation)
    settings = {
        "class_path": "lightning_audiorl.metrics.SpeechEvaluation",
        "init_args": {"detector": {}},
    }
    made = parser.instantiate_classes(parser.parse_object({"evaluation": settings})).evaluation
    assert made.detector == SpeechDetector()

    described = describe(SpeechHeard())
    monkeypatch.setattr(by_speech_activity, "detector_version", lambda: "1")
    assert describe(SpeechHeard()) != described
    for name in ("max_speech_s", "min_speech_s", "max_leading_s", "max_tail_s"):
        with pytest.raises(ValueError, match=rf"SpeechHeard\.{name}"):
            SpeechHeard(**{name: -0.1})


@pytest.mark.fault(
    "Manifests",
    "rows with an empty text in which somebody speaks, rows with words in which nobody does",
    "are refused by `audiorl manifest --check_speech true`, or left out and counted",
)
def test_a_manifest_is_made_of_rows_that_say_what_is_heard(
    tmp_path: Path, loud_is_speech: list[int], capsys: Any, caplog: Any
) -> None:
    clips = tmp_path / "clips"
    clips.mkdir()
    for name, wave, text in (
        ("a", tone(0.5), "one"),
        ("b", tone(0.5), ""),
        ("c", silence(0.5), ""),
        ("d", silence(0.5), "two"),
    ):
        soundfile.write(clips / f"{name}.wav", wave.numpy(), RATE_HZ)
        (clips / f"{name}.txt").write_text(text)
    settings: dict[str, Any] = {"kind": "folder", "allow_empty_text": True, "check_speech": True}

    out = tmp_path / "rows.jsonl"
    with pytest.raises(
        ManifestError, match=r"field `text`: speech in a row without words \(the text is empty\)"
    ):
        manifest(str(clips), out=str(out), **settings)
    assert not out.exists()
    manifest(str(clips), out=str(out), on_bad_row="skip", **settings)
    assert [line.count('"text": ""') for line in out.read_text().splitlines()] == [0, 1]
    printed = capsys.readouterr().out
    assert "left out   2 (1 x speech in a row without words, 1 x no speech heard)" in printed
    assert "skipped 2 of 4 rows" in caplog.text


def sample(wave: Tensor, text: str = "one", rate_hz: int = RATE_HZ) -> Hypothesis:
    speech = Speech(wave, rate_hz, torch.zeros(25, dtype=torch.int64))
    return Hypothesis(Utterance("row", (), text, 1.0), "", speech=speech)


def test_metrics_of_what_is_heard_in_samples(loud_is_speech: list[int]) -> None:
    hiss = 0.05 * tone(0.64)
    hypotheses = [
        sample(torch.cat([silence(0.32), tone(0.96), hiss, silence(0.32)])),
        sample(torch.cat([tone(0.96), silence(0.64)])),
        sample(silence(1.0)),
        # Neither counts: nothing is to be said, and nothing can be heard.
        sample(silence(1.0), text=""),
        sample(torch.full((RATE_HZ,), math.nan)),
    ]
    rates = activity_rates(activity_counts(hypotheses, SpeechDetector()))
    assert rates == {
        "no_speech_rate": pytest.approx(1 / 3),
        "leading_s": pytest.approx(0.16),
        "tail_s": pytest.approx(0.8),
        "tail_sound_s": pytest.approx(0.32),
    }

    evaluation = SpeechEvaluation(detector=SpeechDetector())
    metric = evaluation.new()
    for hypothesis in hypotheses[:3]:
        metric.update([hypothesis])
    computed = {name: float(value) for name, value in metric.compute().items()}
    assert {name: computed[name] for name in rates} == {
        name: pytest.approx(value, abs=1e-6) for name, value in rates.items()
    }
    # Columns of their own where they are measured, and nowhere else.
    shown = [column.title for column in columns_of({"dev": computed})]
    assert shown[-4:] == ["no speech", "lead s", "tail s", "tail sound s"]
    metric.reset()
    assert math.isnan(float(metric.compute()["tail_s"]))


def test_without_a_detector_the_metrics_are_as_before() -> None:
    metric = SpeechMetrics(Judges())
    metric.update([sample(tone(1.0))])
    assert not set(metric.compute()) & set(activity_rates(activity_counts([], SpeechDetector())))
