"""Corrections through the async verbs: what they answer, what outlives the process, and what meets in one batch."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest

from ledger.audit import audit
from ledger.commands import Adjust, Command, IssueGrant, OpenAccount, Refund, VoidGrant
from ledger.errors import Conflict, UnknownAccount, UnknownGrant, UnknownHold
from ledger.model import DEBT, PaidBack
from ledger.outcomes import Adjusted, Held, Issued, Refunded, RefundRefused, Refused, Voided
from tests.ledger.books import assert_lawful, quick_store, read_page, receipt_memo
from tests.ledger.running import HOUR, NOON, RULES, Clock, held, page_of, running, settled, voided


async def test_a_void_outlives_the_process(path: str) -> None:
    """What a hold releases of a voided grant goes where the void went, though another process voided it."""
    clock = Clock()
    async with running(path, clock) as ledger:
        await ledger.open_account(1)
        pack = (await ledger.issue(1, "paid", 100, paid=True)).grant
        await ledger.hold(held(1, 11, 40))
        clock.now += 1
        first = await ledger.void_grant(1, pack.grant_id, "charged back")
        again = await ledger.void_grant(1, pack.grant_id, "charged back")
        balance = await ledger.balance(1)
    assert first == Voided(pack, 60, 40, NOON + 1)
    assert again == Voided(pack, 0, 40, NOON + 1, new=False)
    assert (balance.available, balance.held, balance.grants) == (0, 0, [])
    clock.now += 1
    async with running(path, clock) as ledger:
        assert isinstance(await ledger.hold(held(1, 12, 1)), Refused)
        assert (await ledger.void_grant(1, pack.grant_id)).new is False
    page = page_of(path, 1)
    assert_lawful(page)
    assert (page.lots[pack.grant_id].balance, page.lots[pack.grant_id].lost) == (0, 100)
    assert [transfer.note for transfer in page.transfers if transfer.kind == "void"] == ["charged back", None]
    assert audit(path).clean


async def test_corrections_name_what_they_do_not_know(path: str) -> None:
    """An unknown account, grant or call is named as such, and nothing is written."""
    async with running(path, Clock()) as ledger:
        await ledger.open_account(1)
        await ledger.open_account(2)
        pack = (await ledger.issue(1, "paid", 100, paid=True)).grant
        await ledger.hold(held(1, 11, 40))
        before = page_of(path, 1), page_of(path, 2)
        with pytest.raises(UnknownGrant):
            await ledger.void_grant(2, pack.grant_id, "not its own")
        with pytest.raises(UnknownHold):
            await ledger.refund(1, 11, None, "it still runs", bonus_bucket="bonus")
        with pytest.raises(UnknownHold):
            await ledger.refund(2, 11, None, "not its own", bonus_bucket="bonus")
        for unknown in (
            ledger.void_grant(3, pack.grant_id),
            ledger.refund(3, 11, None, "nobody", bonus_bucket="bonus"),
            ledger.adjust(3, 5, "bonus", "nobody"),
            ledger.set_account(3, status="suspended"),
        ):
            with pytest.raises(UnknownAccount):
                await unknown
        with pytest.raises(Conflict):
            await ledger.adjust(1, 0, "bonus", "nothing")
        assert (page_of(path, 1), page_of(path, 2)) == before


@pytest.mark.parametrize("source", ["adjustment", "refund"])
async def test_the_sources_of_corrections_are_theirs_alone(path: str, source: str) -> None:
    """Nobody can issue a grant that passes for an adjustment's or a refund's: a void would send it elsewhere."""
    async with running(path, Clock()) as ledger:
        await ledger.open_account(1)
        with pytest.raises(Conflict, match=source):
            await ledger.issue(1, "bonus", 5, source=source)


async def test_a_refund_is_recorded_and_made_once(path: str) -> None:
    """A refund is on the receipt and in the list of its call's refunds; under one id it is made once, for ever."""
    clock = Clock()
    async with running(path, clock) as ledger:
        await ledger.open_account(1)
        pack = (await ledger.issue(1, "paid", 100, paid=True)).grant
        await ledger.hold(held(1, 11, 100))
        await ledger.settle(1, 11, 120, receipt_memo(120))
        clock.now += 1
        first = await ledger.refund(1, 11, 50, "bad answer", bonus_bucket="bonus", refund_id=901)
        clock.now += 1
        second = await ledger.refund(1, 11, None, "still bad", bonus_bucket="bonus")
        third = await ledger.refund(1, 11, None, "more", bonus_bucket="bonus")
        recorded = await ledger.receipt(1, 11)
    assert first == Refunded(901, 11, 50, (PaidBack(pack.grant_id, "paid", 30),), 20, "bad answer", NOON + 1)
    assert isinstance(second, Refunded)
    assert (second.to, second.debt_reduced) == ((PaidBack(pack.grant_id, "paid", 70),), 0)
    assert third == RefundRefused(0)
    assert recorded is not None
    assert (recorded.charged, recorded.refunded, recorded.debt, recorded.account_id) == (120, 120, 20, 1)
    async with running(path, clock) as ledger:
        assert await ledger.refund(1, 11, 50, "bad answer", bonus_bucket="bonus", refund_id=901) == first
        assert await ledger.refunds_of(1, 11) == [second, first]
        assert await ledger.refunds_of(2, 11) == []
        assert isinstance(await ledger.hold(held(1, 12, 100)), Held)
        await ledger.settle(1, 12, 1, receipt_memo(1))
        with pytest.raises(Conflict):
            await ledger.refund(1, 12, 1, "an id of another call's", bonus_bucket="bonus", refund_id=901)
    assert_lawful(page_of(path, 1))
    assert audit(path).clean


