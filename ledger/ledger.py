"""The ledger as the rest of the house sees it: async verbs over one store."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from ledger.commands import IssueGrant, OpenAccount, PlaceHold, Settle, Void
from ledger.commit import GroupCommit
from ledger.errors import LedgerUnavailable
from ledger.ids import IdSource, microseconds
from ledger.lock import OwnerLock
from ledger.model import NEVER, Balance, Ended, Grant, Held, Issued, Opened, Outcome, Refused
from ledger.queries import BucketCount, Queries, Recorded
from ledger.store import Store

__all__ = ["Ledger"]

_log = logging.getLogger("farebox.ledger")
_Kind = TypeVar("_Kind")


class Ledger:
    """One SQLite ledger, owned by this process while it is open.

    Every verb raises UnknownAccount, LedgerUnavailable (nothing was written) or what it names itself.
    """

    def __init__(self, path: str, lock: OwnerLock, store: Store, commit: GroupCommit, ids: IdSource) -> None:
        self.path = path
        self._lock = lock
        self._store = store
        self._commit = commit
        self._ids = ids
        self._queries = Queries(path)
        self._readers = ThreadPoolExecutor(2, "ledger-reader")

    @classmethod
    async def open(
        cls,
        path: str,
        buckets: Callable[[], Iterable[str]],
        *,
        owner: str = "farebox",
        clock: Callable[[], int] = microseconds,
        most_waiting: int = 4096,
        orphan_memo: Callable[[bytes], bytes] = bytes,
    ) -> Ledger:
        """Take ownership of a ledger file, creating it if needed, and release what a dead process left held.

        buckets: the buckets in burn-down order, asked again for every batch. orphan_memo: makes an ended call's memo
        of a held one's. Raises LedgerLocked if another process has the file.
        """
        lock = OwnerLock(path, owner)
        try:
            store = Store(path)
            store.create()
        except sqlite3.Error as error:
            lock.release()
            raise LedgerUnavailable(f"{path} can't be opened as a ledger: {error}") from error
        commit = GroupCommit(
            store, lambda: {bucket: rank for rank, bucket in enumerate(buckets())}, clock, most_waiting
        )
        ledger = cls(path, lock, store, commit, IdSource(clock))
        try:
            await ledger._release_orphans(orphan_memo)
        except BaseException:
            await ledger.close()
            raise
        return ledger

    async def _release_orphans(self, memo_of: Callable[[bytes], bytes]) -> None:
        orphans = self._store.open_holds()
        voids = [Void(account, hold, memo_of(memo), orphaned=True) for account, hold, memo in orphans]
        ended = await asyncio.gather(*map(self._commit.submit, voids), return_exceptions=True)
        for outcome in ended:
            if isinstance(outcome, BaseException):
                raise outcome
        if orphans:
            _log.warning("released %d orphaned holds of a process that died", len(orphans))

    async def close(self) -> None:
        """Commit what is queued and give the file up."""
        await self._commit.close()
        self._readers.shutdown()
        self._queries.close()
        self._store.close()
        self._lock.release()

    def next_id(self) -> int:
        """Make an id for an account, grant, key or hold; ids sort by time."""
        return self._ids.next()

    async def open_account(self, account_id: int, *, timezone: str = "UTC", overdraft_limit: int = 0) -> Opened:
        return _expect(Opened, await self._commit.submit(OpenAccount(account_id, timezone, overdraft_limit)))

    async def issue(
        self,
        account_id: int,
        bucket: str,
        amount: int,
        *,
        source: str = "admin",
        paid: bool = False,
        expires_at: int = NEVER,
        source_key: str | None = None,
        note: str | None = None,
    ) -> Issued:
        """Issue a grant of nanocredits; it repays debt first. Under one source_key it is issued once."""
        command = IssueGrant(
            account_id, self.next_id(), bucket, amount, source, paid, None, expires_at, source_key, note
        )
        return _expect(Issued, await self._commit.submit(command))

    async def hold(self, command: PlaceHold) -> Held | Refused:
        """Place a hold; returns after it is durable. Raises Overloaded when the admission queue is full."""
        outcome = await self._commit.submit(command, admission=True)
        assert isinstance(outcome, (Held, Refused))
        return outcome

    def end(self, command: Settle | Void) -> asyncio.Future[Outcome]:
        """Queue the end of a hold; it is carried out whether or not the future is awaited, its result an Ended."""
        return self._commit.submit(command)

    async def settle(self, account_id: int, hold_id: int, amount: int, memo: bytes) -> Ended:
        """Charge a held call; never refused for lack of credits, idempotent. Returns after it is durable."""
        return _expect(Ended, await self.end(Settle(account_id, hold_id, amount, memo)))

    async def void(self, account_id: int, hold_id: int, memo: bytes) -> Ended:
        """End a held call without a charge; idempotent. Returns after it is durable."""
        return _expect(Ended, await self.end(Void(account_id, hold_id, memo)))

    async def balance(self, account_id: int, order: Iterable[str], now: int | None = None) -> Balance:
        """Read an account as of `now`, writing nothing."""
        ranks = {bucket: rank for rank, bucket in enumerate(order)}
        return await self._read(self._queries.balance, account_id, ranks, self._commit.now() if now is None else now)

    async def bucket_counts(self, account_id: int) -> list[BucketCount]:
        return await self._read(self._queries.bucket_counts, account_id)

    async def grants(self, account_id: int, limit: int, after: int | None) -> list[tuple[Grant, int, int]]:
        """List an account's grants, newest first, with balance and held; `after`: only older than this id."""
        return await self._read(self._queries.grants, account_id, limit, after)

    async def receipt(self, account_id: int, hold_id: int) -> Recorded | None:
        """Find a call, held or ended, or None."""
        return await self._read(self._queries.receipt, account_id, hold_id)

    async def _read(self, query: Callable[..., _Kind], *arguments: object) -> _Kind:
        return await asyncio.get_running_loop().run_in_executor(self._readers, query, *arguments)


def _expect(kind: type[_Kind], outcome: Outcome) -> _Kind:
    assert isinstance(outcome, kind)
    return outcome
