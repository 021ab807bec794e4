"""What plans promise, as their documentation says it: which period comes next, what an upgrade adds, what is less."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta

from ledger.rules import Allowance, Plan
from tests.ledger.naive_calendar import date_in, dawn, following, latest, times_in_400_years

__all__ = ["Row", "longest", "next_row", "share", "worth"]

_DAY = timedelta(days=1)


@dataclass(slots=True)
class Row:
    """The last period of an allowance. since: the date that its periods are counted from, None once that is over.

    place: the how many-th allowance of the account it is. label: the date that the period is named by. entitled: the
    largest amount that it was given in full or in part; granted: what it was given in all.
    """

    place: int
    every: str
    since: date | None
    label: date
    starts: int
    ends: int
    entitled: int
    granted: int


def next_row(allowance: Allowance, last: Row | None, place: int, zone: str, now: int) -> Row:
    """The period that somebody who looks now finds begun; the last one has ended."""
    every, today = allowance.every, date_in(zone, now)
    # An allowance that is new to the account begins when somebody looks, and so does one that it had been without.
    new = last is None or last.since is None
    other_kind = last is not None and last.every != every
    if last is not None and last.since is not None and not other_kind:
        since = last.since
    else:
        since = today if last is None or new else date_in(zone, last.ends)
        if last is not None and since <= last.label:
            since = last.label + _DAY
    counted_from = None if allowance.calendar else since
    # It is the one that is on, or, where that is not above the last one's label, the one after the last.
    label = latest(every, counted_from, today)
    if last is not None and (label is None or label <= last.label):
        # One of another kind is cut off where it begins: the one that is on by the calendar is given, from that day.
        label = since if other_kind else following(every, counted_from, last.label)
    assert label is not None
    starts = now
    if last is not None and not new:
        # It follows the last one at once, unless there are some between that nobody looked at.
        starts = max(last.ends, dawn(zone, label)) if dawn(zone, label) <= now else last.ends
    ends = dawn(zone, following(every, counted_from, label))
    return Row(place, every, since, label, starts, ends, allowance.amount, allowance.amount)


def share(more: int, row: Row, now: int) -> int:
    """How many of `more` credits are still to come, if they came one by one all through the period."""
    total, left = row.ends - row.starts, row.ends - now
    return len([credit for credit in range(1, more + 1) if credit * total <= more * left])


def worth(plan: Plan | None) -> int:
    """What a plan gives in the long run; any plan is more than none."""
    if plan is None:
        return -1
    return sum(allowance.amount * times_in_400_years(allowance.every) for allowance in plan.allowances)


def longest(plan: Plan | None) -> list[str]:
    """The buckets of the plan's longest periods."""
    for every in ("year", "month", "week", "day"):
        buckets = [allowance.bucket for allowance in plan.allowances if allowance.every == every] if plan else []
        if buckets:
            return buckets
    return []
