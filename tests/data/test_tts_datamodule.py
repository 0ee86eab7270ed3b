"""Batches of speech synthesis: prompts and recordings side by side, resume, refill, RL mixes, and bad input."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from lightning.pytorch.cli import LightningCLI

from lightning_audiorl.data import (
    AudioError,
    Augment,
    Filters,
    FsddDigits,
    FsddSpeech,
    HardTexts,
    JoinedRows,
    PassRate,
    PromptDuration,
    RLSubset,
    RowSource,
    Similar,
    Stops,
    Subset,
    TextCharset,
    TextLength,
    Texts,
    TextSpeech,
    TtsDataModule,
    TtsRLDataModule,
    read_audio,
)
from lightning_audiorl.data.hypotheses.reader import Predicted, row_fingerprint, to_line
from lightning_audiorl.data.manifest.targets import target_segments
from lightning_audiorl.data.mix.selection import RandomControl
from lightning_audiorl.types import PromptBatch, Segment, Utterance
from tests.data.fakes import write_tone
from tests.data.test_datamodule import Recorder, assert_same_batches, trainer
from tests.data.test_speech_filters import sample
from tests.helpers import assert_close

LETTERS = "abcdefghijklmnopqrstuvwxyz "


class Listed(RowSource):
    """Rows given one by one."""

    def __init__(self, *rows: Utterance) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Utterance:  # type: ignore[override]
        return self.rows[index]


def module(root: str, **settings: Any) -> TtsDataModule:
    settings = {
        "train": [
            Subset(FsddSpeech(root, num_rows=30), 0.5),
            Subset(FsddSpeech(root, num_rows=20, seed=1, with_target=False), 0.25),
            Subset(FsddSpeech(root, num_rows=20, seed=2, prompt_words=None), 0.25),
        ],
        "val": {
            "digits": FsddSpeech(root, "dev", num_rows=7),
            "texts": FsddSpeech(root, "dev", with_target=False, num_rows=3),
        },
        "batch_size": 8,
        "prompt_s": (0.1, 30.0),
    } | settings
    return TtsDataModule(**settings)


def take(data: TtsDataModule, num: int) -> list[PromptBatch]:
    return list(islice(data.train_dataloader(), num))


def test_a_batch_holds_prompts_and_recordings(root: str) -> None:
    (batch,) = take(module(root), 1)
    assert batch.target_waveform is not None
    assert batch.target_num_samples is not None
    kinds = Counter(row.id.split("@")[1] for row in batch.rows)
    assert kinds == {"0.0": 4, "1.0": 2, "2.0": 2}
    for number, row in enumerate(batch.rows):
        for wave, num_samples, segments in (
            (batch.waveform[number], int(batch.num_samples[number]), row.segments),
            (
                batch.target_waveform[number],
                int(batch.target_num_samples[number]),
                target_segments(row),
            ),
        ):
            assert (num_samples == 0) == (segments == ())
            assert float(wave[num_samples:].abs().sum()) == 0.0
            if segments:
                alone = read_audio(replace(row, segments=segments), 16000)
                assert_close(wave[:num_samples], alone, "exact")
    without = [
        row.id.split("@")[1]
        for row, num in zip(batch.rows, batch.num_samples.tolist(), strict=True)
        if not num
    ]
    assert without == ["2.0", "2.0"]
    bare = [row for row in batch.rows if not target_segments(row)]
    assert {row.id.split("@")[1] for row in bare} == {"1.0"}
    part = batch.select([number for number, row in enumerate(batch.rows) if row in bare])
    assert part.target_num_samples is not None
    assert part.target_num_samples.tolist() == [0, 0]


def test_without_recordings_or_prompts_there_are_none(root: str) -> None:
    data = module(
        root, train=[Subset(FsddSpeech(root, num_rows=9, with_target=False, prompt_words=None))]
    )
    (batch,) = take(data, 1)
    assert batch.target_waveform is None
    assert batch.waveform.shape == (8, 0)
    assert batch.num_samples.tolist() == [0] * 8
    assert all(row.duration_s > 0 for row in batch.rows)


@pytest.mark.parametrize("settings", [{}, {"pool": 3}, {"num_workers": 2}])
def test_training_goes_on_from_next_step(root: str, settings: dict[str, Any]) -> None:
    whole = (
        take(module(root), 5) if "num_workers" in settings else take(module(root, **settings), 5)
    )
    data = module(root, **settings)
    data.load_state_dict({"next_step": 3})
    rest = take(data, 2)
    assert_same_batches(rest, whole[3:])
    for one, other in zip(rest, whole[3:], strict=True):
        assert one.target_waveform is not None
        assert other.target_waveform is not None
        assert_close(one.target_waveform, other.target_waveform, "exact")


def test_a_resumed_lightning_run_sees_the_same_batches(root: str, tmp_path: Path) -> None:
    whole, resumed = Recorder(), Recorder()
    trainer(tmp_path, 5, []).fit(whole, module(root))
    data = module(root)
    data.load_state_dict({"next_step": 3})
    trainer(tmp_path, 2, []).fit(resumed, data)
    assert resumed.trained == whole.trained[3:]
    assert whole.validated[:2] == [(0, 7), (1, 3)]


def test_ranks_and_refills(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (whole,), refill = take(module(root), 1), module(root).refill(2, 1, 6)
    assert refill.target_waveform is not None
    assert {row_id.split("@")[1] for row_id in refill.ids} == {"0.r2.1", "1.r2.1", "2.r2.1"}
    parts, refills = [], []
    for rank in range(2):
        monkeypatch.setattr(
            "lightning_audiorl.data.datamodules.asr._rank_and_size", lambda rank=rank: (rank, 2)
        )
        parts += take(module(root), 1)
        refills.append(module(root).refill(2, 1, 3))
    assert parts[0].ids + parts[1].ids == whole.ids
    assert refills[0].ids + refills[1].ids == refill.ids


def test_evaluation_sets_have_prompts_and_optional_recordings(root: str) -> None:
    data = module(root)
    assert data.val_names == ["digits", "texts"]
    digits, texts = (list(loader) for loader in data.val_dataloader())
    assert sum(len(batch) for batch in digits) == 7
    assert all(bool((batch.num_samples > 0).all()) for batch in (*digits, *texts))
    assert all(batch.target_num_samples is not None for batch in digits)
    assert all(batch.target_waveform is None for batch in texts)
    assert digits[0].ids[0].startswith("tts-fsdd-dev")


def prompted(
    path: Path, seconds: float, row_id: str = "r", text: str = "one two", **fields: Any
) -> Utterance:
    return Utterance(row_id, (Segment(str(path), seconds),), text, 1.0, **fields)


def test_bad_rows_are_named_with_their_files(root: str, tmp_path: Path) -> None:
    data = module(root, prompt_s=(0.3, 2.0), charset=LETTERS)
    path = write_tone(tmp_path / "p.wav", 3.0)
    assert data.load([prompted(path, 1.0)]).num_samples.tolist() == [16000]
    with pytest.raises(
        AudioError, match=r"row 'r': speaker prompt .*p\.wav is 0\.20 s long, want 0\.3 to 2 s"
    ):
        data.load([prompted(path, 0.2)])
    with pytest.raises(AudioError, match=r"row 'r': speaker prompt .*p\.wav is 2\.50 s long"):
        data.load([prompted(path, 2.5)])
    with pytest.raises(AudioError, match="row 'r': speaker prompt synthetic:silence is silent"):
        data.load([Utterance("r", (Segment("synthetic:silence", 1.0),), "one", 1.0)])
    with pytest.raises(AudioError, match=r"row 'r': .*gone\.wav: no such file"):
        data.load(
            [
                prompted(
                    path, 1.0, extra={"target": [{"audio_filepath": str(tmp_path / "gone.wav")}]}
                )
            ]
        )
    with pytest.raises(ValueError, match=r"row 'r', field `target`: expected a list of segments"):
        data.load([prompted(path, 1.0, extra={"target": "gone.wav"})])
    with pytest.raises(
        ValueError,
        match=r"row 'r': text 'one 2' has '2' \(U\+0032, DIGIT TWO\) at place 5, outside",
    ):
        data.load([prompted(path, 1.0, text="one 2")])
    with pytest.raises(ValueError, match=r"TtsDataModule\.augment: .*leave it out"):
        module(root, augment=Augment())
    with pytest.raises(ValueError, match=r"lasts 1\.00 s, more than max_duration_s=0\.5"):
        module(root, val={"r": Listed(prompted(path, 1.0))}, max_duration_s=0.5).val_dataloader()


def test_manifest_paths_are_read_as_speech(root: str, tmp_path: Path) -> None:
    write_tone(tmp_path / "p.wav", 0.5)
    line = '{"text": "hello", "audio_filepath": "p.wav", "prompt_text": "bye", "target": {"audio_filepath": "p.wav"}}'
    (tmp_path / "m.jsonl").write_text(line + "\n" + line + "\n")
    data = TtsDataModule(
        train=str(tmp_path / "m.jsonl"), val={"m": str(tmp_path / "m.jsonl")}, batch_size=2
    )
    for batch in (*take(data, 1), *data.val_dataloader()[0]):
        assert batch.num_samples.tolist() == [8000, 8000]
        assert batch.target_num_samples is not None
        assert batch.target_num_samples.tolist() == [8000, 8000]


# The training mix of RL


def rl_module(folder: Path, subsets: dict[str, RLSubset], **settings: Any) -> TtsRLDataModule:
    cache = {"cache_dir": str(folder / "mixes"), "content_cache": str(folder / "content.sqlite")}
    return TtsRLDataModule(
        subsets, **(cache | {"batch_size": 6, "prompt_s": (0.1, 30.0)} | settings)
    )


def removed(data: TtsRLDataModule, name: str) -> dict[str, int]:
    found: dict[str, int] = data.summary["subsets"][name]["removed"]
    return found


def test_texts_times_prompts_by_rules(root: str, tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text("one two\nthree\nf4ur five\nsix seven eight\n" + "nine " * 30)
    prompts = FsddDigits(root, num_words=(1, 6), num_rows=60)
    source = TextSpeech(Texts(str(tmp_path / "t.txt")), prompts, prompts_per_text=6)
    rules = Filters(
        [TextCharset(LETTERS), TextLength(min_words=2, max_words=10), PromptDuration(0.5, 30.0)]
    )
    subsets = {
        "chosen": RLSubset(source, rules),
        "hard": RLSubset(TextSpeech(HardTexts(num_rows=9), prompts)),
        "bare": RLSubset(HardTexts(num_rows=9, seed=1)),
    }
    data = rl_module(tmp_path, subsets)
    data.prepare_data()
    (batch,) = take(data, 1)
    assert Counter(row.extra["subset"] for row in batch.rows) == {"chosen": 2, "hard": 2, "bare": 2}
    assert batch.target_waveform is None
    for row, num_samples in zip(batch.rows, batch.num_samples.tolist(), strict=True):
        assert (num_samples == 0) == (row.extra["subset"] == "bare")
    kept = list(data.rows("train/chosen"))
    assert {row.text for row in kept} <= {"one two", "six seven eight"}
    short = removed(data, "chosen").pop("prompt shorter than 0.5 s")
    assert removed(data, "chosen") | {"prompt shorter than 0.5 s": 0} == {
        "text has a character outside the charset": 6,
        "text of fewer than 2 words": 6,
        "text of more than 10 words": 6,
        "prompt shorter than 0.5 s": 0,
    }
    assert short > 0
    assert len(kept) == 12 - short
    assert (
        "text of 2 words; prompt of" in kept[0].extra["chosen_because"]
        or "text of 3" in kept[0].extra["chosen_because"]
    )
    written = {row.id: row for row in source}
    for row in kept:
        assert row.segments == written[row.id].segments
        assert row.duration_s == written[row.id].duration_s
        assert row.extra["prompt_text"] == written[row.id].extra["prompt_text"]


def test_a_mix_is_built_once_and_again_when_texts_change(root: str, tmp_path: Path) -> None:
    prompts = FsddDigits(root, num_words=(2, 4), num_rows=20)
    (tmp_path / "t.txt").write_text("one two\nthree four\n")

    def folder() -> Path:
        data = rl_module(
            tmp_path,
            {"a": RLSubset(TextSpeech(Texts(str(tmp_path / "t.txt")), prompts), TextLength())},
        )
        data.prepare_data()
        return data.folder

    first = folder()
    made = (first / "summary.json").stat().st_mtime_ns
    assert folder() == first
    assert (first / "summary.json").stat().st_mtime_ns == made
    (tmp_path / "t.txt").write_text("one two\nthree five\n")
    assert folder() != first


def test_no_prompt_and_no_recording_of_an_evaluation_row_enters(root: str, tmp_path: Path) -> None:
    paths = [
        write_tone(tmp_path / f"{name}.wav", 0.5, hz=200.0 + 50 * i)
        for i, name in enumerate("abcdef")
    ]
    a, b, c, d, e, f = (str(path) for path in paths)

    def row(row_id: str, prompt: str, target: str | None = None) -> Utterance:
        extra = {"prompt_text": "x"} | (
            {} if target is None else {"target": [{"audio_filepath": target, "duration": 0.5}]}
        )
        return Utterance(row_id, (Segment(prompt, 0.5),), "one", 1.0, extra=extra)

    train = Listed(row("prompt-prompt", a), row("target-target", e, b), row("prompt-target", b), row("clean", e, f),
                   row("target-prompt", e, c))  # fmt: skip
    held: dict[str, Any] = {
        "val": {"v": Listed(row("v1", a, b))},
        "test": {"t": Listed(row("t1", c, d))},
    }
    data = rl_module(tmp_path, {"mix": RLSubset(train)}, **held)
    data.prepare_data()
    assert [one.id for one in data.rows("train/mix")] == ["clean"]
    refused = data.summary["subsets"]["mix"]["refused_first"]
    assert len(refused) == 4
    assert sum("holds the audio of val/v row 'v1'" in why for why in refused) == 3
    assert sum("holds the audio of test/t row 't1'" in why for why in refused) == 1
    # A recording that changes makes the mix afresh.
    build = data.folder / "summary.json"
    made = build.stat().st_mtime_ns
    write_tone(Path(f), 0.5, hz=777.0)
    again = rl_module(tmp_path, {"mix": RLSubset(train)}, **held)
    again.prepare_data()
    assert again.folder == data.folder
    assert build.stat().st_mtime_ns != made


def test_rows_are_chosen_by_the_policys_own_samples(root: str, tmp_path: Path) -> None:
    rows = FsddSpeech(root, num_rows=6, num_words=(2, 3), with_target=False)
    judged = [
        [sample(0.0), sample(0.4)],
        [sample(0.0), sample(0.0)],
        [sample(0.9), sample(0.8)],
        [sample(0.0, similarity=0.2), sample(0.5, similarity=0.3)],
        [sample(0.0), sample(0.5, finished=False)],
        [sample(None), sample(None)],
    ]
    lines = [
        to_line(Predicted(row.id, "tts", row.text, row_fingerprint(row), tuple(samples), 0.1))
        for row, samples in zip(rows, judged, strict=True)
    ]
    (tmp_path / "h.jsonl").write_text("\n".join(lines) + "\n")
    rules = Filters([PassRate(max_cer=0.05), Similar(0.5), Stops()])
    with pytest.raises(ValueError, match=r"subset 'own': Filters judges by hypotheses"):
        rl_module(tmp_path, {"own": RLSubset(rows, rules)})
    subsets = {
        "own": RLSubset(rows, rules, hypotheses=[str(tmp_path / "h.jsonl")]),
        "control": RLSubset(rows, RandomControl(like="own", bin_s=100.0)),
    }
    data = rl_module(tmp_path, subsets)
    data.prepare_data()
    assert [row.id for row in data.rows("train/own")] == [rows[0].id]
    assert (
        data.rows("train/own")[0]
        .extra["chosen_because"]
        .startswith("1 of 2 samples pass; mean similarity 0.80")
    )
    assert removed(data, "own") == {
        "pass rate not below 1": 1,
        "pass rate not above 0": 1,
        "mean similarity below 0.5": 1,
        "more than 0 of the samples lack the stop token": 1,
        "the judge failed on every sample": 1,
    }
    assert len(data.rows("train/control")) == 1
    with pytest.raises(
        ValueError,
        match=r"subset 'own' \(Filters\) is empty: of 6 rows removed: 6 x mean similarity below 0\.95",
    ):
        rl_module(
            tmp_path, {"own": replace(subsets["own"], builder=Filters([Similar(0.95)]))}
        ).prepare_data()


YAML = """
subsets:
  texts:
    source:
      class_path: lightning_audiorl.data.TextSpeech
      init_args:
        texts:
          class_path: lightning_audiorl.data.HardTexts
          init_args: {{vocabulary: digits, num_rows: 40, kinds: [short, repeated]}}
        prompts:
          class_path: lightning_audiorl.data.FsddDigits
          init_args: {{root: {root}, num_words: [2, 4], num_rows: 50}}
    builder:
      class_path: lightning_audiorl.data.Filters
      init_args:
        rules:
        - {{class_path: lightning_audiorl.data.TextLength, init_args: {{max_words: 20}}}}
        - {{class_path: lightning_audiorl.data.PromptDuration, init_args: {{min_s: 0.2}}}}
    share: 0.75
  listed:
    source:
      class_path: lightning_audiorl.data.TextSpeech
      init_args: {{texts: {{class_path: lightning_audiorl.data.Texts, init_args: {{lines: [one two, three]}}}}}}
    share: 0.25
