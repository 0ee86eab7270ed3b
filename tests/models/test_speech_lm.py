"""What speaks keeps the contracts of what listens; its codec, speaker prompts and caps; a few steps of training."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from jsonargparse import ArgumentParser
from lightning import Callback, Trainer
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoModelForCausalLM, AutoTokenizer, Qwen2Config

from lightning_audiorl.algorithms import GRPO, SFT, Optim
from lightning_audiorl.codecs.tiny import TinyCodec, TinyCodecConfig
from lightning_audiorl.models import (
    CosyVoice2Template,
    SampleKey,
    SpeakerPrompt,
    SpeechLimits,
    SpeechLMPolicy,
    content_hash,
)
from lightning_audiorl.models.tts.biased_head import Qwen2WithHeadBias
from lightning_audiorl.rewards import Reward, RewardMix
from lightning_audiorl.strategies import PhaseSingleDevice
from lightning_audiorl.types import Decoding, Hypothesis, PromptBatch, Segment, Utterance
from tests.algorithms.tiny import Recorder, fit
from tests.helpers import assert_close
from tests.models import (
    naive,
    test_checkpointing,
    test_export,
    test_families,
    test_five_steps,
    test_loading,
)
from tests.models.families import (
    DECODING,
    RATE_HZ,
    SPECS,
    ToneCodec,
    batch_of,
    clip,
    disturb,
    log_probs,
    make,
    random_rollout,
    speech_policy,
)
from tests.models.test_speech_templates import cosyvoice_tokenizer

FAMILY, KEY, NAMES = "speech_lm", SampleKey(seed=5, rl_step=2), ["a", "b", "c"]


def with_targets(batch: PromptBatch) -> PromptBatch:
    """The batch and a recording of each text: tones of 3, 5, 7, ... codes."""
    codec = ToneCodec()
    lengths = torch.tensor([3 + 2 * i for i in range(len(batch))])
    codes = torch.arange(int(lengths.sum())) * 5 % codec.cardinality
    recordings, num_samples = codec.decode(
        pad_sequence(codes.split(lengths.tolist()), batch_first=True), lengths
    )
    return replace(batch, target_waveform=recordings, target_num_samples=num_samples)


# --- the contracts of every family


def naive_forward(policy: Any, one: PromptBatch, tokens: Tensor) -> Tensor:
    """Logits of prompt and completion in one plain pass; the prompt put together by names."""
    words = one.rows[0].extra["prompt_text"].split()
    codes, _ = policy.codec.encode(one.waveform, one.num_samples)
    speaker = [
        *words,
        "<|speech_start|>",
        *(f"<|s_{code}|>" for code in codes[0].tolist()),
        "<|im_end|>",
    ]
    names = ["<|im_start|>", *speaker, *one.rows[0].text.split(), "<|speech_start|>"]
    ids = torch.cat(
        [torch.tensor([policy.tokenizer.convert_tokens_to_ids(names)]), tokens[None]], dim=1
    )
    return policy.model(input_ids=ids, use_cache=False).logits


@pytest.fixture(autouse=True)
def _known_to_the_naive_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(naive._FORWARDS, FAMILY, naive_forward)


CONTRACTS: list[Callable[[str], None]] = [
    test_families.test_log_probs_equal_the_naive_way,
    test_families.test_hypotheses_do_not_depend_on_the_company,
    test_families.test_samples_of_a_group_do_not_depend_on_its_size,
    test_families.test_sampling_restores_training_modes_and_leaves_no_graph,
    test_families.test_log_probs_do_not_depend_on_the_longest_clip,
    test_families.test_contexts_select_move_and_know_their_size,
    test_five_steps.test_the_shared_prefix_ends_where_the_naive_way_does,
    test_checkpointing.test_the_switch_of_transformers_loses_nothing,
    test_loading.test_a_spec_names_its_weights,
]


@pytest.mark.parametrize(
    "contract", CONTRACTS, ids=lambda contract: contract.__name__.removeprefix("test_")
)
def test_contracts_of_every_family(contract: Callable[[str], None]) -> None:
    contract(FAMILY)


@pytest.mark.parametrize(
    "changes", [{}, {"temperature": 1.3, "top_p": 0.8, "top_k": 5}, {"temperature": 0.0}]
)
def test_rollout_and_update_log_probs_agree(changes: dict[str, float]) -> None:
    test_families.test_rollout_and_update_log_probs_agree(FAMILY, changes)


@pytest.mark.parametrize("mode", ["all", "last", "lora"])
def test_gradients_of_every_mode(mode: str) -> None:
    test_families.test_gradients_equal_the_naive_way(FAMILY, mode, mode == "all")
    test_families.test_gradients_equal_the_naive_way_in_float64(FAMILY, mode)
    test_checkpointing.test_checkpointing_changes_no_bit(FAMILY, mode)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_autocast(checkpointing: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    test_checkpointing.test_autocast_keeps_what_needs_precision_in_float32(
        FAMILY, checkpointing, monkeypatch
    )


def test_loading_and_export(tmp_path: Path) -> None:
    contracts: list[Callable[[Path], None]] = [
        functools.partial(test_loading.test_records_are_plain_and_come_back, FAMILY),
        functools.partial(test_loading.test_an_exported_folder_is_the_same_policy, FAMILY),
        functools.partial(test_loading.test_a_chain_of_checkpoints_is_rebuilt, FAMILY, True),
        functools.partial(test_export.test_merged_export_equals_the_live_model, FAMILY, "lora"),
    ]
    for number, contract in enumerate(contracts):
        folder = tmp_path / str(number)
        folder.mkdir()
        contract(folder)


@pytest.mark.parametrize(
    ("mode", "training", "checkpointing"), [("all", True, True), ("lora", False, False)]
)
@pytest.mark.parametrize("duration_s", [None, 1.7])
def test_a_speaker_prompt_moves_its_own_group_only(
    mode: str, training: bool, checkpointing: bool, duration_s: float | None
) -> None:
    """Another voice, of the same and of another length; so does another text."""
    policy, batch = (
        make(FAMILY, mode, checkpointing=checkpointing).train(training),
        batch_of(list("dabc")),
    )
    rollout = random_rollout(policy, len(batch), 3)
    before = log_probs(policy, policy.encode(batch), rollout)
    for i in (0, 2):
        clips = [batch.waveform[k, : int(n)] for k, n in enumerate(batch.num_samples)]
        clips[i] = clip("another", 2.0)[
            : len(clips[i]) if duration_s is None else int(duration_s * RATE_HZ)
        ]
        num_samples = torch.tensor([len(wave) for wave in clips])
        voice = replace(
            batch, waveform=pad_sequence(clips, batch_first=True), num_samples=num_samples
        )
        rows = [
            replace(row, text="three one") if k == i else row for k, row in enumerate(batch.rows)
        ]
        for changed in (voice, replace(batch, rows=tuple(rows))):
            moved = (log_probs(policy, policy.encode(changed), rollout) - before).abs().amax(-1)
            assert (moved[i] > 1e-2).all(), (
                f"prompt {i} is not read by its own samples: {moved[i].tolist()}"
            )
            others = moved[[b for b in range(len(batch)) if b != i]]
            assert_close(others, torch.zeros_like(others), "policy")


# --- speech in, speech out


def test_only_speech_and_stop_are_allowed() -> None:
    policy = make(FAMILY)
    names = policy.tokenizer.convert_ids_to_tokens(policy.allowed.nonzero().squeeze(-1).tolist())
    assert sorted(names) == sorted([*(f"<|s_{code}|>" for code in range(16)), "<|im_end|>"])
    logits = policy.head(torch.randn(2, 3, 32))
    assert torch.equal(torch.isfinite(logits), policy.allowed.expand(2, 3, -1))


def test_decode_gives_the_codes_as_sound() -> None:
    """Whatever the batches; without the stop token; nothing said is an empty waveform, not an error."""
    policy = make(FAMILY)
    context = policy.encode(batch_of(NAMES))
    rollout = policy.sample(context, 4, DECODING, KEY)
    rollout.tokens[1, 2, 0] = policy.stop_ids[0]
    rollout.keep[1, 2, 1:] = False
    groups = policy.decode(rollout, context)
    assert [len(group) for group in groups] == [4, 4, 4]
    assert sum(bool(done) for done in rollout.finished.flatten()) > 2
    for b, group in enumerate(groups):
        for g, speech in enumerate(group):
            kept = rollout.tokens[b, g, rollout.keep[b, g]].tolist()
            codes = [
                policy.token_to_code[token].item() for token in kept if token != policy.stop_ids[0]
            ]
            assert speech.codes.tolist() == codes
            assert speech.waveform.shape == (640 * len(codes),)
            assert speech.waveform.device == speech.codes.device == torch.device("cpu")
            assert speech.sample_rate_hz == RATE_HZ
            if codes:
                heard, _ = policy.codec.encode(
                    speech.waveform[None], torch.tensor([len(speech.waveform)])
                )
                assert heard[0].tolist() == codes
    assert groups[1][2].duration_s == 0
    one_by_one = speech_policy(SPECS[FAMILY], limits=SpeechLimits(codec_batch_size=1))
    again = one_by_one.decode(rollout, context)
    for group, same in zip(groups, again, strict=True):
        assert all(torch.equal(x.waveform, y.waveform) for x, y in zip(group, same, strict=True))
    assert len(one_by_one.codec.conditions) == 11
    assert len(policy.codec.conditions) == 1


def test_the_decoder_gets_each_samples_own_speaker_prompt() -> None:
    policy, batch = make(FAMILY), batch_of(NAMES)
    context = policy.encode(batch)
    rollout = policy.sample(context, 2, DECODING, KEY)
    policy.decode(rollout, context)
    condition = policy.codec.conditions[-1]
    order = sorted(
        range(6),
        key=lambda row: rollout.lengths.flatten()[row] - rollout.finished.flatten()[row].int(),
    )
    assert condition.sample_rate_hz == RATE_HZ
    for place, row in enumerate(order):
        num = int(batch.num_samples[row // 2])
        assert int(condition.num_samples[place]) == num
        assert torch.equal(condition.waveform[place, :num], batch.waveform[row // 2, :num])
        codes = condition.codes[place, : int(condition.lengths[place])]
        assert codes.tolist() == context.prompt_codes[row // 2]


def test_targets_are_the_recordings() -> None:
    policy, batch = make(FAMILY), with_targets(batch_of(NAMES))
    context = policy.encode(batch)
    assert policy.num_encoded == 6
    targets = policy.targets(context, batch.texts)
    assert targets.lengths.tolist() == [[4], [6], [8]]
    for b, (speech,) in enumerate(policy.decode(targets, context)):
        num = int(batch.target_num_samples[b])
        assert_close(speech.waveform, batch.target_waveform[b, :num])
        assert targets.tokens[b, 0, targets.keep[b, 0]][-1] == policy.stop_ids[0]
    naively = naive.naive_log_probs(FAMILY, policy, batch, targets)
    assert_close(log_probs(policy, context, targets), naively, "policy")
    part = policy.targets(context.select([2, 0]), ["", ""])
    assert part.tokens[1, 0, :4].tolist() == targets.tokens[0, 0, :4].tolist()
    with pytest.raises(ValueError, match=r"row 'a': no recording of its text to learn from"):
        policy.targets(policy.encode(batch_of(NAMES)), batch.texts)


def test_rows_without_a_speaker_prompt() -> None:
    policy, prompted = make(FAMILY), batch_of(NAMES)
    rows = tuple(Utterance(row.id, (), row.text, 1.0) for row in prompted.rows)
    context = policy.encode(
        PromptBatch(torch.zeros(3, 0), torch.zeros(3, dtype=torch.long), RATE_HZ, rows)
    )
    assert policy.num_encoded == 0
    assert context.prompt_lengths == [4, 4, 4]
    policy.decode(policy.sample(context, 2, DECODING, KEY), context)
    assert policy.codec.conditions == [None]
    both = context.join([policy.encode(prompted)])
    assert both.select([0, 4]).prompt_num_samples.tolist() == [0, int(prompted.num_samples[1])]
    scored = log_probs(policy, both, random_rollout(policy, 6, 2))
    assert torch.isfinite(scored).all()


@pytest.mark.parametrize(
    ("tokens_per_char", "seconds", "expected"),
    [(0.0, 1.0, [11, 11]), (1.0, 1.0, [7, 11]), (2.5, 1.0, [11, 11]), (2.5, 9.0, [11, 20])],
)
def test_the_lower_of_two_caps_counts(
    tokens_per_char: float, seconds: float, expected: list[int]
) -> None:
    """Texts of 3 and 13 characters: 4 + x per character; 3 + 8 per second; never over 20."""
    policy = speech_policy(SPECS[FAMILY], limits=SpeechLimits(tokens_per_char, min_cap=4))
    policy.allowed[policy.stop_ids] = False
    batch = batch_of(["a", "b"])
    texts = ("one", "one two three")
    rows = tuple(
        replace(row, text=text, duration_s=seconds)
        for row, text in zip(batch.rows, texts, strict=True)
    )
    context = policy.encode(replace(batch, rows=rows))
    rollout = policy.sample(
        context, 2, Decoding(tokens_per_second=8.0, min_cap=3, max_new_tokens=20), KEY
    )
    assert rollout.lengths.tolist() == [[length] * 2 for length in expected]
    assert not rollout.finished.any()


def test_without_a_setting_the_cap_is_twice_the_frame_rate() -> None:
    policy = speech_policy(SPECS[FAMILY])
    rate = policy.codec.frame_rate_hz
    context = policy.encode(batch_of(["a"]))
    context.durations_s[0] = 0.5
    assert policy.caps(context, Decoding(min_cap=3)) == [3 + int(rate)]
    assert policy.caps(context, Decoding(min_cap=3, tokens_per_second=2.0)) == [4]


def test_speech_ends_with_the_models_context() -> None:
    policy = make(FAMILY)
    policy.allowed[policy.stop_ids] = False
    context = policy.encode(batch_of(["a"]))
    rollout = policy.sample(context, 2, Decoding(max_new_tokens=400, min_cap=400), KEY)
    assert rollout.tokens.shape[-1] == SPECS[FAMILY].max_positions - context.prompt_lengths[0]


def test_synthesize_says_a_text_in_a_voice() -> None:
    policy = make(FAMILY)
    voice = SpeakerPrompt(clip("a", 1.0)[::2], RATE_HZ // 2, "one two")
    decoding = Decoding(max_new_tokens=20, min_cap=20)
    said = policy.synthesize("three", voice, decoding, seed=1)
    assert said.ndim == 1
    assert len(said) % 640 == 0
    assert torch.equal(said, policy.synthesize("three", voice, decoding, seed=1))
    others = [
        policy.synthesize("three", voice, decoding, seed=2),
        policy.synthesize("three", None, decoding, seed=1),
    ]
    assert not any(said.shape == other.shape and torch.equal(said, other) for other in others)


def test_the_tiny_codec_of_our_own() -> None:
    """Real audio path: encode, sample, decode; a sample sounds the same whoever it is decoded with."""
    codec = TinyCodec(TinyCodecConfig(levels=(4, 4), width=16, layers=1, num_mels=24, iterations=2))
    policy = speech_policy(SPECS[FAMILY], codec=codec)
    context = policy.encode(batch_of(NAMES))
    assert [len(codes) for codes in context.prompt_codes] == codec.num_codes(
        context.prompt_num_samples
    ).tolist()
    rollout = policy.sample(context, 2, DECODING, KEY)
    together, alone = (
        policy.decode(rollout, context),
        policy.decode(rollout.select([1]), context.select([1])),
    )
    with torch.autocast("cpu", dtype=torch.bfloat16):
        again = policy.decode(rollout, context)
        assert policy.encode(batch_of(NAMES)).prompt_codes == context.prompt_codes
    assert torch.equal(again[0][0].waveform, together[0][0].waveform)
    for one, other in zip(together[1], alone[0], strict=True):
        assert one.codes.tolist() == other.codes.tolist()
        assert_close(one.waveform, other.waveform, "policy")
        assert one.duration_s == pytest.approx(len(one.codes) / codec.frame_rate_hz)


# --- a codec is not the policy's to change


def test_the_codec_is_frozen_and_placed_as_a_part() -> None:
    policy = make(FAMILY).train()
    assert policy.model.training
    assert not policy.codec.training
    assert not any("codec" in name for name in policy.trainable())
    parts = policy.parts()
    held = {id(p) for modules in parts.values() for module in modules for p in module.parameters()}
    assert held == {id(p) for p in policy.parameters()}
    assert parts["codec"] == [policy.codec]


def test_another_codec_is_another_start(tmp_path: Path) -> None:
    first = speech_policy(SPECS[FAMILY])
    before = content_hash(first)
    disturb(first)
    path = test_loading.save_checkpoint(first, tmp_path / "one.ckpt", before)
    saved = torch.load(path, weights_only=True)
    assert not any("codec" in name for name in saved["state_dict"])
    assert content_hash(speech_policy(path)) == content_hash(first)
    other = ToneCodec()
    other.gain.data.fill_(0.4)
    with pytest.raises(ValueError, match="its run began from other weights"):
        speech_policy(path, codec=other)
    resumed = SFT(speech_policy(SPECS[FAMILY], codec=other), 1)
    resumed._stage = "fit"
    with pytest.raises(ValueError, match="its run began from other weights"):
        resumed.on_load_checkpoint(saved)


def test_an_export_speaks_in_transformers_as_the_policy_does(tmp_path: Path) -> None:
    policy, batch = make(FAMILY), batch_of(NAMES)
    context = policy.encode(batch)
    decoding = Decoding(temperature=0.0, max_new_tokens=20, min_cap=20)
    rollout = policy.sample(context, 1, decoding, KEY)
    ours = [rollout.tokens[b, 0, rollout.keep[b, 0]].tolist() for b in range(len(batch))]
    assert rollout.finished.any()
    assert len({tuple(tokens) for tokens in ours}) > 1, f"this compares next to nothing: {ours}"
    policy.export(str(tmp_path))
    model, tokenizer = (
        AutoModelForCausalLM.from_pretrained(tmp_path).eval(),
        AutoTokenizer.from_pretrained(tmp_path),
    )
    assert tokenizer.get_vocab() == policy.tokenizer.get_vocab()
    assert not any("codec" in name for name in model.state_dict())
    for ids, tokens in zip(context.tokens, ours, strict=True):
        prompt = torch.tensor([ids])
        said = model.generate(
            prompt, attention_mask=torch.ones_like(prompt), do_sample=False, max_new_tokens=20
        )
        assert said[0, len(ids) :].tolist() == tokens


def test_a_cosyvoice2_language_model_keeps_the_bias_of_its_head(tmp_path: Path) -> None:
    """As the published conversion leaves it: a bias of -inf on text; transformers' own class would drop it."""
    tokenizer = cosyvoice_tokenizer()
    config = Qwen2Config(
        vocab_size=len(tokenizer) + 5,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=256,
        tie_word_embeddings=False,
        use_bias=True,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Qwen2WithHeadBias(config)
        torch.nn.init.normal_(model.lm_head.bias)
    model.lm_head.bias.data[:250] = -torch.inf
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    policy = SpeechLMPolicy(str(tmp_path), ToneCodec(12), CosyVoice2Template()).eval()
    assert torch.equal(policy.model.lm_head.bias, model.lm_head.bias)
    assert len(policy.stop_ids) == 3
    batch = batch_of(NAMES)
    context = policy.encode(batch)
    rollout = policy.sample(context, 3, DECODING, KEY)
    scored = log_probs(policy, context, rollout)
    assert_close(scored, rollout.log_probs, "policy")
    (scored * rollout.keep).sum().backward()
    assert all(
        torch.isfinite(p.grad).all() for p in policy.trainable().values() if p.grad is not None
    )


# --- bad input


def spoiled(name: str, **changes: Any) -> PromptBatch:
    batch = batch_of(NAMES)
    rows = tuple(replace(row, **changes) if row.id == name else row for row in batch.rows)
    return replace(batch, rows=rows)


def resounded(
    name: str, waveform: Tensor, segments: tuple[Segment, ...] = (Segment("x.wav"),)
) -> PromptBatch:
    batch = spoiled(name, segments=segments)
    clips = [
        waveform if row.id == name else wave[:num]
        for row, wave, num in zip(
            batch.rows, batch.waveform, batch.num_samples.tolist(), strict=True
        )
    ]
    num_samples = torch.tensor([len(wave) for wave in clips])
    return replace(batch, waveform=pad_sequence(clips, batch_first=True), num_samples=num_samples)


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        (
            spoiled("b", text="one nine"),
            r"row 'b': text 'one nine' is outside the tokenizer's vocabulary \(\['nine'\]",
        ),
        (spoiled("b", text=""), r"row 'b': the text is empty"),
        (spoiled("b", extra={"prompt_text": "one x"}), r"row 'b': text 'one x' is outside"),
        (spoiled("b", extra={}), r"row 'b': the speaker prompt has audio but no text"),
        (
            spoiled("b", text="one " * 100),
            r"row 'b': text and speaker prompt are \d+ tokens; the model reads 128",
        ),
        (
            resounded("b", clip("b", 0.1)),
            r"row 'b': a speaker prompt of 0.100 s; this policy takes 0.2 to 2.5 s",
        ),
        (resounded("b", clip("b", 2.6)), r"row 'b': a speaker prompt of 2.600 s"),
        (
            resounded("b", torch.zeros(9000)),
            r"row 'b': its speaker prompt is silent or not finite \(-inf dBFS",
        ),
        (
            resounded("b", 1e-4 * clip("b", 1.0)),
            r"row 'b': its speaker prompt is silent or not finite \(-9\d dBFS",
        ),
        (
            resounded("b", torch.full((9000,), torch.nan)),
            r"row 'b': its speaker prompt is silent or not finite \(nan",
        ),
        (resounded("b", torch.zeros(0)), r"row 'b': the audio of its speaker prompt is empty"),
        (
            replace(batch_of(NAMES), sample_rate_hz=8000),
            r"the codec wants 16000 Hz audio, got 8000",
        ),
    ],
)
def test_bad_input_names_the_row(batch: PromptBatch, message: str) -> None:
    policy = speech_policy(SPECS[FAMILY], limits=SpeechLimits(max_prompt_s=2.5))
    with pytest.raises(ValueError, match=message):
        policy.encode(batch)


