"""The ledger's records. Amounts are integers of nanocredits, times are microseconds since 1970 (UTC)."""

from __future__ import annotations

from typing import Final, NamedTuple

__all__ = [
    "ADJUSTED",
    "ADJUSTMENT",
    "ALLOWANCE",
    "DEBT",
    "ISSUE",
    "KEPT_FOR",
    "NEVER",
    "OVERDRAFT",
    "REFUNDED",
    "REVENUE",
    "BREAKAGE",
    "SALE",
    "UNLIMITED",
    "Claim",
    "Claimed",
    "Grant",
    "Hold",
    "Leg",
    "Limit",
    "PaidBack",
    "PaidFrom",
    "Period",
    "Run",
    "Transfer",
]

NEVER: Final = 2**63 - 1
"""A time that does not come; the largest integer, so that every database sorts it alike."""

UNLIMITED: Final = 2**63 - 1
"""The amount of a spend limit that was lifted; what is spent in its scope is counted on."""

KEPT_FOR: Final = 24 * 3_600 * 1_000_000
"""How long an answer is kept for whoever asks again under its idempotency key, in microseconds."""

# Nodes: a grant is its positive id; the system's nodes are negative and have no balance row to contend for.
ISSUE: Final = -1
SALE: Final = -2
REVENUE: Final = -3
BREAKAGE: Final = -4
DEBT: Final = -5
ADJUSTMENT: Final = -6

OVERDRAFT: Final = 0
"""In a leg, the overdraft in place of a grant."""

# Sources that only these corrections give a grant: they tell where it came from, and so where a void takes it back.
ADJUSTED: Final = "adjustment"
REFUNDED: Final = "refund"
ALLOWANCE: Final = "allowance"
"""The source of what a plan's period gives."""


class Grant(NamedTuple):
    """One lot of credits: what never changes about it. What moves (balance, held, lost, voided) is in the Book.

    paid: money came for it. expires_at: exclusive. source_key: issuing twice under one key is impossible.
    """

    grant_id: int
    bucket: str
    source: str
    paid: bool
    granted: int
    effective_at: int
    expires_at: int
    created_at: int
    source_key: str | None = None
    note: str | None = None

    @property
    def origin(self) -> int:
        """The system node that it came from, and that a void gives it back to."""
        if self.source == ADJUSTED:
            return ADJUSTMENT
        if self.source == REFUNDED:
            return REVENUE
        return SALE if self.paid else ISSUE


class Leg(NamedTuple):
    """What a hold pins on one grant, or on the overdraft (`grant_id` 0)."""

    grant_id: int
    amount: int


class Claim(NamedTuple):
    """What makes a call the same call when it is made again: digests of its idempotency key and of its body."""

    key: bytes
    body: bytes


class Claimed(NamedTuple):
    """A key that a call has claimed, until it ends or, where it was answered, for `KEPT_FOR` after that.

    at: when it was claimed, or answered. charged, available: what the call was told when it was answered.
    """

    claim: Claim
    hold_id: int
    at: int
    answered: bool = False
    charged: int = 0
    available: int = 0


class Hold(NamedTuple):
    """An open hold; `memo` is the proxy's account of the call, opaque here."""

    hold_id: int
    amount: int
    legs: tuple[Leg, ...]
    memo: bytes
    created_at: int
    deadline: int
    limits: tuple[tuple[str, int], ...] = ()
    """The spend limits that it is reserved at: (scope, label of the period)."""
    claim: Claim | None = None


class Period(NamedTuple):
    """Where an account is with an allowance: the period that is on, or was the last.

    slot: tells the account's allowances apart in their grants' ids. every: day, week, month or year. anchor, label:
    dates, as `ledger.calendar` has them; no anchor where the next period begins a row of its own. entitled: the largest
    full amount that the period has been given, upgrades included; granted: all that was granted in it.
    """

    slot: int
    every: str
    anchor: int | None
    label: int
    starts_at: int
    ends_at: int
    entitled: int
    granted: int


class Limit(NamedTuple):
    """What may be spent in one scope, such as a key's, by day, month or ever, in nanocredits.

    spent, reserved: in the period of that label, which ends at `ends_at`. reserved: what open holds may spend yet.
    """

    scope: str
    amount: int
    per: str
    label: int = 0
    ends_at: int = NEVER
    spent: int = 0
    reserved: int = 0


class Run(NamedTuple):
    """What the calls of one operation in one run have come to: before its bounds, and charged for it."""

    raw: int = 0
    charged: int = 0


class PaidFrom(NamedTuple):
    """What one grant paid of a charge."""

    grant_id: int
    bucket: str
    amount: int


class PaidBack(NamedTuple):
    """What a refund gave to one grant; one that has expired, or was voided, lost it at once."""

    grant_id: int
    bucket: str
    amount: int


class Transfer(NamedTuple):
    """One leg of the journal: an amount > 0 from a node to a node.

    request: the hold it belongs to, if any. note: why, where somebody said so.
    """

    kind: str
    source: int
    target: int
    amount: int
    at: int
    request: int | None = None
    note: str | None = None
