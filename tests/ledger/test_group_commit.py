"""Commands that arrive together are committed together, and come out as if each had come alone."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from ledger.audit import audit
from ledger.commands import Command, OpenAccount, Void
from ledger.commit import GroupCommit
from ledger.errors import Conflict, LedgerError, LedgerUnavailable, Overloaded, UnknownAccount, UnknownHold
from ledger.model import REVENUE
from ledger.outcomes import Ended, Held, Outcome, Refused
from tests.ledger.books import assert_lawful, quick_store, receipt_memo
from tests.ledger.running import (
    RULES,
    WAIT_SECONDS,
    Clock,
    Gate,
    Life,
    all_of,
    held,
    in_one_batch,
    opened,
    page_of,
    running,
    settled,
    voided,
)


@pytest.mark.parametrize("faulty", [False, True], ids=["sound", "some commands fail"])
@pytest.mark.parametrize("seed", range(4))
async def test_a_batch_is_as_good_as_one_by_one(tmp_path: Path, seed: int, faulty: bool) -> None:
    """A busy life committed in batches gives the outcomes, errors and pages of the same life committed singly."""
    life, clock, gate = Life(seed), Clock(), Gate()
    single, grouped = quick_store(str(tmp_path / "single.db")), quick_store(str(tmp_path / "grouped.db"))
    commit = GroupCommit(grouped, lambda: gate() and RULES, clock)

    def do(command: Command) -> Outcome | LedgerError:
        try:
            (outcome,) = single.transact([command], RULES, life.now)
        except LedgerError as error:
            return error
        life.note(outcome, command)
        return outcome

    for batch in range(30):
        clock.now = life.now
        commands = life.openings() if batch == 0 else [life.next(faulty=faulty) for _ in range(batch)]
        expected = [do(command) for command in commands]
        gate.shut()
        blocker = commit.submit(OpenAccount(99_999))
        await gate.reached()
        futures = [commit.submit(command) for command in commands]
        gate.open()
        await blocker
        outcomes = await all_of(futures)
        assert [described(outcome) for outcome in outcomes] == [described(outcome) for outcome in expected]
        life.pass_time()
    await commit.close()
    single.close()
    grouped.close()
    for account in life.accounts:
        pages = [page_of(str(tmp_path / name), account) for name in ("single.db", "grouped.db")]
        assert pages[0] == pages[1]
        assert_lawful(pages[1])
    assert audit(str(tmp_path / "grouped.db")).clean


def described(outcome: Outcome | BaseException) -> object:
    return (type(outcome), str(outcome)) if isinstance(outcome, BaseException) else outcome


async def test_what_queued_during_a_commit_is_one_batch(path: str) -> None:
    """All that queued while the writer was busy is one transaction, not many."""
    gate = Gate()
    async with running(path, Clock(), gate=gate) as ledger:
        await opened(ledger, 1000)
        before = gate.batches
        outcomes = await in_one_batch(ledger, gate, held(1, 10, 1), [held(1, hold_id, 1) for hold_id in range(11, 311)])
        assert all(isinstance(outcome, Held) for outcome in outcomes)
        assert gate.batches == before + 2


async def test_a_bad_command_fails_alone(path: str) -> None:
    """In one batch, what is at fault fails with its own error and everything else is carried out."""
    gate = Gate()
    async with running(path, Clock(), gate=gate) as ledger:
        await opened(ledger, 100)
        await ledger.hold(held(1, 11, 20))
        outcomes = await in_one_batch(
            ledger,
            gate,
            held(1, 10, 0),
            [
                held(1, 12, 30),
                held(2, 13, 1),
                settled(1, 14, 5),
                settled(1, 11, 15),
                voided(2, 11),
                settled(1, 12, -1),
                held(1, 15, 1000),
                settled(1, 12, 2**70),
                settled(1, 12, 30),
            ],
        )
    assert [type(outcome) for outcome in outcomes] == [
        *(Held, UnknownAccount, UnknownHold, Ended, UnknownAccount, Conflict, Refused),
        type(outcomes[7]),
        Ended,
    ]
    assert isinstance(outcomes[7], Exception)
    page = page_of(path, 1)
    assert_lawful(page)
    assert {hold_id: ended.charged for hold_id, ended in page.receipts.items()} == {11: 15, 12: 30}
    assert set(page.holds) == {10}


async def test_a_call_may_begin_and_end_within_one_batch(path: str) -> None:
    """A hold and its end in one batch leave a receipt and never a row of an open hold."""
    gate = Gate()
    async with running(path, Clock(), gate=gate) as ledger:
        await opened(ledger, 100)
        outcomes = await in_one_batch(
            ledger,
            gate,
            held(1, 10, 0),
            [held(1, 11, 60), settled(1, 11, 50), voided(1, 11), held(1, 12, 50), voided(1, 12), held(1, 13, 50)],
        )
        page = page_of(path, 1)
    first, settlement, again, second, void, third = outcomes
    assert [type(outcome) for outcome in (first, second, third)] == [Held] * 3
    assert settlement == again
    assert isinstance(void, Ended)
    assert void.status == "voided"
    assert set(page.holds) == {10, 13}
    assert page.moved(request=11) == page.receipts[11].charged == 50
    assert_lawful(page)


async def test_an_ended_call_does_not_begin_again_within_one_batch(path: str) -> None:
    """A second hold under an ended id is a conflict, though its end comes in the same batch and gets the old answer."""
    gate = Gate()
    async with running(path, Clock(), gate=gate) as ledger:
        await opened(ledger, 100)
        for hold_id in (11, 12, 13):
            await ledger.hold(held(1, hold_id, 20))
        await ledger.settle(1, 11, 15, receipt_memo(15))
        await ledger.void(1, 12, receipt_memo(0))
        await ledger.end(Void(1, 13, receipt_memo(0), orphaned=True))
        for hold_id, answer in ((11, ("settled", 15, False)), (12, ("voided", 0, False)), (13, ("settled", 9, True))):
            conflict, ended = await in_one_batch(
                ledger, gate, held(1, hold_id + 100, 0), [held(1, hold_id, 20), settled(1, hold_id, 9)]
            )
            assert isinstance(conflict, Conflict)
            assert isinstance(ended, Ended)
            assert (ended.status, ended.charged, ended.late) == answer
    page = page_of(path, 1)
    assert page.moved(target=REVENUE) == 24
    assert_lawful(page)


async def test_one_hold_id_in_two_accounts_may_end_in_one_batch(path: str) -> None:
    """Ids are an account's own: two holds of one id in two accounts end each on its own account, together."""
    gate = Gate()
    async with running(path, Clock(), gate=gate) as ledger:
        for account in (1, 2):
            await ledger.open_account(account)
            await ledger.issue(account, "paid", 100)
            await ledger.hold(held(account, 11, 50))
        outcomes = await in_one_batch(
            ledger, gate, held(1, 10, 0), [settled(1, 11, 30), settled(2, 11, 40), voided(1, 11), voided(2, 11)]
        )
    assert [outcome.charged for outcome in outcomes if isinstance(outcome, Ended)] == [30, 40, 30, 40]
    assert [page_of(path, account).moved(request=11) for account in (1, 2)] == [30, 40]


