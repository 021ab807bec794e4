"""Writers side by side: each account's commands go through one of them, always the same."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from ledger.commands import Command
from ledger.commit import GroupCommit
from ledger.errors import Overloaded
from ledger.outcomes import Outcome
from ledger.rules import Rules
from ledger.store import Store

__all__ = ["Lanes"]

_MIXED = 0x9E3779B97F4A7C15
"""Ids are times, whose low bits are no fair choice of a lane; their product with this has mixed high ones."""


class Lanes:
    """Group commits over stores; made and called on one event loop."""

    def __init__(
        self, stores: Sequence[Store], rules: Callable[[], Rules], clock: Callable[[], int], most_waiting: int
    ) -> None:
        self._lanes = [GroupCommit(store, rules, clock) for store in stores]
        self._most_waiting = most_waiting

    def submit(self, command: Command, *, admission: bool = False) -> asyncio.Future[Outcome]:
        """Queue a command; the future ends after its commit.

        admission: this command starts new work, and is refused with Overloaded when too much waits. What ends
        work always enters: open holds bound it.
        """
        if admission and self.waiting >= self._most_waiting:
            raise Overloaded("too many calls are waiting for the ledger")
        if len(self._lanes) == 1:
            return self._lanes[0].submit(command)
        return self._lanes[(command.account_id * _MIXED >> 40) % len(self._lanes)].submit(command)

    @property
    def waiting(self) -> int:
        """How many commands are queued or being committed."""
        return sum(lane.waiting for lane in self._lanes)

    def watch_batches(self, on_batch: Callable[[int], object]) -> None:
        for lane in self._lanes:
            lane.on_batch = on_batch

    def now(self) -> int:
        """Read the ledger's time, in microseconds since 1970; it never steps back."""
        return max(lane.now() for lane in self._lanes)

    async def close(self) -> None:
        """Commit everything queued, then end the threads."""
        await asyncio.gather(*(lane.close() for lane in self._lanes))
