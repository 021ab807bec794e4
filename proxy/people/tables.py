"""The people's tables; their money is in the ledger."""

from __future__ import annotations

from typing import Any, ClassVar

from sqlalchemy import BigInteger
from sqlmodel import Field, SQLModel

__all__ = ["PEOPLE_TABLES", "AccountRow", "ExternalIdRow", "KeyDigestRow", "KeyRow", "MemberRow", "SettingRow"]


def _big(*, key: bool = False) -> Any:
    return Field(sa_type=BigInteger, primary_key=key, sa_column_kwargs={"autoincrement": False} if key else {})


class AccountRow(SQLModel, table=True):
    """Who an account belongs to; barred: it is suspended or closed, so that no team pays for it either."""

    __tablename__: ClassVar[Any] = "people_account"

    account_id: int = _big(key=True)
    name: str
    email: str | None = None
    external_id: str | None = None
    kind: str
    created_at: int = _big()
    barred: int | None = None


class KeyRow(SQLModel, table=True):
    """A key; of the secret only its digest is kept, and its first characters to tell keys apart.

    operations: JSON list of the only operations that it may be used for; operation: the default one. pays: the team
    whose credits it spends, null for its own account's. platform: 1 where it acts for whom its calls name.
    """

    __tablename__: ClassVar[Any] = "people_key"

    account_id: int = _big(key=True)
    key_id: int = _big(key=True)
    name: str | None = None
    app: str | None = None
    operations: str | None = None
    operation: str | None = None
    prefix: str
    digest: bytes
    created_at: int = _big()
    revoked_at: int | None = Field(default=None, sa_type=BigInteger)
    pays: int | None = Field(default=None, sa_type=BigInteger)
    platform: int | None = None


class MemberRow(SQLModel, table=True):
    """Who may have keys that spend a team's credits; account_id: the team's."""

    __tablename__: ClassVar[Any] = "people_member"

    account_id: int = _big(key=True)
    member_id: int = _big(key=True)
    created_at: int = _big()


class KeyDigestRow(SQLModel, table=True):
    """The directory from a key's digest to its account."""

    __tablename__: ClassVar[Any] = "directory_key"

    digest: bytes = Field(primary_key=True)
    account_id: int = _big()
    key_id: int = _big()


class ExternalIdRow(SQLModel, table=True):
    """The directory from an operator's own id to the account."""

    __tablename__: ClassVar[Any] = "directory_external_id"

    external_id: str = Field(primary_key=True)
    account_id: int = _big()


class SettingRow(SQLModel, table=True):
    """What the server made for itself once, such as the admin key's digest."""

    __tablename__: ClassVar[Any] = "people_setting"

    name: str = Field(primary_key=True)
    value: bytes


_ROWS: tuple[type[SQLModel], ...] = (AccountRow, KeyRow, MemberRow, KeyDigestRow, ExternalIdRow, SettingRow)
PEOPLE_TABLES = [SQLModel.metadata.tables[str(row.__tablename__)] for row in _ROWS]
