"""A statement reads as the account's owner would write it: each entry signed, with the balance after it."""

from __future__ import annotations

from ledger.errors import LedgerError
from ledger.ledger import Ledger
from ledger.rules import Rules
from ledger.statement import Entry
from tests.ledger.books import receipt_memo
from tests.ledger.running import HOUR, NOON, Clock, Life, held, page_of, running


async def call(ledger: Ledger, hold_id: int, amount: int) -> None:
    await ledger.hold(held(1, hold_id, 0))
    await ledger.settle(1, hold_id, amount, receipt_memo(amount))


def plain(entries: list[Entry]) -> list[tuple[str, str | None, int, int, int | None, str | None]]:
    """The entries, oldest first, without ids and times."""
    return [(e.kind, e.bucket, e.amount, e.balance, e.request, e.note) for e in reversed(entries)]


async def test_a_statement_tells_every_kind_of_entry(path: str) -> None:
    """Grants, charges, debt, repayments, refunds, expiries, voids and adjustments, with what was noted of them."""
    clock = Clock()
    async with running(path, clock) as ledger:
        await ledger.open_account(1)
        await ledger.open_account(2)
        await ledger.issue(2, "paid", 7)
        await ledger.issue(1, "daily", 30, expires_at=NOON + HOUR, note="hello")
        await call(ledger, 11, 50)
        pack = (await ledger.issue(1, "paid", 100, paid=True)).grant
        await ledger.adjust(1, -10, "bonus", "twice")
        await ledger.refund(1, 11, 25, "sorry", bonus_bucket="bonus", refund_id=901)
        clock.now += HOUR
        await call(ledger, 12, 40)
        await ledger.void_grant(1, pack.grant_id, "charged back")
        await ledger.adjust(1, -35, "bonus", "more")
        await ledger.adjust(1, 25, "bonus", "friend")
        statement = await ledger.statement(1, 100)
        balance = await ledger.balance(1)
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


async def test_a_statement_of_nobody_is_empty(path: str) -> None:
    """An account without transfers, or that there is not, has no entries."""
    async with running(path, Clock()) as ledger:
        await ledger.open_account(1)
        assert await ledger.statement(1, 10) == []
        assert await ledger.statement(2, 10) == []


async def test_every_page_has_the_right_balances(path: str) -> None:
    """After each entry of a busy life the balance is credits less debt just then, on pages of any size."""
    clock = Clock()
    async with running(path, clock) as ledger:
        store, life = ledger._store, Life(seed=3, accounts=(1, 2))
        store.transact(life.openings(), Rules(), life.now)
        for step in range(300):
            command = life.next()
            try:
                (outcome,) = store.transact([command], Rules(), life.now)
            except LedgerError:
                continue
            life.note(outcome, command)
            if step % 10 == 0:
                life.pass_time()
        whole = await ledger.statement(1, 10_000)
        for size in (1, 7):
            pages: list[Entry] = []
            while page := await ledger.statement(1, size, pages[-1].entry_id if pages else None):
                pages += page
            assert pages == whole
    book = page_of(path, 1)
    balance = 0
    for entry in reversed(whole):
        balance += 0 if entry.kind == "repayment" else entry.amount
        assert entry.balance == balance
    assert balance == sum(lot.balance for lot in book.lots.values()) - book.debt
    assert len(whole) == len(book.transfers) > 100
    kinds = {"grant", "charge", "refund", "expiry", "void", "debt", "repayment", "adjustment"}
    assert {entry.kind for entry in whole} == kinds