@pytest.mark.parametrize("together", [True, False], ids=["in one batch", "as they come"])
async def test_of_fifty_concurrent_ends_one_wins(path: str, together: bool) -> None:
    """Fifty concurrent ends of one hold, of all kinds and amounts: one is posted, and all get that one's answer."""
    gate = Gate()
    ends = [voided(1, 11) if number % 3 == 0 else settled(1, 11, number) for number in range(1, 51)]
    async with running(path, Clock(), gate=gate) as ledger:
        await opened(ledger, 100)
        await ledger.hold(held(1, 11, 40))
        if together:
            outcomes = await in_one_batch(ledger, gate, held(1, 10, 0), ends)
        else:
            outcomes = await all_of(ledger.end(command) for command in ends)
    winner = outcomes[0]
    assert isinstance(winner, Ended)
    assert (winner.status, winner.charged) == ("settled", 1)
    assert outcomes == [winner] * 50
    page = page_of(path, 1)
    assert page.moved(request=11) == 1
    assert_lawful(page)


async def test_parallel_holds_never_exceed_the_credits(path: str) -> None:
    """Of two hundred concurrent calls with credits for seven, exactly seven are held."""
    async with running(path, Clock()) as ledger:
        await opened(ledger, 7)
        outcomes = await asyncio.gather(*(ledger.hold(held(1, hold_id, 1)) for hold_id in range(11, 211)))
        page = page_of(path, 1)
        assert sum(isinstance(outcome, Held) for outcome in outcomes) == len(page.holds) == page.held == 7
        assert {outcome.reason for outcome in outcomes if isinstance(outcome, Refused)} == {"held"}
        assert_lawful(page)


