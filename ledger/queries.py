"""Cold reads: what people look at. They never lock and never write."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

from sqlalchemy import Connection, case, create_engine, func
from sqlmodel import Session, col, select

from ledger.burn import BucketOrder
from ledger.engine import balance
from ledger.errors import UnknownAccount
from ledger.loading import load_books, load_refunds
from ledger.model import Balance, Grant, Refunded
from ledger.statement import Entry, read_statement
from ledger.tables import GrantRow
from ledger.usage import Recorded, Total, Which, find_call, list_orphans, list_usage, summarize, usage_page

__all__ = ["BucketCount", "Queries", "Recorded"]


@dataclass(frozen=True, slots=True)
class BucketCount:
    """A bucket's lifetime in one account: grants, and those that spending used up."""

    bucket: str
    grants: int
    exhausted: int


class Queries:
    """A reader's connections to one ledger file."""

    def __init__(self, path: str) -> None:
        self._engine = create_engine(f"sqlite:///file:{path}?mode=ro&uri=true")

    def close(self) -> None:
        self._engine.dispose()

    def balance(self, account_id: int, order: BucketOrder, now: int) -> Balance:
        """Project an account as of `now`; raises UnknownAccount."""
        with self._engine.connect() as connection:
            book = load_books(_cursor(connection), [account_id])[account_id]
        if not book.exists:
            raise UnknownAccount(f"no account {account_id}")
        return balance(book, order, now)

    def bucket_counts(self, account_id: int) -> list[BucketCount]:
        used_up = (col(GrantRow.balance) == 0) & (col(GrantRow.lost) == 0)
        statement = (
            select(col(GrantRow.bucket), func.count(), func.sum(case((used_up, 1), else_=0)))
            .where(col(GrantRow.account_id) == account_id, col(GrantRow.source) != "allowance")
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
