"""Fake engines that are asked by their address."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from lightning_audiorl.serving import process
from lightning_audiorl.serving.process import Message, Server
from tests.serving.fake import FakeBackend

KEY = b"0123456789abcdef"


class Counted(FakeBackend):
    """Counts what it is asked."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = {"load": 0, "push": 0, "sample": 0}

    def load(self, folder: str, settings: Message) -> Message:
        self.asked["load"] += 1
        return super().load(folder, settings)

    def push(self, folder: str) -> None:
        self.asked["push"] += 1
        super().push(folder)

    def sample(self, request: Message, prompts: list[Any]) -> list[tuple[list[int], list[float]]]:
        self.asked["sample"] += 1
        return super().sample(request, prompts)


@contextmanager
def listening(backend: Counted) -> Iterator[str]:
    """Its address, while it answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        given = (Server(backend), listener, KEY)
        threading.Thread(target=process.answer_all, args=given, daemon=True).start()
        yield f"127.0.0.1:{listener.getsockname()[1]}"
