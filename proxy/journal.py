"""What operators did, and which price tables were in force: kept for ever, in tables that are only added to."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from sqlalchemy import BigInteger
from sqlmodel import Field, Session, SQLModel, col, select

from proxy.database import Database

__all__ = ["JOURNAL_TABLES", "ActionRow", "Journal", "PriceChangeRow", "PriceVersionRow"]


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


class PriceChangeRow(SQLModel, table=True):
    """That prices were changed: when, by whom, to what, and what that changed.

    steps: JSON list of [from when on in microseconds, 0 for at once; version]. words: JSON list of [from when on, list
    of what changes then].
    """

    __tablename__: ClassVar[Any] = "price_change"

    change_id: int = Field(sa_type=BigInteger, primary_key=True, sa_column_kwargs={"autoincrement": False})
    at: int = Field(sa_type=BigInteger)
    actor: str
    steps: str
    words: str


_ROWS: tuple[type[SQLModel], ...] = (ActionRow, PriceVersionRow, PriceChangeRow)
JOURNAL_TABLES = [SQLModel.metadata.tables[str(row.__tablename__)] for row in _ROWS]


class Journal:
    """Notes actions and price versions; shared: other servers do so too."""

    def __init__(self, database: Database) -> None:
        self.shared = database.shared
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

    async def last_change(self) -> PriceChangeRow | None:
        """The newest change of prices."""
        return await self._read(_newest)

    async def price_changes(self, limit: int, after: int | None = None) -> list[PriceChangeRow]:
        """List changes of prices, newest first."""
        statement = select(PriceChangeRow).order_by(col(PriceChangeRow.change_id).desc()).limit(limit)
        if after is not None:
            statement = statement.where(col(PriceChangeRow.change_id) < after)
        return await self._read(lambda session: list(session.exec(statement)))

    async def was_announced(self, steps: Sequence[tuple[int, str]]) -> bool:
        """Whether prices were ever changed to these."""
        statement = select(col(PriceChangeRow.change_id)).where(col(PriceChangeRow.steps) == json.dumps(steps)).limit(1)
        return await self._read(lambda session: session.exec(statement).first() is not None)

    async def price_contents(self, versions: Sequence[str]) -> dict[str, str]:
        """Read what is kept of versions, those of them that there are."""
        statement = select(PriceVersionRow).where(col(PriceVersionRow.version).in_(versions))
        return await self._read(lambda session: {row.version: row.content for row in session.exec(statement)})

    async def change_prices(
        self,
        last: int,
        now: int,
        actor: str,
        steps: Sequence[tuple[int, str]],
        contents: Mapping[str, str],
        words: Sequence[tuple[int, Sequence[str]]],
    ) -> int | None:
        """Note a change of prices after the change `last` (0: the first); returns its id, None if another came between.

        contents: of the steps' versions, which are kept for ever.
        """

        def work(session: Session) -> int | None:
            newest = _newest(session)
            if last != (newest.change_id if newest else 0):
                return None
            for version, content in contents.items():
                if session.get(PriceVersionRow, version) is None:
                    session.add(PriceVersionRow(version=version, content=content, effective_at=now))
            row = PriceChangeRow(
                change_id=last + 1, at=now, actor=actor, steps=json.dumps(steps), words=json.dumps(words)
            )
            session.add(row)
            return row.change_id

        return await self._run(work)


def _newest(session: Session) -> PriceChangeRow | None:
    return session.exec(select(PriceChangeRow).order_by(col(PriceChangeRow.change_id).desc()).limit(1)).first()
