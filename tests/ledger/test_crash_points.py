"""A process that dies, a commit whose answer is lost, and a power cut, at every point of an account's life."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, suppress
from functools import partialmethod
from itertools import count
from pathlib import Path
from signal import SIGKILL
from tempfile import TemporaryDirectory
from typing import Any

import psycopg
import pytest

from ledger.audit import audit
from ledger.backend import Changes
from ledger.commands import Command, PlaceHold
from ledger.errors import Conflict, LedgerUnavailable
from ledger.ledger import Ledger
from ledger.postgres import Postgres
from ledger.sqlite import Sqlite
from ledger.store import Store
from tests.ledger.books import Page, SqliteLedger, assert_lawful, receipt_memo
from tests.ledger.crash_points import RULES, live, steps
from tests.ledger.running import Clock, all_of, page_of, running
from tests.ledger.test_crash import ROOTS
from tests.proxy.running import until

_OTHERS = (
    "SELECT COUNT(*) FROM pg_stat_activity WHERE datname = current_database() AND backend_type = 'client backend'"
    " AND state <> 'idle' AND pid <> pg_backend_pid()"
)
_STEPS = steps(1)
_SOAKING = os.environ.get("FAREBOX_SOAK") == "1"


def _uninterrupted(*, at_once: bool) -> tuple[list[str], list[Page]]:
    """The name of every point of a life, and the account's page before and after each step."""
    points = list[str]()
    with TemporaryDirectory() as folder, closing(SqliteLedger(f"{folder}/ledger.db")) as book:
        lived = live(book.store, 1, points.append, at_once=at_once)
        return points, [book.page(1), *(book.page(1) for _ in lived)]


_POINTS, _PAGES = _uninterrupted(at_once=False)
_POSTGRES_POINTS, _ = _uninterrupted(at_once=True)


class Dying:
    """A process that has others live an account's life on a ledger, up to some point, each with the next account."""

    def __init__(self, where: str) -> None:
        self.where = where
        self._accounts = count(1)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.ledger.crash_points", where],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(ROOTS)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def at(self, point: str) -> tuple[int, list[str]]:
        """Have one die at a point; returns its account, and the steps that it was told had been done."""
        account = next(self._accounts)
        assert self._process.stdin is not None and self._process.stdout is not None
        print(account, point, file=self._process.stdin, flush=True)
        said = []
        while not (line := self._process.stdout.readline().strip()).startswith("died"):
            assert line, "all of them have died"
            said.append(line)
        assert line == f"died {-SIGKILL}"
        return account, said

    def close(self) -> None:
        self._process.communicate()
        assert self._process.returncode == 0


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A ledger of this module's own; each death has an account of its own there."""
    return str(tmp_path_factory.mktemp("crashes") / "ledger.db")


@pytest.fixture(scope="module")
def dying_on_file(file: str) -> Iterator[Dying]:
    with closing(Dying(file)) as dying:
        yield dying


@pytest.fixture(scope="module")
def dying_on_postgres(empty_postgres_url: str) -> Iterator[Dying]:
    with closing(Dying(empty_postgres_url)) as dying:
        yield dying


# In CI not at all of them, and at fewer on PostgreSQL, which takes longer.
@pytest.mark.parametrize("point", _POINTS[:: 1 if _SOAKING else 3])
async def test_a_death_at_any_point_leaves_whole_steps(dying_on_file: Dying, point: str) -> None:
    """What was acknowledged is there, the rest all or not at all; asked for again it is done once; nothing is held."""
    await _die_and_go_on(dying_on_file, point)


@pytest.mark.parametrize("point", _POSTGRES_POINTS[:: 1 if _SOAKING else 4])
async def test_a_death_at_any_point_leaves_whole_steps_in_postgres(dying_on_postgres: Dying, point: str) -> None:
    """As in a file."""
    await _die_and_go_on(dying_on_postgres, point)


