"""A ledger that runs in a test: a clock set by hand, and a gate before which its writer waits."""

from __future__ import annotations

import asyncio
import random
import sqlite3
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager, closing

import psycopg

from ledger.commands import Adjust, Command, IssueGrant, OpenAccount, PlaceHold, Refund, Settle, Void, VoidGrant
from ledger.errors import LedgerError
from ledger.ledger import Ledger
from ledger.model import NEVER
from ledger.opening import is_postgres
from ledger.outcomes import Ended, Held, Issued, Outcome
from ledger.rules import Rules
from ledger.tables import TABLES
from tests.ledger.books import Asked, Page, read_page, receipt_memo
from tests.ledger.words import microseconds_at

BUCKETS = ("daily", "bonus", "paid")
RULES = Rules({bucket: rank for rank, bucket in enumerate(BUCKETS)})
NOON = microseconds_at("2026-11-21 12:00")
HOUR = 3_600_000_000
DAY = 24 * HOUR
WAIT_SECONDS = 20


class Clock:
    """A clock that stands until a test moves it, also backwards."""

    def __init__(self, now: int = NOON) -> None:
        self.now = now

    def __call__(self) -> int:
        return self.now


class Gate:
    """Tells the rules, which the writer asks for once a batch; while shut, the writer waits."""

    def __init__(self) -> None:
        self.batches = 0
        self._reached = threading.Event()
        self._open = threading.Event()
        self._open.set()

    def __call__(self) -> Rules:
        self.batches += 1
        self._reached.set()
        assert self._open.wait(WAIT_SECONDS), "nobody opened the gate"
        return RULES

    def shut(self) -> None:
        self._reached.clear()
        self._open.clear()

    async def reached(self) -> None:
        """Wait until the writer has taken a batch and stands before the gate: what is queued now is the next batch."""
        assert await asyncio.to_thread(self._reached.wait, WAIT_SECONDS)

    def open(self) -> None:
        self._open.set()


async def opened(ledger: Ledger, credits: int) -> None:
    """Open account 1 with so many credits."""
    await ledger.open_account(1)
    if credits:
        await ledger.issue(1, "paid", credits, paid=True)


async def all_of(futures: Iterable[Awaitable[Outcome]]) -> list[Outcome | BaseException]:
    return await asyncio.wait_for(asyncio.gather(*futures, return_exceptions=True), WAIT_SECONDS)


async def in_one_batch(
    ledger: Ledger, gate: Gate, first: PlaceHold, commands: Iterable[Command]
) -> list[Outcome | BaseException]:
    """Have commands committed together, in order: `first` keeps the writer at the gate while they queue."""
    gate.shut()
    waiting = submit(ledger, first)
    await gate.reached()
    futures = []
    for command in commands:
        futures.append(submit(ledger, command))
        # A hold is queued once its task has begun.
        await asyncio.sleep(0)
    gate.open()
    await waiting
    return await all_of(futures)


def submit(ledger: Ledger, command: Command) -> asyncio.Future[Outcome]:
    if isinstance(command, PlaceHold):
        return asyncio.ensure_future(ledger.hold(command))
    assert isinstance(command, (Settle, Void))
    return ledger.end(command)


@asynccontextmanager
async def running(
    path: str,
    clock: Callable[[], int],
    *,
    gate: Gate | None = None,
    rules: Rules = RULES,
    owner: str = "test",
    most_waiting: int = 4096,
    orphan_memo: Callable[[bytes], bytes] = bytes,
) -> AsyncIterator[Ledger]:
    """Open a ledger for the length of a block."""
    ledger = await Ledger.open(
        path, gate or (lambda: rules), owner=owner, clock=clock, most_waiting=most_waiting, orphan_memo=orphan_memo
    )
    try:
        yield ledger
    finally:
        if gate is not None:
            gate.open()
        await ledger.close()


def page_of(path: str, account_id: int) -> Page:
    """Read what a ledger records of an account, in a file or in PostgreSQL."""
    if is_postgres(path):
        with psycopg.connect(path) as server:
            return read_page(Asked(server), account_id)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        return read_page(connection, account_id)


