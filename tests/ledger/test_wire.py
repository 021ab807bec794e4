"""Statements that go to PostgreSQL in one go."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ledger.backend import Stale, Write
from ledger.commands import IssueGrant, OpenAccount
from ledger.postgres import Postgres
from ledger.rules import Rules
from ledger.store import Store
from ledger.wire import Statement, array, carry_out, rows_of
from tests.ledger.running import NOON, held

_VALUES: dict[str, st.SearchStrategy[Any]] = {
    "BIGINT": st.integers(-(2**63), 2**63 - 1),
    "INTEGER": st.integers(-(2**31), 2**31 - 1),
    "VARCHAR": st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")),
    "BYTEA": st.binary(),
}


@pytest.fixture(scope="module")
def connection(postgres_url: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(postgres_url, autocommit=True) as made:
        yield made


def told(connection: psycopg.Connection[Any], kind: str, values: list[Any]) -> list[Any]:
    """Send an array there and have it told again, element by element."""
    value, number = array(kind, values)
    (result,) = carry_out(connection, [Statement(f"SELECT unnest($1::{kind}[])".encode(), (value,), (number,))])
    return [row[0] for row in rows_of(connection, result)]


@pytest.mark.parametrize("kind", _VALUES)
def test_every_value_arrives_as_it_is(kind: str, connection: psycopg.Connection[Any]) -> None:
    """Numbers to their limits, texts, bytes and nulls; none of them, one, or many."""

    @settings(max_examples=60, suppress_health_check=list(HealthCheck))
    @given(st.lists(st.none() | _VALUES[kind], max_size=8), st.lists(_VALUES[kind], max_size=8))
    def check(some: list[Any], full: list[Any]) -> None:
        assert told(connection, kind, some) == some
        assert told(connection, kind, full) == full

    check()
    assert told(connection, "INTEGER", [True, False]) == [1, 0]


def test_more_goes_than_either_side_takes_at_once(connection: psycopg.Connection[Any]) -> None:
    """Megabytes both ways, while neither waits for the other to finish."""
    large = [bytes([number % 256]) * 100_000 for number in range(80)]
    value, number = array("BYTEA", large)
    statement = Statement(b"SELECT unnest($1::bytea[])", (value,), (number,))
    for result in carry_out(connection, [statement] * 3):
        assert [row[0] for row in rows_of(connection, result)] == large


def test_after_one_that_failed_nothing_is_carried_out(connection: psycopg.Connection[Any]) -> None:
    """Its error is raised, and the connection can be used again."""
    connection.execute("CREATE TEMP TABLE kept (n int)")
    sent = [b"BEGIN", b"INSERT INTO kept VALUES (1)", b"SELECT 1 / 0", b"COMMIT"]
    with pytest.raises(psycopg.errors.DivisionByZero):
        carry_out(connection, [Statement(text) for text in sent])
    connection.execute("ROLLBACK")
    assert connection.execute("SELECT COUNT(*) FROM kept").fetchone() == (0,)


def test_a_connection_that_is_lost_is_an_operational_error(postgres_url: str) -> None:
    """As with the driver itself, before the answers and amid them."""
    with closing(psycopg.connect(postgres_url, autocommit=True)) as lost:
        with pytest.raises(psycopg.OperationalError):
            carry_out(lost, [Statement(b"SELECT 1"), Statement(b"SELECT pg_terminate_backend(pg_backend_pid())")])
        assert lost.closed
        with pytest.raises(psycopg.OperationalError):
            carry_out(lost, [Statement(b"SELECT 1")])


def test_a_change_of_what_is_gone_is_not_committed(postgres_url: str) -> None:
    """A hold that somebody else has ended is not ended again, nor is anything else of the batch written."""
    backend = Postgres(postgres_url)
    with closing(Store(backend)) as store, psycopg.connect(postgres_url, autocommit=True) as other:
        account = store._ids.next()
        store.transact([OpenAccount(account), IssueGrant(account, 5, "paid", 100)], Rules(), NOON)
        store.transact([held(account, 11, 20)], Rules(), NOON)
        other.execute("DELETE FROM ledger_hold WHERE account_id = %s", (account,))
        grant = Write("ledger_grant", ("account_id", "grant_id", "balance", "held", "lost"), "update", 2)
        gone = Write("ledger_hold", ("account_id", "hold_id"), "delete", 2)
        backend.begin([account])
        with pytest.raises(Stale, match="ledger_hold"):
            backend.commit([(grant, [(account, 5, 70, 0, 0)]), (gone, [(account, 11)])])
        backend.rollback()
        kept = other.execute("SELECT balance FROM ledger_grant WHERE account_id = %s", (account,)).fetchone()
        assert kept == (100,)
