"""Audio that is bad inside, though its row looks sound: an error that names the line, or replaced and counted."""

from __future__ import annotations

import json
import logging
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from lightning_audiorl.data import (
    AsrDataModule,
    AsrRLDataModule,
    AudioError,
    IndexedManifest,
    ManifestRows,
    RLSubset,
    SpeechManifest,
    Subset,
    TtsDataModule,
)
from lightning_audiorl.data.datamodules import asr as asr_module
from lightning_audiorl.types import PromptBatch
from tests.data.fakes import write_tone

#: Rows that look sound, the field at fault, and what the message says of it.
BAD: dict[str, tuple[dict[str, Any], str, str]] = {
    "no audio": ({"audio_filepath": "noise.wav"}, "audio_filepath", "noise.wav"),
    "empty": ({"audio_filepath": "empty.wav"}, "audio_filepath", "empty.wav: holds no samples"),
    "NaN": ({"audio_filepath": "nan.wav"}, "audio_filepath", "nan.wav: holds NaN"),
    "cut": ({"audio_filepath": "cut.wav"}, "duration", "cut.wav"),
    "offset": ({"offset": 9.0}, "offset", "outside the file"),
    "duration": ({"duration": 7.5}, "duration", "has only"),
    "effect": ({"effects": ["telefone"]}, "effects", "telefone"),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bad")
    for number in range(7):
        write_tone(folder / f"good{number}.wav", 0.3 + 0.05 * number)
    (folder / "noise.wav").write_bytes(b"this is no audio" * 50)
    soundfile.write(folder / "empty.wav", np.zeros(0, dtype="float32"), 16000)
    wave = np.zeros(8000, dtype="float32")
    wave[7] = math.nan
    soundfile.write(folder / "nan.wav", wave, 16000, subtype="FLOAT")
    whole = write_tone(folder / "whole.wav", 0.5).read_bytes()
    (folder / "cut.wav").write_bytes(whole[:2000])
    return folder


def manifest(folder: Path, *bad: dict[str, Any], num_good: int = 7, name: str = "m") -> str:
    """Good rows, and the bad ones spread among them: line 2, 4, ..."""
    rows = [
        {"audio_filepath": f"good{i}.wav", "text": "one", "duration": round(0.3 + 0.05 * i, 2)}
        for i in range(num_good)
    ]
    for number, row in enumerate(bad):
        rows.insert(2 * number + 1, {**rows[0], "id": f"bad{number}", "duration": 0.5, **row})
    path = folder / f"{name}.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def all_bad(folder: Path, **settings: Any) -> str:
    return manifest(folder, *[fields for fields, _, _ in BAD.values()], **settings)


def skipping(path: str) -> list[Subset]:
    return [Subset(ManifestRows(path, on_bad_row="skip"))]


def batches(data: AsrDataModule, num: int, first: int = 0) -> list[PromptBatch]:
    data.next_step = first
    loader = iter(data.train_dataloader())
    return [next(loader) for _ in range(num)]


def content(batch: PromptBatch) -> tuple[list[str], list[list[float]], dict[str, int]]:
    return batch.ids, batch.waveform.tolist(), dict(batch.bad_rows)


@pytest.mark.fault(
    "Manifests",
    "audio that is cut, empty, NaN or none, or shorter than its row says, and the row looks sound",
    "an error that names manifest, line, field, row and file: in training, validation and synthesis",
)
@pytest.mark.parametrize("kind", BAD)
def test_bad_audio_names_its_line(folder: Path, kind: str) -> None:
    fields, field, says = BAD[kind]
    path = manifest(folder, fields)
    data = AsrDataModule(path, val={"dev": path}, batch_size=7)
    for loader in (data.train_dataloader(), data.val_dataloader()[0]):
        with pytest.raises(AudioError) as caught:
            list(zip(range(9), loader, strict=False))
        message = str(caught.value)
        assert message.startswith(f"{path}, line 2, field `{field}`: row 'bad0': "), message
        assert says in message


@pytest.mark.fault(
    "Manifests",
    "audio that is bad inside, under on_bad_row: skip, in training",
    "another row takes its place, the same in any loader process, after a resume and on two ranks; it is counted",
)
def test_bad_audio_is_replaced_in_training(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = all_bad(folder)
    data = AsrDataModule(skipping(path), batch_size=4)
    seen = batches(data, 8)
    for batch in seen:
        assert not [row_id for row_id in batch.ids if row_id.startswith("bad")]
    ids = [row_id for batch in seen for row_id in batch.ids]
    assert len(ids) == 32
    assert len(set(ids)) == 32

    # 32 draws of 14 rows are more than two turns: 7 bad rows in each.
    bad = {problem for batch in seen for problem in batch.bad_rows}
    assert len(bad) == 7
    for number, (fields, field, says) in enumerate(BAD.values()):
        del fields
        line = f"{path}, line {2 * number + 2}, field `{field}`: row 'bad{number}': "
        assert any(problem.startswith(line) and says in problem for problem in bad)

    # A pure function of the step.
    for num_workers in (0, 2):
        again = AsrDataModule(path, batch_size=4, on_bad_row="skip", num_workers=num_workers)
        assert [content(batch) for batch in batches(again, 3, first=5)] == [
            content(batch) for batch in seen[5:]
        ]

    # Two ranks share what one has alone.
    halves = []
    for rank in (0, 1):
        monkeypatch.setattr(asr_module, "_rank_and_size", lambda rank=rank: (rank, 2))
        halves.append(batches(AsrDataModule(skipping(path), batch_size=4), 3))
    for whole, first, second in zip(seen, *halves, strict=False):
        assert whole.ids == first.ids + second.ids
        assert whole.bad_rows == first.bad_rows | second.bad_rows

    # Counted, and said once each, the first five by name.
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        for batch in seen:
            data.on_before_batch_transfer(batch, 0)
    assert sum(data.bad_rows.values()) == sum(sum(batch.bad_rows.values()) for batch in seen)
    assert caplog.text.count("training mix: left out: ") == 5
    assert "further rows that are left out are counted" in caplog.text


@pytest.mark.fault(
    "Manifests",
    "no row of a training source has audio that can be used, under on_bad_row: skip",
    "an error that says so and names the first, no endless loop",
)
def test_a_source_of_bad_audio_alone(folder: Path) -> None:
    path = all_bad(folder, num_good=1)
    lines = Path(path).read_text().splitlines()[1:]
    Path(path).write_text("\n".join(lines))
    source = skipping(path)
    data = AsrDataModule(source, val={"dev": source[0].source}, batch_size=2)
    with pytest.raises(AudioError, match=r"7 of its 7 rows were tried.*line \d, field"):
        batches(data, 1)
    with pytest.raises(AudioError, match=r"val/dev: the audio of all 7 rows is bad.*line 1, field"):
        data.val_dataloader()


@pytest.mark.fault(
    "Manifests",
    "audio that is bad inside, under on_bad_row: skip, in an evaluation or prediction set",
    "left out before batches are cut, counted and said; the figure is over the others",
)
def test_bad_audio_is_left_out_of_evaluations(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = all_bad(folder)
    sets: dict[str, Any] = {"dev": IndexedManifest(path, on_bad_row="skip")}
    data = AsrDataModule(val=sets, test=sets, predict=sets, max_eval_batch_size=4)
    for loaders in (data.val_dataloader(), data.test_dataloader(), data.predict_dataloader()):
        ids = [row_id for batch in loaders[0] for row_id in batch.ids]
        assert sorted(ids) == ["m:1", "m:11", "m:13", "m:3", "m:5", "m:7", "m:9"]
        assert not [row_id for row_id in ids if row_id.startswith("bad")]
    assert data.num_bad_rows == {"val/dev": 7, "test/dev": 7, "predict/dev": 7}
    assert "val/dev: left out 7 of 14 rows" in caplog.text
    assert f"{path}, line 2, field `audio_filepath`" in caplog.text


def test_refills_replace_bad_audio_too(folder: Path) -> None:
    data = AsrDataModule(skipping(all_bad(folder)), batch_size=4)
    batch = data.refill(step=3, attempt=1, num_prompts=6)
    assert content(batch) == content(data.refill(step=3, attempt=1, num_prompts=6))
    assert not [row_id for row_id in batch.ids if row_id.startswith("bad")]
    assert len(set(batch.ids)) == 6
    assert sum(data.bad_rows.values()) == 2 * sum(batch.bad_rows.values()) > 0


def spoken(folder: Path) -> str:
    """Two good rows; a bad prompt, a short one, a bad target and a text outside the charset."""
    good = {"audio_filepath": "good3.wav", "text": "one", "duration": 0.5}
    rows = [
        {**good},
        {**good, "id": "bad0", "audio_filepath": "nan.wav"},
        {**good, "id": "bad1", "offset": 0.3, "prompt_duration": 0.1},
        {**good, "id": "bad2", "target": {"audio_filepath": "cut.wav", "duration": 0.5}},
        {**good, "id": "bad3", "text": "one!"},
        {**good, "id": "m:9", "prompt_text": "one"},
    ]
    path = folder / "spoken.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.mark.fault(
    "Manifests",
    "a speaker prompt or a recording of the text that is bad inside, or a text outside the charset",
    "an error with manifest, line and field; under on_bad_row: skip replaced in training, left out of evaluations",
)
def test_prompts_and_targets(folder: Path) -> None:
    path = spoken(folder)
    settings: dict[str, Any] = {"batch_size": 6, "charset": "enot ", "sample_rate_hz": 8000}
    data = TtsDataModule(train=path, val={"dev": path}, on_bad_row="skip", **settings)
    for batch in batches(data, 3):
        assert not [row_id for row_id in batch.ids if row_id.startswith("bad")]
    (batch,) = data.val_dataloader()[0]
    assert sorted(batch.ids) == ["m:9", "spoken:1"]
    assert data.num_bad_rows == {"val/dev": 4}

    strict = TtsDataModule(val={"dev": path}, **settings)
    found = {}
    for row in SpeechManifest(path):
        if row.id.startswith("bad"):
            with pytest.raises(AudioError) as caught:
                strict.load([row])
            where, _, rest = str(caught.value).partition(", field `")
            found[row.id] = (where, rest.partition("`")[0])
    assert found == {
        "bad0": (f"{path}, line 2", "audio_filepath"),
        "bad1": (f"{path}, line 3", "audio_filepath"),
        "bad2": (f"{path}, line 4", "target"),
        "bad3": (f"{path}, line 5", "text"),
    }


@pytest.mark.fault(
    "Manifests",
    "bad lines and bad audio in the sources and evaluation sets of an RL mix, under on_bad_row: skip",
    "the mix is built without them and counts them; what is found later names the line of the source",
)
@pytest.mark.parametrize("given", ["path", "rows"])
def test_an_rl_mix(folder: Path, tmp_path: Path, given: str) -> None:
    path = all_bad(folder)
    val = manifest(folder, {"audio_filepath": "noise.wav"}, num_good=1, name="val")
    source: Any = path if given == "path" else ManifestRows(path, on_bad_row="skip")
    data = AsrRLDataModule(
        {"pool": RLSubset(source)},
        val={"dev": val if given == "path" else ManifestRows(val, on_bad_row="skip")},
        cache_dir=str(tmp_path / "mixes"),
        content_cache=str(tmp_path / "content.sqlite"),
        on_bad_row="skip" if given == "path" else "error",
        batch_size=4,
    )
    data.prepare_data()
    assert data.summary["subsets"]["pool"]["removed"]["bad audio"] >= 2

    seen = batches(data, 4)
    assert not [row_id for batch in seen for row_id in batch.ids if row_id.startswith("bad")]
    problems = {problem for batch in seen for problem in batch.bad_rows}
    assert any(
        problem.startswith(f"{path}, line 6, field `audio_filepath`") for problem in problems
    )
    (batch,) = data.val_dataloader()[0]
    assert batch.ids == ["val:1"]


@pytest.mark.fault(
    "Manifests",
    "audio that is bad inside, in rows that are joined, repeated, padded or used as speaker prompts",
    "they may be skipped where their manifest says so, and name its lines",
)
def test_made_rows_know_their_lines(folder: Path) -> None:
    from lightning_audiorl.data import NoisePadded, PhraseRepeated, Texts, TextSpeech
    from lightning_audiorl.data.manifest.source import RowSource

    path = manifest(folder, {"audio_filepath": "nan.wav"}, num_good=1)
    rows = ManifestRows(path, on_bad_row="skip")
    made: list[RowSource] = [
        NoisePadded(rows),
        PhraseRepeated(rows, times=(2, 2)),
        TextSpeech(Texts(lines=["one", "two", "six", "ten", "five"]), rows),
    ]
    for source in made:
        data = TtsDataModule(val={"dev": source}, prompt_s=(0.1, 30.0))
        assert data.val_dataloader()
        assert data.num_bad_rows["val/dev"] > 0
        for row in source:
            assert row.origin is not None
            assert row.origin.where.startswith(f"{path}, line ")


@pytest.mark.fault(
    "Manifests",
    "a training run that meets bad audio, under on_bad_row: skip",
    "it ends as others do; the step's metrics count the draws that were replaced",
)
def test_a_run_counts_what_it_left_out(folder: Path) -> None:
    from lightning import Trainer

    from lightning_audiorl.algorithms import SFT
    from tests.algorithms.tiny import make_policy

    path = all_bad(folder)
    source = skipping(path)
    data = AsrDataModule(source, val={"dev": source[0].source}, batch_size=14)
    module = SFT(make_policy(), 1)
    quiet: dict[str, Any] = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    Trainer(accelerator="cpu", max_epochs=1, **quiet).fit(module, datamodule=data)
    assert module.rl_step == 1
    assert module.step_metrics["skipped_rows"] == sum(data.bad_rows.values()) >= 7
    assert module.evaluations[-1]["results"]["dev"]["skipped_rows"] == 7
    assert module.evaluations[-1]["results"]["dev"]["num_utterances"] == 7
    assert torch.isfinite(torch.tensor(module.step_metrics["loss"]))


@pytest.mark.fault(
    "Manifests",
    "`audiorl predict` meets bad lines and bad audio, under on_bad_row: skip",
    "they have no line in the file, the others do; a second command finds it complete",
)
def test_a_prediction(folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    from lightning_audiorl.commands.predict import predict
    from lightning_audiorl.data.hypotheses.reader import read_hypotheses
    from lightning_audiorl.engine.evaluator import EvalDecoding
    from lightning_audiorl.models import FunAsrNanoPolicy, TinyFunAsrNano
    from lightning_audiorl.types import Decoding

    path = all_bad(folder)
    settings: dict[str, Any] = {
        "models": {
            "base": FunAsrNanoPolicy(TinyFunAsrNano(width=32, encoder_layers=1, lm_layers=1))
        },
        "decodings": {"greedy": EvalDecoding(Decoding(temperature=0.0, max_new_tokens=3))},
        "trainer": {"accelerator": "cpu", "enable_progress_bar": False},
        "out": str(tmp_path / "out.jsonl"),
    }
    rows = ManifestRows(path, on_bad_row="skip")
    for _ in range(2):
        predict(rows=rows, **settings)
        ids = [line.id for line in read_hypotheses(tmp_path / "out.jsonl")]
        assert ids == ["m:1", "m:3", "m:5", "m:7", "m:9", "m:11", "m:13"]
    assert "predict: left out 7 of 14 rows" in caplog.text

    with pytest.raises(AudioError, match=r"m\.jsonl, line \d+, field `"):
        predict(rows=path, overwrite=True, **settings)
    predict(rows=path, overwrite=True, on_bad_row="skip", **settings)
