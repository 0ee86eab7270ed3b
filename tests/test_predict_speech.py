"""``audiorl predict`` with models that speak: what judges heard, wav files, and filters that read it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import soundfile
import torch
import yaml

from lightning_audiorl import cli
from lightning_audiorl.commands.predict import SpeechPrediction
from lightning_audiorl.data import (
    Filters,
    PassRate,
    Similar,
    Stops,
    TokenRate,
    TtsDataModule,
    TtsRLDataModule,
)
from lightning_audiorl.data.hypotheses.reader import (
    HypothesisError,
    Predicted,
    read_hypotheses,
    row_fingerprint,
)
from lightning_audiorl.data.manifest.schema import to_json
from lightning_audiorl.data.mix.selection import SubsetBuilder
from lightning_audiorl.data.mix.spec import RLSubset
from lightning_audiorl.engine.evaluator import EvalDecoding
from lightning_audiorl.engine.rollout import hypotheses
from lightning_audiorl.judges import JudgeError
from lightning_audiorl.metrics.speech import character_errors
from lightning_audiorl.models.policy import SampleKey
from lightning_audiorl.ops.randomness import keyed_generator
from lightning_audiorl.text import ErrorCounts, count_errors, normaliser_for
from lightning_audiorl.types import Decoding, Hypothesis, Utterance
from tests import speech, test_predict
from tests.command import class_of, write_rows
from tests.data.fakes import fake_fsdd
from tests.judges.fakes import FakeJudge
from tests.test_predict import Listed

DECODINGS = {
    "greedy": EvalDecoding(speech.GREEDY),
    "sampled": EvalDecoding(Decoding(max_new_tokens=16, min_cap=16), 3),
}


@pytest.fixture(scope="module")
def judges(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the folders of random judges are."""
    return tmp_path_factory.mktemp("judges")


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Listed:
    """Six rows with a prompt, one without."""
    root = fake_fsdd(tmp_path_factory.mktemp("fsdd"), num_index=11)
    return Listed(
        [*speech.rows(root, num_rows=6), *speech.rows(root, num_rows=1, seed=3, prompt_words=None)]
    )


def policy() -> Any:
    """Says different things, some of which end by themselves."""
    made = speech.speech_policy()
    with torch.no_grad():
        for name, p in made.model.named_parameters():
            if p.ndim > 1:
                p.add_(0.5 * torch.randn(p.shape, generator=keyed_generator("lively", name)))
    return made.eval()


def listening(judges: Path, **settings: Any) -> SpeechPrediction:
    return SpeechPrediction(
        speech.judge(judges), speech.encoder(judges), prompt_s=(0.05, 5.0), **settings
    )


def run(out: Path, rows: Any, judges: Path, **settings: Any) -> list[Predicted]:
    settings = {
        "models": {"tts": policy()},
        "decodings": DECODINGS,
        "sample_rate_hz": speech.RATE_HZ,
        "speech": listening(judges),
        "max_batch_size": 3,
    } | settings
    return test_predict.run(out, rows, **settings)


@pytest.fixture(scope="module")
def whole(
    rows: Listed, judges: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, list[Predicted]]:
    """An undisturbed run that keeps what was said: its file and lines."""
    out = tmp_path_factory.mktemp("whole") / "h.jsonl"
    return out, run(out, rows, judges, speech=listening(judges, save_audio=True))


def said_of(row: Utterance, decoding: str) -> list[Hypothesis]:
    """The samples of a row, decoded alone."""
    model, how = policy(), DECODINGS[decoding]
    batch = TtsDataModule((0.05, 5.0), sample_rate_hz=speech.RATE_HZ).load([row])
    context = model.encode(batch)
    rollout = model.sample(
        context, how.num_samples, how.decoding, SampleKey(0, 0, f"predict/{decoding}")
    )
    return hypotheses(model, batch, rollout, context)[0]


