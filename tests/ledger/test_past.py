"""What accounts did since a time, packed away or not; and whether what they had would have lasted."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.commands import IssueGrant, OpenAccount, Refund, Settle, Void
from ledger.ids import first_id
from ledger.past import Lot, PastCall, accounts_from, calls_since, count_accounts, lots_since, short_by
from tests.ledger.books import Stored, receipt_memo
from tests.ledger.running import DAY, NOON, RULES, held
from tests.ledger.sealed import close_all, in_short_ranges


@pytest.fixture(params=["sqlite", "postgres"])
def stored(request: pytest.FixtureRequest, path: str) -> Iterator[Stored]:
    where = path if request.param == "sqlite" else request.getfixturevalue("postgres_url")
    with closing(Stored(where, RULES, NOON)) as made:
        yield made


def _call(number: int) -> int:
    return first_id(NOON + number * 1000)


def test_calls_are_walked_through_oldest_first_packed_or_not(stored: Stored) -> None:
    """Settled ones only, from a time on; one that ended after later ones has its place."""
    stored.do(OpenAccount(1), IssueGrant(1, 1, "paid", 10_000), OpenAccount(2))
    # The third ends after the fourth to seventh, so it is in a later range than they are.
    stored.do(held(1, _call(3), 9))
    for number in (1, 2, 4, 5, 6, 7, 3):
        stored.do(*[held(1, _call(number), 9)] * (number != 3), Settle(1, _call(number), number, receipt_memo(number)))
    stored.do(held(1, _call(8), 9), Void(1, _call(8), receipt_memo(0)))
    with in_short_ranges(2):
        close_all(stored.store)
        close_all(stored.store, pack=True)
    stored.now += DAY
    newest = first_id(stored.now)
    stored.do(held(1, newest, 9), Settle(1, newest, 9, receipt_memo(9)))
    reader = stored.store.backend
    assert reader.rows("SELECT COUNT(*) FROM ledger_seal WHERE packed IS NOT NULL")[0][0] > 1
    found = list(calls_since(reader, 1, NOON))
    assert [(call.hold_id, call.charged) for call in found] == [*((_call(n), n) for n in range(1, 8)), (newest, 9)]
    assert all(type(call) is PastCall and call.memo == receipt_memo(call.charged) for call in found)
    assert [call.charged for call in calls_since(reader, 1, NOON + 1)] == [9]
    assert list(calls_since(reader, 2, NOON)) == []
    assert count_accounts(reader) == 2
    assert accounts_from(reader, RULES, 0, 5) == [(1, 0), (2, 0)]
    assert accounts_from(reader, RULES, 1, 5) == [(2, 0)]


def test_what_there_was_to_spend_has_what_was_spent_and_what_expired(stored: Stored) -> None:
    """In the order of burning; what was over before the time is left out."""
    stored.do(
        OpenAccount(1),
        IssueGrant(1, 1, "daily", 100, expires_at=NOON + DAY),
        IssueGrant(1, 2, "paid", 500),
        IssueGrant(1, 3, "daily", 7, expires_at=NOON + 1),
    )
    stored.do(held(1, _call(1), 130), Settle(1, _call(1), 130, receipt_memo(130)))
    ranks = {"daily": 0, "paid": 1}
    lots = lots_since(stored.store.backend, 1, NOON, ranks)
    assert [(lot.order[0], lot.left) for lot in lots] == [(0, 7), (0, 100), (1, 500)]
    stored.now += 2 * DAY
    stored.do(Refund(1, _call(1), 50, 30, "bonus", "slow"))
    assert sum(lot.left for lot in lots_since(stored.store.backend, 1, NOON, ranks)) == 637
    later = lots_since(stored.store.backend, 1, stored.now, ranks)
    assert [(lot.order[0], lot.left) for lot in later] == [(1, 500)]


def test_credits_that_last_and_that_do_not() -> None:
    """A lot is there from its beginning to its end; what is missing beyond the overdraft is said with when first."""
    lots = [Lot((0,), 0, 10, 100), Lot((0, 1), 10, 20, 100), Lot((1,), 0, 99, 50)]
    assert short_by(lots, [(1, 100), (2, 50), (10, 100)], 0) is None
    assert short_by(lots, [(1, 100), (2, 51), (10, 100)], 0) == (2, 1)
    assert short_by(lots, [(1, 100), (2, 51), (10, 100)], 1) is None
    assert short_by(lots, [(1, 10), (10, 100), (11, 60)], 0) == (11, 10)
    assert short_by(lots, [(20, 50)], 0) is None
    assert short_by(lots, [(20, 51), (21, 4)], 2) == (21, 3)
    assert short_by([], [(1, 0)], 0) is None


@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(0, 20), st.integers(1, 20), st.integers(1, 9)), max_size=6),
    st.lists(st.tuples(st.integers(0, 40), st.integers(0, 9)), max_size=12),
    st.integers(0, 5),
)
def test_shortfalls_are_those_of_a_plain_walk(
    made: list[tuple[int, int, int, int]], spends: list[tuple[int, int]], overdraft: int
) -> None:
    """Each unit from the first lot that is there then."""
    lots = sorted(
        Lot((rank, begins + lasts, number), begins, begins + lasts, left)
        for number, (rank, begins, lasts, left) in enumerate(made)
    )
    spends.sort(key=lambda spend: spend[0])
    left = {lot.order: lot.left for lot in lots}
    missing, first = 0, None
    for now, amount in spends:
        for _ in range(amount):
            there = [lot for lot in lots if lot.effective_at <= now < lot.expires_at and left[lot.order]]
            if there:
                left[there[0].order] -= 1
            else:
                missing += 1
        if first is None and missing > overdraft:
            first = now
    assert short_by(lots, spends, overdraft) == (None if first is None else (first, missing - overdraft))
