"""Price tables in the order in which they come into force."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from pricing.diffing import diff
from pricing.table import PriceTable

__all__ = ["Schedule"]


@dataclass(frozen=True, slots=True)
class Schedule:
    """Tables, each with the time from which it is in force, in microseconds: 0 for the first, then later and later."""

    steps: tuple[tuple[int, PriceTable], ...]

    def at(self, now: int) -> PriceTable:
        """The table in force."""
        return self._current(now)[1]

    def since(self, now: int) -> int:
        """From when on the table in force is so; 0 for the first."""
        return self._current(now)[0]

    def _current(self, now: int) -> tuple[int, PriceTable]:
        return [step for step in self.steps if step[0] <= now][-1]

    def upcoming(self, now: int) -> list[tuple[int, PriceTable]]:
        """What comes into force later."""
        return [step for step in self.steps if step[0] > now]

    def versions(self) -> list[tuple[int, str]]:
        """Each step's time and version."""
        return [(begins, table.version) for begins, table in self.steps]

    def same_from(self, now: int, other: Schedule) -> bool:
        """Whether from now on both come to the same; what was in force before makes no difference."""
        return self._from(now) == other._from(now)

    def _from(self, now: int) -> tuple[str, list[tuple[int, str]]]:
        return self.at(now).version, [(begins, table.version) for begins, table in self.upcoming(now)]

    def changes(self, now: int, before: PriceTable | None, unit: str) -> list[tuple[int, list[str]]]:
        """Say in words what changes from now on, by the time from when; before: what was in force, if anything was."""
        current = self._current(now)
        tables = [current, *self.upcoming(now)]
        first = [] if before is None else [(current[0], list(map(str, diff(before, current[1], unit))))]
        return first + [
            (begins, list(map(str, diff(earlier, table, unit))))
            for (_, earlier), (begins, table) in itertools.pairwise(tables)
        ]
