"""The store's database as PostgreSQL, which many processes share: rows are locked, and written in sets of arrays.

Nothing here outlives a transaction (no session locks, no prepared statements by name, no settings of the session), so
that a pooler may hand out connections by the transaction.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import cache
from typing import Any

import psycopg
from psycopg import errors
from sqlalchemy import Table
from sqlalchemy.dialects import postgresql as dialect
from sqlalchemy.schema import CreateIndex, CreateTable

from ledger.backend import Pairs, Row, Write
from ledger.loading import ACCOUNT_COLUMNS, LOT_COLUMNS
from ledger.tables import HOLD_HAS_ENDED, POSTGRES_TRIGGERS, TABLES

__all__ = ["Postgres", "PostgresReader"]

_ACCOUNTS = f"SELECT {ACCOUNT_COLUMNS} FROM ledger_account WHERE account_id = ANY(%s) ORDER BY account_id"
_LOTS = f"SELECT account_id, {LOT_COLUMNS} FROM ledger_grant WHERE account_id = ANY(%s) AND open = 1"
_NO_LOT = (None,) * len(LOT_COLUMNS.split(", "))
_CREATING = 4_605_862_153_427
"""What processes that create the tables at the same moment take turns by."""

_PASSING = (errors.SerializationFailure, errors.DeadlockDetected, errors.IdleInTransactionSessionTimeout)
_CONNECT_SECONDS = 5
# Nobody is asked anything in the middle of a batch: who is silent there for so long is paused, or its host is gone.
_SILENT_SECONDS = 5
_DIALECT = dialect.dialect()  # type: ignore[no-untyped-call]  # SQLAlchemy does not say


class PostgresReader:
    """A connection's reading side."""

    def __init__(self, cursor: Callable[[], psycopg.Cursor[Row]]) -> None:
        self._at = cursor

    def books(self, accounts: Sequence[int]) -> Iterable[Row]:
        found = self._at().execute(_ACCOUNTS, (accounts,)).fetchall()
        return self._with_lots(found)

    def _with_lots(self, accounts: Iterable[Row]) -> Iterable[Row]:
        by_account: dict[int, list[Row]] = {row[0]: [] for row in accounts}
        for lot in self._at().execute(_LOTS, ([*by_account],)).fetchall():
            by_account[lot[0]].append(lot[1:])
        for row in accounts:
            for found in by_account[row[0]] or [_NO_LOT]:
                yield row + found

    def rows(self, statement: str, *values: object) -> list[Row]:
        return self._at().execute(_ours(statement), values).fetchall()

    def rows_in(self, statement: str, pairs: Pairs) -> list[Row]:
        firsts, seconds = zip(*pairs, strict=True) if pairs else ((), ())
        kind = "text" if any(isinstance(second, str) for second in seconds) else "bigint"
        return self._at().execute(_with_pairs(statement, kind), ([*firsts], [*seconds])).fetchall()


