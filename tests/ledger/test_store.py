"""One ledger file over its life: opened, reopened, owned, guarded, and read at a clock that may step back."""

from __future__ import annotations

import os
import sqlite3
import threading
from contextlib import closing
from pathlib import Path

import pytest

from ledger.audit import audit
from ledger.errors import LedgerError, LedgerLocked, LedgerUnavailable
from ledger.ids import IdSource
from ledger.ledger import Ledger
from ledger.model import PaidFrom
from ledger.outcomes import Ended, Held, Refused
from ledger.sqlite import Sqlite
from tests.ledger.books import assert_lawful, receipt_memo
from tests.ledger.running import HOUR, NOON, RULES, Clock, held, page_of, running, settled


async def test_acknowledged_work_is_there_after_reopening(path: str) -> None:
    """What was acknowledged is found again by the next process: grants, debt, receipts and their memos."""
    clock = Clock()
    async with running(path, clock) as ledger:
        await ledger.open_account(1, timezone="Europe/Berlin", overdraft_limit=20)
        daily = await ledger.issue(1, "daily", 100, expires_at=NOON + HOUR, source_key="day-1", note="hello")
        pack = await ledger.issue(1, "paid", 50, paid=True)
        await ledger.hold(held(1, 11, 120))
        clock.now += 1
        ended = await ledger.settle(1, 11, 170, receipt_memo(170))
    clock.now += 1
    async with running(path, clock) as ledger:
        recorded = await ledger.receipt(1, 11)
        again = await ledger.settle(1, 11, 5, receipt_memo(5))
        balance = await ledger.balance(1, clock.now)
    assert recorded is not None
    assert (recorded.status, recorded.charged, recorded.debt, recorded.memo) == ("settled", 170, 20, receipt_memo(170))
    assert (recorded.created_at, recorded.ended_at) == (NOON, NOON + 1)
    assert recorded.paid_from == (
        PaidFrom(daily.grant.grant_id, "daily", 100),
        PaidFrom(pack.grant.grant_id, "paid", 50),
    )
    assert again == ended
    assert (balance.debt, balance.available, balance.timezone, balance.overdraft_limit) == (20, 0, "Europe/Berlin", 20)
    page = page_of(path, 1)
    assert_lawful(page)
    assert page.lots[daily.grant.grant_id].grant == daily.grant
    assert page.lots[pack.grant.grant_id].grant == pack.grant
    assert audit(path).clean


def test_a_commit_waits_for_the_disk(path: str) -> None:
    """Commits go through a log that is flushed each time, so that a power cut takes nothing acknowledged."""
    backend = Sqlite(path)
    settings = [backend.rows(f"PRAGMA {name}")[0] for name in ("journal_mode", "synchronous")]
    backend.close()
    full = 2
    assert settings == [("wal",), (full,)]


async def test_holds_of_a_dead_process_are_released_in_full(path: str) -> None:
    """Whoever opens the ledger next finds no open hold: each is recorded as orphaned, with its memo made an end's."""
    clock = Clock()
    async with running(path, clock) as ledger:
        await ledger.open_account(1, overdraft_limit=20)
        await ledger.issue(1, "paid", 100, paid=True)
        await ledger.hold(held(1, 11, 70))
        await ledger.hold(held(1, 12, 50))
        await ledger.hold(held(1, 13, 0))
        await ledger.settle(1, 13, 0, receipt_memo(0))
    clock.now += HOUR
    async with running(path, clock, orphan_memo=lambda memo: b'{"died": ' + memo + b"}") as ledger:
        for hold_id in (11, 12):
            recorded = await ledger.receipt(1, hold_id)
            assert recorded is not None
            assert (recorded.status, recorded.charged, recorded.paid_from) == ("orphaned", 0, ())
            assert recorded.memo == b'{"died": ' + receipt_memo(0) + b"}"
            assert (recorded.created_at, recorded.ended_at) == (NOON, NOON + HOUR)
        assert (await ledger.balance(1, clock.now)).available == 100
    page = page_of(path, 1)
    assert_lawful(page)
    assert (page.held, page.debt, page.moved(source=11)) == (0, 0, 0)
    assert page.receipts[13].status == "settled"
    found = audit(path)
    assert found.clean
    assert [(orphan["account_id"], orphan["hold_id"]) for orphan in found.orphans] == [(1, 11), (1, 12)]


