"""The file that runs in the engine's environment, by itself: messages, keys, and what it refuses."""

from __future__ import annotations

import ast
import importlib.util
import socket
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from lightning_audiorl.models import SampleKey
from lightning_audiorl.serving import EngineError, EngineLostError, VllmEngine, process
from lightning_audiorl.serving.connection import Address
from lightning_audiorl.serving.process import (
    PROTOCOL,
    Server,
    Wire,
    describe,
    is_known,
    prove,
    version_of,
)
from tests.models.families import DECODING, batch_of, disturb, make
from tests.serving.fake import FakeBackend


def pair() -> list[Wire]:
    return [Wire(end) for end in socket.socketpair()]


def asked(server: Server, message: dict[str, Any]) -> dict[str, Any]:
    here, there = pair()
    thread = threading.Thread(target=server.serve, args=(there,))
    thread.start()
    here.send({"protocol": PROTOCOL, **message})
    answer, _ = here.receive()
    here.connection.close()
    thread.join()
    return answer


class Listed:
    """A backend that writes down what it is asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def require(self) -> None:
        pass

    def load(self, folder: str, settings: Any) -> dict[str, Any]:
        self.asked.append("load")
        return {"engine": "listed"}

    def push(self, folder: str) -> None:
        self.asked.append("push")

    def sample(self, request: Any, prompts: Any) -> Any:
        raise AssertionError


def test_it_imports_nothing_of_this_package() -> None:
    tree = ast.parse(Path(process.__file__).read_text())
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add((node.module or "").partition(".")[0])
    assert names - set(sys.stdlib_module_names) == {"torch", "safetensors", "vllm"}


def test_modules_beside_it_stand_in_nobodys_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [str(Path(process.__file__).parent), *sys.path])
    process.leave_own_folder()
    assert importlib.util.find_spec("connection") is None
    assert importlib.util.find_spec("torch") is not None


def test_a_python_without_vllm_is_refused_with_the_reason() -> None:
    policy = make("text_lm")
    engine = VllmEngine()
    with pytest.raises(EngineError, match=r"has no vLLM; set the engine's `python`"):
        engine.sample(policy, policy.encode(batch_of(["a"])), 2, DECODING, SampleKey(0, 0))
    engine.close()
    engine = VllmEngine(python="no/python")
    with pytest.raises(EngineError, match=r"VllmEngine\.python: no/python"):
        engine.sample(policy, policy.encode(batch_of(["a"])), 2, DECODING, SampleKey(0, 0))


def test_messages_in_pieces_and_their_end() -> None:
    here, there = pair()
    blob = bytes(3 * 2**20)
    sender = threading.Thread(target=here.send, args=({"op": "x"}, [blob, b""]))
    sender.start()
    message, blobs = there.receive()
    sender.join()
    assert (message, blobs) == ({"op": "x"}, [blob, b""])

    there.limit(0.05)
    with pytest.raises(TimeoutError):
        there.receive()
    here.connection.sendall(b"\xff\xff\xff\xff")
    there.limit(1)
    with pytest.raises(ValueError, match="none of ours"):
        there.receive()
    here.connection.close()
    with pytest.raises(EOFError):
        there.receive()


def test_what_is_hashed_stays_as_it_was() -> None:
    # FSDP2 frees the storage of a weight that it had gathered; what numpy has seen cannot be freed so.
    weights = {"a": torch.arange(6.0).view(2, 3), "none": torch.zeros(0)}
    described = describe(weights)
    assert described["a"][:2] == ["float32", [2, 3]]
    assert described["a"] == describe({"a": torch.arange(6.0).view(2, 3).t().contiguous().t()})["a"]
    for weight in weights.values():
        weight.untyped_storage().resize_(0)


def test_what_is_pushed_is_checked_before_the_engine_is_touched(tmp_path: Path) -> None:
    weights = {"a": torch.ones(3), "b": torch.zeros(2, 2)}
    save_file(weights, tmp_path / "model.safetensors")
    described = describe(weights)
    told = {"folder": str(tmp_path), "tensors": described, "version": version_of(described)}
    backend = Listed()
    server = Server(backend)
    assert asked(server, {"op": "load", "settings": {}, **told})["engine"] == "listed"

    # Other values in the folder than were meant.
    other = describe({"a": torch.ones(3), "b": torch.ones(2, 2)})
    answer = asked(server, {"op": "push", **told, "tensors": other, "version": version_of(other)})
    assert "does not hold what was pushed: ['b']" in answer["refused"]
    # Another model.
    fewer = {"a": described["a"]}
    answer = asked(server, {"op": "push", **told, "tensors": fewer, "version": "new"})
    assert "not those of the model" in answer["refused"]
    # What is served already.
    assert asked(server, {"op": "push", **told})["version"] == told["version"]
    assert backend.asked == ["load"]

    assert "speaks protocol 2, not 0" in asked(server, {"op": "push", "protocol": 0})["refused"]
    assert "no request is called" in asked(server, {"op": "run", **told})["refused"]


def test_only_who_knows_the_key_is_answered() -> None:
    for key, known in ((b"k" * 16, True), (b"j" * 16, False)):
        here, there = pair()
        prover = threading.Thread(target=prove, args=(here, key))
        prover.start()
        assert is_known(there, b"k" * 16) is known
        prover.join()


def test_two_trainings_share_an_engine_by_its_address(tmp_path: Path) -> None:
    key_file = tmp_path / "key"
    key_file.write_text("0123456789abcdef\n")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        server = Server(FakeBackend())
        threading.Thread(
            target=process.answer_all, args=(server, listener, b"0123456789abcdef"), daemon=True
        ).start()

        policy = make("text_lm")
        context = policy.encode(batch_of(["a"]))
        engines = [VllmEngine(address=address, key_file=str(key_file)) for _ in range(2)]
        key = SampleKey(0, 0)
        first, second = (e.sample(policy, context, 2, DECODING, key) for e in engines)
        assert torch.equal(first.tokens, second.tokens)

        # Ranks push the same weights; whoever pushes others is noticed by the one that meant its own.
        disturb(policy)
        engines[0].sample(policy, context, 2, DECODING, SampleKey(0, 1))
        with pytest.raises(EngineError, match="another training pushes to it"):
            engines[1].sample(policy, context, 2, DECODING, key)

        (tmp_path / "other").write_text("fedcba9876543210\n")
        stranger = Address(address, str(tmp_path / "other"), 5)
        with pytest.raises(EngineLostError, match="where the key of the two differs"):
            stranger.ask({"op": "push"}, timeout_s=5)
        for engine in engines:
            engine.close()
