"""Cold reads: what people look at. They never lock and never write."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TypeVar

from sqlalchemy import Connection, Engine, case, create_engine, func, text
from sqlalchemy.exc import OperationalError
from sqlmodel import Session, col, select

from ledger.backend import Reader
from ledger.book import Balance, Book
from ledger.caps import up_to_date
from ledger.claims import is_over
from ledger.commands import KeepSeal, PackSeal, SetPlan
from ledger.connecting import CONNECTING
from ledger.dialects import dialect_of
from ledger.engine import balance
from ledger.errors import UnknownAccount
from ledger.ids import first_id
from ledger.loading import load_answer, load_books, load_claim, load_clocks, load_limits, load_refunds
from ledger.model import ALLOWANCE, NEVER, Claimed, Grant, Limit
from ledger.opening import is_postgres
from ledger.outcomes import PlanSet, Refunded
from ledger.plans import set_plan
from ledger.readers import reader_of
from ledger.renewal import bring_up_to
from ledger.rules import Rules
from ledger.sealing import next_pack, next_seal
from ledger.statement import Entry, read_statement
from ledger.tables import GrantRow
from ledger.usage import Recorded, Total, Which, find_call, list_orphans, list_usage, summarize, usage_page

__all__ = ["BucketCount", "Queries", "Recorded", "outages_of", "read_only", "snapshot"]


_log = logging.getLogger("farebox.ledger")
_Kind = TypeVar("_Kind")


@dataclass(frozen=True, slots=True)
class BucketCount:
    """A bucket's lifetime in one account: grants but for a plan's allowances, and those that spending used up."""

    bucket: str
    grants: int
    exhausted: int


_USED_UP = (
    f"SELECT bucket, granted - lost FROM ledger_grant WHERE account_id = ? AND source = '{ALLOWANCE}' AND open = 0"
    " AND expires_at > ? ORDER BY grant_id"
)

_OWN_TIME = "SELECT c.now FROM ledger_account a JOIN ledger_clock c ON c.clock_id = a.clock WHERE a.account_id = ?"

_ABOVE = "SELECT account_id FROM ledger_account WHERE account_id > ? ORDER BY account_id LIMIT ?"

# A change of plan that has come due is written when something next happens in its account.
_ON_PLAN = (
    "SELECT a.account_id FROM ledger_account a LEFT JOIN ledger_clock c ON c.clock_id = a.clock"
    " WHERE a.account_id < :before"
    " AND CASE WHEN a.next_plan_at <= a.seen_at OR a.next_plan_at <= COALESCE(c.now, :now)"
    " THEN a.next_plan ELSE a.plan END = :plan"
    " ORDER BY a.account_id DESC LIMIT :limit"
)


class Queries:
    """A reader's connections to one ledger: in a file, by its path, or in PostgreSQL, by its URL.

    outages: what is raised when the database can't be read.
    """

    def __init__(self, where: str) -> None:
        self._engine = read_only(where)
        self.outages = outages_of(where)

    def close(self) -> None:
        self._engine.dispose()

    def balance(self, account_id: int, rules: Rules, now: int) -> Balance:
        """Project an account as of `now`; raises UnknownAccount."""
        with self._reader() as reader:
            book, now = _book(reader, account_id, now)
            seen = balance(book, rules, now)
            return replace(seen, used_up=reader.rows(_USED_UP, account_id, now)) if book.periods else seen

    def preview_plan(self, command: SetPlan, rules: Rules, now: int) -> PlanSet:
        """Work out what a change of plan would do; raises UnknownAccount, Conflict."""
        with self._reader() as reader:
            book, now = _book(reader, command.account_id, now)
        bring_up_to(book, rules, now)
        return set_plan(book, command, rules, now)

    def limits(self, account_id: int, now: int) -> dict[str, Limit]:
        with self._reader() as reader:
            book, now = _book(reader, account_id, now)
            limits = load_limits(reader, account_id)
        return {limit.scope: up_to_date(limit, book.timezone, now) for limit in sorted(limits)}

    def accounts_on(self, plan: str, now: int, limit: int, before: int | None) -> list[int]:
        with self._engine.connect() as connection:
            plan = dialect_of(connection).text(plan)
            values = {"plan": plan, "now": now, "limit": limit, "before": NEVER if before is None else before}
            return [row[0] for row in connection.execute(text(_ON_PLAN), values)]

    def answered(self, account_id: int, key: bytes, now: int) -> tuple[Claimed, bytes | None] | None:
        # One snapshot, so that the answer is the claim's.
        with self._reader(one_moment=True) as reader:
            _, now = _book(reader, account_id, now)
            found = load_claim(reader, account_id, key)
            return None if found is None or is_over(found, now) else (found, load_answer(reader, account_id, key))

    def clock(self, clock: int) -> int | None:
        with self._reader() as reader:
            return load_clocks(reader).get(clock)

    def time_of(self, account_id: int, now: int) -> int:
        with self._reader() as reader:
            shown = reader.rows(_OWN_TIME, account_id)
        return int(shown[0][0]) if shown else now

    def bucket_counts(self, account_id: int) -> list[BucketCount]:
        used_up = (col(GrantRow.balance) == 0) & (col(GrantRow.lost) == 0)
        statement = (
            select(col(GrantRow.bucket), func.count(), func.sum(case((used_up, 1), else_=0)))
            .where(col(GrantRow.account_id) == account_id, col(GrantRow.source) != ALLOWANCE)
            .group_by(col(GrantRow.bucket))
        )
        with Session(self._engine) as session:
            return [
                BucketCount(bucket, grants, int(exhausted))
                for bucket, grants, exhausted in sorted(session.exec(statement))
            ]

    def grants(self, account_id: int, limit: int, after: int | None) -> list[tuple[Grant, int, int]]:
        statement = select(GrantRow).where(col(GrantRow.account_id) == account_id)
        if after is not None:
            statement = statement.where(col(GrantRow.grant_id) < after)
        statement = statement.order_by(col(GrantRow.grant_id).desc()).limit(limit)
        with Session(self._engine) as session:
            return [
                (Grant(**{name: getattr(row, name) for name in Grant._fields}), row.balance, row.held)
                for row in session.exec(statement)
            ]

    def receipt(self, account_id: int, hold_id: int) -> Recorded | None:
        with snapshot(self._engine) as connection:
            return find_call(connection, account_id, hold_id)

    def usage(self, which: Which, limit: int, after: tuple[int, int] | None) -> list[Recorded]:
        with snapshot(self._engine) as connection:
            return list_usage(connection, which, limit, after)

    def usage_page(self, which: Which, limit: int, after: tuple[int, int] | None) -> list[Recorded]:
        with snapshot(self._engine) as connection:
            return usage_page(connection, which, limit, after)

    def summary(self, which: Which, by: str, timezone: str) -> list[Total]:
        with snapshot(self._engine) as connection:
            return summarize(connection, which, by, timezone)

    def orphans(self, limit: int, after: tuple[int, int] | None) -> list[Recorded]:
        with self._engine.connect() as connection:
            return list_orphans(connection, limit, after)

    def statement(self, account_id: int, limit: int, after: int | None) -> list[Entry]:
        with self._reader(one_moment=True) as reader:
            return read_statement(reader, account_id, limit, after)

    def refunds(self, account_id: int, hold_id: int) -> list[Refunded]:
        """List a call's refunds, newest first."""
        with self._reader() as reader:
            return [made for _, made in load_refunds(reader, [(account_id, hold_id)])][::-1]

    def accounts_above(self, account_id: int, limit: int) -> list[int]:
        """List accounts by id, from the one after this on."""
        with self._reader() as reader:
            return [row[0] for row in reader.rows(_ABOVE, account_id, limit)]

    def seals_due(self, accounts: Sequence[int], now: int) -> list[KeepSeal]:
        """Make the next seal of each account that has one to make; now: the real time."""
        with self._reader(one_moment=True) as reader:
            return _each(accounts, lambda account: next_seal(reader, account, now))

    def packs_due(self, accounts: Sequence[int], before: int) -> list[PackSeal]:
        """Pack the next range of each account that has a sealed one which ends before a time."""
        with self._reader(one_moment=True) as reader:
            return _each(accounts, lambda account: next_pack(reader, account, first_id(before)))

    @contextmanager
    def _reader(self, *, one_moment: bool = False) -> Iterator[Reader]:
        """Read by a connection of the pool; one_moment: all statements see one moment."""
        with snapshot(self._engine) if one_moment else self._engine.connect() as connection:
            yield reader_of(connection)


