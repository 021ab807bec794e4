"""Opens the stores of a ledger: one for a SQLite file, a few side by side for PostgreSQL."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Sequence

from sqlalchemy.exc import DBAPIError

from ledger.backend import Reader
from ledger.errors import LedgerUnavailable
from ledger.ids import microseconds
from ledger.ownership import FileOwnership, Ownership
from ledger.sqlite import Sqlite
from ledger.store import Store

__all__ = ["is_postgres", "open_stores"]

# Each lane's batches cost this process and the server as much as one long batch does, so few cores have few lanes.
_MOST_LANES = 4


def is_postgres(url: str) -> bool:
    """Whether this is PostgreSQL's URL, and not a file's path."""
    return url.startswith(("postgresql://", "postgres://"))


def open_stores(url: str, owner: str, clock: Callable[[], int] = microseconds) -> tuple[Sequence[Store], Ownership]:
    """Open a ledger's stores, making its tables first, and this process's right to write to them.

    Raises LedgerLocked, LedgerUnavailable.
    """
    try:
        return _open_shared(url, owner, clock) if is_postgres(url) else _open_file(url, owner, clock)
    except DBAPIError as error:
        raise LedgerUnavailable(f"{_shown(url)} can't be opened as a ledger: {error.orig}") from error
    except sqlite3.Error as error:
        raise LedgerUnavailable(f"{url} can't be opened as a ledger: {error}") from error
    except OSError as error:
        raise LedgerUnavailable(f"{url} can't be opened as a ledger: {error.strerror}") from error


def _open_file(path: str, owner: str, clock: Callable[[], int]) -> tuple[Sequence[Store], Ownership]:
    ownership = FileOwnership(path, owner)
    try:
        backend = Sqlite(path)
        backend.create()
        store = Store(backend, clock=clock, above=_sealed_to(backend))
        ownership.find(store)
    except BaseException:
        ownership.release()
        raise
    return [store], ownership


def _open_shared(url: str, owner: str, clock: Callable[[], int]) -> tuple[Sequence[Store], Ownership]:
    # Who has a file pays nothing for it, neither time nor memory.
    import psycopg

    from ledger.leases import LeaseOwnership
    from ledger.postgres import Postgres

    lanes = min(max((os.cpu_count() or 1) // 2, 1), _MOST_LANES)
    backends = [Postgres(url) for _ in range(lanes)]
    try:
        backends[0].create()
        ownership = LeaseOwnership(url, owner)
        above = _sealed_to(backends[0])
    except psycopg.Error as error:
        raise LedgerUnavailable(f"{_shown(url)} can't be opened as a ledger: {error}") from error
    stores = [Store(backend, ownership.node, clock, above) for backend in backends]
    for store in stores:
        store.lease = ownership.current
    return stores, ownership


def _sealed_to(reader: Reader) -> int:
    """The last id that is sealed anywhere: what happens from now on comes after it."""
    ((last,),) = reader.rows("SELECT COALESCE(MAX(to_id), 0) FROM ledger_seal")
    return int(last)


def _shown(url: str) -> str:
    """A URL without its password."""
    head, at, rest = url.rpartition("@")
    return f"{head.partition('://')[0]}://…@{rest}" if at else url
