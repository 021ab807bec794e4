"""Cold reads: what people look at. They never lock and never write."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass, replace

from sqlalchemy import Connection, case, create_engine, func, text
from sqlmodel import Session, col, select

from ledger.book import Balance, Book
from ledger.caps import up_to_date
from ledger.claims import is_over
from ledger.commands import SetPlan
from ledger.engine import balance
from ledger.errors import UnknownAccount
from ledger.loading import load_answer, load_books, load_claim, load_clocks, load_limits, load_refunds
from ledger.model import ALLOWANCE, NEVER, Claimed, Grant, Limit
from ledger.outcomes import PlanSet, Refunded
from ledger.plans import set_plan
from ledger.renewal import bring_up_to
from ledger.rules import Rules
from ledger.statement import Entry, read_statement
from ledger.tables import GrantRow
from ledger.usage import Recorded, Total, Which, find_call, list_orphans, list_usage, summarize, usage_page

__all__ = ["BucketCount", "Queries", "Recorded"]


@dataclass(frozen=True, slots=True)
class BucketCount:
    """A bucket's lifetime in one account: grants but for a plan's allowances, and those that spending used up."""

    bucket: str
    grants: int
    exhausted: int


_USED_UP = (
    f"SELECT bucket, granted - lost FROM ledger_grant WHERE account_id = ? AND source = '{ALLOWANCE}' AND open = 0"
    " AND expires_at > ?"
)

# A change of plan that has come due is written when something next happens in its account.
_ON_PLAN = (
    "SELECT a.account_id FROM ledger_account a LEFT JOIN ledger_clock c ON c.clock_id = a.clock"
    " WHERE a.account_id < :before"
    " AND CASE WHEN a.next_plan_at <= MAX(a.seen_at, COALESCE(c.now, :now)) THEN a.next_plan ELSE a.plan END = :plan"
    " ORDER BY a.account_id DESC LIMIT :limit"
)


class Queries:
    """A reader's connections to one ledger file."""

    def __init__(self, path: str) -> None:
        self._engine = create_engine(f"sqlite:///file:{path}?mode=ro&uri=true")

    def close(self) -> None:
        self._engine.dispose()

    def balance(self, account_id: int, rules: Rules, now: int) -> Balance:
        """Project an account as of `now`; raises UnknownAccount."""
        book, now = self._book(account_id, now)
        seen = balance(book, rules, now)
        if not book.periods:
            return seen
        with self._engine.connect() as connection:
            used_up = _cursor(connection).execute(_USED_UP, (account_id, now)).fetchall()
        return replace(seen, used_up=used_up)

    def preview_plan(self, command: SetPlan, rules: Rules, now: int) -> PlanSet:
        """Work out what a change of plan would do; raises UnknownAccount, Conflict."""
        book, now = self._book(command.account_id, now)
        bring_up_to(book, rules, now)
        return set_plan(book, command, rules, now)

    def limits(self, account_id: int, now: int) -> dict[str, Limit]:
        book, now = self._book(account_id, now)
        with self._engine.connect() as connection:
            limits = load_limits(_cursor(connection), account_id)
        return {limit.scope: up_to_date(limit, book.timezone, now) for limit in limits}

    def accounts_on(self, plan: str, now: int, limit: int, before: int | None) -> list[int]:
        values = {"plan": plan, "now": now, "limit": limit, "before": NEVER if before is None else before}
        with self._engine.connect() as connection:
            return [row[0] for row in connection.execute(text(_ON_PLAN), values)]

    def answered(self, account_id: int, key: bytes, now: int) -> tuple[Claimed, bytes | None] | None:
        _, now = self._book(account_id, now)
        with self._engine.connect() as connection:
            # One snapshot, so that the answer is the claim's.
            connection.exec_driver_sql("BEGIN")
            cursor = _cursor(connection)
            found = load_claim(cursor, account_id, key)
            return None if found is None or is_over(found, now) else (found, load_answer(cursor, account_id, key))

    def clock(self, clock: int) -> int | None:
        with self._engine.connect() as connection:
            return load_clocks(_cursor(connection)).get(clock)

    def _book(self, account_id: int, now: int) -> tuple[Book, int]:
        """Load an account's page, and its own time; raises UnknownAccount."""
        with self._engine.connect() as connection:
            cursor = _cursor(connection)
            book = load_books(cursor, [account_id])[account_id]
            if not book.exists:
                raise UnknownAccount(f"no account {account_id}")
            if book.clock is not None:
                now = load_clocks(cursor)[book.clock]
        return book, max(now, book.seen_at)

    def bucket_counts(self, account_id: int) -> list[BucketCount]:
        used_up = (col(GrantRow.balance) == 0) & (col(GrantRow.lost) == 0)
        statement = (
            select(col(GrantRow.bucket), func.count(), func.sum(case((used_up, 1), else_=0)))
            .where(col(GrantRow.account_id) == account_id, col(GrantRow.source) != ALLOWANCE)
            .group_by(col(GrantRow.bucket))
        )
        with Session(self._engine) as session:
            return [
                BucketCount(bucket, grants, int(exhausted)) for bucket, grants, exhausted in session.exec(statement)
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
        with self._engine.connect() as connection:
            return find_call(connection, account_id, hold_id)

    def usage(self, which: Which, limit: int, after: tuple[int, int] | None) -> list[Recorded]:
        with self._engine.connect() as connection:
            return list_usage(connection, which, limit, after)

    def usage_page(self, which: Which, limit: int, after: tuple[int, int] | None) -> list[Recorded]:
        with self._engine.connect() as connection:
            return usage_page(connection, which, limit, after)

    def summary(self, which: Which, by: str, timezone: str) -> list[Total]:
        with self._engine.connect() as connection:
            return summarize(connection, which, by, timezone)

    def orphans(self, limit: int, after: tuple[int, int] | None) -> list[Recorded]:
        with self._engine.connect() as connection:
            return list_orphans(connection, limit, after)

    def statement(self, account_id: int, limit: int, after: int | None) -> list[Entry]:
        with self._engine.connect() as connection:
            return read_statement(connection, account_id, limit, after)

    def refunds(self, account_id: int, hold_id: int) -> list[Refunded]:
        """List a call's refunds, newest first."""
        with self._engine.connect() as connection:
            return [made for _, made in load_refunds(_cursor(connection), [[account_id, hold_id]])][::-1]


def _cursor(connection: Connection) -> sqlite3.Cursor:
    raw = connection.connection.dbapi_connection
    assert isinstance(raw, sqlite3.Connection)
    return raw.cursor()
