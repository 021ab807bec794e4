"""What the ledger can be told to do. Amounts in nanocredits, times in microseconds since 1970 (UTC)."""

from __future__ import annotations

from dataclasses import dataclass

from ledger.model import NEVER

__all__ = [
    "Adjust",
    "Command",
    "IssueGrant",
    "OpenAccount",
    "PlaceHold",
    "Refund",
    "SetAccount",
    "Settle",
    "Void",
    "VoidGrant",
]


@dataclass(frozen=True, slots=True)
class OpenAccount:
    """Open an account; doing so twice changes nothing."""

    account_id: int
    timezone: str = "UTC"
    overdraft_limit: int = 0


@dataclass(frozen=True, slots=True)
class SetAccount:
    """Change an account; None leaves as it is. status: active, suspended or closed, which is for good."""

    account_id: int
    status: str | None = None
    timezone: str | None = None
    overdraft_limit: int | None = None


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


@dataclass(frozen=True, slots=True)
class VoidGrant:
    """Take back what of a grant is neither spent nor held, and what holds release of it later; idempotent."""

    account_id: int
    grant_id: int
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Adjust:
    """Correct an account by a signed amount.

    Above 0 it writes off debt, and the rest is a new grant of this id in the bucket. Below 0 it takes what no hold
    pins, in burn-down order, and the rest is debt.
    """

    account_id: int
    amount: int
    grant_id: int
    bucket: str
    reason: str
    expires_at: int = NEVER


@dataclass(frozen=True, slots=True)
class Refund:
    """Give back a charge or part of it: the call's debt first, then its grants, last burned first; idempotent by id.

    amount: None for all that is left. as_bonus, operator_fault: what a grant that has expired, or was voided, would
    lose at once becomes a new grant. refund_id: also the id of that grant, in `bonus_bucket`.
    """

    account_id: int
    hold_id: int
    refund_id: int
    amount: int | None
    bonus_bucket: str
    reason: str
    as_bonus: bool = False
    operator_fault: bool = False
    bonus_expires_at: int = NEVER


Command = OpenAccount | SetAccount | IssueGrant | PlaceHold | Settle | Void | VoidGrant | Adjust | Refund
