"""Prompt formats against the published recipes, token by token; the speech vocabulary; what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from lightning_audiorl.models.tiny import TinySpeechLM, build_speech_lm
from lightning_audiorl.models.tts.templates import (
    CosyVoice2Template,
    LlasaTemplate,
    NeuTTSTemplate,
    PlainTemplate,
    SpeechTemplate,
)

NUM_CODES = 12
#: The format of Llama 3 instruct models: headers, and a system part with a date.
LLAMA_CHAT = (
    "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nToday Date: "
    "{{ date_string if date_string is defined else strftime_now('%d %b %Y') }}\n\n<|eot_id|>"
    "{% for message in messages %}<|start_header_id|>{{ message['role'] }}<|end_header_id|>\n\n"
    "{{ message['content'] | trim }}<|eot_id|>{% endfor %}"
)
LLAMA_CONTROL = ["<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]


def byte_tokenizer(control: list[str], chat_template: str | None = None) -> PreTrainedTokenizerFast:
    """One token per byte, as a byte-level tokenizer before its merges, and the control tokens."""
    alphabet = sorted(ByteLevel.alphabet())
    tokenizer = Tokenizer(BPE({letter: i for i, letter in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False)
    tokenizer.decoder = ByteLevelDecoder()
    tokenizer.add_tokens(control)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, chat_template=chat_template)


def codes_as_text(codes: list[int], name: str = "<|s_{}|>") -> str:
    return "".join(name.format(code) for code in codes)


def llasa_tokenizer() -> PreTrainedTokenizerFast:
    parts = [
        f"<|{part}_{end}|>"
        for part in ("TEXT_UNDERSTANDING", "SPEECH_GENERATION")
        for end in ("START", "END")
    ]
    speech = [f"<|s_{code}|>" for code in range(NUM_CODES)]
    return byte_tokenizer([*LLAMA_CONTROL, *parts, *speech], LLAMA_CHAT)


def neutts_tokenizer() -> PreTrainedTokenizerFast:
    names = [
        "TEXT_PROMPT_START",
        "TEXT_PROMPT_END",
        "SPEECH_GENERATION_START",
        "SPEECH_GENERATION_END",
    ]
    return byte_tokenizer(
        [f"<|{name}|>" for name in names] + [f"<|speech_{code}|>" for code in range(NUM_CODES)]
    )


def cosyvoice_tokenizer() -> PreTrainedTokenizerFast:
    ends = ["<|eos1|>", "<|eos2|>", "<|eos3|>", "<|sos|>", "<|task_id|>"]
    return byte_tokenizer([f"<|s_{code}|>" for code in range(NUM_CODES)] + ends)


def plain_tokenizer(characters: str = "", num_codes: int = NUM_CODES) -> PreTrainedTokenizerFast:
    return build_speech_lm(
        TinySpeechLM(("one", "two"), 8, 1, 2, num_codes=num_codes, characters=characters)
    )[1]


KINDS: dict[str, tuple[SpeechTemplate, PreTrainedTokenizerFast]] = {
    "plain": (PlainTemplate(), plain_tokenizer()),
    "llasa": (LlasaTemplate(), llasa_tokenizer()),
    "neutts": (NeuTTSTemplate(), neutts_tokenizer()),
    "cosyvoice2": (CosyVoice2Template(), cosyvoice_tokenizer()),
}


# --- formats


def test_plain_is_a_finished_example_and_a_text() -> None:
    template, tokenizer = KINDS["plain"]
    alone = template.prompt_ids(tokenizer, "two one")
    assert tokenizer.convert_ids_to_tokens(alone) == [
        "<|im_start|>",
        "two",
        "one",
        "<|speech_start|>",
    ]
    prompted = template.prompt_ids(tokenizer, "two one", "one", [7, 0])
    example = ["one", "<|speech_start|>", "<|s_7|>", "<|s_0|>", "<|im_end|>"]
    assert tokenizer.convert_ids_to_tokens(prompted) == [
        "<|im_start|>",
        *example,
        "two",
        "one",
        "<|speech_start|>",
    ]


def test_characters_are_tokens_too() -> None:
    tokenizer = plain_tokenizer("ab ")
    ids = PlainTemplate().prompt_ids(tokenizer, "ab a")
    assert tokenizer.convert_ids_to_tokens(ids) == ["<|im_start|>", *"ab a", "<|speech_start|>"]
    assert tokenizer.decode(ids, skip_special_tokens=True) == "ab a"
    with pytest.raises(
        ValueError, match=r"'b cA' is outside the tokenizer's vocabulary \(\['A', 'c'\]\)"
    ):
        PlainTemplate().prompt_ids(tokenizer, "b cA")


def test_a_saved_character_tokenizer_is_the_same(tmp_path: Path) -> None:
    tokenizer = plain_tokenizer("abc '")
    tokenizer.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    assert again.get_vocab() == tokenizer.get_vocab()
    prompts = [PlainTemplate().prompt_ids(kind, "a b'c", "c a", [3]) for kind in (tokenizer, again)]
    assert prompts[0] == prompts[1]


@pytest.mark.parametrize(("prompt_text", "codes"), [("", []), ("What she said. ", [3, 0, 11])])
def test_llasa_as_on_its_model_card(prompt_text: str, codes: list[int]) -> None:
    """The card's own calls: one chat, the prompt's codes as text behind the start token, the last message left open.

    Source: model card HKUSTAudio/Llasa-1B (those of 3B and 8B have the same), "without prompt" and "with prompt".
    """
    template, tokenizer = KINDS["llasa"]
    text = "Dealing with it, é?"
    formatted = f"<|TEXT_UNDERSTANDING_START|>{prompt_text}{text}<|TEXT_UNDERSTANDING_END|>"
    chat = [
        {"role": "user", "content": "Convert the text to speech:" + formatted},
        {"role": "assistant", "content": "<|SPEECH_GENERATION_START|>" + codes_as_text(codes)},
    ]
    published = tokenizer.apply_chat_template(
        chat,
        tokenize=True,
        return_dict=False,
        continue_final_message=True,
        date_string="26 Jul 2024",
    )
    ids = template.prompt_ids(tokenizer, text, prompt_text, codes)
    assert ids == published
    assert ids.count(tokenizer.convert_tokens_to_ids("<|begin_of_text|>")) == 1
    assert tokenizer.convert_ids_to_tokens(ids)[-1 - len(codes)] == "<|SPEECH_GENERATION_START|>"


def test_llasa_has_a_joiner_and_a_fixed_date() -> None:
    tokenizer = llasa_tokenizer()
    said = tokenizer.decode(
        LlasaTemplate(joiner=" ", date="1 May 2020").prompt_ids(tokenizer, "one", "two", [1])
    )
    assert "Today Date: 1 May 2020\n" in said
    assert "<|TEXT_UNDERSTANDING_START|>two one<|TEXT_UNDERSTANDING_END|>" in said


def test_neutts_as_in_its_reference_implementation() -> None:
    """Source: repository neuphonic/neutts-air, the prompt of its inference for GGUF models."""
    template, tokenizer = KINDS["neutts"]
    codes = [5, 0, 11]
    published = (
        "user: Convert the text to speech:<|TEXT_PROMPT_START|>həlˈoʊ. wˈʌn tˈuː<|TEXT_PROMPT_END|>\n"
        f"assistant:<|SPEECH_GENERATION_START|>{codes_as_text(codes, '<|speech_{}|>')}"
    )
    ids = template.prompt_ids(tokenizer, "wˈʌn  tˈuː\n", "həlˈoʊ.", codes)
    assert ids == tokenizer.encode(published, add_special_tokens=False)
    alone = template.prompt_ids(tokenizer, "wˈʌn")
    assert tokenizer.decode(alone).endswith(
        "<|TEXT_PROMPT_START|>wˈʌn<|TEXT_PROMPT_END|>\nassistant:<|SPEECH_GENERATION_START|>"
    )


def test_neutts_phonemises_text_by_text() -> None:
    template, tokenizer = (
        NeuTTSTemplate(phonemise=lambda text: f" {text.upper()} \n"),
        neutts_tokenizer(),
    )
    assert "<|TEXT_PROMPT_START|>A B C<|TEXT_PROMPT_END|>" in tokenizer.decode(
        template.prompt_ids(tokenizer, "b c", "a", [1])
    )


@pytest.mark.parametrize(("prompt_text", "codes"), [("", []), ("她说", [3, 0, 11])])
def test_cosyvoice2_as_the_converted_chat_format(prompt_text: str, codes: list[int]) -> None:
    """Source: repository FunAudioLLM/CosyVoice, examples/grpo/cosyvoice2/pretrained_to_huggingface.py."""
    template, tokenizer = KINDS["cosyvoice2"]
    published = f"<|sos|>{prompt_text}收到好友<|task_id|>{codes_as_text(codes)}"
    assert template.prompt_ids(tokenizer, "收到好友", prompt_text, codes) == tokenizer.encode(
        published
    )


# --- speech vocabulary


@pytest.mark.parametrize("kind", KINDS)
def test_codes_and_tokens_are_each_others_inverse(kind: str) -> None:
    template, tokenizer = KINDS[kind]
    speech = template.speech_tokens(tokenizer, NUM_CODES, len(tokenizer) + 3)
    names = tokenizer.convert_ids_to_tokens(speech.code_to_token.tolist())
    assert names == [template.speech_token.format(code) for code in range(NUM_CODES)]
    assert speech.token_to_code[speech.code_to_token].tolist() == list(range(NUM_CODES))
    assert int((speech.token_to_code >= 0).sum()) == NUM_CODES
    assert tokenizer.convert_ids_to_tokens(speech.stop_ids) == list(template.stop_tokens)
    expected = torch.zeros(len(tokenizer) + 3, dtype=torch.bool)
    expected[[*speech.code_to_token.tolist(), *speech.stop_ids]] = True
    assert torch.equal(speech.allowed, expected)


@pytest.mark.parametrize("cardinality", [1, NUM_CODES - 1, NUM_CODES + 1])
def test_a_codec_of_another_size_is_refused(cardinality: int) -> None:
    template, tokenizer = KINDS["llasa"]
    with pytest.raises(
        ValueError, match=rf"the codec has {cardinality} codes, .* {NUM_CODES} speech tokens"
    ):
        template.speech_tokens(tokenizer, cardinality, len(tokenizer))


def test_another_familys_template_is_refused() -> None:
    with pytest.raises(
        ValueError, match=r"NeuTTSTemplate: the codec has 12 codes, .* tokenizer 0 speech tokens"
    ):
        NeuTTSTemplate().speech_tokens(llasa_tokenizer(), NUM_CODES, 9999)
    with pytest.raises(
        ValueError, match=r"no token '<\|im_end\|>': the template belongs to another family"
    ):
        PlainTemplate().speech_tokens(llasa_tokenizer(), NUM_CODES, 9999)
    with pytest.raises(ValueError, match=r"no token '<\|im_start\|>'"):
        PlainTemplate().prompt_ids(llasa_tokenizer(), "one")


def test_a_model_smaller_than_its_tokenizer_is_refused() -> None:
    template, tokenizer = KINDS["cosyvoice2"]
    with pytest.raises(
        ValueError, match="the language model only 260 tokens; resize its embedding"
    ):
        template.speech_tokens(tokenizer, NUM_CODES, 260)


# --- texts


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("text", "prompt_text", "codes", "message"),
    [
        (" \n", "", [], "the text is empty"),
        ("one", "", [1, 2], "the speaker prompt has audio but no text"),
        ("one", " ", [1], "the speaker prompt has audio but no text"),
        ("one", "two", [], r"has a text \('two'\) but no audio"),
        (
            "one <|s_3|> two",
            "",
            [],
            r"contains '<\|s_3\|>', which would be read as a control token",
        ),
        ("one", "two <|im_end|>", [1], r"contains '<\|im_end\|>'"),
        ("one", "two", [NUM_CODES], r"no token '<\|.*_12\|>'"),
    ],
)
def test_bad_input_is_named(
    kind: str, text: str, prompt_text: str, codes: list[int], message: str
) -> None:
    template, tokenizer = KINDS[kind]
    with pytest.raises(ValueError, match=message):
        template.prompt_ids(tokenizer, text, prompt_text, codes)


def test_words_outside_the_vocabulary_are_named() -> None:
    template, tokenizer = KINDS["plain"]
    with pytest.raises(
        ValueError, match=r"'one Two nine' is outside .* \(\['Two', 'nine'\]\); normalise"
    ):
        template.prompt_ids(tokenizer, "one Two nine")