async def test_a_cancelled_caller_does_not_stop_the_others(path: str) -> None:
    """An end is carried out though who queued it has gone, and the rest of its batch is answered."""
    gate = Gate()
    async with running(path, Clock(), gate=gate) as ledger:
        await opened(ledger, 100)
        await ledger.hold(held(1, 11, 40))
        await ledger.hold(held(1, 12, 40))
        gate.shut()
        gone, stays = ledger.end(settled(1, 11, 30)), ledger.end(settled(1, 12, 20))
        gone.cancel()
        gate.open()
        assert isinstance(await asyncio.wait_for(stays, WAIT_SECONDS), Ended)
        assert page_of(path, 1).receipts[11].charged == 30


async def test_a_full_queue_refuses_holds_but_takes_ends(path: str) -> None:
    """Beyond its bound the queue refuses new calls as overloaded; ends always enter, and calls do again afterwards."""
    gate = Gate()
    async with running(path, Clock(), gate=gate, most_waiting=3) as ledger:
        await opened(ledger, 100)
        await ledger.hold(held(1, 11, 40))
        gate.shut()
        waiting = [asyncio.ensure_future(ledger.hold(held(1, hold_id, 1))) for hold_id in (12, 13, 14)]
        await gate.reached()
        await asyncio.sleep(0)
        with pytest.raises(Overloaded):
            await ledger.hold(held(1, 15, 1))
        ends = [ledger.end(settled(1, 11, 30)), *(ledger.end(voided(1, hold_id)) for hold_id in (12, 13, 14))]
        with pytest.raises(Overloaded):
            await ledger.hold(held(1, 16, 1))
        gate.open()
        assert all(isinstance(outcome, Held) for outcome in await all_of(waiting))
        assert all(isinstance(outcome, Ended) for outcome in await all_of(ends))
        assert isinstance(await ledger.hold(held(1, 17, 70)), Held)
        page = page_of(path, 1)
    assert set(page.holds) == {17}
    assert set(page.receipts) == {11, 12, 13, 14}


async def test_closing_commits_what_is_queued(path: str) -> None:
    """What was queued before the ledger closed is carried out and answered; what comes later is refused."""
    gate = Gate()
    async with running(path, Clock(), gate=gate) as ledger:
        await opened(ledger, 100)
        await ledger.hold(held(1, 11, 40))
        gate.shut()
        ends = [ledger.end(settled(1, 11, 30)), ledger.end(voided(1, 11))]
        closing_down = asyncio.ensure_future(ledger.close())
        await asyncio.sleep(0)
        gate.open()
        await closing_down
        outcomes = await all_of(ends)
        assert [outcome.charged for outcome in outcomes if isinstance(outcome, Ended)] == [30, 30]
        with pytest.raises(LedgerUnavailable):
            ledger.end(voided(1, 11))
    assert page_of(path, 1).receipts[11].charged == 30


async def test_an_end_that_comes_while_the_ledger_closes_is_answered(path: str) -> None:
    """Whoever ends a hold while the ledger is closing learns whether it was carried out; nobody waits for ever."""
    gate = Gate()
    async with running(path, Clock(), gate=gate) as ledger:
        await opened(ledger, 100)
        await ledger.hold(held(1, 11, 40))
        gate.shut()
        before = ledger.end(voided(1, 11))
        await gate.reached()
        closing_down = asyncio.ensure_future(ledger.close())
        await asyncio.sleep(0)
        try:
            during = [ledger.end(settled(1, 11, 30))]
        except LedgerUnavailable:
            during = []
        gate.open()
        await closing_down
        await before
        _, unanswered = await asyncio.wait([*during, before], timeout=1)
        assert not unanswered
