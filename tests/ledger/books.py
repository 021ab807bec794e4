"""One account under test, on the pure engine or on SQLite, and the laws that hold of it after every step."""

from __future__ import annotations

import copy
import json
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, Protocol

import psycopg
from psycopg.conninfo import make_conninfo

from ledger.book import Balance, Book
from ledger.commands import Command, IssueGrant
from ledger.engine import apply, balance
from ledger.loading import load_books
from ledger.model import (
    ADJUSTMENT,
    BREAKAGE,
    DEBT,
    ISSUE,
    NEVER,
    OVERDRAFT,
    REVENUE,
    SALE,
    Grant,
    Leg,
    Limit,
    PaidBack,
    PaidFrom,
    Period,
    Run,
    Transfer,
)
from ledger.opening import is_postgres
from ledger.outcomes import Ended, Issued, Outcome, Refunded
from ledger.postgres import Postgres, PostgresReader
from ledger.queries import Queries
from ledger.rules import Rules
from ledger.sqlite import Sqlite, SqliteReader
from ledger.store import Store
from ledger.tables import TABLES
from tests.ledger.sealed import close_all, in_short_ranges

ACCOUNT = 7


@dataclass(frozen=True, slots=True)
class Lot:
    """What a grant holds at some moment, in nanocredits."""

    grant: Grant
    balance: int
    held: int
    lost: int
    voided_at: int | None = None


@dataclass(frozen=True, slots=True)
class Page:
    """All that is recorded of one account.

    holds: legs by hold id; reserved: their amounts and the spend limits that they are under, as (scope, label).
    receipts: how holds ended, `available` left out; refunds: by hold id. limits: by scope; runs: by run and operation.
    """

    status: str
    debt: int
    overdraft_held: int
    next_due_at: int
    lots: Mapping[int, Lot]
    holds: Mapping[int, tuple[Leg, ...]]
    transfers: list[Transfer]
    receipts: Mapping[int, Ended]
    refunds: Mapping[int, tuple[Refunded, ...]]
    reserved: Mapping[int, tuple[int, tuple[tuple[str, int], ...]]] = field(default_factory=dict)
    plan: str | None = None
    next_plan: str | None = None
    next_plan_at: int = NEVER
    periods: Mapping[str, Period] = field(default_factory=dict)
    limits: Mapping[str, Limit] = field(default_factory=dict)
    runs: Mapping[tuple[str, str], Run] = field(default_factory=dict)

    def moved(self, *, source: int | None = None, target: int | None = None, request: int | None = None) -> int:
        """Sum the transfers that match, in nanocredits."""
        return sum(
            transfer.amount
            for transfer in self.transfers
            if source in (None, transfer.source)
            and target in (None, transfer.target)
            and request in (None, transfer.request)
        )

    def net(self, node: int) -> int:
        """Sum what came out of a node less what went into it."""
        return self.moved(source=node) - self.moved(target=node)

    @property
    def held(self) -> int:
        """What open holds pin, the overdraft included."""
        return sum(lot.held for lot in self.lots.values()) + self.overdraft_held


class AnyLedger(Protocol):
    """What a test drives: commands go in, the page is read back."""

    def do(self, command: Command, rules: Rules, now: int) -> Outcome: ...
    def page(self) -> Page: ...
    def balance(self, rules: Rules, now: int) -> Balance: ...


class EngineLedger:
    """The pure engine on one page in memory; a command that raises leaves the page as it was."""

    def __init__(self) -> None:
        self.book = Book(ACCOUNT)

    def do(self, command: Command, rules: Rules, now: int) -> Outcome:
        book = copy.deepcopy(self.book) if command.account_id == ACCOUNT else Book(command.account_id)
        outcome = apply(book, command, rules, now)
        if command.account_id == ACCOUNT:
            self.book = book
        return outcome

    def page(self) -> Page:
        book = self.book
        return Page(
            status=book.status,
            debt=book.debt,
            overdraft_held=book.overdraft_held,
            next_due_at=book.next_due_at,
            lots={
                grant_id: Lot(
                    grant,
                    book.balance[grant_id],
                    book.held[grant_id],
                    book.lost[grant_id],
                    book.voided.get(grant_id),
                )
                for grant_id, grant in book.grants.items()
            },
            holds={hold_id: hold.legs for hold_id, hold in book.holds.items()},
            transfers=list(book.transfers),
            receipts={hold_id: replace(ended, available=0) for hold_id, ended in book.ended.items()},
            refunds=dict(book.refunds),
            reserved={hold_id: (hold.amount, hold.limits) for hold_id, hold in book.holds.items()},
            plan=book.plan,
            next_plan=book.next_plan,
            next_plan_at=book.next_plan_at,
            periods=dict(book.periods),
            limits=dict(book.limits),
            runs=dict(book.runs),
        )

    def balance(self, rules: Rules, now: int) -> Balance:
        return balance(copy.deepcopy(self.book), rules, now)


