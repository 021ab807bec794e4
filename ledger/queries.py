"""Cold reads: what people look at. They never lock and never write."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

import orjson
from sqlalchemy import case, create_engine, func
from sqlmodel import Session, col, select

from ledger.burn import BucketOrder
from ledger.engine import balance
from ledger.errors import UnknownAccount
from ledger.model import Balance, Grant, PaidFrom
from ledger.store import load_books
from ledger.tables import GrantRow, HoldRow, ReceiptRow

__all__ = ["BucketCount", "Queries", "Recorded"]


@dataclass(frozen=True, slots=True)
class BucketCount:
    """A bucket's lifetime in one account: grants, and those that spending used up."""

    bucket: str
    grants: int
    exhausted: int


@dataclass(frozen=True, slots=True)
class Recorded:
    """A call as the ledger knows it; status: held, settled, voided or orphaned."""

    hold_id: int
    status: str
    charged: int
    debt: int
    paid_from: tuple[PaidFrom, ...]
    memo: bytes
    created_at: int
    ended_at: int | None


class Queries:
    """A reader's connections to one ledger file."""

    def __init__(self, path: str) -> None:
        self._engine = create_engine(f"sqlite:///file:{path}?mode=ro&uri=true")

    def close(self) -> None:
        self._engine.dispose()

    def balance(self, account_id: int, order: BucketOrder, now: int) -> Balance:
        """Project an account as of `now`; raises UnknownAccount."""
        with self._engine.connect() as connection:
            raw = connection.connection.dbapi_connection
            assert isinstance(raw, sqlite3.Connection)
            book = load_books(raw.cursor(), [account_id])[account_id]
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
        with Session(self._engine) as session:
            # The hold first: a call that ends in between is found among those that ended, never in neither place.
            held = session.get(HoldRow, (account_id, hold_id))
            if held is not None:
                return Recorded(hold_id, "held", 0, 0, (), held.memo, held.created_at, None)
            row = session.get(ReceiptRow, (account_id, hold_id))
            if row is not None:
                paid = tuple(PaidFrom(*item) for item in orjson.loads(row.paid_from))
                return Recorded(
                    hold_id, row.status, row.charged, row.debt, paid, row.memo, row.created_at, row.ended_at
                )
            return None
