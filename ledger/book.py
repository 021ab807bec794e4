"""One account's page, as the engine works on it, and what a reader sees of it. Amounts in nanocredits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from ledger.model import NEVER, Claimed, Grant, Hold, Limit, Period, Run, Transfer
from ledger.outcomes import Adjusted, Ended, Refunded

__all__ = [
    "Balance",
    "Book",
]


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
    at: int = 0
    created_at: int = 0
    plan: str | None = None
    next_plan: tuple[str | None, int] | None = None
    """The plan that comes, and when."""
    periods: Mapping[str, Period] = field(default_factory=dict)
    """By bucket: those that are on at `at`."""
    used_up: Sequence[tuple[str, int]] = ()
    """Of the periods that are on, the grants of which nothing is left: bucket, and what was spent of it."""


# Shared, as few pages have any: a batch is hundreds of pages, and each container of a page is work for the garbage
# collector. So these are replaced and not changed.
_NOTHING: Final[Mapping[Any, Any]] = {}


def _nothing() -> Mapping[Any, Any]:
    return _NOTHING


@dataclass(slots=True)
class Book:
    """One account's page, the engine's working copy: loaded, changed in memory, written back whole or thrown away.

    overdraft_limit: the account's own, None for its plan's. next_plan: what `plan` becomes at `next_plan_at`.
    periods: by bucket. clock: the test clock that it is bound to. seen_at: the latest time at which something was due;
    the page's time never goes back behind it. limited: it has, or had, a spend limit. voided: when, by grant id.
    refunds: by hold id. adjustments: by id, of those that were asked for. limits: by scope, of those scopes that were
    `asked` for. runs: by run and operation. claims: by key, None for one that is free, of those keys that were asked
    for. What comes after `claims` collects what the store has to write; answers: by key.
    """

    account_id: int
    status: str = "active"
    timezone: str = "UTC"
    debt: int = 0
    overdraft_limit: int | None = None
    overdraft_held: int = 0
    next_due_at: int = NEVER
    created_at: int = 0
    plan: str | None = None
    next_plan: str | None = None
    next_plan_at: int = NEVER
    periods: Mapping[str, Period] = field(default_factory=_nothing)
    clock: int | None = None
    seen_at: int = 0
    limited: bool = False
    exists: bool = False
    grants: dict[int, Grant] = field(default_factory=dict)
    balance: dict[int, int] = field(default_factory=dict)
    held: dict[int, int] = field(default_factory=dict)
    lost: dict[int, int] = field(default_factory=dict)
    holds: dict[int, Hold] = field(default_factory=dict)
    ended: dict[int, Ended] = field(default_factory=dict)
    voided: Mapping[int, int] = field(default_factory=_nothing)
    refunds: Mapping[int, tuple[Refunded, ...]] = field(default_factory=_nothing)
    adjustments: Mapping[int, Adjusted] = field(default_factory=_nothing)
    limits: dict[str, Limit] = field(default_factory=dict)
    asked: set[str] = field(default_factory=set)
    runs: dict[tuple[str, str], Run] = field(default_factory=dict)
    claims: Mapping[bytes, Claimed | None] = field(default_factory=_nothing)
    changed: bool = False
    touched: set[int] = field(default_factory=set)
    reopened: frozenset[int] = frozenset()
    issued: list[Grant] = field(default_factory=list)
    placed: list[Hold] = field(default_factory=list)
    closed: list[Ended] = field(default_factory=list)
    refunded: tuple[Refunded, ...] = ()
    adjusted: tuple[Adjusted, ...] = ()
    transfers: list[Transfer] = field(default_factory=list)
    limits_changed: set[str] = field(default_factory=set)
    runs_changed: set[tuple[str, str]] = field(default_factory=set)
    claims_changed: frozenset[bytes] = frozenset()
    answers: Mapping[bytes, bytes] = field(default_factory=_nothing)
