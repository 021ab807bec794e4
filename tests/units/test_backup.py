"""A backup of a ledger that is being written is whole, clean, and can be started on."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import stat
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from ledger.audit import audit
from ledger.ledger import Ledger
from ledger.outcomes import Held
from proxy import backup as backups
from proxy.backup import BackupFailed, backup
from tests.ledger.books import receipt_memo
from tests.ledger.running import Clock, held, opened, running

_FILLED = 300
_PAGES = 4


async def filled(path: str) -> None:
    """Make a ledger of some 300 calls, one of them still held when its process died."""
    async with running(path, Clock()) as ledger:
        await opened(ledger, 1_000_000)
        await asyncio.gather(*(call(ledger, 1000 + number) for number in range(_FILLED)))
        await ledger.hold(held(1, 999, 50))


async def call(ledger: Ledger, hold_id: int) -> None:
    assert isinstance(await ledger.hold(held(1, hold_id, 20)), Held)
    await ledger.settle(1, hold_id, 7, receipt_memo(7))


def receipts(path: str) -> int:
    with closing(sqlite3.connect(path)) as connection:
        return int(connection.execute("SELECT COUNT(*) FROM ledger_receipt").fetchone()[0])


async def test_beside_a_writer(tmp_path: Path) -> None:
    """While the copy is taken the server goes on committing, and the copy is the ledger at one moment before."""
    path, target = str(tmp_path / "farebox.db"), str(tmp_path / "copy.db")
    await filled(path)
    begun, written = threading.Event(), threading.Event()
    steps: list[int] = []

    def progress(remaining: int, total: int) -> None:
        steps.append(remaining)
        begun.set()
        # The copy stands still in its middle until the server has committed.
        assert written.wait(20)

    async with running(path, Clock()) as ledger:
        copying = asyncio.create_task(asyncio.to_thread(backup, path, target, pages=_PAGES, progress=progress))
        await asyncio.to_thread(begun.wait, 20)
        for number in range(20):
            await call(ledger, 5000 + number)
        written.set()
        number = 6000
        while not copying.done():
            await call(ledger, number)
            number += 1
        await copying
    assert len(steps) > 3
    assert steps == sorted(steps, reverse=True)
    assert steps[-1] == 0
    # The hold that the first life left was released when the second began, and has a receipt too.
    assert receipts(target) == _FILLED + 1
    assert receipts(path) >= _FILLED + 21
    assert audit(target).clean
    assert audit(path).clean


async def test_restore(tmp_path: Path) -> None:
    """Restoring is starting on the copy: balances are those of the copied moment, running calls become orphans."""
    path, target = str(tmp_path / "farebox.db"), str(tmp_path / "copy.db")
    async with running(path, Clock()) as ledger:
        await opened(ledger, 1000)
        await call(ledger, 10)
        await ledger.hold(held(1, 11, 300))
        await asyncio.to_thread(backup, path, target)
        await ledger.settle(1, 11, 300, receipt_memo(300))
    async with running(target, Clock()) as restored:
        balance = await restored.balance(1)
        assert (balance.available, balance.held) == (993, 0)
        recorded = await restored.receipt(1, 11)
        assert recorded is not None
        assert recorded.status == "orphaned"
        await call(restored, 12)
    assert audit(target).clean


def test_of_a_stopped_server(tmp_path: Path) -> None:
    """A ledger that nobody runs is copied too, and nothing but the copy is left behind."""
    path, target = str(tmp_path / "farebox.db"), str(tmp_path / "a copy #1?.db")
    asyncio.run(filled(path))
    before = {entry.name for entry in tmp_path.iterdir()}
    backup(path, target)
    names = {entry.name for entry in tmp_path.iterdir() if not entry.name.endswith(("-shm", "-wal"))}
    assert names == before | {"a copy #1?.db"}
    assert stat.S_IMODE(os.stat(target).st_mode) == 0o600
    assert audit(path).clean


def test_overwrites_nothing(tmp_path: Path) -> None:
    """A target that exists is refused and stays as it was, also one that comes while the copy is taken."""
    path, target = str(tmp_path / "farebox.db"), tmp_path / "copy.db"
    asyncio.run(filled(path))
    target.write_text("precious")
    with pytest.raises(BackupFailed, match=r"copy\.db exists already.*name another file"):
        backup(path, str(target))
    target.unlink()

    def intrude(remaining: int, total: int) -> None:
        target.write_text("precious")

    with pytest.raises(BackupFailed, match="exists already"):
        backup(path, str(target), progress=intrude)
    with pytest.raises(BackupFailed, match="exists already"):
        backup(path, path)
    assert target.read_text() == "precious"
    assert not list(tmp_path.glob("*.part"))


def _nothing(path: Path) -> None:
    pass


def _empty(path: Path) -> None:
    path.touch()


def _text(path: Path) -> None:
    path.write_text("this is no database" * 100)


@pytest.mark.parametrize(
    ("make", "said"), [(_nothing, "there is no ledger"), (_empty, "holds no ledger"), (_text, "not a database")]
)
def test_no_ledger(tmp_path: Path, make: Callable[[Path], None], said: str) -> None:
    """What is no ledger is not backed up as if it were one."""
    make(tmp_path / "farebox.db")
    with pytest.raises(BackupFailed, match=said):
        backup(str(tmp_path / "farebox.db"), str(tmp_path / "copy.db"))
    assert not (tmp_path / "copy.db").exists()
    assert not list(tmp_path.glob("*.part"))


def test_target_folder(tmp_path: Path) -> None:
    """A target in a folder that is not there is refused by name."""
    path = str(tmp_path / "farebox.db")
    asyncio.run(filled(path))
    with pytest.raises(BackupFailed, match=r"cannot write beside .*copy\.db"):
        backup(path, str(tmp_path / "nowhere" / "copy.db"))


def test_damaged_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy that does not read back whole is removed."""
    path = str(tmp_path / "farebox.db")
    asyncio.run(filled(path))
    copy = backups._copy

    def damaging(source: Path, part: Path, pages: int, progress: Callable[[int, int], None] | None) -> None:
        copy(source, part, pages, progress)
        with part.open("r+b") as file:
            file.seek(3 * 4096)
            file.write(b"\xff" * 4096)

    monkeypatch.setattr(backups, "_copy", damaging)
    with pytest.raises(BackupFailed, match=r"damaged|malformed"):
        backup(path, str(tmp_path / "copy.db"))
    assert not (tmp_path / "copy.db").exists()


def test_without_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the file system has no links the copy is renamed into place."""
    path, target = str(tmp_path / "farebox.db"), str(tmp_path / "copy.db")
    asyncio.run(filled(path))

    def no_link(*_: object) -> None:
        raise PermissionError("no links here")

    monkeypatch.setattr(os, "link", no_link)
    backup(path, target)
    assert audit(target).clean
    assert not list(tmp_path.glob("*.part"))
