"""Accounts and keys: made, found, revoked; a key is looked up in a cache on the paid path."""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
import string
from dataclasses import dataclass

from sqlmodel import Session, col, or_, select

from proxy.database import Database
from proxy.ids import object_id
from proxy.people.tables import AccountRow, ExternalIdRow, KeyDigestRow, KeyRow, SettingRow

__all__ = ["Caller", "ExternalIdTaken", "People", "Profile", "digest", "key_scope"]

_ALPHABET = string.ascii_letters + string.digits
_SECRET_LENGTH = 40
_PREFIX_LENGTH = 8
_MOST_CACHED = 100_000
_ADMIN_SETTING = "admin_key_digest"


@dataclass(frozen=True, slots=True)
class Caller:
    """Whoever a key stands for.

    operations: all that it may be used for, None for any; operation: its default. scopes: whose spend limits count.
    """

    account_id: int
    key_id: int
    app: str | None
    digest: bytes
    operations: tuple[str, ...] | None = None
    operation: str | None = None
    scopes: tuple[str, ...] = ()


def key_scope(key_id: int, account_id: int) -> str:
    """The scope of a key's spend limit: what the key is called."""
    return "key:" + object_id("key", key_id, account_id)


@dataclass(frozen=True, slots=True)
class Profile:
    """Who an account belongs to; created_at in microseconds since 1970."""

    account_id: int
    name: str
    email: str | None
    external_id: str | None
    kind: str
    created_at: int


class ExternalIdTaken(Exception):
    """Another account has this external id."""


def digest(secret: str) -> bytes:
    """Hash a key; 40 random characters need no slow hash."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()


def _secret(prefix: str) -> str:
    return prefix + "".join(secrets.choice(_ALPHABET) for _ in range(_SECRET_LENGTH))


class People:
    """The people's rows."""

    def __init__(self, database: Database) -> None:
        self._run = database.run
        self._read = database.read
        self._callers: dict[bytes, Caller | None] = {}

    # -- keys on the paid path

    def cached(self, secret_digest: bytes) -> Caller | None:
        """Find a caller among those seen before, without waiting."""
        caller = self._callers.get(secret_digest)
        if caller is not None and hmac.compare_digest(caller.digest, secret_digest):
            return caller
        return None

    async def identify(self, secret: str) -> Caller | None:
        """Find whom a key stands for, or None if it is unknown or revoked."""
        wanted = digest(secret)
        caller = self.cached(wanted)
        if caller is not None:
            return caller
        caller = await self._read(lambda session: _find_caller(session, wanted))
        if caller is not None:
            if len(self._callers) >= _MOST_CACHED:
                self._callers.pop(next(iter(self._callers)))
            self._callers[wanted] = caller
        return caller

    # -- administration

    async def add_account(self, profile: Profile) -> None:
        """Record an account's owner; raises ExternalIdTaken."""

        def work(session: Session) -> None:
            if profile.external_id is not None:
                if session.get(ExternalIdRow, profile.external_id) is not None:
                    raise ExternalIdTaken(profile.external_id)
                session.add(ExternalIdRow(external_id=profile.external_id, account_id=profile.account_id))
            session.add(
                AccountRow(
                    account_id=profile.account_id,
                    name=profile.name,
                    email=profile.email,
                    external_id=profile.external_id,
                    kind=profile.kind,
                    created_at=profile.created_at,
                )
            )

        await self._run(work)

    async def change_account(self, account_id: int, name: str | None, email: str | None) -> Profile:
        """Change an account's owner; None leaves as it is."""

        def work(session: Session) -> Profile:
            row = session.get_one(AccountRow, account_id)
            row.name = name or row.name
            row.email = email or row.email
            return _profile(row)

        return await self._run(work)

    async def profile(self, account_id: int) -> Profile | None:
        def work(session: Session) -> Profile | None:
            row = session.get(AccountRow, account_id)
            return _profile(row) if row else None

        return await self._read(work)

    async def profiles(
        self, limit: int, after: int | None, query: str | None = None, external_id: str | None = None
    ) -> list[Profile]:
        """List accounts, newest first; query: part of a name or e-mail address."""
        statement = select(AccountRow).order_by(col(AccountRow.account_id).desc()).limit(limit)
        if after is not None:
            statement = statement.where(col(AccountRow.account_id) < after)
        if query:
            statement = statement.where(
                or_(
                    col(AccountRow.name).contains(query, autoescape=True),
                    col(AccountRow.email).contains(query, autoescape=True),
                )
            )
        if external_id is not None:
            statement = statement.where(col(AccountRow.external_id) == external_id)
        return await self._read(lambda session: [_profile(row) for row in session.exec(statement)])

    async def add_key(
        self,
        account_id: int,
        key_id: int,
        now: int,
        name: str | None,
        app: str | None,
        operations: list[str] | None = None,
        operation: str | None = None,
    ) -> tuple[str, KeyRow]:
        """Make a key for an account; returns its secret, which is kept nowhere, and its row."""
        secret = _secret("fbx_")
        row = KeyRow(
            account_id=account_id,
            key_id=key_id,
            name=name,
            app=app,
            operations=None if operations is None else json.dumps(operations),
            operation=operation,
            prefix=secret[:_PREFIX_LENGTH],
            digest=digest(secret),
            created_at=now,
        )

        def work(session: Session) -> None:
            session.add(row)
            session.add(KeyDigestRow(digest=row.digest, account_id=account_id, key_id=key_id))

        await self._run(work)
        return secret, row

    async def keys(self, account_id: int, limit: int, after: int | None) -> list[KeyRow]:
        """List an account's keys, newest first."""
        statement = select(KeyRow).where(col(KeyRow.account_id) == account_id)
        if after is not None:
            statement = statement.where(col(KeyRow.key_id) < after)
        statement = statement.order_by(col(KeyRow.key_id).desc()).limit(limit)
        return await self._read(lambda session: list(session.exec(statement)))

    async def revoke_key(self, account_id: int, key_id: int, now: int) -> KeyRow | None:
        """Revoke a key at once; returns its row, or None if there is none."""

        def work(session: Session) -> KeyRow | None:
            row = session.get(KeyRow, (account_id, key_id))
            if row is not None and row.revoked_at is None:
                row.revoked_at = now
            return row

        row = await self._run(work)
        if row is not None:
            self._callers.pop(row.digest, None)
        return row

    async def admin_digest(self, configured: str | None) -> tuple[bytes, str | None]:
        """Find the admin key's digest; a first start without a configured key makes one and returns its secret too."""
        if configured:
            return digest(configured), None

        def work(session: Session) -> tuple[bytes, str | None]:
            row = session.get(SettingRow, _ADMIN_SETTING)
            if row is not None:
                return row.value, None
            secret = _secret("fba_")
            session.add(SettingRow(name=_ADMIN_SETTING, value=digest(secret)))
            return digest(secret), secret

        return await self._run(work)


def _find_caller(session: Session, wanted: bytes) -> Caller | None:
    entry = session.get(KeyDigestRow, wanted)
    if entry is None or not hmac.compare_digest(entry.digest, wanted):
        return None
    row = session.get(KeyRow, (entry.account_id, entry.key_id))
    if row is None or row.revoked_at is not None:
        return None
    operations = tuple(json.loads(row.operations)) if row.operations else None
    scopes = (key_scope(row.key_id, row.account_id),)
    return Caller(row.account_id, row.key_id, row.app, wanted, operations, row.operation, scopes)


def _profile(row: AccountRow) -> Profile:
    return Profile(row.account_id, row.name, row.email, row.external_id, row.kind, row.created_at)
