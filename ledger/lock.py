"""One process owns a SQLite ledger: a lock on a file beside it, which the kernel drops when the process dies."""

from __future__ import annotations

import fcntl
import os

from ledger.errors import LedgerLocked

__all__ = ["OwnerLock"]


class OwnerLock:
    """Take the lock or raise LedgerLocked with what the owner said of itself."""

    def __init__(self, database: str, owner: str) -> None:
        self._file = open(f"{database}.lock", "a+", encoding="utf-8")  # noqa: SIM115  # held open as long as the lock
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._file.seek(0)
            who = self._file.read().strip() or "another process"
            self._file.close()
            raise LedgerLocked(f"{database} is in use by {who}") from None
        self._file.seek(0)
        self._file.truncate()
        self._file.write(f"{owner} (process {os.getpid()})\n")
        self._file.flush()

    def release(self) -> None:
        self._file.close()
