"""A worker's side of the conversation: one line of JSON per command, one per answer."""

from __future__ import annotations

import json
import time
from typing import Any, TextIO

from grpo_bench.meters import Memory, product_rate


class Driver:
    """Waits for commands, answers with measurements.

    Args:
        commands, answers: lines of JSON. Commands: {"do": "step" | "rate" | "close"}; each gets one answer.
        device: "cpu" or "cuda".
    """

    def __init__(self, commands: TextIO, answers: TextIO, device: str) -> None:
        self.commands, self.answers, self.device = commands, answers, device
        self.memory = Memory(device)
        self._measuring = False
        self._cpu_s = 0.0

    def answer(self, **what: Any) -> None:
        self.answers.write(json.dumps(what) + "\n")
        self.answers.flush()

    def read(self) -> dict[str, Any]:
        """The next command; the parent's end of the pipe being closed counts as "quit"."""
        line = self.commands.readline()
        return json.loads(line) if line else {"do": "quit"}

    def wait(self) -> bool:
        """Whether to take a step (else: to stop). The first call of a run says that it is ready."""
        if not self._measuring:
            self.answer(ready=True)
        while True:
            command = self.read()["do"]
            if command == "rate":
                self.answer(flops_per_s=product_rate(self.device))
                continue
            if command != "step":
                self._measuring = False
                return False
            if not self._measuring:
                self._measuring = True
                self.memory.start()
            self._cpu_s = time.process_time()
            return True

    def report(self, **figures: Any) -> None:
        """Answer a step."""
        cpu_s = time.process_time() - self._cpu_s
        self.answer(
            **figures,
            added_bytes=self.memory.added_bytes(),
            peak_bytes=self.memory.peak_bytes(),
            cpu_s=cpu_s,
        )
