"""What the operator's config says to the ledger: the buckets' order and lifetimes, and what plans give."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ledger.burn import BucketOrder

__all__ = ["Allowance", "Plan", "Rules"]


@dataclass(frozen=True, slots=True)
class Allowance:
    """Credits that come anew every period and expire at its end; amount in nanocredits, above 0.

    every: day, week, month or year. calendar: periods begin on the 1st or on Mondays, not on the day that the account
    first had the allowance.
    """

    bucket: str
    amount: int
    every: str
    calendar: bool = False


@dataclass(frozen=True, slots=True)
class Plan:
    """What an account on it is given; at most one allowance a bucket. paid: money comes for it."""

    name: str
    allowances: tuple[Allowance, ...] = ()
    overdraft_limit: int = 0
    paid: bool = False

    def allowance(self, bucket: str) -> Allowance | None:
        return next((allowance for allowance in self.allowances if allowance.bucket == bucket), None)


@dataclass(frozen=True, slots=True)
class Rules:
    """A snapshot of the operator's rules, in force for a whole batch.

    lifetimes: default lifetimes of grants by bucket, in microseconds; none where a bucket's grants do not expire.
    pack_after: microseconds after its end when a month's journal is packed away, None for never.
    """

    order: BucketOrder = field(default_factory=dict)
    lifetimes: Mapping[str, int] = field(default_factory=dict)
    plans: Mapping[str, Plan] = field(default_factory=dict)
    pack_after: int | None = None

    def overdraft_limit(self, own: int | None, plan: str | None) -> int:
        """An account's overdraft limit: its own, else its plan's, in nanocredits."""
        if own is not None:
            return own
        found = self.plans.get(plan) if plan is not None else None
        return 0 if found is None else found.overdraft_limit