async def test_an_orphan_that_is_settled_late_is_posted_once(path: str) -> None:
    """A settlement that comes after its hold was released as an orphan is charged, marked late, and only once."""
    clock = Clock()
    async with running(path, clock) as ledger:
        await ledger.open_account(1)
        await ledger.issue(1, "paid", 100, paid=True)
        await ledger.hold(held(1, 11, 70))
    clock.now += HOUR
    async with running(path, clock) as ledger:
        first = await ledger.settle(1, 11, 60, receipt_memo(60))
        again = await ledger.settle(1, 11, 60, receipt_memo(60))
    clock.now += HOUR
    async with running(path, clock) as ledger:
        after_reopening = await ledger.settle(1, 11, 60, receipt_memo(60))
    assert (first.status, first.charged, first.late) == ("settled", 60, True)
    assert first == again == after_reopening
    page = page_of(path, 1)
    assert page.moved(request=11) == 60
    assert_lawful(page)
    assert audit(path).clean


async def test_a_second_process_is_told_who_owns_the_ledger(path: str) -> None:
    """Only one process has the file; another is refused with the owner's name, until the owner gives it up."""
    async with running(path, Clock(), owner="the first server"):
        with pytest.raises(LedgerLocked, match=rf"in use by the first server \(process {os.getpid()}\)"):
            await Ledger.open(path, lambda: RULES, owner="the second server")
    async with running(path, Clock(), owner="the second server"):
        with pytest.raises(LedgerLocked, match="the second server"):
            await Ledger.open(path, lambda: RULES)


async def test_a_ledger_that_can_not_be_opened_is_not_owned(tmp_path: Path) -> None:
    """A file that is no ledger is refused as such, and is not left locked."""
    path = tmp_path / "ledger.db"
    path.write_bytes(b"this is no database, it is a letter to the editor" * 100)
    for _ in range(2):
        with pytest.raises(LedgerUnavailable):
            await Ledger.open(str(path), lambda: RULES)
    path.unlink()
    async with running(str(path), Clock()) as ledger:
        assert (await ledger.open_account(1)).new


async def test_a_failed_release_of_orphans_leaves_nothing_running(path: str) -> None:
    """When orphans can't be released the ledger does not open: no writer thread stays behind, and the file is free."""
    async with running(path, Clock()) as ledger:
        await ledger.open_account(1)
        await ledger.issue(1, "paid", 100)
        await ledger.hold(held(1, 11, 70))

    def no_memo(memo: bytes) -> bytes:
        raise ValueError("this memo is not ours")

    threads = threading.active_count()
    with pytest.raises(ValueError, match="not ours") as failure:
        await Ledger.open(path, lambda: RULES, clock=Clock(), orphan_memo=no_memo)
    assert threading.active_count() == threads
    async with running(path, Clock()) as ledger:
        assert (await ledger.void(1, 11, receipt_memo(0))).status == "orphaned"
    del failure


@pytest.mark.parametrize("step", [0, -1, -HOUR], ids=["stands", "steps back", "steps back an hour"])
async def test_a_clock_that_stepped_back_between_two_processes_does_no_harm(path: str, step: int) -> None:
    """The next process can post although its clock shows a time at which the last one has posted already."""
    clock = Clock()
    async with running(path, clock) as ledger:
        await ledger.open_account(1)
        await ledger.issue(1, "paid", 100)
        # A long stretch of ids: the journal's times are as dense as a busy server's.
        for hold_id in range(11, 21):
            await ledger.hold(held(1, hold_id, 1))
            await ledger.settle(1, hold_id, 1, receipt_memo(1))
    clock.now += step
    async with running(path, clock) as ledger:
        issued = await ledger.issue(1, "paid", 100)
        await ledger.hold(held(1, 31, 50))
        ended = await ledger.settle(1, 31, 50, receipt_memo(50))
    assert issued.new
    assert ended.charged == 50
    assert_lawful(page_of(path, 1))
    assert audit(path).clean


async def test_the_ledgers_time_does_not_step_back(path: str) -> None:
    """While a ledger is open its time only goes forward: what expired stays expired though the clock steps back."""
    clock = Clock()
    async with running(path, clock) as ledger:
        await ledger.open_account(1)
        await ledger.issue(1, "daily", 100, expires_at=NOON + HOUR)
        await ledger.issue(1, "paid", 10)
        assert isinstance(await ledger.hold(held(1, 11, 30)), Held)
        clock.now = NOON + HOUR
        assert isinstance(await ledger.hold(held(1, 12, 10)), Held)
        clock.now = NOON
        refused = await ledger.hold(held(1, 13, 1))
        ended = await ledger.settle(1, 11, 20, receipt_memo(20))
        gift = await ledger.issue(1, "paid", 5)
    assert isinstance(refused, Refused)
    assert (refused.available, refused.affordable) == (0, 10)
    assert ended.ended_at == gift.grant.created_at == NOON + HOUR
    page = page_of(path, 1)
    assert [transfer.at for transfer in page.transfers] == sorted(transfer.at for transfer in page.transfers)
    assert_lawful(page)


