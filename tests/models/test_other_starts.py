"""Whole folders that are no start for the policy at hand, and unusual ones that are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from lightning_audiorl import outline
from lightning_audiorl.judges import PolicyJudge
from lightning_audiorl.models import content_hash
from tests.damage import MAX_CHARACTERS, in_json
from tests.models.families import POLICIES, SPECS, make

FAMILIES = ("fun_asr_nano", "whisper", "qwen2_audio", "text_lm")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    made = {}
    for family in FAMILIES:
        made[family] = tmp_path_factory.mktemp(family)
        model, processor = SPECS[family].build()
        model.save_pretrained(made[family])
        processor.save_pretrained(made[family])
    return made


def copied(folder: Path, target: Path) -> Path:
    target.mkdir()
    for file in folder.iterdir():
        (target / file.name).write_bytes(file.read_bytes())
    return target


@pytest.mark.fault(
    "Starts and checkpoints",
    "the folder of another family of models",
    "refused, saying what it holds and which class takes that; a plan says so, too",
)
@pytest.mark.parametrize(
    ("policy", "found", "message"),
    [
        ("fun_asr_nano", "whisper", "holds a 'whisper', which WhisperPolicy"),
        ("fun_asr_nano", "text_lm", "holds a 'llama', which TextLMPolicy, SpeechLMPolicy take"),
        ("whisper", "fun_asr_nano", "holds a 'fun_asr_nano', which FunAsrNanoPolicy takes"),
        ("whisper", "text_lm", "holds a 'llama', which"),
        ("whisper", "qwen2_audio", "holds a 'qwen2_audio', which Qwen2AudioPolicy takes"),
        ("qwen2_audio", "fun_asr_nano", "holds a 'fun_asr_nano', which FunAsrNanoPolicy takes"),
        ("text_lm", "fun_asr_nano", "holds a 'fun_asr_nano', which FunAsrNanoPolicy takes"),
        ("text_lm", "whisper", "holds a 'whisper', which WhisperPolicy"),
        ("speech_lm", "whisper", "holds a 'whisper', which WhisperPolicy"),
        ("speech_lm", "fun_asr_nano", "holds a 'fun_asr_nano', which FunAsrNanoPolicy takes"),
    ],
)
def test_another_family_is_refused(
    policy: str, found: str, message: str, folders: dict[str, Path]
) -> None:
    with pytest.raises(ValueError, match=message) as refused:
        POLICIES[policy](str(folders[found]))
    assert str(folders[found]) in str(refused.value)
    assert len(str(refused.value)) < MAX_CHARACTERS
    with outline.outlines(), pytest.raises(ValueError, match=message):
        POLICIES[policy](str(folders[found]))


@pytest.mark.fault(
    "Starts and checkpoints",
    "a configuration of one family over the weights of another",
    "the tensors that are missing and too many are named",
)
def test_a_foreign_configuration_is_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    folder = copied(folders["whisper"], tmp_path / "mixed")
    (folder / "model.safetensors").write_bytes(
        (folders["fun_asr_nano"] / "model.safetensors").read_bytes()
    )
    with pytest.raises(
        ValueError, match=r"tensors are missing \(.* more\); \d+ tensors are not of"
    ):
        POLICIES["whisper"](str(folder))


#: By family: the file, what becomes of its settings (None: of the file), and what the error says.
PROCESSORS: list[tuple[str, str, dict[str, Any] | None, str]] = [
    ("fun_asr_nano", "chat_template.jinja", None, "chat template is missing or broken"),
    ("fun_asr_nano", "processor_config.json", None, "has no preprocessor_config.json"),
    ("whisper", "processor_config.json", None, "has no preprocessor_config.json"),
    ("whisper", "generation_config.json", None, "has no generation_config.json"),
    ("text_lm", "tokenizer.json", None, r"has no tokenizer\.json"),
    ("text_lm", "tokenizer_config.json", None, r"has no tokenizer_config\.json"),
    ("fun_asr_nano", "processor_config.json", {"sampling_rate": 8000}, "sampling_rate .* is 8000"),
    ("fun_asr_nano", "processor_config.json", {"feature_size": 40}, "feature_size .* is 40"),
    ("whisper", "processor_config.json", {"sampling_rate": 8000}, "sampling_rate .* is 8000"),
    ("whisper", "processor_config.json", {"feature_size": 80}, "feature_size .* is 80"),
    ("whisper", "processor_config.json", {"chunk_length": 30}, "nb_max_frames .* is 3000"),
    ("qwen2_audio", "chat_template.jinja", None, "chat template has not one place"),
    ("qwen2_audio", "processor_config.json", None, "has no preprocessor_config.json"),
    ("qwen2_audio", "processor_config.json", {"feature_size": 80}, "feature_size .* is 80"),
    ("qwen2_audio", "processor_config.json", {"chunk_length": 30}, "nb_max_frames .* is 3000"),
]


@pytest.mark.fault(
    "Starts and checkpoints",
    "a missing file of the tokenizer, the feature extractor, the chat template or Whisper's prompt; features of other "
    "sizes than the model's",
    "refused at construction, naming the file or the setting",
)
@pytest.mark.parametrize(("family", "name", "settings", "message"), PROCESSORS)
def test_a_processor_that_is_not_the_models_is_refused(
    family: str,
    name: str,
    settings: dict[str, Any] | None,
    message: str,
    folders: dict[str, Path],
    tmp_path: Path,
) -> None:
    folder = copied(folders[family], tmp_path / "start")
    if settings is None:
        (folder / name).unlink()
    else:
        extractor = json.loads((folder / name).read_text())["feature_extractor"]
        if "chunk_length" in settings:
            settings = settings | {"n_samples": 480000, "nb_max_frames": 3000}
        in_json(name, feature_extractor=extractor | settings)(folder)
    with pytest.raises((ValueError, OSError), match=message) as refused:
        POLICIES[family](str(folder))
    assert str(folder) in str(refused.value)
    assert len(str(refused.value)) < MAX_CHARACTERS


@pytest.mark.fault(
    "Starts and checkpoints",
    "a chat template without a place for the audio",
    "refused at construction",
)
def test_a_template_without_audio_is_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    folder = copied(folders["fun_asr_nano"], tmp_path / "start")
    for template in ("", "one", "{% if"):
        (folder / "chat_template.jinja").write_text(template)
        with pytest.raises(ValueError, match=r"chat template .*copy chat_template\.jinja"):
            POLICIES["fun_asr_nano"](str(folder))


@pytest.mark.fault(
    "Starts and checkpoints",
    "a tokenizer with more tokens than the model has rows",
    "refused, with both numbers",
)
def test_a_tokenizer_of_another_size_is_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    folder = copied(folders["text_lm"], tmp_path / "start")
    (folder / "tokenizer.json").write_bytes((folders["whisper"] / "tokenizer.json").read_bytes())
    with pytest.raises(ValueError, match="its tokenizer has 13 tokens, and its model 9"):
        POLICIES["text_lm"](str(folder))


def test_a_half_precise_copy_is_a_start(tmp_path: Path) -> None:
    policy = make("text_lm")
    policy.half().export(str(tmp_path))
    again = POLICIES["text_lm"](str(tmp_path))
    assert {value.dtype for value in again.parameters()} == {torch.float32}
    assert content_hash(again.half()) == content_hash(policy)
    assert {value.dtype for value in load_file(tmp_path / "model.safetensors").values()} == {
        torch.float16
    }


def test_a_policy_that_speaks_is_no_judge() -> None:
    with pytest.raises(ValueError, match="a SpeechLMPolicy speaks"):
        PolicyJudge(make("speech_lm"))


def test_the_shipped_start_is_whole() -> None:
    folder = Path(__file__).parents[2] / "configs" / "espeak" / "warm_start_model"
    policy = POLICIES["fun_asr_nano"](str(folder))
    assert all(bool(value.isfinite().all()) for value in policy.parameters())


@pytest.mark.fault(
    "Starts and checkpoints",
    "two tokens of the start's tokenizer changed places since a checkpoint was written",
    "the checkpoint is refused, as a start and to go on from: its tokens stand for other texts",
)
def test_another_tokenizer_under_a_checkpoint_is_refused(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    from lightning_audiorl.algorithms import SFT
    from lightning_audiorl.models import TextLMPolicy

    folder = copied(folders["text_lm"], tmp_path / "start")
    module = SFT(TextLMPolicy(str(folder)), num_steps=1)
    module.start_hash = content_hash(module.policy)
    checkpoint: dict[str, Any] = {"state_dict": module.state_dict()}
    module.on_save_checkpoint(checkpoint)
    torch.save(checkpoint, tmp_path / "a.ckpt")
    TextLMPolicy(str(tmp_path / "a.ckpt"))

    path = folder / "tokenizer.json"
    settings = json.loads(path.read_text())
    vocabulary = settings["model"]["vocab"]
    first, second = sorted(vocabulary)[-2:]
    vocabulary[first], vocabulary[second] = vocabulary[second], vocabulary[first]
    path.write_text(json.dumps(settings))

    with pytest.raises(ValueError, match="the same tokens stand for other texts"):
        TextLMPolicy(str(tmp_path / "a.ckpt"))
    other = SFT(TextLMPolicy(str(folder)), num_steps=1)
    other.start_hash = content_hash(other.policy)
    with pytest.raises(ValueError, match="the same tokens stand for other texts"):
        other.on_load_checkpoint(checkpoint)
