"""A ledger in PostgreSQL that several processes write to at once."""

from __future__ import annotations

import asyncio
import os
import random
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from shutil import which
from signal import SIGCONT, SIGSTOP

import psycopg
import pytest

from ledger import postgres
from ledger.audit import audit
from ledger.commands import Settle, Void
from ledger.errors import LedgerUnavailable
from ledger.leases import LeaseOwnership
from ledger.ledger import Ledger
from ledger.model import Claim
from ledger.outcomes import Ended, Held, Outcome, Refused
from ledger.rules import Allowance, Plan, Rules
from ledger.store import Store
from tests.ledger.books import receipt_memo
from tests.ledger.running import NOON, RULES, Clock, empty, held, settled
from tests.ledger.test_crash import ROOTS

_OPEN = Callable[..., Ledger]


@pytest.fixture(
    params=[
        "postgres_url",
        "pooled_url",
        pytest.param("bouncer_url", marks=pytest.mark.skipif(not which("pgbouncer"), reason="there is no pgbouncer")),
    ]
)
def url(request: pytest.FixtureRequest) -> str:
    """A database with nothing in it yet, and what may stand before it."""
    where = str(request.getfixturevalue(request.param))
    empty(where)
    return where


@asynccontextmanager
async def sharing(url: str, count: int = 2, rules: Rules = RULES) -> AsyncIterator[list[Ledger]]:
    """So many processes' ledgers on one database."""
    async with AsyncExitStack() as stack:
        ledgers = []
        for number in range(count):
            ledger = await Ledger.open(url, lambda: rules, owner=f"process {number}", clock=Clock())
            stack.push_async_callback(ledger.close)
            ledgers.append(ledger)
        yield ledgers


def leases(url: str) -> int:
    with psycopg.connect(url) as connection:
        row = connection.execute("SELECT COUNT(*) FROM ledger_lease").fetchone()
    assert row is not None
    return int(row[0])


async def test_together_they_never_spend_more_than_there_is(url: str) -> None:
    """200 holds of 10 at once from four processes, of 500: fifty are placed, and all of them settle exactly."""
    async with sharing(url, 4) as ledgers:
        await ledgers[0].open_account(1)
        await ledgers[0].issue(1, "paid", 500, paid=True)
        outcomes = await asyncio.gather(*(ledgers[n % 4].hold(held(1, n + 1, 10)) for n in range(200)))
        placed = [outcome.hold.hold_id for outcome in outcomes if isinstance(outcome, Held)]
        assert len(placed) == 50
        # Whoever placed it, anybody ends it; and it ends once.
        ends = await asyncio.gather(
            *(ledgers[(n + k) % 4].end(settled(1, n, 7)) for n in placed for k in range(2)), return_exceptions=True
        )
        assert all(isinstance(end, Ended) and end.charged == 7 for end in ends)
        balance = await ledgers[3].balance(1)
        assert (balance.available, balance.held, balance.debt) == (150, 0, 0)


async def test_many_accounts_and_random_lives_stay_exact(url: str) -> None:
    """Three processes, eight accounts, holds that are settled, voided and ended twice: no deadlock reaches anybody."""
    choose = random.Random(7)
    charged = dict.fromkeys(range(1, 9), 0)
    async with sharing(url, 3) as ledgers:
        for account in charged:
            await ledgers[0].open_account(account)
            await ledgers[0].issue(account, "paid", 10_000, paid=True)

        async def live(number: int) -> None:
            account = number % 8 + 1
            ledger, other = choose.choice(ledgers), choose.choice(ledgers)
            outcome = await ledger.hold(held(account, number + 100, 10))
            assert isinstance(outcome, Held)
            amount = choose.choice((0, 5, 10, 15))
            ended = await ledger.end(settled(account, number + 100, amount))
            again = await other.end(settled(account, number + 100, 9))
            assert isinstance(ended, Ended) and isinstance(again, Ended)
            assert ended.charged == again.charged == amount
            charged[account] += amount

        await asyncio.gather(*(live(number) for number in range(400)))
        for account, total in charged.items():
            assert (await ledgers[1].balance(account)).available == 10_000 - total


async def test_a_key_is_claimed_once_among_them(url: str) -> None:
    """Of forty calls under one idempotency key, from four processes, one is held."""
    key = Claim(b"k" * 32, b"b" * 32)
    async with sharing(url, 4) as ledgers:
        await ledgers[0].open_account(1)
        await ledgers[0].issue(1, "paid", 500, paid=True)
        outcomes = await asyncio.gather(
            *(ledgers[n % 4].hold(replace(held(1, n + 1, 10), claim=key)) for n in range(40))
        )
        (placed,) = [outcome for outcome in outcomes if isinstance(outcome, Held)]
        assert {outcome.reason for outcome in outcomes if isinstance(outcome, Refused)} == {"claimed"}
        await ledgers[1].end(Settle(1, placed.hold.hold_id, 3, receipt_memo(3), answer=b"said"))
        found = [await ledger.answered(1, key.key) for ledger in ledgers]
        assert all(one is not None and one[1] == b"said" for one in found)


