"""A file that one living process holds; the lock vanishes with the process, however that ends."""

from __future__ import annotations

import errno
import json
import os
import socket
from pathlib import Path
from typing import Any

try:
    import fcntl
except ImportError:  # no Unix: no lock, as on a file system without locks
    fcntl = None  # type: ignore[assignment]

#: Descriptors of the locks of this process. A worker that it forks must not hold them on when it is gone.
_HELD: set[int] = set()


def _let_go() -> None:
    for descriptor in _HELD:
        os.close(descriptor)
    _HELD.clear()


os.register_at_fork(after_in_child=_let_go)


class FileLock:
    """An exclusive lock on a file, which says who holds it.

    Args:
        path: is made where it is missing, and stays.

    Attributes:
        note: what the file says, beside the holder's process and host.
        was_there: whether it said something before.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "lock"
        >>> first, second = FileLock(path), FileLock(path)
        >>> first.take(), second.take(), second.holder() == f"process {os.getpid()} on {socket.gethostname()}"
        (True, False, True)
        >>> first.release()
        >>> second.take()
        True
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.note: dict[str, Any] = {}
        self.was_there = False
        self._descriptor: int | None = None

    def take(self) -> bool:
        """Whether nobody else holds it; then it is held until `release`, or the end of the process."""
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
        if fcntl is not None:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                    os.close(descriptor)
                    return False
                # A file system without locks.

        self._descriptor = descriptor
        _HELD.add(descriptor)
        self.note = self._read()
        self.was_there = bool(self.note)
        self.write()
        return True

    def write(self) -> None:
        """Have the file say who holds it, and `note`."""
        assert self._descriptor is not None
        self.note |= {"process": os.getpid(), "host": socket.gethostname()}
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, json.dumps(self.note).encode() + b"\n", 0)

    def holder(self) -> str:
        """Who holds it, in words."""
        note = self._read()
        return f"process {note.get('process', '?')} on {note.get('host', '?')}"

    def release(self) -> None:
        """Let the next one have it."""
        if self._descriptor in _HELD:
            _HELD.remove(self._descriptor)
            os.close(self._descriptor)
        self._descriptor = None

    def _read(self) -> dict[str, Any]:
        try:
            note = json.loads(self.path.read_text())
        except (OSError, ValueError):
            return {}
        return note if isinstance(note, dict) else {}
