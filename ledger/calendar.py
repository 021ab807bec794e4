"""When what renews renews: days, weeks, months and years in an account's time zone, pure.

A period is named by its label, the ordinal (`date.toordinal`) of the local date on which it begins. Labels only ever
rise: that is why no change of zone and no clock can yield one period twice.
"""

from __future__ import annotations

from calendar import monthrange
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from typing import Final, NamedTuple
from zoneinfo import ZoneInfo

__all__ = ["CALENDAR", "EVERY", "Span", "local_date", "midnight", "next_span"]

EVERY: Final = ("day", "week", "month", "year")
"""What a period can be, the shortest first."""

CALENDAR: Final = date(2001, 1, 1).toordinal()
"""The anchor of what renews by the calendar: the first of a month and of a year, and a Monday."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_LAST: Final = date.max.toordinal() - 400


class Span(NamedTuple):
    """One period: its label, and its end in microseconds since 1970, exclusive."""

    label: int
    ends_at: int


@lru_cache(maxsize=1024)
def _zone(name: str) -> ZoneInfo:
    return ZoneInfo(name)


def local_date(zone: str, at: int, day: int | None = None) -> int:
    """The date, as an ordinal, that a clock in `zone` shows at `at`, in microseconds since 1970; or that day of it."""
    local = (_EPOCH + timedelta(microseconds=at)).astimezone(_zone(zone)).date()
    return (local if day is None else local.replace(day=day)).toordinal()


def midnight(zone: str, day: int) -> int:
    """The first instant of a local date, in microseconds since 1970.

    The earlier where midnight comes twice, the end of the gap where it does not come, and where the whole day does not
    come the same as that of the next.
    """
    local = datetime.fromordinal(day).replace(tzinfo=_zone(zone))
    return (local.astimezone(UTC) - _EPOCH) // timedelta(microseconds=1)


def next_span(every: str, anchor: int, zone: str, now: int, after: int | None = None) -> Span:
    """The period that is on at `now`, or that begins then because the one labelled `after` has just ended.

    anchor: a date, as an ordinal, on which a period begins; months and years are counted from it and cut to the length
    of the month, never chained. Its label is above `after` and its end after `now`, always.
    """
    label = _boundary(every, anchor, local_date(zone, now))
    if after is not None and label <= after:
        label = _following(every, anchor, after)
    end = _following(every, anchor, label)
    while midnight(zone, end) <= now:
        label, end = end, _following(every, anchor, end)
    return Span(label, midnight(zone, end))


def _following(every: str, anchor: int, day: int) -> int:
    """The first boundary after a date."""
    if every == "day":
        return day + 1
    if every == "week":
        return day + 7 - (day - anchor) % 7
    step = 12 if every == "year" else 1
    months = _months(anchor, _boundary(every, anchor, day))
    return _shifted(anchor, months + step)


def _boundary(every: str, anchor: int, day: int) -> int:
    """The last boundary that is not after a date."""
    if not 366 < day < _LAST:
        raise OverflowError("the calendar ends here")
    if every == "day":
        return day
    if every == "week":
        return day - (day - anchor) % 7
    step = 12 if every == "year" else 1
    months = _months(anchor, day) // step * step
    found = _shifted(anchor, months)
    return found if found <= day else _shifted(anchor, months - step)


def _months(anchor: int, day: int) -> int:
    start, end = date.fromordinal(anchor), date.fromordinal(day)
    return (end.year - start.year) * 12 + end.month - start.month


def _shifted(anchor: int, months: int) -> int:
    """The anchor's day of the month so many months away, or that month's last."""
    start = date.fromordinal(anchor)
    year, month = divmod(start.year * 12 + start.month - 1 + months, 12)
    return date(year, month + 1, min(start.day, monthrange(year, month + 1)[1])).toordinal()
