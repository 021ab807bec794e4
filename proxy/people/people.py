"""Accounts, members and keys: made, found, revoked; a key is looked up in a cache on the paid path."""

from __future__ import annotations

import hmac
import json
import secrets
import string
from collections.abc import Collection
from dataclasses import dataclass

from sqlmodel import Session, col, or_, select

from proxy.database import Database
from proxy.people.callers import Caller, digest, find_caller
from proxy.people.tables import AccountRow, ExternalIdRow, KeyDigestRow, KeyRow, MemberRow, SettingRow

__all__ = ["ExternalIdTaken", "NewKey", "NotAMember", "OtherSecret", "People", "Profile", "secret_of_digest"]

_ALPHABET = string.ascii_letters + string.digits
_SECRET_LENGTH = 40
_PREFIX_LENGTH = 8
_MOST_CACHED = 100_000
_ADMIN_SETTING = "admin_key_digest"
_COMMAND_SEED = "command_seed"
_CHANGES = "changes"


@dataclass(frozen=True, slots=True)
class Profile:
    """Who an account belongs to; created_at in microseconds since 1970."""

    account_id: int
    name: str
    email: str | None
    external_id: str | None
    kind: str
    created_at: int


@dataclass(frozen=True, slots=True)
class NewKey:
    """What a key is to be; pays: the team whose credits it spends, None for its own account's."""

    name: str | None = None
    app: str | None = None
    operations: list[str] | None = None
    operation: str | None = None
    pays: int | None = None
    platform: bool = False


class ExternalIdTaken(Exception):
    """Another account has this external id."""


class OtherSecret(Exception):
    """The key was made already, and its secret was another."""


class NotAMember(Exception):
    """The account is no member of that team."""


def _secret(prefix: str) -> str:
    return prefix + "".join(secrets.choice(_ALPHABET) for _ in range(_SECRET_LENGTH))


def secret_of_digest(seed: bytes) -> str:
    """Make a key's secret of a digest that nobody can guess, at least 64 bytes: of each the same."""
    fair = [byte % len(_ALPHABET) for byte in seed if byte < 4 * len(_ALPHABET)]
    return "fbx_" + "".join(_ALPHABET[place] for place in fair[:_SECRET_LENGTH])