def empty(url: str) -> None:
    """Take everything out of a ledger in PostgreSQL."""
    with psycopg.connect(url, autocommit=True) as server:
        server.execute(("TRUNCATE " + ", ".join(table.name for table in TABLES)).encode())


def held(account_id: int, hold_id: int, amount: int) -> PlaceHold:
    return PlaceHold(account_id, hold_id, amount, receipt_memo(0))


def settled(account_id: int, hold_id: int, amount: int) -> Settle:
    return Settle(account_id, hold_id, amount, receipt_memo(amount))


def voided(account_id: int, hold_id: int) -> Void:
    return Void(account_id, hold_id, receipt_memo(0))


class Life:
    """A busy random life of some accounts: makes commands that suit what it is told of the outcomes."""

    def __init__(self, seed: int, accounts: Sequence[int] = (1, 2, 3, 4)) -> None:
        self._random = random.Random(seed)
        self.accounts = accounts
        self._next_id = 100
        self._owner: dict[int, int] = {}
        self._grants: dict[int, int] = {}
        self._charged: dict[int, int] = {}
        self.now = NOON

    def openings(self) -> list[Command]:
        """Open the accounts; some have an overdraft."""
        return [OpenAccount(account, overdraft_limit=50 * (account % 2)) for account in self.accounts]

    def pass_time(self) -> None:
        self.now += self._random.choice((1, 1000, HOUR, 6 * HOUR, 24 * HOUR))

    def next(self, *, faulty: bool = False) -> Command:
        """Make a command; with `faulty` sometimes one on an account or a hold that nobody knows."""
        choose = self._random
        account = choose.choice(self.accounts)
        self._next_id += 1
        if faulty and choose.random() < 0.1:
            stranger = held(99, self._next_id, 1)
            return choose.choice((stranger, settled(account, self._next_id, 5), voided(account, self._next_id)))
        if choose.random() < 0.1:
            return self._correction()
        what = choose.random()
        if what < 0.2:
            return self._grant(account)
        if what < 0.6 or not self._owner:
            return held(account, self._next_id, choose.choice((0, choose.randint(1, 40), choose.randint(1, 120))))
        hold_id = choose.choice(list(self._owner)[-8:])
        account = self._owner[hold_id]
        if what < 0.85:
            return settled(account, hold_id, choose.randint(0, 120))
        return Void(account, hold_id, receipt_memo(0), orphaned=what > 0.93)

    def _correction(self) -> Command:
        choose = self._random
        what = choose.random()
        if what < 0.5 and self._charged:
            hold_id = choose.choice(list(self._charged)[-12:])
            amount = choose.choice((None, choose.randint(1, 60)))
            bonus, fault = what < 0.1, 0.1 <= what < 0.2
            return Refund(
                self._charged[hold_id], hold_id, self._next_id, amount, "bonus", "sorry", bonus, fault, self.now + DAY
            )
        if what < 0.75 and self._grants:
            grant_id = choose.choice(list(self._grants)[-8:])
            return VoidGrant(self._grants[grant_id], grant_id, "a mistake")
        account = choose.choice(self.accounts)
        return Adjust(account, choose.choice((-1, 1)) * choose.randint(1, 60), self._next_id, "bonus", "a correction")

    def _grant(self, account: int) -> IssueGrant:
        choose = self._random
        return IssueGrant(
            account,
            self._next_id,
            choose.choice((*BUCKETS, "unlisted")),
            choose.randint(1, 200),
            paid=choose.random() < 0.4,
            expires_at=self.now + choose.choice((6 * HOUR, 24 * HOUR, NEVER - self.now)),
            source_key=choose.choice((None, None, f"payment-{choose.randint(1, 9)}")),
        )

    def note(self, outcome: Outcome | LedgerError, command: Command) -> None:
        """Be told how a command came out."""
        if isinstance(outcome, Held):
            self._owner[outcome.hold.hold_id] = command.account_id
        elif isinstance(outcome, Issued):
            self._grants[outcome.grant.grant_id] = command.account_id
        elif isinstance(outcome, Ended) and outcome.charged:
            self._charged[outcome.hold_id] = command.account_id
