"""``audiorl predict``: what it writes, that nothing disturbs it, and what it refuses."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from jsonargparse import ArgumentParser

from lightning_audiorl import cli
from lightning_audiorl.callbacks.prediction_progress import PredictionProgress
from lightning_audiorl.commands.predict import predict
from lightning_audiorl.data import NonSpeech, RowSource
from lightning_audiorl.data.corpora.fsdd import FsddDigits
from lightning_audiorl.data.hypotheses.reader import (
    HypothesisError,
    HypothesisFiles,
    Predicted,
    read_hypotheses,
    row_fingerprint,
)
from lightning_audiorl.engine.evaluator import EvalDecoding
from lightning_audiorl.engine.predict_module import Prediction
from lightning_audiorl.models import FunAsrNanoPolicy, TinyFunAsrNano
from lightning_audiorl.models.policy import SampleKey
from lightning_audiorl.text import DEFAULT_RULES, count_errors, normaliser_for
from lightning_audiorl.types import Decoding, Utterance
from tests.command import class_of, write_manifest
from tests.data.fakes import fake_fsdd

ROOT = Path(__file__).parents[1]
TINY = TinyFunAsrNano(width=32, encoder_layers=1, lm_layers=1, heads=2)
DECODINGS = {
    "greedy": EvalDecoding(Decoding(temperature=0.0, max_new_tokens=6)),
    "sampled": EvalDecoding(Decoding(temperature=1.0, max_new_tokens=9), 3),
}
#: Log-probs have four decimals; other batches give other last bits.
ROUNDING = 2e-4


class Listed(RowSource):
    """Rows of a list."""

    def __init__(self, rows: Sequence[Utterance]) -> None:
        self.rows = list(rows)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Utterance:  # type: ignore[override]
        return self.rows[index]


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Listed:
    """Nine rows of different lengths: digits, and two without speech."""
    digits = FsddDigits(
        fake_fsdd(tmp_path_factory.mktemp("fsdd")), "dev", num_words=(1, 4), num_rows=7
    )
    return Listed([*digits, *NonSpeech(2, min_s=0.2, max_s=0.5)])


def policy(seed: int = 0) -> FunAsrNanoPolicy:
    return FunAsrNanoPolicy(replace(TINY, seed=seed))


def run(out: Path, rows: RowSource | str, **settings: Any) -> list[Predicted]:
    """Predict with one tiny model unless told otherwise; the lines, which took no time."""
    trainer = {"accelerator": "cpu", "enable_progress_bar": False} | settings.pop("trainer", {})
    settings = {"models": {"base": policy()}, "decodings": DECODINGS} | settings
    predict(rows=rows, out=str(out), trainer=trainer, **settings)
    return timeless(out)


def timeless(out: Path) -> list[Predicted]:
    return [replace(line, seconds=0.0) for line in read_hypotheses(out)]


@pytest.fixture(scope="module")
def whole(rows: Listed, tmp_path_factory: pytest.TempPathFactory) -> list[Predicted]:
    """The lines of an undisturbed run in batches of two or three rows."""
    return run(tmp_path_factory.mktemp("whole") / "h.jsonl", rows, max_batch_size=3)


def assert_same(lines: list[Predicted], expected: list[Predicted]) -> None:
    """The same but for the rounding of log-probs."""
    assert len(lines) == len(expected)
    for one, other in zip(lines, expected, strict=True):
        for sample, wanted in zip(one.samples, other.samples, strict=True):
            assert sample.log_prob == pytest.approx(wanted.log_prob, abs=ROUNDING)
            assert replace(sample, log_prob=0.0) == replace(wanted, log_prob=0.0)
        assert replace(one, samples=()) == replace(other, samples=())


# --- what a line says


def test_lines_stand_in_the_order_of_rows(whole: list[Predicted], rows: Listed) -> None:
    assert [(line.id, line.reference, line.fingerprint) for line in whole] == [
        (row.id, row.text, row_fingerprint(row)) for row in rows
    ]
    labels = [("greedy", 0), ("sampled", 0), ("sampled", 1), ("sampled", 2)]
    assert {tuple((s.decoding, s.sample) for s in line.samples) for line in whole} == {
        tuple(labels)
    }
    assert len({s.text for line in whole for s in line.samples}) > 10


def test_log_probs_are_sums_over_kept_tokens(whole: list[Predicted], rows: Listed) -> None:
    """Decoded one by one here, with log-probs of the update's road, not the sampler's."""
    from lightning_audiorl.data import AsrDataModule

    model, data = policy().eval(), AsrDataModule()
    assert {s.finished for line in whole for s in line.samples} == {True, False}
    for line, row in zip(whole, rows, strict=True):
        context = model.encode(data.load([row]))
        decoding = DECODINGS["sampled"].decoding
        rollout = model.sample(context, 3, decoding, SampleKey(0, 0, "predict/sampled"))
        with torch.no_grad():
            scores = torch.log_softmax(model.head(model.hidden(context, rollout)), -1).reshape(
                3, rollout.tokens.shape[2], -1
            )
        for g, sample in enumerate(s for s in line.samples if s.decoding == "sampled"):
            num_tokens = int(rollout.keep[0, g].sum())
            tokens = rollout.tokens[0, g].tolist()
            naive = sum(float(scores[g, t, tokens[t]]) for t in range(num_tokens))
            assert sample.log_prob == pytest.approx(naive, abs=1e-3)
            assert (sample.num_tokens, sample.text) == (
                num_tokens,
                model.decode(rollout, context)[0][g],
            )
            assert sample.finished == bool(rollout.finished[0, g])


def test_errors_and_rules_are_those_of_the_text(whole: list[Predicted], rows: Listed) -> None:
    english = normaliser_for("en")
    for line, row in zip(whole, rows, strict=True):
        for sample in line.samples:
            assert sample.errors == count_errors(row.text, english.normalise(sample.text))
            fires = [
                r.name
                for r in DEFAULT_RULES
                if r.fires(row.text.split(), english.units(sample.text))
            ]
            assert list(sample.rules) == fires
    fired = {rule for line in whole for sample in line.samples for rule in sample.rules}
    assert "text_for_silence" in fired
    assert len(fired) > 1


def test_an_empty_reference_has_insertions_only(whole: list[Predicted]) -> None:
    silent = [sample for line in whole if line.reference == "" for sample in line.samples]
    assert len(silent) == 8
    assert all(
        s.errors.reference_length == 0 and s.errors.errors == len(s.text.split()) for s in silent
    )
    assert any(s.errors.insertions for s in silent)


def test_keywords_of_the_command_and_of_the_row(tmp_path: Path, rows: Listed) -> None:
    row = replace(rows[0], text="one two one", keywords=("two",), lang="en")
    both = run(
        tmp_path / "h.jsonl", Listed([row, replace(row, id="b", keywords=())]), keywords=["one"]
    )
    assert [line.samples[0].keywords.in_reference for line in both] == [3, 2]
    for sample, words in ((both[0].samples[1], ("one", "two")), (both[1].samples[1], ("one",))):
        assert sample.keywords.in_hypothesis == sum(
            sample.text.split().count(word) for word in words
        )


def test_errors_are_counted_in_the_unit_of_the_language(tmp_path: Path, rows: Listed) -> None:
    chinese = replace(rows[0], text="三七二", lang="zh")
    line = run(tmp_path / "h.jsonl", Listed([chinese]))[0]
    assert line.samples[0].errors.reference_length == 3
    assert line.samples[0].errors.hypothesis_length == len(line.samples[0].text.replace(" ", ""))


def test_seconds_add_up_to_those_of_the_run(tmp_path: Path, rows: Listed) -> None:
    import time

    start = time.perf_counter()
    run(tmp_path / "h.jsonl", rows)
    wall_s = time.perf_counter() - start
    lines = list(read_hypotheses(tmp_path / "h.jsonl"))
    assert 0 < sum(line.seconds for line in lines) < wall_s
    shares = [line.seconds / row.duration_s for line, row in zip(lines, rows, strict=True)]
    assert max(shares) == pytest.approx(
        min(shares), rel=0.1
    )  # one batch: seconds go by duration, to four decimals


def test_another_seed_draws_others_but_greedy(
    tmp_path: Path, rows: Listed, whole: list[Predicted]
) -> None:
    other = run(tmp_path / "h.jsonl", rows, seed=1)
    texts = [
        [[s.text for s in line.samples if s.decoding == how] for line in lines]
        for how in DECODINGS
        for lines in (whole, other)
    ]
    assert texts[0] == texts[1]
    assert texts[2] != texts[3]


def test_a_broken_model_is_named_by_its_row(tmp_path: Path, rows: Listed) -> None:
    broken = policy()
    with torch.no_grad():
        broken.output.weight.fill_(math.nan)
    with pytest.raises(
        ValueError,
        match=r"row 'fsdd-.*': sample 0 of decoding 'greedy' has log-prob nan; look at the model's",
    ):
        run(tmp_path / "h.jsonl", rows, models={"base": broken})


# --- nothing disturbs it


@pytest.mark.parametrize(
    "settings", [{"max_batch_size": 1}, {"max_batch_s": 0.6}, {"num_workers": 1}, {}], ids=str
)
def test_lines_do_not_depend_on_batches(
    settings: dict[str, Any], tmp_path: Path, rows: Listed, whole: list[Predicted]
) -> None:
    assert_same(run(tmp_path / "h.jsonl", rows, **settings), whole)


def test_lines_do_not_depend_on_placement(
    tmp_path: Path, rows: Listed, whole: list[Predicted]
) -> None:
    assert (
        run(tmp_path / "h.jsonl", rows, max_batch_size=3, trainer={"strategy": "phase_single"})
        == whole
    )


class Killed(Exception):
    """Stands for SIGKILL."""


def kill(
    out: Path, rows: Listed, num_batches: int, monkeypatch: pytest.MonkeyPatch, **settings: Any
) -> None:
    """A run in batches of three rows that dies after so many, over all models."""
    real, left = Prediction.predict_step, iter(range(num_batches))

    def step(self: Prediction, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> Any:
        if next(left, None) is None:
            raise Killed
        return real(self, batch, batch_idx, dataloader_idx)

    with monkeypatch.context() as patched:
        patched.setattr(Prediction, "predict_step", step)
        with pytest.raises(Killed):
            run(out, rows, max_batch_size=3, **settings)
    assert not out.exists()


@pytest.mark.parametrize("cut_bytes", [0, 1, 40, 2500])
def test_a_killed_run_goes_on(
    cut_bytes: int,
    tmp_path: Path,
    rows: Listed,
    whole: list[Predicted],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out = tmp_path / "h.jsonl"
    kill(out, rows, 2, monkeypatch)
    part = tmp_path / "h.jsonl.parts" / "0-0.jsonl"
    assert len(part.read_bytes().splitlines()) == 6
    os.truncate(part, part.stat().st_size - cut_bytes)
    num_kept = part.read_bytes().count(b"\n")
    model = policy()
    assert run(out, rows, max_batch_size=3, models={"base": model}) == whole
    num_batches = 1 + (num_kept < 6) + (num_kept < 3)
    assert num_kept == 6 if cut_bytes == 0 else num_kept < 6
    assert model.num_encoded == 3 * num_batches  # whole batches again, so that rounding is the same
    assert sorted(path.name for path in tmp_path.iterdir()) == ["h.jsonl", "h.jsonl.settings.json"]


def test_a_finished_run_decodes_nothing_again(tmp_path: Path, rows: Listed, capsys: Any) -> None:
    out = tmp_path / "h.jsonl"
    lines = run(out, rows)
    before = out.read_bytes()
    model = policy()
    capsys.readouterr()
    assert run(out, rows, models={"base": model}) == lines
    assert model.num_encoded == 0
    assert out.read_bytes() == before
    assert "rules fired (%)" in capsys.readouterr().out


def test_two_models(
    tmp_path: Path, rows: Listed, whole: list[Predicted], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed in the second one's work: the first one's is kept."""
    out = tmp_path / "h.jsonl"
    kill(out, rows, 4, monkeypatch, models={"base": policy(), "other": policy(1)})
    models = {"base": policy(), "other": policy(1)}
    lines = run(out, rows, max_batch_size=3, models=models)
    assert [model.num_encoded for model in models.values()] == [0, 6]
    assert [(line.id, line.model) for line in lines] == [
        (row.id, name) for row in rows for name in models
    ]
    assert lines[::2] == whole
    assert lines[1::2] != [replace(line, model="other") for line in whole]
    found = HypothesisFiles([str(out)])
    assert [len(found.of(row)) for row in rows] == [2] * len(rows)