def test_what_does_not_fit_together_is_refused() -> None:
    with pytest.raises(
        ValueError, match="the codec has 8 codes, the language model's tokenizer 16 speech tokens"
    ):
        speech_policy(SPECS[FAMILY], codec=ToneCodec(8))
    two = ToneCodec()
    two.num_codebooks = 2
    with pytest.raises(
        ValueError, match="ToneCodec has 2 codebooks; a policy speaks one code per frame"
    ):
        speech_policy(SPECS[FAMILY], codec=two)
    with pytest.raises(ValueError, match="the start is a TinyWhisper; expected TinySpeechLM"):
        speech_policy(SPECS["whisper"])
    for settings in (
        {"min_cap": 0},
        {"tokens_per_char": -1.0},
        {"min_prompt_s": 3.0, "max_prompt_s": 2.0},
    ):
        with pytest.raises(ValueError, match="SpeechLimits: want"):
            SpeechLimits(**settings)


def test_yaml_sets_every_part() -> None:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(SpeechLMPolicy, "policy")
    sizes = {"characters": "abc ", "width": 16, "layers": 1, "heads": 2, "num_codes": 16}
    template = {"class_path": "lightning_audiorl.models.PlainTemplate"}
    settings = {
        "init_from": sizes,
        "template": template,
        "limits": {"tokens_per_char": 3.0, "min_cap": 5},
    }
    codec = {"class_path": "tests.models.families.ToneCodec", "init_args": {"cardinality": 16}}
    policy = parser.instantiate_classes(
        parser.parse_object({"policy": {**settings, "codec": codec}})
    ).policy
    assert policy.limits == SpeechLimits(tokens_per_char=3.0, min_cap=5)
    assert policy.tokenizer.tokenize("a b") == ["a", " ", "b"]


