"""Lists of calls: every call that got a hold, once, held or ended, filtered, paged, walked through and summed up."""

from __future__ import annotations

import json

import pytest

from ledger.commands import PlaceHold
from ledger.ledger import Ledger
from ledger.outcomes import Refused
from ledger.usage import Recorded, Total, Which
from tests.ledger.books import receipt_memo
from tests.ledger.running import HOUR, NOON, Clock, held, running

DAY = 24 * HOUR


def memo(amount: int = 0, **members: str | None) -> bytes:
    """Make a call's memo with these members, its one line adding up to the amount."""
    return json.dumps({**members, "lines": [{"amount": amount}] if amount else []}).encode()


async def call(ledger: Ledger, account: int, hold_id: int, amount: int, **members: str | None) -> None:
    await ledger.hold(PlaceHold(account, hold_id, amount, memo(0, **members)))
    await ledger.settle(account, hold_id, amount, memo(amount, **members))


def ids(calls: list[Recorded]) -> list[tuple[int, int]]:
    return [(call.account_id, call.hold_id) for call in calls]


async def two_accounts(ledger: Ledger) -> None:
    for account in (1, 2):
        await ledger.open_account(account)
        await ledger.issue(account, "paid", 10_000)


async def test_every_call_that_got_a_hold_is_listed_once(path: str) -> None:
    """Held, settled, voided and orphaned calls are listed, newest first; refused ones never."""
    clock = Clock()
    async with running(path, clock) as ledger:
        await two_accounts(ledger)
        await ledger.hold(held(1, 13, 10))
    async with running(path, clock) as ledger:
        await call(ledger, 1, 11, 30)
        await ledger.hold(held(1, 14, 20))
        await ledger.hold(held(1, 12, 20))
        await ledger.void(1, 12, receipt_memo(0))
        assert isinstance(await ledger.hold(held(1, 15, 50_000)), Refused)
        await call(ledger, 2, 11, 5)
        await ledger.refund(1, 11, 10, "sorry", bonus_bucket="bonus")
        calls = await ledger.usage(Which(1), 10)
        for listed in calls:
            assert await ledger.receipt(1, listed.hold_id) == listed
        everybody = await ledger.usage(Which(), 10)
        other = await ledger.usage(Which(3), 10)
        await ledger.settle(1, 14, 7, receipt_memo(7))
        settled_since = await ledger.usage(Which(1), 10)
    assert [(listed.hold_id, listed.status) for listed in calls] == [
        (14, "held"),
        (13, "orphaned"),
        (12, "voided"),
        (11, "settled"),
    ]
    assert [(listed.charged, listed.refunded) for listed in calls] == [(0, 0), (0, 0), (0, 0), (30, 10)]
    assert ids(everybody) == [(1, 14), (1, 13), (1, 12), (2, 11), (1, 11)]
    assert other == []
    assert ids(settled_since) == ids(calls)


async def test_pages_neither_repeat_nor_skip(path: str) -> None:
    """Pages of any size, of one account or of all, add up to the whole list; an export walks account by account."""
    async with running(path, Clock()) as ledger:
        await two_accounts(ledger)
        for hold_id in range(11, 18):
            await call(ledger, 1 + hold_id % 2, hold_id, 1)
            await ledger.hold(held(1, hold_id + 100, 1))
        # One id in both accounts.
        await ledger.hold(held(2, 115, 1))
        for account in (None, 1, 2):
            whole = await ledger.usage(Which(account), 100)
            for size in (1, 2, 3, 100):
                pages: list[Recorded] = []
                while page := await ledger.usage(
                    Which(account), size, (pages[-1].hold_id, pages[-1].account_id) if pages else None
                ):
                    assert len(page) <= size
                    pages += page
                assert pages == whole
                walked = [listed async for page in ledger.usage_pages(Which(account), size) for listed in page]
                assert walked == sorted(whole, key=lambda listed: (-listed.account_id, -listed.hold_id))
    assert len(whole) > 1


async def test_calls_are_asked_for_by_the_memos_members_and_by_time(path: str) -> None:
    """A filter is an exact value of a member; several must all hold; since is inclusive, until exclusive."""
    clock = Clock()
    async with running(path, clock) as ledger:
        await two_accounts(ledger)
        await call(ledger, 1, 11, 1, model="fast", thread="a", key="k")
        clock.now += HOUR
        await call(ledger, 1, 12, 1, model="fast", thread="b", app=None)
        clock.now += HOUR
        await ledger.hold(PlaceHold(1, 13, 1, memo(model="smart", thread="a")))
        await ledger.hold(PlaceHold(1, 14, 1, b"no json"))
        await call(ledger, 2, 15, 1, model="fast", thread="a' OR 1 --")

        async def found(which: Which) -> list[int]:
            walked = [listed.hold_id async for page in ledger.usage_pages(which) for listed in page]
            listed = [listed.hold_id for listed in await ledger.usage(which, 10)]
            assert sorted(walked) == sorted(listed)
            assert sum(total.calls for total in await ledger.summary(which, "model")) == len(listed)
            return listed

        assert await found(Which(1, {"model": "fast"})) == [12, 11]
        assert await found(Which(1, {"thread": "a"})) == [13, 11]
        assert await found(Which(1, {"thread": "a", "model": "fast"})) == [11]
        assert await found(Which(1, {"thread": "A"})) == []
        assert await found(Which(1, {"app": "x"})) == []
        assert await found(Which(None, {"model": "fast"})) == [15, 12, 11]
        assert await found(Which(None, {"thread": "a' OR 1 --"})) == [15]
        assert await found(Which(1, since=NOON + HOUR)) == [14, 13, 12]
        assert await found(Which(1, until=NOON + HOUR)) == [11]
        assert await found(Which(1, since=NOON, until=NOON + HOUR + 1)) == [12, 11]
        assert await found(Which(1, {"thread": "a"}, since=NOON + 1)) == [13]
        assert await found(Which(None, since=NOON + 2 * HOUR)) == [15, 14, 13]
    with pytest.raises(ValueError, match="secret"):
        Which(1, {"secret": "x"})