class Postgres(PostgresReader):
    """A writing connection; made again where it was lost."""

    exclusive = False
    error: type[Exception] = psycopg.Error

    def __init__(self, url: str) -> None:
        super().__init__(self._cursor)
        self._url = url
        self._connection: psycopg.Connection[Row] | None = None
        self._locked: list[Row] = []

    def _cursor(self) -> psycopg.Cursor[Row]:
        if self._connection is None or self._connection.closed:
            self._connection = psycopg.connect(
                self._url, autocommit=True, prepare_threshold=None, connect_timeout=_CONNECT_SECONDS
            )
        return self._connection.cursor(binary=True)

    def create(self) -> None:
        cursor = self._cursor()
        with cursor.connection.transaction():
            cursor.execute("SELECT pg_advisory_xact_lock(%s)", (_CREATING,))
            for table in TABLES:
                cursor.execute(str(CreateTable(table, if_not_exists=True).compile(dialect=_DIALECT)).encode())
                self._add_columns(cursor, table)
                for index in sorted(table.indexes, key=lambda index: str(index.name)):
                    cursor.execute(str(CreateIndex(index, if_not_exists=True).compile(dialect=_DIALECT)).encode())
            for statement in POSTGRES_TRIGGERS:
                cursor.execute(statement.encode())

    def _add_columns(self, cursor: psycopg.Cursor[Row], table: Table) -> None:
        """Bring a table that an older release made up to date; what releases add may be null."""
        for column in table.columns:
            if column.nullable:
                kind = column.type.compile(_DIALECT)
                cursor.execute(f"ALTER TABLE {table.name} ADD COLUMN IF NOT EXISTS {column.name} {kind}".encode())

    def begin(self, accounts: Sequence[int]) -> None:
        cursor = self._cursor()
        with cursor.connection.pipeline():
            cursor.execute("BEGIN")
            # Others wait for what it has locked. It counts from the next statement on, as a pipeline ends in a flush.
            cursor.execute(f"SET LOCAL idle_in_transaction_session_timeout = '{_SILENT_SECONDS}s'".encode())
            # In order, so that two batches with the same accounts wait for each other and not each for the other.
            self._locked = cursor.execute(f"{_ACCOUNTS} FOR NO KEY UPDATE", (accounts,)).fetchall()

    def books(self, accounts: Sequence[int]) -> Iterable[Row]:
        # Those that were locked; their grants are read after that, as they were left by who had the lock before.
        return self._with_lots(self._locked)

    def write(self, write: Write, rows: Sequence[Row]) -> int:
        return self._cursor().execute(_statement(write), [list(column) for column in zip(*rows, strict=True)]).rowcount

    def commit(self) -> None:
        self._cursor().execute("COMMIT")

    def rollback(self) -> None:
        connection = self._connection
        if connection is None or connection.closed:
            return
        try:
            if connection.info.transaction_status != psycopg.pq.TransactionStatus.IDLE:
                connection.execute("ROLLBACK")
        except psycopg.Error:
            connection.close()

    def is_double(self, error: Exception) -> bool:
        return isinstance(error, errors.UniqueViolation) or (
            isinstance(error, errors.RaiseException) and HOLD_HAS_ENDED in str(error)
        )

    def is_passing(self, error: Exception) -> bool:
        return isinstance(error, _PASSING)

    def is_nobodys(self, error: Exception) -> bool:
        return isinstance(error, psycopg.OperationalError)

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()


@cache
def _ours(statement: str) -> bytes:
    return statement.replace("%", "%%").replace("?", "%s").encode()


@cache
def _with_pairs(statement: str, kind: str) -> bytes:
    return statement.format(pairs=f"(SELECT * FROM unnest(%s::bigint[], %s::{kind}[]))").encode()


def _types(table: str) -> dict[str, Any]:
    (found,) = (one for one in TABLES if one.name == table)
    return {column.name: column.type.compile(_DIALECT) for column in found.columns}


@cache
def _statement(write: Write) -> bytes:
    """Write it out: a column of the rows is an array, and all rows are one statement."""
    types = _types(write.table)
    arrays = ", ".join(f"%s::{types[name]}[]" for name in write.columns)
    keys, rest = write.columns[: write.key], write.columns[write.key :]
    given = f"unnest({arrays}) AS d({', '.join(write.columns)})"
    same = " AND ".join(f"t.{name} = d.{name}" for name in keys)
    if write.how == "delete":
        return f"DELETE FROM {write.table} t USING {given} WHERE {same}".encode()
    if write.how == "update":
        changed = ", ".join(f"{name} = d.{name}" for name in rest)
        return f"UPDATE {write.table} t SET {changed} FROM {given} WHERE {same}".encode()
    insert = f"INSERT INTO {write.table} ({', '.join(write.columns)}) SELECT * FROM {given}"
    if write.how == "insert":
        return insert.encode()
    changed = ", ".join(f"{name} = excluded.{name}" for name in rest)
    return f"{insert} ON CONFLICT ({', '.join(keys)}) DO UPDATE SET {changed}".encode()
