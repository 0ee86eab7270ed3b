"""The process that owns vLLM: one file that runs in an environment of its own and imports nothing of this package.

    python process.py --socket 5                                    a child of the training process
    python process.py --listen 127.0.0.1:5555 --key-file FILE       by itself, for processes that know the key

It answers requests one after the other: ``load`` a folder, ``push`` weights, ``await`` weights that another process
pushes, ``sample``. A message is a line of JSON behind its length, and blobs of bytes behind that; nothing in it is ever
executed.
"""

from __future__ import annotations

import argparse
import ctypes
import hashlib
import hmac
import importlib.util
import json
import os
import secrets
import socket
import struct
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

#: Of the messages; both sides must speak the same.
PROTOCOL = 2

# Longer ones are no messages of ours.
_MAX_HEADER = 2**28
_MAX_BLOB = 2**34
_LENGTH = struct.Struct(">I")

Message = dict[str, Any]


class Refused(Exception):
    """A request that was refused before the engine was touched: it goes on as it was."""


# --- messages


class Wire:
    """Messages over a connected socket.

    Args:
        connection: a stream socket.

    Example:
        >>> here, there = (Wire(end) for end in socket.socketpair())
        >>> here.send({"op": "push"}, [b"abc"])
        >>> there.receive()
        ({'op': 'push'}, [b'abc'])
    """

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self._deadline: float | None = None

    def limit(self, seconds: float | None) -> None:
        """What is sent and received from now on ends within so many seconds; None takes any time."""
        self._deadline = None if seconds is None else time.monotonic() + seconds
        self._set_timeout()

    def send(self, message: Mapping[str, Any], blobs: Sequence[bytes] = ()) -> None:
        """One message.

        Raises:
            TimeoutError: past the limit.
            OSError: where nobody listens any more.
        """
        header = json.dumps({**message, "blobs": [len(blob) for blob in blobs]}).encode()
        self._set_timeout()
        self.connection.sendall(b"".join([_LENGTH.pack(len(header)), header, *blobs]))

    def receive(self) -> tuple[Message, list[bytes]]:
        """The next message and its blobs.

        Raises:
            EOFError: where the other side has gone.
            TimeoutError: past the limit.
            ValueError: for what is no message.
        """
        (length,) = _LENGTH.unpack(self._read(_LENGTH.size))
        if length > _MAX_HEADER:
            raise ValueError(f"a header of {length} bytes is none of ours")
        message = json.loads(self._read(length))

        sizes = message.pop("blobs")
        if any(not 0 <= size <= _MAX_BLOB for size in sizes):
            raise ValueError(f"blobs of {sizes} bytes are none of ours")
        return message, [self._read(size) for size in sizes]

    def _read(self, num: int) -> bytes:
        chunks = bytearray()
        while len(chunks) < num:
            self._set_timeout()
            chunk = self.connection.recv(min(num - len(chunks), 2**20))
            if not chunk:
                raise EOFError("the other side has closed the connection")
            chunks += chunk
        return bytes(chunks)

    def _set_timeout(self) -> None:
        if self._deadline is None:
            self.connection.settimeout(None)
            return
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("no answer in time")
        self.connection.settimeout(left)


def prove(wire: Wire, key: bytes) -> None:
    """Show the other side that we know its key; the key itself is not sent."""
    greeting, _ = wire.receive()
    wire.send({"proof": hmac.new(key, greeting["nonce"].encode(), hashlib.sha256).hexdigest()})


def is_known(wire: Wire, key: bytes) -> bool:
    """Whether the other side knows the key."""
    nonce = secrets.token_hex(16)
    wire.send({"nonce": nonce})
    answer, _ = wire.receive()
    expected = hmac.new(key, nonce.encode(), hashlib.sha256).hexdigest()
    return hmac.compare_digest(expected, str(answer.get("proof", "")))


# --- weights

#: By name: dtype, shape and content hash.
Described = dict[str, list[Any]]


