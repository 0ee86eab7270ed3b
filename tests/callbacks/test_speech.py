"""What a person hears and sees of a policy that speaks: TensorBoard, wav files, the report, alerts."""

from __future__ import annotations

import base64
import io
import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
import soundfile
import torch
from lightning.pytorch.loggers import TensorBoardLogger

from lightning_audiorl.algorithms import GRPO
from lightning_audiorl.callbacks import HackingWatch, RunReport, SampleLogger, metric_table
from lightning_audiorl.callbacks.hacking import drift_alerts
from lightning_audiorl.callbacks.metric_table import columns_of
from lightning_audiorl.callbacks.recordings import Recordings
from lightning_audiorl.callbacks.spoken_samples import (
    audible,
    mel_db,
    mel_figure,
    picture,
    spoken_group_table,
    transcript_table,
    write_wav,
)
from lightning_audiorl.judges import JudgePanel
from lightning_audiorl.types import Scores, Speech
from tests import speech
from tests.callbacks import runs
from tests.callbacks.test_samples import events, sounds, texts
from tests.judges.fakes import FakeEncoder, FakeJudge, heard, said, tone
from tests.reports.folders import page_of

RATE_HZ = 8000


@pytest.fixture(scope="module")
def finished(root: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, GRPO, RunReport]:
    """Two steps of GRPO with everything that watches them."""
    folder = tmp_path_factory.mktemp("spoken")
    module = speech.speech_grpo(folder / "judges")
    report = RunReport(num_spoken=2)
    callbacks = [SampleLogger(2, num_groups=1, num_rows=3, num_spoken=2), HackingWatch(), report]
    logger = TensorBoardLogger(folder, name="", version="")
    runs.trainer(folder, callbacks, logger=logger).fit(module, speech.speech_data(root))
    return folder, module, report


def test_tensorboard_has_sound_pictures_and_transcripts(
    finished: tuple[Path, GRPO, RunReport],
) -> None:
    folder, module, _ = finished
    found = events(folder)
    tags = found.Tags()
    of_groups = [f"groups/step {step}/0" for step in (1, 2)]
    of_sets = [f"val/digits/step {step}/{number}" for step in (0, 2) for number in (0, 1)]
    of_samples = [f"{tag}/{label}" for tag in of_groups for label in ("best", "worst")]
    assert sorted(sounds(found)) == sorted([*of_groups, *of_samples, *of_sets])
    assert sorted(tags["images"]) == sorted(f"{tag}/mel" for tag in [*of_samples, *of_sets])
    clips = sounds(found)
    assert clips["val/digits/step 2/0"].step == 2
    caption = clips["groups/step 2/0/best"].caption
    assert caption.startswith("asked: ")
    assert "| judge heard: " in caption
    assert "| reward " in caption
    sound = soundfile.info(io.BytesIO(clips["val/digits/step 2/1"].wav))
    shown = [group[0] for group in module.last_hypotheses["digits"]]
    assert (sound.samplerate, sound.frames) == (RATE_HZ, len(shown[1].speech.waveform))
    table = texts(found, "val/digits")[2].splitlines()
    assert table[0] == "| id | text | heard by judge | heard by held_out_judge | seconds | tokens |"
    assert len(table) == 2 + 3
    for line, hypothesis in zip(table[2:], shown, strict=False):
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        transcripts = [hypothesis.transcripts[name] for name in ("judge", "held_out_judge")]
        assert cells[:4] == [hypothesis.row.id, hypothesis.row.text, *transcripts]
    groups = texts(found, "groups")
    assert sorted(groups) == [1, 2]
    header, _, best, worst = groups[2].splitlines()
    parts = "reward | speech_accuracy | duration_consistency | seconds | tokens |"
    assert header == f"| id | text |  | heard by judge | {parts}"
    assert (best.split("|")[3].strip(), worst.split("|")[3].strip()) == ("best", "worst")
    assert float(best.split("|")[5]) > float(worst.split("|")[5])


