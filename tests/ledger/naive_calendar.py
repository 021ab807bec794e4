"""Days and periods as people find them out: by looking at the calendar on the wall, and by counting dates.

`since` is the date from which weeks, months and years are counted; None: they begin on Mondays, the 1st, 1 January.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from functools import cache
from zoneinfo import ZoneInfo

from dateutil.relativedelta import relativedelta  # type: ignore[import-untyped]

__all__ = ["date_in", "dawn", "following", "latest", "times_in_400_years"]

_DAY = timedelta(days=1)
_LONG = {"week": relativedelta(weeks=1), "month": relativedelta(months=1), "year": relativedelta(years=1)}


def date_in(zone: str, at: int) -> date:
    """The date on a wall in that zone; at: microseconds since 1970."""
    return datetime.fromtimestamp(at // 1_000_000, ZoneInfo(zone)).date()


@cache
def dawn(zone: str, day: date) -> int:
    """The first microsecond at which a wall in that zone shows that date, or a later one where it never shows it."""
    noon = int(datetime(day.year, day.month, day.day, 12, tzinfo=UTC).timestamp())
    before, shown = noon - 86_400 * 3 // 2, noon + 86_400
    while shown - before > 1:
        middle = (before + shown) // 2
        if date_in(zone, middle * 1_000_000) >= day:
            shown = middle
        else:
            before = middle
    return shown * 1_000_000


def following(every: str, since: date | None, day: date) -> date:
    """The first date after `day` on which a period begins."""
    return next(begun for begun in _beginnings(every, since, day + _DAY) if begun > day)


@cache
def latest(every: str, since: date | None, day: date) -> date | None:
    """The last date up to `day` on which a period began, if any had."""
    found = None
    for begun in _beginnings(every, since, day):
        if begun > day:
            return found
        found = begun
    return found


def _beginnings(every: str, since: date | None, day: date) -> Iterator[date]:
    """The dates on which periods begin, from one that is early enough to be compared with `day`."""
    if every == "day":
        since = day
    elif since is None:
        since = day
        while not _by_the_calendar(every, since):
            since -= _DAY
    number = 0
    while True:
        # Never chained: so many months after the first day, not a month after the last.
        yield since + (timedelta(days=number) if every == "day" else _LONG[every] * number)
        number += 1


def _by_the_calendar(every: str, day: date) -> bool:
    if every == "week":
        return day.isoweekday() == 1
    return day.day == 1 and (every == "month" or day.month == 1)


def times_in_400_years(every: str) -> int:
    """How often a period comes until the calendar repeats itself."""
    days = (date(2401, 1, 1) - date(2001, 1, 1)).days
    return {"day": days, "week": days // 7, "month": 400 * 12, "year": 400}[every]
