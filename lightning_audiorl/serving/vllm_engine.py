"""`VllmEngine`: completions of a decoder-only policy by vLLM, in a process that may have an environment of its own."""

from __future__ import annotations

import logging
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any, Literal

import torch
from torch import Tensor
from transformers import PreTrainedConfig

from lightning_audiorl import ops
from lightning_audiorl.checks import check_count, check_number
from lightning_audiorl.models.decoding.decoder_only import DecoderOnlyPolicy
from lightning_audiorl.models.decoding.served import (
    num_served,
    require_servable,
    served_config,
    served_weights,
)
from lightning_audiorl.models.policy import Context, Policy, SampleKey
from lightning_audiorl.serving.addresses import Seat, addresses_of, seat_of, this_rank
from lightning_audiorl.serving.base import Engine, EngineMemory
from lightning_audiorl.serving.connection import (
    Address,
    ChildProcess,
    Link,
    Started,
    launch_python,
)
from lightning_audiorl.serving.errors import EngineError, EngineLostError, MismatchError
from lightning_audiorl.serving.process import Described, describe, version_of
from lightning_audiorl.serving.pushed import (
    PushedFolder,
    a_place_for,
    check_same_model,
    on_host,
)
from lightning_audiorl.serving.sample_request import SampleRequest, sample_request
from lightning_audiorl.types import Decoding, Rollout

_log = logging.getLogger(__name__)

Precision = Literal["float32", "bfloat16", "float16"]

#: Mean difference of log-probs that rounding explains: seen were 1e-6 in float32 and 7e-3 in bfloat16.
ROUNDING = {"float32": 1e-4, "bfloat16": 0.05, "float16": 0.05}

# What an engine that waits for others may take longer than it was told to.
_GRACE_S = 30.0

# Below, vLLM samples at another temperature than it is told.
_LEAST_TEMPERATURE = 0.01