# --- training, with the algorithms as they are


class LowTones(Reward):
    """The share of codes below 8; silence is worst."""

    def __init__(self) -> None:
        super().__init__(1.0, "low_tones")

    def score(self, hypotheses: Sequence[Hypothesis]) -> list[float]:
        spoken = [
            hypothesis.speech.codes for hypothesis in hypotheses if hypothesis.speech is not None
        ]
        assert len(spoken) == len(hypotheses)
        return [float((codes < 8).float().mean()) if len(codes) else -1.0 for codes in spoken]


def grpo(num_steps: int = 2, **settings: Any) -> GRPO:
    settings = {
        "group_size": 4,
        "beta": 0.04,
        "decoding": DECODING,
        "micro_batch_size": 2,
        "num_updates": 2,
    } | settings
    optim, rewards = Optim(lr=1e-3), RewardMix([LowTones()])
    return GRPO(make(FAMILY), num_steps, optim=optim, rewards=rewards, **settings)


def sft() -> SFT:
    return SFT(make(FAMILY), 2, optim=Optim(lr=1e-3), micro_batch_size=2)


class Parked(Callback):
    """Whether the codec holds values in the update phase."""

    def __init__(self) -> None:
        self.codec_values: set[int] = set()

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: Any, optimizer: Any) -> None:
        self.codec_values.add(pl_module.policy.codec.gain.numel())


