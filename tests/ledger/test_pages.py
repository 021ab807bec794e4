"""Pages kept between batches are what the file says, whatever happened to a batch."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import fields
from pathlib import Path

import pytest

from ledger.book import Book
from ledger.commands import Command, IssueGrant, OpenAccount
from ledger.errors import Conflict, LedgerError, LedgerUnavailable
from ledger.loading import load_books
from ledger.pages import Pages
from ledger.sqlite import SqliteReader
from ledger.store import Store
from tests.ledger.books import quick_store
from tests.ledger.running import RULES, Life, held, settled

NOW = 1_700_000_000_000_000


def _kept(store: Store) -> dict[int, Book]:
    return store._pages._books


def _check(store: Store, path: Path) -> int:
    """Compare every kept page with what loading makes; returns how many there are."""
    with closing(sqlite3.connect(path)) as connection:
        read = load_books(SqliteReader(connection), list(_kept(store)))
        rows = connection.execute("SELECT account_id, hold_id FROM ledger_hold").fetchall()
    for account, book in _kept(store).items():
        for field in fields(Book):
            if field.name not in ("holds", "limits", "asked", "runs"):
                assert getattr(book, field.name) == getattr(read[account], field.name), field.name
        assert {(account, hold) for hold in book.holds} <= {*rows}
    return len(_kept(store))


@pytest.mark.parametrize("seed", range(4))
def test_what_is_kept_is_what_the_file_says(tmp_path: Path, seed: int) -> None:
    path = tmp_path / "ledger.db"
    store, life = quick_store(str(path)), Life(seed=seed)
    store.transact(life.openings(), RULES, life.now)
    compared = 0
    for _ in range(60):
        batch = [life.next() for _ in range(6)]
        try:
            done: list[list[Command]] = [batch]
            outcomes = [store.transact(batch, RULES, life.now)]
        except LedgerError:
            done, outcomes = [], []
            for command in batch:
                try:
                    outcomes.append(store.transact([command], RULES, life.now))
                    done.append([command])
                except LedgerError:
                    continue
        for commands, answers in zip(done, outcomes, strict=True):
            for command, outcome in zip(commands, answers, strict=True):
                life.note(outcome, command)
        compared += _check(store, path)
        life.pass_time()
    assert compared > 30
    store.close()


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = quick_store(str(tmp_path / "ledger.db"))
    made.transact([OpenAccount(1), IssueGrant(1, 5, "paid", 1000)], RULES, NOW)
    made.transact([held(1, 11, 20)], RULES, NOW)
    return made


def test_a_batch_that_fails_leaves_no_page(store: Store, tmp_path: Path) -> None:
    assert list(_kept(store)) == [1]
    with pytest.raises(Conflict):
        store.transact([held(1, 12, 30), held(1, 11, 20)], RULES, NOW)
    assert not _kept(store)
    store.transact([settled(1, 11, 15)], RULES, NOW)
    assert _kept(store)[1].balance == {5: 985}
    assert _check(store, tmp_path / "ledger.db") == 1
    store.close()


def test_a_hold_that_somebody_else_ended_is_not_ended_again(store: Store, tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "ledger.db", isolation_level=None)) as connection:
        connection.execute("DELETE FROM ledger_hold")
    with pytest.raises(LedgerUnavailable, match="by somebody else"):
        store.transact([settled(1, 11, 15)], RULES, NOW)
    assert not _kept(store)
    store.close()


def test_only_so_many_pages_are_kept_those_used_last() -> None:
    pages = Pages(most=2)
    for account in (1, 2, 1, 3):
        books = pages.take([account])
        pages.keep(books or {account: Book(account, exists=True)}, [])
    assert list(pages._books) == [1, 3]