def test_the_report_plays_the_same_texts_before_and_after(
    finished: tuple[Path, GRPO, RunReport],
) -> None:
    """Files that exist where the report says, with the sound and transcripts of the evaluation."""
    folder, module, _ = finished
    report = json.loads((folder / "report" / "report.json").read_text())
    recordings = report["recordings"]
    assert [(one["stage"], one["rl_step"]) for one in recordings] == [
        ("before", 0),
        ("after", 2),
    ] * 2
    assert recordings[0]["id"] == recordings[1]["id"] != recordings[2]["id"] == recordings[3]["id"]
    last = {group[0].row.id: group[0] for group in module.last_hypotheses["digits"]}
    for one in recordings:
        wave, rate_hz = soundfile.read(folder / "report" / one["wav"])
        assert rate_hz == RATE_HZ
        assert len(wave) / rate_hz == pytest.approx(one["duration_s"])
        assert (folder / "report" / one["mel"]).read_bytes().startswith(b"\x89PNG")
        assert (
            (folder / "report" / one["wav"]).resolve().is_relative_to((folder / "audio").resolve())
        )
        if one["stage"] == "after":
            shown = last[one["id"]]
            spoken = shown.speech
            assert abs(torch.from_numpy(wave).float() - spoken.waveform.clamp(-1, 1)).max() < 1e-4
            names = ("judge", "held_out_judge")
            assert one["heard"] == {name: shown.transcripts[name] or "(nothing)" for name in names}
    text, page = ((folder / "report" / f"report.{kind}").read_text() for kind in ("md", "html"))
    assert "- held out judge: held_out_judge" in text
    assert "heard by judge | heard by held_out_judge (held out)" in text
    # The page plays the same sound, from within itself.
    players = re.findall(
        r'<audio controls preload="none" src="data:audio/flac;base64,([^"]+)">', page
    )
    pictures = re.findall(r'<img src="data:image/png;base64,([^"]+)"', page)
    assert len(players) == len(pictures) == len(recordings)
    played = {soundfile.read(io.BytesIO(base64.b64decode(one)))[0].tobytes() for one in players}
    shown_pictures = {base64.b64decode(one) for one in pictures}
    for one in recordings:
        assert f"[sound]({one['wav']}) [mel]({one['mel']})" in text
        wave, _ = soundfile.read(folder / "report" / one["wav"])
        assert wave.tobytes() in played
        assert (folder / "report" / one["mel"]).read_bytes() in shown_pictures
    assert (folder / "report" / "report_judges.png").is_file()


def test_the_table_of_the_report_has_the_figures_of_both_judges(
    finished: tuple[Path, GRPO, RunReport],
) -> None:
    folder, module, _ = finished
    text, page = ((folder / "report" / f"report.{kind}").read_text() for kind in ("md", "html"))
    results = [one["results"] for one in module.evaluations]
    table = metric_table(*results, ("step 0", "step 2"))
    assert table in text
    for name in ("CER", "held-out CER", "judge gap", "missing stop rate"):
        assert f"<td>{name} (%)</td>" in page
    assert f"<td>{100 * results[0]['digits']['cer']:.1f}</td>" in page
    assert f"<td>{100 * results[1]['digits']['held_out_cer']:.1f}</td>" in page
    for column in (
        "CER",
        "held-out CER",
        "gap",
        "sim",
        "tokens/unit",
        "no stop",
        "F0 Hz",
        "voiced",
        "duration",
    ):
        assert column in table.splitlines()[0]
    shown = re.split(r"\s{2,}", table.splitlines()[2])
    assert shown[:3] == ["digits", "step 0", f"{100 * results[0]['digits']['cer']:.1f}"]
    assert shown[3] == f"{100 * results[0]['digits']['held_out_cer']:.1f}"


