"""What the ledger can be told to do. Amounts in nanocredits, times in microseconds since 1970 (UTC)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ledger.model import NEVER, Claim, Run
from ledger.seals import Seal

__all__ = [
    "Adjust",
    "Command",
    "ForgetAnswers",
    "IssueGrant",
    "KeepSeal",
    "OpenAccount",
    "PackSeal",
    "PlaceHold",
    "Refund",
    "RunShare",
    "SetAccount",
    "SetClock",
    "SetLimit",
    "SetPlan",
    "Settle",
    "Void",
    "VoidGrant",
]


@dataclass(frozen=True, slots=True)
class OpenAccount:
    """Open an account; doing so twice changes nothing.

    overdraft_limit: its own, None for its plan's. clock: the test clock that tells its time for good. welcome: what it
    is given at once, as (bucket, amount, grant id).
    """

    account_id: int
    timezone: str = "UTC"
    overdraft_limit: int | None = None
    plan: str | None = None
    clock: int | None = None
    welcome: tuple[str, int, int] | None = None


@dataclass(frozen=True, slots=True)
class SetAccount:
    """Change an account; None leaves as it is. status: active, suspended or closed, which is for good.

    timezone: of the periods to come, the one that is on ends when it would have. plans_overdraft: the plan's overdraft
    limit again, instead of its own.
    """

    account_id: int
    status: str | None = None
    timezone: str | None = None
    overdraft_limit: int | None = None
    plans_overdraft: bool = False


@dataclass(frozen=True, slots=True)
class SetPlan:
    """Change an account's plan: up at once, down at the end of its longest period; None for no plan.

    grant_ids: for what an upgrade gives, one for each allowance of the plan.
    """

    account_id: int
    plan: str | None
    grant_ids: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class SetLimit:
    """Limit what is spent in a scope, by day, month or ever; amount None: no longer.

    What was spent counts on, also while there is no limit, unless `per` is another: then it counts the calls that are
    placed from now on.
    """

    account_id: int
    scope: str
    amount: int | None
    per: str = "ever"


@dataclass(frozen=True, slots=True)
class SetClock:
    """Make a test clock, or move it on; it has a page of its own that nothing else is on."""

    account_id: int
    now: int
    create: bool = False


@dataclass(frozen=True, slots=True)
class ForgetAnswers:
    """Let go of answers that have been kept long enough; it has a page of its own that nothing else is on."""

    before: int
    account_id: int = 0


@dataclass(frozen=True, slots=True)
class IssueGrant:
    """Issue a grant; it repays debt first. paid: money came for it. source_key: at most one grant under each.

    expires_at: None for the bucket's default.
    """

    account_id: int
    grant_id: int
    bucket: str
    amount: int
    source: str = "admin"
    paid: bool = False
    effective_at: int | None = None
    expires_at: int | None = NEVER
    source_key: str | None = None
    note: str | None = None


@dataclass(frozen=True, slots=True)
class RunShare:
    """A call's part of what its run is charged for one operation: Σ raw over the run's calls, between two bounds.

    raw: what the call costs before the bounds, at most or exactly. floor: least applies, as it does to answered calls.
    close: makes the memo of what the run had come to and what the call is charged for it, in nanocredits; only for a
    Settle.
    """

    run: str
    operation: str
    raw: int
    least: int | None
    most: int | None
    floor: bool = True
    close: Callable[[Run, int], bytes] | None = None


@dataclass(frozen=True, slots=True)
class PlaceHold:
    """Pin credits for a call, in burn-down order.

    within: refuse as `large` what exceeds this fraction (1/within) of what is available, so that the caller can
    count exactly instead of bounding; 0 asks for no such check. memo: the call, opaque here. scopes: whose spend limits
    count, as far as there are any. run_limit: what the run whose scope is the last may spend at most, from now on.
    plans: those that have what is called, None where all do. share: comes on top of `amount`. claim: refused as
    `claimed` where another call has it.
    """

    account_id: int
    hold_id: int
    amount: int
    memo: bytes
    within: int = 0
    deadline: int = NEVER
    scopes: tuple[str, ...] = ()
    run_limit: int | None = None
    plans: frozenset[str | None] | None = None
    share: RunShare | None = None
    claim: Claim | None = None


@dataclass(frozen=True, slots=True)
class Settle:
    """End a hold with a charge, which may be below, at or above it, and is never refused for lack of credits.

    share: comes on top of `amount`, and its memo in place of `memo`. answer: is kept for whoever asks again under the
    hold's claim, opaque here, empty where only that it was given is; None frees the claim, as a Void does.
    """

    account_id: int
    hold_id: int
    amount: int
    memo: bytes
    share: RunShare | None = None
    answer: bytes | None = None


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
    """Correct an account by a signed amount; idempotent by id.

    Above 0 it writes off debt, and the rest is a new grant of the adjustment's id in the bucket. Below 0 it takes what
    no hold pins, in burn-down order, and the rest is debt.
    """

    account_id: int
    amount: int
    adjustment_id: int
    bucket: str
    reason: str
    expires_at: int | None = NEVER


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
    bonus_expires_at: int | None = NEVER


@dataclass(frozen=True, slots=True)
class KeepSeal:
    """Close a range of the journal, if it is still what was read: none but the account's lock says that it is whole.

    free: how many of its receipts are of calls that cost nothing.
    """

    account_id: int
    seal: Seal
    from_id: int
    free: int


@dataclass(frozen=True, slots=True)
class PackSeal:
    """Take a sealed range's transfers and receipts, by their ids, from their tables; packed: they are in it."""

    account_id: int
    seal: Seal
    packed: bytes
    transfers: tuple[int, ...]
    holds: tuple[int, ...]


Command = (
    OpenAccount
    | SetAccount
    | SetPlan
    | SetLimit
    | SetClock
    | ForgetAnswers
    | KeepSeal
    | PackSeal
    | IssueGrant
    | PlaceHold
    | Settle
    | Void
    | VoidGrant
    | Adjust
    | Refund
)
