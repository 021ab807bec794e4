"""Lists of calls: every call that got a hold, once, held or ended, filtered, paged, walked through and summed up."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing

import pytest

from ledger.commands import Command, IssueGrant, OpenAccount, PlaceHold, Refund, Settle, Void
from ledger.outcomes import Refused
from ledger.usage import Recorded, Total, Which
from tests.ledger.books import Stored, receipt_memo
from tests.ledger.running import DAY, HOUR, NOON, RULES, Clock, held, running, settled, voided

DEEP = b"[" * 100_000 + b"]" * 100_000


@pytest.fixture(params=("sqlite", "postgres", "sqlite, packed", "postgres, packed"))
def stored(request: pytest.FixtureRequest, path: str) -> Iterator[Stored]:
    """Two accounts with credits, on each database."""
    where = path if request.param.startswith("sqlite") else request.getfixturevalue("postgres_url")
    with closing(Stored(where, RULES, NOON, packs="packed" in request.param)) as made:
        for account in (1, 2):
            made.do(OpenAccount(account), IssueGrant(account, 1, "paid", 10_000))
        yield made


def memo(amount: int = 0, **members: object) -> bytes:
    """Make a call's memo with these members, its one line adding up to the amount."""
    return json.dumps({**members, "lines": [{"amount": amount}] if amount else []}).encode()


def call(stored: Stored, account: int, hold_id: int, amount: int, **members: object) -> None:
    stored.do(
        PlaceHold(account, hold_id, amount, memo(0, **members)),
        Settle(account, hold_id, amount, memo(amount, **members)),
    )


def died(stored: Stored, account: int, hold_id: int) -> None:
    stored.do(held(account, hold_id, 5), Void(account, hold_id, receipt_memo(0), orphaned=True))


def ids(calls: list[Recorded]) -> list[tuple[int, int]]:
    return [(call.account_id, call.hold_id) for call in calls]


def walked(stored: Stored, which: Which, size: int) -> list[Recorded]:
    """Walk through calls account by account, in pages of a size."""
    pages: list[Recorded] = []
    while page := stored.queries.usage_page(which, size, (pages[-1].hold_id, pages[-1].account_id) if pages else None):
        assert len(page) <= size
        pages += page
    return pages


def test_every_call_that_got_a_hold_is_listed_once(stored: Stored) -> None:
    """Held, settled, voided and orphaned calls are listed, newest first; refused ones never."""
    died(stored, 1, 13)
    call(stored, 1, 11, 30)
    stored.do(held(1, 14, 20), held(1, 12, 20), voided(1, 12))
    assert isinstance(stored.do(held(1, 15, 50_000)), Refused)
    call(stored, 2, 11, 5)
    stored.do(Refund(1, 11, 31, 10, "bonus", "sorry"))
    queries = stored.queries
    calls = queries.usage(Which(1), 10, None)
    for listed in calls:
        assert queries.receipt(1, listed.hold_id) == listed
    everybody = queries.usage(Which(), 10, None)
    other = queries.usage(Which(3), 10, None)
    stored.do(settled(1, 14, 7))
    settled_since = queries.usage(Which(1), 10, None)
    assert [(listed.hold_id, listed.status) for listed in calls] == [
        (14, "held"),
        (13, "orphaned"),
        (12, "voided"),
        (11, "settled"),
    ]
    assert [(listed.charged, listed.refunded) for listed in calls] == [(0, 0), (0, 0), (0, 0), (30, 10)]
    assert {type(number) for listed in calls for number in (listed.charged, listed.debt, listed.refunded)} == {int}
    assert {type(listed.memo) for listed in calls} == {bytes}
    assert ids(everybody) == [(1, 14), (1, 13), (1, 12), (2, 11), (1, 11)]
    assert other == []
    assert ids(settled_since) == ids(calls)


def test_pages_neither_repeat_nor_skip(stored: Stored) -> None:
    """Pages of any size, of one account or of all, add up to the whole list; an export walks account by account."""
    for hold_id in range(11, 18):
        call(stored, 1 + hold_id % 2, hold_id, 1)
        stored.do(held(1, hold_id + 100, 1))
    # One id in both accounts.
    stored.do(held(2, 115, 1))
    for account in (None, 1, 2):
        whole = stored.queries.usage(Which(account), 100, None)
        for size in (1, 2, 3, 100):
            pages: list[Recorded] = []
            while page := stored.queries.usage(
                Which(account), size, (pages[-1].hold_id, pages[-1].account_id) if pages else None
            ):
                assert len(page) <= size
                pages += page
            assert pages == whole
            in_order = sorted(whole, key=lambda listed: (-listed.account_id, -listed.hold_id))
            assert walked(stored, Which(account), size) == in_order
    assert len(whole) > 1