def test_a_line_says_what_the_judges_heard(
    whole: tuple[Path, list[Predicted]], rows: Listed, judges: Path
) -> None:
    """Sampled and judged one by one here."""
    out, lines = whole
    judge, encoder, english = speech.judge(judges), speech.encoder(judges), normaliser_for("en")
    assert [(line.id, line.reference, line.fingerprint) for line in lines] == [
        (row.id, row.text, row_fingerprint(row)) for row in rows
    ]
    assert {sample.finished for line in lines for sample in line.samples} == {True, False}
    assert len({sample.text for line in lines for sample in line.samples}) > 8
    for number in (0, 3, 6):
        row, line = rows[number], lines[number]
        for decoding in DECODINGS:
            samples = [sample for sample in line.samples if sample.decoding == decoding]
            for sample, said in zip(samples, said_of(row, decoding), strict=True):
                assert said.speech is not None
                (heard,) = judge.transcribe([said])
                assert (sample.text, sample.num_tokens, sample.finished) == (
                    heard,
                    said.num_tokens,
                    said.finished,
                )
                assert sample.errors == count_errors(row.text, english.normalise(sample.text))
                assert sample.speech is not None
                errors, characters = character_errors(row, sample.text, english)
                assert sample.speech.cer == pytest.approx(errors / characters, abs=1e-4)
                assert sample.speech.duration_s == pytest.approx(said.speech.duration_s, abs=1e-4)
                voice, prompt = encoder.voices([said])[0]
                if number == 6:
                    assert sample.speech.similarity is None
                else:
                    assert sample.speech.similarity == pytest.approx(
                        float(voice @ prompt), abs=2e-4
                    )
                name = f"{number:06d}_{decoding}_{sample.sample}.wav"
                wave, rate_hz = soundfile.read(Path(f"{out}.audio") / "tts" / name)
                assert rate_hz == speech.RATE_HZ
                assert wave == pytest.approx(said.speech.waveform.clamp(-1, 1).numpy(), abs=1e-3)
    assert len(list(Path(f"{out}.audio").rglob("*.wav"))) == len(rows) * 4


def test_lines_do_not_depend_on_batches_or_placement(
    whole: tuple[Path, list[Predicted]], rows: Listed, judges: Path, tmp_path: Path
) -> None:
    _, lines = whole
    test_predict.assert_same(run(tmp_path / "a.jsonl", rows, judges, max_batch_size=1), lines)
    placed = run(tmp_path / "b.jsonl", rows, judges, trainer={"strategy": "phase_single"})
    assert placed == lines
    assert not (tmp_path / "a.jsonl.audio").exists()


