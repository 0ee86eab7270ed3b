"""How a command ends for the shell: exit code 0 says that what was asked for has happened."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager

from lightning.pytorch.utilities import rank_zero_warn
from lightning.pytorch.utilities.exceptions import SIGTERMException

from lightning_audiorl.callbacks.outputs import WriteError, is_refusal


@contextmanager
def completed(what: str) -> Iterator[None]:
    """A command within: one that something ended by ``sys.exit(0)`` has not done what was asked for.

    Args:
        what: the command, or its folder, for the message.

    Raises:
        RuntimeError: in place of that exit.
    """
    try:
        yield
    except SystemExit as stop:
        # Lightning's own, after SIGTERM, is one of these.
        if stop.code or isinstance(stop, SIGTERMException):
            raise
        raise RuntimeError(
            f"{what}: something in the run called sys.exit({stop.code or 0}) before its end; a reward, a judge or "
            "a callback has to raise an error instead"
        ) from stop


@contextmanager
def honest_exit(folder: str) -> Iterator[None]:
    """A fit within: one that did not come to its end is no success for the shell, whatever ended it.

    Args:
        folder: of the run, for messages.

    Raises:
        SystemExit: 143 after SIGTERM.
        RuntimeError: for a ``sys.exit(0)`` somewhere in the run.
        WriteError: for a disk that takes no more; what failed on it afterwards is left out.
    """
    try:
        with completed(folder):
            yield
    except SIGTERMException:
        rank_zero_warn(
            f"{folder}: the run was told to end (SIGTERM); it goes on with --ckpt_path last"
        )
        raise SystemExit(128 + signal.SIGTERM) from None
    # Of a chain of errors the disk's first word is the reason; the others only followed.
    except Exception as error:
        refusal = _first_refusal(error, folder)
        if refusal is None:
            raise
        raise refusal from None


def _first_refusal(error: BaseException, folder: str) -> WriteError | None:
    """What the disk refused first, in a chain of errors that each came of the one before."""
    chain: list[BaseException] = []
    link: BaseException | None = error
    while link is not None:
        chain.append(link)
        link = link.__cause__ or link.__context__

    told = [one for one in chain if isinstance(one, WriteError)]
    if told:
        return told[-1]
    refused = [one for one in chain if isinstance(one, OSError) and is_refusal(one)]
    if not refused:
        return None
    first = refused[-1]
    return WriteError(f"{first.filename or folder}: cannot be written: {first.strerror or first}")