@contextmanager
def snapshot(engine: Engine) -> Iterator[Connection]:
    """Have all statements see one moment: what is packed meanwhile is neither missed nor seen twice."""
    with engine.connect() as connection:
        if begin := dialect_of(connection).begin:
            connection.exec_driver_sql(begin)
        yield connection


def read_only(where: str) -> Engine:
    """Make a reader's connections to one database: a file, by its path, or PostgreSQL, by its URL."""
    return _server(where) if is_postgres(where) else create_engine(f"sqlite:///file:{where}?mode=ro&uri=true")


def _each(accounts: Sequence[int], due: Callable[[int], _Kind | None]) -> list[_Kind]:
    """Ask of each account; one whose rows can't be read is logged, and keeps no other from being asked of."""
    found = []
    for account in accounts:
        try:
            if (command := due(account)) is not None:
                found.append(command)
        except (ValueError, TypeError, KeyError) as error:
            _log.error("the journal of account %d can't be read: %s", account, error)
    return found


def outages_of(where: str) -> tuple[type[Exception], ...]:
    """What is raised when a database can't be read."""
    if not is_postgres(where):
        return (sqlite3.OperationalError, OperationalError)
    import psycopg

    return (psycopg.OperationalError, OperationalError)


def _server(url: str) -> Engine:
    """Read from PostgreSQL; whatever is read on a connection until it is given back is of one moment."""
    import psycopg

    def connect() -> psycopg.Connection:
        # By its own client, which knows more kinds of URL; nothing is set in the session, as a pooler may be between.
        connection = psycopg.connect(url, **CONNECTING)
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        connection.read_only = True
        return connection

    # As many as a ledger's threads that read; one that was lost is made again.
    return create_engine(
        "postgresql+psycopg://",
        creator=connect,
        pool_size=4,
        max_overflow=0,
        pool_pre_ping=True,
        use_native_hstore=False,
    )


def _book(reader: Reader, account_id: int, now: int) -> tuple[Book, int]:
    """Load an account's page, and its own time; raises UnknownAccount."""
    book = load_books(reader, [account_id])[account_id]
    if not book.exists:
        raise UnknownAccount(f"no account {account_id}")
    if book.clock is not None:
        now = load_clocks(reader)[book.clock]
    return book, max(now, book.seen_at)
