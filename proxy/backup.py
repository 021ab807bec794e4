"""A consistent copy of a ledger's file, taken beside the server that writes it."""

from __future__ import annotations

import os
import sqlite3
import tempfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

__all__ = ["BackupFailed", "backup"]

_PAGES = 256
_BUSY_SECONDS = 10


class BackupFailed(Exception):
    """No copy was made; the message says why and what to do."""


def backup(path: str, target: str, *, pages: int = _PAGES, progress: Callable[[int, int], None] | None = None) -> None:
    """Copy the ledger at `path` to the new file `target`, as it was at one moment between two commits.

    pages: how many are copied at a time. progress: told after each time how many pages are left, and of how many.
    Raises BackupFailed; the target is then not there. It appears whole: checked, flushed to the disk, and readable
    by its owner only, because names and addresses are in it.
    """
    source, copy = Path(path), Path(target)
    if not source.is_file():
        raise BackupFailed(f"there is no ledger at {path}")
    if copy.exists() or copy.is_symlink():
        raise _taken(target)
    try:
        handle, name = tempfile.mkstemp(prefix=copy.name + ".", suffix=".part", dir=copy.parent)
    except OSError as error:
        raise BackupFailed(f"cannot write beside {target}: {error.strerror or error}") from error
    os.close(handle)
    part = Path(name)
    try:
        _copy(source, part, pages, progress)
        _check(part)
        _flush(part)
        _put(part, copy)
        _flush(copy.parent)
    except sqlite3.Error as error:
        raise BackupFailed(f"{path} can't be copied: {error}") from error
    except OSError as error:
        raise BackupFailed(f"{target} can't be written: {error.strerror or error}") from error
    finally:
        part.unlink(missing_ok=True)


def _taken(target: str) -> BackupFailed:
    return BackupFailed(f"{target} exists already, and a backup overwrites nothing; name another file")


def _copy(source: Path, part: Path, pages: int, progress: Callable[[int, int], None] | None) -> None:
    def tell(_status: int, remaining: int, total: int) -> None:
        if progress is not None:
            progress(remaining, total)

    # Nothing of the part survives a crash anyway, so it needs no journal; it is flushed once, whole.
    reading = sqlite3.connect(f"{source.resolve().as_uri()}?mode=ro", uri=True, isolation_level=None)
    writing = sqlite3.connect(part, isolation_level=None)
    with closing(reading), closing(writing):
        reading.execute(f"PRAGMA busy_timeout = {_BUSY_SECONDS * 1000}")
        # One read transaction round all steps: each sees the same moment. Without it SQLite begins the copy again
        # whenever the server commits, and a busy server's would never end. The write-ahead log lets both go on.
        reading.execute("BEGIN")
        found = reading.execute("SELECT 1 FROM sqlite_schema WHERE name = 'ledger_account'").fetchone()
        if found is None:
            raise BackupFailed(f"{source} holds no ledger; check the path")
        writing.execute("PRAGMA journal_mode = OFF")
        writing.execute("PRAGMA synchronous = OFF")
        reading.backup(writing, pages=pages, progress=tell)


def _check(part: Path) -> None:
    # Immutable: the copy is read as it will lie there, and no log is left beside it.
    with closing(sqlite3.connect(f"{part.resolve().as_uri()}?mode=ro&immutable=1", uri=True)) as connection:
        found = [str(row[0]) for row in connection.execute("PRAGMA integrity_check(3)")]
    if found != ["ok"]:
        raise BackupFailed(f"the copy is damaged, so it was removed; check the ledger's disk: {'; '.join(found)}")


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _put(part: Path, copy: Path) -> None:
    """Give the copy its name; unlike renaming, linking never replaces a file that came in the meantime."""
    try:
        os.link(part, copy)
        return
    except FileExistsError:
        raise _taken(str(copy)) from None
    except OSError:
        # Some file systems know no links.
        if copy.exists():
            raise _taken(str(copy)) from None
    part.rename(copy)