async def test_the_ledger_walks_through_all_pages(path: str) -> None:
    """An export of the ledger's own, page by page, has every call once."""
    async with running(path, Clock()) as ledger:
        for account in (1, 2):
            await ledger.open_account(account)
            for hold_id in range(11, 16):
                await ledger.hold(held(account, hold_id, 0))
        for size in (1, 4, 100):
            calls = [listed async for page in ledger.usage_pages(Which(), size) for listed in page]
            assert ids(calls) == [(account, hold_id) for account in (2, 1) for hold_id in range(15, 10, -1)]


def test_calls_are_asked_for_by_the_memos_members_and_by_time(stored: Stored) -> None:
    """A filter is an exact value of a member; several must all hold; since is inclusive, until exclusive."""
    call(stored, 1, 11, 1, model="fast", thread="a", key="k")
    stored.now += HOUR
    call(stored, 1, 12, 1, model="fast", thread="b", app=None)
    stored.now += HOUR
    stored.do(PlaceHold(1, 13, 1, memo(model="smart", thread="a")), PlaceHold(1, 14, 1, b"no json"))
    call(stored, 2, 15, 1, model="fast", thread="a' OR 1 --")

    def found(which: Which) -> list[int]:
        listed = [listed.hold_id for listed in stored.queries.usage(which, 10, None)]
        assert sorted(listed) == sorted(listed.hold_id for listed in walked(stored, which, 10))
        assert sum(total.calls for total in stored.queries.summary(which, "model", "UTC")) == len(listed)
        return listed

    assert found(Which(1, {"model": "fast"})) == [12, 11]
    assert found(Which(1, {"thread": "a"})) == [13, 11]
    assert found(Which(1, {"thread": "a", "model": "fast"})) == [11]
    assert found(Which(1, {"thread": "A"})) == []
    assert found(Which(1, {"app": "x"})) == []
    assert found(Which(None, {"model": "fast"})) == [15, 12, 11]
    assert found(Which(None, {"thread": "a' OR 1 --"})) == [15]
    assert found(Which(1, since=NOON + HOUR)) == [14, 13, 12]
    assert found(Which(1, until=NOON + HOUR)) == [11]
    assert found(Which(1, since=NOON, until=NOON + HOUR + 1)) == [12, 11]
    assert found(Which(1, {"thread": "a"}, since=NOON + 1)) == [13]
    assert found(Which(None, since=NOON + 2 * HOUR)) == [15, 14, 13]
    with pytest.raises(ValueError, match="secret"):
        Which(1, {"secret": "x"})


def test_members_of_any_memo_are_read_alike(stored: Stored) -> None:
    """Texts are compared as texts, with every letter they may have; a memo that is no JSON has no members."""
    texts = ("é", "E", "50%", ":app", "a?b", "it's", '"', "\\u0000", "日本", "🙂")
    for number, app in enumerate(texts):
        call(stored, 1, 100 + number, 1, app=app)
    for number, raw in enumerate((b"", b"\0\xff", b'{"app": "x"', b'{"app": "\xff"}]', DEEP, b"5", b"null")):
        stored.do(PlaceHold(1, 200 + number, 0, raw))
    stored.do(PlaceHold(1, 300, 0, memo(app=5)), PlaceHold(1, 301, 0, memo(app="zero \0 here", model="fast")))
    # An object as it stands, without spaces, is a name like another.
    stored.do(PlaceHold(1, 302, 0, b'{"app":{"b":1}}'))
    for number, app in enumerate(texts):
        assert ids(stored.queries.usage(Which(1, {"app": app}), 10, None)) == [(1, 100 + number)]
    assert stored.queries.usage(Which(1, {"app": "5"}), 10, None) == []
    # Texts in a database hold no zero; one may be asked for, and does not hide the memo's other members.
    assert stored.queries.usage(Which(1, {"app": "E\0"}), 10, None) == []
    assert ids(stored.queries.usage(Which(1, {"model": "fast"}), 10, None)) == [(1, 301)]
    totals = stored.queries.summary(Which(1), "app", "UTC")
    assert [total for total in totals if total.total] == [Total(app, 1, 1) for app in sorted(texts)]
    assert Total(None, 7, 0) in totals
    assert Total("5", 1, 0) in totals


