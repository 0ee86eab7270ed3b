"""A fake engine: a process over our own sampling loop, with a switch for each way in which a real one may be wrong."""

from __future__ import annotations

import math
import multiprocessing
import os
import socket
import threading
import time
from collections.abc import Sequence
from typing import IO, Any, Literal

import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoModelForCausalLM

from lightning_audiorl.models.decoding.sampling import sample
from lightning_audiorl.models.policy import SampleKey
from lightning_audiorl.serving import VllmEngine
from lightning_audiorl.serving.process import Message, Server, Wire
from lightning_audiorl.types import Decoding

Fault = Literal["", "stale", "raw", "nan", "death", "hang", "forbidden", "no weights", "failure"]


class Recomputed:
    """The decoder's state without a cache: all is computed again for each token."""

    def __init__(self, model: Any, prompts: Sequence[Tensor]) -> None:
        self.model = model
        flipped = [prompt.flip(0) for prompt in prompts]
        ones = [torch.ones(len(prompt), dtype=torch.long) for prompt in prompts]
        self.embeds = pad_sequence(flipped, batch_first=True).flip(1)
        self.mask = pad_sequence(ones, batch_first=True).flip(1)
        self._compute()

    def _compute(self) -> None:
        positions = (self.mask.cumsum(-1) - 1).clamp(min=0)
        out = self.model.model(
            inputs_embeds=self.embeds,
            attention_mask=self.mask,
            position_ids=positions,
            use_cache=False,
        )
        self.states = out.last_hidden_state
        self.hidden = self.states[:, -1]

    def advance(self, tokens: Tensor) -> None:
        embedded = self.model.get_input_embeddings()(tokens[:, None])
        self.embeds = torch.cat([self.embeds, embedded], dim=1)
        self.mask = torch.cat([self.mask, torch.ones(len(tokens), 1, dtype=torch.long)], dim=1)
        self._compute()

    def select(self, rows: Tensor) -> None:
        self.embeds = self.embeds[rows]
        self.mask = self.mask[rows]
        self.hidden = self.hidden[rows]


# transformers patches the initialisers of the process while it loads: of two threads at once, one leaves them patched.
_LOADING = threading.Lock()


class FakeBackend:
    """What `process.Vllm` is to the real process.

    Args:
        fault: what is wrong with it.
    """

    def __init__(self, fault: Fault = "") -> None:
        self.fault = fault
        self.model: Any = None

    def require(self) -> None:
        pass

    def load(self, folder: str, settings: Message) -> Message:
        dtype = getattr(torch, settings["dtype"])
        with _LOADING:
            self.model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval()
        return {"engine": "fake"}

    def push(self, folder: str) -> None:
        if self.fault == "stale":
            return
        if self.fault == "failure":
            raise KeyError("lm_head.weight")
        found = load_file(f"{folder}/model.safetensors")
        _, unexpected = self.model.load_state_dict(found, strict=False)
        assert not unexpected

    def sample(
        self, request: Message, prompts: list[Tensor]
    ) -> list[tuple[list[int], list[float]]]:
        if self.fault == "death":
            os.write(1, b"out of memory, says the fake\n")
            os._exit(7)
        if self.fault == "hang":
            time.sleep(60)

        group_size = len(request["seeds"][0])
        rows = [prompt for prompt in prompts for _ in range(group_size)]
        caps = [cap for cap in request["caps"] for _ in range(group_size)]
        seeds = [str(seed) for seeds in request["seeds"] for seed in seeds]
        with torch.no_grad():
            state = Recomputed(self.model, rows)
            allowed = torch.tensor(request["allowed"])
            rollout = sample(
                state,
                lambda hidden: self._logits(hidden, allowed),
                request["stops"],
                seeds,
                1,
                caps,
                Decoding(temperature=request["temperature"]),
                SampleKey(0, 0),
            )
        out = []
        for row, prompt in enumerate(rows):
            length = int(rollout.lengths[row])
            tokens = rollout.tokens[row, 0, :length].tolist()
            log_probs = rollout.log_probs[row, 0, :length].tolist()
            out.append(self._wrong(prompt, tokens, log_probs))
        return out

    def _logits(self, hidden: Tensor, allowed: Tensor) -> Tensor:
        logits = self.model.lm_head(hidden)
        forbidden = torch.full_like(logits, -torch.inf)
        return forbidden.index_copy(-1, allowed, logits.index_select(-1, allowed))

    def _wrong(
        self, prompt: Tensor, tokens: list[int], log_probs: list[float]
    ) -> tuple[list[int], list[float]]:
        if self.fault == "nan":
            log_probs[-1] = math.nan
        if self.fault == "forbidden":
            tokens[0] = 0
        if self.fault == "raw":
            # Before temperature and allowed tokens.
            state = Recomputed(self.model, [prompt])
            for place, token in enumerate(tokens):
                raw = self.model.lm_head(state.hidden).log_softmax(-1)
                log_probs[place] = float(raw[0, token])
                state.advance(torch.tensor([token]))
        return tokens, log_probs


class FakeEngine(VllmEngine):
    """A `VllmEngine` whose process is a `FakeBackend`.

    Args:
        faults: of the first process, of the second one, and so on; the last stays.
        settings: of `VllmEngine`.

    Attributes:
        launched: the processes so far.
    """

    def __init__(self, faults: Sequence[Fault] = ("",), **settings: Any) -> None:
        super().__init__(**settings)
        self.faults = list(faults)
        self.launched: list[_Forked] = []

    def launch(self, end: socket.socket, log: IO[bytes]) -> _Forked:
        fault = self.faults[min(len(self.launched), len(self.faults) - 1)]
        self.launched.append(_Forked(end, log, fault))
        return self.launched[-1]


class _Forked:
    """A fork of this process, which has read torch and transformers already."""

    def __init__(self, end: socket.socket, log: IO[bytes], fault: Fault) -> None:
        context = multiprocessing.get_context("fork")
        self._process = context.Process(target=_serve, args=(end, log, fault), daemon=True)
        self._process.start()
        assert self._process.pid is not None
        self.pid = self._process.pid

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise TimeoutError
        return self._process.exitcode


def _serve(end: socket.socket, log: IO[bytes], fault: Fault) -> None:
    os.setpgid(0, 0)
    os.dup2(log.fileno(), 1)
    os.dup2(log.fileno(), 2)
    # A fork has none of its parent's threads.
    torch.set_num_threads(1)
    Server(FakeBackend(fault)).serve(Wire(end))
    os._exit(0)