def test_recordings_survive_a_checkpoint_and_lost_files(
    finished: tuple[Path, GRPO, RunReport], tmp_path: Path
) -> None:
    first = finished[2]
    again = RunReport()
    again.load_state_dict(json.loads(json.dumps(first.state_dict())))
    assert again.recordings.records == first.recordings.records
    elsewhere = again.recordings.of(("before", "after"), tmp_path / "audio", tmp_path / "report")
    assert [(one["wav"], one["mel"]) for one in elsewhere] == [("", "")] * 4
    page = page_of(elsewhere, tmp_path)
    assert "<audio" not in page
    assert elsewhere[0]["text"] in page
    old = {key: value for key, value in first.state_dict().items() if key != "recordings"}
    again.load_state_dict(old)
    assert again.recordings.records == []


def test_validate_and_test_have_recordings_of_their_own(
    finished: tuple[Path, GRPO, RunReport], root: str, tmp_path: Path
) -> None:
    before = {path: path.read_bytes() for path in (finished[0] / "audio").rglob("*.wav")}
    trainer = runs.trainer(finished[0], [RunReport(num_spoken=1)])
    trainer.test(finished[1], speech.speech_data(root), verbose=False)
    report = json.loads((finished[0] / "report" / "test.json").read_text())
    assert [(one["stage"], one["wav"]) for one in report["recordings"]] == [
        ("test", "../audio/digits/00_test.wav")
    ]
    assert (finished[0] / "report" / "test.html").is_file()
    assert {path: path.read_bytes() for path in before} == before


def test_a_policy_that_writes_leaves_no_sound(root: str, tmp_path: Path) -> None:
    """Neither files nor columns; its page plays what it has transcribed, and its table is as it was."""
    logger = TensorBoardLogger(tmp_path, name="", version="")
    runs.fit(
        tmp_path, root, RunReport(), SampleLogger(1), module=runs.grpo(num_steps=1), logger=logger
    )
    assert not (tmp_path / "audio").exists()
    assert "What is heard" not in (tmp_path / "report" / "report.html").read_text()
    report = json.loads((tmp_path / "report" / "report.json").read_text())
    assert (report["recordings"], report["judges"]) == ([], {})
    tags = events(tmp_path).Tags()
    assert tags["images"] == []
    clips = sounds(events(tmp_path))
    assert {tag.split("/")[0] for tag in clips} == {"groups", "val"}
    assert not [tag for tag in clips if tag.endswith(("best", "worst"))]


# --- the pieces


def test_what_no_judge_heard_is_said() -> None:
    """One judge hears nothing in the first sample, and fails on the second."""
    samples = [
        [said("one", value=heard(0))],
        [said("two", value=heard(1), num_codes=3, finished=False, id="b")],
    ]
    panel = JudgePanel()
    for judge in (FakeJudge(["", None]), FakeJudge(["won", "too"], "other"), FakeEncoder()):
        panel.ask(judge, [group[0] for group in samples])
    header, _, first, second = transcript_table(panel.with_transcripts(samples)).splitlines()
    assert header == "| id | text | heard by fake | heard by other | seconds | tokens |"
    assert first == "| row | one | (nothing) | won | 0.40 | 11 |"
    assert second == "| b | two | (failed) | too | 0.12 | 3 (cut) |"


def test_best_and_worst_with_what_was_heard() -> None:
    group = [said("one", value=heard(number)) for number in range(2)]
    panel = JudgePanel()
    panel.ask(FakeJudge(["one", "oh"]), group)
    (group,) = panel.with_transcripts([group])
    total = torch.tensor([[0.5, -0.25]])
    table = spoken_group_table(
        [group], Scores(total, total > -9, {"accuracy": 2 * total}), [(0, 0, 1)]
    )
    assert table.splitlines()[2:] == [
        "| row | one | best | one | 0.500 | 1.000 | 0.40 | 11 |",
        "| row | one | worst | oh | -0.250 | -0.500 | 0.40 | 11 |",
    ]


