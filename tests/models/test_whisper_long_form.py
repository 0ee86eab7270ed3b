"""Clips beyond Whisper's window: refused by default, and read in evaluations by transformers' own way where asked."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import WhisperForConditionalGeneration, WhisperProcessor

from lightning_audiorl.algorithms import SFT, EvalDecoding
from lightning_audiorl.data import AsrDataModule, Subset
from lightning_audiorl.models import WhisperPolicy
from lightning_audiorl.types import Decoding
from lightning_audiorl.weights.tensors import WeightsError
from tests.callbacks import runs
from tests.command import write_rows
from tests.data.fakes import write_tone
from tests.models.families import SPECS, batch_of, disturb
from tests.models.test_whisper_export import whisper_start

GREEDY = {"greedy": EvalDecoding(Decoding(temperature=0.0, max_new_tokens=8))}
#: Two within the window of 2 s, two beyond it.
SECONDS = [1.0, 5.0, 2.0, 3.5]


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> str:
    return whisper_start(tmp_path_factory.mktemp("start"), max_length=16)


@pytest.fixture
def manifest(tmp_path: Path) -> str:
    rows = []
    for number, seconds in enumerate(SECONDS):
        write_tone(tmp_path / f"{number}.wav", seconds, hz=200.0 + 150 * number)
        rows.append({"audio_filepath": f"{number}.wav", "text": "one two", "duration": seconds})
    return str(write_rows(tmp_path / "dev.jsonl", rows))


def in_transformers(folder: Path, batch: Any) -> list[str]:
    """As transformers documents it."""
    model = WhisperForConditionalGeneration.from_pretrained(folder).eval()
    processor = WhisperProcessor.from_pretrained(folder)
    clips = [w[: int(n)].numpy() for w, n in zip(batch.waveform, batch.num_samples, strict=True)]
    inputs = processor(
        clips,
        sampling_rate=16_000,
        return_tensors="pt",
        truncation=False,
        padding="longest",
        return_attention_mask=True,
    )
    tokens = model.generate(**inputs, return_timestamps=True, language="en", task="transcribe")
    return [text.strip() for text in processor.batch_decode(tokens, skip_special_tokens=True)]


def test_long_clips_are_read_as_the_export_reads_them(start: str, tmp_path: Path) -> None:
    policy = WhisperPolicy(start, long_form=True).eval()
    disturb(policy)
    policy.export(str(tmp_path))
    batch = batch_of(list("abc"), [5.0, 2.5, 7.0])
    said = policy.transcribe_long(batch)
    texts = [text for text, _ in said]
    assert (tmp_path / "preprocessor_config.json").is_file()
    assert texts == in_transformers(tmp_path, batch)
    assert len(set(texts)) > 1, f"this compares next to nothing: {texts}"
    assert [num for _, num in said] == [len(text.split()) for text in texts]
    # One by one as together.
    assert [policy.transcribe_long(batch.select([i]))[0] for i in range(3)] == said


def evaluated(policy: WhisperPolicy, manifest: str, folder: Path, **data: Any) -> Any:
    module = SFT(policy, 1, eval_decodings=data.pop("eval_decodings", GREEDY))
    sets = AsrDataModule(train=[Subset(manifest)], val={"dev": manifest}, batch_size=2, **data)
    runs.trainer(folder, []).validate(module, sets, verbose=False)
    return module


def test_an_evaluation_set_may_hold_them(start: str, manifest: str, tmp_path: Path) -> None:
    module = evaluated(WhisperPolicy(start, long_form=True), manifest, tmp_path)
    kept = {group[0].row.id: group[0].text for group in module.last_hypotheses["dev"]}
    assert len(kept) == 4
    assert module.evaluator.num_rows == {"dev": 4}

    rows = AsrDataModule(val={"dev": manifest}).rows("val/dev")
    batch = AsrDataModule().load([rows[1], rows[3]])
    texts = [text for text, _ in module.policy.transcribe_long(batch)]
    assert [kept[row.id] for row in batch.rows] == texts


def test_by_default_they_are_refused_with_their_row(
    start: str, manifest: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=r"row 'dev:2' lasts 5.00 s, more than the 2 s that Whis"):
        evaluated(WhisperPolicy(start), manifest, tmp_path)
    module = evaluated(WhisperPolicy(start), manifest, tmp_path, on_too_long="skip")
    assert module.evaluator.num_rows == {"dev": 2}
    # A limit that is set holds for evaluation sets, too.
    policy = WhisperPolicy(start, long_form=True)
    module = evaluated(policy, manifest, tmp_path, on_too_long="skip", max_duration_s=4.0)
    assert module.evaluator.num_rows == {"dev": 3}


def test_training_takes_none_of_them(start: str, manifest: str, tmp_path: Path) -> None:
    module = SFT(WhisperPolicy(start, long_form=True), 1, eval_decodings=GREEDY)
    with pytest.raises(ValueError, match=r"train/0: row 'dev:2' lasts 5.00 s, more than the 2 s"):
        runs.trainer(tmp_path, []).fit(module, AsrDataModule(train=[Subset(manifest)]))


def test_a_decoding_that_samples_is_refused(start: str, manifest: str, tmp_path: Path) -> None:
    sampled = {"sampled": EvalDecoding(Decoding(max_new_tokens=8), 2)}
    policy = WhisperPolicy(start, long_form=True)
    with pytest.raises(ValueError, match="are decoded greedily, once, and the decoding 'sampled'"):
        evaluated(policy, manifest, tmp_path, eval_decodings=GREEDY | sampled)


def test_a_model_without_timestamps_has_no_long_form() -> None:
    with pytest.raises(ValueError, match=r"long_form: the vocabulary of .* has no timestamps"):
        WhisperPolicy(SPECS["whisper"], long_form=True)  # type: ignore[arg-type]


# --- what the checkpoint says


@pytest.mark.parametrize("missing", ["lang_to_id", "task_to_id"])
def test_an_older_generation_config_is_refused(missing: str, tmp_path: Path) -> None:
    start = whisper_start(tmp_path)
    path = tmp_path / "generation_config.json"
    config = json.loads(path.read_text())
    del config[missing]
    path.write_text(json.dumps(config))
    with pytest.raises(WeightsError, match=f"has no {missing}.*copy generation_config.json"):
        WhisperPolicy(start)


def test_an_english_only_model_is_asked_for_nothing(tmp_path: Path) -> None:
    start = whisper_start(tmp_path, is_multilingual=False)
    path = tmp_path / "generation_config.json"
    config = json.loads(path.read_text())
    del config["lang_to_id"], config["task_to_id"]
    path.write_text(json.dumps(config))
    policy = WhisperPolicy(start, long_form=True).eval()
    batch = batch_of(["a", "b"], [1.0, 1.5])
    begin = [
        config["decoder_start_token_id"],
        policy.tokenizer.convert_tokens_to_ids("<|notimestamps|>"),
    ]
    assert policy.encode(batch).tokens.tolist() == [begin, begin]
    # Whatever a row's language: it knows no other.
    rows = tuple(replace(row, lang="de") for row in batch.rows)
    assert policy.encode(replace(batch, rows=rows)).tokens.tolist() == [begin, begin]
    assert policy.transcribe_long(batch_of(["a"], [5.0]))[0][1] > 0


ALONE = """
import json, sys
import torch
from transformers import WhisperForConditionalGeneration, WhisperProcessor

