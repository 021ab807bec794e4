"""What operators did, and which price tables were in force: kept for ever, in tables that are only added to."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, ClassVar

from sqlalchemy import BigInteger
from sqlmodel import Field, Session, SQLModel, col, select

from proxy.database import Database

__all__ = ["JOURNAL_TABLES", "ActionRow", "Journal", "PriceVersionRow"]


class ActionRow(SQLModel, table=True):
    """One admin command: who, what, on which object, why. details: JSON of what was asked."""

    __tablename__: ClassVar[Any] = "action"

    action_id: int = Field(sa_type=BigInteger, primary_key=True, sa_column_kwargs={"autoincrement": False})
    at: int = Field(sa_type=BigInteger)
    actor: str
    command: str
    object: str | None = None
    account_id: int | None = Field(default=None, sa_type=BigInteger, index=True)
    reason: str | None = None
    details: str


class PriceVersionRow(SQLModel, table=True):
    """A price table that was in force, from when on; content: everything that can change a charge, as JSON."""

    __tablename__: ClassVar[Any] = "price_version"

    version: str = Field(primary_key=True)
    content: str
    effective_at: int = Field(sa_type=BigInteger)


_ROWS: tuple[type[SQLModel], ...] = (ActionRow, PriceVersionRow)
JOURNAL_TABLES = [SQLModel.metadata.tables[str(row.__tablename__)] for row in _ROWS]


class Journal:
    """Notes actions and price versions."""

    def __init__(self, database: Database) -> None:
        self._run = database.run
        self._read = database.read

    async def note(
        self,
        action_id: int,
        at: int,
        actor: str,
        command: str,
        account_id: int | None,
        object_id: str | None,
        reason: str | None,
        details: Mapping[str, Any],
    ) -> None:
        """Note an admin command that was carried out; under one action_id once."""
        row = ActionRow(
            action_id=action_id,
            at=at,
            actor=actor,
            command=command,
            object=object_id,
            account_id=account_id,
            reason=reason,
            details=json.dumps(details),
        )

        def work(session: Session) -> None:
            if session.get(ActionRow, action_id) is None:
                session.add(row)

        await self._run(work)

    async def actions(self, limit: int, after: int | None) -> list[ActionRow]:
        """List actions, newest first."""
        statement = select(ActionRow).order_by(col(ActionRow.action_id).desc()).limit(limit)
        if after is not None:
            statement = statement.where(col(ActionRow.action_id) < after)
        return await self._read(lambda session: list(session.exec(statement)))

    async def keep_prices(self, version: str, content: str, now: int) -> int:
        """Keep a price table's content; returns since when this version has first been in force."""

        def work(session: Session) -> int:
            row = session.get(PriceVersionRow, version)
            if row is None:
                row = PriceVersionRow(version=version, content=content, effective_at=now)
                session.add(row)
            return row.effective_at

        return await self._run(work)