async def test_the_first_calls_of_a_day_get_one_allowance(url: str) -> None:
    """Whichever process renews the account."""
    rules = replace(RULES, plans={"free": Plan("free", (Allowance("daily", 50, "day"),))})
    async with sharing(url, 4, rules) as ledgers:
        await ledgers[0].open_account(1, plan="free")
        for ledger in ledgers:
            clock = ledger._commit._lanes[0]._clock
            assert isinstance(clock, Clock)
            clock.now = NOON + 24 * 3_600_000_000
        outcomes = await asyncio.gather(*(ledgers[n % 4].hold(held(1, n + 1, 1)) for n in range(100)))
        assert sum(isinstance(outcome, Held) for outcome in outcomes) == 50
        grants = await ledgers[0].grants(1, 10, None)
        assert [grant.granted for grant, _, _ in grants] == [50, 50]


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        # What it waits for happens on other threads and in the database.
        while not condition():  # noqa: ASYNC110  # see above
            await asyncio.sleep(0.02)


@pytest.mark.usefixtures("hasty")
async def test_what_a_dead_process_held_is_released_while_others_run(url: str) -> None:
    """In full, by whoever sees it first, and once; what living processes hold is not touched."""
    async with sharing(url, 2) as (living, other), sharing(url, 1) as (dying,):
        await living.open_account(1)
        await living.issue(1, "paid", 100, paid=True)
        await dying.hold(held(1, 1, 30))
        await living.hold(held(1, 2, 20))
        # As if killed: it renews nothing any more, and ends nothing.
        for task in dying.minder._tasks:
            task.cancel()
        assert leases(url) == 3
        async with asyncio.timeout(10):
            while (await other.balance(1)).held != 20:  # noqa: ASYNC110  # the database can't tell
                await asyncio.sleep(0.05)
        recorded = await living.receipt(1, 1)
        assert recorded is not None and recorded.status == "orphaned"
        await _until(lambda: leases(url) == 2)
        # It was not dead after all: its settlement comes late, and is posted once.
        late = [await ledger.settle(1, 1, 25, receipt_memo(25)) for ledger in (dying, living)]
        assert [(end.charged, end.late) for end in late] == [(25, True)] * 2
        balance = await living.balance(1)
        assert (balance.available, balance.held) == (55, 20)


async def test_what_is_held_under_no_lease_is_released_at_a_start(url: str) -> None:
    """As in a ledger that was moved here from a file, or where a commit came after its process was buried."""
    async with sharing(url, 1) as (living,):
        await living.open_account(1)
        await living.issue(1, "paid", 100, paid=True)
        for number in (1, 2, 3):
            await living.hold(held(1, number, 10 * number))
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("UPDATE ledger_hold SET lease = NULL WHERE hold_id = 1")
            connection.execute("UPDATE ledger_hold SET lease = 7 WHERE hold_id = 2")
        async with sharing(url, 1) as (starting,):
            assert (await starting.balance(1)).held == 30
            assert [call.hold_id for call in await starting.orphans(5)] == [2, 1]
        assert (await living.settle(1, 3, 30, receipt_memo(30))).late is False


