"""What a ledger does by itself, beside its commands: renew its lease, release what died, forget old answers,
seal what is old."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

from ledger.commands import Void
from ledger.lanes import Lanes
from ledger.ownership import LAPSE_SECONDS, RENEW_SECONDS, Ownership

__all__ = ["Minder"]

_log = logging.getLogger("farebox.ledger")
_Kind = TypeVar("_Kind")
_NOW_AND_THEN_SECONDS = 600
_LOOK_SECONDS = 0.25


class Minder:
    """A ledger's own work, on tasks of its event loop.

    lapsed: its lease could not be renewed, so others may have released its holds. on_lapse is told when that begins.
    """

    def __init__(self, ownership: Ownership, lanes: Lanes, orphan_memo: Callable[[bytes], bytes]) -> None:
        self._ownership = ownership
        self._lanes = lanes
        self._orphan_memo = orphan_memo
        self._thread = ThreadPoolExecutor(1, "ledger-lease")
        self._tasks: list[asyncio.Task[None]] = []
        self._renewed_at = time.monotonic()
        self.lapsed = False
        self.on_lapse: Callable[[], object] = lambda: None

    def start(self, forget: Callable[[], Awaitable[object]], close_ranges: Callable[[], Awaitable[object]]) -> None:
        """Begin; forget: lets old answers go. close_ranges: seals and packs what is old, which one process does."""
        self._tasks = [asyncio.create_task(self._now_and_then(forget, close_ranges))]
        if self._ownership.lease is not None:
            self._tasks += [asyncio.create_task(self._renew()), asyncio.create_task(self._watch())]

    async def release_orphans(self) -> None:
        """Release in full what dead processes left held."""
        leases, orphans = await self._beside(self._ownership.orphans)
        voids = [Void(account, hold, self._orphan_memo(memo), orphaned=True) for account, hold, memo in orphans]
        ended = await asyncio.gather(*map(self._lanes.submit, voids), return_exceptions=True)
        for outcome in ended:
            if isinstance(outcome, BaseException):
                raise outcome
        if orphans:
            _log.warning("released %d orphaned holds of a process that died", len(orphans))
        if leases:
            await self._beside(self._ownership.bury, leases)

    async def has_company(self, *, siblings: bool = True) -> bool:
        """Whether other processes write to this ledger too; siblings: those of the same server count."""
        return await self._beside(partial(self._ownership.has_company, siblings=siblings))

    async def _beside(self, work: Callable[..., _Kind], *values: object) -> _Kind:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work, *values)

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(RENEW_SECONDS)
            began = time.monotonic()
            try:
                if not await self._beside(self._ownership.renew):
                    _log.error("this process was taken for dead: its lease had not been renewed for too long")
                # Counted from before it was asked for: the answer may have been long on its way.
                self._renewed_at = began
                await self.release_orphans()
            except Exception as error:  # whatever it was, the next round tries again, and time tells whether it lapses
                _log.error("the lease was not renewed: %s", error)

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            lapsed = time.monotonic() - self._renewed_at > LAPSE_SECONDS
            if lapsed and not self.lapsed:
                _log.error("the lease could not be renewed for %d seconds: running calls are cut", LAPSE_SECONDS)
                self.on_lapse()
            self.lapsed = lapsed

    async def _now_and_then(
        self, forget: Callable[[], Awaitable[object]], close_ranges: Callable[[], Awaitable[object]]
    ) -> None:
        while True:
            await asyncio.sleep(_NOW_AND_THEN_SECONDS)
            try:
                await forget()
                if await self._beside(self._ownership.leads):
                    await close_ranges()
            except Exception as error:  # whatever it was, the next round tries again
                _log.error("the ledger was not tidied up: %s", error)

    async def close(self) -> None:
        """End the tasks, and give the right to write up."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        try:
            await self._beside(self._ownership.release)
        except Exception as error:  # it runs out by itself
            _log.error("the lease was not given back: %s", error)
        self._thread.shutdown()
