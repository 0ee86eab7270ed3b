"""The training's end of an engine: starts the process, asks it, and knows when it is lost."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import tempfile
import weakref
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Protocol

from lightning_audiorl.serving import process
from lightning_audiorl.serving.errors import EngineError, EngineLostError
from lightning_audiorl.serving.process import PROTOCOL, Message, Wire, prove

# Of an engine's log, behind an error.
_TAIL_LINES = 20
_TAIL_BYTES = 2**14


class Started(Protocol):
    """A process: what `subprocess.Popen` has."""

    pid: int

    def poll(self) -> int | None:
        """How it has ended; None while it runs."""

    def wait(self, timeout: float | None = None) -> int:
        """Wait until it has ended."""


#: Starts a process that serves on a socket, and writes what it has to say into a file.
Launch = Callable[[socket.socket, IO[bytes]], Started]


def launch_python(
    python: str, environment: Mapping[str, str], script: str = process.__file__
) -> Launch:
    """A launch of the engine's process by the Python of any environment.

    Args:
        python: its path.
        environment: variables beside those of this process.
        script: what it runs.
    """

    def launch(end: socket.socket, log: IO[bytes]) -> Started:
        # By its path: what this package wants is not there. A group of its own, so that it ends as a whole.
        command = [python, script, "--socket", str(end.fileno())]
        variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        try:
            return subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=[end.fileno()],
                env=variables | dict(environment),
                start_new_session=True,
            )
        except OSError as error:
            raise EngineError(f"VllmEngine.python: {python}: {error.strerror}") from error

    return launch


class Link(Protocol):
    """A way to an engine."""

    def ask(
        self, message: Mapping[str, Any], blobs: Sequence[bytes] = (), *, timeout_s: float
    ) -> tuple[Message, list[bytes]]:
        """Its answer.

        Raises:
            EngineError: where it refuses; it goes on as it was.
            EngineLostError: where it has died, does not answer in time, or has failed.
        """

    def close(self) -> None:
        """Give it up."""


def ask_wire(
    wire: Wire, message: Mapping[str, Any], blobs: Sequence[bytes], timeout_s: float
) -> tuple[Message, list[bytes]]:
    """An engine's answer; see `Link.ask`."""
    doing = message["op"]
    try:
        wire.limit(timeout_s)
        wire.send({"protocol": PROTOCOL, **message}, blobs)
        answer, out = wire.receive()
    except TimeoutError:
        raise EngineLostError(f"the engine has not answered {doing!r} in {timeout_s:g} s") from None
    except (EOFError, OSError) as error:
        raise EngineLostError(f"the engine has died in {doing!r}: {error}") from None
    except ValueError as error:
        raise EngineLostError(f"the engine's answer to {doing!r} is none: {error}") from None

    if "refused" in answer:
        raise EngineError(f"the engine refuses {doing!r}: {answer['refused']}")
    if "error" in answer:
        raise EngineLostError(f"the engine has failed in {doing!r}: {answer['error']}")
    return answer, out


class ChildProcess:
    """An engine in a process of our own.

    Args:
        launch: starts it.

    Attributes:
        log_path: what it says; gone when it is closed.
    """

    def __init__(self, launch: Launch) -> None:
        ours, theirs = socket.socketpair()
        handle, self.log_path = tempfile.mkstemp(prefix="audiorl-engine-", suffix=".log")
        with theirs, os.fdopen(handle, "wb") as log:
            try:
                self._process = launch(theirs, log)
            except BaseException:
                ours.close()
                os.unlink(self.log_path)
                raise

        self._wire = Wire(ours)
        # Also where nobody closes it: no engine outlives the training.
        self._end = weakref.finalize(self, _end, self._process, ours, self.log_path)

    def ask(
        self, message: Mapping[str, Any], blobs: Sequence[bytes] = (), *, timeout_s: float
    ) -> tuple[Message, list[bytes]]:
        """See `Link.ask`; the error of one that is lost ends with its log."""
        try:
            return ask_wire(self._wire, message, blobs, timeout_s)
        except EngineLostError as error:
            raise EngineLostError(f"{error}{self._ending()}\n{self.log_tail()}") from None

    def _ending(self) -> str:
        try:
            code = self._process.wait(timeout=0.5)
        except (subprocess.TimeoutExpired, TimeoutError):
            return ""
        return f" (exit code {code})"

    def log_tail(self) -> str:
        """The last lines that it said."""
        try:
            content = Path(self.log_path).read_bytes()[-_TAIL_BYTES:]
        except OSError:
            return ""
        lines = content.decode(errors="replace").splitlines()[-_TAIL_LINES:]
        if not lines:
            return "It has said nothing."
        return "\n".join(["The end of its log:", *lines])

    def close(self) -> None:
        """End the process."""
        self._end()


def _end(started: Started, ours: socket.socket, log_path: str) -> None:
    ours.close()
    if started.poll() is None:
        try:
            os.killpg(started.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            # It leads no group of its own.
            os.kill(started.pid, signal.SIGKILL)
        started.wait()
    if os.path.exists(log_path):
        os.unlink(log_path)


class Address:
    """An engine that somebody else has started.

    Args:
        address: HOST:PORT.
        key_file: what both know.
        timeout_s: of connecting.
    """

    def __init__(self, address: str, key_file: str, timeout_s: float) -> None:
        host, _, port = address.rpartition(":")
        self.address = address
        try:
            connection = socket.create_connection((host, int(port)), timeout=min(timeout_s, 30))
            self._wire = Wire(connection)
            self._wire.limit(30)
            prove(self._wire, Path(key_file).read_bytes().strip())
        except (OSError, EOFError) as error:
            raise EngineLostError(f"no engine answers at {address}: {error}") from None

    def ask(
        self, message: Mapping[str, Any], blobs: Sequence[bytes] = (), *, timeout_s: float
    ) -> tuple[Message, list[bytes]]:
        """See `Link.ask`."""
        try:
            return ask_wire(self._wire, message, blobs, timeout_s)
        except EngineLostError as error:
            raise EngineLostError(
                f"{error} (at {self.address}; where the key of the two differs, it hangs up)"
            ) from None

    def close(self) -> None:
        """Hang up; the engine goes on."""
        self._wire.connection.close()
