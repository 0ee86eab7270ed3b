"""A speech language model of parts: what is in it is what the parts had, and what cannot be joined is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    AutoProcessor,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2AudioForConditionalGeneration,
    WhisperForConditionalGeneration,
)

from lightning_audiorl import cli
from lightning_audiorl.algorithms import SFT, Optim
from lightning_audiorl.models import Finetune, Qwen2AudioPolicy, TinyCausalLM, TinyWhisper
from tests.algorithms.tiny import fit
from tests.models.families import batch_of

WORDS = ("zero", "one", "two", "three")
CHAT = (
    "{% for message in messages %}<|im_start|> one {{ message['content'] }} <|im_end|>{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>{% endif %}"
)


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """A tiny Whisper and a tiny Llama with a chat template, as folders."""
    folder = tmp_path_factory.mktemp("parts")
    whisper, processor = TinyWhisper(
        WORDS, width=16, encoder_layers=2, heads=2, chunk_length_s=2, num_mel_bins=16
    ).build()
    whisper.save_pretrained(folder / "whisper")
    processor.save_pretrained(folder / "whisper")
    llama, tokenizer = TinyCausalLM(WORDS, width=32, heads=2).build()
    write_lm(folder / "llama", llama, tokenizer, CHAT)
    return str(folder / "whisper"), str(folder / "llama")


def write_lm(folder: Path, model: Any, tokenizer: Any, chat: str | None = None) -> str:
    tokenizer.chat_template = chat
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def assemble(out: Path, encoder: str, lm: str, *args: str) -> Path:
    cli.main(["assemble", "--encoder", encoder, "--lm", lm, *args, str(out)])
    return out


def test_the_whole_is_its_parts(parts: tuple[str, str], tmp_path: Path) -> None:
    folder = assemble(tmp_path / "out", *parts, "--family", "qwen2_audio")
    whole = Qwen2AudioForConditionalGeneration.from_pretrained(folder).eval()
    llama = AutoModelForCausalLM.from_pretrained(parts[1]).eval()

    # Without audio it says what the language model says.
    ids = torch.tensor([[1, 5, 6, 7, 8]])
    with torch.no_grad():
        ours = whole(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
        own = llama(input_ids=ids).logits
    num_known = own.shape[-1]
    torch.testing.assert_close(ours[..., :num_known], own)

    # Three tokens more, each at the mean of the others, in embedding and head.
    assert whole.config.text_config.vocab_size == num_known + 3
    embedding = llama.get_input_embeddings().weight
    for matrix in (whole.get_input_embeddings().weight, whole.lm_head.weight):
        torch.testing.assert_close(matrix[num_known:], embedding.mean(0).expand(3, -1))


def test_its_encoder_is_whispers(parts: tuple[str, str], tmp_path: Path) -> None:
    """Whisper's states, joined by twos before the last norm, where all of the window is heard."""
    policy = Qwen2AudioPolicy(str(assemble(tmp_path / "out", *parts)))
    whisper = WhisperForConditionalGeneration.from_pretrained(parts[0]).eval().model.encoder
    features = torch.randn(1, 16, 200, generator=torch.Generator().manual_seed(0))
    norm = whisper.layer_norm
    whisper.layer_norm = nn.Identity()
    with torch.no_grad():
        states = whisper(features).last_hidden_state
        expected = norm(states.unflatten(1, (-1, 2)).mean(2))
        found = policy.model.model.audio_tower(input_features=features).last_hidden_state
    torch.testing.assert_close(found, expected)


def test_the_projector_is_keyed_and_of_the_embeddings_size(
    parts: tuple[str, str], tmp_path: Path
) -> None:
    folders = [
        assemble(tmp_path / name, *parts, "--seed", seed)
        for name, seed in (("a", "0"), ("b", "0"), ("c", "1"))
    ]
    weights = [(folder / "model.safetensors").read_bytes() for folder in folders]
    assert weights[0] == weights[1] != weights[2]

    policy = Qwen2AudioPolicy(str(folders[0]))
    projected = policy.model.model.multi_modal_projector(
        policy.encode(batch_of(["a"], [1.9])).features
    )
    ratio = projected.std() / policy.embed.weight[:9].std()
    assert 0.5 < ratio.item() < 2


def test_the_prompt_is_the_language_models_own(parts: tuple[str, str], tmp_path: Path) -> None:
    audio = "<|audio_bos|><|AUDIO|><|audio_eos|>"
    folder = assemble(tmp_path / "chat", *parts, "--instruction", 'Say "two" \\ {AUDIO}.')
    policy = Qwen2AudioPolicy(str(folder))
    assert policy.instruction is None
    asked = f'<|im_start|> one {audio}Say "two" \\ {{AUDIO}}. <|im_end|><|im_start|>'
    assert policy._rendered(None) == asked
    assert policy._rendered("three") == f"<|im_start|> one {audio}three <|im_end|><|im_start|>"
    assert policy.clip_span_s[1] == 2.0

    plain = Qwen2AudioPolicy(str(assemble(tmp_path / "plain", *parts, "--chat", "false")))
    assert plain._rendered(None) == f"{audio}Transcribe the speech.\n"
    # Of audio the template knows no more than one message of the user.
    with pytest.raises(Exception, match="takes one message of the user"):
        plain.processor.apply_chat_template([{"role": "assistant", "content": "one"}])


def test_the_card_names_parts_and_no_place(parts: tuple[str, str], tmp_path: Path) -> None:
    folder = assemble(tmp_path / "out", *parts)
    card = (folder / "README.md").read_text()
    assert "`whisper`" in card
    assert "`llama`" in card
    assert "Licence" in card
    for path in folder.iterdir():
        if path.suffix in (".json", ".md", ".jinja"):
            assert str(Path(parts[0]).parent) not in path.read_text(), path.name