class VllmEngine(Engine):
    """Completions by vLLM, of decoder-only policies whose language model is a Llama, Qwen2 or Qwen3.

    Served is the language model alone. Prompts, audio frames among them, are embedded by the policy, once per step. The
    weights are pushed before each step's first sample, adapters merged, and the prefix cache is emptied. Then the first
    group is scored by the policy: where engine and policy differ by more than rounding explains, the run ends. See
    docs/engine.md for what it cannot promise.

    Example, in YAML: ``engine: {class_path: VllmEngine, init_args: {python: envs/vllm/bin/python, cache_gib: 8}}``

    Args:
        python: of the environment that has vLLM; None is that of this process.
        address: HOST:PORT of an engine that runs already, which sees the same ``folder``. Of a list, rank r takes the
            entry r modulo its length; ranks with the same address share the engine, and the first of them pushes for
            all. See docs/engine.md.
        key_file: what it was started with.
        dtype: that the engine computes in; None is that of the policy's weights.
        cache_gib: of keys and values.
        max_model_len: most tokens of prompt and completion; None is what the language model reads.
        max_mismatch: mean difference of log-probs over the tokens of a step's first group that is still taken for
            rounding; None is 1e-4 where both compute in float32, else 0.05.
        timeout_s: of a request, the waiting for ranks that share the engine included; one that takes longer has lost
            the engine.
        start_timeout_s: of its start.
        devices: CUDA_VISIBLE_DEVICES of the engine; None is that of this process.
        folder: that weights are pushed through; None is shared memory.
        arguments: further ones of ``vllm.LLM``.
        environment: further variables of its process.

    Attributes:
        restarts: how often an engine that was lost was replaced.
    """

    def __init__(
        self,
        python: str | None = None,
        address: str | list[str] | None = None,
        key_file: str | None = None,
        dtype: Precision | None = None,
        cache_gib: float = 4.0,
        max_model_len: int | None = None,
        max_mismatch: float | None = None,
        timeout_s: float = 600.0,
        start_timeout_s: float = 900.0,
        devices: str | None = None,
        folder: str | None = None,
        arguments: dict[str, Any] | None = None,
        environment: dict[str, str] | None = None,
    ) -> None:
        check_number("VllmEngine.cache_gib", cache_gib, above=0)
        check_number("VllmEngine.timeout_s", timeout_s, above=0)
        check_number("VllmEngine.start_timeout_s", start_timeout_s, above=0)
        if max_model_len is not None:
            check_count("VllmEngine.max_model_len", max_model_len, at_least=2)
        if max_mismatch is not None:
            check_number("VllmEngine.max_mismatch", max_mismatch, above=0)
        if dtype is not None and dtype not in ROUNDING:
            raise ValueError(f"VllmEngine.dtype={dtype!r}: expected one of {', '.join(ROUNDING)}")
        if (address is None) != (key_file is None):
            raise ValueError("VllmEngine: address and key_file come together")

        self.python = python or sys.executable
        self.addresses = addresses_of(address)
        self.key_file = key_file
        self.dtype = dtype
        self.cache_gib = cache_gib
        self.max_model_len = max_model_len
        self.max_mismatch = max_mismatch
        self.timeout_s = timeout_s
        self.start_timeout_s = start_timeout_s
        self.folder = folder
        self.arguments = dict(arguments or {})
        self.environment = dict(environment or {})
        if devices is not None:
            self.environment["CUDA_VISIBLE_DEVICES"] = devices

        self.restarts = 0
        self._link: Link | None = None
        self._served: Described = {}
        self._version = ""
        # The step whose weights the engine has, whether they were checked, and the step that an engine was lost in.
        self._pushed_for: tuple[int, int] | None = None
        self._is_checked = True
        self._lost_in: tuple[int, int] | None = None

        self._seconds: dict[str, float] = {}
        self._mismatch: float | None = None
        self._pushed_bytes = 0

    # --- what the loop asks

    def check(self, policy: Policy[Any], decoding: Decoding) -> None:
        require_servable(policy)
        if decoding.top_k or decoding.top_p < 1:
            raise ValueError(
                "VllmEngine: it does not say which tokens top_k or top_p have left, which the loss must know; set "
                "decoding.top_k to 0 and decoding.top_p to 1"
            )
        if decoding.temperature < _LEAST_TEMPERATURE:
            raise ValueError(
                f"VllmEngine: decoding.temperature is {decoding.temperature}; vLLM raises what is below "
                f"{_LEAST_TEMPERATURE}"
            )

    def sample(
        self,
        policy: Policy[Any],
        context: Context,
        group_size: int,
        decoding: Decoding,
        key: SampleKey,
    ) -> Rollout:
        """See `Engine.sample`.

        Raises:
            EngineError: where it refuses, or is lost for the second time in one step.
            MismatchError: where it samples from other probabilities than the policy has.
        """
        own = require_servable(policy)
        request = sample_request(own, context, group_size, decoding, key, self._precision(own))
        step = (key.seed, key.rl_step)
        try:
            rollout = self._sampled(own, request, step)
        except EngineLostError as error:
            self.close()
            if self._lost_in == step:
                raise
            self._lost_in = step
            self.restarts += 1
            _log.warning("RL step %d: %s\nIt is started again.", key.rl_step + 1, error)
            # A step is a function of its keys: it is taken anew, under the same weights.
            return self.sample(policy, context, group_size, decoding, key)

        if not self._is_checked:
            self._check_first(own, context.select([0]), rollout.select([0]), request)
            self._is_checked = True
        return rollout

    def costs(self) -> dict[str, float]:
        """Seconds of starts, pushes and checks, the first group's mismatch, and restarts so far."""
        costs = {f"seconds/{name}": seconds for name, seconds in self._seconds.items()}
        if self._mismatch is not None:
            costs["engine/first_group_mismatch"] = self._mismatch
        costs["engine/restarts"] = float(self.restarts)
        self._seconds = {}
        self._mismatch = None
        return costs

    def memory(self, policy: Policy[Any]) -> EngineMemory:
        own = require_servable(policy)
        size: int = getattr(torch, self._precision(own)).itemsize
        where = "on the training's own device"
        if self.addresses:
            where = f"at {', '.join(dict.fromkeys(self.addresses))}"
        elif "CUDA_VISIBLE_DEVICES" in self.environment:
            where = f"on device {self.environment['CUDA_VISIBLE_DEVICES']}"
        return EngineMemory(
            num_served(own) * size,
            int(self.cache_gib * 2**30),
            shares_device=where.startswith("on the training"),
            where=where,
        )

    @property
    def host_bytes(self) -> int:
        return self._pushed_bytes

    def close(self) -> None:
        if self._link is not None:
            self._link.close()
        self._link = None
        self._pushed_for = None

    # --- a sample

    def _precision(self, policy: DecoderOnlyPolicy[Any]) -> str:
        if self.dtype is not None:
            return self.dtype
        return str(next(policy.output.parameters()).dtype).removeprefix("torch.")

    def _sampled(
        self, policy: DecoderOnlyPolicy[Any], request: SampleRequest, step: tuple[int, int]
    ) -> Rollout:
        """The samples of a request, under the policy's weights."""
        request.check_room(self._max_model_len(policy))
        if self._pushed_for != step:
            self._bring(policy, step)
            self._pushed_for = step
            self._is_checked = False

        assert self._link is not None
        message, blobs = request.message()
        answer, out = self._link.ask(message, blobs, timeout_s=self.timeout_s)
        if answer["version"] != self._version:
            raise EngineError(
                "the engine has other weights than were pushed: another training pushes to it, too"
            )
        return request.rollout(answer, out, policy.allowed.device)

    def _max_model_len(self, policy: DecoderOnlyPolicy[Any]) -> int:
        if self.max_model_len is not None:
            return self.max_model_len
        return int(policy.backbone.config.max_position_embeddings)

    # --- weights

    def _bring(self, policy: DecoderOnlyPolicy[Any], step: tuple[int, int]) -> None:
        """The engine has the policy's weights behind this; where there is none, it is started with them."""
        dtype = self._precision(policy)
        with self._timed("push"):
            weights = on_host(served_weights(policy), dtype)
            if self._link is not None:
                check_same_model(self._served, weights)

        # A rank whose engine is new in the midst of a step waits for nobody: the others may be through with it.
        seat = self._seat()
        if seat is not None and not seat.pushes and self._lost_in != step:
            self._await(weights)
        elif self._link is None:
            self._start(weights, served_config(policy, dtype), dtype)
        else:
            with self._timed("push"), PushedFolder(weights, self._place(weights)) as folder:
                self._send({"op": "push"}, folder, self.timeout_s)

    def _start(self, weights: dict[str, Tensor], config: PreTrainedConfig, dtype: str) -> None:
        """A new engine, or another one's, with these weights."""
        settings = {
            "dtype": dtype,
            "max_model_len": self.max_model_len or int(config.max_position_embeddings),
            "cache_gib": self.cache_gib,
            "arguments": self.arguments,
        }
        with self._timed("engine_start"):
            self._link = self._connect()
            with PushedFolder(weights, self._place(weights), config) as folder:
                message = {"op": "load", "settings": settings}
                answer = self._send(message, folder, self.start_timeout_s)
                self._served = folder.described
                # A shared engine has been loaded by somebody else.
                if answer["version"] != self._version:
                    self._send({"op": "push"}, folder, self.timeout_s)

    def _await(self, weights: dict[str, Tensor]) -> None:
        """Another rank pushes to the engine that both ask: the same weights, or this one would wait in vain."""
        is_new = self._link is None
        limit = self.start_timeout_s if is_new else self.timeout_s
        with self._timed("engine_start" if is_new else "push"):
            described = describe(weights)
            if self._link is None:
                self._link = self._connect()

            self._served = described
            self._version = version_of(described)
            message = {"op": "await", "version": self._version, "seconds": limit}
            self._link.ask(message, timeout_s=limit + _GRACE_S)

    def _place(self, weights: dict[str, Tensor]) -> str:
        num_bytes = sum(value.numel() * value.element_size() for value in weights.values())
        return a_place_for(num_bytes, self.folder)

    def _send(
        self, message: dict[str, Any], folder: PushedFolder, timeout_s: float
    ) -> dict[str, Any]:
        """Tell the engine of a folder, what it holds, and which version that is."""
        assert self._link is not None
        self._pushed_bytes = folder.num_bytes
        self._version = version_of(folder.described)
        told = {"folder": folder.path, "tensors": folder.described, "version": self._version}
        answer, _ = self._link.ask(message | told, timeout_s=timeout_s)
        return answer

    def _seat(self) -> Seat | None:
        """Where this rank finds its engine; None for one of its own."""
        if not self.addresses:
            return None
        return seat_of(self.addresses, *this_rank())

    def _connect(self) -> Link:
        seat = self._seat()
        if seat is None:
            return ChildProcess(self.launch)

        assert self.key_file is not None
        rank, world_size = this_rank()
        if rank == 0 and len(self.addresses) > world_size:
            _log.warning(
                "VllmEngine.address has %d entries, and there are %d rank(s): the last entries are not asked",
                len(self.addresses),
                world_size,
            )
        return Address(seat.address, self.key_file, self.start_timeout_s)

    def launch(self, end: socket.socket, log: IO[bytes]) -> Started:
        """Start the process that serves on ``end``."""
        return launch_python(self.python, self.environment)(end, log)

    # --- the check behind a push

    @torch.no_grad()
    def _check_first(
        self,
        policy: DecoderOnlyPolicy[Any],
        context: Context,
        samples: Rollout,
        request: SampleRequest,
    ) -> None:
        """Score one group by the policy: it must agree with the engine.

        An importance weight could not tell: it would take the probabilities of old weights, or of a stale cache, for
        those of a sampler that is merely another one.
        """
        with self._timed("engine_check"), policy.evaluating():
            hidden = policy.hidden(context, samples)
            scored = ops.token_log_probs(
                hidden,
                policy.head,
                samples.tokens.flatten(0, 1),
                samples.keep.flatten(0, 1),
                request.temperature,
            )
            gaps = (scored.log_probs.view_as(samples.log_probs) - samples.log_probs).abs()
            gaps = gaps[samples.keep]
            self._mismatch = float(gaps.mean())

        limit = self._limit(policy, hidden)
        # NaN is no agreement.
        if not self._mismatch <= limit:
            raise MismatchError(
                f"prompt {context_id(context)!r}: engine and policy differ by {self._mismatch:.2g} in the log-probs of "
                f"its samples on average, {float(gaps.max()):.2g} at most; rounding explains {limit:g}. The engine's "
                "weights, prefix cache or log-probs are not those of the policy. Where they are, and its kernels are "
                "coarse, set the engine's max_mismatch"
            )

    def _limit(self, policy: DecoderOnlyPolicy[Any], hidden: Tensor) -> float:
        if self.max_mismatch is not None:
            return self.max_mismatch
        is_exact = hidden.dtype == torch.float32
        is_exact = is_exact and not torch.is_autocast_enabled(hidden.device.type)
        return max(ROUNDING[self._precision(policy)], 0.0 if is_exact else ROUNDING["bfloat16"])

    @contextmanager
    def _timed(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            seconds = time.perf_counter() - start
            self._seconds[name] = self._seconds.get(name, 0.0) + seconds


def context_id(context: Context) -> str:
    """The id of its first prompt."""
    ids: list[str] = context.ids  # type: ignore[attr-defined]
    return ids[0]
