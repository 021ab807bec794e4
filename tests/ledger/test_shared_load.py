"""Four processes on one ledger in PostgreSQL, few accounts or many, one of them killed amid its work."""

from __future__ import annotations

import asyncio
import os
import sys
from asyncio.subprocess import PIPE, Process
from dataclasses import dataclass, field
from signal import SIGKILL

import psycopg
import pytest

from ledger.audit import audit
from ledger.ids import microseconds
from tests.ledger.running import empty, running
from tests.ledger.shared_load import CALLERS
from tests.ledger.test_crash import ROOTS

_SOAKING = os.environ.get("FAREBOX_SOAK") == "1"
# Of each caller.
_CALLS = 250 if _SOAKING else 10
_Call = tuple[int, int]


@dataclass
class Said:
    """What a process said: calls with their charges."""

    settled: dict[_Call, int] = field(default_factory=dict)
    left: dict[_Call, int] = field(default_factory=dict)
    refused: int = 0


async def _start(url: str, seed: int, accounts: int) -> Process:
    command = (sys.executable, "-m", "tests.ledger.shared_load", url, str(seed), str(accounts), str(_CALLS))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(ROOTS)}
    return await asyncio.create_subprocess_exec(*command, stdout=PIPE, env=environment)


async def _listen(process: Process, kill_after: int | None = None) -> Said:
    said = Said()
    assert process.stdout is not None
    async for line in process.stdout:
        what, *values = line.decode().split()
        if what == "refused":
            said.refused += 1
            continue
        account, hold_id, amount = map(int, values)
        getattr(said, what)[account, hold_id] = amount
        if len(said.settled) == kill_after:
            process.kill()
    assert await process.wait() == (0 if kill_after is None else -SIGKILL)
    return said


@pytest.mark.parametrize("accounts", [1, 100, 10_000] if _SOAKING else [1, 100])
async def test_four_processes_stay_exact_although_one_is_killed(postgres_url: str, accounts: int) -> None:
    """Every acknowledged charge is in the books and no other, no account is overspent, nothing stays held."""
    url = postgres_url
    empty(url)
    # A fifth less than they would spend, so that some are refused.
    credits = max(30, 4 * CALLERS * _CALLS * 4 // accounts)
    async with running(url, microseconds) as ledger:
        opened = (ledger.open_account(account, welcome=("paid", credits)) for account in range(1, accounts + 1))
        await asyncio.gather(*opened)
    processes = [await _start(url, seed, accounts) for seed in range(4)]
    killed, *others = [
        asyncio.create_task(_listen(process, None if number else 10)) for number, process in enumerate(processes)
    ]
    died = await killed
    heard = [*await asyncio.gather(_listen(await _start(url, 4, accounts)), *others)]
    # What died too late for anybody to see is released by whoever comes next.
    async with running(url, microseconds):
        pass
    with psycopg.connect(url) as server:
        rows = server.execute("SELECT account_id, hold_id, status, charged FROM ledger_receipt").fetchall()
        assert server.execute("SELECT * FROM ledger_hold").fetchall() == []
        assert server.execute("SELECT * FROM ledger_account WHERE debt > 0 OR overdraft_held > 0").fetchall() == []
    receipts = {(account, hold_id): (status, charged) for account, hold_id, status, charged in rows}
    for said in heard:
        for call, amount in (said.settled | said.left).items():
            assert receipts.pop(call) == ("settled", amount)
    for call, amount in died.settled.items():
        assert receipts.pop(call) == ("settled", amount)
    # Nobody was told of the rest: calls that were left while they were held, and those of the process that died.
    assert {status for status, _ in receipts.values()} <= {"voided", "orphaned", "settled"}
    late = {call: charged for call, (status, charged) in receipts.items() if status == "settled"}
    assert len(late) <= CALLERS + len(died.left)
    assert all(late[call] == amount for call, amount in died.left.items() if call in late)
    assert accounts > 100 or sum(said.refused for said in heard) > 0
    assert audit(url).clean