class People:
    """The people's rows."""

    def __init__(self, database: Database) -> None:
        self._run = database.run
        self._read = database.read
        self.shared = database.shared
        self._seen = b""
        self._callers: dict[bytes, Caller | None] = {}
        self._external: dict[str, int] = {}

    async def look(self) -> None:
        """Forget the callers known here if another process has changed any; to be done each second or so."""
        if self.shared:
            row = await self._read(lambda session: session.get(SettingRow, _CHANGES))
            seen = b"" if row is None else row.value
            if seen != self._seen:
                self._seen = seen
                self._callers.clear()

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
        caller = await self._read(lambda session: find_caller(session, wanted))
        if caller is not None:
            if len(self._callers) >= _MOST_CACHED:
                self._callers.pop(next(iter(self._callers)))
            self._callers[wanted] = caller
        return caller

    async def named(self, external_id: str) -> int | None:
        """Find the account that an operator knows by an id of its own, or None."""
        account = self._external.get(external_id)
        if account is None:
            row = await self._read(lambda session: session.get(ExternalIdRow, external_id))
            if row is None:
                return None
            if len(self._external) >= _MOST_CACHED:
                self._external.pop(next(iter(self._external)))
            account = self._external[external_id] = row.account_id
        return account

    # -- administration

    async def add_account(self, profile: Profile) -> None:
        """Record an account's owner, once; raises ExternalIdTaken."""

        def work(session: Session) -> None:
            if session.get(AccountRow, profile.account_id) is not None:
                return
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

    async def change_account(
        self, account_id: int, name: str | None, email: str | None, *, barred: bool | None = None
    ) -> Profile:
        """Change an account's owner; None leaves as it is. barred: whether teams refuse its calls."""

        def work(session: Session) -> tuple[Profile, list[bytes]]:
            row = session.get_one(AccountRow, account_id)
            row.name = name or row.name
            row.email = email or row.email
            if barred is None:
                return _profile(row), []
            row.barred = int(barred)
            _changed(session)
            return _profile(row), [key.digest for key in _others_payers(session, account_id)]

        profile, stale = await self._run(work)
        self._forget(stale)
        return profile

    def _forget(self, digests: Collection[bytes]) -> None:
        for one in digests:
            self._callers.pop(one, None)

    async def profile(self, account_id: int) -> Profile | None:
        def work(session: Session) -> Profile | None:
            row = session.get(AccountRow, account_id)
            return _profile(row) if row else None

        return await self._read(work)

    async def profiles(
        self,
        limit: int,
        after: int | None,
        query: str | None = None,
        external_id: str | None = None,
        among: Collection[int] | None = None,
    ) -> list[Profile]:
        """List accounts, newest first; query: part of a name or e-mail address; among: of these only."""
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
        if among is not None:
            statement = statement.where(col(AccountRow.account_id).in_(among))
        return await self._read(lambda session: [_profile(row) for row in session.exec(statement)])

    # -- teams

    async def add_member(self, team: int, member: int, now: int) -> tuple[MemberRow, bool]:
        """Let an account have keys that spend a team's credits; returns its row, and whether that is new."""

        def work(session: Session) -> tuple[MemberRow, bool]:
            row = session.get(MemberRow, (team, member))
            if row is not None:
                return row, False
            row = MemberRow(account_id=team, member_id=member, created_at=now)
            session.add(row)
            return row, True

        return await self._run(work)

    async def member(self, team: int, member: int) -> MemberRow | None:
        return await self._read(lambda session: session.get(MemberRow, (team, member)))

    async def members(self, team: int, limit: int, after: int | None) -> list[MemberRow]:
        """List a team's members, those whose accounts are newest first."""
        statement = select(MemberRow).where(col(MemberRow.account_id) == team)
        if after is not None:
            statement = statement.where(col(MemberRow.member_id) < after)
        statement = statement.order_by(col(MemberRow.member_id).desc()).limit(limit)
        return await self._read(lambda session: list(session.exec(statement)))

    async def remove_member(self, team: int, member: int, now: int) -> list[KeyRow] | None:
        """End a membership and revoke the keys it allowed, at once; returns those, or None if there is none."""

        def work(session: Session) -> list[KeyRow] | None:
            row = session.get(MemberRow, (team, member))
            if row is None:
                return None
            session.delete(row)
            keys = [key for key in _others_payers(session, member) if key.pays == team and key.revoked_at is None]
            for key in keys:
                key.revoked_at = now
            _changed(session)
            return keys

        revoked = await self._run(work)
        self._forget([key.digest for key in revoked or ()])
        return revoked

    # -- keys

    async def add_key(
        self, account_id: int, key_id: int, now: int, wanted: NewKey, secret: str | None = None
    ) -> tuple[str, KeyRow]:
        """Make a key for an account; returns its secret, which is kept nowhere, and its row.

        secret: as it is to be, None for any; one that exists under this id already is not made again. Raises NotAMember
        where it is to spend the credits of a team that the account is not in, OtherSecret.
        """
        secret = _secret("fbx_") if secret is None else secret
        row = KeyRow(
            account_id=account_id,
            key_id=key_id,
            name=wanted.name,
            app=wanted.app,
            operations=None if wanted.operations is None else json.dumps(wanted.operations),
            operation=wanted.operation,
            prefix=secret[:_PREFIX_LENGTH],
            digest=digest(secret),
            created_at=now,
            pays=wanted.pays,
            platform=int(wanted.platform),
        )

        def work(session: Session) -> KeyRow:
            made = session.get(KeyRow, (account_id, key_id))
            if made is not None and made.digest != row.digest:
                raise OtherSecret
            if made is not None:
                return made
            if wanted.pays is not None and session.get(MemberRow, (wanted.pays, account_id)) is None:
                raise NotAMember
            session.add(row)
            session.add(KeyDigestRow(digest=row.digest, account_id=account_id, key_id=key_id))
            return row

        return secret, await self._run(work)

    async def key(self, account_id: int, key_id: int) -> KeyRow | None:
        return await self._read(lambda session: session.get(KeyRow, (account_id, key_id)))

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
                _changed(session)
            return row

        row = await self._run(work)
        self._forget([row.digest] if row is not None else [])
        return row

    async def command_seed(self) -> bytes:
        """Find 32 random bytes of this database's own; a first start makes them."""

        def work(session: Session) -> bytes:
            row = session.get(SettingRow, _COMMAND_SEED)
            if row is None:
                row = SettingRow(name=_COMMAND_SEED, value=secrets.token_bytes(32))
                session.add(row)
            return row.value

        return await self._run(work)

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


def _changed(session: Session) -> None:
    """Have every process look again at whom keys stand for."""
    session.merge(SettingRow(name=_CHANGES, value=secrets.token_bytes(8)))


def _profile(row: AccountRow) -> Profile:
    return Profile(row.account_id, row.name, row.email, row.external_id, row.kind, row.created_at)


def _others_payers(session: Session, account_id: int) -> list[KeyRow]:
    """An account's keys that spend others' credits: a team's, or those of a platform's users."""
    others = or_(col(KeyRow.pays).is_not(None), col(KeyRow.platform) == 1)
    return list(session.exec(select(KeyRow).where(col(KeyRow.account_id) == account_id, others)))
