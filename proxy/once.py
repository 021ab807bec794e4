"""Idempotency keys of admin commands: one that is sent again is carried out once, and answered as it was."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from sqlalchemy import BigInteger
from sqlmodel import Field, Session, SQLModel, col, delete, select

from ledger.model import KEPT_FOR
from proxy.database import Database

__all__ = ["COMMAND_TABLES", "Busy", "Command", "CommandRow", "Commands", "OtherBody"]

_MOST_FORGOTTEN = 100


class CommandRow(SQLModel, table=True):
    """A command under its key; body: the digest of what was asked.

    own_id: what the command makes has this id, so that one which was cut off goes on instead of beginning anew.
    answer: JSON, null while the command is carried out.
    """

    __tablename__: ClassVar[Any] = "command"

    key: bytes = Field(primary_key=True)
    body: bytes
    own_id: int = Field(sa_type=BigInteger)
    at: int = Field(sa_type=BigInteger, index=True)
    status: int | None = None
    answer: bytes | None = None


COMMAND_TABLES = [SQLModel.metadata.tables["command"]]


class OtherBody(Exception):
    """The key was used for something else."""


class Busy(Exception):
    """The command of this key is being carried out."""


@dataclass(frozen=True, slots=True)
class Command:
    """A command that has its key; answer: (status, JSON) where it was carried out before."""

    key: bytes
    own_id: int
    answer: tuple[int, bytes] | None


class Commands:
    """Claims keys for commands, and keeps the answers for 24 hours."""

    def __init__(self, database: Database) -> None:
        self._run = database.run
        self._running: dict[bytes, bytes] = {}

    async def begin(self, key: bytes, body: bytes, own_id: int, now: int) -> Command:
        """Claim a key; raises OtherBody, Busy. Unless it has its answer already, the command must `end`.

        key, body: digests. own_id: its id, if it has not got one. now: microseconds since 1970.
        """
        running = self._running.get(key)
        if running is not None:
            raise OtherBody if running != body else Busy
        self._running[key] = body

        def work(session: Session) -> Command:
            old = select(CommandRow.key).where(col(CommandRow.at) <= now - KEPT_FOR).limit(_MOST_FORGOTTEN)
            session.exec(delete(CommandRow).where(col(CommandRow.key).in_(session.exec(old).all())))
            row = session.get(CommandRow, key)
            if row is None or row.at <= now - KEPT_FOR:
                row = session.merge(CommandRow(key=key, body=body, own_id=own_id, at=now))
            elif row.body != body:
                raise OtherBody
            answer = None if row.status is None or row.answer is None else (row.status, row.answer)
            return Command(key, row.own_id, answer)

        try:
            command = await self._run(work)
        except BaseException:
            del self._running[key]
            raise
        if command.answer is not None:
            del self._running[key]
        return command

    async def end(self, command: Command, answer: tuple[int, bytes] | None) -> None:
        """Keep what a command was answered; None: it was refused, and its key is free."""

        def work(session: Session) -> None:
            row = session.get_one(CommandRow, command.key)
            if answer is None:
                session.delete(row)
            else:
                row.status, row.answer = answer

        try:
            await self._run(work)
        finally:
            self.leave(command)

    def leave(self, command: Command) -> None:
        """Leave a command that was cut off; sent again it goes on."""
        self._running.pop(command.key, None)
