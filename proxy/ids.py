"""Ids as people see them: a prefix, then 32 hex digits: the object's own (they sort by time) and its account's.

An account's id has its own 16 digits only. An id routes to its account without an index.
"""

from __future__ import annotations

import re

__all__ = ["account_id", "object_id", "parse_account", "parse_object"]

_HEX16 = re.compile(r"[0-9a-f]{16}", re.ASCII)
_HEX32 = re.compile(r"[0-9a-f]{32}", re.ASCII)


def account_id(account: int) -> str:
    return f"acct_{account:016x}"


def object_id(prefix: str, own: int, account: int) -> str:
    """Write an object's id; prefix: such as `req` or `grant`. account 0: belongs to nobody."""
    return f"{prefix}_{own:016x}{account:016x}"


def parse_account(text: str) -> int | None:
    """Read an account's id, or None if this is none."""
    prefix, _, rest = text.partition("_")
    return _int63(rest) if prefix == "acct" and _HEX16.fullmatch(rest) else None


def parse_object(prefix: str, text: str) -> tuple[int, int] | None:
    """Read an object's id as (own, account), or None if this is none with that prefix."""
    head, _, rest = text.partition("_")
    if head != prefix or not _HEX32.fullmatch(rest):
        return None
    own, account = _int63(rest[:16]), _int63(rest[16:])
    return None if own is None or account is None else (own, account)


def _int63(text: str) -> int | None:
    value = int(text, 16)
    return value if value < 2**63 else None