def test_the_first_rows_alone(tmp_path: Path, rows: Listed, whole: list[Predicted]) -> None:
    assert_same(run(tmp_path / "h.jsonl", rows, limit_rows=4), whole[:4])
    assert_same(run(tmp_path / "all.jsonl", rows, limit_rows=100), whole)


@pytest.mark.timeout(900)
def test_two_processes_write_what_one_writes(tmp_path: Path) -> None:
    """Each its own rows, two models one after the other, joined by the first."""
    manifest = write_manifest(tmp_path)
    config = command_config(manifest, tmp_path / "two.jsonl")
    config["models"]["other"] = class_of("models.FunAsrNanoPolicy", init_from=tiny(seed=1))
    config["trainer"] |= {"devices": 2, "strategy": "phase_ddp"}
    (tmp_path / "two.yaml").write_text(yaml.safe_dump(config))
    environment = {
        k: v for k, v in os.environ.items() if k not in ("LOCAL_RANK", "MASTER_PORT", "MASTER_ADDR")
    }
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "lightning_audiorl",
            "predict",
            "--config",
            str(tmp_path / "two.yaml"),
        ],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert done.stdout.count("rules fired (%)") == 1
    models = {"base": policy(), "other": policy(1)}
    assert_same(
        timeless(tmp_path / "two.jsonl"), run(tmp_path / "one.jsonl", str(manifest), models=models)
    )


