"""The store's database as PostgreSQL, which many processes share: rows are locked, and written in sets of arrays.

Nothing here outlives a transaction (no session locks, no prepared statements by name, no settings of the session), so
that a pooler may hand out connections by the transaction.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import cache

import psycopg
from psycopg import errors
from sqlalchemy import NullPool, create_engine

from ledger.backend import Changes, Pairs, Row, Stale, Write
from ledger.connecting import CONNECTING
from ledger.functions import FUNCTIONS, LOCK, OPEN_HOLDS, STALE, call_of, column_types, written
from ledger.loading import ACCOUNT_COLUMNS, LOAD_HOLDS, LOT_COLUMNS
from ledger.migrating import LEDGER, migrate
from ledger.tables import HOLD_HAS_ENDED
from ledger.wire import Statement, array, carry_out, rows_of

__all__ = ["Postgres", "PostgresReader"]

_ACCOUNTS = f"SELECT {ACCOUNT_COLUMNS} FROM ledger_account WHERE account_id = ANY(%s) ORDER BY account_id"
_LOTS = f"SELECT account_id, {LOT_COLUMNS} FROM ledger_grant WHERE account_id = ANY(%s) AND open = 1"
_NO_LOT = (None,) * len(LOT_COLUMNS.split(", "))
_CREATING = 4_605_862_153_427
"""What processes that create the tables at the same moment take turns by."""

_PASSING = (errors.SerializationFailure, errors.DeadlockDetected, errors.IdleInTransactionSessionTimeout)


def _with_lots(accounts: Iterable[Row], lots: Iterable[Row]) -> Iterable[Row]:
    """Put to each account its grants."""
    by_account: dict[int, list[Row]] = {row[0]: [] for row in accounts}
    for lot in lots:
        by_account[lot[0]].append(lot[1:])
    for row in accounts:
        for found in by_account[row[0]] or [_NO_LOT]:
            yield row + found


class PostgresReader:
    """A connection's reading side."""

    def __init__(self, cursor: Callable[[], psycopg.Cursor[Row]]) -> None:
        self._at = cursor

    def books(self, accounts: Sequence[int]) -> Iterable[Row]:
        found = self._at().execute(_ACCOUNTS, (accounts,)).fetchall()
        return _with_lots(found, self._at().execute(_LOTS, ([row[0] for row in found],)).fetchall())

    def holds(self, pairs: Pairs) -> list[Row]:
        return self.rows_in(LOAD_HOLDS, pairs)

    def rows(self, statement: str, *values: object) -> list[Row]:
        return self._at().execute(_ours(statement), values).fetchall()

    def rows_in(self, statement: str, pairs: Pairs) -> list[Row]:
        return self._at().execute(*_by_pairs(statement, pairs)).fetchall()


class Postgres(PostgresReader):
    """A writing connection; made again where it was lost."""

    exclusive = False
    error: type[Exception] = psycopg.Error

    def __init__(self, url: str) -> None:
        super().__init__(self._cursor)
        self._url = url
        self._connection: psycopg.Connection[Row] | None = None
        self._locked: list[Row] = []
        self._held: list[Row] = []

    def _cursor(self) -> psycopg.Cursor[Row]:
        if self._connection is None or self._connection.closed:
            self._connection = psycopg.connect(self._url, autocommit=True, **CONNECTING)
        return self._connection.cursor(binary=True)

    def create(self) -> None:
        def connect() -> psycopg.Connection:
            return psycopg.connect(self._url, **CONNECTING)

        # A connection of its own, which is gone when everything is there.
        engine = create_engine("postgresql+psycopg://", creator=connect, poolclass=NullPool, use_native_hstore=False)
        with engine.begin() as connection:
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_CREATING})")
            migrate(connection, LEDGER)
            for function in FUNCTIONS:
                connection.exec_driver_sql(function)

    def begin(self, accounts: Sequence[int], holds: Pairs = ()) -> None:
        connection = self._cursor().connection
        value, kind = array("BIGINT", accounts)
        statements = [Statement(b"BEGIN"), Statement(LOCK, (value,), (kind,))]
        if holds:
            arrays = [array("BIGINT", column) for column in zip(*holds, strict=True)]
            statements.append(Statement(OPEN_HOLDS, *zip(*arrays, strict=True)))
        _, locked, *held = carry_out(connection, statements)
        self._locked = rows_of(connection, locked)
        self._held = rows_of(connection, held[0]) if held else []

    def books(self, accounts: Sequence[int]) -> Iterable[Row]:
        return self._locked

    def holds(self, pairs: Pairs) -> list[Row]:
        return self._held

    def write(self, write: Write, rows: Sequence[Row]) -> int:
        return self._cursor().execute(_statement(write), [list(column) for column in zip(*rows, strict=True)]).rowcount

    def commit(self, changes: Changes = ()) -> None:
        statements = []
        for write, rows in changes:
            kinds = column_types(write.table)
            columns = zip(write.columns, zip(*rows, strict=True), strict=True)
            arrays = [array(kinds[name], column) for name, column in columns]
            statements.append(Statement(call_of(write), *zip(*arrays, strict=True)))
        try:
            carry_out(self._cursor().connection, [*statements, Statement(b"COMMIT")])
        except errors.RaiseException as error:
            if STALE in str(error):
                raise Stale(str(error)) from error
            raise

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


def _by_pairs(statement: str, pairs: Pairs) -> tuple[bytes, tuple[list[int], list[int | str]]]:
    firsts, seconds = zip(*pairs, strict=True) if pairs else ((), ())
    kind = "text" if any(isinstance(second, str) for second in seconds) else "bigint"
    return _with_pairs(statement, kind), ([*firsts], [*seconds])


@cache
def _with_pairs(statement: str, kind: str) -> bytes:
    return statement.format(pairs=f"(SELECT * FROM unnest(%s::bigint[], %s::{kind}[]))").encode()


@cache
def _statement(write: Write) -> bytes:
    return written(write, ["%s"] * len(write.columns)).encode()
