"""What only a break of a rule has shown to be untold elsewhere, and no scenario can tell: see scripts/breaks.yaml."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import date
from pathlib import Path

import pytest

from ledger.audit import audit
from ledger.calendar import CALENDAR, next_span
from ledger.commands import (
    Adjust,
    Command,
    IssueGrant,
    OpenAccount,
    PlaceHold,
    Refund,
    SetAccount,
    SetLimit,
    SetPlan,
    Settle,
    VoidGrant,
)
from ledger.errors import Conflict, LedgerUnavailable
from ledger.model import ALLOWANCE, BREAKAGE, DEBT, ISSUE, NEVER, REVENUE, SALE
from ledger.outcomes import Held, Outcome, PlanSet, Refused
from ledger.queries import Queries
from ledger.rules import Allowance, Plan, Rules
from tests.ledger.books import ACCOUNT, AnyLedger, EngineLedger, SqliteLedger, assert_lawful, quick_store, receipt_memo
from tests.ledger.running import DAY, HOUR, NOON, Clock, held, page_of, running, settled, voided
from tests.ledger.test_audit import BOUNDS, CHARGED, ISSUED, NODES, RECEIPT, WITHIN, damaged
from tests.ledger.words import microseconds_at

RULES = Rules(
    {"daily": 0, "subscription": 1, "bonus": 2, "paid": 3},
    lifetimes={"bonus": 2 * DAY},
    plans={
        "free": Plan("free", (Allowance("daily", 50, "day"),)),
        "pro": Plan("pro", (Allowance("daily", 50, "day"), Allowance("subscription", 3000, "month"))),
        "team": Plan("team", (Allowance("daily", 50, "day"), Allowance("subscription", 6000, "month"))),
    },
)


@pytest.fixture(params=["engine", "sqlite"])
def book(request: pytest.FixtureRequest, path: str) -> Iterator[AnyLedger]:
    """An open account, on the pure engine and on SQLite."""
    if request.param == "engine":
        yield EngineLedger()
        return
    sqlite = SqliteLedger(path)
    try:
        yield sqlite
    finally:
        sqlite.close()


def do(book: AnyLedger, *commands: Command, now: int = NOON) -> Outcome:
    """Carry commands out one by one; returns the last one's outcome."""
    outcomes = [book.do(command, RULES, now) for command in commands]
    assert_lawful(book.page())
    return outcomes[-1]


def expiries(book: AnyLedger) -> dict[int, int]:
    return {grant_id: lot.grant.expires_at for grant_id, lot in book.page().lots.items()}


def test_a_grant_without_an_expiry_lives_as_long_as_its_bucket_says(book: AnyLedger) -> None:
    """An admin's, an adjustment's and a welcome alike; an expiry that is named counts first, `never` among them."""
    do(
        book,
        OpenAccount(ACCOUNT, welcome=("bonus", 5, 1)),
        IssueGrant(ACCOUNT, 2, "bonus", 5, expires_at=None),
        IssueGrant(ACCOUNT, 3, "bonus", 5, expires_at=NOON + HOUR),
        IssueGrant(ACCOUNT, 4, "bonus", 5),
        IssueGrant(ACCOUNT, 5, "paid", 5, expires_at=None),
        Adjust(ACCOUNT, 5, 6, "bonus", "sorry", None),
        Adjust(ACCOUNT, 5, 7, "bonus", "sorry", NOON + HOUR),
        Adjust(ACCOUNT, 5, 8, "paid", "sorry", None),
    )
    ends = NOON + 2 * DAY
    assert expiries(book) == {1: ends, 2: ends, 3: NOON + HOUR, 4: NEVER, 5: NEVER, 6: ends, 7: NOON + HOUR, 8: NEVER}


