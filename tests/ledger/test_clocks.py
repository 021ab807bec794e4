"""Test clocks: an account that is bound to one lives in its time, and everybody else in the wall's."""

from __future__ import annotations

import pytest

from ledger.commands import OpenAccount, PlaceHold, SetClock
from ledger.errors import Conflict, UnknownClock
from ledger.outcomes import ClockSet, Held, Refused
from ledger.rules import Allowance, Plan, Rules
from tests.ledger.books import ACCOUNT, quick_store
from tests.ledger.words import microseconds_at

_CLOCK = 900
_WALL = microseconds_at("2026-11-21 12:00")
_THEN = microseconds_at("2027-03-01 12:00")
_NEXT_DAY = microseconds_at("2027-03-02 00:00")
_RULES = Rules(plans={"free": Plan("free", (Allowance("daily", 50, "day"),))})
_OPEN = OpenAccount(ACCOUNT, plan="free", clock=_CLOCK)


def test_an_account_lives_in_its_clocks_time(path: str) -> None:
    """Moving the clock on renews, also within a batch; the wall does not count, and a restart forgets nothing."""
    store = quick_store(path)
    made, _, first = store.transact(
        [SetClock(_CLOCK, _THEN, create=True), _OPEN, PlaceHold(ACCOUNT, 1, 50, b"")], _RULES, _WALL
    )
    assert made == ClockSet(_CLOCK, _THEN)
    assert isinstance(first, Held) and first.hold.created_at == _THEN
    (refused,) = store.transact([PlaceHold(ACCOUNT, 2, 1, b"")], _RULES, _WALL)
    assert isinstance(refused, Refused)
    _, again = store.transact([SetClock(_CLOCK, _NEXT_DAY), PlaceHold(ACCOUNT, 3, 50, b"")], _RULES, _WALL)
    assert isinstance(again, Held) and again.hold.created_at == _NEXT_DAY
    store.close()
    store = quick_store(path)
    (later,) = store.transact([PlaceHold(ACCOUNT, 4, 0, b"")], _RULES, _WALL)
    assert isinstance(later, Held) and later.hold.created_at == _NEXT_DAY
    store.close()


def test_a_clock_does_not_go_back_and_must_exist(path: str) -> None:
    """A clock put back, one that nobody made, and an account on such a one are refused, and nothing is written."""
    store = quick_store(path)
    with pytest.raises(UnknownClock):
        store.transact([SetClock(_CLOCK, _THEN)], _RULES, _WALL)
    with pytest.raises(UnknownClock):
        store.transact([_OPEN], _RULES, _WALL)
    store.transact([SetClock(_CLOCK, _THEN, create=True), _OPEN], _RULES, _WALL)
    with pytest.raises(Conflict):
        store.transact([SetClock(_CLOCK, _THEN - 1)], _RULES, _WALL)
    store.close()


def test_a_batch_that_fails_moves_no_clock(path: str) -> None:
    """What a batch did to a clock is undone with all the rest of it."""
    store = quick_store(path)
    store.transact([SetClock(_CLOCK, _THEN, create=True), _OPEN], _RULES, _WALL)
    with pytest.raises(Conflict):
        store.transact([SetClock(_CLOCK, _NEXT_DAY), PlaceHold(ACCOUNT, 1, -1, b"")], _RULES, _WALL)
    (held,) = store.transact([PlaceHold(ACCOUNT, 1, 50, b"")], _RULES, _WALL)
    assert isinstance(held, Held) and held.hold.created_at == _THEN
    store.close()
