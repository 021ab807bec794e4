"""Renewal, plans and limits over many steps: what no sequence of zones, plans, clocks and commands can do."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ledger.commands import OpenAccount, PlaceHold, Refund, SetAccount, SetLimit, SetPlan, Settle, Void
from ledger.outcomes import Ended, Held, LimitSet, PlanSet, Refused
from ledger.rules import Allowance, Plan, Rules
from tests.ledger.books import ACCOUNT, AnyLedger, EngineLedger, SqliteLedger, assert_lawful, periods_granted
from tests.ledger.words import microseconds_at

_HOUR = 3_600_000_000
_DAY = 24 * _HOUR
_START = microseconds_at("2026-11-21 12:00")
_PLANS = {
    plan.name: plan
    for plan in (
        Plan("free", (Allowance("daily", 50, "day"),)),
        Plan("pro", (Allowance("daily", 50, "day"), Allowance("subscription", 1000, "month")), 30),
        Plan("team", (Allowance("daily", 80, "day"), Allowance("subscription", 2500, "month"))),
        Plan("calendar", (Allowance("subscription", 3000, "month", calendar=True), Allowance("weekly", 9, "week"))),
        Plan("year", (Allowance("subscription", 40_000, "year"),), paid=True),
        Plan("days", (Allowance("subscription", 60, "day"),)),
        Plan("empty"),
    )
}
_RULES = Rules({"daily": 0, "weekly": 1, "subscription": 2}, plans=_PLANS)


def hold(book: AnyLedger, now: int, amount: int = 0, hold_id: int = 1, *scopes: str) -> Held | Refused:
    outcome = book.do(PlaceHold(ACCOUNT, hold_id, amount, b"", scopes=scopes), _RULES, now)
    assert isinstance(outcome, (Held, Refused))
    return outcome


@pytest.mark.parametrize("hours", [1, 7, 11, 24, 25])
def test_moving_there_and_back_yields_no_second_allowance(hours: int) -> None:
    """Kiritimati and Pago Pago in turns, every few hours for sixty days: one allowance a day, never two."""
    book = EngineLedger()
    book.do(OpenAccount(ACCOUNT, "Pacific/Kiritimati", plan="free"), _RULES, _START)
    days = 60
    for number, at in enumerate(range(_START, _START + days * _DAY, hours * _HOUR)):
        zone = ("Pacific/Pago_Pago", "Pacific/Kiritimati")[number % 2]
        book.do(SetAccount(ACCOUNT, timezone=zone), _RULES, at)
        assert book.balance(_RULES, at).available <= 50
    assert_lawful(book.page())
    assert len(periods_granted(book.page(), "daily")) <= days + 2


@pytest.mark.parametrize(("first", "then"), [("pro", "team"), ("team", "pro"), ("days", "year"), ("calendar", "year")])
def test_every_change_of_plan_back_and_forth_mints_nothing(first: str, then: str) -> None:
    """Changing plans every hour of a day gives no more than the better of both would have, bucket by bucket."""
    book = EngineLedger()
    book.do(OpenAccount(ACCOUNT, plan=first), _RULES, microseconds_at("2026-11-21 00:00"))
    for hour in range(24):
        for name in (then, None, first, then, first)[: 5 if hour % 2 else 4]:
            now = microseconds_at("2026-11-21 00:00") + hour * _HOUR
            book.do(SetPlan(ACCOUNT, name, (7000 + hour * 20, 7001 + hour * 20)), _RULES, now)
    assert_lawful(book.page())
    for bucket in ("daily", "subscription", "weekly"):
        given = sum(lot.grant.granted for lot in book.page().lots.values() if lot.grant.bucket == bucket)
        entitled = [_PLANS[name].allowance(bucket) for name in (first, then)]
        assert given <= max((allowance.amount for allowance in entitled if allowance), default=0)


@settings(max_examples=200, deadline=None, derandomize=True, database=None)
@given(microseconds=st.integers(0, 30 * _DAY - 1), more=st.integers(1, 10**12))
def test_an_upgrades_share_is_exact(microseconds: int, more: int) -> None:
    """An upgrade adds floor(more · remaining / total), in integers, to the end of the period that is on."""
    rules = Rules(
        plans={
            "small": Plan("small", (Allowance("subscription", 1000, "month"),)),
            "big": Plan("big", (Allowance("subscription", 1000 + more, "month"),)),
        }
    )
    start = microseconds_at("2026-11-01 00:00")
    book = EngineLedger()
    book.do(OpenAccount(ACCOUNT, plan="small"), rules, start)
    outcome = book.do(SetPlan(ACCOUNT, "big", (9,)), rules, start + microseconds)
    assert isinstance(outcome, PlanSet)
    share = more * (30 * _DAY - microseconds) // (30 * _DAY)
    assert [(grant.granted, grant.expires_at) for grant in outcome.grants] == [(share, start + 30 * _DAY)] * bool(share)
    assert_lawful(book.page())


def test_a_refusal_knows_an_allowance_that_was_just_added() -> None:
    """A plan that got an allowance since the account was last looked at refuses as any, and says when it comes."""
    book = EngineLedger()
    free = Rules(plans={"free": _PLANS["free"]})
    book.do(OpenAccount(ACCOUNT, plan="free"), free, _START)
    more = Rules(plans={"free": _PLANS["pro"]})
    outcome = book.do(PlaceHold(ACCOUNT, 1, 900, b""), more, _START)
    assert isinstance(outcome, Refused)
    assert outcome.fits_at == microseconds_at("2026-11-22 00:00")


_PLAN_NAMES = st.sampled_from([*_PLANS, None])
_ZONES = st.sampled_from(("UTC", "Pacific/Kiritimati", "Pacific/Pago_Pago", "Africa/Cairo", "America/Havana"))
_STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("wait"), st.sampled_from((1, 5, 24, 24 * 9, 24 * 33, 24 * 400, -1, -30))),
        st.tuples(st.just("plan"), _PLAN_NAMES),
        st.tuples(st.just("zone"), _ZONES),
        st.tuples(st.just("hold"), st.integers(0, 1200)),
        st.tuples(st.just("settle"), st.integers(0, 2000)),
        st.tuples(st.just("void"), st.booleans()),
        st.tuples(st.just("refund"), st.integers(1, 100)),
        st.tuples(st.just("limit"), st.sampled_from((10, 500, 5000))),
        st.tuples(st.just("status"), st.sampled_from(("active", "active", "suspended"))),
    ),
    max_size=40,
)


def live(books: list[AnyLedger], steps: list[tuple[str, object]]) -> None:
    """Lead the same life in every book and compare what they say and what they have recorded."""
    now, ids, open_holds, ended = _START, 1000, list[int](), list[int]()
    for book in books:
        book.do(OpenAccount(ACCOUNT, plan="pro"), _RULES, now)
        book.do(SetLimit(ACCOUNT, "key", 900, "day"), _RULES, now)
    for verb, value in steps:
        ids += 10
        command: SetPlan | SetAccount | PlaceHold | Settle | Void | Refund | SetLimit
        match verb, value:
            case "wait", int(hours):
                now += hours * _HOUR
                continue
            case "plan", name:
                command = SetPlan(ACCOUNT, name if isinstance(name, str) else None, (ids, ids + 1))
            case "zone", str(zone):
                command = SetAccount(ACCOUNT, timezone=zone)
            case "status", str(status):
                command = SetAccount(ACCOUNT, status=status)
            case "limit", int(amount):
                command = SetLimit(ACCOUNT, "key", amount, "day")
            case "hold", int(amount):
                command = PlaceHold(ACCOUNT, ids, amount, b"", scopes=("key", "app") if amount % 2 else ())
            case "settle", int(amount) if open_holds:
                command = Settle(ACCOUNT, open_holds.pop(0), amount, b"")
            case "void", bool(orphaned) if open_holds:
                command = Void(ACCOUNT, open_holds.pop(), b"", orphaned)
            case "refund", int(amount) if ended:
                command = Refund(ACCOUNT, ended[-1], ids, amount, "bonus", "sorry")
            case _:
                continue
        outcomes = [book.do(command, _RULES, now) for book in books]
        assert all(outcome == outcomes[0] for outcome in outcomes)
        if isinstance(outcomes[0], Held):
            open_holds.append(ids)
        elif isinstance(outcomes[0], Ended):
            ended.append(outcomes[0].hold_id)
        elif isinstance(outcomes[0], Refused) and isinstance(command, PlaceHold):
            _assert_fits_when_it_says(books[0], outcomes[0], now)
        elif isinstance(outcomes[0], (LimitSet, PlanSet)):
            assert books[0].page().next_due_at > now
        pages = [book.page() for book in books]
        # What expires at once is posted in no order.
        unordered = [replace(page, transfers=sorted(page.transfers, key=repr)) for page in pages]
        assert all(page == unordered[0] for page in unordered)
        assert_lawful(pages[0])


def _assert_fits_when_it_says(book: AnyLedger, refused: Refused, now: int) -> None:
    """Without the running calls, the hold fits at the time that a refusal names, and not before.

    With debt it depends on whether somebody looks at the account in each period: those missed repay nothing.
    """
    if refused.reason != "insufficient" or refused.fits_at is None or refused.debt:
        return
    assert isinstance(book, EngineLedger)
    assert refused.fits_at > now
    for at, fits in ((refused.fits_at, True), (refused.fits_at - 1, False)):
        trial = EngineLedger()
        trial.book = book.book
        outcome = hold(trial, at, refused.needed, 1)
        assert (isinstance(outcome, Held) or outcome.reason == "held") is fits


@settings(max_examples=300, deadline=None, derandomize=True, database=None)
@given(steps=_STEPS)
def test_no_life_breaks_a_law(steps: list[tuple[str, object]]) -> None:
    """Whatever happens in whatever order, clocks put back included: periods never overlap, and no invariant breaks."""
    live([EngineLedger()], steps)


@settings(max_examples=40, deadline=None, derandomize=True, database=None)
@given(steps=_STEPS)
def test_the_store_lives_as_the_engine_does(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, object]]
) -> None:
    """SQLite says and records what the engine does, periods, plans, limits and runs included."""
    sqlite = SqliteLedger(str(tmp_path_factory.mktemp("life") / "ledger.db"))
    try:
        live([EngineLedger(), sqlite], steps)
    finally:
        sqlite.close()


def test_labels_are_local_dates(tmp_path: Path) -> None:
    """A period's source key names the local date on which it begins, so that no period can be issued twice."""
    sqlite = SqliteLedger(str(tmp_path / "ledger.db"))
    try:
        sqlite.do(OpenAccount(ACCOUNT, "Asia/Tokyo", plan="free"), _RULES, microseconds_at("2026-11-21 16:00"))
        hold(sqlite, microseconds_at("2026-11-22 15:00"))
        keys = [lot.grant.source_key for lot in sqlite.page().lots.values()]
        assert keys == [f"allowance/daily/{date(2026, 11, day).toordinal()}" for day in (22, 23)]
    finally:
        sqlite.close()
