"""Who may write to a ledger: one process a SQLite file, by a lock; with PostgreSQL all that have a lease."""

from __future__ import annotations

from typing import Protocol

from ledger.lock import OwnerLock
from ledger.store import Store

__all__ = ["LAPSE_SECONDS", "RENEW_SECONDS", "FileOwnership", "Orphan", "Ownership"]

RENEW_SECONDS = 3
LAPSE_SECONDS = 8
"""A process that could not renew for so long must act as if its holds were released already."""

Orphan = tuple[int, int, bytes]
"""(account id, hold id, memo) of a hold whose process died."""


class Ownership(Protocol):
    """This process's right to write. lease: what its holds are placed under; node: its own in ids, None for any."""

    lease: int | None
    node: int | None

    def renew(self) -> bool:
        """Say that the process lives; False: others have taken it for dead, and this is a new lease."""

    def orphans(self) -> tuple[list[int], list[Orphan]]:
        """List the leases that are dead, and what is held under them."""

    def bury(self, leases: list[int]) -> None:
        """Forget dead leases, once nothing is held under them."""

    def leads(self) -> bool:
        """Whether this process does what one of all is to do."""

    def has_company(self, *, siblings: bool = True) -> bool:
        """Whether another process that lives has such a right too; siblings: one of the same server counts."""

    def release(self) -> None:
        """Give the right up."""


class FileOwnership:
    """The lock on a SQLite file; whoever has it knows that everybody before is dead. Raises LedgerLocked, OSError."""

    lease: int | None = None
    node: int | None = None

    def __init__(self, path: str, owner: str) -> None:
        self._lock = OwnerLock(path, owner)
        self._left: list[Orphan] = []

    def find(self, store: Store) -> None:
        """Look for what those before left held."""
        self._left = store.open_holds()

    def renew(self) -> bool:
        return True

    def orphans(self) -> tuple[list[int], list[Orphan]]:
        left, self._left = self._left, []
        return [], left

    def bury(self, leases: list[int]) -> None:
        pass

    def leads(self) -> bool:
        return True

    def has_company(self, *, siblings: bool = True) -> bool:
        return False

    def release(self) -> None:
        self._lock.release()