def test_a_refunds_grant_lives_as_long_as_its_bucket_says(book: AnyLedger) -> None:
    """From the refund on, where it names no expiry; an expiry that is named counts first."""
    do(book, OpenAccount(ACCOUNT), held(ACCOUNT, 11, 0), settled(ACCOUNT, 11, 30), IssueGrant(ACCOUNT, 1, "paid", 30))
    do(book, Refund(ACCOUNT, 11, 2, 10, "bonus", "sorry", bonus_expires_at=None), now=NOON + HOUR)
    do(book, Refund(ACCOUNT, 11, 3, 10, "bonus", "sorry", bonus_expires_at=NOON + DAY), now=NOON + HOUR)
    do(book, Refund(ACCOUNT, 11, 4, 10, "paid", "sorry", bonus_expires_at=None), now=NOON + HOUR)
    found = expiries(book)
    assert (found[2], found[3], found[4]) == (NOON + HOUR + 2 * DAY, NOON + DAY, NEVER)


def test_nobody_issues_what_passes_for_a_plans_allowance(book: AnyLedger) -> None:
    """A grant that the audit would take for a period is refused, and nothing is written."""
    do(book, OpenAccount(ACCOUNT))
    with pytest.raises(Conflict, match=ALLOWANCE):
        do(book, IssueGrant(ACCOUNT, 1, "daily", 5, ALLOWANCE))
    assert not book.page().lots


def test_a_closed_account_has_no_plan_to_change(book: AnyLedger) -> None:
    """Neither up nor down nor away; what was given stays until it expires."""
    do(book, OpenAccount(ACCOUNT, plan="pro"), SetAccount(ACCOUNT, "closed"))
    for plan in ("team", "free", "pro", None):
        with pytest.raises(Conflict, match="closed"):
            do(book, SetPlan(ACCOUNT, plan, (1, 2)))
    assert (book.page().plan, book.page().next_plan_at, len(book.page().lots)) == ("pro", NEVER, 2)


