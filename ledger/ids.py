"""Integer ids that sort by time: microseconds since 2020 and 12 bits of this source's own."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from typing import Final

__all__ = ["EARLIEST", "IdSource", "LATEST", "NODES", "SLOTS", "microseconds", "renewal_id"]

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

    def __init__(self, clock: Callable[[], int] = microseconds, node: int | None = None) -> None:
        self._clock = clock
        self._node = SLOTS + secrets.randbelow(NODES - SLOTS) if node is None else node
        self._last = 0

    def next(self) -> int:
        self._last = max(self._last + 1, self._clock() - EARLIEST)
        return self._last << _NODE_BITS | self._node


def renewal_id(starts_at: int, slot: int) -> int:
    """The id of what renewal grants: the same whoever works it out, so that it can be shown before it is written."""
    if not EARLIEST <= starts_at <= LATEST or not 0 <= slot < SLOTS:
        raise OverflowError("no id can be made of a time outside 2020 to 2091")
    return (starts_at - EARLIEST) << _NODE_BITS | slot