async def test_ids_grow_although_the_clock_steps_back() -> None:
    """Every id is larger than the last one and fits 63 bits."""
    clock = Clock()
    ids = IdSource(clock)
    made = [ids.next()]
    for step in (0, 0, 5, -HOUR, 0, 24 * HOUR):
        clock.now += step
        made.append(ids.next())
    assert made == sorted(set(made))
    assert 0 < made[0] < made[-1] < 2**63


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE ledger_transfer SET amount = amount - 1",
        "UPDATE ledger_transfer SET target = -5 WHERE target = -3",
        "DELETE FROM ledger_transfer",
        "DELETE FROM ledger_transfer WHERE request = 11",
        "UPDATE ledger_receipt SET charged = 0, debt = 0",
        "UPDATE ledger_receipt SET memo = x'7b7d' WHERE hold_id = 11",
        "UPDATE ledger_receipt SET status = 'orphaned' WHERE hold_id = 11",
        "DELETE FROM ledger_receipt WHERE hold_id = 12",
        "UPDATE ledger_refund SET amount = amount - 1",
        "DELETE FROM ledger_refund",
    ],
)
async def test_the_journal_and_the_receipts_are_append_only(path: str, damage: str) -> None:
    """The database itself refuses to change or delete what was posted, whoever asks."""
    async with running(path, Clock()) as ledger:
        await ledger.open_account(1)
        await ledger.issue(1, "paid", 100)
        for hold_id in (11, 12):
            await ledger.hold(held(1, hold_id, 30))
        await ledger.settle(1, 11, 30, receipt_memo(30))
        await ledger.void(1, 12, receipt_memo(0))
        await ledger.refund(1, 11, 10, "sorry", bonus_bucket="bonus")
    before = page_of(path, 1)
    with closing(sqlite3.connect(path)) as connection, pytest.raises(sqlite3.IntegrityError, match="append-only"):
        connection.execute(damage)
    assert page_of(path, 1) == before


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE ledger_grant SET balance = held - 1",
        "UPDATE ledger_grant SET held = balance + 1",
        "UPDATE ledger_grant SET held = -1",
        "UPDATE ledger_grant SET balance = granted + 1",
        "UPDATE ledger_account SET debt = -1",
        "UPDATE ledger_account SET overdraft_held = -1",
        "INSERT INTO ledger_transfer (account_id, transfer_id, kind, source, target, amount, at)"
        " VALUES (1, 1, 'charge', -5, -3, 0, 0)",
    ],
)
async def test_the_tables_refuse_impossible_amounts(path: str, damage: str) -> None:
    """No row can say that more is held than is left, that less than nothing is owed, or that nothing was moved."""
    async with running(path, Clock()) as ledger:
        await ledger.open_account(1)
        await ledger.issue(1, "paid", 100)
        await ledger.hold(held(1, 11, 30))
    with closing(sqlite3.connect(path)) as connection, pytest.raises(sqlite3.IntegrityError, match="CHECK"):
        connection.execute(damage)


async def test_one_account_says_nothing_about_another(path: str) -> None:
    """Accounts share ids of holds without sharing anything else."""
    async with running(path, Clock()) as ledger:
        for account, amount in ((1, 100), (2, 10)):
            await ledger.open_account(account)
            await ledger.issue(account, "paid", amount, source_key="payment-1")
        assert isinstance(await ledger.hold(held(1, 11, 60)), Held)
        refused = await ledger.hold(held(2, 11, 60))
        assert isinstance(refused, Refused)
        assert (refused.available, refused.held, refused.affordable) == (10, 0, 10)
        assert isinstance(await ledger.hold(held(2, 11, 10)), Held)
        with pytest.raises(LedgerError):
            await ledger.settle(3, 11, 5, receipt_memo(5))
        assert isinstance(await ledger.end(settled(2, 11, 9)), Ended)
        assert isinstance(await ledger.end(settled(1, 11, 61)), Ended)
    for account, spent in ((1, 61), (2, 9)):
        page = page_of(path, account)
        assert_lawful(page)
        assert page.receipts[11].charged == spent