@pytest.mark.usefixtures("hasty")
async def test_a_process_that_can_not_renew_takes_no_new_calls(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its running calls are told to stop before anybody else releases their holds; renewed, it goes on."""
    async with sharing(url, 1) as (ledger,):
        told: list[bool] = []
        ledger.minder.on_lapse = lambda: told.append(True)
        await ledger.open_account(1)
        with monkeypatch.context() as patch:

            def fail(_: object) -> bool:
                raise psycopg.OperationalError("the network is down")

            patch.setattr(LeaseOwnership, "renew", fail)
            await _until(lambda: ledger.minder.lapsed)
            assert told == [True]
            with pytest.raises(LedgerUnavailable, match="lease"):
                await ledger.hold(held(1, 1, 0))
        await _until(lambda: not ledger.minder.lapsed)
        assert isinstance(await ledger.hold(held(1, 1, 0)), Held)
        assert told == [True]


@pytest.mark.usefixtures("hasty")
async def test_a_lease_that_was_taken_over_is_replaced(url: str) -> None:
    """Buried by the others, a process that wakes up takes another lease, and its new holds are under that."""
    async with sharing(url, 1) as (ledger,):
        before = ledger.minder._ownership.lease
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("DELETE FROM ledger_lease")
        await _until(lambda: ledger.minder._ownership.lease != before)
        await ledger.open_account(1)
        await ledger.hold(held(1, 1, 0))
        with psycopg.connect(url) as connection:
            assert connection.execute("SELECT lease FROM ledger_hold").fetchall() == [(ledger.minder._ownership.lease,)]


async def test_a_release_that_races_with_settlements_loses_nothing(url: str) -> None:
    """Whichever of the two comes first, each call is charged once and holds nothing."""
    choose = random.Random(11)
    async with sharing(url, 2) as (settling, sweeping):
        for account in range(1, 5):
            await settling.open_account(account, welcome=("paid", 10_000))
        calls = [(number % 4 + 1, number) for number in range(1, 301)]
        await asyncio.gather(*(settling.hold(held(*call, 10)) for call in calls))
        ends: list[Awaitable[Outcome]] = []
        for call in choose.sample(calls, len(calls)):
            both = (settling.end(settled(*call, 7)), sweeping.end(Void(*call, receipt_memo(0), orphaned=True)))
            ends += both if choose.random() < 0.5 else both[::-1]
            if choose.random() < 0.1:
                await asyncio.sleep(0)
        assert all(isinstance(end, Ended) and end.charged in (0, 7) for end in await asyncio.gather(*ends))
        for call in calls:
            again = await sweeping.settle(*call, 9, receipt_memo(9))
            assert (again.status, again.charged) == ("settled", 7)
        balances = [await sweeping.balance(account) for account in range(1, 5)]
        assert [(balance.available, balance.held) for balance in balances] == [(10_000 - 75 * 7, 0)] * 4
    assert audit(url).clean


@pytest.mark.usefixtures("hasty")
async def test_a_process_paused_for_longer_than_its_lease_settles_late_and_once(url: str) -> None:
    """Its holds were released meanwhile; what it then settles is posted, and it takes another lease."""
    async with sharing(url, 1) as (ledger,):
        await ledger.open_account(1, welcome=("paid", 10_000))
        paused = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.ledger.paused", url, "40"),
            stdin=PIPE,
            stdout=PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(ROOTS)},
        )
        assert paused.stdout is not None
        assert await paused.stdout.readline() == b"held\n"
        paused.send_signal(SIGSTOP)
        assert (await ledger.balance(1)).held == 400
        async with asyncio.timeout(10):
            while (await ledger.balance(1)).held:  # noqa: ASYNC110  # the database can't tell
                await asyncio.sleep(0.05)
        paused.send_signal(SIGCONT)
        said, _ = await paused.communicate(b"go on\n")
        assert said.split(b"\n") == [*[b"late"] * 40, b"again", b""]
        again = [await ledger.settle(1, number, 9, receipt_memo(9)) for number in range(1, 41)]
        assert {(end.charged, end.late) for end in again} == {(7, True)}
        await ledger.void(1, 41, receipt_memo(0))
        assert (await ledger.balance(1)).available == 10_000 - 40 * 7
    assert audit(url).clean


async def test_a_process_that_stops_amid_a_batch_does_not_stop_the_others(url: str) -> None:
    """Paused, or its host gone, it keeps accounts locked for a few seconds; its batch never was."""
    async with sharing(url, 1) as (ledger,):
        await ledger.open_account(1, welcome=("paid", 100))
        stopped = Store(postgres.Postgres(url))
        stopped.backend.begin([1])
        assert stopped.backend.rows("SHOW idle_in_transaction_session_timeout") == [("5s",)]
        stopped.backend.rows("SELECT set_config('idle_in_transaction_session_timeout', '1s', true)")
        async with asyncio.timeout(10):
            assert isinstance(await ledger.hold(held(1, 1, 10)), Held)
        with pytest.raises(psycopg.Error):
            stopped.backend.commit()
        assert stopped.transact([held(1, 2, 10)], RULES, NOON)
        stopped.close()
        assert (await ledger.balance(1)).held == 20


async def test_no_hold_is_placed_under_a_lease_that_may_be_dead(url: str) -> None:
    """A process that was paused so long that others may have released its holds places none, until it has renewed."""
    async with sharing(url, 1) as (ledger,):
        await ledger.open_account(1, welcome=("paid", 100))
        await ledger.hold(held(1, 1, 10))
        ownership = ledger.minder._ownership
        assert isinstance(ownership, LeaseOwnership)
        ownership._renewed -= 60
        with pytest.raises(LedgerUnavailable, match="lost its lease"):
            await ledger.hold(held(1, 2, 10))
        # What was held before is settled all the same.
        assert (await ledger.settle(1, 1, 5, receipt_memo(5))).charged == 5
        assert ownership.renew()
        assert isinstance(await ledger.hold(held(1, 3, 10)), Held)


async def test_nodes_are_told_apart(url: str) -> None:
    """No two processes that live at once make ids alike; a lease given back is free again."""
    async with sharing(url, 5) as ledgers:
        assert len({ledger.next_id() & 0xFFF for ledger in ledgers}) == 5
        assert leases(url) == 5
    assert leases(url) == 0


def test_the_tests_own_pooler_hands_out_connections_by_the_transaction(pooled_url: str) -> None:
    """Each transaction of a client is on another connection, from its beginning to its end."""
    with (
        psycopg.connect(pooled_url, autocommit=True) as client,
        psycopg.connect(pooled_url, autocommit=True) as another,
    ):
        with another.transaction():
            seen = {_backend(another), _backend(another)}
        assert len(seen) == 1
        with another.transaction():
            seen = {_backend(client), _backend(another), _backend(client)}
        assert len(seen) > 1


def _backend(connection: psycopg.Connection) -> int:
    (found,) = connection.execute("SELECT pg_backend_pid()").fetchall()
    return int(found[0])
