"""What people look at, on either database: reads that lock nothing, write nothing, and see one moment."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from typing import Any

import psycopg
import pytest
from sqlalchemy import event, text
from sqlalchemy.exc import DatabaseError
from sqlalchemy.pool import Pool

from ledger.commands import Command, IssueGrant, OpenAccount, Refund, SetClock, SetLimit, SetPlan, Void
from ledger.errors import UnknownAccount
from ledger.model import KEPT_FOR, NEVER, Claim, Claimed, Limit, PaidFrom
from ledger.outcomes import Ended, Refunded
from ledger.queries import BucketCount, Queries
from ledger.rules import Allowance, Plan, Rules
from tests.ledger.books import Stored, receipt_memo
from tests.ledger.running import DAY, HOUR, NOON, RULES, Clock, held, running, settled
from tests.ledger.words import microseconds_at

Meanwhile = Callable[[Command, str], None]
KEY = Claim(b"k" * 32, b"b" * 32)


@pytest.fixture(params=("sqlite", "postgres", "sqlite, packed", "postgres, packed"))
def stored(request: pytest.FixtureRequest, path: str) -> Iterator[Stored]:
    """A store on each database, and its cold reads."""
    where = path if request.param.startswith("sqlite") else request.getfixturevalue("postgres_url")
    with closing(Stored(where, RULES, NOON, packs="packed" in request.param)) as made:
        yield made


def test_a_balance_is_read_as_of_now_and_nothing_is_written(stored: Stored) -> None:
    """A reader sees what would be true if somebody wrote: expired credits are gone, those held are not available."""
    stored.do(OpenAccount(1, "Asia/Tokyo", overdraft_limit=30))
    daily = stored.issue(IssueGrant(1, 21, "daily", 100, expires_at=NOON + HOUR))
    pack = stored.issue(IssueGrant(1, 22, "paid", 50, paid=True))
    stored.do(held(1, 11, 60))
    before = stored.page(1)
    now = stored.queries.balance(1, RULES, NOON)
    last = stored.queries.balance(1, RULES, NOON + HOUR - 1)
    later = stored.queries.balance(1, RULES, NOON + HOUR)
    assert stored.page(1) == before
    assert (now.available, now.held, now.debt, now.overdraft_limit, now.timezone) == (90, 60, 0, 30, "Asia/Tokyo")
    assert now.grants == [(daily, 100, 60), (pack, 50, 0)]
    assert replace(last, at=NOON) == now
    assert (later.available, later.grants) == (50, [(pack, 50, 0)])


def test_a_balance_lists_grants_in_the_order_asked_for(stored: Stored) -> None:
    """Live grants come in burn-down order; those used up, expired or repaid are not listed."""
    stored.do(
        OpenAccount(1),
        held(1, 11, 0),
        settled(1, 11, 5),
        IssueGrant(1, 21, "daily", 5),
        IssueGrant(1, 22, "paid", 10, expires_at=NOON + 9 * HOUR),
        IssueGrant(1, 23, "bonus", 10, expires_at=NOON + 9 * HOUR),
        IssueGrant(1, 24, "daily", 10, expires_at=NOON + HOUR),
        IssueGrant(1, 25, "bonus", 10, expires_at=NOON + 2 * HOUR),
        held(1, 12, 20),
        settled(1, 12, 20),
    )
    listed = stored.queries.balance(1, RULES, NOON)
    reverse = stored.queries.balance(1, Rules({bucket: -rank for bucket, rank in RULES.order.items()}), NOON)
    assert [grant.grant_id for grant, _, _ in listed.grants] == [23, 22]
    assert [grant.grant_id for grant, _, _ in reverse.grants] == [22, 23]


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


def test_an_unknown_account_has_no_balance(stored: Stored) -> None:
    """Reading an account that was never opened says so."""
    queries = stored.queries
    with pytest.raises(UnknownAccount):
        queries.balance(1, RULES, NOON)
    with pytest.raises(UnknownAccount):
        queries.limits(1, NOON)
    with pytest.raises(UnknownAccount):
        queries.answered(1, KEY.key, NOON)
    assert queries.grants(1, 10, None) == []
    assert queries.bucket_counts(1) == []
    assert queries.receipt(1, 11) is None
    assert queries.refunds(1, 11) == []


def test_a_call_is_found_while_held_and_after_its_end(stored: Stored) -> None:
    """A call is recorded as held, settled or voided, with its memo, in its own account only."""
    stored.do(
        OpenAccount(1),
        OpenAccount(2),
        IssueGrant(1, 21, "paid", 100, paid=True),
        held(1, 11, 60),
        held(1, 12, 10),
    )
    open_call = stored.queries.receipt(1, 11)
    stored.now += 5
    stored.do(settled(1, 11, 120), Void(1, 12, b'{"why": "the client left"}'))
    settled_call, voided_call = stored.queries.receipt(1, 11), stored.queries.receipt(1, 12)
    assert stored.queries.receipt(2, 11) is None
    assert open_call is not None
    assert settled_call is not None
    assert voided_call is not None
    assert (open_call.status, open_call.charged, open_call.memo) == ("held", 0, receipt_memo(0))
    assert (open_call.created_at, open_call.ended_at, open_call.paid_from) == (NOON, None, ())
    assert (settled_call.status, settled_call.charged, settled_call.debt) == ("settled", 120, 30)
    assert settled_call.paid_from == (PaidFrom(21, "paid", 90),)
    assert (settled_call.created_at, settled_call.ended_at) == (NOON, NOON + 5)
    assert (voided_call.status, voided_call.charged, voided_call.paid_from) == ("voided", 0, ())
    assert voided_call.memo == b'{"why": "the client left"}'


def test_a_calls_refunds_are_listed_newest_first(stored: Stored) -> None:
    """Refunds of one call are listed, in its account only, and the call says what they come to."""
    stored.do(OpenAccount(1), OpenAccount(2), IssueGrant(1, 21, "paid", 100), held(1, 11, 60), settled(1, 11, 60))
    first = stored.do(Refund(1, 11, 31, 20, "bonus", "sorry"))
    stored.now += HOUR
    second = stored.do(Refund(1, 11, 32, 5, "bonus", "again"))
    assert isinstance(first, Refunded) and isinstance(second, Refunded)
    assert stored.queries.refunds(1, 11) == [second, first]
    assert stored.queries.refunds(2, 11) == stored.queries.refunds(1, 12) == []
    call = stored.queries.receipt(1, 11)
    assert call is not None and call.refunded == 25
    assert type(call.refunded) is int


def test_grants_are_listed_newest_first_page_by_page(stored: Stored) -> None:
    """All grants of an account are listed, also those used up, and pages neither repeat nor skip any."""
    stored.do(OpenAccount(1), OpenAccount(2), IssueGrant(2, 20, "paid", 1))
    issued = [
        stored.issue(IssueGrant(1, 20 + amount, "paid", amount, paid=True, note="hello")) for amount in range(1, 8)
    ]
    stored.do(held(1, 11, 3), settled(1, 11, 2))
    queries = stored.queries
    everything = queries.grants(1, 100, None)
    first = queries.grants(1, 3, None)
    second = queries.grants(1, 3, first[-1][0].grant_id)
    third = queries.grants(1, 3, second[-1][0].grant_id)
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


def test_buckets_count_grants_and_those_that_spending_used_up(stored: Stored) -> None:
    """A bucket counts its grants for life, but no allowances; those that expired unused were not used up."""
    stored.rules = replace(RULES, plans={"free": Plan("free", (Allowance("daily", 10, "day"),))})
    stored.do(
        OpenAccount(1, plan="free"),
        *(IssueGrant(1, grant_id, "bonus", 10, expires_at=NOON + HOUR) for grant_id in (21, 22, 23)),
        IssueGrant(1, 24, "paid", 10, paid=True),
        IssueGrant(1, 25, "Zeal", 10),
        held(1, 11, 25),
        settled(1, 11, 25),
    )
    stored.now += HOUR
    stored.do(held(1, 12, 1))
    # In the order of their bytes, capitals first, whatever a database's language says.
    counts = [BucketCount("Zeal", 1, 0), BucketCount("bonus", 3, 1), BucketCount("paid", 1, 0)]
    assert stored.queries.bucket_counts(1) == counts


def test_a_balance_lists_what_was_used_up_of_the_periods_that_are_on(stored: Stored) -> None:
    """An allowance of which nothing is left is told with what was spent of it, until its period ends."""
    allowances = (Allowance("daily", 10, "day"), Allowance("bonus", 30, "month"))
    stored.rules = rules = replace(RULES, plans={"free": Plan("free", allowances)})
    stored.do(OpenAccount(1, plan="free"), held(1, 11, 40), settled(1, 11, 40))
    seen = stored.queries.balance(1, rules, NOON)
    assert sorted(seen.used_up) == [("bonus", 30), ("daily", 10)]
    assert (seen.available, seen.plan, set(seen.periods)) == (0, "free", {"daily", "bonus"})
    tomorrow = stored.queries.balance(1, rules, NOON + DAY)
    assert [*tomorrow.used_up] == [("bonus", 30)]
    assert [(grant.bucket, left) for grant, left, _ in tomorrow.grants] == [("daily", 10)]


def test_accounts_are_listed_by_the_plan_that_is_on(stored: Stored) -> None:
    """Newest first, page by page; a change that has come due counts though it is not written yet."""
    plans = {name: Plan(name, (Allowance("daily", amount, "day"),)) for name, amount in (("free", 10), ("pro", 100))}
    stored.rules = rules = replace(RULES, plans=plans)
    midnight = microseconds_at("2026-11-22 00:00")
    stored.do(
        SetClock(900, NOON, create=True),
        *(OpenAccount(account, plan="pro") for account in (1, 2)),
        OpenAccount(3, plan="free"),
        OpenAccount(4),
        OpenAccount(5, plan="pro", clock=900),
        *(SetPlan(account, "free") for account in (2, 5)),
    )
    on, pages = stored.queries.accounts_on, []
    assert on("pro", midnight - 1, 10, None) == [5, 2, 1]
    assert on("free", midnight - 1, 10, None) == [3]
    assert on("pro", midnight, 10, None) == [5, 1]
    assert on("free", midnight, 10, None) == [3, 2]
    stored.do(SetClock(900, midnight))
    assert on("free", NOON, 10, None) == [5, 3]
    assert on("Free", NOON, 10, None) == on("fr\0ee", NOON, 10, None) == []
    last = None
    while page := on("free", midnight, 2, last):
        pages.append(page)
        last = page[-1]
    assert pages == [[5, 3], [2]]
    preview = stored.queries.preview_plan(SetPlan(1, "free"), rules, NOON)
    assert (preview.plan, preview.at, preview.grants) == ("free", midnight, ())
    assert on("pro", midnight, 10, None) == [1]
    assert (stored.queries.clock(900), stored.queries.clock(901)) == (midnight, None)


def test_limits_are_read_as_of_now(stored: Stored) -> None:
    """What was spent or reserved shows until its period ends; limits of runs, and those that were lifted, do not."""
    stored.do(
        OpenAccount(1),
        OpenAccount(2),
        IssueGrant(1, 21, "paid", 1000),
        SetLimit(1, "key:b", 500, "day"),
        SetLimit(1, "key:B", 100),
        SetLimit(1, "key:c", 100),
        SetLimit(1, "key:c", None),
        SetLimit(2, "key:b", 7),
        replace(held(1, 11, 60), scopes=("key:b", "key:B", "run:x"), run_limit=80),
        settled(1, 11, 50),
        replace(held(1, 12, 30), scopes=("key:b",)),
    )
    now, tomorrow = stored.queries.limits(1, NOON), stored.queries.limits(1, NOON + DAY)
    assert [*now] == ["key:B", "key:b"]
    assert (now["key:b"].spent, now["key:b"].reserved) == (50, 30)
    assert now["key:B"] == Limit("key:B", 100, "ever", 0, NEVER, 50)
    assert (tomorrow["key:b"].spent, tomorrow["key:b"].reserved, tomorrow["key:B"].spent) == (0, 0, 50)


def test_an_answer_is_found_under_its_key(stored: Stored) -> None:
    """A key is found while its call runs, with its answer once there is one, and for as long as that is kept."""
    stored.do(OpenAccount(1), OpenAccount(2), IssueGrant(1, 21, "paid", 100), replace(held(1, 11, 60), claim=KEY))
    answered = stored.queries.answered
    assert answered(1, KEY.key, NOON) == (Claimed(KEY, 11, NOON), None)
    stored.now += HOUR
    ended = stored.do(replace(settled(1, 11, 50), answer=b"\0said"))
    assert isinstance(ended, Ended)
    found = Claimed(KEY, 11, NOON + HOUR, True, ended.charged, ended.available)
    assert answered(1, KEY.key, NOON) == answered(1, KEY.key, NOON + KEPT_FOR) == (found, b"\0said")
    assert (
        answered(1, KEY.key, NOON + HOUR + KEPT_FOR) is answered(1, KEY.body, NOON) is answered(2, KEY.key, 0) is None
    )


@pytest.fixture
def meanwhile(stored: Stored, monkeypatch: pytest.MonkeyPatch) -> Iterator[Meanwhile]:
    """Have a command committed in the middle of a reader's work: before the statement that a text is in.

    Before its first, it would not be the middle.
    """
    planned: list[tuple[Command, str]] = []
    statements: list[str] = []

    def traced(statement: str) -> None:
        if "ledger_" in statement:
            statements.append(statement)
            if len(statements) > 1 and planned and planned[0][1] in statement:
                stored.do(planned.pop()[0])

    def connected(connection: object, _: object) -> None:
        if isinstance(connection, sqlite3.Connection):
            connection.set_trace_callback(traced)

    def execute(cursor: psycopg.Cursor[Any], query: Any, *values: Any, **options: Any) -> psycopg.Cursor[Any]:
        if cursor.connection.read_only:
            traced(query.decode() if isinstance(query, bytes) else query)
        return plain(cursor, query, *values, **options)

    plain = psycopg.Cursor.execute
    monkeypatch.setattr(psycopg.Cursor, "execute", execute)
    event.listen(Pool, "connect", connected)
    stored.do(OpenAccount(1), IssueGrant(1, 1, "paid", 100), replace(held(1, 11, 40), claim=KEY))
    yield lambda command, before: planned.append((command, before))
    event.remove(Pool, "connect", connected)


def test_a_call_that_ends_while_it_is_looked_up_is_found(stored: Stored, meanwhile: Meanwhile) -> None:
    """A call is found at every moment: as held or as settled, never as unknown between the two."""
    meanwhile(settled(1, 11, 40), "ledger_")
    found = stored.queries.receipt(1, 11)
    assert found is not None
    assert (found.status, found.charged) in (("held", 0), ("settled", 40))


def test_a_balance_is_of_one_moment(stored: Stored, meanwhile: Meanwhile) -> None:
    """A balance never shows the debt of one moment beside the grants of another."""
    meanwhile(settled(1, 11, 150), "ledger_")
    seen = stored.queries.balance(1, RULES, NOON)
    assert (seen.available, seen.held, seen.debt) in ((60, 40, 0), (0, 0, 50))
    assert stored.page(1).debt in (0, 50)


def test_an_answer_is_that_of_the_claim(stored: Stored, meanwhile: Meanwhile) -> None:
    """A call that runs when it is looked up is found without an answer, though it is answered at that moment."""
    meanwhile(replace(settled(1, 11, 40), answer=b"said"), "SELECT answer FROM")
    assert stored.queries.answered(1, KEY.key, NOON) == (Claimed(KEY, 11, NOON), None)
    again = stored.queries.answered(1, KEY.key, NOON)
    assert again is not None and (again[0].answered, again[1]) == (True, b"said")


def test_a_reader_can_write_nothing(stored: Stored) -> None:
    """The database itself refuses what a reader would write."""
    stored.do(OpenAccount(1))
    with stored.queries._engine.connect() as connection, pytest.raises(DatabaseError, match=r"read-?only"):
        connection.execute(text("UPDATE ledger_account SET debt = 1"))
    assert stored.queries.balance(1, RULES, NOON).debt == 0


def test_readers_come_back_when_their_connections_were_lost(postgres_url: str) -> None:
    """Whoever reads after the server, or a pooler before it, has closed a connection gets a new one and an answer."""
    with (
        closing(Stored(postgres_url, RULES, NOON)) as stored,
        psycopg.connect(postgres_url, autocommit=True) as operator,
    ):
        stored.do(OpenAccount(1))
        queries = Queries(f"{postgres_url}&application_name=readers")
        with closing(queries):
            assert queries.balance(1, RULES, NOON).available == 0
            (ended,) = operator.execute(
                "SELECT count(pg_terminate_backend(pid, 5000)) FROM pg_stat_activity WHERE application_name = 'readers'"
            ).fetchall()
            assert ended == (1,)
            assert queries.balance(1, RULES, NOON).available == 0
