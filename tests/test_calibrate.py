"""``audiorl calibrate``: what it compares, what it writes, and what it refuses."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from lightning_audiorl import cli
from lightning_audiorl.codecs import TinyCodec
from lightning_audiorl.commands.calibrate import RECORDINGS, SAMPLES, calibrate
from lightning_audiorl.data import TtsDataModule
from lightning_audiorl.engine.rollout import hypotheses
from lightning_audiorl.models import SampleKey
from lightning_audiorl.models.reference import content_hash
from lightning_audiorl.token2text import Token2Text, calibration
from lightning_audiorl.types import Decoding, Hypothesis, Speech
from tests import speech, test_predict, test_predict_speech
from tests.command import class_of
from tests.data.fakes import fake_fsdd

DECODING = Decoding(max_new_tokens=16, min_cap=16)
SIZES: dict[str, Any] = {"width": 16, "dilations": (1,), "heads": 2, "decoder_layers": 1}
Listed = test_predict.Listed


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of random parts: ``token2text``, ``other`` (with a codec of another size), judges, recordings."""
    folder = tmp_path_factory.mktemp("parts")
    codec_hash = content_hash(TinyCodec(speech.CODEC))
    Token2Text(16, speech.LETTERS, codec_hash=codec_hash, **SIZES).save(str(folder / "token2text"))
    Token2Text(12, speech.LETTERS, **SIZES).save(str(folder / "other"))
    Token2Text(16, speech.LETTERS, max_characters=3, **SIZES).save(str(folder / "short"))
    speech.judge_folders(folder)
    fake_fsdd(folder, num_index=11)
    return folder


def rows(folder: Path, **settings: Any) -> Listed:
    return Listed(list(speech.rows(str(folder), **{"num_rows": 8} | settings)))


def run(folder: Path, out: Path, **settings: Any) -> dict[str, Any]:
    """What ``calibrate`` found by kind of speech, as it stands in the file."""
    settings = {
        "token2text": str(folder / "token2text"),
        "judge": speech.judge(folder),
        "rows": rows(folder),
        "policy": test_predict_speech.policy(),
        "decoding": DECODING,
        "prompt_s": (0.05, 5.0),
        "num_quantiles": 2,
    } | settings
    calibrate(out=str(out), **settings)
    found: dict[str, Any] = json.loads(out.read_text())["speech"]
    return found


def by_hand(folder: Path, num_samples: int) -> dict[str, list[Hypothesis]]:
    """Row by row."""
    policy, said = test_predict_speech.policy(), {RECORDINGS: [], SAMPLES: []}
    for row in rows(folder):
        batch = TtsDataModule((0.05, 5.0), sample_rate_hz=speech.RATE_HZ).load([row])
        context = policy.encode(batch)
        rollout = policy.sample(context, num_samples, DECODING, SampleKey(3, 0, "validation"))
        said[SAMPLES] += hypotheses(policy, batch, rollout, context)[0]
        codes, lengths = policy.codec.encode(batch.target_waveform, batch.target_num_samples)
        waveform, _ = policy.codec.decode(codes, lengths)
        said[RECORDINGS].append(
            Hypothesis(row, "", speech=Speech(waveform[0], speech.RATE_HZ, codes[0]))
        )
    return said


def test_it_is_the_calibration_of_recordings_and_samples(folder: Path, tmp_path: Path) -> None:
    """In batches of three rows as one by one."""
    found = run(folder, tmp_path / "c.json", num_samples=2, batch_size=3, seed=3)
    network = Token2Text.load(str(folder / "token2text"))
    for name, said in by_hand(folder, 2).items():
        expected = asdict(calibration(network, said, speech.judge(folder), 2))
        assert found[name]["num_samples"] == expected["num_samples"] >= 8
        for figure in ("spearman", "cer"):
            assert found[name][figure] == pytest.approx(expected[figure], abs=1e-5)
        for form, parts in expected["quantiles"].items():
            for part, given in zip(parts, found[name]["quantiles"][form], strict=True):
                assert given == pytest.approx(part, abs=1e-4)
    assert len({found[name]["cer"]["judge"] for name in found}) == 2


