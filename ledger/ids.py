"""Integer ids that sort by time: microseconds since 2020 and 12 bits of this source's own."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable

__all__ = ["IdSource", "microseconds"]

_EPOCH = 1_577_836_800_000_000
_NODE_BITS = 12


def microseconds() -> int:
    """Read the wall clock, in microseconds since 1970 (UTC)."""
    return time.time_ns() // 1000


class IdSource:
    """Hands out 63-bit ids, each larger than the last, until 2091; two sources differ in their low bits.

    Ids are unique within an account, which every key starts with.
    """

    def __init__(self, clock: Callable[[], int] = microseconds) -> None:
        self._clock = clock
        self._node = secrets.randbits(_NODE_BITS)
        self._last = 0

    def next(self) -> int:
        self._last = max(self._last + 1, self._clock() - _EPOCH)
        return self._last << _NODE_BITS | self._node