def batches() -> list[PromptBatch]:
    return [with_targets(batch_of(NAMES)) for _ in range(4)]


@pytest.mark.parametrize("kind", [grpo, sft])
def test_two_steps_with_phases_and_without(kind: Callable[[], Any]) -> None:
    parked = Parked()
    plain, placed = (
        fit(kind(), batches()),
        fit(kind(), batches(), parked, strategy=PhaseSingleDevice("offload")),
    )
    assert parked.codec_values == {0}
    assert len(plain.weights) == 2
    assert plain.metrics[0]["grad_norm"] > 0
    assert [m["loss"] for m in plain.metrics] == [m["loss"] for m in placed.metrics]
    for one, other in zip(
        [*plain.gradients, *plain.weights], [*placed.gradients, *placed.weights], strict=True
    ):
        assert one.keys() == other.keys()
        assert all(torch.equal(one[name], other[name]) for name in one)
    first, last = plain.weights
    assert any(not torch.equal(first[name], last[name]) for name in first)


def test_the_reward_of_grpo_is_of_speech() -> None:
    module = grpo(num_updates=1)
    recorder = fit(module, batches())
    first, second = recorder.metrics
    assert first["kl"] == 0 < second["kl"]
    assert -1 < first["reward/low_tones/mean"] < 1
    assert first["seconds/reward"] > 0
    assert module.policy.num_encoded == 2 * (3 + 3)


class SaveAt(Callback):
    """A checkpoint after RL step ``rl_step``, and there the run dies."""

    def __init__(self, rl_step: int, path: Path) -> None:
        self.rl_step, self.path = rl_step, path

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, *_: Any) -> None:
        if pl_module.rl_step == self.rl_step:
            trainer.save_checkpoint(self.path)
            raise RuntimeError("killed")


def test_killed_and_resumed_is_the_whole_run(tmp_path: Path) -> None:
    whole: Recorder = fit(grpo(3), batches())
    with pytest.raises(RuntimeError, match="killed"):
        fit(grpo(3), batches(), SaveAt(1, tmp_path / "one.ckpt"))
    rest = fit(grpo(3), batches(), ckpt_path=str(tmp_path / "one.ckpt"))
    assert len(rest.weights) == 2
    for name, value in whole.weights[-1].items():
        assert torch.equal(value, rest.weights[-1][name])
    assert [m["reward/mean"] for m in whole.metrics[1:]] == [m["reward/mean"] for m in rest.metrics]
    assert [m["loss"] for m in whole.metrics[1:]] == [m["loss"] for m in rest.metrics]
