"""Sealed ranges: what changes in them is named; packed away, they are read as before."""

from __future__ import annotations

import secrets
import shutil
import sqlite3
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from ledger import sealing
from ledger.audit import Audit, audit
from ledger.commands import IssueGrant, OpenAccount, PlaceHold, Settle, Void
from ledger.errors import Conflict, LedgerUnavailable
from ledger.ids import first_id, time_of
from ledger.ledger import Ledger
from ledger.model import Claim
from ledger.outcomes import Closed, Held, Refunded
from ledger.ranges import load_range, read_seals
from ledger.sealing import month_of, next_seal
from ledger.seals import NO_SEAL, seal_of
from ledger.sqlite import SqliteReader
from ledger.usage import MEMBERS, Which
from tests.ledger.books import quick_store, receipt_memo
from tests.ledger.running import DAY, HOUR, NOON, RULES, Clock, held, running
from tests.ledger.sealed import close_all, in_short_ranges
from tests.ledger.test_audit import DAMAGE, SEALED, damaged, live
from tests.ledger.words import microseconds_at
from tests.postgres import own_database


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, path: str) -> str:
    """A database of the test's own, with nothing in it yet."""
    return (
        path
        if request.param == "sqlite"
        else own_database(request.getfixturevalue("postgres_url"), secrets.token_hex(8))
    )


@pytest.fixture(scope="module")
def sealed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ledger after a busy life, sealed in short ranges, the last rows of each account left open."""
    path = tmp_path_factory.mktemp("sealed") / "ledger.db"
    store = quick_store(str(path))
    live(store)
    before = audit(str(path))
    # Its holds have ids from before everything else; nothing happens here any more after the sealing.
    oldest, sealing._OLDEST_HOLD = sealing._OLDEST_HOLD, "SELECT NULL FROM ledger_account WHERE account_id = ?"
    with in_short_ranges():
        assert close_all(store) > 50
    sealing._OLDEST_HOLD = oldest
    store.close()
    after = audit(str(path))
    assert after.clean and after.totals == before.totals
    return path


@pytest.mark.parametrize("what", DAMAGE)
def test_damage_is_found_in_what_is_sealed_as_well(what: str, sealed: Path, tmp_path: Path) -> None:
    """Whatever is edited behind the ledger's back is found, sealed or not."""
    assert not damaged(sealed, tmp_path, DAMAGE[what][0]).clean


FIRST = "(SELECT account_id, MIN(transfer_id) FROM ledger_transfer WHERE account_id = 2)"
SECOND = """(SELECT account_id, MIN(transfer_id) FROM ledger_transfer WHERE account_id = 2
    AND transfer_id > (SELECT MIN(transfer_id) FROM ledger_transfer WHERE account_id = 2))"""


def named(found: Audit) -> list[tuple[object, ...]]:
    """The rows that were not as they were sealed."""
    return [
        (row["account_id"], row["table"], row["id"], row["what"])
        for finding in found.findings
        if finding.invariant == SEALED
        for row in finding.rows
    ]


@pytest.mark.parametrize(
    ("statement", "what"),
    [
        (f"UPDATE ledger_transfer SET note = 'x' WHERE (account_id, transfer_id) IN {SECOND}", "was altered"),
        (f"DELETE FROM ledger_transfer WHERE (account_id, transfer_id) IN {FIRST}", "a row before it is missing"),
        (
            "INSERT INTO ledger_transfer (account_id, transfer_id, kind, source, target, amount, at)"
            f" SELECT account_id, transfer_id - 1, 'void', source, target, amount, at FROM ledger_transfer"
            f" WHERE (account_id, transfer_id) IN {SECOND}",
            "was added",
        ),
    ],
)
def test_the_first_row_that_was_altered_is_named(statement: str, what: str, sealed: Path, tmp_path: Path) -> None:
    """Altered, missing or added: the account, the table, the row's id and what became of it are told."""
    with closing(sqlite3.connect(sealed)) as connection:
        ((_, second),) = connection.execute(f"SELECT * FROM {SECOND}").fetchall()
    row = second - 1 if what == "was added" else second
    assert named(damaged(sealed, tmp_path, statement)) == [(2, "ledger_transfer", row, what)]