class SqliteLedger:
    """The SQLite store; the page is read back by a second connection, in this file's own SQL."""

    def __init__(self, path: str) -> None:
        self.store = quick_store(path)
        self._reader = sqlite3.connect(path, isolation_level=None)

    def do(self, command: Command, rules: Rules, now: int) -> Outcome:
        (outcome,) = self.store.transact([command], rules, now)
        return outcome

    def page(self, account_id: int = ACCOUNT) -> Page:
        return read_page(self._reader, account_id)

    def balance(self, rules: Rules, now: int) -> Balance:
        return balance(load_books(SqliteReader(self._reader), [ACCOUNT])[ACCOUNT], rules, now)

    def close(self) -> None:
        self._reader.close()
        self.store.close()


@dataclass(frozen=True, slots=True)
class Asked:
    """A connection to PostgreSQL that is asked as one to SQLite is."""

    connection: psycopg.Connection[Any]

    def execute(self, statement: str, values: Sequence[object]) -> psycopg.Cursor[Any]:
        return self.connection.execute(statement.replace("?", "%s").encode(), values)


class PostgresLedger:
    """The PostgreSQL store, with nothing in it yet; the page is read back by a second connection."""

    def __init__(self, url: str) -> None:
        # It does not wait for the disk, as the tests ask for the rules and not for durability.
        self.backend = Postgres(make_conninfo(url, options="-c synchronous_commit=off"))
        self.store = Store(self.backend)
        self._reader = psycopg.connect(url, autocommit=True)
        self._reader.execute("SET synchronous_commit = off")
        self._reader.execute("TRUNCATE " + ", ".join(table.name for table in TABLES))

    def do(self, command: Command, rules: Rules, now: int) -> Outcome:
        (outcome,) = self.store.transact([command], rules, now)
        return outcome

    def page(self, account_id: int = ACCOUNT) -> Page:
        return read_page(Asked(self._reader), account_id)

    def balance(self, rules: Rules, now: int) -> Balance:
        return balance(load_books(PostgresReader(self._reader.cursor), [ACCOUNT])[ACCOUNT], rules, now)

    def close(self) -> None:
        self._reader.close()
        self.store.close()


class Stored:
    """A store on either database, with nothing in it yet, and the cold reads of what commands leave there.

    packs: before it is read, all is packed away that can be.
    """

    def __init__(self, where: str, rules: Rules, now: int, *, packs: bool = False) -> None:
        self._book = PostgresLedger(where) if is_postgres(where) else SqliteLedger(where)
        self.store = self._book.store
        self._queries = Queries(where)
        self.rules, self.now = rules, now
        self._packs = packs

    @property
    def queries(self) -> Queries:
        if self._packs:
            with in_short_ranges(1):
                close_all(self.store)
                close_all(self.store, pack=True)
        return self._queries

    def do(self, *commands: Command) -> Outcome:
        """Carry out commands one by one; returns how the last came out."""
        for command in commands:
            outcome = self._book.do(command, self.rules, self.now)
        return outcome

    def issue(self, command: IssueGrant) -> Grant:
        outcome = self.do(command)
        assert isinstance(outcome, Issued)
        return outcome.grant

    def page(self, account_id: int) -> Page:
        return self._book.page(account_id)

    def close(self) -> None:
        self._queries.close()
        self._book.close()


class Connection(Protocol):
    """What a page is read from."""

    def execute(self, statement: str, values: Sequence[object], /) -> Any: ...


def quick_store(path: str) -> Store:
    """Create a store that does not wait for the disk, for tests that ask for the rules and not for durability."""
    backend = Sqlite(path)
    backend.rows("PRAGMA synchronous = OFF")
    backend.create()
    return Store(backend)