folder = sys.argv[1]
model = WhisperForConditionalGeneration.from_pretrained(folder).eval()
processor = WhisperProcessor.from_pretrained(folder)
clips = torch.load(folder + "/../clips.pt")
said = {}
for name, clip, how in (("short", clips[0], {}), ("long", clips[1], {"return_timestamps": True})):
    inputs = processor(clip.numpy(), sampling_rate=16000, return_tensors="pt", truncation=False,
                       padding="longest" if how else "max_length", return_attention_mask=True)
    tokens = model.generate(**inputs, language="en", task="transcribe", max_new_tokens=8, **how)
    said[name] = processor.batch_decode(tokens, skip_special_tokens=True)[0].strip()
assert "lightning_audiorl" not in sys.modules
print(json.dumps(said))
"""


@pytest.mark.slow
def test_a_fresh_process_with_transformers_alone_says_the_same(start: str, tmp_path: Path) -> None:
    policy = WhisperPolicy(start, long_form=True).eval()
    disturb(policy)
    policy.export(str(tmp_path / "export"))
    batch = batch_of(["a", "b"], [1.5, 5.0])
    clips = [wave[: int(n)] for wave, n in zip(batch.waveform, batch.num_samples, strict=True)]
    torch.save(clips, tmp_path / "clips.pt")

    command = [sys.executable, "-c", ALONE, str(tmp_path / "export")]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    said = json.loads(done.stdout)
    assert said["long"] == policy.transcribe_long(batch.select([1]))[0][0]
    assert said["long"] == in_transformers(tmp_path / "export", batch.select([1]))[0]
    assert said["short"]
