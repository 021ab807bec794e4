"""The ledger's records. Amounts are integers of nanocredits, times are microseconds since 1970 (UTC)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

__all__ = [
    "ADJUSTED",
    "ADJUSTMENT",
    "DEBT",
    "ISSUE",
    "NEVER",
    "OVERDRAFT",
    "REFUNDED",
    "REVENUE",
    "BREAKAGE",
    "SALE",
    "AccountSet",
    "Adjusted",
    "Balance",
    "Book",
    "Ended",
    "Grant",
    "Held",
    "Hold",
    "Issued",
    "Leg",
    "Opened",
    "Outcome",
    "PaidBack",
    "PaidFrom",
    "RefundRefused",
    "Refunded",
    "Refused",
    "Transfer",
    "Voided",
]

NEVER: Final = 2**63 - 1
"""A time that does not come; the largest integer, so that every database sorts it alike."""

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


class Hold(NamedTuple):
    """An open hold; `memo` is the proxy's account of the call, opaque here."""

    hold_id: int
    amount: int
    legs: tuple[Leg, ...]
    memo: bytes
    created_at: int
    deadline: int


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


@dataclass(frozen=True, slots=True)
class Held:
    """A hold was placed; `available` is what is left beside it."""

    hold: Hold
    available: int


@dataclass(frozen=True, slots=True)
class Ended:
    """How a hold ended. The same answer goes to everybody who ends it, the first and the later ones.

    status: settled, voided or orphaned. late: it was settled after it had been released as an orphan.
    available: what the account had just then.
    """

    hold_id: int
    status: str
    charged: int
    paid_from: tuple[PaidFrom, ...]
    debt: int
    memo: bytes
    created_at: int
    ended_at: int
    available: int
    late: bool = False


@dataclass(frozen=True, slots=True)
class Issued:
    """A grant exists; `repaid` of it went to debt at once. `new` is False when its source key was already used."""

    grant: Grant
    balance: int
    repaid: int
    new: bool = True


@dataclass(frozen=True, slots=True)
class Opened:
    """An account exists."""

    account_id: int
    new: bool


@dataclass(frozen=True, slots=True)
class Refused:
    """A hold was not placed: nothing changed.

    reason: `insufficient` (not even with nothing held), `held` (own running calls stand in the way), `suspended`,
    `closed`, or `large` (only for a hold placed with `within`).
    available: max(0, unheld credits less debt). affordable: the largest hold that would fit with nothing held.
    """

    reason: str
    needed: int
    available: int
    held: int
    debt: int
    affordable: int


@dataclass(frozen=True, slots=True)
class AccountSet:
    """An account is as it was told to be."""

    account_id: int
    status: str
    timezone: str
    overdraft_limit: int


@dataclass(frozen=True, slots=True)
class Voided:
    """A grant is void; `amount` went just now, `held` goes too unless running calls spend it.

    `new` is False when it was void already, and then nothing went.
    """

    grant: Grant
    amount: int
    held: int
    voided_at: int
    new: bool = True


@dataclass(frozen=True, slots=True)
class Adjusted:
    """An adjustment was posted: debt reduced, then a grant of the rest; or credits taken, then debt for the rest."""

    debt_reduced: int
    grant: Grant | None
    taken: tuple[PaidFrom, ...] = ()
    debt_added: int = 0


@dataclass(frozen=True, slots=True)
class Refunded:
    """A refund as recorded: Σ to + debt_reduced = amount. The same answer goes to everybody under one refund_id.

    to: a grant of id refund_id among them is the new one.
    """

    refund_id: int
    hold_id: int
    amount: int
    to: tuple[PaidBack, ...]
    debt_reduced: int
    reason: str
    created_at: int


@dataclass(frozen=True, slots=True)
class RefundRefused:
    """A refund was not made, nothing changed: only `left` of the charge is not refunded yet."""

    left: int


Outcome = Held | Ended | Issued | Opened | Refused | AccountSet | Voided | Adjusted | Refunded | RefundRefused


@dataclass(frozen=True, slots=True)
class Balance:
    """An account as of now, projected: what a reader sees without anything being written."""

    status: str
    timezone: str
    available: int
    held: int
    debt: int
    overdraft_limit: int
    grants: Sequence[tuple[Grant, int, int]]
    """Live grants in burn-down order, with balance and held."""


# Shared, as few pages have any: a batch is hundreds of pages, and each container of a page is work for the garbage
# collector. So these are replaced and not changed.
_NOTHING: Final[Mapping[int, Any]] = {}


def _nothing() -> Mapping[int, Any]:
    return _NOTHING


@dataclass(slots=True)
class Book:
    """One account's page, the engine's working copy: loaded, changed in memory, written back whole or thrown away.

    voided: when, by grant id. refunds: by hold id. What comes after `refunds` collects what the store has to write.
    """

    account_id: int
    status: str = "active"
    timezone: str = "UTC"
    debt: int = 0
    overdraft_limit: int = 0
    overdraft_held: int = 0
    next_due_at: int = NEVER
    created_at: int = 0
    exists: bool = False
    grants: dict[int, Grant] = field(default_factory=dict)
    balance: dict[int, int] = field(default_factory=dict)
    held: dict[int, int] = field(default_factory=dict)
    lost: dict[int, int] = field(default_factory=dict)
    holds: dict[int, Hold] = field(default_factory=dict)
    ended: dict[int, Ended] = field(default_factory=dict)
    voided: Mapping[int, int] = field(default_factory=_nothing)
    refunds: Mapping[int, tuple[Refunded, ...]] = field(default_factory=_nothing)
    changed: bool = False
    touched: set[int] = field(default_factory=set)
    reopened: frozenset[int] = frozenset()
    issued: list[Grant] = field(default_factory=list)
    placed: list[Hold] = field(default_factory=list)
    closed: list[Ended] = field(default_factory=list)
    refunded: tuple[Refunded, ...] = ()
    transfers: list[Transfer] = field(default_factory=list)