def test_transformers_alone_loads_and_generates(parts: tuple[str, str], tmp_path: Path) -> None:
    folder = assemble(tmp_path / "out", *parts)
    processor = AutoProcessor.from_pretrained(folder)
    model = Qwen2AudioForConditionalGeneration.from_pretrained(folder).eval()
    batch = batch_of(["a", "b"], [0.5, 1.2])
    text = processor.apply_chat_template(
        [{"role": "user", "content": [{"type": "audio"}]}], tokenize=False
    )
    clips = [wave[:n].numpy() for wave, n in zip(batch.waveform, batch.num_samples, strict=True)]
    inputs = processor(
        text=[text] * 2, audio=clips, sampling_rate=16000, padding=True, return_tensors="pt"
    )
    tokens = model.generate(**inputs, do_sample=False, max_new_tokens=4)
    assert tokens.shape[0] == 2
    assert model.generation_config.eos_token_id == [2] or model.generation_config.eos_token_id == 2


def test_it_trains(parts: tuple[str, str], tmp_path: Path) -> None:
    policy = Qwen2AudioPolicy(str(assemble(tmp_path / "out", *parts)), Finetune())
    batches = [batch_of(["a", "b", "c"]) for _ in range(12)]
    recorder = fit(SFT(policy, 12, optim=Optim(lr=5e-3)), batches)
    losses = [metrics["loss"] for metrics in recorder.metrics]
    assert losses[-1] < 0.5 * losses[0]


# --- what is refused


def test_a_folder_that_holds_something_is_left_alone(
    parts: tuple[str, str], tmp_path: Path
) -> None:
    (tmp_path / "mine.txt").write_text("kept")
    with pytest.raises(FileExistsError, match="is there already; give a new or empty folder"):
        assemble(tmp_path, *parts)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
    empty = tmp_path / "empty"
    empty.mkdir()
    assert (assemble(empty, *parts) / "config.json").is_file()


def test_other_kinds_of_parts_are_refused(parts: tuple[str, str], tmp_path: Path) -> None:
    whisper, llama = parts
    with pytest.raises(ValueError, match=r"assemble: encoder: .* holds a 'llama', which"):
        assemble(tmp_path / "out", llama, llama)
    with pytest.raises(ValueError, match=r"assemble: lm: .* holds a 'whisper', which"):
        assemble(tmp_path / "out", whisper, whisper)
    with pytest.raises(ValueError, match="family='voxtral'; expected one of qwen2_audio"):
        assemble(tmp_path / "out", whisper, llama, "--family", "voxtral")
    with pytest.raises(ValueError, match="dtype='float8'; expected one of float32, bfloat16"):
        assemble(tmp_path / "out", whisper, llama, "--dtype", "float8")
    assert not (tmp_path / "out").exists()


def gpt2() -> GPT2LMHeadModel:
    return GPT2LMHeadModel(GPT2Config(vocab_size=9, n_embd=16, n_layer=1, n_head=2, n_positions=32))


def llama(**settings: Any) -> LlamaForCausalLM:
    model, _ = TinyCausalLM(WORDS, width=16, layers=1, heads=2).build()
    for name, value in settings.items():
        setattr(model.config, name, value)
    return model


@pytest.mark.parametrize(
    ("make", "chat", "message"),
    [
        (gpt2, None, "is a GPT2LMHeadModel without layers and norm"),
        (lambda: llama(logit_scale=0.5), None, r"rescales its logits \(logit_scale\)"),
        (llama, "{{ raise_exception('no') }}", "chat template of .* fails"),
        (llama, "hello", "does not show a message once; give chat: false"),
    ],
)
def test_language_models_that_do_not_fit_are_refused(
    make: Any, chat: str | None, message: str, parts: tuple[str, str], tmp_path: Path
) -> None:
    _, tokenizer = TinyCausalLM(WORDS).build()
    lm = write_lm(tmp_path / "lm", make(), tokenizer, chat)
    with pytest.raises(ValueError, match=message):
        assemble(tmp_path / "out", parts[0], lm)
    assert not (tmp_path / "out").exists()


def test_a_language_model_that_never_ends_is_refused(
    parts: tuple[str, str], tmp_path: Path
) -> None:
    _, tokenizer = TinyCausalLM(WORDS).build()
    bare = PreTrainedTokenizerFast(tokenizer_object=tokenizer.backend_tokenizer)
    lm = write_lm(tmp_path / "lm", llama(eos_token_id=None), bare)
    generation = Path(lm) / "generation_config.json"
    generation.write_text(json.dumps(json.loads(generation.read_text()) | {"eos_token_id": None}))
    with pytest.raises(ValueError, match="says which token ends a text"):
        assemble(tmp_path / "out", parts[0], lm)


def test_rows_that_pad_an_embedding_are_used_first(parts: tuple[str, str], tmp_path: Path) -> None:
    model, tokenizer = TinyCausalLM(WORDS, width=16, layers=1, heads=2).build()
    num_known = len(tokenizer)
    model.resize_token_embeddings(num_known + 7)
    lm = write_lm(tmp_path / "lm", model, tokenizer)
    policy = Qwen2AudioPolicy(str(assemble(tmp_path / "out", parts[0], lm)))
    assert policy.processor.audio_token_id == num_known
    assert policy.model.config.text_config.vocab_size == num_known + 7
    assert not policy.allowed[num_known:].any()
