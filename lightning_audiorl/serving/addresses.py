"""Several engines by address beside several ranks: which rank asks which, and which one pushes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Seat:
    """A rank's engine.

    Args:
        address: HOST:PORT.
        pushes: whether this rank pushes to it for all that share it.
    """

    address: str
    pushes: bool


def addresses_of(given: str | Sequence[str] | None) -> list[str]:
    """The addresses of a setting, each seen to be one.

    Raises:
        ValueError: for an empty list, or an entry that is no HOST:PORT.

    Example:
        >>> addresses_of(None), addresses_of("10.0.0.2:5555")
        ([], ['10.0.0.2:5555'])
    """
    if given is None:
        return []
    addresses = [given] if isinstance(given, str) else list(given)
    if not addresses:
        raise ValueError("VllmEngine.address is an empty list; leave it out for an engine per rank")

    for address in addresses:
        host, _, port = address.rpartition(":")
        if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
            raise ValueError(f"VllmEngine.address: {address!r} is no HOST:PORT")
    return addresses


def seat_of(addresses: Sequence[str], rank: int, world_size: int) -> Seat:
    """The engine of a rank: the entry ``rank`` modulo their number. The first rank that has it pushes to it.

    Args:
        addresses: at least one; one may stand there several times.
        rank, world_size: of the process, and of how many.

    Example:
        >>> [seat_of(["a:1", "b:1"], rank, world_size=3) for rank in (0, 2)]
        [Seat(address='a:1', pushes=True), Seat(address='a:1', pushes=False)]
    """
    of_ranks = [addresses[other % len(addresses)] for other in range(world_size)]
    mine = of_ranks[rank]
    return Seat(mine, pushes=of_ranks.index(mine) == rank)


def this_rank() -> tuple[int, int]:
    """Rank of this process, and how many there are."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return 0, 1
