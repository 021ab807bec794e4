"""Moves a SQLite ledger, and the proxy's own tables beside it, into an empty PostgreSQL database: all or nothing."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
from sqlalchemy import Integer, Table

from ledger.audit import audit, audit_within
from ledger.connecting import CONNECTING
from ledger.opening import open_stores
from ledger.ownership import Ownership
from ledger.tables import TABLES
from proxy.database import Database
from proxy.journal import JOURNAL_TABLES
from proxy.once import COMMAND_TABLES
from proxy.people.tables import PEOPLE_TABLES

__all__ = ["MOVED", "MoveFailed", "move"]

MOVED = (*TABLES, *PEOPLE_TABLES, *JOURNAL_TABLES, *COMMAND_TABLES)

_NANO = 10**9
_Row = tuple[Any, ...]


class MoveFailed(Exception):
    """The message says why and what to do; the database has no rows of this move."""


@dataclass(frozen=True, slots=True)
class Moved:
    """What was moved. rows: by table. totals: the audit's, in nanocredits by name, the same on both sides."""

    rows: dict[str, int]
    totals: dict[str, int]


def move(path: str, url: str) -> Moved:
    """Copy everything in the file at `path` to the PostgreSQL database at `url`, and prove it there; the file stays.

    Open holds are copied as they are: the next server releases them, as after a crash. Raises MoveFailed, LedgerLocked
    if a server has the file, LedgerUnavailable.
    """
    if not _is_ledger(path):
        raise MoveFailed(f"there is no ledger at {path}; check the path")
    owner = _prepared(path)
    try:
        # As a server does at its start; a lease would be a row.
        _prepared(url).release()
        with (
            closing(sqlite3.connect(_read_only(path), uri=True, isolation_level=None)) as source,
            psycopg.connect(url, **CONNECTING) as target,
        ):
            source.execute("BEGIN")
            return _move(path, source, target)
    except (sqlite3.Error, psycopg.Error) as error:
        raise MoveFailed(f"{path} can't be moved: {error}") from error
    finally:
        owner.release()


def _is_ledger(path: str) -> bool:
    try:
        with closing(sqlite3.connect(_read_only(path), uri=True)) as connection:
            found = connection.execute("SELECT 1 FROM sqlite_schema WHERE name = 'ledger_account'").fetchone()
    except sqlite3.Error:
        return False
    return found is not None


def _read_only(path: str) -> str:
    return f"{Path(path).resolve().as_uri()}?mode=ro"


def _prepared(where: str) -> Ownership:
    """Make what is missing of the tables, or bring them up to date; nothing that is held is released."""
    stores, owner = open_stores(where, "farebox move")
    for store in stores:
        store.close()
    try:
        Database(where).close()
    except BaseException:
        owner.release()
        raise
    return owner


def _move(path: str, source: sqlite3.Connection, target: psycopg.Connection[_Row]) -> Moved:
    names = ", ".join(table.name for table in MOVED)
    # Servers that start meanwhile wait, and then find everything.
    target.execute(f"LOCK TABLE {names} IN EXCLUSIVE MODE".encode())
    filled = [table.name for table in MOVED if _ask(target, f"SELECT EXISTS (SELECT 1 FROM {table.name})")[0][0]]
    if filled:
        raise MoveFailed(f"the database is not empty: there are rows in {', '.join(filled)}; name an empty one")
    _refuse_unknown(source, target)
    rows = {table.name: _copy(table, source, target) for table in MOVED}
    # The proof, and the first calls, are quick by it.
    target.execute(f"ANALYZE {names}".encode())
    for table in MOVED:
        if _sums(table, source) != _sums(table, target):
            raise MoveFailed(f"{table.name} is not the same on both sides; nothing was moved")
    before, after = audit(path), audit_within(target)
    if (before.totals, before.broken) != (after.totals, after.broken):
        raise MoveFailed("the audit does not find the same on both sides; nothing was moved")
    return Moved(rows, after.totals)


def _refuse_unknown(source: sqlite3.Connection, target: psycopg.Connection[_Row]) -> None:
    """Tables beside ours say of what version they are: of the same on both sides, or this release can't move them."""
    known = {table.name for table in MOVED}
    for (name,) in source.execute("SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"):
        if name in known:
            continue
        there = _ask(target, f"SELECT to_regclass('{name}') IS NOT NULL")[0][0]
        if not there or _ask(source, f"SELECT * FROM {name}") != _ask(target, f"SELECT * FROM {name}"):
            raise MoveFailed(f"the file has a table that this Farebox does not know, {name}; nothing was moved")


def _copy(table: Table, source: sqlite3.Connection, target: psycopg.Connection[_Row]) -> int:
    """Copy a table's rows as they are read, so that few are in memory; returns how many they were."""
    columns = ", ".join(column.name for column in table.columns)
    keys = [index for index, column in enumerate(table.columns) if column.primary_key]
    cursor = target.cursor()
    with cursor.copy(f"COPY {table.name} ({columns}) FROM STDIN".encode()) as copy:
        for row in source.execute(f"SELECT {columns} FROM {table.name}"):
            try:
                copy.write_row(row)
            except psycopg.DataError as error:
                # A text with a zero in it, say, which PostgreSQL can't keep.
                key = ", ".join(str(row[index]) for index in keys)
                raise MoveFailed(f"{table.name} ({key}) can't be copied: {error}; nothing was moved") from error
    return cursor.rowcount


def _sums(table: Table, connection: sqlite3.Connection | psycopg.Connection[_Row]) -> list[int]:
    """Count a table's rows, and add up each column: its numbers, or its lengths in bytes."""
    length = "LENGTH(CAST({} AS BLOB))" if isinstance(connection, sqlite3.Connection) else "octet_length({})"
    sums = ["COUNT(*)"]
    for column in table.columns:
        name = column.name
        # Numbers may add up to more than 64 bits, so whole credits and the rest apart.
        whole = isinstance(column.type, Integer)
        parts = (f"{name} / {_NANO}", f"{name} % {_NANO}") if whole else (length.format(name),)
        sums += [f"COUNT({name})", *(f"SUM({part})" for part in parts)]
    return [int(value or 0) for value in _ask(connection, f"SELECT {', '.join(sums)} FROM {table.name}")[0]]


def _ask(connection: sqlite3.Connection | psycopg.Connection[_Row], statement: str) -> list[_Row]:
    if isinstance(connection, sqlite3.Connection):
        return connection.execute(statement).fetchall()
    return connection.execute(statement.encode()).fetchall()