def describe(tensors: Mapping[str, Any]) -> Described:
    """Dtype, shape and content hash of tensors on the CPU, by name."""

    def one(tensor: Any) -> list[Any]:
        content = tensor.detach().contiguous()
        # By its address: numpy would keep FSDP2 from freeing a weight that it has gathered.
        values = (ctypes.c_ubyte * content.nbytes).from_address(content.data_ptr())
        digest = hashlib.blake2b(values, digest_size=16).hexdigest()
        return [str(tensor.dtype).removeprefix("torch."), list(tensor.shape), digest]

    # The hash lets other threads run.
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as threads:
        return dict(zip(tensors, threads.map(one, tensors.values()), strict=True))


def version_of(described: Described) -> str:
    """One hash of a set of tensors.

    Example:
        >>> one = {"head.weight": ["float32", [1, 2], "ab"]}
        >>> version_of(one) == version_of({"head.weight": ["float32", [1, 2], "cd"]})
        False
    """
    text = json.dumps(sorted(described.items()))
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def read_folder(folder: str) -> dict[str, Any]:
    """The tensors in the safetensors files of a folder."""
    from safetensors.torch import load_file

    tensors: dict[str, Any] = {}
    for path in sorted(Path(folder).glob("*.safetensors")):
        tensors |= load_file(path)
    if not tensors:
        raise Refused(f"{folder} holds no safetensors file that this process can see")
    return tensors


def differences(expected: Described, found: Described) -> list[str]:
    """Names of tensors that are not the same in both."""
    names = expected.keys() | found.keys()
    return sorted(name for name in names if expected.get(name) != found.get(name))


# --- what is asked of an engine


class Backend(Protocol):
    """An engine as this process asks it."""

    def require(self) -> None:
        """See that the engine is installed."""

    def load(self, folder: str, settings: Message) -> Message:
        """Serve the model of a folder; what there is to tell of it."""

    def push(self, folder: str) -> None:
        """Serve the weights of a folder, and nothing that was computed under others."""

    def sample(self, request: Message, prompts: list[Any]) -> list[tuple[list[int], list[float]]]:
        """Tokens of each sample, prompt by prompt, and their log-probs under what they were drawn from."""


