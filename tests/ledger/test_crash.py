"""A process that dies by SIGKILL in the middle of its work."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import ledger
import tests
from ledger.audit import audit
from ledger.ids import microseconds
from tests.ledger.books import assert_lawful, receipt_memo
from tests.ledger.running import page_of, running

ROOTS = [str(Path(str(package.__file__)).parents[1]) for package in (ledger, tests)]


def work_until_killed(path: str, settlements: int) -> list[list[str]]:
    """Run the load in a process of its own, kill it after so many acknowledged settlements; returns what it said."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(ROOTS)}
    said: list[list[str]] = []
    command = [sys.executable, "-m", "tests.ledger.crash_load", path]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            said.append(line.split())
            settlements -= said[-1][0] == "settle"
            if settlements == 0:
                process.kill()
    assert process.returncode == -signal.SIGKILL
    return said


@pytest.mark.parametrize("settlements", [1, 30, 300])
async def test_a_killed_process_loses_nothing_it_acknowledged(tmp_path: Path, settlements: int) -> None:
    """After a kill every acknowledged charge is there, none twice, and the next process releases what was held."""
    path = str(tmp_path / "ledger.db")
    said = work_until_killed(path, settlements)
    held = {(int(line[1]), int(line[2])) for line in said if line[0] == "hold"}
    charged = {(int(line[1]), int(line[2])): int(line[3]) for line in said if line[0] == "settle"}
    credits = {int(line[1]): int(line[2]) for line in said if line[0] == "account"}
    assert len(charged) >= settlements
    # The file is left to the next process to recover; a copy is looked at.
    shutil.copytree(tmp_path, tmp_path / "copy")
    left_open = {
        (account, hold) for account in credits for hold in page_of(f"{tmp_path}/copy/ledger.db", account).holds
    }
    assert not left_open & charged.keys()

    async with running(path, microseconds, owner="the next process") as reopened:
        for account, granted in credits.items():
            page = page_of(path, account)
            assert_lawful(page)
            assert page.held == 0
            assert not page.holds
            assert sum(lot.balance for lot in page.lots.values()) == granted - sum(
                ended.charged for ended in page.receipts.values()
            )
            for hold_id in {hold for of, hold in held if of == account}:
                ended = page.receipts[hold_id]
                if (account, hold_id) in charged:
                    assert (ended.status, ended.charged) == ("settled", charged[account, hold_id])
                else:
                    assert (ended.status == "orphaned") is ((account, hold_id) in left_open)
        # An answer that a caller never got may be asked for again: nobody is charged twice.
        (account, hold_id), amount = next(iter(charged.items()))
        again = await reopened.settle(account, hold_id, amount, receipt_memo(amount))
        assert again.charged == amount == page_of(path, account).moved(request=hold_id)
    found = audit(path)
    assert found.clean
    assert {(orphan["account_id"], orphan["hold_id"]) for orphan in found.orphans} == left_open