val:
  digits:
    class_path: lightning_audiorl.data.FsddSpeech
    init_args: {{root: {root}, part: dev, num_rows: 8, prompt_words: [2, 3]}}
prompt_s: [0.1, 20.0]
charset: abcdefghijklmnopqrstuvwxyz' '
"""


def test_the_cli_builds_it_from_yaml(root: str, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(
        yaml.safe_dump({"data": yaml.safe_load(YAML.format(root=root))})
    )
    args = ["--config", str(tmp_path / "config.yaml"), f"--data.cache_dir={tmp_path / 'mixes'}", "--data.batch_size=4",
            f"--data.content_cache={tmp_path / 'c.sqlite'}", "--data.seed=3"]  # fmt: skip
    data = LightningCLI(
        Recorder, TtsRLDataModule, run=False, save_config_callback=None, args=args
    ).datamodule
    assert (data.seed, data.batch_size, data.val_names, data.prompt_s) == (
        3,
        4,
        ["digits"],
        (0.1, 20.0),
    )
    data.prepare_data()
    (batch,) = take(data, 1)
    assert Counter(row.extra["subset"] for row in batch.rows) == {"texts": 3, "listed": 1}
    for wrong in ("--data.train=a.jsonl", "--data.prompts=a"):
        with pytest.raises(SystemExit):
            LightningCLI(Recorder, TtsRLDataModule, run=False, args=[*args, wrong])
    settings = {
        "train": [
            {
                "source": {
                    "class_path": "lightning_audiorl.data.FsddSpeech",
                    "init_args": {"root": root},
                }
            }
        ],
        "prompt_s": [0.1, 9.0],
    }
    (tmp_path / "sft.yaml").write_text(yaml.safe_dump({"data": settings}))
    plain = LightningCLI(Recorder, TtsDataModule, run=False, save_config_callback=None,
                         args=["--config", str(tmp_path / "sft.yaml")]).datamodule  # fmt: skip
    assert take(plain, 1)[0].target_waveform is not None


def test_joined_sources_stay_apart(root: str) -> None:
    rows = JoinedRows(
        [
            FsddSpeech(root, num_rows=5),
            TextSpeech(Texts(lines=["one"]), FsddDigits(root, num_rows=9)),
        ]
    )
    batch = module(root).load([rows[0], rows[5]])
    assert batch.target_num_samples is not None
    assert torch.equal(batch.target_num_samples > 0, torch.tensor([True, False]))
