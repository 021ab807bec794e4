"""Group commit: one writer thread takes everything that queued while the last commit was flushing.

No timer: a batch is one command when idle and grows under load. An acknowledgement follows its commit.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable

from ledger.commands import Command
from ledger.errors import LedgerError, LedgerUnavailable
from ledger.outcomes import Outcome
from ledger.rules import Rules
from ledger.store import Store

__all__ = ["GroupCommit"]

_MOST_IN_BATCH = 512
_Item = tuple[Command, "asyncio.Future[Outcome]"]
_Result = tuple["asyncio.Future[Outcome]", "Outcome | BaseException"]


class GroupCommit:
    """Commits commands in batches on a thread of its own; made and called on one event loop."""

    def __init__(self, store: Store, rules: Callable[[], Rules], clock: Callable[[], int]) -> None:
        self._store = store
        self._rules = rules
        self._clock = clock
        self._now = 0
        self._closed = False
        self.on_batch: Callable[[int], object] = lambda size: None
        self._waiting = 0
        self._loop = asyncio.get_running_loop()
        self._queue: queue.SimpleQueue[_Item | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._write, name="ledger-writer", daemon=True)
        self._thread.start()

    def submit(self, command: Command) -> asyncio.Future[Outcome]:
        """Queue a command; the future ends after its commit."""
        if self._closed:
            raise LedgerUnavailable("the ledger is closed")
        future: asyncio.Future[Outcome] = self._loop.create_future()
        self._waiting += 1
        self._queue.put((command, future))
        return future

    @property
    def waiting(self) -> int:
        """How many commands are queued or being committed."""
        return self._waiting

    def now(self) -> int:
        """Read the ledger's time, in microseconds since 1970; it never steps back."""
        return max(self._now, self._clock())

    async def close(self) -> None:
        """Commit everything queued, then end the thread; what is submitted from now on is refused."""
        self._closed = True
        self._queue.put(None)
        while self._thread.is_alive():
            await asyncio.to_thread(self._thread.join)

    def _write(self) -> None:
        closing = False
        while not closing:
            items: list[_Item] = []
            item = self._queue.get()
            while item is not None:
                items.append(item)
                if len(items) == _MOST_IN_BATCH:
                    break
                try:
                    item = self._queue.get_nowait()
                except queue.Empty:
                    break
            else:
                closing = True
            if items:
                results = self._commit(items)
                self._loop.call_soon_threadsafe(self._give, results)

    def _commit(self, items: list[_Item]) -> list[_Result]:
        # The clock may step back; the ledger's time does not.
        self._now = self.now()
        try:
            outcomes = self._store.transact([command for command, _ in items], self._rules(), self._now)
            return [(future, outcome) for (_, future), outcome in zip(items, outcomes, strict=True)]
        except LedgerError as error:
            failure: BaseException = error
            if isinstance(error, LedgerUnavailable) and error.nobodys:
                # Each by itself would wait as long again.
                return [(future, failure) for _, future in items]
        except Exception as error:  # a fault of ours must fail its own command, not stop the ledger for everybody
            failure = error
        if len(items) == 1:
            return [(items[0][1], failure)]
        # Nothing of the batch was written: one by one, only what is at fault fails.
        return [result for item in items for result in self._commit([item])]

    def _give(self, results: list[_Result]) -> None:
        self._waiting -= len(results)
        self.on_batch(len(results))
        for future, outcome in results:
            if future.done():
                continue
            if isinstance(outcome, BaseException):
                future.set_exception(outcome)
            else:
                future.set_result(outcome)
