"""What must happen although nobody waits for it: ends of holds whose request is gone, and ends that failed at first."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from contextlib import suppress

from ledger.commands import Settle, Void
from ledger.errors import LedgerUnavailable, UnknownAccount, UnknownHold
from ledger.ledger import Ledger
from ledger.outcomes import Outcome

__all__ = ["Pending"]

_log = logging.getLogger("farebox.pending")
_RETRY_SECONDS = 0.5


class Pending:
    """Background work of one server; `drain` waits for it at the end."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()
        self._letting_go: set[int] = set()

    def start(self, work: Coroutine[object, object, None]) -> None:
        """Run `work` in the background; its failure is logged, it has nobody else to go to."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            _log.error("background work failed", exc_info=task.exception())

    def see_through(self, ledger: Ledger, command: Settle | Void, later: Settle | Void) -> asyncio.Future[Outcome]:
        """Queue the end of a hold; if the store can't commit it, `later` is tried until it can."""
        future = ledger.end(command)
        future.add_done_callback(lambda ended: self._check(ledger, later, ended))
        return future

    def _check(self, ledger: Ledger, command: Settle | Void, future: asyncio.Future[Outcome]) -> None:
        # Who waited may have been cancelled, and the future with it: ending again is harmless, not ending is not.
        if future.cancelled() or isinstance(future.exception(), LedgerUnavailable):
            self.start(self._retry(ledger, command))

    def let_go(self, ledger: Ledger, command: Void) -> None:
        """End a hold that may or may not have been placed, as soon as the store answers."""
        if command.hold_id not in self._letting_go:
            self._letting_go.add(command.hold_id)
            self.start(self._let_go(ledger, command))

    async def _let_go(self, ledger: Ledger, command: Void) -> None:
        try:
            with suppress(UnknownHold, UnknownAccount):
                await self._retry(ledger, command)
        finally:
            self._letting_go.discard(command.hold_id)

    async def _retry(self, ledger: Ledger, command: Settle | Void) -> None:
        while True:
            try:
                await ledger.end(command)
                return
            except LedgerUnavailable as error:
                _log.error("hold %d could not be ended, trying again: %s", command.hold_id, error)
            await asyncio.sleep(_RETRY_SECONDS)

    async def drain(self, seconds: float) -> None:
        """Wait for all of it, at most so long."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=seconds)