def test_the_command_writes_and_prints_a_table(folder: Path, tmp_path: Path, capsys: Any) -> None:
    codec = class_of("codecs.TinyCodec", init_from=asdict(speech.CODEC))
    lm = class_of("models.TinySpeechLM", **asdict(speech.LM))
    settings = {
        "token2text": str(folder / "token2text"),
        "judge": class_of("judges.CtcJudge", folder=str(folder / "judge"), name="held_out"),
        "policy": class_of(
            "models.SpeechLMPolicy", init_from=lm, codec=codec, limits={"min_prompt_s": 0.05}
        ),
        "rows": class_of(
            "data.speech.FsddSpeech",
            root=str(folder),
            num_rows=9,
            gap_s=[0, 0.02],
            edge_s=[0, 0.02],
        ),
        "prompt_s": [0.05, 5.0],
        "decoding": {"max_new_tokens": 8, "min_cap": 8},
        "limit_rows": 5,
        "out": str(tmp_path / "new" / "calibration.json"),
    }
    config = tmp_path / "calibrate.yaml"
    config.write_text(yaml.safe_dump(settings))
    cli.main(["calibrate", "--config", str(config)])
    written = json.loads((tmp_path / "new" / "calibration.json").read_text())
    assert (written["settings"]["judge"], written["settings"]["num_rows"]) == ("held_out", 5)
    assert written["settings"]["decoding"]["max_new_tokens"] == 8
    table = (tmp_path / "new" / "calibration.md").read_text()
    assert capsys.readouterr().out.startswith(table)
    lines = table.splitlines()
    assert lines[0] == f"# {folder / 'token2text'} beside the judge held_out, 5 rows"
    assert [line.split(" | ")[1] for line in lines if line.startswith(f"| {RECORDINGS}")] == ["5"]
    assert sum(line.startswith(("| decoder | ", "| ctc | ")) for line in lines) == 2 * 2 * 4
    assert lines.count(f"## {SAMPLES}") == 1


def test_recordings_alone_and_samples_alone(folder: Path, tmp_path: Path) -> None:
    alone = run(folder, tmp_path / "a.json", policy=None, codec=TinyCodec(speech.CODEC))
    both = run(folder, tmp_path / "b.json")
    assert alone == {RECORDINGS: both[RECORDINGS]}
    assert "decoding" not in json.loads((tmp_path / "a.json").read_text())["settings"]
    said = run(folder, tmp_path / "c.json", rows=rows(folder, with_target=False))
    assert said == {SAMPLES: both[SAMPLES]}
    some = Listed([*rows(folder, num_rows=3), *rows(folder, num_rows=2, seed=1, with_target=False)])
    said = run(folder, tmp_path / "d.json", rows=some)
    assert said[RECORDINGS]["num_samples"] == 3 < said[SAMPLES]["num_samples"]


def test_a_correlation_of_a_constant_is_null(folder: Path, tmp_path: Path) -> None:
    """One row has no ranks."""
    found = run(folder, tmp_path / "c.json", limit_rows=1)
    assert found[RECORDINGS]["spearman"] == {"decoder": None, "ctc": None}
    assert " nan | nan |" in (tmp_path / "c.md").read_text()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"policy": None}, "give a policy, which has a codec, or a codec alone for recordings"),
        ({"batch_size": 0}, "batch_size and num_quantiles >= 1; got 8 rows, 1, 0, 2"),
        ({"limit_rows": 0}, "want one row or more.*got 0 rows"),
    ],
)
def test_bad_settings(settings: dict[str, Any], message: str, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        run(folder, tmp_path / "c.json", **settings)
    assert not (tmp_path / "c.json").exists()


def test_what_does_not_go_together_is_refused(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "c.json"
    with pytest.raises(ValueError, match="give a policy, which has a codec, or a codec alone"):
        run(folder, out, codec=TinyCodec(speech.CODEC))
    with pytest.raises(
        ValueError, match="calibrate wants a policy that speaks in the codes of a codec"
    ):
        run(folder, out, policy=test_predict.policy())
    with pytest.raises(ValueError, match="Token2Text reads 12 codes, the policy speaks 16"):
        run(folder, out, token2text=str(folder / "other"))
    other = TinyCodec(replace(speech.CODEC, seed=1))
    with pytest.raises(ValueError, match="trained with another codec of 16 codes"):
        run(folder, out, policy=None, codec=other)
    policy = test_predict_speech.policy()
    with pytest.raises(ValueError, match="characters, Token2Text knows texts of up to 3"):
        run(folder, out, token2text=str(folder / "short"), policy=policy)
    assert policy.num_encoded == 0
    with pytest.raises(
        ValueError, match="no row has a recording of its text, and there is no policy"
    ):
        run(
            folder,
            out,
            policy=None,
            codec=TinyCodec(speech.CODEC),
            rows=rows(folder, with_target=False),
        )
