"""The ledger as the rest of the house sees it: async verbs over one store."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

from ledger.book import Balance
from ledger.closing import Due, close_ranges
from ledger.commands import (
    Adjust,
    ForgetAnswers,
    IssueGrant,
    OpenAccount,
    PlaceHold,
    Refund,
    SetAccount,
    SetClock,
    SetLimit,
    SetPlan,
    Settle,
    Void,
    VoidGrant,
)
from ledger.errors import LedgerUnavailable
from ledger.ids import IdSource, microseconds
from ledger.lanes import Lanes
from ledger.minding import Minder
from ledger.model import KEPT_FOR, NEVER, Claimed, Grant, Limit
from ledger.opening import open_stores
from ledger.outcomes import (
    AccountSet,
    Adjusted,
    Ended,
    Forgotten,
    Held,
    Issued,
    LimitSet,
    Opened,
    Outcome,
    PlanSet,
    Refunded,
    RefundRefused,
    Refused,
    Voided,
    expect,
)
from ledger.queries import BucketCount, Queries
from ledger.rules import Rules
from ledger.sealing import month_of
from ledger.statement import Entry
from ledger.store import Store
from ledger.usage import Recorded, Total, Which

__all__ = ["Ledger"]

_Kind = TypeVar("_Kind")
_EXPORT_PAGE = 1000
_MOST_SHARES = 16


class Ledger:
    """One ledger, which this process may write to while it is open.

    Every verb raises UnknownAccount, LedgerUnavailable (nothing was written) or what it names itself.
    """

    def __init__(
        self,
        url: str,
        stores: Sequence[Store],
        lanes: Lanes,
        minder: Minder,
        ids: IdSource,
        rules: Callable[[], Rules],
        clock: Callable[[], int],
    ) -> None:
        self.path = url
        self.minder = minder
        self._stores = stores
        self._commit = lanes
        self._ids = ids
        self._rules = rules
        self._clock = clock
        self._queries = Queries(url)
        self._readers = ThreadPoolExecutor(2, "ledger-reader")
        # Lists and sums may take seconds; who looks at a balance or a receipt must not wait for them.
        self._listers = ThreadPoolExecutor(2, "ledger-lister")

    @classmethod
    async def open(
        cls,
        url: str,
        rules: Callable[[], Rules],
        *,
        owner: str = "farebox",
        clock: Callable[[], int] = microseconds,
        most_waiting: int = 4096,
        orphan_memo: Callable[[bytes], bytes] = bytes,
    ) -> Ledger:
        """Open a ledger, creating it if needed, and release what dead processes left held.

        url: a SQLite file's path, which this process then owns, or postgresql://…, which many may write to. rules: are
        asked for every batch. orphan_memo: makes an ended call's memo of a held one's. Raises LedgerLocked if another
        process has the file, LedgerUnavailable.
        """
        stores, ownership = await asyncio.to_thread(open_stores, url, owner, clock)
        lanes = Lanes(stores, rules, clock, most_waiting)
        minder = Minder(ownership, lanes, orphan_memo)
        ledger = cls(url, stores, lanes, minder, IdSource(clock, ownership.node, stores[0].above), rules, clock)
        try:
            await minder.release_orphans()
        except BaseException:
            await ledger.close()
            raise
        minder.start(ledger.forget_answers, ledger._seal_and_pack)
        return ledger

    async def forget_answers(self) -> int:
        """Let answers go that have been kept long enough; returns how many. Done by itself, now and then."""
        forgotten = 0
        while True:
            command = ForgetAnswers(self._commit.now() - KEPT_FOR + 1)
            if not (answers := expect(Forgotten, await self._commit.submit(command)).answers):
                return forgotten
            forgotten += answers

    async def seal(self, *, gently: bool = False) -> int:
        """Seal what is old enough of all accounts' journals; returns how many ranges. Done by itself, now and then."""
        now = self._clock()
        return await self._close_ranges(
            lambda accounts: self._list(self._queries.seals_due, accounts, now), gently=gently
        )

    async def pack(self, before: int, *, gently: bool = False) -> int:
        """Pack away the sealed ranges that end before a time, in microseconds since 1970; returns how many."""
        packs = partial(self._list, self._queries.packs_due)
        return await self._close_ranges(lambda accounts: packs(accounts, before), gently=gently)

    async def _seal_and_pack(self) -> None:
        await self.seal(gently=True)
        if (pack_after := self._rules().pack_after) is not None:
            await self.pack(month_of(self._clock() - pack_after)[0], gently=True)

    async def _close_ranges(self, due: Due, *, gently: bool) -> int:
        return await close_ranges(self._commit, partial(self._list, self._queries.accounts_above), due, gently=gently)

    async def close(self) -> None:
        """Commit what is queued and give the ledger up."""
        await self._commit.close()
        self._readers.shutdown()
        self._listers.shutdown()
        self._queries.close()
        for store in self._stores:
            store.close()
        await self.minder.close()

    @property
    def waiting(self) -> int:
        """How many commands wait for their commit."""
        return self._commit.waiting

    def watch_batches(self, on_batch: Callable[[int], object]) -> None:
        """Have `on_batch` told the size of every commit, on the event loop."""
        self._commit.watch_batches(on_batch)

    def next_id(self) -> int:
        """Make an id for an account, grant, key or hold; ids sort by time."""
        return self._ids.next()

    async def open_account(
        self,
        account_id: int,
        *,
        timezone: str = "UTC",
        overdraft_limit: int | None = None,
        plan: str | None = None,
        clock: int | None = None,
        welcome: tuple[str, int] | None = None,
    ) -> Opened:
        """Open an account, on a plan if one is named; welcome: the bucket and amount of a grant at once.

        Raises Conflict for an unknown plan, UnknownClock.
        """
        granted = None if welcome is None else (*welcome, self.next_id())
        command = OpenAccount(account_id, timezone, overdraft_limit, plan, clock, granted)
        return expect(Opened, await self._commit.submit(command))

    async def issue(
        self,
        account_id: int,
        bucket: str,
        amount: int,
        *,
        source: str = "admin",
        paid: bool = False,
        expires_at: int | None = NEVER,
        source_key: str | None = None,
        note: str | None = None,
    ) -> Issued:
        """Issue a grant of nanocredits; it repays debt first. Under one source_key it is issued once."""
        command = IssueGrant(
            account_id, self.next_id(), bucket, amount, source, paid, None, expires_at, source_key, note
        )
        return expect(Issued, await self._commit.submit(command))

    async def hold(self, command: PlaceHold) -> Held | Refused:
        """Place a hold; returns after it is durable. Raises Overloaded when the admission queue is full."""
        if self.minder.lapsed:
            raise LedgerUnavailable("this process has lost its lease")
        outcome = await self._commit.submit(command, admission=True)
        assert isinstance(outcome, (Held, Refused))
        return outcome

    def end(self, command: Settle | Void) -> asyncio.Future[Outcome]:
        """Queue the end of a hold; it is carried out whether or not the future is awaited, its result an Ended."""
        return self._commit.submit(command)

    async def settle(self, account_id: int, hold_id: int, amount: int, memo: bytes) -> Ended:
        """Charge a held call; never refused for lack of credits, idempotent. Returns after it is durable."""
        return expect(Ended, await self.end(Settle(account_id, hold_id, amount, memo)))

    async def void(self, account_id: int, hold_id: int, memo: bytes) -> Ended:
        """End a held call without a charge; idempotent. Returns after it is durable."""
        return expect(Ended, await self.end(Void(account_id, hold_id, memo)))

    async def void_grant(self, account_id: int, grant_id: int, reason: str | None = None) -> Voided:
        """Take back what of a grant is neither spent nor held, and later what holds release; raises UnknownGrant."""
        return expect(Voided, await self._commit.submit(VoidGrant(account_id, grant_id, reason)))

    async def adjust(
        self,
        account_id: int,
        amount: int,
        bucket: str,
        reason: str,
        *,
        expires_at: int | None = NEVER,
        adjustment_id: int | None = None,
    ) -> Adjusted:
        """Correct an account by a signed amount: up, debt and then a grant; down, credits and then debt.

        Under one adjustment_id it is done once. Raises Conflict for 0.
        """
        own_id = self.next_id() if adjustment_id is None else adjustment_id
        command = Adjust(account_id, amount, own_id, bucket, reason, expires_at)
        return expect(Adjusted, await self._commit.submit(command))

    async def refund(
        self,
        account_id: int,
        hold_id: int,
        amount: int | None,
        reason: str,
        *,
        bonus_bucket: str,
        as_bonus: bool = False,
        operator_fault: bool = False,
        bonus_expires_at: int | None = NEVER,
        refund_id: int | None = None,
    ) -> Refunded | RefundRefused:
        """Give back a charge or part of it, None for all that is left; under one refund_id it is done once.

        Raises UnknownHold for a call that has not ended, Conflict for an amount that is not above 0.
        """
        command = Refund(
            account_id=account_id,
            hold_id=hold_id,
            refund_id=self.next_id() if refund_id is None else refund_id,
            amount=amount,
            bonus_bucket=bonus_bucket,
            reason=reason,
            as_bonus=as_bonus,
            operator_fault=operator_fault,
            bonus_expires_at=bonus_expires_at,
        )
        outcome = await self._commit.submit(command)
        assert isinstance(outcome, (Refunded, RefundRefused))
        return outcome

    async def set_account(
        self,
        account_id: int,
        *,
        status: str | None = None,
        timezone: str | None = None,
        overdraft_limit: int | None = None,
        plans_overdraft: bool = False,
    ) -> AccountSet:
        """Change an account; None leaves as it is. Raises Conflict for a closed account that is to be opened again."""
        command = SetAccount(account_id, status, timezone, overdraft_limit, plans_overdraft)
        return expect(AccountSet, await self._commit.submit(command))

    async def set_plan(self, account_id: int, plan: str | None) -> PlanSet:
        """Put an account on a plan: up at once, down when its longest period has ended.

        Raises Conflict for an unknown plan.
        """
        command = SetPlan(account_id, plan, tuple(self.next_id() for _ in range(_MOST_SHARES)))
        return expect(PlanSet, await self._commit.submit(command))

    async def preview_plan(self, account_id: int, plan: str | None) -> PlanSet:
        """Say what `set_plan` would do now, writing nothing; raises as it does."""
        command = SetPlan(account_id, plan, tuple(self.next_id() for _ in range(_MOST_SHARES)))
        return await self._read(self._queries.preview_plan, command, self._rules(), self._commit.now())

    async def set_limit(self, account_id: int, scope: str, amount: int | None, per: str = "ever") -> Limit | None:
        """Limit what an account spends in a scope, by day, month or ever; amount None: no longer."""
        return expect(LimitSet, await self._commit.submit(SetLimit(account_id, scope, amount, per))).limit

    async def limits(self, account_id: int) -> dict[str, Limit]:
        """An account's spend limits by scope, as of now."""
        return await self._read(self._queries.limits, account_id, self._commit.now())

    async def answered(self, account_id: int, key: bytes) -> tuple[Claimed, bytes | None] | None:
        """Find the call that has claimed an idempotency key, and its answer, None while it runs; None: it is free."""
        return await self._read(self._queries.answered, account_id, key, self._commit.now())

    async def create_clock(self, now: int, clock: int | None = None) -> int:
        """Make a test clock that stands at `now`, in microseconds since 1970; returns its id. Raises Conflict."""
        clock = self.next_id() if clock is None else clock
        await self._commit.submit(SetClock(clock, now, create=True))
        return clock

    async def advance_clock(self, clock: int, now: int) -> None:
        """Move a test clock on; raises UnknownClock, and Conflict for one that would go back."""
        await self._commit.submit(SetClock(clock, now))

    async def clock(self, clock: int) -> int | None:
        """What a test clock shows, or None where there is none."""
        return await self._read(self._queries.clock, clock)

    async def time_of(self, account_id: int) -> int:
        """What time it is for an account: its test clock's where it has one, in microseconds since 1970."""
        return await self._read(self._queries.time_of, account_id, self._commit.now())

    async def balance(self, account_id: int, now: int | None = None) -> Balance:
        """Read an account as of `now`, writing nothing; one that is bound to a test clock has the clock's time."""
        now = self._commit.now() if now is None else now
        return await self._read(self._queries.balance, account_id, self._rules(), now)

    async def accounts_on(self, plan: str, limit: int, before: int | None = None) -> list[int]:
        """List the accounts that are on a plan now, newest first; looks at every account."""
        return await self._list(self._queries.accounts_on, plan, self._commit.now(), limit, before)

    async def bucket_counts(self, account_id: int) -> list[BucketCount]:
        return await self._read(self._queries.bucket_counts, account_id)

    async def grants(self, account_id: int, limit: int, after: int | None) -> list[tuple[Grant, int, int]]:
        """List an account's grants, newest first, with balance and held; `after`: only older than this id."""
        return await self._read(self._queries.grants, account_id, limit, after)

    async def receipt(self, account_id: int, hold_id: int) -> Recorded | None:
        """Find a call, held or ended, or None."""
        return await self._read(self._queries.receipt, account_id, hold_id)

    async def refunds_of(self, account_id: int, hold_id: int) -> list[Refunded]:
        """List a call's refunds, newest first."""
        return await self._read(self._queries.refunds, account_id, hold_id)

    async def usage(self, which: Which, limit: int, after: tuple[int, int] | None = None) -> list[Recorded]:
        """List calls, held and ended, newest first; after: (hold id, account id) of the last one seen."""
        return await self._list(self._queries.usage, which, limit, after)

    async def usage_pages(self, which: Which, page: int = _EXPORT_PAGE) -> AsyncIterator[list[Recorded]]:
        """Walk through all calls in pages, account by account, newest first in each; each page is a read of its own."""
        after = None
        while calls := await self._list(self._queries.usage_page, which, page, after):
            yield calls
            after = (calls[-1].hold_id, calls[-1].account_id)

    async def summary(self, which: Which, by: str, *, timezone: str = "UTC") -> list[Total]:
        """Sum calls up by one of `ledger.usage.MEMBERS`, the dearest first, or by `day` in a zone, the newest first.

        Refunds are taken off in the calls they were of. Raises ValueError for another `by`.
        """
        return await self._list(self._queries.summary, which, by, timezone)

    async def statement(self, account_id: int, limit: int, after: int | None = None) -> list[Entry]:
        """List what changed an account's balance, newest first; after: only what is older than this entry."""
        return await self._list(self._queries.statement, account_id, limit, after)

    async def orphans(self, limit: int, after: tuple[int, int] | None = None) -> list[Recorded]:
        """List all accounts' calls whose process died, newest first; after: (hold id, account id)."""
        return await self._list(self._queries.orphans, limit, after)

    async def _read(self, query: Callable[..., _Kind], *arguments: object) -> _Kind:
        return await self._beside(self._readers, query, *arguments)

    async def _list(self, query: Callable[..., _Kind], *arguments: object) -> _Kind:
        return await self._beside(self._listers, query, *arguments)

    async def _beside(self, threads: ThreadPoolExecutor, query: Callable[..., _Kind], *arguments: object) -> _Kind:
        try:
            return await asyncio.get_running_loop().run_in_executor(threads, query, *arguments)
        except self._queries.outages as error:
            raise LedgerUnavailable(f"the ledger could not be read: {error}") from error
