"""A statement reads as the account's owner would write it: each entry signed, with the balance after it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest

from ledger.commands import Adjust, IssueGrant, OpenAccount, Refund, VoidGrant
from ledger.errors import LedgerError
from ledger.rules import Rules
from ledger.statement import Entry
from tests.ledger.books import Stored
from tests.ledger.running import HOUR, NOON, RULES, Life, held, settled


@pytest.fixture(params=("sqlite", "postgres", "sqlite, packed", "postgres, packed"))
def stored(request: pytest.FixtureRequest, path: str) -> Iterator[Stored]:
    """Two accounts, on each database."""
    where = path if request.param.startswith("sqlite") else request.getfixturevalue("postgres_url")
    with closing(Stored(where, RULES, NOON, packs="packed" in request.param)) as made:
        made.do(OpenAccount(1), OpenAccount(2))
        yield made


def plain(entries: list[Entry]) -> list[tuple[str, str | None, int, int, int | None, str | None]]:
    """The entries, oldest first, without ids and times."""
    return [(e.kind, e.bucket, e.amount, e.balance, e.request, e.note) for e in reversed(entries)]


def test_a_statement_tells_every_kind_of_entry(stored: Stored) -> None:
    """Grants, charges, debt, repayments, refunds, expiries, voids and adjustments, with what was noted of them."""
    stored.do(
        IssueGrant(2, 20, "paid", 7),
        IssueGrant(1, 21, "daily", 30, expires_at=NOON + HOUR, note="hello"),
        held(1, 11, 0),
        settled(1, 11, 50),
        IssueGrant(1, 22, "paid", 100, paid=True),
        Adjust(1, -10, 31, "bonus", "twice"),
        Refund(1, 11, 901, 25, "bonus", "sorry"),
    )
    stored.now += HOUR
    stored.do(
        held(1, 12, 0),
        settled(1, 12, 40),
        VoidGrant(1, 22, "charged back"),
        Adjust(1, -35, 32, "bonus", "more"),
        Adjust(1, 25, 33, "bonus", "friend"),
    )
    statement = stored.queries.statement(1, 100, None)
    balance = stored.queries.balance(1, RULES, stored.now)
    assert plain(statement) == [
        ("grant", "daily", 30, 30, None, "hello"),
        ("charge", "daily", -30, 0, 11, None),
        ("debt", None, -20, -20, 11, None),
        ("grant", "paid", 100, 80, None, None),
        ("repayment", "paid", 20, 80, None, None),
        ("adjustment", "paid", -10, 70, None, "twice"),
        # The call's debt was repaid by the pack, so 20 come as a new grant.
        ("refund", "daily", 5, 75, 11, "sorry"),
        ("refund", "bonus", 20, 95, 11, "sorry"),
        ("expiry", "daily", -5, 90, None, None),
        ("charge", "bonus", -20, 70, 12, None),
        ("charge", "paid", -20, 50, 12, None),
        ("void", "paid", -50, 0, None, "charged back"),
        ("adjustment", None, -35, -35, None, "more"),
        ("adjustment", None, 25, -10, None, "friend"),
    ]
    assert statement[0].balance == balance.available - balance.debt
    assert [entry.at for entry in statement] == sorted((entry.at for entry in statement), reverse=True)


def test_a_statement_of_nobody_is_empty(stored: Stored) -> None:
    """An account without transfers, or that there is not, has no entries."""
    assert stored.queries.statement(1, 10, None) == []
    assert stored.queries.statement(3, 10, None) == []


def test_every_page_has_the_right_balances(stored: Stored) -> None:
    """After each entry of a busy life the balance is credits less debt just then, on pages of any size."""
    stored.rules, life = Rules(), Life(seed=3, accounts=(1, 2))
    stored.do(*life.openings())
    for step in range(300):
        command = life.next()
        stored.now = life.now
        try:
            life.note(stored.do(command), command)
        except LedgerError:
            continue
        if step % 10 == 0:
            life.pass_time()
    whole = stored.queries.statement(1, 10_000, None)
    for size in (1, 7):
        pages: list[Entry] = []
        while page := stored.queries.statement(1, size, pages[-1].entry_id if pages else None):
            pages += page
        assert pages == whole
    book = stored.page(1)
    balance = 0
    for entry in reversed(whole):
        balance += 0 if entry.kind == "repayment" else entry.amount
        assert entry.balance == balance
    assert balance == sum(lot.balance for lot in book.lots.values()) - book.debt
    assert len(whole) == len(book.transfers) > 100
    kinds = {"grant", "charge", "refund", "expiry", "void", "debt", "repayment", "adjustment"}
    assert {entry.kind for entry in whole} == kinds
    assert {type(number) for entry in whole for number in (entry.amount, entry.balance)} == {int}
