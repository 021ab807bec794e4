"""The store's database as one SQLite file, which one process owns."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable, Sequence
from functools import cache

from sqlalchemy import NullPool, create_engine

from ledger.backend import Changes, Pairs, Row, Stale, Write
from ledger.errors import LedgerUnavailable
from ledger.loading import ACCOUNT_COLUMNS, LOAD_HOLDS, LOT_COLUMNS, json_text
from ledger.migrating import LEDGER, migrate
from ledger.tables import HOLD_HAS_ENDED

__all__ = ["Sqlite", "SqliteReader"]

_LOAD_BOOKS = (
    "SELECT "
    + ", ".join(f"a.{name}" for name in ACCOUNT_COLUMNS.split(", "))
    + ", "
    + ", ".join(f"g.{name}" for name in LOT_COLUMNS.split(", "))
    + " FROM ledger_account a"
    " LEFT JOIN ledger_grant g INDEXED BY ledger_grant_open ON g.account_id = a.account_id AND g.open = 1"
    " WHERE a.account_id IN (SELECT value FROM json_each(?))"
)
_PAIRS = "(SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]') FROM json_each(?))"
_NOBODYS = (
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_CANTOPEN,
)


class SqliteReader:
    """A connection's reading side."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._cursor = connection.cursor()

    def books(self, accounts: Sequence[int]) -> Iterable[Row]:
        return self._cursor.execute(_LOAD_BOOKS, (json_text(accounts),))

    def holds(self, pairs: Pairs) -> list[Row]:
        return self.rows_in(LOAD_HOLDS, pairs)

    def rows(self, statement: str, *values: object) -> list[Row]:
        return self._cursor.execute(statement, values).fetchall()

    def rows_in(self, statement: str, pairs: Pairs) -> list[Row]:
        text = json_text([[*pair] for pair in pairs])
        return self._cursor.execute(_with_pairs(statement), (text,)).fetchall()


class Sqlite(SqliteReader):
    """A file's writing connection."""

    exclusive = True
    error: type[Exception] = sqlite3.Error

    def __init__(self, path: str) -> None:
        if sqlite3.sqlite_version_info < (3, 38):
            raise LedgerUnavailable(f"SQLite {sqlite3.sqlite_version} is too old; 3.38 or newer is needed")
        # It holds people's balances: nobody else's to read. What SQLite puts beside it gets the same mode.
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
        self._path = path
        super().__init__(sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=10))
        try:
            # FULL: a commit that was acknowledged survives a power cut.
            for pragma in ("journal_mode=WAL", "synchronous=FULL", "cache_size=-16384", "wal_autocheckpoint=4000"):
                self._cursor.execute(f"PRAGMA {pragma}").fetchall()
        except BaseException:
            self._connection.close()
            raise

    def create(self) -> None:
        # A connection of its own, which is gone when everything is there.
        engine = create_engine(f"sqlite:///{self._path}", poolclass=NullPool, connect_args={"isolation_level": None})
        with engine.begin() as connection:
            connection.exec_driver_sql("BEGIN IMMEDIATE")
            migrate(connection, LEDGER)

    def begin(self, accounts: Sequence[int], holds: Pairs = ()) -> None:
        self._cursor.execute("BEGIN IMMEDIATE")

    def write(self, write: Write, rows: Sequence[Row]) -> int:
        return self._cursor.executemany(_statement(write), rows).rowcount

    def commit(self, changes: Changes = ()) -> None:
        for write, rows in changes:
            if self.write(write, rows) != len(rows):
                raise Stale(write.table)
        self._cursor.execute("COMMIT")

    def rollback(self) -> None:
        if self._connection.in_transaction:
            self._cursor.execute("ROLLBACK")

    def is_double(self, error: Exception) -> bool:
        names = ("SQLITE_CONSTRAINT_PRIMARYKEY", "SQLITE_CONSTRAINT_UNIQUE")
        return isinstance(error, sqlite3.IntegrityError) and (
            error.sqlite_errorname in names or HOLD_HAS_ENDED in str(error)
        )

    def is_passing(self, error: Exception) -> bool:
        return False

    def is_nobodys(self, error: Exception) -> bool:
        return getattr(error, "sqlite_errorcode", 0) & 0xFF in _NOBODYS

    def close(self) -> None:
        self._connection.close()


@cache
def _with_pairs(statement: str) -> str:
    return statement.format(pairs=_PAIRS)


@cache
def _statement(write: Write) -> str:
    """Write it out; a row's values are numbered, as an update has its key last."""
    keys, rest = write.columns[: write.key], write.columns[write.key :]
    where = " AND ".join(f"{name} = ?{number}" for number, name in enumerate(keys, 1))
    if write.how == "delete":
        return f"DELETE FROM {write.table} WHERE {where}"
    if write.how == "update":
        changed = ", ".join(f"{name} = ?{number}" for number, name in enumerate(rest, write.key + 1))
        return f"UPDATE {write.table} SET {changed} WHERE {where}"
    insert = f"INSERT INTO {write.table} ({', '.join(write.columns)}) VALUES ({','.join('?' * len(write.columns))})"
    if write.how == "insert":
        return insert
    changed = ", ".join(f"{name} = excluded.{name}" for name in rest)
    return f"{insert} ON CONFLICT ({', '.join(keys)}) DO UPDATE SET {changed}"