def test_a_killed_run_goes_on_and_afresh_means_without_old_sound(
    whole: tuple[Path, list[Predicted]],
    rows: Listed,
    judges: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out, settings = tmp_path / "h.jsonl", {"speech": listening(judges, save_audio=True)}
    with monkeypatch.context() as patched:
        real, left = test_predict.Prediction.predict_step, iter(range(2))

        def step(self: Any, *arguments: Any) -> Any:
            if next(left, None) is None:
                raise test_predict.Killed
            return real(self, *arguments)

        patched.setattr(test_predict.Prediction, "predict_step", step)
        with pytest.raises(test_predict.Killed):
            run(out, rows, judges, **settings)
    folder = Path(f"{out}.audio")
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*.wav")}
    assert len(before) == 6 * 4
    assert run(out, rows, judges, **settings) == whole[1]
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert len(list(folder.rglob("*.wav"))) == 7 * 4
    (folder / "old.wav").touch()
    run(out, rows, judges, overwrite=True, limit_rows=1, **settings)
    assert len(list(folder.rglob("*.wav"))) == 4


def test_a_judge_that_fails_leaves_the_errors_out(
    rows: Listed, judges: Path, tmp_path: Path
) -> None:
    broken = FakeJudge([], "broken")  # no transcript is ever at hand
    speaks = SpeechPrediction(broken, prompt_s=(0.05, 5.0))
    (line,) = run(tmp_path / "h.jsonl", rows, judges, speech=speaks, limit_rows=1)
    assert line.reference
    for sample in line.samples:
        assert (sample.text, sample.errors, sample.rules) == ("", ErrorCounts(), ())
        assert sample.speech is not None
        assert (sample.speech.cer, sample.speech.similarity) == (None, None)
        assert sample.speech.duration_s > 0


def test_what_does_not_go_together_is_refused(rows: Listed, judges: Path, tmp_path: Path) -> None:
    with pytest.raises(
        ValueError,
        match=r"SpeechLMPolicy speaks, and nobody listens; name a judge \(`speech.judge`",
    ):
        run(tmp_path / "a.jsonl", Listed(rows.rows[:1]), judges, speech=None)
    with pytest.raises(
        JudgeError, match=r"'judge' judges speech, but the hypothesis for row '.*' is text"
    ):
        run(
            tmp_path / "b.jsonl",
            Listed(rows.rows[:1]),
            judges,
            models={"asr": test_predict.policy()},
            decodings=test_predict.DECODINGS,
            sample_rate_hz=16000,
        )
    run(tmp_path / "c.jsonl", rows, judges, limit_rows=1)
    for other in (SpeechPrediction(speech.judge(judges)), None):
        with pytest.raises(HypothesisError, match=r"c.jsonl was begun with another `speech"):
            run(tmp_path / "c.jsonl", rows, judges, limit_rows=1, speech=other)
    with pytest.raises(ValueError, match="outside the charset"):
        run(tmp_path / "d.jsonl", rows, judges, speech=replace(listening(judges), charset="xyz"))


def test_what_the_prompt_says_is_part_of_a_rows_fingerprint(rows: Listed) -> None:
    row = rows[0]
    other = replace(row, extra={**row.extra, "prompt_text": "nine nine nine"})
    assert row_fingerprint(other) != row_fingerprint(row)


# --- from the command to the training mix


def manifest(folder: Path, rows: Listed) -> Path:
    """The rows with a prompt as a manifest of speech synthesis."""
    return write_rows(folder / "texts.jsonl", [to_json(row) for row in rows.rows[:6]])


def command_config(path: Path, out: Path, judges: Path) -> dict[str, Any]:
    """All parts from folders, as trainings leave them."""
    made, folders = policy(), speech.judge_folders(judges)
    made.export(str(out.parent / "lm"))
    made.codec.save(str(out.parent / "codec"))
    model = class_of(
        "models.SpeechLMPolicy",
        init_from=str(out.parent / "lm"),
        codec=class_of("codecs.TinyCodec", init_from=str(out.parent / "codec")),
        limits={"min_prompt_s": 0.05},
    )
    return {
        "models": {"tts": model},
        "rows": str(path),
        "out": str(out),
        "decodings": {
            "sampled": {
                "decoding": {"temperature": 1.0, "max_new_tokens": 16, "min_cap": 16},
                "num_samples": 4,
            }
        },
        "sample_rate_hz": speech.RATE_HZ,
        "speech": {
            "judge": class_of("judges.CtcJudge", folder=str(folders["judge"])),
            "encoder": class_of("judges.EcapaEncoder", source=str(folders["encoder"])),
            "save_audio": True,
            "prompt_s": [0.05, 5.0],
        },
        "trainer": {"accelerator": "cpu"},
    }


def test_from_the_command_to_a_filtered_training_mix(
    rows: Listed, judges: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Predict from YAML; the mix then holds the rows whose lines pass, counted by hand, and no other."""
    path, out = manifest(tmp_path, rows), tmp_path / "h.jsonl"
    (tmp_path / "p.yaml").write_text(yaml.safe_dump(command_config(path, out, judges)))
    cli.main(["predict", "--config", str(tmp_path / "p.yaml")])
    assert "6 rows, models: tts" in capsys.readouterr().out
    lines = list(read_hypotheses(out))
    assert len(list(Path(f"{out}.audio").rglob("*.wav"))) == 6 * 4
    of_row = {line.id: [s.speech for s in line.samples if s.speech is not None] for line in lines}
    similar = {name: sum(s.similarity for s in found) / 4 for name, found in of_row.items()}  # type: ignore[misc]
    passed = {name: sum(s.cer <= 1.0 for s in found) for name, found in of_row.items()}  # type: ignore[operator]
    floor = sorted(similar.values())[1] - 1e-6
    expected = {name for name in of_row if 1 < passed[name] < 4 and similar[name] >= floor}
    assert 0 < len(expected) < 4, f"this compares next to nothing: {passed}, {similar}"
    rules: list[SubsetBuilder] = [
        PassRate(low=0.25, max_cer=1.0),
        Similar(floor),
        TokenRate(0, 1e9),
        Stops(max_share=0.99),
    ]
    data = TtsRLDataModule(
        {"mine": RLSubset(str(path), Filters(rules), [str(out)])},
        cache_dir=str(tmp_path / "mixes"),
        content_cache=str(tmp_path / "content.sqlite"),
        sample_rate_hz=speech.RATE_HZ,
        prompt_s=(0.05, 5.0),
        batch_size=len(expected),
    )
    data.prepare_data()
    batch = next(iter(data.train_dataloader()))
    assert {row.id.split("@")[0] for row in batch.rows} == expected
    assert all("samples pass" in row.extra["chosen_because"] for row in batch.rows)
