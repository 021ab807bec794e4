"""What people look at: reads that lock nothing, write nothing, and see one moment."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace

import pytest
from sqlalchemy import event
from sqlalchemy.pool import Pool

from ledger.commands import Command, IssueGrant, OpenAccount
from ledger.errors import UnknownAccount
from ledger.model import PaidFrom
from ledger.queries import BucketCount, Queries
from ledger.rules import Allowance, Plan, Rules
from ledger.store import Store
from tests.ledger.books import receipt_memo
from tests.ledger.running import HOUR, NOON, RULES, Clock, held, page_of, running, settled

Meanwhile = Callable[[Command], None]


async def test_a_balance_is_read_as_of_now_and_nothing_is_written(path: str) -> None:
    """A reader sees what would be true if somebody wrote: expired credits are gone, those held are not available."""
    async with running(path, Clock()) as ledger:
        await ledger.open_account(1, timezone="Asia/Tokyo", overdraft_limit=30)
        daily = await ledger.issue(1, "daily", 100, expires_at=NOON + HOUR)
        pack = await ledger.issue(1, "paid", 50, paid=True)
        await ledger.hold(held(1, 11, 60))
        before = page_of(path, 1)
        now = await ledger.balance(1, NOON)
        last = await ledger.balance(1, NOON + HOUR - 1)
        later = await ledger.balance(1, NOON + HOUR)
        assert page_of(path, 1) == before
    assert (now.available, now.held, now.debt, now.overdraft_limit, now.timezone) == (90, 60, 0, 30, "Asia/Tokyo")
    assert now.grants == [(daily.grant, 100, 60), (pack.grant, 50, 0)]
    assert replace(last, at=NOON) == now
    assert (later.available, later.grants) == (50, [(pack.grant, 50, 0)])


async def test_a_balance_lists_grants_in_the_order_asked_for(path: str) -> None:
    """Live grants come in burn-down order; those used up, expired or repaid are not listed."""
    async with running(path, Clock()) as ledger:
        await ledger.open_account(1)
        await ledger.hold(held(1, 11, 0))
        await ledger.settle(1, 11, 5, receipt_memo(5))
        await ledger.issue(1, "daily", 5)
        names = {}
        for bucket, expires in (("paid", NOON + 9 * HOUR), ("bonus", NOON + 9 * HOUR), ("daily", NOON + HOUR)):
            names[(await ledger.issue(1, bucket, 10, expires_at=expires)).grant.grant_id] = bucket
        used = await ledger.issue(1, "bonus", 10, expires_at=NOON + 2 * HOUR)
        await ledger.hold(held(1, 12, 20))
        await ledger.settle(1, 12, 20, receipt_memo(20))
        listed = await ledger.balance(1, NOON)
    with closing(Queries(path)) as queries:
        reverse = queries.balance(1, Rules({bucket: -rank for bucket, rank in RULES.order.items()}), NOON)
    assert used.grant.grant_id not in [grant.grant_id for grant, _, _ in listed.grants]
    assert [names[grant.grant_id] for grant, _, _ in listed.grants] == ["bonus", "paid"]
    assert [names[grant.grant_id] for grant, _, _ in reverse.grants] == ["paid", "bonus"]


async def test_a_balance_is_read_at_the_ledgers_own_clock(path: str) -> None:
    """Where the reader names no time it is the ledger's own, which goes on although the clock steps back."""
    clock = Clock(NOON - 10_000 * HOUR)
    async with running(path, clock) as ledger:
        await ledger.open_account(1)
        await ledger.issue(1, "daily", 100, expires_at=clock.now + HOUR)
        assert (await ledger.balance(1)).available == 100
        clock.now += HOUR
        assert (await ledger.balance(1)).available == 0
        await ledger.issue(1, "daily", 50)
        clock.now -= HOUR
        assert (await ledger.balance(1)).available == 50


async def test_an_unknown_account_has_no_balance(path: str) -> None:
    """Reading an account that was never opened says so."""
    async with running(path, Clock()) as ledger:
        with pytest.raises(UnknownAccount):
            await ledger.balance(1, NOON)
        assert await ledger.grants(1, 10, None) == []
        assert await ledger.bucket_counts(1) == []
        assert await ledger.receipt(1, 11) is None