def test_calls_are_summed_up_by_a_member(stored: Stored) -> None:
    """Each value has its calls and what they cost less refunds, the dearest first; calls without one are under None."""
    call(stored, 1, 11, 30, model="fast", app=None)
    call(stored, 1, 12, 20, model="fast", app="editor")
    call(stored, 1, 13, 45, model="smart", app="editor")
    stored.do(PlaceHold(1, 14, 9, memo(model="slow")))
    call(stored, 2, 15, 500, model="fast")
    stored.do(Refund(1, 11, 31, 10, "bonus", "a"), Refund(1, 11, 32, 5, "bonus", "b"))
    summary = stored.queries.summary
    one = summary(Which(1), "model", "UTC")
    assert one == [Total("smart", 1, 45), Total("fast", 2, 35), Total("slow", 1, 0)]
    assert {type(number) for total in one for number in (total.calls, total.total)} == {int}
    assert summary(Which(1), "app", "UTC") == [Total("editor", 2, 65), Total(None, 2, 15)]
    everybody = [Total("fast", 3, 535), Total("smart", 1, 45), Total("slow", 1, 0)]
    assert summary(Which(), "model", "UTC") == everybody
    some = [Total("smart", 1, 45), Total("fast", 1, 20)]
    assert summary(Which(1, {"app": "editor"}), "model", "UTC") == some
    with pytest.raises(ValueError, match="secret"):
        summary(Which(1), "secret", "UTC")


def test_sums_may_pass_64_bits(stored: Stored) -> None:
    """The sum over all accounts is exact though no database integer holds it."""
    large = 2**62
    for account in range(3, 8):
        stored.do(OpenAccount(account))
        call(stored, account, 11, 0, model="fast")
        stored.do(
            PlaceHold(account, 12, 0, memo(model="fast")),
            Settle(account, 12, large + account, memo(large + account, model="fast")),
        )
    assert stored.queries.summary(Which(), "model", "UTC") == [Total("fast", 10, 5 * large + 25)]


def test_days_are_those_of_the_zone(stored: Stored) -> None:
    """A call counts on the local day on which it was made, whatever the offset, the newest day first."""
    call(stored, 1, 11, 1)  # 12:00 UTC
    stored.now = NOON + 6 * HOUR + HOUR // 4 - 1  # a microsecond before midnight in Kathmandu (+05:45)
    call(stored, 1, 12, 10)
    stored.now += 1
    call(stored, 1, 13, 100)
    stored.now = NOON + 12 * HOUR
    call(stored, 1, 14, 1000)
    call(stored, 2, 15, 900)
    summary = stored.queries.summary
    assert summary(Which(1), "day", "UTC") == [Total("2026-11-22", 1, 1000), Total("2026-11-21", 3, 111)]
    assert summary(Which(1), "day", "Asia/Kathmandu") == [Total("2026-11-22", 2, 1100), Total("2026-11-21", 2, 11)]
    assert summary(Which(), "day", "America/Los_Angeles") == [Total("2026-11-21", 5, 2011)]
    assert summary(Which(1, since=NOON + DAY), "day", "UTC") == []


def test_orphans_of_all_accounts_are_listed(stored: Stored) -> None:
    """Calls whose process died are listed in pages, newest first, but for those that were settled late."""
    for account, hold_id in ((1, 11), (2, 11), (1, 12), (2, 13)):
        died(stored, account, hold_id)
    call(stored, 1, 14, 5)
    stored.do(settled(1, 12, 5))
    orphans = stored.queries.orphans(10, None)
    first = stored.queries.orphans(2, None)
    second = stored.queries.orphans(2, (first[-1].hold_id, first[-1].account_id))
    assert ids(orphans) == [(2, 13), (2, 11), (1, 11)]
    assert first + second == orphans
    assert {orphan.status for orphan in orphans} == {"orphaned"}


def test_a_call_that_is_released_and_settled_late_in_one_batch_is_charged_once(stored: Stored) -> None:
    """Its receipt is that of the settlement, though it was an orphan's before in the same batch."""
    stored.do(held(1, 10, 50))
    batch: list[Command] = [Void(1, 10, receipt_memo(0), orphaned=True), Settle(1, 10, 30, receipt_memo(30))]
    outcomes = stored.store.transact(batch, stored.rules, stored.now)
    assert len(outcomes) == 2
    assert stored.page(1).moved(request=10) == 30
    (made,) = stored.queries.usage(Which(1), 5, None)
    assert (made.status, made.charged, made.hold_id) == ("settled", 30, 10)