def read_page(connection: Connection, account_id: int) -> Page:
    """Read all that a ledger file records of an account; an account that does not exist is a page of nothing."""
    key = (account_id,)
    account = connection.execute(
        "SELECT status, debt, overdraft_held, next_due_at, plan, next_plan, next_plan_at, periods FROM ledger_account"
        " WHERE account_id = ?",
        key,
    ).fetchone() or ("active", 0, 0, NEVER, None, None, NEVER, None)
    lots = {}
    for left, held, lost, voided_at, *columns in connection.execute(
        "SELECT balance, held, lost, voided_at, grant_id, bucket, source, paid, granted, effective_at, expires_at,"
        " created_at, source_key, note FROM ledger_grant WHERE account_id = ? ORDER BY grant_id",
        key,
    ):
        lots[columns[0]] = Lot(Grant(*columns), left, held, lost, voided_at)
    receipts = {}
    for hold_id, status, charged, paid_from, debt, memo, created_at, ended_at, late, under in connection.execute(
        "SELECT hold_id, status, charged, paid_from, debt, memo, created_at, ended_at, late, limits FROM ledger_receipt"
        " WHERE account_id = ? ORDER BY hold_id",
        key,
    ):
        paid = tuple(PaidFrom(*item) for item in json.loads(paid_from))
        receipts[hold_id] = Ended(
            hold_id, status, charged, paid, debt, memo, created_at, ended_at, 0, bool(late), _pairs(under)
        )
    refunds: dict[int, tuple[Refunded, ...]] = {}
    for refund_id, hold_id, amount, to, reduced, reason, at in connection.execute(
        "SELECT refund_id, hold_id, amount, paid_to, debt_reduced, reason, created_at FROM ledger_refund"
        " WHERE account_id = ? ORDER BY refund_id",
        key,
    ):
        paid_to = tuple(PaidBack(*item) for item in json.loads(to))
        made = Refunded(refund_id, hold_id, amount, paid_to, reduced, reason, at)
        refunds[hold_id] = (*refunds.get(hold_id, ()), made)
    reserved = {
        hold_id: (amount, _pairs(under))
        for hold_id, amount, under in connection.execute(
            "SELECT hold_id, amount, limits FROM ledger_hold WHERE account_id = ? ORDER BY hold_id", key
        )
    }
    limits = {
        row[0]: Limit(*row)
        for row in connection.execute(
            "SELECT scope, amount, per, label, ends_at, spent, reserved FROM ledger_limit WHERE account_id = ?", key
        )
    }
    runs = {
        (run, operation): Run(raw, charged)
        for run, operation, raw, charged in connection.execute(
            "SELECT run, operation, raw, charged FROM ledger_run WHERE account_id = ?", key
        )
    }
    status, debt, overdraft_held, next_due_at, plan, next_plan, next_plan_at, periods = account
    return Page(
        status=status,
        debt=debt,
        overdraft_held=overdraft_held,
        next_due_at=next_due_at,
        lots=lots,
        holds={
            hold_id: tuple(Leg(*leg) for leg in json.loads(legs))
            for hold_id, legs in connection.execute(
                "SELECT hold_id, legs FROM ledger_hold WHERE account_id = ? ORDER BY hold_id", key
            )
        },
        transfers=[
            Transfer(*row)
            for row in connection.execute(
                "SELECT kind, source, target, amount, at, request, note FROM ledger_transfer WHERE account_id = ?"
                " ORDER BY transfer_id",
                key,
            )
        ],
        receipts=receipts,
        refunds=refunds,
        reserved=reserved,
        plan=plan,
        next_plan=next_plan,
        next_plan_at=next_plan_at,
        periods={bucket: Period(*period) for bucket, period in json.loads(periods or "{}").items()},
        limits=limits,
        runs=runs,
    )


def _pairs(text: str | None) -> tuple[tuple[str, int], ...]:
    return tuple((scope, label) for scope, label in json.loads(text or "[]"))


def assert_lawful(page: Page) -> None:
    """Assert every invariant of money that can be read off one page."""
    legs = [leg for hold in page.holds.values() for leg in hold]
    assert all(leg.amount > 0 for leg in legs)
    assert page.overdraft_held == sum(leg.amount for leg in legs if leg.grant_id == OVERDRAFT)
    for grant_id, lot in page.lots.items():
        assert 0 <= lot.held <= lot.balance
        assert lot.held == sum(leg.amount for leg in legs if leg.grant_id == grant_id)
        assert lot.balance == page.moved(target=grant_id) - page.moved(source=grant_id)
        out = [transfer for transfer in page.transfers if transfer.source == grant_id]
        assert lot.lost == sum(leg.amount for leg in out if leg.kind in ("expiry", "void", "adjustment"))
        assert lot.balance + lot.lost <= lot.grant.granted
        # A grant's first transfer is its issue, in full and from its origin; what comes later are refunds.
        first, *later = [transfer for transfer in page.transfers if transfer.target == grant_id]
        assert (first.source, first.amount) == (lot.grant.origin, lot.grant.granted)
        assert all(transfer.kind == "refund" for transfer in later)
        if lot.voided_at is not None:
            assert lot.held == lot.balance
        for leg in out:
            if leg.kind == "void":
                assert leg.target == lot.grant.origin
                assert lot.voided_at is not None
                assert lot.voided_at < lot.grant.expires_at
            if leg.kind == "expiry":
                assert lot.grant.expires_at <= (leg.at if lot.voided_at is None else lot.voided_at)
        # Whatever can still expire is waited for.
        assert page.next_due_at <= lot.grant.expires_at or lot.balance == lot.held
    assert all(transfer.amount > 0 for transfer in page.transfers)
    assert page.debt == page.moved(source=DEBT) - page.moved(target=DEBT) >= 0
    came = page.net(ISSUE) + page.net(SALE) + page.net(ADJUSTMENT)
    gone = -page.net(REVENUE) - page.net(BREAKAGE)
    assert sum(lot.balance for lot in page.lots.values()) - page.debt == came - gone
    assert not page.holds.keys() & page.receipts.keys()
    for hold_id, ended in page.receipts.items():
        charges = [t for t in page.transfers if t.request == hold_id and t.kind in ("charge", "debt")]
        assert ended.charged == sum(charge.amount for charge in charges)
        assert all(charge.target == REVENUE for charge in charges)
        assert ended.debt == page.moved(source=DEBT, target=REVENUE, request=hold_id)
        assert ended.charged == sum(paid.amount for paid in ended.paid_from) + ended.debt
        for paid in ended.paid_from:
            assert paid.amount == sum(charge.amount for charge in charges if charge.source == paid.grant_id)
            assert paid.bucket == page.lots[paid.grant_id].grant.bucket
        assert ended.status == "settled" or ended.charged == 0
    spent = sum(transfer.amount for transfer in page.transfers if transfer.kind in ("charge", "debt"))
    assert spent == sum(ended.charged for ended in page.receipts.values())
    _assert_refunds_lawful(page)
    _assert_periods_lawful(page)
    _assert_limits_lawful(page)


