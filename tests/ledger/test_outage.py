"""PostgreSQL stopped and started again under a ledger's load."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from ledger.audit import audit
from ledger.errors import LedgerUnavailable, UnknownHold
from ledger.ids import microseconds
from ledger.ledger import Ledger
from ledger.outcomes import Held
from tests.ledger.books import assert_lawful, receipt_memo
from tests.ledger.running import held, page_of, running
from tests.postgres import PostgresServer, own_database, running_postgres

_ACCOUNTS = (1, 2, 3)
_CREDITS = 10**9


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with running_postgres() as running:
        yield running


class Load:
    """Callers who hold and settle for ever, and settle again until they are told that it is done.

    charged: by account and hold. unsure: holds that may have been placed. unavailable: how often that was the answer.
    """

    def __init__(self, ledger: Ledger) -> None:
        self.charged: dict[tuple[int, int], int] = {}
        self.unsure: list[tuple[int, int]] = []
        self.unavailable = 0
        self._ledger = ledger
        self._ending = False
        self._callers = [asyncio.create_task(self._call(random.Random(number))) for number in range(16)]

    async def _call(self, choose: random.Random) -> None:
        while not self._ending:
            account, hold_id = choose.choice(_ACCOUNTS), self._ledger.next_id()
            try:
                assert isinstance(await self._ledger.hold(held(account, hold_id, 10)), Held)
            except LedgerUnavailable as error:
                self.unavailable += 1
                if error.perhaps_done:
                    self.unsure.append((account, hold_id))
                await asyncio.sleep(0.01)
                continue
            amount = choose.randint(0, 10)
            while (account, hold_id) not in self.charged:
                try:
                    await self._ledger.settle(account, hold_id, amount, receipt_memo(amount))
                    self.charged[account, hold_id] = amount
                except LedgerUnavailable:
                    self.unavailable += 1
                    await asyncio.sleep(0.01)

    async def until(self, count: Callable[[], int], more: int) -> None:
        """Wait until that counts so many more."""
        enough = count() + more
        async with asyncio.timeout(20):
            while count() < enough:
                assert not any(caller.done() for caller in self._callers)
                await asyncio.sleep(0.01)

    async def end(self) -> None:
        self._ending = True
        await asyncio.gather(*self._callers)
        for account, hold_id in self.unsure:
            with suppress(UnknownHold):
                await self._ledger.void(account, hold_id, receipt_memo(0))


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("lapses", [False, True], ids=["for a moment", "longer than a lease"])
@pytest.mark.parametrize("mode", ["immediate", "fast"])
async def test_a_ledger_goes_on_after_postgres_was_down(
    server: PostgresServer, tmp_path: Path, mode: str, lapses: bool
) -> None:
    """Whoever asks meanwhile is told so; then all goes on by itself: what was acknowledged is there, nothing else."""
    url = own_database(server.url, str(tmp_path))
    async with running(url, microseconds) as ledger:
        for account in _ACCOUNTS:
            await ledger.open_account(account, welcome=("paid", _CREDITS))
        load = Load(ledger)
        for _ in range(1 if lapses else 3):
            await load.until(lambda: len(load.charged), 100)
            server.stop(mode)
            await load.until(lambda: load.unavailable, 50)
            with pytest.raises(LedgerUnavailable):
                await ledger.balance(1)
            if lapses:
                async with asyncio.timeout(20):
                    while not ledger.minder.lapsed:  # noqa: ASYNC110  # time alone tells
                        await asyncio.sleep(0.02)
            server.start()
        await load.until(lambda: len(load.charged), 100)
        await load.end()
        assert len(load.unsure) < load.unavailable
        for account in _ACCOUNTS:
            page = page_of(url, account)
            assert_lawful(page)
            assert not page.holds
            assert {hold_id: ended.charged for hold_id, ended in page.receipts.items() if ended.charged} == {
                hold_id: amount for (of, hold_id), amount in load.charged.items() if of == account and amount
            }
            assert load.charged.keys() >= {(account, h) for h, ended in page.receipts.items() if ended.charged}
            assert {hold_id for of, hold_id in load.charged if of == account} <= page.receipts.keys()
    assert audit(url).clean
