"""Whom a key stands for: who pays for its calls, and whose spend limits they come under."""

from __future__ import annotations

import hashlib
import hmac
import json
from dataclasses import dataclass, replace

from sqlmodel import Session

from proxy.ids import account_id, object_id
from proxy.people.tables import AccountRow, KeyDigestRow, KeyRow

__all__ = ["Caller", "acting_for", "app_scope", "digest", "find_caller", "key_scope", "member_scope"]


@dataclass(frozen=True, slots=True)
class Caller:
    """Whoever a key stands for.

    account_id: who pays. key: the key's id as people see it. rate: what its rate is counted under. operations: all that
    it may be used for, None for any; operation: its default. scopes: whose spend limits count. member: the account that
    spends a team's credits, as people see it. barred: that account is suspended or closed. platform: it may act for
    others.
    """

    account_id: int
    key: str
    rate: int
    app: str | None
    digest: bytes
    operations: tuple[str, ...] | None = None
    operation: str | None = None
    scopes: tuple[str, ...] = ()
    member: str | None = None
    barred: bool = False
    platform: bool = False


def digest(secret: str) -> bytes:
    """Hash a key; 40 random characters need no slow hash."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()


def key_scope(key_id: int, account_id: int) -> str:
    """The scope of a key's spend limit: what the key is called."""
    return "key:" + object_id("key", key_id, account_id)


def app_scope(app: str) -> str:
    """The scope of what an account spends in an app."""
    return "app:" + app


def member_scope(member: int) -> str:
    """The scope of what a member spends of a team's credits."""
    return "member:" + account_id(member)


def find_caller(session: Session, wanted: bytes) -> Caller | None:
    """Find whom a key's digest stands for, or None if it is unknown or revoked."""
    entry = session.get(KeyDigestRow, wanted)
    if entry is None or not hmac.compare_digest(entry.digest, wanted):
        return None
    row = session.get(KeyRow, (entry.account_id, entry.key_id))
    if row is None or row.revoked_at is not None:
        return None
    scopes = [key_scope(row.key_id, row.account_id)]
    if row.app is not None:
        scopes.append(app_scope(row.app))
    if row.pays is not None:
        scopes.append(member_scope(row.account_id))
    return Caller(
        account_id=row.account_id if row.pays is None else row.pays,
        key=object_id("key", row.key_id, row.account_id),
        rate=row.key_id,
        app=row.app,
        digest=wanted,
        operations=tuple(json.loads(row.operations)) if row.operations else None,
        operation=row.operation,
        scopes=tuple(scopes),
        member=None if row.pays is None else account_id(row.account_id),
        barred=bool((row.pays or row.platform) and session.get_one(AccountRow, row.account_id).barred),
        platform=bool(row.platform),
    )


def acting_for(caller: Caller, account: int) -> Caller:
    """A platform's key as it stands for one account: that one pays, under its own limits and its own rate."""
    scopes = () if caller.app is None else (app_scope(caller.app),)
    return replace(caller, account_id=account, rate=hash((caller.rate, account)), scopes=scopes)