def test_an_hour_that_comes_twice_around_midnight_begins_no_day_twice() -> None:
    """In St. John's the clocks went from 00:01 back to 23:01: the day that had begun was on, whatever they showed."""
    begins = microseconds_at("2010-11-07 02:30")
    first, second = date(2010, 11, 6).toordinal(), date(2010, 11, 7).toordinal()
    ends = begins + 25 * HOUR
    assert next_span("day", CALENDAR, "America/St_Johns", begins - 1) == (first, begins)
    for minutes in (0, 1, 30, 60, 61, 90):
        assert next_span("day", CALENDAR, "America/St_Johns", begins + minutes * HOUR // 60) == (second, ends)


def test_a_spend_limit_counts_however_many_scopes_an_account_has(path: str) -> None:
    """What was spent under a key's limit is known after hundreds of runs with limits of their own."""
    store = quick_store(path)
    store.transact([OpenAccount(1), IssueGrant(1, 1, "paid", 1000), SetLimit(1, "key:a", 10)], RULES, NOON)
    store.transact([PlaceHold(1, 11, 10, receipt_memo(0), scopes=("key:a",)), settled(1, 11, 10)], RULES, NOON)
    for number in range(200):
        store.transact([PlaceHold(1, 100 + number, 0, b"", scopes=(f"run:{number}",), run_limit=5)], RULES, NOON)
        (refused,) = store.transact([PlaceHold(1, 12, 1, b"", scopes=("key:a",))], RULES, NOON)
        assert isinstance(refused, Refused), f"after {number} runs"
        assert refused.reason == "limit"
    store.close()


async def test_what_is_written_is_dated_in_the_ledgers_own_time(path: str) -> None:
    """A clock that steps back dates nothing before what is there already, so that the oldest is the oldest."""
    clock = Clock(NOON + HOUR)
    async with running(path, clock) as ledger:
        await ledger.open_account(1)
        first = await ledger.issue(1, "bonus", 10)
        clock.now = NOON
        second = await ledger.issue(1, "bonus", 10)
        await ledger.open_account(2)
        third = await ledger.issue(2, "bonus", 10)
    assert [issued.grant.created_at for issued in (first, second, third)] == [NOON + HOUR] * 3


def test_a_preview_is_of_the_accounts_own_time(path: str) -> None:
    """A clock that was put back previews what the change of plan would give, no more."""
    store = quick_store(path)
    store.transact([OpenAccount(1, plan="pro")], RULES, NOON)
    store.transact([held(1, 11, 0)], RULES, NOON + 10 * DAY)
    command, back = SetPlan(1, "team", (7, 8)), NOON + DAY
    with closing(Queries(path)) as queries:
        preview = queries.preview_plan(command, RULES, back)
    (done,) = store.transact([command], RULES, back)
    assert preview == done
    assert isinstance(done, PlanSet)
    assert [grant.created_at for grant in done.grants] == [NOON + 10 * DAY]
    store.close()


def test_the_file_refuses_a_second_grant_under_one_source_key(path: str) -> None:
    """Whoever writes it: a payment can't be granted twice."""
    store = quick_store(path)
    store.transact([OpenAccount(1), IssueGrant(1, 1, "paid", 10, source_key="payment-1")], RULES, NOON)
    store.close()
    with closing(sqlite3.connect(path)) as connection:
        columns = [row[1] for row in connection.execute("PRAGMA table_info(ledger_grant)") if row[1] != "grant_id"]
        others = ", ".join(columns)
        copy = f"INSERT INTO ledger_grant (grant_id, {others}) SELECT 2, {others} FROM ledger_grant"
        with pytest.raises(sqlite3.IntegrityError, match="source_key"):
            connection.execute(copy)


def test_a_commit_that_fails_leaves_no_page(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the disk did not take is not remembered either: the next batch reads what the file says."""
    store = quick_store(path)
    store.transact([OpenAccount(1), IssueGrant(1, 1, "paid", 100)], RULES, NOON)
    store.transact([held(1, 11, 60)], RULES, NOON)
    with monkeypatch.context() as patch:

        def fail(changes: object) -> None:
            raise sqlite3.OperationalError("disk I/O error")

        patch.setattr(store.backend, "commit", fail)
        with pytest.raises(LedgerUnavailable):
            store.transact([settled(1, 11, 60), held(1, 12, 40)], RULES, NOON)
    (second,) = store.transact([held(1, 12, 40)], RULES, NOON)
    assert isinstance(second, Held)
    store.transact([settled(1, 11, 50)], RULES, NOON)
    store.close()
    assert_lawful(page_of(path, 1))
    assert page_of(path, 1).moved(request=11) == 50


OVERLAP = "no two periods of one allowance overlap"
RESERVED = "nothing is reserved at a spend limit but by open holds"
WAITING = "renewal is noted for every account that is to be renewed"
OVERDRAFT_HELD = "held is the sum of the legs of open holds"


@pytest.fixture(scope="module")
def every_kind(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small sound ledger with transfers of every kind, two periods, an open hold under a limit, a plan that waits."""
    path = tmp_path_factory.mktemp("every_kind") / "ledger.db"
    store = quick_store(str(path))
    commands: list[Command] = [
        OpenAccount(1, plan="pro", overdraft_limit=50),
        SetPlan(1, "free"),
        SetLimit(1, "key:a", 1000),
        IssueGrant(1, 1, "paid", 100, paid=True),
        held(1, 11, 3150),
        Settle(1, 11, 3190, receipt_memo(3190)),
        Refund(1, 11, 2, 10, "bonus", "sorry"),
        IssueGrant(1, 3, "paid", 100, paid=True),
        Refund(1, 11, 4, 30, "bonus", "sorry"),
        Adjust(1, -20, 5, "bonus", "twice"),
        Adjust(1, 20, 6, "bonus", "friend"),
        VoidGrant(1, 6, "a mistake"),
        held(1, 12, 5),
        voided(1, 12),
        IssueGrant(1, 7, "daily", 5, expires_at=NOON + HOUR),
    ]
    store.transact(commands, RULES, NOON)
    store.transact([PlaceHold(1, 13, 160, receipt_memo(0), scopes=("key:a",))], RULES, NOON + DAY)
    store.close()
    return path


def test_a_ledger_of_every_kind_is_sound(every_kind: Path) -> None:
    """It has what the damage below is done to, and the audit finds nothing in it."""
    assert audit(str(every_kind)).findings == []
    page = page_of(str(every_kind), 1)
    kinds = {"grant", "repayment", "charge", "debt", "expiry", "void", "refund", "adjustment"}
    assert {transfer.kind for transfer in page.transfers} == kinds
    assert page.overdraft_held > 0
    assert {made.debt_reduced for made in page.refunds[11]} == {10, 0}


def _moved(kind: str, end: str, node: int) -> tuple[tuple[str, ...], str]:
    return (f"UPDATE ledger_transfer SET {end} = {node} WHERE kind = '{kind}'",), NODES


_COLUMNS = "account_id, transfer_id, kind, source, target, amount, at, request"
DAMAGE: dict[str, tuple[tuple[str, ...], str]] = {
    "less than nothing was lost": (("UPDATE ledger_grant SET lost = -1 WHERE grant_id = 3",), BOUNDS),
    "a grant was issued in two parts": (
        (
            "UPDATE ledger_transfer SET amount = amount - 1 WHERE kind = 'grant' AND target = 3",
            f"INSERT INTO ledger_transfer ({_COLUMNS}) SELECT account_id, transfer_id + 1, kind, source, target, 1, at,"
            " request FROM ledger_transfer WHERE kind = 'grant' AND target = 3",
        ),
        ISSUED,
    ),
    "a receipt says that a grant paid what was owed": (
        (
            "UPDATE ledger_receipt SET debt = 0,"
            " paid_from = json_insert(paid_from, '$[#]', json_array(3, 'paid', debt)) WHERE debt > 0",
        ),
        RECEIPT,
    ),
    "a call that cost nothing ended in a way that there is not": (
        ("UPDATE ledger_receipt SET status = 'lost' WHERE charged = 0",),
        CHARGED,
    ),
    "refunds reduced more debt than the call had": (
        ("UPDATE ledger_refund SET amount = 1000, debt_reduced = 1000 WHERE debt_reduced > 0",),
        WITHIN,
    ),
    "overdraft is held for more than open holds": (
        ("UPDATE ledger_account SET overdraft_held = overdraft_held + 1",),
        OVERDRAFT_HELD,
    ),
    "a period ends after the next has begun": (
        ("UPDATE ledger_grant SET expires_at = expires_at + 1 WHERE bucket = 'daily' AND balance = 0",),
        OVERLAP,
    ),
    "more is reserved than open holds may spend": (
        ("UPDATE ledger_limit SET reserved = reserved + 1",),
        RESERVED,
    ),
    "a plan that waits was forgotten": (
        ("UPDATE ledger_account SET next_due_at = next_plan_at + 1",),
        WAITING,
    ),
    "a transfer is of a kind that there is not": (
        ("UPDATE ledger_transfer SET kind = 'gift' WHERE kind = 'grant'",),
        NODES,
    ),
    "a grant came from the revenue": _moved("grant", "source", REVENUE),
    "a grant went to the debt": _moved("grant", "target", DEBT),
    "a repayment came from the sale": _moved("repayment", "source", SALE),
    "a repayment went to the revenue": _moved("repayment", "target", REVENUE),
    "a charge came from the issue": _moved("charge", "source", ISSUE),
    "a charge went to breakage": _moved("charge", "target", BREAKAGE),
    "a debt came from the issue": _moved("debt", "source", ISSUE),
    "a debt went to breakage": _moved("debt", "target", BREAKAGE),
    "an expiry came from the issue": _moved("expiry", "source", ISSUE),
    "an expiry went to the revenue": _moved("expiry", "target", REVENUE),
    "a void came from the debt": _moved("void", "source", DEBT),
    "a void went to breakage": _moved("void", "target", BREAKAGE),
    "a refund came from the sale": _moved("refund", "source", SALE),
    "a refund went to breakage": _moved("refund", "target", BREAKAGE),
    "a refund is of no call": (("UPDATE ledger_transfer SET request = NULL WHERE kind = 'refund'",), NODES),
    "an adjustment came from the sale": (
        ("UPDATE ledger_transfer SET source = -2 WHERE kind = 'adjustment' AND target > 0",),
        NODES,
    ),
    "an adjustment went to breakage": (
        ("UPDATE ledger_transfer SET target = -4 WHERE kind = 'adjustment' AND source > 0",),
        NODES,
    ),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_damage_that_breaks_one_law_alone_is_named(what: str, every_kind: Path, tmp_path: Path) -> None:
    """Each part of an invariant is looked at by itself: what the others would let pass is found too."""
    statements, invariant = DAMAGE[what]
    found = damaged(every_kind, tmp_path, *statements)
    assert invariant in [finding.invariant for finding in found.findings]