def test_a_wav_file_is_the_sample_within_full_scale(tmp_path: Path) -> None:
    wave = torch.tensor([0.5, -2.0, 3.0, 0.25])
    write_wav(tmp_path / "new" / "a.wav", Speech(wave, RATE_HZ, torch.zeros(1)))
    samples, rate_hz = soundfile.read(tmp_path / "new" / "a.wav")
    assert rate_hz == RATE_HZ
    assert samples == pytest.approx([0.5, -1.0, 1.0, 0.25], abs=1e-4)
    write_wav(tmp_path / "empty.wav", Speech(torch.zeros(0), RATE_HZ, torch.zeros(0)))
    assert len(soundfile.read(tmp_path / "empty.wav")[0]) == 0
    assert audible(wave, RATE_HZ, 2 / RATE_HZ).tolist() == [0.5, -1.0]


@pytest.mark.parametrize("hz", [300.0, 1000.0, 3000.0])
def test_a_tone_is_where_the_picture_says(hz: float) -> None:
    """Its band is the one at which the axis, on the mel scale, has its frequency."""
    time_s = torch.arange(4000) / RATE_HZ
    decibels = mel_db(torch.sin(2 * torch.pi * hz * time_s), RATE_HZ)
    assert decibels.shape == (64, 51)
    assert decibels.max() - decibels.min() <= 80.001
    speech_of_tone = Speech(torch.sin(2 * torch.pi * hz * time_s), RATE_HZ, torch.zeros(0))
    axis = mel_figure(speech_of_tone).axes[0]
    ticks = {
        float(label.get_text()): place
        for place, label in zip(axis.get_yticks(), axis.get_yticklabels(), strict=False)
    }
    loudest = float(decibels[:, 25].argmax()) + 0.5
    below, above = max(f for f in ticks if f <= hz), min(f for f in ticks if f >= hz)
    assert ticks[below] - 1.5 <= loudest <= ticks[above] + 1.5
    pixels = picture(mel_figure(speech_of_tone))
    assert pixels.shape[2] == 3
    assert pixels.std() > 10


def test_silent_samples_have_a_file_and_no_picture(tmp_path: Path) -> None:
    recordings = Recordings(2)
    groups = {
        "a/b": [[said("one", num_codes=0)], [said("two", waveform=tone(150.0), id="b")]],
        "text": [],
    }
    recordings.keep(groups, tmp_path, "before", 0)
    recordings.keep(groups, tmp_path, "before", 0)
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.*")) == [
        "a_b/00_before.wav",
        "a_b/01_before.png",
        "a_b/01_before.wav",
    ]
    assert [one["mel"] for one in recordings.records] == ["", "a_b/01_before.png"]


# --- metrics of speech


COLUMNS = columns_of({"all": {"missing_stop_rate": 0.5}})
HALVES = dict.fromkeys([column.name for column in COLUMNS], 0.5)
START = {"all": HALVES | {"f0_mean_hz": 120.0, "tokens_per_unit": 10.0, "similarity": 0.9}}
END = {
    "all": START["all"]
    | {"cer": 0.44, "f0_mean_hz": 126.0, "tokens_per_unit": 9.5, "similarity": math.nan}
}


def test_speech_has_columns_and_a_line_of_changes() -> None:
    header, _, *lines = metric_table(START, END, ("step 0", "step 9")).splitlines()
    titles = [column.title for column in COLUMNS]
    assert re.split(r"\s{2,}", header) == ["set", *titles]
    first, second, changes = (re.split(r"\s{2,}", line.strip()) for line in lines)
    assert first == [
        "all",
        "step 0",
        "50.0",
        "50.0",
        "50.0",
        "0.900",
        "0.500",
        "10.0",
        "50.0",
        "120",
        "50.0",
        "0.50",
    ]
    assert second == [
        "step 9",
        "44.0",
        "50.0",
        "50.0",
        "-",
        "0.500",
        "9.5",
        "50.0",
        "126",
        "50.0",
        "0.50",
    ]
    assert changes == [
        "change",
        "-6.0",
        "+0.0",
        "+0.0",
        "-",
        "+0.000",
        "-5.0 %",
        "+0.0",
        "+5.0 %",
        "+0.0",
        "+0.0 %",
    ]
    assert "change" not in metric_table(START)
    assert "change" not in metric_table({"a": {"wer": 0.5}}, {"a": {"wer": 0.4}})