# --- what it refuses


def other_text(rows: Listed) -> Listed:
    return Listed([replace(rows[0], text="nine"), *rows.rows[1:]])


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"seed": 1}, "`seed` (0; now 1)"),
        ({"keywords": ["one"]}, "`keywords`"),
        ({"decodings": {"greedy": DECODINGS["greedy"]}}, "`decodings`"),
        ({"decodings": dict(reversed(DECODINGS.items()))}, "`decodings`"),
        ({"models": {"base": policy(3)}}, "`models`"),
        ({"models": {"another": policy()}}, "`models`"),
        ({"limit_rows": 3}, "`rows.number` (9; now 3)"),
        ({"rows": other_text}, "`rows.content`"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_other_settings_are_not_mixed(
    changes: dict[str, Any], named: str, rows: Listed, tmp_path: Path
) -> None:
    out = tmp_path / "h.jsonl"
    run(out, rows)
    before = files_of(tmp_path)
    with pytest.raises(HypothesisError) as refused:
        run(out, **with_rows(changes, rows))
    said = str(refused.value)
    assert f"{out} was begun with another {named}" in said
    assert said.endswith("give another `out`, or start afresh with `--overwrite true`")
    assert files_of(tmp_path) == before


def test_a_run_begun_with_other_settings_is_started_afresh_when_asked(
    rows: Listed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "h.jsonl"
    kill(out, rows, 1, monkeypatch)
    before = files_of(tmp_path)
    with pytest.raises(HypothesisError, match="`seed`"):
        run(out, rows, seed=1)
    assert files_of(tmp_path) == before
    assert run(out, rows, seed=1, overwrite=True) == run(tmp_path / "fresh.jsonl", rows, seed=1)


def with_rows(changes: dict[str, Any], rows: Listed) -> dict[str, Any]:
    return {"rows": rows} | {
        key: value(rows) if callable(value) else value for key, value in changes.items()
    }


def files_of(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_file_of_something_else_is_not_overwritten(
    tmp_path: Path, rows: Listed, whole: list[Predicted]
) -> None:
    out = tmp_path / "h.jsonl"
    out.write_text("mine\n")
    with pytest.raises(
        HypothesisError, match=r"h.jsonl: exists, but not .*h.jsonl.settings.json.*--overwrite true"
    ):
        run(out, rows)
    assert out.read_text() == "mine\n"
    assert_same(run(out, rows, overwrite=True), whole)


def test_rows_that_changed_since_are_refused(tmp_path: Path, rows: Listed) -> None:
    run(tmp_path / "h.jsonl", rows, limit_rows=2)
    found = HypothesisFiles([str(tmp_path / "h.jsonl")])
    assert found.of(rows[1])[0].id == rows[1].id
    with pytest.raises(
        HypothesisError, match=r"line 1, field `reference`: row '.*' had '.*' when it was decoded"
    ):
        found.of(other_text(rows)[0])
    with pytest.raises(HypothesisError, match=f"no hypotheses of row '{rows[2].id}'"):
        found.of(rows[2])


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"models": {}}, "`models` is empty"),
        ({"limit_rows": 0}, "limit_rows must be at least 1, got 0"),
        ({"rows": Listed([])}, "`rows` is empty"),
        ({"max_batch_s": 0.0}, "max_batch_s: want a number above 0"),
    ],
)
def test_bad_arguments(settings: dict[str, Any], said: str, rows: Listed, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=said):
        run(tmp_path / "h.jsonl", **({"rows": rows} | settings))