async def test_a_call_is_found_while_held_and_after_its_end(path: str) -> None:
    """A call is recorded as held, settled or voided, with its memo, in its own account only."""
    clock = Clock()
    async with running(path, clock) as ledger:
        await ledger.open_account(1)
        await ledger.open_account(2)
        grant = (await ledger.issue(1, "paid", 100, paid=True)).grant
        await ledger.hold(held(1, 11, 60))
        await ledger.hold(held(1, 12, 10))
        open_call = await ledger.receipt(1, 11)
        clock.now += 5
        await ledger.settle(1, 11, 120, receipt_memo(120))
        await ledger.void(1, 12, b'{"why": "the client left"}')
        settled_call, voided_call = await ledger.receipt(1, 11), await ledger.receipt(1, 12)
        assert await ledger.receipt(2, 11) is None
    assert open_call is not None
    assert settled_call is not None
    assert voided_call is not None
    assert (open_call.status, open_call.charged, open_call.memo) == ("held", 0, receipt_memo(0))
    assert (open_call.created_at, open_call.ended_at, open_call.paid_from) == (NOON, None, ())
    assert (settled_call.status, settled_call.charged, settled_call.debt) == ("settled", 120, 30)
    assert settled_call.paid_from == (PaidFrom(grant.grant_id, "paid", 90),)
    assert (settled_call.created_at, settled_call.ended_at) == (NOON, NOON + 5)
    assert (voided_call.status, voided_call.charged, voided_call.paid_from) == ("voided", 0, ())
    assert voided_call.memo == b'{"why": "the client left"}'


async def test_grants_are_listed_newest_first_page_by_page(path: str) -> None:
    """All grants of an account are listed, also those used up, and pages neither repeat nor skip any."""
    async with running(path, Clock()) as ledger:
        await ledger.open_account(1)
        await ledger.open_account(2)
        await ledger.issue(2, "paid", 1)
        issued = [(await ledger.issue(1, "paid", amount, paid=True, note="hello")).grant for amount in range(1, 8)]
        await ledger.hold(held(1, 11, 3))
        await ledger.settle(1, 11, 2, receipt_memo(2))
        everything = await ledger.grants(1, 100, None)
        first = await ledger.grants(1, 3, None)
        second = await ledger.grants(1, 3, first[-1][0].grant_id)
        third = await ledger.grants(1, 3, second[-1][0].grant_id)
    assert [grant for grant, _, _ in everything] == issued[::-1]
    assert [(balance, pinned) for _, balance, pinned in everything] == [
        (7, 0),
        (6, 0),
        (5, 0),
        (4, 0),
        (3, 0),
        (1, 0),
        (0, 0),
    ]
    assert first + second + third == everything


async def test_buckets_count_grants_and_those_that_spending_used_up(path: str) -> None:
    """A bucket counts its grants for life, but no allowances; those that expired unused were not used up."""
    clock = Clock()
    plan = Plan("free", (Allowance("daily", 10, "day"),))
    async with running(path, clock, rules=replace(RULES, plans={"free": plan})) as ledger:
        await ledger.open_account(1, plan="free")
        for _ in range(3):
            await ledger.issue(1, "bonus", 10, expires_at=NOON + HOUR)
        await ledger.issue(1, "paid", 10, paid=True)
        await ledger.hold(held(1, 11, 25))
        await ledger.settle(1, 11, 25, receipt_memo(25))
        clock.now += HOUR
        await ledger.hold(held(1, 12, 1))
        counts = await ledger.bucket_counts(1)
    assert sorted(counts, key=lambda count: count.bucket) == [BucketCount("bonus", 3, 1), BucketCount("paid", 1, 0)]


@pytest.fixture
def meanwhile(path: str) -> Iterator[Meanwhile]:
    """Have a command committed in the middle of a reader's work: between its first statement and its second."""
    store = Store(path)
    store.create()
    planned: list[Command] = []
    statements: list[str] = []

    def traced(statement: str) -> None:
        if statement.startswith("SELECT"):
            statements.append(statement)
            if len(statements) > 1 and planned:
                store.transact([planned.pop()], RULES, NOON)

    def connected(connection: sqlite3.Connection, _: object) -> None:
        connection.set_trace_callback(traced)

    event.listen(Pool, "connect", connected)
    store.transact([OpenAccount(1), IssueGrant(1, 1, "paid", 100), held(1, 11, 40)], RULES, NOON)
    yield planned.append
    event.remove(Pool, "connect", connected)
    store.close()


def test_a_call_that_ends_while_it_is_looked_up_is_found(path: str, meanwhile: Meanwhile) -> None:
    """A call is found at every moment: as held or as settled, never as unknown between the two."""
    with closing(Queries(path)) as queries:
        meanwhile(settled(1, 11, 40))
        found = queries.receipt(1, 11)
    assert found is not None
    assert (found.status, found.charged) in (("held", 0), ("settled", 40))


def test_a_balance_is_of_one_moment(path: str, meanwhile: Meanwhile) -> None:
    """A balance never shows the debt of one moment beside the grants of another."""
    with closing(Queries(path)) as queries:
        meanwhile(settled(1, 11, 150))
        seen = queries.balance(1, RULES, NOON)
    assert (seen.available, seen.held, seen.debt) in ((60, 40, 0), (0, 0, 50))
    assert page_of(path, 1).debt in (0, 50)
