"""The proxy's own tables: connections and a thread beside the ledger's, in the same database."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError
from sqlmodel import Session

from ledger.connecting import CONNECTING
from ledger.errors import LedgerUnavailable
from ledger.migrating import History, migrate
from ledger.opening import is_postgres

__all__ = ["HISTORY", "Database"]

HISTORY = History(Path(__file__).parent / "migrations", "proxy_version")

_Kind = TypeVar("_Kind")
_TRIES = 10
_SERIALIZATION = ("40001", "40P01")
# As in the ledger: who is silent amid its work is paused, or its host is gone, and others wait for what it has locked.
_NOT_SILENT = text("SET LOCAL idle_in_transaction_session_timeout = '5s'")
_CREATING = 4_605_862_153_429
"""What processes that create the tables at the same moment take turns by."""


class Database:
    """Runs work on the tables of the rooms; in this process one piece at a time, each in a transaction of its own.

    url: a SQLite file's path, or postgresql://…; its tables are brought up to date. shared: other processes change them
    too. Raises LedgerUnavailable for a database of a newer release.
    """

    def __init__(self, url: str) -> None:
        self.shared = is_postgres(url)
        if self.shared:
            self._engine = _postgres(url, "SERIALIZABLE")
            self._reader = _postgres(url, "AUTOCOMMIT")
        else:
            self._engine = create_engine(f"sqlite:///{url}", connect_args={"timeout": 10})
            # A deferred transaction that begins to write fails at once when another writes; an immediate one waits.
            event.listen(self._engine, "connect", _manual_transactions)
            event.listen(self._engine, "begin", _begin_immediate)
            # Who only reads neither waits for the ledger's writer nor makes it wait.
            self._reader = create_engine(f"sqlite:///{url}", connect_args={"timeout": 10})
        self._thread = ThreadPoolExecutor(1, "database")
        try:
            self._bring_up()
        except BaseException:
            self.close()
            raise

    def _bring_up(self) -> None:
        """Bring the tables up to date."""
        creating = self._engine.execution_options(isolation_level="READ COMMITTED") if self.shared else self._engine
        with creating.begin() as connection:
            if self.shared:
                connection.execute(text("SELECT pg_advisory_xact_lock(:number)"), {"number": _CREATING})
            migrate(connection, HISTORY)

    async def run(self, work: Callable[[Session], _Kind]) -> _Kind:
        """Carry `work` out in a transaction, beside the event loop; raises LedgerUnavailable.

        Where other processes change the tables too, `work` may be carried out again: it must be nothing but its
        transaction.
        """
        return await self._carry_out(self._engine, work)

    async def read(self, work: Callable[[Session], _Kind]) -> _Kind:
        """Carry out `work` that writes nothing; raises LedgerUnavailable."""
        return await self._carry_out(self._reader, work)

    async def _carry_out(self, engine: Engine, work: Callable[[Session], _Kind]) -> _Kind:
        def inside() -> _Kind:
            for left in reversed(range(_TRIES if self.shared else 1)):
                try:
                    with Session(engine, expire_on_commit=False) as session, session.begin():
                        if self.shared:
                            session.execute(_NOT_SILENT)
                        return work(session)
                except DBAPIError as error:
                    # Two that made the same row find each other's when they look again.
                    again = isinstance(error, IntegrityError) or getattr(error.orig, "sqlstate", "") in _SERIALIZATION
                    if left and again:
                        continue
                    if isinstance(error, OperationalError):
                        raise LedgerUnavailable(f"the database did not answer: {error.orig}") from error
                    raise
            raise AssertionError

        return await asyncio.get_running_loop().run_in_executor(self._thread, inside)

    def close(self) -> None:
        self._thread.shutdown()
        self._engine.dispose()
        self._reader.dispose()


def _postgres(url: str, isolation: Any) -> Engine:
    return create_engine(
        "postgresql+psycopg://" + url.partition("://")[2],
        isolation_level=isolation,
        pool_pre_ping=True,
        connect_args=CONNECTING,
    )


def _manual_transactions(connection: Any, _record: object) -> None:
    connection.isolation_level = None


def _begin_immediate(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")
