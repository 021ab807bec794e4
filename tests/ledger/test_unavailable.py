"""A store that can not commit: every caller is told, nothing is half written, and work goes on once it can."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from ledger.audit import audit
from ledger.commands import Command, IssueGrant, OpenAccount, PlaceHold, Settle
from ledger.commit import GroupCommit
from ledger.errors import LedgerUnavailable
from ledger.outcomes import Ended, Outcome
from ledger.sqlite import Sqlite
from ledger.store import Store
from tests.ledger.books import assert_lawful, read_page, receipt_memo
from tests.ledger.running import (
    RULES,
    Clock,
    Gate,
    all_of,
    held,
    in_one_batch,
    opened,
    page_of,
    running,
    settled,
    submit,
)


async def test_a_command_that_can_not_be_written_fails_alone(path: str) -> None:
    """When the database refuses one command's rows, that one is unavailable and the rest of its batch is committed."""
    gate = Gate()
    async with running(path, Clock(), gate=gate) as ledger:
        await opened(ledger, 1000)
        with closing(sqlite3.connect(path)) as connection:
            connection.execute(
                "CREATE TRIGGER fault BEFORE INSERT ON ledger_transfer WHEN NEW.amount = 13"
                " BEGIN SELECT abs(-9223372036854775807 - 1); END"
            )
        for hold_id in (11, 12, 13):
            await ledger.hold(held(1, hold_id, 20))
        ends = [settled(1, 11, 12), settled(1, 12, 13), settled(1, 13, 14)]
        outcomes = await in_one_batch(ledger, gate, held(1, 10, 0), ends)
        page = page_of(path, 1)
        assert [type(outcome) for outcome in outcomes] == [Ended, LedgerUnavailable, Ended]
        assert set(page.holds) == {10, 12}
        assert {hold_id: ended.charged for hold_id, ended in page.receipts.items()} == {11: 12, 13: 14}
        assert_lawful(page)
        assert (await ledger.settle(1, 12, 15, receipt_memo(15))).charged == 15


async def test_a_store_that_can_not_commit_is_unavailable(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """When nothing can be committed every caller is told so, nothing is written, and work goes on once it can."""
    gate = Gate()
    async with running(path, Clock(), gate=gate) as ledger:
        await opened(ledger, 100)
        await ledger.hold(held(1, 11, 20))
        before = page_of(path, 1)

        def fail(*_: object) -> None:
            raise sqlite3.OperationalError("database or disk is full")

        with monkeypatch.context() as patch:
            patch.setattr(Sqlite, "commit", fail)
            outcomes = await all_of([submit(ledger, held(1, 12, 20)), submit(ledger, settled(1, 11, 5))])
            with pytest.raises(LedgerUnavailable, match="disk is full"):
                await ledger.issue(1, "paid", 5)
        assert [type(outcome) for outcome in outcomes] == [LedgerUnavailable] * 2
        assert page_of(path, 1) == before
        assert (await ledger.settle(1, 11, 5, receipt_memo(5))).charged == 5


async def test_a_full_disk_writes_nothing_and_heals(tmp_path: Path) -> None:
    """On a file that can't grow every command is unavailable and none is half written; with room again all is well."""
    path = str(tmp_path / "ledger.db")
    backend = Sqlite(path)
    backend.create()
    store = Store(backend)
    commit = GroupCommit(store, lambda: RULES, Clock())
    await commit.submit(OpenAccount(1))
    await commit.submit(IssueGrant(1, 5, "paid", 1000))
    await commit.submit(held(1, 11, 20))
    with closing(sqlite3.connect(path)) as connection:
        before = read_page(connection, 1)
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
    # The limit is a connection's own, so it has to be set on the store's.
    limit = backend._connection
    limit.execute(f"PRAGMA max_page_count = {pages}").fetchall()
    long = b'{"lines": [{"amount": 5}], "long": "' + b"x" * 20_000 + b'"}'
    outcomes = await all_of(
        [
            *(commit.submit(PlaceHold(1, hold_id, 1, long)) for hold_id in range(12, 20)),
            commit.submit(Settle(1, 11, 5, long)),
        ]
    )
    assert [type(outcome) for outcome in outcomes] == [LedgerUnavailable] * 9
    assert page_of(path, 1) == before
    limit.execute("PRAGMA max_page_count = 1000000").fetchall()
    ended = await commit.submit(settled(1, 11, 5))
    assert isinstance(ended, Ended)
    await commit.close()
    store.close()
    page = page_of(path, 1)
    assert_lawful(page)
    assert (page.held, page.moved(request=11)) == (0, 5)
    assert audit(path).clean


async def test_a_locked_file_is_waited_for_once_a_batch(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everybody whose command waited is told together, not one after another, and work goes on once it is free."""
    gate, batches = Gate(), list[int]()
    async with running(path, Clock(), gate=gate) as ledger:
        await opened(ledger, 100)
        ledger._stores[0].backend.rows("PRAGMA busy_timeout = 0")
        transact = Store.transact

        def counted(store: Store, commands: Sequence[Command], *more: Any) -> list[Outcome]:
            batches.append(len(commands))
            return transact(store, commands, *more)

        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            monkeypatch.setattr(Store, "transact", counted)
            gate.shut()
            first = submit(ledger, held(1, 10, 1))
            await gate.reached()
            others = [submit(ledger, held(1, hold_id, 1)) for hold_id in range(11, 19)]
            await asyncio.sleep(0)
            gate.open()
            outcomes = await all_of([first, *others])
        assert [type(outcome) for outcome in outcomes] == [LedgerUnavailable] * 9
        assert batches == [1, 8]
        assert (await ledger.issue(1, "paid", 5)).balance == 5