async def _die_and_go_on(dying: Dying, point: str) -> None:
    account, said = dying.at(point)
    assert said == [step.name for step in _STEPS[: len(said)]]
    done = len(said) + point.endswith("commit, after")
    if point.endswith("commit, sent"):
        # It is the server's to carry it out or not; when it has, nobody is amid anything any more.
        with psycopg.connect(dying.where, autocommit=True) as connection:
            assert until(lambda: connection.execute(_OTHERS).fetchone() == (0,), 10)
        done += page_of(dying.where, account) == _PAGES[done + 1]
    assert page_of(dying.where, account) == _PAGES[done]
    mine = steps(account)
    async with running(dying.where, Clock(mine[max(done - 1, 0)].now), rules=RULES) as ledger:
        released = page_of(dying.where, account)
        assert released.held == 0 and not released.holds
        assert _charges(released) == _charges(_PAGES[done])
        for step in mine[: len(said)]:
            await _again(ledger, step.commands)
        assert page_of(dying.where, account) == released
        await _again(ledger, mine[len(said)].commands)
        once = page_of(dying.where, account)
        await _again(ledger, mine[len(said)].commands)
        assert page_of(dying.where, account) == once
        for hold_id in once.holds:
            await ledger.void(account, hold_id, receipt_memo(0))
    assert_lawful(page_of(dying.where, account))
    assert audit(dying.where).clean


async def _again(ledger: Ledger, commands: Iterable[Command]) -> None:
    """Send commands that may have been done before; a second hold under one id is refused, all others have answers."""
    for command in commands:
        with suppress(*[Conflict] if isinstance(command, PlaceHold) else []):
            await ledger._commit.submit(command)


def _charges(page: Page) -> dict[int, int]:
    return {hold_id: ended.charged for hold_id, ended in page.receipts.items() if ended.charged}


@pytest.mark.parametrize("store", ["file", "empty_postgres_url"])
async def test_a_commit_whose_answer_is_lost_is_done_once(
    store: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever asked is told that the ledger is unavailable, asks again, and finds it done."""
    where, account, clock = request.getfixturevalue(store), 10_000, Clock()
    async with running(where, clock, rules=RULES) as ledger:
        for step, page in zip(steps(account), _PAGES[1:], strict=True):
            clock.now = step.now
            with monkeypatch.context() as patch:
                for kind in (Sqlite, Postgres):
                    patch.setattr(kind, "commit", partialmethod(_lose_answer, kind.commit))
                told = await all_of([ledger._commit.submit(command) for command in step.commands])
            assert all(isinstance(one, LedgerUnavailable) and one.perhaps_done for one in told)
            assert page_of(where, account) == page
            await _again(ledger, step.commands)
            assert page_of(where, account) == page
    assert audit(where).clean


def _lose_answer(backend: Sqlite | Postgres, commit: Callable[[Any, Changes], None], changes: Changes = ()) -> None:
    commit(backend, changes)
    if isinstance(backend, Postgres):
        backend.close()
        raise psycopg.OperationalError("server closed the connection unexpectedly")
    error = sqlite3.OperationalError("disk I/O error")
    error.sqlite_errorcode = sqlite3.SQLITE_IOERR
    raise error


@pytest.mark.parametrize("checkpoint", [4000, 1], ids=["long log", "checkpoints"])
def test_a_power_cut_takes_nothing_that_was_acknowledged(tmp_path: Path, checkpoint: int) -> None:
    """The disk always has what was acknowledged by then; a log cut amid its last part gives none of it."""
    (tmp_path / "cut").mkdir()
    path, cut = str(tmp_path / "ledger.db"), str(tmp_path / "cut" / "ledger.db")
    backend = Sqlite(path)
    backend.create()
    backend.rows(f"PRAGMA wal_autocheckpoint = {checkpoint}")
    done, before = 0, b""

    def found(log: bytes) -> Page:
        shutil.copy(path, cut)
        Path(f"{cut}-wal").write_bytes(log)
        Path(f"{cut}-shm").unlink(missing_ok=True)
        assert audit(cut).clean
        return page_of(cut, 1)

    def at(point: str) -> None:
        nonlocal before
        log, committed = b"", point.endswith("commit, after")
        with suppress(FileNotFoundError):
            log = Path(f"{path}-wal").read_bytes()
        assert found(log) == _PAGES[done + committed]
        if not committed:
            before = log
        elif before and log.startswith(before):
            for end in range(len(before), len(log) - 1, 1 + (len(log) - len(before)) // 3):
                assert found(log[:end]) == _PAGES[done]

    for _ in live(Store(backend), 1, at, at_once=False):
        done += 1
    backend.close()