def test_ids_must_be_unique(rows: Listed, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="rows 1 and 3 have the same id"):
        run(tmp_path / "h.jsonl", Listed([rows[0], rows[1], rows[2], rows[1]]))


# --- the command


def tiny(**changes: Any) -> dict[str, Any]:
    return class_of(
        "models.TinyFunAsrNano", width=32, encoder_layers=1, lm_layers=1, heads=2, **changes
    )


def command_config(manifest: Path, out: Path) -> dict[str, Any]:
    return {
        "models": {"base": class_of("models.FunAsrNanoPolicy", init_from=tiny())},
        "rows": str(manifest),
        "out": str(out),
        "decodings": {
            "greedy": {"decoding": {"temperature": 0.0, "max_new_tokens": 6}},
            "sampled": {"decoding": {"temperature": 1.0, "max_new_tokens": 9}, "num_samples": 3},
        },
        "trainer": {"accelerator": "cpu"},
    }


def test_the_command_on_a_manifest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Progress, the file, and a table at its end."""
    manifest = write_manifest(tmp_path)
    with manifest.open("a") as file:
        file.write(
            json.dumps({"audio_filepath": "synthetic:white", "text": "", "duration": 0.3}) + "\n"
        )
    (tmp_path / "p.yaml").write_text(
        yaml.safe_dump(command_config(manifest, tmp_path / "runs" / "h.jsonl"))
    )
    cli.main(["predict", "--config", str(tmp_path / "p.yaml"), "--max_batch_size", "2"])
    lines = list(read_hypotheses(tmp_path / "runs" / "h.jsonl"))
    assert [line.reference for line in lines[-2:]] == ["zero one two", ""]
    shown = capsys.readouterr().out.splitlines()
    progress = [line for line in shown if line.startswith("base: ")]
    assert [line[: line.index("]") + 1] for line in progress] == [
        "base: 2/7 rows [=====               ]",
        "base: 4/7 rows [===========         ]",
        "base: 6/7 rows [=================   ]",
        "base: 7/7 rows [====================]",
    ]
    assert progress[-1].endswith(" 0 s left")
    assert shown[-5] == f"{tmp_path / 'runs' / 'h.jsonl'}: 7 rows, models: base"
    table = [line.split() for line in shown[-2:]]
    greedy = [s for line in lines for s in line.samples if s.decoding == "greedy"]
    rate = sum(s.errors.errors for s in greedy) / sum(s.errors.reference_length for s in greedy)
    share = sum(bool(s.rules) for s in greedy) / len(greedy)
    assert table[0][:-1] == ["base", "greedy", "7", "7", f"{100 * rate:.1f}", f"{100 * share:.1f}"]
    assert table[1][:4] == ["base", "sampled", "7", "21"]
    assert float(table[0][-1]) == pytest.approx(sum(line.seconds for line in lines), abs=0.01)


def test_progress_names_the_phase(
    tmp_path: Path, rows: Listed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a terminal shows it while a batch is decoded."""
    seen: list[str] = []
    real = FunAsrNanoPolicy.encode

    def encode(self: FunAsrNanoPolicy, batch: Any) -> Any:
        seen.append(bars[-1].line())
        return real(self, batch)

    bars: list[PredictionProgress] = []
    begin = PredictionProgress.on_predict_start

    def start(self: PredictionProgress, *arguments: Any) -> None:
        bars.append(self)
        begin(self, *arguments)

    monkeypatch.setattr(PredictionProgress, "on_predict_start", start)
    monkeypatch.setattr(FunAsrNanoPolicy, "encode", encode)
    run(tmp_path / "h.jsonl", rows, max_batch_size=5, trainer={"enable_progress_bar": True})
    assert seen[0] == "base: 0/9 rows [                    ]  encode"
    assert seen[1].startswith("base: 5/9 rows [===========         ]  encode  ")
    assert seen[1].endswith(" s left")


@pytest.mark.parametrize("path", ["configs/fsdd/predict.yaml", "configs/espeak/predict.yaml"])
def test_shipped_configs_parse(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert f"audiorl predict --config {path}" in Path(path).read_text()
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--config", action="config")
    parser.add_function_arguments(predict)
    parsed = parser.parse_args(["--config", path])
    assert parsed.rows.class_path.startswith("lightning_audiorl.")
    assert parsed.decodings["greedy"].decoding.temperature == 0
    assert parsed.decodings["sampled"].num_samples > 1
