"""What the ledger answers: a command's outcome, refusals among them. Amounts in nanocredits, times in microseconds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

from ledger.model import Claimed, Grant, Hold, Limit, PaidBack, PaidFrom, Run

__all__ = [
    "AccountSet",
    "Adjusted",
    "ClockSet",
    "Closed",
    "Ended",
    "Forgotten",
    "Held",
    "Issued",
    "LimitSet",
    "Opened",
    "Outcome",
    "PlanSet",
    "RefundRefused",
    "Refunded",
    "Refused",
    "Voided",
    "expect",
]

_Kind = TypeVar("_Kind")


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
    limits: tuple[tuple[str, int], ...] = ()


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

    reason: `insufficient` (not even with nothing held), `held` (own running calls stand in the way), `limit` (a spend
    limit), `plan` (the plan does not have it), `suspended`, `closed`, `large` (for a hold placed with `within`), or
    `claimed`: it is the same call as another, running or answered, and that one is `claimed`.
    available: max(0, unheld credits less debt). affordable: the largest hold that would fit with nothing held.
    fits_at: when renewals make it fit, if they do. limit: the spend limit that is in the way, as of now. plan: the
    account's. run: what the call's run has come to.
    """

    reason: str
    needed: int
    available: int
    held: int
    debt: int
    affordable: int
    fits_at: int | None = None
    limit: Limit | None = None
    plan: str | None = None
    run: Run | None = None
    claimed: Claimed | None = None


@dataclass(frozen=True, slots=True)
class AccountSet:
    """An account is as it was told to be; overdraft_limit: its own, or its plan's."""

    account_id: int
    status: str
    timezone: str
    overdraft_limit: int


@dataclass(frozen=True, slots=True)
class PlanSet:
    """An account has changed its plan, or will at `at`; grants: what it got for that just now."""

    plan: str | None
    at: int
    grants: tuple[Grant, ...]


@dataclass(frozen=True, slots=True)
class ClockSet:
    """A test clock shows `now`."""

    clock_id: int
    now: int


@dataclass(frozen=True, slots=True)
class Forgotten:
    """So many answers were let go."""

    answers: int


@dataclass(frozen=True, slots=True)
class Closed:
    """A range of the journal was sealed or packed; done: False where it was not what had been read any more."""

    done: bool


@dataclass(frozen=True, slots=True)
class LimitSet:
    """A spend limit is as it was told to be; None: there is none."""

    limit: Limit | None


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
    """An adjustment as recorded: debt reduced, then a grant of the rest; or credits taken, then debt for the rest.

    The same answer goes to everybody under one adjustment_id.
    """

    adjustment_id: int
    amount: int
    reason: str
    created_at: int
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


Outcome = (
    Held
    | Ended
    | Issued
    | Opened
    | Refused
    | AccountSet
    | PlanSet
    | LimitSet
    | ClockSet
    | Forgotten
    | Closed
    | Voided
    | Adjusted
    | Refunded
    | RefundRefused
)


def expect(kind: type[_Kind], outcome: Outcome) -> _Kind:
    """Say which kind of outcome a command has; any other is a mistake of ours."""
    assert isinstance(outcome, kind)
    return outcome