class Server:
    """Answers requests, one at a time, whoever asks.

    Args:
        backend: the engine.
    """

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self.version = ""
        self._told: Message = {}
        self._served: dict[str, list[Any]] = {}
        # Held while a request is answered; told when other weights are served.
        self._turn = threading.Condition()

    def serve(self, wire: Wire) -> None:
        """Answer one connection until it ends."""
        while True:
            try:
                request, blobs = wire.receive()
            except (EOFError, OSError):
                return
            answer: Message
            out: list[bytes] = []
            try:
                with self._turn:
                    answer, out = self._answer(request, blobs)
            except Refused as error:
                answer = {"refused": str(error)}
            except Exception as error:  # noqa: BLE001 - whatever it is, whoever asked has to know
                import traceback

                traceback.print_exc()
                answer = {"error": f"{type(error).__name__}: {error}"}
            try:
                wire.send(answer, out)
            except OSError:
                return

    def _answer(self, request: Message, blobs: list[bytes]) -> tuple[Message, list[bytes]]:
        if request.get("protocol") != PROTOCOL:
            raise Refused(
                f"the engine's process speaks protocol {PROTOCOL}, not {request.get('protocol')}: it is of another "
                "version of this package"
            )
        if request["op"] == "load":
            return self._load(request), []
        if request["op"] == "push":
            return self._push(request), []
        if request["op"] == "await":
            return self._await(request), []
        if request["op"] == "sample":
            return self._sample(request, blobs)
        raise Refused(f"no request is called {request['op']!r}")

    def _load(self, request: Message) -> Message:
        # A second process of a training finds the model served.
        shapes = {name: entry[:2] for name, entry in request["tensors"].items()}
        if self._served:
            if shapes != self._served:
                raise Refused("another model is served here; start an engine for each")
            return self._told | {"version": self.version}

        self.backend.require()
        self._check(request)
        self._told = self.backend.load(request["folder"], request["settings"])
        self._served = shapes
        self.version = request["version"]
        self._turn.notify_all()
        return self._told | {"version": self.version}

    def _push(self, request: Message) -> Message:
        if request["version"] != self.version:
            shapes = {name: entry[:2] for name, entry in request["tensors"].items()}
            if shapes != self._served:
                raise Refused("the pushed tensors are not those of the model that is served")
            self._check(request)

            self.version = ""
            self.backend.push(request["folder"])
            self.version = request["version"]
            self._turn.notify_all()
        return {"version": self.version}

    def _await(self, request: Message) -> Message:
        seconds = float(request["seconds"])
        # Others are answered meanwhile.
        is_served = self._turn.wait_for(lambda: self.version == request["version"], seconds)
        if not is_served:
            raise Refused(
                f"the weights that this process has were not pushed by another one in {seconds:g} s: that one has "
                "failed, or has other weights"
            )
        return {"version": self.version}

    def _check(self, request: Message) -> None:
        """What lies in the folder is what was meant."""
        wrong = differences(request["tensors"], describe(read_folder(request["folder"])))
        if wrong:
            raise Refused(f"{request['folder']} does not hold what was pushed: {wrong[:3]}")

    def _sample(self, request: Message, blobs: list[bytes]) -> tuple[Message, list[bytes]]:
        import array

        prompts = [
            _tensor(blob, shape, request["dtype"])
            for blob, shape in zip(blobs, request["shapes"], strict=True)
        ]
        samples = self.backend.sample(request, prompts)
        tokens = array.array("i")
        log_probs = array.array("f")
        for some, of_some in samples:
            tokens.extend(some)
            log_probs.extend(of_some)
        answer = {"version": self.version, "lengths": [len(some) for some, _ in samples]}
        return answer, [tokens.tobytes(), log_probs.tobytes()]


def _tensor(blob: bytes, shape: list[int], dtype: str) -> Any:
    import torch

    # A copy that may be written to.
    return torch.frombuffer(bytearray(blob), dtype=getattr(torch, dtype)).view(shape)


# --- vLLM


class Vllm:
    """vLLM in this process."""

    def __init__(self) -> None:
        self.llm: Any = None

    def require(self) -> None:
        """See that there is a vLLM, without loading it."""
        if importlib.util.find_spec("vllm") is None:
            raise Refused(
                f"{sys.executable} has no vLLM; set the engine's `python` to that of an environment which has"
            )

    def load(self, folder: str, settings: Message) -> Message:
        """Start the engine."""
        # One process: it is killed as a whole, and nothing has to be sent on.
        os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
        # Before the import, which reads it.
        os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", str(max(1, round(settings["cache_gib"]))))
        import vllm
        from vllm.platforms import current_platform

        arguments: Message = {
            "model": folder,
            "dtype": settings["dtype"],
            "max_model_len": settings["max_model_len"],
            "skip_tokenizer_init": True,
            "generation_config": "vllm",
            "enable_prompt_embeds": True,
            # By default they are those before temperature and allowed tokens.
            "logprobs_mode": "processed_logprobs",
            "enable_prefix_caching": True,
            "disable_log_stats": True,
        }
        if current_platform.is_cpu():
            # Seeded requests and chunked prefill do not go together there.
            arguments["enable_chunked_prefill"] = False
            arguments["max_num_batched_tokens"] = max(8192, settings["max_model_len"])
        else:
            arguments["kv_cache_memory_bytes"] = int(settings["cache_gib"] * 2**30)
        self.llm = vllm.LLM(**(arguments | settings["arguments"]))
        return {"engine": f"vllm {vllm.__version__}"}

    def push(self, folder: str) -> None:
        """Read the weights anew; what was cached of prompts belongs to the old ones."""
        self.llm.collective_rpc("reload_weights", kwargs={"weights_path": folder})
        if self.llm.reset_prefix_cache() is False:
            raise RuntimeError("vLLM did not empty its prefix cache")

    def sample(self, request: Message, prompts: list[Any]) -> list[tuple[list[int], list[float]]]:
        """G requests of one sample each: their seeds are independent, those of one request with G samples are not."""
        from vllm import SamplingParams

        inputs: list[Any] = []
        params: list[Any] = []
        for prompt, cap, seeds in zip(prompts, request["caps"], request["seeds"], strict=True):
            for seed in seeds:
                inputs.append({"prompt_embeds": prompt})
                chosen = SamplingParams(
                    temperature=request["temperature"],
                    max_tokens=cap,
                    seed=seed,
                    stop_token_ids=request["stops"],
                    allowed_token_ids=request["allowed"],
                    ignore_eos=True,
                    logprobs=0,
                    flat_logprobs=True,
                    detokenize=False,
                )
                params.append(chosen)
        outputs = self.llm.generate(inputs, params, use_tqdm=False)
        return [_sampled(output.outputs[0]) for output in outputs]


