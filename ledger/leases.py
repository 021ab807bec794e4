"""Leases in PostgreSQL: each says that its process lives.

Each hold names the lease it was placed under, so that whoever finds a dead lease can release what its process left
held. Leases' times are the database's own, so hosts' clocks do not matter.
"""

from __future__ import annotations

import os
import secrets
import time
from pathlib import Path

from ledger.backend import Write
from ledger.errors import LedgerUnavailable
from ledger.ids import NODES, SLOTS, IdSource
from ledger.ownership import LAPSE_SECONDS, Orphan
from ledger.postgres import Postgres

__all__ = ["LEASE_SECONDS", "LeaseOwnership"]

LEASE_SECONDS = 10

_LEASE = Write("ledger_lease", ("lease_id", "node", "owner", "machine", "process", "renewed_at"), "insert")
_END = Write("ledger_lease", ("lease_id",), "delete", 1)
_NOW = "(extract(epoch FROM clock_timestamp()) * 1000000)::bigint"
_TAKING = 4_605_862_153_428


class LeaseOwnership:
    """A lease in PostgreSQL, on a connection of its own; used by one thread at a time. Raises psycopg.Error."""

    def __init__(self, url: str, owner: str) -> None:
        self._owner = owner
        self._machine = _machine()
        self._backend = Postgres(url)
        self.lease: int | None = None
        self.node: int | None = None
        self._first = True
        self._renewed = 0.0
        self._take()

    def _take(self) -> None:
        backend, began = self._backend, time.monotonic()
        backend.begin([])
        try:
            backend.rows("SELECT pg_advisory_xact_lock(?)", _TAKING)
            taken = {row[0] for row in backend.rows("SELECT node FROM ledger_lease")}
            node = next(node for node in range(SLOTS, NODES) if node not in taken)
            ((now,),) = backend.rows(f"SELECT {_NOW}")
            lease = IdSource(lambda: now, node).next()
            backend.write(_LEASE, [(lease, node, self._owner, self._machine, _process(os.getpid()) or "", now)])
            backend.commit()
        except BaseException:
            backend.rollback()
            raise
        self.lease, self.node, self._renewed = lease, node, began

    def current(self) -> int | None:
        """The lease to place a hold under; raises LedgerUnavailable where others may have taken this process for dead.

        They release what is held under a dead lease once: what came after would be held for ever.
        """
        if time.monotonic() - self._renewed > LAPSE_SECONDS:
            raise LedgerUnavailable("this process has lost its lease")
        return self.lease

    def renew(self) -> bool:
        renewed = f"UPDATE ledger_lease SET renewed_at = {_NOW} WHERE lease_id = ? RETURNING node"
        began = time.monotonic()
        if self._backend.rows(renewed, self.lease):
            self._renewed = began
            return True
        self._take()
        return False

    def _others(self) -> dict[int, bool]:
        """The leases of others, and whether each is alive."""
        leases = f"SELECT lease_id, machine, process, renewed_at < {_NOW} - ? FROM ledger_lease WHERE lease_id <> ?"
        return {
            # Of those that ran here nobody has to wait.
            lease: not ran_out and (machine != self._machine or _lives(process))
            for lease, machine, process, ran_out in self._backend.rows(leases, LEASE_SECONDS * 1_000_000, self.lease)
        }

    def has_company(self, *, siblings: bool = True) -> bool:
        own = set[int]() if siblings else self._siblings()
        return any(alive for lease, alive in self._others().items() if lease not in own)

    def _siblings(self) -> set[int]:
        """The leases of the processes that were started with this one, as one server."""
        asked = "SELECT lease_id FROM ledger_lease WHERE owner = ? AND machine = ?"
        return {lease for (lease,) in self._backend.rows(asked, self._owner, self._machine)}

    def orphans(self) -> tuple[list[int], list[Orphan]]:
        dead = [lease for lease, alive in self._others().items() if not alive]
        if not (dead or self._first):
            return [], []
        # Also those of no lease at all: of a file that was moved here, or of a commit that came after the burial.
        held = """SELECT account_id, hold_id, memo FROM ledger_hold LEFT JOIN ledger_lease ON lease_id = lease
            WHERE lease_id IS NULL OR lease_id = ANY(?)"""
        self._first = False
        return dead, [(account, hold, bytes(memo)) for account, hold, memo in self._backend.rows(held, dead)]

    def bury(self, leases: list[int]) -> None:
        self._backend.begin([])
        try:
            self._backend.write(_END, [(lease,) for lease in leases])
            self._backend.commit()
        except BaseException:
            self._backend.rollback()
            raise

    def leads(self) -> bool:
        ((oldest,),) = self._backend.rows("SELECT MIN(lease_id) FROM ledger_lease")
        return bool(oldest == self.lease)

    def release(self) -> None:
        if self.lease is not None:
            self.bury([self.lease])
        self._backend.close()


def _machine() -> str:
    """Where process numbers mean the same as here: this start of this machine, and this namespace of processes."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        # Nowhere: leases then run out by themselves.
        return f"unknown {secrets.token_hex(8)}"


def _process(number: int | str) -> str | None:
    """Tell a process of this machine from others that had its number, or None if there is none."""
    try:
        stat = Path(f"/proc/{number}/stat").read_text(encoding="latin-1")
    except OSError:
        return None
    # Its name, in brackets, may have anything in it; when it began is the 20th value after that.
    state, *rest = stat.rpartition(")")[2].split()
    # A zombie has ended, though nobody has asked how.
    return None if state in "ZX" else f"{number} {rest[18]}"


def _lives(process: str) -> bool:
    return _process(process.partition(" ")[0]) == process
