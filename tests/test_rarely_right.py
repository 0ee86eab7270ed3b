"""Rows whose right answer is rarely sampled: docs/rarely_right.md as it is run, predictions, evaluations, subsets."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml

from lightning_audiorl.callbacks.report import report_text
from lightning_audiorl.callbacks.view import said_once
from lightning_audiorl.commands.predict import predict
from lightning_audiorl.data import Candidate, RarelyRight
from lightning_audiorl.data.hypotheses.rarely_right import rarely_right
from lightning_audiorl.data.hypotheses.schema import (
    HypothesisError,
    Predicted,
    Sample,
    parse_line,
    read_hypotheses,
    to_line,
)
from lightning_audiorl.engine import EvalDecoding
from lightning_audiorl.metrics import AsrEvaluation
from lightning_audiorl.models import WhisperPolicy
from lightning_audiorl.text import KeywordCounts, count_errors
from lightning_audiorl.types import Decoding, Utterance
from tests.command import class_of, parser, run, tiny_config, write_rows
from tests.data.fakes import write_tone
from tests.models.families import SPECS

PAGE = Path(__file__).parents[1] / "docs" / "rarely_right.md"
BLOCKS = re.findall(r"```yaml\n# fit: (.+?)\n(.+?)```", PAGE.read_text(), re.DOTALL)
TINY = {"width": 32, "encoder_layers": 1, "decoder_layers": 1, "heads": 2, "chunk_length_s": 1}


def merged(config: dict[str, Any], more: dict[str, Any]) -> dict[str, Any]:
    """One over the other, key by key."""
    out = dict(config)
    for key, value in more.items():
        inner = out.get(key)
        both = isinstance(inner, dict) and isinstance(value, dict)
        out[key] = merged(inner, value) if both else value
    return out


def whisper_config(folder: Path) -> dict[str, Any]:
    """Two steps of a tiny Whisper on clips of which half say nothing."""
    rows = []
    for number, text in enumerate(["one", "", "two three", ""]):
        write_tone(folder / f"{number}.wav", 0.3 + 0.1 * number, hz=200.0 + 100 * number)
        rows.append({"audio_filepath": f"{number}.wav", "text": text})
    manifest = str(write_rows(folder / "train.jsonl", rows))

    source = class_of("data.ManifestRows", allow_empty_text=True)
    source["init_args"]["path"] = manifest
    policy = class_of("models.WhisperPolicy", init_from=class_of("models.TinyWhisper", **TINY))
    config = tiny_config(folder, policy=policy)
    config["data"]["init_args"] |= {
        "batch_size": 4,
        "train": [{"source": source}],
        "val": {"tones": source},
    }
    return config


@pytest.mark.parametrize(("what", "block"), BLOCKS, ids=[what for what, _ in BLOCKS])
def test_the_settings_of_the_page_are_settings(what: str, block: str, tmp_path: Path) -> None:
    config = merged(tiny_config(tmp_path), yaml.safe_load(block))
    if config["data"]["class_path"] == "AsrRLDataModule":
        config["data"]["init_args"].pop("train")
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(config))
    assert parser().parse_args(["fit", "--config", str(path)])


def page(what: str) -> dict[str, Any]:
    """The block of the page that begins so."""
    found = [yaml.safe_load(block) for title, block in BLOCKS if title.startswith(what)]
    assert len(found) == 1
    return dict(found[0])


@pytest.mark.parametrize("what", ["on all rows", "from 0.5"])
def test_two_steps_on_clips_that_say_nothing(what: str, tmp_path: Path) -> None:
    config = merged(merged(whisper_config(tmp_path), page("at every step")), page(what))
    module = run(tmp_path, config).model

    metrics = module.step_metrics
    assert metrics["reference/texts" if what == "on all rows" else "sft/weight"] > 0
    assert 0 <= metrics["nothing_right_share"] <= 1
    # Those of the evaluation after the last step, by hand.
    found = module.evaluations[-1]["results"]["tones"]
    texts, by_hand = [], []
    (loader,) = module.trainer.datamodule.val_dataloader()
    for batch in loader:
        with torch.no_grad(), module.policy.evaluating():
            context = module.policy.encode(batch)
            targets = module.policy.targets(context, batch.texts)
            hidden = module.policy.hidden(context, targets)
            log_probs = module.policy.head(hidden).log_softmax(-1)
        for i, text in enumerate(batch.texts):
            of_row = log_probs[i].gather(-1, targets.tokens[i, 0, :, None])[:, 0]
            by_hand.append(float(of_row[targets.keep[i, 0]].sum()))
            texts.append(text)

    assert sorted(texts) == ["", "", "one", "two three"]
    empty = [math.exp(value) for text, value in zip(texts, by_hand, strict=True) if not text]
    assert found["reference_logprob"] == pytest.approx(sum(by_hand) / 4, abs=1e-3)
    assert found["empty_answer_probability"] == pytest.approx(sum(empty) / 2, rel=1e-3)


def test_an_evaluation_has_them_by_choice_alone() -> None:
    assert not AsrEvaluation().reference_logprob
    assert AsrEvaluation(reference_logprob=True).reference_logprob


# --- predictions


def sample(reference: str, text: str, number: int = 0, decoding: str = "sampled") -> Sample:
    errors = count_errors(reference, text, "word")
    return Sample(text, decoding, number, -1.0, 3, True, errors, (), KeywordCounts(0, 0, 0))


def line(
    reference: str, texts: list[str], log_prob: float | None = None, row_id: str = "a"
) -> Predicted:
    samples = tuple(sample(reference, text, i) for i, text in enumerate(texts))
    return Predicted(row_id, "base", reference, "0" * 16, samples, 0.1, log_prob)


def test_lines_hold_it_and_are_read_back() -> None:
    for one in (line("one", ["one"], -1.25), line("one", ["one"])):
        assert parse_line(to_line(one)) == one
    assert "reference_logprob" not in to_line(line("one", ["one"]))
    with pytest.raises(HypothesisError, match="`reference_logprob`: expected a number"):
        parse_line(to_line(line("one", ["one"], -1.25)).replace("-1.25", '"low"'))


def decode(out: Path, rows: Path, **settings: Any) -> list[Predicted]:
    policy = WhisperPolicy(replace(SPECS["whisper"], width=32))
    decodings = {"sampled": EvalDecoding(Decoding(max_new_tokens=4), 2)}
    trainer = {"accelerator": "cpu", "enable_progress_bar": False}
    predict({"base": policy}, str(rows), str(out), decodings, trainer=trainer, **settings)
    return list(read_hypotheses(out))


def test_predict_measures_and_warns(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whisper_config(tmp_path)
    manifest = tmp_path / "train.jsonl"
    lines = decode(tmp_path / "h.jsonl", manifest)
    assert all(one.reference_logprob is not None and one.reference_logprob < 0 for one in lines)
    said = capsys.readouterr().out
    assert "base, rows without text (2 rows): no right hypothesis in" in said
    assert "log-probability of the reference -" in said

    # A file that was begun without goes on without, and hypotheses are the same.
    without = decode(tmp_path / "w.jsonl", manifest, reference_logprob=False)
    assert [one.samples for one in without] == [one.samples for one in lines]
    assert all(one.reference_logprob is None for one in decode(tmp_path / "w.jsonl", manifest))
    with pytest.raises(HypothesisError, match="another `reference_logprob`"):
        decode(tmp_path / "w.jsonl", manifest, reference_logprob=True)


def test_the_summary_counts_groups_without_a_right_one(tmp_path: Path) -> None:
    lines = [
        line("", ["uh", "uh oh"], -6.0, "a"),
        line("", ["", "uh"], -2.0, "b"),
        line("", [".", "uh"], -6.0, "c"),
        # Wrong to different degrees: there is something to learn.
        line("one two", ["one", "two three"], -3.0, "d"),
    ]
    path = tmp_path / "h.jsonl"
    path.write_text("".join(to_line(one) + "\n" for one in lines))
    said = rarely_right(path).splitlines()

    assert said[0].startswith(
        "base, rows without text (3 rows): no right hypothesis in 66.7 % of 3 sampled groups, "
        "log-probability of the reference -4.67, probability 0.0468"
    )
    assert said[1].startswith("WARNING: for rows without text (75 % of all)")
    assert all(name in said[1] for name in ("reference_sample", "sft_weight", "CrossEntropy"))
    assert said[2].startswith("base, rows with text (1 rows): no right hypothesis in 100.0 %")
    assert len(said) == 3


# --- subsets


def candidate(predicted: Predicted) -> Candidate:
    row = Utterance(predicted.id, (), predicted.reference, 1.0)
    return Candidate(0, row, (predicted,))


def test_the_subset_of_improbable_references() -> None:
    builder = RarelyRight(max_reference_logprob=-2.3)
    kept = builder.judge(candidate(line("", ["uh"], -6.25)))
    assert (kept.keep, kept.priority) == (True, 6.25)
    assert kept.reason == "log-probability of the reference -6.25"
    assert builder.judge(candidate(line("", ["uh"], -2.3))).reason == "reference at -2.3 or above"
    with pytest.raises(ValueError, match="RarelyRight: row 'a' has no reference_logprob"):
        builder.judge(candidate(line("", ["uh"])))


def test_the_subset_of_which_nothing_is_right() -> None:
    builder = RarelyRight(nothing_right=True)
    assert builder.judge(candidate(line("", ["uh", "."]))).reason == "none of 2 hypotheses is right"
    assert builder.judge(candidate(line("", ["uh", ""]))).reason == "some hypothesis is right"
    close = RarelyRight(nothing_right=True, max_error_rate=0.5)
    assert not close.judge(candidate(line("one two", ["one", "uh"]))).keep

    # Either rule keeps a row.
    both = RarelyRight(nothing_right=True, max_reference_logprob=-2.0)
    assert both.judge(candidate(line("", ["", ""], -3.0))).keep
    assert both.judge(candidate(line("", ["uh", "uh"], -1.0))).priority == 1.0
    with pytest.raises(ValueError, match="has 1 samples"):
        builder.judge(candidate(line("", ["uh"])))


def test_a_subset_without_a_rule_is_refused() -> None:
    for settings, says in (
        ({}, "give max_reference_logprob"),
        ({"max_reference_logprob": 0.5}, "at most 0"),
        ({"nothing_right": True, "max_error_rate": -1.0}, "at least 0"),
        ({"nothing_right": True, "min_samples": 0}, "min_samples >= 1"),
    ):
        with pytest.raises(ValueError, match=says):
            RarelyRight(**settings)  # type: ignore[arg-type]


# --- the report


def test_a_report_repeats_the_warning() -> None:
    alert = {"rl_step": 10, "text": "rarely sampled"}
    run_of_it = SimpleNamespace(rarely_right=SimpleNamespace(alerts=[alert]))
    assert said_once(run_of_it) == [alert]
    assert said_once(SimpleNamespace()) == []

    report: dict[str, Any] = {key: {} for key in ("model", "seeds", "machine", "versions")}
    report |= {"command": "fit", "algorithm": "GRPO", "rl_step": 10, "num_steps": 10}
    report |= {"status": "finished", "before": None, "settings": None, "judges": {}}
    report |= {"recordings": [], "alerts": [], "warnings": said_once(run_of_it)}
    report["time"] = {"total_s": 1.0, "evaluation_s": 0.0, "phases_s": {}}
    assert "## Warnings\n\n- RL step 10: rarely sampled" in report_text(report, {})