def series(**values: list[float]) -> dict[str, list[float]]:
    return {f"val/digits/{name}": list(numbers) for name, numbers in values.items()}


def test_drift_is_measured_from_the_start() -> None:
    history = series(
        f0_mean_hz=[100.0, 140.0, 109.0],
        duration_ratio=[1.0, 1.05, 0.85],
        tokens_per_unit=[8.0, 8.0, 8.9],
    )
    alerts = drift_alerts(history, 0.1)
    assert [alert.split()[0] for alert in alerts] == [
        "val/digits/duration_ratio",
        "val/digits/tokens_per_unit",
    ]
    assert (
        alerts[0] == "val/digits/duration_ratio drifted from 1 to 0.85 (-15 %): the pace is another"
    )
    assert len(drift_alerts(history, 0.05)) == 3
    unknown = series(
        f0_mean_hz=[math.nan, 100.0, 150.0],
        duration_ratio=[1.0, 9.0, math.nan],
        tokens_per_unit=[0.0, 1.0],
    )
    assert [alert.split()[0] for alert in drift_alerts(unknown)] == ["val/digits/f0_mean_hz"]
    assert drift_alerts(series(wer=[0.1, 0.9], length_ratio=[1.0, 3.0])) == []


def watched(watch: HackingWatch, results: list[dict[str, float]]) -> list[dict[str, Any]]:
    """What a watch says of these evaluations; the reward stands still."""
    from types import SimpleNamespace

    trainer: Any = SimpleNamespace(state=SimpleNamespace(fn="fit"), loggers=[], is_global_zero=True)
    module = runs.view(step_metrics={"reward/mean": 0.5})
    for metrics in results:
        module.evaluations.append(
            {"rl_step": module.rl_step, "kind": "val", "results": {"digits": metrics}}
        )
        watch.on_validation_end(trainer, module)
        module.rl_step += 1
        watch.on_train_batch_end(trainer, module)
    return watch.alerts


def test_the_watch_says_when_a_gap_opens_or_speech_drifts() -> None:
    steps = [
        {"judge_gap": 0.02, "similarity_gap": 0.1, "f0_mean_hz": 120.0},
        {"judge_gap": 0.06, "similarity_gap": 0.1, "f0_mean_hz": 121.0},
        {"judge_gap": 0.09, "similarity_gap": 0.2, "f0_mean_hz": 150.0},
    ]
    alerts = watched(HackingWatch(), steps)
    assert [alert["rl_step"] for alert in alerts] == [2, 2, 2]
    assert [alert["text"].split()[0].split("/")[2] for alert in alerts] == [
        "judge_gap",
        "similarity_gap",
        "f0_mean_hz",
    ]
    assert watched(HackingWatch(gap_tolerance=0.2, drift_tolerance=0.5), steps) == []
    assert len(watched(HackingWatch(gap_tolerance=0.03, drift_tolerance=0.5), steps)) == 3
    assert watched(HackingWatch(), [{"length_ratio": 1.0}, {"length_ratio": 1.5}]) == []


@pytest.mark.parametrize(
    "make",
    [
        lambda: HackingWatch(gap_tolerance=-1),
        lambda: SampleLogger(num_spoken=-1),
        lambda: RunReport(num_spoken=-1),
    ],
)
def test_negative_settings_are_refused(make: Any) -> None:
    with pytest.raises(ValueError, match=r"negative|at least 0"):
        make()
