"""`VllmEngine` against a fake engine: the same numbers as the policy's, and each way of being wrong is found."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_audiorl.models import SampleKey
from lightning_audiorl.serving import (
    EngineError,
    EngineLostError,
    LocalEngine,
    MismatchError,
    VllmEngine,
)
from lightning_audiorl.serving import vllm_engine as vllm_engine_module
from lightning_audiorl.types import Decoding, Rollout
from tests.helpers import assert_close
from tests.models.families import DECODING, batch_of, disturb, log_probs, make
from tests.serving.fake import FakeEngine

HOT = Decoding(temperature=0.7, tokens_per_second=8.0, min_cap=6, max_new_tokens=20)


def sampled(
    engine: Any, policy: Any, names: list[str], rl_step: int = 0, decoding: Decoding = DECODING
) -> Rollout:
    context = policy.encode(batch_of(names))
    return engine.sample(policy, context, 3, decoding, SampleKey(5, rl_step))


@pytest.fixture
def engines() -> Any:
    made: list[FakeEngine] = []

    def make_engine(*faults: Any, **settings: Any) -> FakeEngine:
        made.append(FakeEngine(faults or ("",), **settings))
        return made[-1]

    yield make_engine
    for engine in made:
        engine.close()


def test_the_local_engine_is_the_policys_own_sampler() -> None:
    policy = make("text_lm")
    context = policy.encode(batch_of(["a", "b"]))
    key = SampleKey(5, 2)
    own = policy.sample(context, 3, DECODING, key)
    by_engine = LocalEngine().sample(policy, context, 3, DECODING, key)
    assert torch.equal(own.tokens, by_engine.tokens)
    assert torch.equal(own.log_probs, by_engine.log_probs)


@pytest.mark.parametrize(
    ("family", "mode"),
    [("fun_asr_nano", "all"), ("fun_asr_nano", "lora"), ("text_lm", "lora"), ("speech_lm", "all")],
)
def test_log_probs_agree_before_and_after_pushes(family: str, mode: str, engines: Any) -> None:
    policy = make(family, mode)
    engine = engines()
    names = ["a", "b", "c"]
    for rl_step in range(3):
        rollout = sampled(engine, policy, names, rl_step, HOT)
        context = policy.encode(batch_of(names))
        with torch.no_grad():
            scored = log_probs(policy, context, rollout, temperature=0.7)
        assert_close(scored[rollout.keep], rollout.log_probs[rollout.keep], "policy")

        lengths = rollout.lengths
        caps = torch.tensor(policy.caps(context, HOT))[:, None]
        assert ((lengths <= caps) & (rollout.finished | (lengths == caps))).all()
        disturb(policy)
    assert len(engine.launched) == 1
    assert engine.costs()["engine/first_group_mismatch"] < 1e-4


def test_draws_are_keyed_by_prompt_and_step_alone(engines: Any) -> None:
    policy = make("text_lm")
    engine = engines()
    together = sampled(engine, policy, ["a", "b"])
    alone = sampled(engine, policy, ["b"])
    width = alone.tokens.shape[-1]
    assert torch.equal(together.select([1]).tokens[..., :width], alone.tokens)
    other = sampled(engine, policy, ["b"], rl_step=1)
    assert other.tokens.shape != alone.tokens.shape or not torch.equal(other.tokens, alone.tokens)


# --- what may be wrong with an engine


@pytest.mark.fault(
    "Another engine",
    "vLLM goes on with old weights after a push",
    "the run ends at that step, naming it",
)
def test_stale_weights_are_found(engines: Any) -> None:
    policy = make("text_lm")
    engine = engines("stale")
    sampled(engine, policy, ["a"])
    disturb(policy)
    with pytest.raises(MismatchError, match=r"'a': engine and policy differ by .* on average"):
        sampled(engine, policy, ["a"], rl_step=1)


@pytest.mark.fault(
    "Another engine",
    "vLLM gives log-probs before temperature and allowed tokens",
    "the run ends at its first step, naming it",
)
def test_raw_log_probs_are_found(engines: Any) -> None:
    with pytest.raises(MismatchError, match="log-probs"):
        sampled(engines("raw"), make("text_lm"), ["a"], decoding=HOT)


@pytest.mark.fault(
    "Another engine", "vLLM gives NaN, or a token that is not allowed", "refused by name"
)
@pytest.mark.parametrize(
    ("fault", "says"), [("nan", "log-probs that are none"), ("forbidden", "may not be sampled")]
)
def test_answers_that_cannot_be_are_refused(fault: str, says: str, engines: Any) -> None:
    with pytest.raises(EngineError, match=says):
        sampled(engines(fault), make("text_lm"), ["a"])


@pytest.mark.fault(
    "Another engine",
    "vLLM dies in a step",
    "started again once, the same samples; a second time the run ends with its log",
)
def test_an_engine_that_dies_is_replaced_once(engines: Any) -> None:
    policy = make("text_lm")
    rollout = sampled(engines(), policy, ["a", "b"])
    engine = engines("death", "")
    again = sampled(engine, policy, ["a", "b"])
    assert torch.equal(rollout.tokens, again.tokens)
    assert engine.restarts == 1
    assert engine.costs()["engine/restarts"] == 1

    disturb(policy)
    engine = engines("death")
    with pytest.raises(EngineLostError, match=r"(?s)died in 'sample'.*exit code.*says the fake"):
        sampled(engine, policy, ["a"])
    assert len(engine.launched) == 2
    assert all(process.poll() is not None for process in engine.launched)


def test_a_new_engine_has_the_present_weights(engines: Any) -> None:
    policy = make("text_lm")
    engine = engines()
    sampled(engine, policy, ["a"])
    os.kill(engine.launched[0].pid, 9)
    disturb(policy)
    rollout = sampled(engine, policy, ["a"], rl_step=1)
    assert len(engine.launched) == 2
    fresh = sampled(engines(), policy, ["a"], rl_step=1)
    assert torch.equal(rollout.tokens, fresh.tokens)


@pytest.mark.fault(
    "Another engine", "vLLM hangs", "killed at the time limit, then as where it dies"
)
def test_an_engine_that_hangs_is_killed(engines: Any) -> None:
    engine = engines("hang", timeout_s=0.5)
    with pytest.raises(EngineLostError, match=r"not answered 'sample' in 0\.5 s"):
        sampled(engine, make("text_lm"), ["a"])
    assert all(process.poll() is not None for process in engine.launched)


def test_a_push_that_fails_has_cost_the_engine(engines: Any) -> None:
    policy = make("text_lm")
    engine = engines("failure", "")
    sampled(engine, policy, ["a"])
    disturb(policy)
    sampled(engine, policy, ["a"], rl_step=1)
    assert engine.restarts == 1


# --- what is refused before anything is sent


@pytest.mark.fault(
    "Another engine",
    "prompt embeddings that are not finite, or of another width",
    "refused by the prompt's id before anything is sent",
)
def test_embeddings_that_do_not_fit_are_not_sent(
    engines: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = make("text_lm")
    engine = engines()
    prompt = policy.prompt

    def spoilt(change: Any) -> None:
        monkeypatch.setattr(
            policy, "prompt", lambda *given: (change(prompt(*given)[0]), prompt(*given)[1])
        )
        sampled(engine, policy, ["a"])

    with pytest.raises(EngineError, match="'a': its embeddings are not finite"):
        spoilt(lambda embeds: embeds.index_fill(-1, torch.tensor([3]), torch.nan))
    with pytest.raises(EngineError, match=r"the language model reads \[tokens, 32\]"):
        spoilt(lambda embeds: embeds[..., :-1])
    with pytest.raises(EngineError, match="no floating-point numbers"):
        spoilt(lambda embeds: embeds.long())
    assert not engine.launched


@pytest.mark.fault(
    "Another engine",
    "pushed weights are others, or not finite",
    "refused by name before they are sent",
)
def test_other_weights_are_not_pushed(engines: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    policy = make("text_lm")
    engine = engines()
    sampled(engine, policy, ["a"])
    served = vllm_engine_module.served_weights

    def fewer(given: Any) -> Any:
        weights = served(given)
        weights["model.other.weight"] = weights.pop("model.norm.weight")
        return weights

    monkeypatch.setattr(vllm_engine_module, "served_weights", fewer)
    with pytest.raises(EngineError, match=r"model\.norm\.weight.*nothing was sent"):
        sampled(engine, policy, ["a"], rl_step=1)
    monkeypatch.undo()

    policy.model.model.norm.weight.data[0] = torch.inf
    with pytest.raises(EngineError, match=r"NaN or infinite.*model\.norm\.weight"):
        sampled(engine, policy, ["a"], rl_step=1)
    assert len(engine.launched) == 1


def test_prompts_have_to_fit(engines: Any) -> None:
    engine = engines(max_model_len=8)
    with pytest.raises(ValueError, match=r"row 'a'.*more than the engine's 8"):
        sampled(engine, make("text_lm"), ["a"])
    assert not engine.launched


@pytest.mark.parametrize(
    ("family", "decoding", "says"),
    [
        ("whisper", DECODING, "encoder-decoder"),
        ("granite_speech", DECODING, "of the kind 'granite'"),
        ("text_lm", Decoding(top_k=5), "top_k"),
        ("text_lm", Decoding(temperature=1e-3), "temperature"),
    ],
)
def test_what_it_cannot_do_is_refused(family: str, decoding: Decoding, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        VllmEngine().check(make(family, lively=False), decoding)


def test_nothing_is_left_behind(engines: Any, tmp_path: Path) -> None:
    engine = engines(folder=str(tmp_path))
    sampled(engine, make("text_lm"), ["a"])
    log = Path(engine._link.log_path)
    assert log.exists()
    assert engine.host_bytes > 0
    engine.close()
    assert not list(tmp_path.iterdir())
    assert not log.exists()
