"""What the ledger can be told to do. Amounts in nanocredits, times in microseconds since 1970 (UTC)."""

from __future__ import annotations

from dataclasses import dataclass

from ledger.model import NEVER

__all__ = ["Command", "IssueGrant", "OpenAccount", "PlaceHold", "Settle", "Void"]


@dataclass(frozen=True, slots=True)
class OpenAccount:
    """Open an account; doing so twice changes nothing."""

    account_id: int
    timezone: str = "UTC"
    overdraft_limit: int = 0


@dataclass(frozen=True, slots=True)
class IssueGrant:
    """Issue a grant; it repays debt first. paid: money came for it. source_key: at most one grant under each."""

    account_id: int
    grant_id: int
    bucket: str
    amount: int
    source: str = "admin"
    paid: bool = False
    effective_at: int | None = None
    expires_at: int = NEVER
    source_key: str | None = None
    note: str | None = None


@dataclass(frozen=True, slots=True)
class PlaceHold:
    """Pin credits for a call, in burn-down order.

    within: refuse as `large` what exceeds this fraction (1/within) of what is available, so that the caller can
    count exactly instead of bounding; 0 asks for no such check. memo: the call, opaque here.
    """

    account_id: int
    hold_id: int
    amount: int
    memo: bytes
    within: int = 0
    deadline: int = NEVER


@dataclass(frozen=True, slots=True)
class Settle:
    """End a hold with a charge, which may be below, at or above it, and is never refused for lack of credits."""

    account_id: int
    hold_id: int
    amount: int
    memo: bytes


@dataclass(frozen=True, slots=True)
class Void:
    """End a hold without a charge. orphaned: its process died."""

    account_id: int
    hold_id: int
    memo: bytes
    orphaned: bool = False


Command = OpenAccount | IssueGrant | PlaceHold | Settle | Void