def _sampled(completion: Any) -> tuple[list[int], list[float]]:
    """Tokens of a completion and their log-probs."""
    tokens = list(completion.token_ids)
    flat = completion.logprobs
    # Of each place the sampled token stands first.
    log_probs = [float(flat.logprobs[start]) for start in flat.start_indices]
    return tokens, log_probs


# --- the process


def _end_with(parent: int) -> None:
    """End when the training process has ended, also where that could not say so."""
    while os.getppid() == parent:
        time.sleep(5)
    os._exit(1)


def listen(server: Server, place: str, key: bytes) -> None:
    """Answer whoever knows the key, at HOST:PORT."""
    host, _, port = place.rpartition(":")
    host = host or "127.0.0.1"
    with socket.create_server((host, int(port))) as listener:
        print(f"listening on {host}:{listener.getsockname()[1]}", flush=True)
        answer_all(server, listener, key)


def answer_all(server: Server, listener: socket.socket, key: bytes) -> None:
    """Answer each that connects in a thread of its own, until the listener is closed."""
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        given = (server, connection, key)
        threading.Thread(target=_answer_known, args=given, daemon=True).start()


def _answer_known(server: Server, connection: socket.socket, key: bytes) -> None:
    with connection:
        wire = Wire(connection)
        try:
            # Whoever says nothing does not hold a thread for long.
            wire.limit(30)
            if not is_known(wire, key):
                return
            wire.limit(None)
        except (EOFError, OSError, ValueError, KeyError):
            return
        server.serve(wire)


def leave_own_folder() -> None:
    """Python looks first where its script lies: what vLLM imports must not be found among the modules beside it."""
    own = Path(__file__).resolve().parent
    sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != own]


def main(backend: Backend | None = None) -> None:
    """Read the command line, and serve."""
    parser = argparse.ArgumentParser(description="Serve a language model to a training process.")
    parser.add_argument("--socket", type=int, help="an inherited socket")
    parser.add_argument("--listen", help="HOST:PORT")
    parser.add_argument("--key-file", type=Path, help="what --listen is asked with must know")
    arguments = parser.parse_args()

    server = Server(backend or Vllm())
    if arguments.socket is not None:
        threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
        server.serve(Wire(socket.socket(fileno=arguments.socket)))
        # Threads of the engine may still run.
        sys.stdout.flush()
        os._exit(0)

    if arguments.listen is None or arguments.key_file is None:
        parser.error("want --socket, or --listen and --key-file")
    key = arguments.key_file.read_bytes().strip()
    if len(key) < 16:
        parser.error(f"{arguments.key_file}: want a key of 16 characters or more")
    listen(server, arguments.listen, key)


if __name__ == "__main__":
    leave_own_folder()
    main()
