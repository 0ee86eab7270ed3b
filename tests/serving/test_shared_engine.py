"""An engine that several ranks ask by its address: one of them pushes, the others wait, and no one waits in vain."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_audiorl.models import SampleKey
from lightning_audiorl.serving import EngineError, VllmEngine
from lightning_audiorl.serving import vllm_engine as vllm_engine_module
from lightning_audiorl.types import Rollout
from tests.models.families import DECODING, batch_of, disturb, make
from tests.serving.listening import KEY, Counted, listening


@pytest.fixture
def key_file(tmp_path: Path) -> str:
    (tmp_path / "key").write_bytes(KEY)
    return str(tmp_path / "key")


@pytest.fixture
def second_of_two(monkeypatch: pytest.MonkeyPatch) -> None:
    """This process is a rank that waits for another one's pushes."""
    monkeypatch.setattr(vllm_engine_module, "this_rank", lambda: (1, 2))


def sampled(engine: VllmEngine, policy: Any, rl_step: int = 0) -> Rollout:
    context = policy.encode(batch_of(["a", "b"]))
    return engine.sample(policy, context, 2, DECODING, SampleKey(0, rl_step))


def test_a_rank_waits_for_the_one_that_pushes(
    key_file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = Counted()
    policy = make("text_lm")
    found: dict[tuple[int, int], Rollout] = {}
    place = threading.local()
    monkeypatch.setattr(vllm_engine_module, "this_rank", lambda: (place.rank, 2))

    with listening(backend) as address:
        engines = [VllmEngine(address=[address], key_file=key_file) for _ in range(2)]

        def ask(rank: int, rl_step: int) -> None:
            place.rank = rank
            found[rank, rl_step] = sampled(engines[rank], policy, rl_step)

        for rl_step in range(3):
            waiting = threading.Thread(target=ask, args=(1, rl_step))
            waiting.start()
            # Long before anybody pushes.
            waiting.join(0.1)
            assert waiting.is_alive()
            ask(0, rl_step)
            waiting.join(30)
            assert torch.equal(found[0, rl_step].tokens, found[1, rl_step].tokens)
            disturb(policy)

        costs = engines[1].costs()
        for engine in engines:
            engine.close()
    assert backend.asked == {"load": 1, "push": 2, "sample": 6}
    # What it waited stands where the other one's push does.
    assert costs["seconds/push"] > 0.15
    assert costs["seconds/engine_start"] > 0.05


@pytest.mark.fault(
    "Another engine",
    "ranks share it, and the one that pushes fails, or has other weights",
    "the others end when their time is up, saying so",
)
def test_no_rank_waits_for_ever(
    key_file: str, second_of_two: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = make("text_lm")
    backend = Counted()
    with listening(backend) as address:
        told: dict[str, Any] = {"address": address, "key_file": key_file}
        engine = VllmEngine(**told, timeout_s=0.1, start_timeout_s=0.1)
        with pytest.raises(EngineError, match=r"not pushed by another one in 0\.1 s.*has failed"):
            sampled(engine, policy)

        # The first rank has weights that are not this one's.
        monkeypatch.setattr(vllm_engine_module, "this_rank", lambda: (0, 2))
        first = VllmEngine(**told)
        sampled(first, policy)
        monkeypatch.setattr(vllm_engine_module, "this_rank", lambda: (1, 2))
        disturb(policy)
        with pytest.raises(EngineError, match="or has other weights"):
            sampled(engine, policy)
        engine.close()
        first.close()
    assert backend.asked == {"load": 1, "push": 0, "sample": 1}


def test_a_rank_whose_engine_is_new_in_a_step_pushes_itself(
    key_file: str, second_of_two: None
) -> None:
    policy = make("text_lm")
    with listening(Counted()) as old, listening(Counted()) as new:
        engine = VllmEngine(address=[new], key_file=key_file, start_timeout_s=5)
        other = VllmEngine(address=[new, old], key_file=key_file)
        # The first rank has sampled, and the engine was started anew behind it.
        before = sampled(other, policy)
        engine._lost_in = (0, 0)
        again = sampled(engine, policy)
        assert torch.equal(before.tokens, again.tokens)
        engine.close()
        other.close()


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ([], "empty list; leave it out"),
        ("localhost", "'localhost' is no HOST:PORT"),
        (["10.0.0.2:5555", "10.0.0.3:port"], r"'10\.0\.0\.3:port' is no HOST:PORT"),
        (["10.0.0.2:70000"], "no HOST:PORT"),
    ],
)
def test_what_is_no_address_is_refused(address: Any, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        VllmEngine(address=address, key_file="key")


def test_engines_that_nobody_asks_are_told_of(
    key_file: str, caplog: pytest.LogCaptureFixture
) -> None:
    backend = Counted()
    with listening(backend) as address, listening(Counted()) as other:
        engine = VllmEngine(address=[address, other], key_file=key_file)
        sampled(engine, make("text_lm"))
        engine.close()
    assert "has 2 entries, and there are 1 rank(s)" in caplog.text
    assert backend.asked["sample"] == 1
