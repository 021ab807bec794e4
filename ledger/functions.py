"""What a batch asks of PostgreSQL, as functions there: the server keeps their plans, which take longer than the work.

A plan kept so belongs to the server's connection and needs nothing of the client's, unlike a prepared statement. Each
name says what is in the function, so that releases side by side have each their own. The first of a batch sees to it
that all look up each row by its key: a plan that was made while a table was small would not do when it has grown.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from hashlib import sha256
from typing import Final

from sqlalchemy.dialects import postgresql as dialect

from ledger.backend import Write
from ledger.loading import ACCOUNT_COLUMNS, HOLD_COLUMNS, LOT_COLUMNS
from ledger.saving import WRITES
from ledger.tables import TABLES

__all__ = ["FUNCTIONS", "LOCK", "OPEN_HOLDS", "STALE", "call_of", "column_types", "written"]

STALE: Final = "not as many rows were changed of"
_DIALECT = dialect.dialect()  # type: ignore[no-untyped-call]  # SQLAlchemy does not say


@cache
def column_types(table: str) -> dict[str, str]:
    """The types of a table's columns, as PostgreSQL names them."""
    (found,) = (one for one in TABLES if one.name == table)
    return {column.name: column.type.compile(_DIALECT) for column in found.columns}


def written(write: Write, values: Sequence[str]) -> str:
    """Write a change out: a column of the rows is an array, and all rows are one statement."""
    types = column_types(write.table)
    arrays = ", ".join(f"{value}::{types[name]}[]" for value, name in zip(values, write.columns, strict=True))
    keys, rest = write.columns[: write.key], write.columns[write.key :]
    given = f"unnest({arrays}) AS d({', '.join(write.columns)})"
    same = " AND ".join(f"t.{name} = d.{name}" for name in keys)
    if write.how == "delete":
        return f"DELETE FROM {write.table} t USING {given} WHERE {same}"
    if write.how == "update":
        changed = ", ".join(f"{name} = d.{name}" for name in rest)
        return f"UPDATE {write.table} t SET {changed} FROM {given} WHERE {same}"
    insert = f"INSERT INTO {write.table} ({', '.join(write.columns)}) SELECT * FROM {given}"
    if write.how == "insert":
        return insert
    changed = ", ".join(f"{name} = excluded.{name}" for name in rest)
    return f"{insert} ON CONFLICT ({', '.join(keys)}) DO UPDATE SET {changed}"


def _name(what: str, body: str) -> str:
    return f"ledger_{what}_{sha256(body.encode()).hexdigest()[:12]}"


def _function(name: str, takes: str, gives: str, body: str) -> str:
    return (
        f"CREATE OR REPLACE FUNCTION {name}({takes}) RETURNS {gives} LANGUAGE plpgsql"
        f" AS $$ DECLARE changed bigint; BEGIN {body} END $$"
    )


def _columns(table: str, names: str) -> list[str]:
    return [column_types(table)[name] for name in names.split(", ")]


def _table(types: Sequence[str]) -> str:
    """What a function gives that gives rows; its columns' names must be none of a table's."""
    return "TABLE(" + ", ".join(f"c{place} {kind}" for place, kind in enumerate(types)) + ")"


# Accounts are locked in order, so that two batches wait for each other and not each for the other; only then their
# grants are read, as they were left by who had the lock before. Others wait meanwhile, and nobody is asked anything in
# the middle of a batch: who is silent there for five seconds is paused, or its host is gone.
_LOCKING = (
    "PERFORM set_config('idle_in_transaction_session_timeout', '5s', true), set_config('enable_seqscan', 'off', true),"
    " set_config('enable_hashjoin', 'off', true), set_config('enable_mergejoin', 'off', true);"
    " PERFORM 1 FROM ledger_account WHERE account_id = ANY($1) ORDER BY account_id FOR NO KEY UPDATE;"
    f" RETURN QUERY SELECT {', '.join(f'a.{name}' for name in ACCOUNT_COLUMNS.split(', '))},"
    f" {', '.join(f'g.{name}' for name in LOT_COLUMNS.split(', '))} FROM ledger_account a LEFT JOIN LATERAL"
    " (SELECT * FROM ledger_grant o WHERE o.account_id = a.account_id AND o.open = 1 OFFSET 0) g ON TRUE"
    " WHERE a.account_id = ANY($1);"
)
_HOLDING = (
    f"RETURN QUERY SELECT {', '.join(f'h.{name}' for name in HOLD_COLUMNS.split(', '))}"
    " FROM unnest($1, $2) AS d(account_id, hold_id)"
    " JOIN ledger_hold h ON h.account_id = d.account_id AND h.hold_id = d.hold_id;"
)
LOCK: Final = f"SELECT * FROM {_name('lock', _LOCKING)}($1)".encode()
"""Locks accounts, and gives them with their open grants: ACCOUNT_COLUMNS and then LOT_COLUMNS."""

OPEN_HOLDS: Final = f"SELECT * FROM {_name('holds', _HOLDING)}($1, $2)".encode()
"""Gives open holds by account and id: HOLD_COLUMNS."""


@cache
def _change(write: Write) -> str:
    statement = written(write, [f"${place}" for place in range(1, len(write.columns) + 1)])
    return (
        f"{statement}; GET DIAGNOSTICS changed = ROW_COUNT;"
        f" IF changed <> cardinality($1) THEN RAISE EXCEPTION '{STALE} {write.table}'; END IF;"
    )


def _name_of(write: Write) -> str:
    return _name(f"{write.how}_{write.table.removeprefix('ledger_')}", _change(write))


@cache
def call_of(write: Write) -> bytes:
    """How a change is called for, with an array for each column; it fails as STALE where a row is not changed."""
    return f"SELECT {_name_of(write)}({', '.join(f'${place}' for place in range(1, len(write.columns) + 1))})".encode()


def _changing(write: Write) -> str:
    takes = ", ".join(f"{column_types(write.table)[name]}[]" for name in write.columns)
    return _function(_name_of(write), takes, "void", _change(write))


_LOCKED = _columns("ledger_account", ACCOUNT_COLUMNS) + _columns("ledger_grant", LOT_COLUMNS)
FUNCTIONS: Final = (
    _function(_name("lock", _LOCKING), "bigint[]", _table(_LOCKED), _LOCKING),
    _function(_name("holds", _HOLDING), "bigint[], bigint[]", _table(_columns("ledger_hold", HOLD_COLUMNS)), _HOLDING),
    *map(_changing, WRITES),
)
"""The statements that make them."""