async def test_calls_are_summed_up_by_a_member(path: str) -> None:
    """Each value has its calls and what they cost less refunds, the dearest first; calls without one are under None."""
    async with running(path, Clock()) as ledger:
        await two_accounts(ledger)
        await call(ledger, 1, 11, 30, model="fast", app=None)
        await call(ledger, 1, 12, 20, model="fast", app="editor")
        await call(ledger, 1, 13, 45, model="smart", app="editor")
        await ledger.hold(PlaceHold(1, 14, 9, memo(model="slow")))
        await call(ledger, 2, 15, 500, model="fast")
        await ledger.refund(1, 11, 10, "a", bonus_bucket="bonus")
        await ledger.refund(1, 11, 5, "b", bonus_bucket="bonus")
        one = await ledger.summary(Which(1), "model")
        apps = await ledger.summary(Which(1), "app")
        everybody = await ledger.summary(Which(), "model")
        some = await ledger.summary(Which(1, {"app": "editor"}), "model")
        with pytest.raises(ValueError, match="secret"):
            await ledger.summary(Which(1), "secret")
    assert one == [Total("smart", 1, 45), Total("fast", 2, 35), Total("slow", 1, 0)]
    assert apps == [Total("editor", 2, 65), Total(None, 2, 15)]
    assert everybody == [Total("fast", 3, 535), Total("smart", 1, 45), Total("slow", 1, 0)]
    assert some == [Total("smart", 1, 45), Total("fast", 1, 20)]


async def test_sums_may_pass_64_bits(path: str) -> None:
    """The sum over all accounts is exact though no database integer holds it."""
    large = 2**62
    async with running(path, Clock()) as ledger:
        for account in range(1, 6):
            await ledger.open_account(account)
            await call(ledger, account, 11, 0, model="fast")
            await ledger.hold(PlaceHold(account, 12, 0, memo(model="fast")))
            await ledger.settle(account, 12, large + account, memo(large + account, model="fast"))
        assert await ledger.summary(Which(), "model") == [Total("fast", 10, 5 * large + 15)]


async def test_days_are_those_of_the_zone(path: str) -> None:
    """A call counts on the local day on which it was made, whatever the offset, the newest day first."""
    clock = Clock()  # 12:00 UTC
    async with running(path, clock) as ledger:
        await two_accounts(ledger)
        await call(ledger, 1, 11, 1)
        clock.now = NOON + 6 * HOUR + HOUR // 4 - 1  # a microsecond before midnight in Kathmandu (+05:45)
        await call(ledger, 1, 12, 10)
        clock.now += 1
        await call(ledger, 1, 13, 100)
        clock.now = NOON + 12 * HOUR
        await call(ledger, 1, 14, 1000)
        await call(ledger, 2, 15, 900)
        utc = await ledger.summary(Which(1), "day")
        kathmandu = await ledger.summary(Which(1), "day", timezone="Asia/Kathmandu")
        los_angeles = await ledger.summary(Which(), "day", timezone="America/Los_Angeles")
    assert utc == [Total("2026-11-22", 1, 1000), Total("2026-11-21", 3, 111)]
    assert kathmandu == [Total("2026-11-22", 2, 1100), Total("2026-11-21", 2, 11)]
    assert los_angeles == [Total("2026-11-21", 5, 2011)]


async def test_orphans_of_all_accounts_are_listed(path: str) -> None:
    """Calls whose process died are listed in pages, newest first, but for those that were settled late."""
    async with running(path, Clock()) as ledger:
        await two_accounts(ledger)
        for account, hold_id in ((1, 11), (2, 11), (1, 12), (2, 13)):
            await ledger.hold(held(account, hold_id, 5))
        await call(ledger, 1, 14, 5)
    async with running(path, Clock()) as ledger:
        await ledger.settle(1, 12, 5, receipt_memo(5))
        orphans = await ledger.orphans(10)
        first = await ledger.orphans(2)
        second = await ledger.orphans(2, (first[-1].hold_id, first[-1].account_id))
    assert ids(orphans) == [(2, 13), (2, 11), (1, 11)]
    assert first + second == orphans
    assert {orphan.status for orphan in orphans} == {"orphaned"}
