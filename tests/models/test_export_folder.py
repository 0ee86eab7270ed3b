"""The folder of an export holds one model and all that it needs, whatever was in it before."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, LlamaForCausalLM

from lightning_audiorl.callbacks import Export
from lightning_audiorl.models import Finetune, WhisperPolicy
from tests.helpers import assert_close
from tests.models.families import POLICIES, SPECS, disturb
from tests.models.test_export_ways import CLASSES, logits, reloaded, start_folder, trained
from tests.models.test_whisper_export import whisper_start

FAMILIES = list(CLASSES)
WITH_ENCODER = Finetune(
    encoder=True, projector=True, lm="lora", lora_rank=2, lora_targets=["v_proj"]
)


@pytest.mark.fault(
    "What is exported",
    "an export into a folder that holds another model: its adapter, its shards, its tokenizer",
    "only the new model is there after, and files that are no model's are as they were",
)
def test_nothing_of_an_earlier_model_stays(tmp_path: Path) -> None:
    import peft

    # An earlier model of another size, in shards, an adapter beside it.
    other = LlamaForCausalLM(replace(SPECS["text_lm"], width=64).build()[0].config)
    other.save_pretrained(tmp_path, max_shard_size="100KB")
    adapter = peft.LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False)
    peft.get_peft_model(other, adapter).save_pretrained(tmp_path)
    for name in ("pytorch_model.bin", "chat_template.jinja", "vocab.json", "added_tokens.json"):
        (tmp_path / name).write_text("{}")
    for name in ("notes.txt", "voices.safetensors"):
        (tmp_path / name).write_text("mine")
    (tmp_path / "data").mkdir()
    assert len(list(tmp_path.glob("model-0*"))) > 1

    policy, _ = trained("text_lm", SPECS["text_lm"], Finetune())
    policy.export(str(tmp_path))
    assert_close(logits("text_lm", reloaded("text_lm", tmp_path)), logits("text_lm", policy.model))
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "README.md",
        "config.json",
        "data",
        "generation_config.json",
        "model.safetensors",
        "notes.txt",
        "tokenizer.json",
        "tokenizer_config.json",
        "voices.safetensors",
    ]


@pytest.mark.fault(
    "What is exported",
    "an export that ends in an error half way",
    "the model that was in the folder is whole, and the next export writes the new one",
)
def test_a_failing_export_leaves_the_earlier_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy, _ = trained("text_lm", SPECS["text_lm"], Finetune())
    policy.export(str(tmp_path))
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    disturb(policy, 0.1)

    def fails(*_: Any, **__: Any) -> None:
        raise OSError("no space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(type(policy.processor), "save_pretrained", fails)
        with pytest.raises(OSError, match="no space left"):
            policy.export(str(tmp_path))
    after = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    assert after == before
    policy.export(str(tmp_path))
    assert {path.name for path in tmp_path.iterdir()} == set(before)
    assert (tmp_path / "model.safetensors").read_bytes() != before["model.safetensors"]


@pytest.mark.fault(
    "What is exported",
    "an export over an earlier one that is killed while the new files are put in place",
    "the folder does not load, rather than as a mixture of the two; the next export mends it",
)
@pytest.mark.parametrize("num_files", [0, 1, 2, 3])
def test_a_mixture_of_two_models_does_not_load(
    num_files: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy, _ = trained("text_lm", SPECS["text_lm"], Finetune())
    policy.export(str(tmp_path))
    put = []

    def replace_some(source: Path, target: Path) -> None:
        if len(put) == num_files:
            raise KeyboardInterrupt
        put.append(source.rename(target))

    with monkeypatch.context() as patched:
        patched.setattr("os.replace", replace_some)
        with pytest.raises(KeyboardInterrupt):
            policy.export(str(tmp_path))
    with pytest.raises((OSError, ValueError)):
        AutoModelForCausalLM.from_pretrained(tmp_path)
    policy.export(str(tmp_path))
    assert_close(logits("text_lm", reloaded("text_lm", tmp_path)), logits("text_lm", policy.model))


@pytest.mark.fault(
    "What is exported",
    "a file where the export's folder is to be",
    "refused before the first step, with its path",
)
def test_a_file_in_the_place_of_a_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "export").write_text("")
    policy = POLICIES["text_lm"](SPECS["text_lm"])
    with pytest.raises(FileExistsError):
        policy.export(str(tmp_path / "export"))

    class Trainer:
        default_root_dir = str(tmp_path)

    with pytest.raises(FileExistsError, match=r"Export\.dirpath: .*export is a file"):
        Export().setup(Trainer(), None, "fit")  # type: ignore[arg-type]


@pytest.mark.fault(
    "What is exported",
    "a published generation config with sampling flags that transformers refuses to write again",
    "exported as it was, but for the tokens that training forbids",
)
@pytest.mark.parametrize("family", ["text_lm", "speech_lm", "whisper"])
def test_sampling_flags_are_kept(family: str, tmp_path: Path) -> None:
    start = Path(start_folder(family, True, tmp_path / "start"))
    path = start / "generation_config.json"
    flags = {"do_sample": False, "temperature": 0.6, "top_p": 0.9, "top_k": 7, "num_beams": 2}
    path.write_text(json.dumps(json.loads(path.read_text()) | flags))

    POLICIES[family](str(start)).export(str(tmp_path / "export"))
    written = GenerationConfig.from_pretrained(tmp_path / "export")
    assert {name: getattr(written, name) for name in flags} == flags
    assert reloaded(family, tmp_path / "export").generation_config.temperature == 0.6


@pytest.mark.parametrize("family", FAMILIES)
def test_an_export_of_an_export_is_the_same_bytes(family: str, tmp_path: Path) -> None:
    finetune = WITH_ENCODER if family in ("whisper", "fun_asr_nano", "qwen2_audio") else Finetune()
    policy, _ = trained(family, start_folder(family, True, tmp_path / "start"), finetune)
    live = logits(family, policy.model)
    for name in ("one", "again"):
        policy.export(str(tmp_path / name))
    POLICIES[family](str(tmp_path / "one")).export(str(tmp_path / "two"))
    assert_close(logits(family, reloaded(family, tmp_path / "one")), live, "policy")

    one, again, two = (
        {path.name: path.read_bytes() for path in (tmp_path / name).iterdir()}
        for name in ("one", "again", "two")
    )
    assert one == again
    assert one.keys() == two.keys()
    assert [name for name in one if one[name] != two[name]] == []
    with safe_open(tmp_path / "one" / "model.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt"}
    # The processor of the start, with its template; transformers notes where it read the tokenizer.
    start = {path.name: path.read_bytes() for path in (tmp_path / "start").iterdir()}
    # Whisper's extractor has a file of its own beside, for faster-whisper.
    extractor = {"preprocessor_config.json"} if family == "whisper" else set()
    assert one.keys() - start.keys() == extractor
    assert not start.keys() - one.keys()
    rewritten = {
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer_config.json",
    }
    assert [name for name in start if start[name] != one[name] and name not in rewritten] == []
    own, exported = (json.loads(files["tokenizer_config.json"]) for files in (start, one))
    assert {name for name in own if own[name] != exported[name]} == set()


@pytest.mark.fault(
    "What is exported",
    "a Whisper folder without its generation config",
    "refused with the file to copy: prompts would lack language, task and 'no timestamps'",
)
def test_a_whisper_without_its_generation_config_is_refused(tmp_path: Path) -> None:
    start = whisper_start(tmp_path / "start")
    (tmp_path / "start" / "generation_config.json").unlink()
    with pytest.raises((FileNotFoundError, ValueError), match=r"generation_config\.json"):
        WhisperPolicy(start)


def test_an_untrained_adapter_leaves_head_and_embedding_one(tmp_path: Path) -> None:
    lora = Finetune(projector=False, lm="lora", lora_targets=["embed_tokens"])
    POLICIES["text_lm"](SPECS["text_lm"], lora).export(str(tmp_path))
    model = AutoModelForCausalLM.from_pretrained(tmp_path)
    is_one = model.lm_head.weight is model.model.embed_tokens.weight
    assert is_one
    assert torch.equal(model.lm_head.weight, SPECS["text_lm"].build()[0].lm_head.weight)
    assert len(AutoTokenizer.from_pretrained(tmp_path)) == 9
