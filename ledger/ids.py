"""Integer ids that sort by time: microseconds since 2020 and 12 bits of this source's own."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from typing import Final

__all__ = [
    "EARLIEST",
    "LATEST",
    "NODES",
    "SLOTS",
    "IdSource",
    "first_id",
    "microseconds",
    "renewal_id",
    "time_of",
]

_NODE_BITS = 12

EARLIEST: Final = 1_577_836_800_000_000
"""2020, the first time that an id can carry, in microseconds since 1970."""

LATEST: Final = EARLIEST + 2 ** (63 - _NODE_BITS) - 1
"""2091, the last."""

NODES: Final = 2**_NODE_BITS
"""How many sources there can be at once, those below SLOTS not counted."""

SLOTS: Final = 64
"""Low bits below this are nobody's node: ids with them are made of what they are for."""


def microseconds() -> int:
    """Read the wall clock, in microseconds since 1970 (UTC)."""
    return time.time_ns() // 1000


class IdSource:
    """Hands out 63-bit ids, each larger than the last, until 2091; two sources differ in their low bits.

    Ids are unique within an account, which every key starts with.
    """

    def __init__(self, clock: Callable[[], int] = microseconds, node: int | None = None, above: int = 0) -> None:
        """above: an id that all come after, also where the clock has been set back."""
        self._clock = clock
        self._node = SLOTS + secrets.randbelow(NODES - SLOTS) if node is None else node
        self._last = above >> _NODE_BITS

    def next(self, above: int = 0) -> int:
        """Make an id; above: one that it must come after, although a clock was set back since."""
        self._last = max(self._last + 1, self._clock() - EARLIEST, (above >> _NODE_BITS) + 1)
        return self._last << _NODE_BITS | self._node


def renewal_id(starts_at: int, slot: int) -> int:
    """The id of what renewal grants: the same whoever works it out, so that it can be shown before it is written."""
    if not EARLIEST <= starts_at <= LATEST or not 0 <= slot < SLOTS:
        raise OverflowError("no id can be made of a time outside 2020 to 2091")
    return (starts_at - EARLIEST) << _NODE_BITS | slot


def first_id(at: int) -> int:
    """The least id that can be made at a time; that of the first or the last time for those that no id can carry."""
    return min(max(at - EARLIEST, 0) << _NODE_BITS, 2**63 - 1)


def time_of(number: int) -> int:
    """When an id was made, in microseconds since 1970."""
    return (number >> _NODE_BITS) + EARLIEST
