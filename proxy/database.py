"""The proxy's own tables: a connection and a thread beside the ledger's, on the same file."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, Table, create_engine, event, inspect
from sqlalchemy.exc import OperationalError
from sqlmodel import Session, SQLModel

from ledger.errors import LedgerUnavailable

__all__ = ["Database"]

_Kind = TypeVar("_Kind")


class Database:
    """Runs work on the tables of the rooms; one piece at a time, each in a transaction of its own."""

    def __init__(self, path: str, tables: Sequence[Table]) -> None:
        self._engine = create_engine(f"sqlite:///{path}", connect_args={"timeout": 10})
        # A deferred transaction that begins to write fails at once when another writes; an immediate one waits.
        event.listen(self._engine, "connect", _manual_transactions)
        event.listen(self._engine, "begin", _begin_immediate)
        # Who only reads neither waits for the ledger's writer nor makes it wait.
        self._reader = create_engine(f"sqlite:///{path}", connect_args={"timeout": 10})
        self._thread = ThreadPoolExecutor(1, "database")
        with self._engine.begin() as connection:
            SQLModel.metadata.create_all(connection, tables=tables)
            for table in tables:
                _add_columns(connection, table)

    async def run(self, work: Callable[[Session], _Kind]) -> _Kind:
        """Carry `work` out in a transaction, beside the event loop; raises LedgerUnavailable if the file is locked."""
        return await self._carry_out(self._engine, work)

    async def read(self, work: Callable[[Session], _Kind]) -> _Kind:
        """Carry out `work` that writes nothing; raises LedgerUnavailable."""
        return await self._carry_out(self._reader, work)

    async def _carry_out(self, engine: Engine, work: Callable[[Session], _Kind]) -> _Kind:
        def inside() -> _Kind:
            try:
                with Session(engine, expire_on_commit=False) as session, session.begin():
                    return work(session)
            except OperationalError as error:
                raise LedgerUnavailable(f"the database did not answer: {error.orig}") from error

        return await asyncio.get_running_loop().run_in_executor(self._thread, inside)

    def close(self) -> None:
        self._thread.shutdown()
        self._engine.dispose()
        self._reader.dispose()


def _add_columns(connection: Connection, table: Table) -> None:
    """Bring a table that an older release made up to date; what releases add may be null."""
    present = {column["name"] for column in inspect(connection).get_columns(table.name)}
    for column in table.columns:
        if column.name not in present:
            kind = column.type.compile(connection.dialect)
            connection.exec_driver_sql(f"ALTER TABLE {table.name} ADD COLUMN {column.name} {kind}")


def _manual_transactions(connection: Any, _record: object) -> None:
    connection.isolation_level = None


def _begin_immediate(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")