def periods_granted(page: Page, bucket: str) -> list[tuple[int, Grant]]:
    """List what the periods of a bucket's allowance began with, by label; upgrades within them are left out."""
    keys = [((lot.grant.source_key or "").split("/"), lot.grant) for lot in page.lots.values()]
    return sorted((int(key[2]), grant) for key, grant in keys if len(key) == 3 and key[:2] == ["allowance", bucket])


def _assert_periods_lawful(page: Page) -> None:
    for bucket, period in page.periods.items():
        granted = periods_granted(page, bucket)
        for (label, grant), (later_label, later) in pairwise(granted):
            assert label < later_label
            assert grant.expires_at <= later.effective_at, "two periods of one allowance overlap"
        last_label, last = granted[-1]
        assert (period.label, period.starts_at, period.ends_at) == (last_label, last.effective_at, last.expires_at)
        key = f"allowance/{bucket}/{period.label}"
        given = [lot.grant for lot in page.lots.values() if f"{lot.grant.source_key}/".startswith(f"{key}/")]
        assert period.granted == sum(grant.granted for grant in given) <= max(period.entitled, last.granted)
        assert all(grant.expires_at == period.ends_at for grant in given)
    assert page.next_due_at <= page.next_plan_at
    assert all(lot.grant.bucket in page.periods for lot in page.lots.values() if lot.grant.source == "allowance")


def _assert_limits_lawful(page: Page) -> None:
    for scope, limit in page.limits.items():
        held = [amount for amount, under in page.reserved.values() if (scope, limit.label) in under]
        assert limit.reserved == sum(held), "what is reserved at a spend limit is not what open holds may spend"
        charged = sum(ended.charged for ended in page.receipts.values() if (scope, limit.label) in ended.limits)
        refunded = sum(
            made.amount
            for hold_id, refunds in page.refunds.items()
            for made in refunds
            if (scope, limit.label) in page.receipts[hold_id].limits
        )
        assert limit.spent == charged - refunded


def _assert_refunds_lawful(page: Page) -> None:
    for hold_id, refunds in page.refunds.items():
        ended = page.receipts[hold_id]
        paid = {paid.grant_id: paid.amount for paid in ended.paid_from}
        assert 0 < sum(made.amount for made in refunds) <= ended.charged
        assert sum(made.debt_reduced for made in refunds) == page.moved(source=REVENUE, target=DEBT, request=hold_id)
        back: dict[int, int] = {}
        for made in refunds:
            assert made.amount == made.debt_reduced + sum(part.amount for part in made.to)
            for part in made.to:
                assert part.bucket == page.lots[part.grant_id].grant.bucket
                back[part.grant_id] = back.get(part.grant_id, 0) + part.amount
                assert part.grant_id == made.refund_id or back[part.grant_id] <= paid[part.grant_id]
        for grant_id, amount in back.items():
            assert amount == page.moved(source=REVENUE, target=grant_id, request=hold_id)
    refunded = sum(made.amount for refunds in page.refunds.values() for made in refunds)
    assert refunded == page.moved(source=REVENUE)


def receipt_memo(amount: int) -> bytes:
    """Make the memo of a call that cost this much: a receipt of one line, as the audit reads it."""
    return json.dumps({"lines": [{"amount": amount}] if amount else []}).encode()
