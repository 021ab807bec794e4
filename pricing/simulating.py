"""What calls come to under other prices, added up: before, after, and what the provider took."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TypeVar

__all__ = ["Kind", "Simulated", "Sum"]

_Key = TypeVar("_Key")
_MOST_AFFECTED = 10


@dataclass(slots=True)
class Sum:
    """Calls added up; before, after: nanocredits; cost: nanodollars, of those calls whose cost is known.

    sold_at: nanocredits before, by what a credit sold for then, in dollars as written; None where that was not kept.
    """

    calls: int = 0
    before: int = 0
    after: int = 0
    cost: int = 0
    without_cost: int = 0
    sold_at: dict[str | None, int] = field(default_factory=dict)

    def add(self, before: int, after: int, cost: int | None, usd: str | None = None) -> None:
        """Add a call."""
        self.calls += 1
        self.sold_at[usd] = self.sold_at.get(usd, 0) + before
        self.before += before
        self.after += after
        if cost is None:
            self.without_cost += 1
        else:
            self.cost += cost

    def add_sum(self, other: Sum) -> None:
        """Add what was added up already."""
        self.calls += other.calls
        self.before += other.before
        self.after += other.after
        self.cost += other.cost
        self.without_cost += other.without_cost
        for usd, before in other.sold_at.items():
            self.sold_at[usd] = self.sold_at.get(usd, 0) + before


Kind = tuple[str, str | None, str | None, int]
"""What calls are added up by: model, app, operation, and day since 1970."""


@dataclass(slots=True)
class Simulated:
    """All calls of a simulation; left_out: calls that can't be priced, by the reason: how many, and what they cost.

    affected: (how much it is off, account id, before, after) of the accounts that change most, largest first.
    """

    kinds: dict[Kind, Sum] = field(default_factory=dict)
    left_out: dict[str, Sum] = field(default_factory=dict)
    affected: list[tuple[int, int, int, int]] = field(default_factory=list)

    def add(self, kind: Kind, before: int, after: int, cost: int | None, usd: str | None) -> None:
        """Add a call; usd: what a credit sold for then."""
        found = self.kinds.get(kind)
        if found is None:
            found = self.kinds[kind] = Sum()
        found.add(before, after, cost, usd)

    def leave_out(self, reason: str, before: int, cost: int | None) -> None:
        """Add a call that has no price."""
        self.left_out.setdefault(reason, Sum()).add(before, 0, cost)

    def add_account(self, account: int, before: int, after: int) -> None:
        """Remember an account if it is among those that change most."""
        if before == after:
            return
        entry = (abs(after - before), account, before, after)
        if len(self.affected) < _MOST_AFFECTED:
            heapq.heappush(self.affected, entry)
        else:
            heapq.heappushpop(self.affected, entry)

    def total(self) -> Sum:
        """All calls that have a price."""
        return self._by(lambda kind: None).get(None, Sum())

    def by_model(self) -> dict[str, Sum]:
        """Calls by model, those with the largest charge first."""
        return _largest(self._by(lambda kind: kind[0]))

    def by_app(self) -> dict[str | None, Sum]:
        """Calls by app."""
        return _largest(self._by(lambda kind: kind[1]))

    def by_operation(self) -> dict[str | None, Sum]:
        """Calls by operation."""
        return _largest(self._by(lambda kind: kind[2]))

    def by_day(self) -> dict[int, Sum]:
        """Calls by day since 1970 in UTC, newest first."""
        return dict(sorted(self._by(lambda kind: kind[3]).items(), reverse=True))

    def most_affected(self) -> Iterator[tuple[int, int, int]]:
        """Account, before, after: of the accounts that change most."""
        for _, account, before, after in sorted(self.affected, reverse=True):
            yield account, before, after

    def _by(self, key: Callable[[Kind], _Key]) -> dict[_Key, Sum]:
        found: dict[_Key, Sum] = {}
        for kind, each in self.kinds.items():
            found.setdefault(key(kind), Sum()).add_sum(each)
        return found


def _largest(sums: dict[_Key, Sum]) -> dict[_Key, Sum]:
    return dict(sorted(sums.items(), key=lambda item: -max(item[1].before, item[1].after)))