@pytest.mark.parametrize(
    ("statement", "what"),
    [
        ("UPDATE ledger_seal SET state = '[]' WHERE account_id = 2 AND number = 3", "the seal was altered"),
        ("UPDATE ledger_seal SET digest = x'00' WHERE account_id = 2 AND number = 3", "the seal was altered"),
        ("DELETE FROM ledger_seal WHERE account_id = 2 AND number = 3", "the seal is missing"),
        ("DELETE FROM ledger_seal WHERE account_id = 2 AND number = 1", "the seal is missing"),
    ],
)
def test_a_seal_that_was_altered_is_named(statement: str, what: str, sealed: Path, tmp_path: Path) -> None:
    """Whoever edits the seals breaks the chain."""
    (finding,) = [found for found in damaged(sealed, tmp_path, statement).findings if found.invariant == SEALED]
    assert [(row["account_id"], row["what"]) for row in finding.rows] == [(2, what)]


def test_a_seal_that_was_made_anew_breaks_the_chain(sealed: Path, tmp_path: Path) -> None:
    """Whoever alters a row and seals its range again has to seal all ranges after it again."""
    path = tmp_path / "forged.db"
    shutil.copy(sealed, path)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for (trigger,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            connection.execute(f"DROP TRIGGER {trigger}")
        connection.execute(f"UPDATE ledger_transfer SET note = 'x' WHERE (account_id, transfer_id) IN {SECOND}")
        reader = SqliteReader(connection)
        first = read_seals(reader, 2, 0, 1)[0]
        forged = seal_of(2, NO_SEAL, load_range(reader, 2, 0, first.to_id), first.to_id, first.sealed_at)
        assert forged.digest != first.digest
        connection.execute(
            "UPDATE ledger_seal SET digest = ?, leaves = ? WHERE account_id = 2 AND to_id = ?",
            (forged.digest, forged.leaves, first.to_id),
        )
    (finding,) = [found for found in audit(str(path)).findings if found.invariant == SEALED]
    assert finding.rows == [{"account_id": 2, "range": 2, "what": "the seal was altered"}]


def test_a_history_that_was_rewritten_whole_has_another_head(sealed: Path, tmp_path: Path) -> None:
    """Who alters a row and makes all seals anew is found out by the head that was noted before, and by it alone."""
    path = tmp_path / "rewritten.db"
    shutil.copy(sealed, path)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for (trigger,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            connection.execute(f"DROP TRIGGER {trigger}")
        connection.execute(f"UPDATE ledger_transfer SET note = 'x' WHERE (account_id, transfer_id) IN {SECOND}")
        connection.execute("DELETE FROM ledger_seal")
    store = quick_store(str(path))
    with in_short_ranges():
        close_all(store)
    store.close()
    assert audit(str(path)).clean
    assert audit(str(path)).sealed.head != audit(str(sealed)).sealed.head


def test_as_many_sealed_rows_are_read_again_as_asked_for(sealed: Path, tmp_path: Path) -> None:
    """The newest first; it is told how many, and what is open is always proven."""
    full = audit(str(sealed), most_rows=None)
    some = audit(str(sealed), most_rows=100)
    assert full.sealed.read == full.sealed.rows > 600
    assert 80 < some.sealed.read <= 100 and some.clean
    assert {**asdict(some.sealed), "read": 0} == {**asdict(full.sealed), "read": 0}
    path = tmp_path / "ledger.db"
    shutil.copy(sealed, path)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("UPDATE ledger_grant SET balance = balance - 1 WHERE balance > held")
    found = audit(str(path), most_rows=0)
    assert found.sealed.read == 0 and "each balance is the fold of its transfers" in {
        f.invariant for f in found.findings
    }


async def lived(ledger: Ledger, clock: Clock, calls: int = 60) -> list[int]:
    """Two accounts, calls of many kinds, some corrected; returns the ids of account 1's calls."""
    made = []
    for account in (1, 2):
        await ledger.open_account(account, overdraft_limit=5)
        await ledger.issue(account, "paid", 2000, paid=True, note="a pack")
        await ledger.issue(account, "daily", 300, expires_at=clock.now + 3 * DAY)
    for number in range(calls):
        account, call = 1 + number % 3 % 2, ledger.next_id()
        claim = Claim(bytes([number]) * 32, b"b" * 32) if number % 7 == 0 else None
        memo = members(number)
        assert isinstance(await ledger.hold(PlaceHold(account, call, 40, memo, claim=claim)), Held)
        clock.now += HOUR
        if number % 5 == 4:
            await ledger.void(account, call, members(number))
        else:
            answer = b"kept" if claim is not None else None
            await ledger.end(Settle(account, call, 20 + number, members(number, 20 + number), answer=answer))
        if number % 6 == 0:
            await ledger.refund(account, call, 7, "sorry", bonus_bucket="bonus")
        if number % 10 == 0:
            await ledger.adjust(account, -3, "bonus", "wrong")
        if account == 1:
            made.append(call)
    return made


def members(number: int, amount: int = 0) -> bytes:
    body = receipt_memo(amount)
    said = f'{{"thread": "t{number % 3}", "model": "m{number % 2}", "key": null, '
    return said.encode() + body.removeprefix(b"{")


async def everything(ledger: Ledger, calls: list[int]) -> dict[str, Any]:
    """All that can be read of the past."""
    found: dict[str, Any] = {}
    for account in (1, 2):
        for size in (1, 7, 1000):
            found[f"statement of {account} by {size}"] = [entry async for entry in statement(ledger, account, size)]
    for name, which in {
        "all": Which(),
        "one": Which(1),
        "thread": Which(1, {"thread": "t1"}),
        "model": Which(members={"model": "m0"}),
        "time": Which(since=NOON + 10 * HOUR, until=NOON + 30 * HOUR),
    }.items():
        found[f"usage, {name}"] = [call async for call in usage(ledger, which, 7)]
        assert found[f"usage, {name}"] == await ledger.usage(which, 1000)
        found[f"export, {name}"] = [call async for page in ledger.usage_pages(which, 7) for call in page]
        for by in (*MEMBERS, "day"):
            found[f"summary, {name}, {by}"] = await ledger.summary(which, by, timezone="Asia/Tokyo")
    found["receipts"] = [await ledger.receipt(1, call) for call in calls]
    found["refunds"] = [await ledger.refunds_of(1, call) for call in calls]
    found["balances"] = [await ledger.balance(account) for account in (1, 2)]
    return found


async def statement(ledger: Ledger, account: int, size: int) -> Any:
    after = None
    while page := await ledger.statement(account, size, after):
        for entry in page:
            yield entry
        after = page[-1].entry_id


async def usage(ledger: Ledger, which: Which, size: int) -> Any:
    after: tuple[int, int] | None = None
    while page := await ledger.usage(which, size, after):
        for call in page:
            yield call
        after = (page[-1].hold_id, page[-1].account_id)


async def test_what_is_sealed_and_packed_is_read_as_before(url: str) -> None:
    """Statements, usage, exports, summaries, receipts and balances are the same, page by page, before and after."""
    clock = Clock(NOON)
    with in_short_ranges(4):
        async with running(url, clock) as ledger:
            calls = await lived(ledger, clock)
            await ledger.hold(held(1, ledger.next_id(), 10))
            before, totals = await everything(ledger, calls), audit(url).totals
            assert await ledger.seal() > 10
            assert await ledger.seal() == 0
            assert await everything(ledger, calls) == before
            middle = time_of(calls[len(calls) // 2])
            for until in (middle, clock.now + DAY):
                assert await ledger.pack(until) > 5
                assert await everything(ledger, calls) == before
                found = audit(url, most_rows=None)
                assert (found.findings, found.totals) == ([], totals)
                assert found.sealed.read == found.sealed.rows > 60


async def test_packed_calls_are_refunded_and_ended_as_others(url: str) -> None:
    """A refund goes to the grants that paid; the end of a packed call is answered as it was; its id is not free."""
    clock = Clock(NOON)
    with in_short_ranges(4):
        async with running(url, clock) as ledger:
            calls = await lived(ledger, clock)
            ended = await ledger.settle(1, calls[0], 1, receipt_memo(1))
            await ledger.seal()
            await ledger.pack(clock.now + DAY)
            again = await ledger.settle(1, calls[0], 1, receipt_memo(1))
            assert (again.charged, again.paid_from, again.memo) == (ended.charged, ended.paid_from, ended.memo)
            made = await ledger.refund(1, calls[2], 5, "late", bonus_bucket="bonus")
            assert isinstance(made, Refunded) and made.amount == 5
            with pytest.raises(Conflict):
                await ledger.hold(held(1, calls[0], 1))
            assert (await ledger.usage(Which(1), 1000))[-1].hold_id == calls[0]
            assert audit(url, most_rows=None).findings == []
            assert audit(url, most_rows=0).findings == []
            clock.now += HOUR
            await ledger.seal()
            assert audit(url, most_rows=None).findings == []


async def test_nothing_is_sealed_before_a_hold_that_is_open(url: str) -> None:
    """What a running call may still change stays open; when it has ended, all is sealed."""
    clock = Clock(NOON)
    with in_short_ranges(2):
        async with running(url, clock) as ledger:
            await ledger.open_account(1)
            await ledger.issue(1, "paid", 1000)
            running_call = ledger.next_id()
            await ledger.hold(held(1, running_call, 10))
            for _ in range(9):
                call = ledger.next_id()
                clock.now += 1
                await ledger.hold(held(1, call, 10))
                await ledger.settle(1, call, 10, receipt_memo(10))
            clock.now += HOUR
            await ledger.seal()
            assert audit(url).sealed.rows <= 1
            await ledger.settle(1, running_call, 25, receipt_memo(25))
            clock.now += HOUR
            await ledger.seal()
            assert audit(url, most_rows=None).sealed.rows > 15
            assert audit(url, most_rows=None).clean


async def test_a_call_that_is_settled_late_is_sealed_then(url: str) -> None:
    """An orphan's receipt is in no seal; settled after all, its charge is in the next, and nothing was altered."""
    clock = Clock(NOON)
    with in_short_ranges(2):
        async with running(url, clock) as ledger:
            await ledger.open_account(1)
            await ledger.issue(1, "paid", 1000)
            lost = [ledger.next_id() for _ in range(3)]
            for call in lost:
                await ledger.hold(held(1, call, 10))
                await ledger.end(Void(1, call, receipt_memo(0), orphaned=True))
            for _ in range(9):
                call = ledger.next_id()
                clock.now += 1
                await ledger.hold(held(1, call, 10))
                await ledger.settle(1, call, 10, receipt_memo(10))
            clock.now += HOUR
            assert await ledger.seal() > 1
            late = await ledger.settle(1, lost[0], 30, receipt_memo(30))
            free = await ledger.settle(1, lost[1], 0, receipt_memo(0))
            assert (late.late, late.charged, free.late, free.charged) == (True, 30, True, 0)
            for most in (None, 0):
                assert audit(url, most_rows=most).findings == []
            clock.now += HOUR
            for _ in range(3):
                call = ledger.next_id()
                clock.now += 1
                await ledger.hold(held(1, call, 10))
                await ledger.settle(1, call, 10, receipt_memo(10))
            clock.now += HOUR
            await ledger.seal()
            await ledger.pack(clock.now + DAY)
            for most in (None, 0):
                assert audit(url, most_rows=most).findings == []
            listed = {call.hold_id: call.status for call in await ledger.usage(Which(1), 1000)}
            assert [listed[call] for call in lost] == ["settled", "settled", "orphaned"]
            assert len(listed) == 15


async def test_a_seal_is_not_written_over_what_came_in_between(url: str) -> None:
    """A range that is not what was read any more, or that another process has sealed, is left to the next round."""
    clock = Clock(NOON)
    with in_short_ranges(4):
        async with running(url, clock) as ledger:
            calls = await lived(ledger, clock, 20)
            store = ledger._stores[0]
            command = next_seal(store.backend, 1, clock.now + HOUR)
            assert command is not None
            late = PlaceHold(1, calls[0] + 1, 1, receipt_memo(0))
            assert isinstance(await ledger.hold(late), Held)
            assert await ledger._commit.submit(command) == Closed(False)
            await ledger.void(1, calls[0] + 1, receipt_memo(0))
            assert await ledger._commit.submit(command) == Closed(False)
            command = next_seal(store.backend, 1, clock.now + HOUR)
            assert command is not None
            assert await ledger._commit.submit(command) == Closed(True)
            assert await ledger._commit.submit(command) == Closed(False)
            assert audit(url).clean


async def test_a_memo_that_was_altered_is_named(path: str) -> None:
    """Of a receipt not only its sums are sealed."""
    clock = Clock(NOON)
    with in_short_ranges(4):
        async with running(path, clock) as ledger:
            calls = await lived(ledger, clock)
            await ledger.seal()
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("DROP TRIGGER ledger_receipt_no_update")
        connection.execute(
            "UPDATE ledger_receipt SET memo = CAST(replace(CAST(memo AS TEXT), 't0', 't9') AS BLOB) WHERE hold_id = ?",
            (calls[0],),
        )
    assert named(audit(path)) == [(1, "ledger_receipt", calls[0], "was altered")]


_FORGED = """INSERT INTO ledger_receipt
    (account_id, hold_id, status, charged, debt, paid_from, memo, created_at, ended_at, late)
    SELECT account_id, hold_id + 1, 'settled', 777, 0, '[[1,"paid",777]]',
        CAST('{"lines": [{"amount": 777}]}' AS BLOB), created_at, ended_at, 0
    FROM ledger_receipt WHERE account_id = 1 ORDER BY hold_id LIMIT 1"""


@pytest.mark.parametrize(
    "damage",
    [
        _FORGED,
        "UPDATE ledger_receipt SET status = 'settled', late = 1, charged = 9, paid_from = '[[1,\"paid\",9]]',"
        """ memo = CAST('{"lines": [{"amount": 9}]}' AS BLOB) WHERE status = 'orphaned'""",
        "UPDATE ledger_receipt SET charged = 9 WHERE status = 'orphaned'",
        "INSERT INTO ledger_transfer (account_id, transfer_id, kind, source, target, amount, at)"
        " VALUES (1, 5, 'grant', -1, 77, 5, 5)",
        "UPDATE ledger_seal SET packed = x'00' WHERE packed IS NOT NULL AND account_id = 1",
        "UPDATE ledger_seal SET packed = substr(packed, 1, 40) WHERE packed IS NOT NULL AND account_id = 1",
        "UPDATE ledger_refund SET amount = amount + 500, debt_reduced = debt_reduced + 500"
        " WHERE account_id = 1 AND refund_id = (SELECT MIN(refund_id) FROM ledger_refund WHERE account_id = 1)",
    ],
)
@pytest.mark.parametrize("packs", [False, True], ids=["sealed", "packed"])
async def test_what_is_slipped_into_sealed_time_is_found(path: str, damage: str, packs: bool) -> None:
    """Receipts and transfers that were never made, orphans that are said to have been charged, packed rows spoilt."""
    clock = Clock(NOON)
    if "packed" in damage and not packs:
        return
    with in_short_ranges(4):
        async with running(path, clock) as ledger:
            await ledger.open_account(1)
            await ledger.issue(1, "paid", 5000)
            lost = ledger.next_id()
            await ledger.hold(held(1, lost, 10))
            await ledger.end(Void(1, lost, receipt_memo(0), orphaned=True))
            await lived(ledger, clock)
            await ledger.seal()
            if packs:
                await ledger.pack(clock.now + DAY)
            assert audit(path, most_rows=None).clean
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for (trigger,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'trigger'").fetchall():
            connection.execute(f"DROP TRIGGER {trigger}")
        written = connection.execute(damage).rowcount
    assert audit(path, most_rows=None).clean == (written == 0)
    assert written or (packs and damage == _FORGED)


async def test_packed_rows_that_are_spoilt_are_an_outage_for_who_reads_them(path: str) -> None:
    """Whoever looks at them is told that the ledger is unavailable; calls go on."""
    clock = Clock(NOON)
    with in_short_ranges(4):
        async with running(path, clock) as ledger:
            calls = await lived(ledger, clock)
            await ledger.seal()
            await ledger.pack(clock.now + DAY)
            with closing(sqlite3.connect(path, isolation_level=None)) as connection:
                connection.execute("DROP TRIGGER ledger_seal_no_update")
                connection.execute("UPDATE ledger_seal SET packed = x'00' WHERE packed IS NOT NULL")
            for reading in (ledger.statement(1, 1000), ledger.usage(Which(), 1000), ledger.receipt(1, calls[0])):
                with pytest.raises(LedgerUnavailable, match="what was packed can't be read"):
                    await reading
            with pytest.raises(LedgerUnavailable, match="what was packed can't be read"):
                await ledger.refund(1, calls[0], 1, "sorry", bonus_bucket="bonus")
            assert isinstance(await ledger.hold(held(1, ledger.next_id(), 1)), Held)


async def test_a_test_clocks_account_is_never_sealed(url: str) -> None:
    """Its time may stand still, and adjustments and refunds are found by their moment."""
    clock = Clock(NOON)
    with in_short_ranges(2):
        async with running(url, clock) as ledger:
            shown = await ledger.create_clock(NOON)
            await ledger.open_account(1, clock=shown)
            await ledger.issue(1, "paid", 100)
            for _ in range(9):
                await ledger.adjust(1, -1, "bonus", "wrong")
            clock.now += DAY
            assert await ledger.seal() == 0
            await ledger.adjust(1, -1, "bonus", "wrong")
            assert audit(url, most_rows=None).clean


async def test_corrections_of_one_moment_are_sealed_with_it(url: str) -> None:
    """After a clock was set back an account's time stands still; what happens then is sealed when it goes on."""
    clock = Clock(NOON)
    with in_short_ranges(2):
        async with running(url, clock) as ledger:
            await ledger.open_account(1)
            await ledger.issue(1, "paid", 100, expires_at=NOON + HOUR)
            await ledger.issue(1, "paid", 100)
            clock.now = NOON + HOUR
            await ledger.hold(held(1, ledger.next_id(), 1))
        clock.now = NOON + HOUR // 2
        async with running(url, clock) as ledger:
            for _ in range(6):
                await ledger.adjust(1, -1, "bonus", "wrong")
            await ledger.seal()
            await ledger.adjust(1, -1, "bonus", "wrong")
            assert audit(url, most_rows=None).clean
            clock.now = NOON + DAY
            await ledger.adjust(1, -1, "bonus", "wrong")
            clock.now += DAY
            await ledger.adjust(1, -1, "bonus", "wrong")
            await ledger.seal()
            await ledger.adjust(1, -1, "bonus", "wrong")
            found = audit(url, most_rows=None)
            assert found.clean and found.sealed.rows > 8


async def test_memos_without_lines_and_many_rows_of_one_moment_are_sealed(url: str) -> None:
    """What the audit takes for sound is sealed, whatever memo an orphan has and however much expires at once."""
    clock = Clock(NOON)
    with in_short_ranges(3):
        async with running(url, clock) as ledger:
            await ledger.open_account(1)
            lost = ledger.next_id()
            await ledger.issue(1, "paid", 100)
            await ledger.hold(held(1, lost, 1))
            await ledger.void(1, lost, b"{}")
            for _ in range(60):
                await ledger.issue(1, "daily", 1, expires_at=NOON + HOUR)
            clock.now = NOON + 2 * HOUR
            await ledger.hold(held(1, ledger.next_id(), 1))
            clock.now += DAY
            await ledger.void(1, (await ledger.usage(Which(1), 1))[0].hold_id, receipt_memo(0))
            await ledger.seal()
            found = audit(url, most_rows=None)
            assert found.clean and found.sealed.rows > 100


async def test_what_a_closed_grant_lost_is_known_again_when_it_is_opened(url: str) -> None:
    """A seal leaves grants out of which nothing is left; one that a refund opens has lost what it had lost before."""
    clock = Clock(NOON)
    with in_short_ranges(2):
        async with running(url, clock) as ledger:
            await ledger.open_account(1)
            await ledger.issue(1, "paid", 100)
            await ledger.adjust(1, -30, "bonus", "wrong")
            call = ledger.next_id()
            await ledger.hold(held(1, call, 70))
            await ledger.settle(1, call, 70, receipt_memo(70))
            await ledger.issue(1, "bonus", 1000)
            for _ in range(2):
                for _ in range(6):
                    other = ledger.next_id()
                    clock.now += 1
                    await ledger.hold(held(1, other, 5))
                    await ledger.settle(1, other, 5, receipt_memo(5))
                clock.now += HOUR
                await ledger.seal()
                for most in (None, 0):
                    assert audit(url, most_rows=most).findings == []
                await ledger.refund(1, call, 20, "sorry", bonus_bucket="bonus")
            for most in (None, 0):
                assert audit(url, most_rows=most).findings == []


async def test_what_was_altered_is_never_packed(path: str, caplog: pytest.LogCaptureFixture) -> None:
    """The rows stay where they can be looked at, and the log names the first that is not as it was."""
    clock = Clock(NOON)
    with in_short_ranges(4):
        async with running(path, clock) as ledger:
            calls = await lived(ledger, clock)
            await ledger.seal()
            with closing(sqlite3.connect(path, isolation_level=None)) as connection:
                connection.execute("DROP TRIGGER ledger_receipt_no_update")
                connection.execute("UPDATE ledger_receipt SET charged = charged + 1 WHERE hold_id = ?", (calls[0],))
            await ledger.pack(clock.now + DAY)
            receipt = await ledger.receipt(1, calls[0])
            assert receipt is not None and receipt.charged == 21
    assert f"'table': 'ledger_receipt', 'id': {calls[0]}, 'what': 'was altered'" in caplog.text


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        ("UPDATE ledger_receipt SET charged = charged + 1", "receipt {}: its total is not its lines"),
        ("DELETE FROM ledger_receipt", "charge of {}: it has no receipt"),
    ],
)
async def test_what_is_wrong_is_not_sealed(path: str, damage: str, said: str, caplog: pytest.LogCaptureFixture) -> None:
    """A charge that does not agree with its receipt stays open, where every audit finds it."""
    clock = Clock(NOON)
    with in_short_ranges(4):
        async with running(path, clock) as ledger:
            calls = await lived(ledger, clock)
            with closing(sqlite3.connect(path, isolation_level=None)) as connection:
                for verb in ("update", "delete"):
                    connection.execute(f"DROP TRIGGER ledger_receipt_no_{verb}")
                connection.execute(f"{damage} WHERE hold_id = ?", (calls[0],))
            await ledger.seal()
    assert said.format(calls[0]) in caplog.text
    found = audit(path, most_rows=0)
    assert "a receipt's total is its lines, its transfers, and what paid for it" in {
        f.invariant for f in found.findings
    }


def test_rows_go_only_when_they_are_packed(sealed: Path, tmp_path: Path) -> None:
    """The file refuses to delete what is not packed, and to alter or delete a seal."""
    path = tmp_path / "ledger.db"
    shutil.copy(sealed, path)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for statement in (
            "DELETE FROM ledger_transfer",
            "DELETE FROM ledger_receipt",
            "DELETE FROM ledger_seal",
            "UPDATE ledger_seal SET state = '[]'",
            "UPDATE ledger_seal SET packed = x'00', digest = x'00'",
        ):
            with pytest.raises(sqlite3.IntegrityError, match="append-only"):
                connection.execute(statement)
        connection.execute("UPDATE ledger_seal SET packed = x'00' WHERE account_id = 2 AND number = 1")
        with pytest.raises(sqlite3.IntegrityError, match="append-only"):
            connection.execute("UPDATE ledger_seal SET packed = x'01' WHERE account_id = 2 AND number = 1")
        with pytest.raises(sqlite3.IntegrityError, match="append-only"):
            connection.execute("DELETE FROM ledger_transfer WHERE account_id = 1")


@pytest.mark.parametrize(
    ("now", "sealed_calls"),
    [
        ("2026-11-30 23:59", 0),
        ("2026-12-01 00:05", 0),  # hosts' clocks may differ by that
        ("2026-12-01 00:11", 3),
        ("2026-12-31 23:59", 3),
        ("2027-01-01 00:11", 6),
    ],
)
def test_a_month_is_closed_when_it_is_over(path: str, now: str, sealed_calls: int) -> None:
    """A few rows are sealed when their month has ended by UTC, and no range goes over the end of a month."""
    clock = Clock(microseconds_at("2026-11-30 23:00"))
    store = quick_store(path)
    store._ids._clock = clock
    store.transact([OpenAccount(1), IssueGrant(1, 5, "paid", 100)], RULES, clock.now)
    for minutes in (0, 10, 20, 1440, 1450, 1460):
        clock.now = microseconds_at("2026-11-30 23:00") + minutes * HOUR // 60
        call = first_id(clock.now)
        store.transact([held(1, call, 1), Settle(1, call, 1, receipt_memo(1))], RULES, clock.now)
    while command := next_seal(store.backend, 1, microseconds_at(now)):
        store.transact([command], RULES, clock.now)
    rows = store.backend.rows("SELECT to_id, receipts FROM ledger_seal ORDER BY number")
    store.close()
    assert sum(receipts for _, receipts in rows) == sealed_calls
    assert [month_of(time_of(to_id))[0] for to_id, _ in rows] == [
        microseconds_at(first) for first in ("2026-11-01 00:00", "2026-12-01 00:00")[: len(rows)]
    ]
    assert audit(path).clean