async def test_a_refunds_own_grant_expires_when_it_is_told_to(path: str) -> None:
    """What an expired grant would lose is granted anew, in the bucket and until the time that are named."""
    clock = Clock()
    async with running(path, clock) as ledger:
        await ledger.open_account(1)
        await ledger.issue(1, "daily", 30, expires_at=NOON + HOUR)
        await ledger.hold(held(1, 11, 30))
        await ledger.settle(1, 11, 30, receipt_memo(30))
        clock.now += HOUR
        made = await ledger.refund(
            1, 11, 20, "ours", bonus_bucket="bonus", operator_fault=True, bonus_expires_at=clock.now + HOUR
        )
        ((grant, left, _),) = (await ledger.balance(1)).grants
        clock.now += HOUR
        assert (await ledger.balance(1)).available == 0
    assert isinstance(made, Refunded)
    assert (grant.grant_id, grant.bucket, grant.source, grant.paid, left) == (
        made.refund_id,
        "bonus",
        "refund",
        False,
        20,
    )


async def test_an_account_is_changed_in_parts(path: str) -> None:
    """What is not named stays; what is set outlives the process."""
    async with running(path, Clock()) as ledger:
        await ledger.open_account(1, timezone="Europe/Rome", overdraft_limit=10)
        changed = await ledger.set_account(1, status="suspended")
        assert (changed.status, changed.timezone, changed.overdraft_limit) == ("suspended", "Europe/Rome", 10)
        await ledger.set_account(1, status="active", overdraft_limit=20)
        await ledger.set_account(1, timezone="Asia/Tokyo")
    async with running(path, Clock()) as ledger:
        balance = await ledger.balance(1)
        assert (balance.status, balance.timezone, balance.overdraft_limit) == ("active", "Asia/Tokyo", 20)
        assert isinstance(await ledger.hold(held(1, 11, 20)), Held)


def test_corrections_meet_in_one_batch(path: str) -> None:
    """A grant and its void, a call and its refunds may be committed together, with the outcomes of one by one."""
    commands: list[Command] = [
        OpenAccount(1),
        IssueGrant(1, 1, "daily", 30),
        IssueGrant(1, 2, "paid", 50, paid=True),
        held(1, 11, 60),
        settled(1, 11, 90),
        Refund(1, 11, 3, 25, "bonus", "a"),
        VoidGrant(1, 2, "b"),
        Adjust(1, 40, 8, "bonus", "z"),
        held(1, 12, 5),
        Refund(1, 11, 4, 20, "bonus", "c"),
        Refund(1, 11, 5, None, "bonus", "d", as_bonus=True),
        settled(1, 12, 5),
        Adjust(1, -20, 6, "bonus", "e"),
        Refund(1, 12, 7, None, "bonus", "f"),
        held(1, 13, 10),
        voided(1, 13),
    ]
    together, apart = quick_store(path), quick_store(path + "-apart")
    outcomes = together.transact(commands, RULES, NOON)
    assert outcomes == [apart.transact([command], RULES, NOON)[0] for command in commands]
    assert [type(outcome) for outcome in outcomes].count(Issued) == 2
    with closing(sqlite3.connect(path)) as first, closing(sqlite3.connect(path + "-apart")) as second:
        page = read_page(first, 1)
        assert page == read_page(second, 1)
    assert page.moved(source=DEBT) > 0
    assert_lawful(page)
    assert audit(path).clean
    together.close()
    apart.close()


async def test_a_file_from_before_there_were_revisions_is_brought_up_to_date(path: str) -> None:
    """Columns, indexes and tables that were added since are there after opening, and what was written stays."""
    async with running(path, Clock()) as ledger:
        await ledger.open_account(1)
        grant = (await ledger.issue(1, "paid", 100, paid=True)).grant
        await ledger.hold(held(1, 11, 40))
        await ledger.settle(1, 11, 40, receipt_memo(40))
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("ALTER TABLE ledger_grant DROP COLUMN voided_at")
        connection.execute("ALTER TABLE ledger_transfer DROP COLUMN note")
        connection.execute("DROP TABLE ledger_refund")
        connection.execute("DROP INDEX ledger_receipt_orphan")
        connection.execute("DROP TABLE ledger_version")
        connection.execute("DROP TABLE ledger_seal")
    async with running(path, Clock(NOON + 1)) as ledger:
        assert (await ledger.balance(1)).available == 60
        assert isinstance(await ledger.refund(1, 11, 15, "late", bonus_bucket="bonus"), Refunded)
        assert (await ledger.void_grant(1, grant.grant_id, "why")).amount == 75
        assert await ledger.orphans(5) == []
    assert_lawful(page_of(path, 1))
    assert audit(path).clean


@pytest.mark.parametrize("amount", [40, 10, -20, -200])
async def test_an_adjustment_of_one_id_is_made_once(path: str, amount: int) -> None:
    """Up or down, with debt or without: made again, also over a restart, it answers what it did, and does nothing."""
    made: list[Adjusted] = []
    balances: list[tuple[int, int]] = []
    for _ in range(2):
        async with running(path, Clock(NOON)) as ledger:
            if not made:
                await ledger.open_account(1, overdraft_limit=50)
                await ledger.hold(held(1, 11, 20))
                await ledger.end(settled(1, 11, 20))
                if amount < 0:
                    await ledger.issue(1, "paid", 100)
            for _ in range(2):
                made.append(await ledger.adjust(1, amount, "bonus", "a correction", adjustment_id=77))
                balance = await ledger.balance(1)
                balances.append((balance.available, balance.debt))
    assert made == made[:1] * 4
    assert len(set(balances)) == 1
    assert audit(path).clean
