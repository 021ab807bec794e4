"""Periods against slow, independent reckonings: clocks that are walked, python-dateutil, and laws."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo, available_timezones

import pytest
from dateutil.relativedelta import relativedelta  # type: ignore[import-untyped]
from hypothesis import given, settings
from hypothesis import strategies as st

from ledger.calendar import CALENDAR, EVERY, local_date, midnight, next_span
from tests.ledger.words import microseconds_at

_SECOND = 1_000_000
_HOUR = 3_600 * _SECOND
_DAY = 24 * _HOUR
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_ZONES = sorted(zone for zone in available_timezones() if "/" in zone and not zone.startswith(("Etc/", "posix")))
_HARD = (
    "Africa/Cairo",
    "America/Havana",
    "Asia/Beirut",
    "Pacific/Apia",
    "Australia/Lord_Howe",
    "Pacific/Kiritimati",
    "Pacific/Pago_Pago",
    "America/Asuncion",
    "Africa/Casablanca",
    "Asia/Kathmandu",
    "UTC",
)


def clock(zone: ZoneInfo, at: int) -> date:
    """What the calendar on the wall shows; from UTC to local time there are neither gaps nor folds."""
    return datetime.fromtimestamp(at // _SECOND, zone).date()


def first_instant(zone: ZoneInfo, day: date) -> int:
    """The first second at which the calendar on the wall shows that day or a later one, by walking up to it."""
    at = int((datetime(day.year, day.month, day.day, tzinfo=UTC) - _EPOCH).total_seconds()) * _SECOND - 15 * _HOUR
    assert clock(zone, at) < day
    for seconds in (4 * 3_600, 1_200, 300, 60, 15, 5, 1):
        while clock(zone, at + seconds * _SECOND) < day:
            at += seconds * _SECOND
    return at + _SECOND


def days_of(zone_name: str, year: int, years: int) -> list[date]:
    """Days worth a look: those beside a change of the zone's offset, each month's first and last, and leap days."""
    zone = ZoneInfo(zone_name)
    days: set[date] = set()
    day, last = date(year, 1, 1), date(year + years, 1, 1)
    before = None
    while day < last:
        offset = datetime(day.year, day.month, day.day, 12, tzinfo=UTC).astimezone(zone).utcoffset()
        if offset != before:
            days |= {day + timedelta(days=near) for near in range(-2, 3)}
        if day.day in (1, 28, 29, 31) and (day.month in (1, 2) or day.day == 1):
            days.add(day)
        before = offset
        day += timedelta(days=1)
    return sorted(days)


@pytest.mark.parametrize("part", range(4))
def test_midnight_is_the_first_instant_at_which_a_clock_shows_the_day(part: int) -> None:
    """In 200 zones and over 6 years a day begins when the wall's calendar turns to it, whatever the clocks are put."""
    zones = sorted({*_HARD, *_ZONES[:: max(1, len(_ZONES) // 190)]})
    assert len(zones) >= 200
    for name in zones[part::4]:
        zone = ZoneInfo(name)
        for day in days_of(name, 2023, 6):
            found = midnight(name, day.toordinal())
            assert found == first_instant(zone, day), f"{name} {day}"
            assert local_date(name, found) >= day.toordinal() > local_date(name, found - 1)


def test_a_midnight_that_does_not_come_is_the_end_of_the_gap() -> None:
    """On 24 April 2026 Cairo's clocks go from 23:59:59 to 01:00, and the day before lasts its 24 hours."""
    assert midnight("Africa/Cairo", date(2026, 4, 24).toordinal()) == microseconds_at("2026-04-23 22:00")
    assert midnight("Africa/Cairo", date(2026, 4, 25).toordinal()) == microseconds_at("2026-04-24 21:00")


def test_a_midnight_that_comes_twice_is_the_first() -> None:
    """On 1 November 2026 Havana's clocks go from 00:59:59 to 00:00: the day has 25 hours and begins once."""
    first = microseconds_at("2026-11-01 04:00")
    assert midnight("America/Havana", date(2026, 11, 1).toordinal()) == first
    assert midnight("America/Havana", date(2026, 11, 2).toordinal()) == first + 25 * _HOUR
    label = date(2026, 11, 1).toordinal()
    for now in (first, first + _HOUR - 1, first + _HOUR, first + 2 * _HOUR):
        assert next_span("day", CALENDAR, "America/Havana", now) == (label, first + 25 * _HOUR)


def test_a_day_that_does_not_come_has_no_period() -> None:
    """On 30 December 2011 Apia skipped a day: the 29th is followed by the 31st, and no period is empty."""
    end = microseconds_at("2011-12-30 10:00")
    skipped, next_day = date(2011, 12, 30).toordinal(), date(2011, 12, 31).toordinal()
    assert midnight("Pacific/Apia", skipped) == midnight("Pacific/Apia", next_day) == end
    assert next_span("day", CALENDAR, "Pacific/Apia", end - 1) == (skipped - 1, end)
    assert next_span("day", CALENDAR, "Pacific/Apia", end, skipped - 1) == (next_day, end + _DAY)
    # A month that would begin on the day that does not come begins on the next.
    anchor = date(2011, 8, 30).toordinal()
    label, _ = next_span("month", anchor, "Pacific/Apia", end, date(2011, 11, 30).toordinal())
    assert label == skipped


@pytest.mark.parametrize("day", [date(2024, 1, 31), date(2024, 2, 29), date(2023, 8, 30), date(2023, 3, 1)])
@pytest.mark.parametrize(("every", "step"), [("month", 1), ("year", 12)])
def test_months_and_years_are_those_of_dateutil(day: date, every: str, step: int) -> None:
    """Months are the anchor's day so many months on, cut to the month's length, never chained."""
    at = midnight("Europe/Berlin", day.toordinal())
    label: int | None = None
    for months in range(0, 12 * 12, step):
        span = next_span(every, day.toordinal(), "Europe/Berlin", at, label)
        assert date.fromordinal(span.label) == day + relativedelta(months=months)
        following = day + relativedelta(months=months + step)
        assert span.ends_at == midnight("Europe/Berlin", following.toordinal())
        label, at = span.label, span.ends_at


def test_weeks_begin_on_mondays_or_on_the_anchors_day() -> None:
    """By the calendar a week runs from Monday to Monday, else from the anchor's day of the week."""
    thursday = microseconds_at("2026-11-19 12:00")
    assert next_span("week", CALENDAR, "UTC", thursday) == (
        date(2026, 11, 16).toordinal(),
        microseconds_at("2026-11-23 00:00"),
    )
    saturday = date(2026, 11, 21).toordinal()
    assert next_span("week", saturday, "UTC", thursday).ends_at == microseconds_at("2026-11-21 00:00")


def test_the_calendar_ends_somewhere() -> None:
    """A time that no date can be made of is refused instead of wrapping round."""
    with pytest.raises(OverflowError):
        next_span("day", CALENDAR, "UTC", 2**62)


_TIMES = st.integers(microseconds_at("2020-01-01 00:00"), microseconds_at("2037-01-01 00:00"))
_ANY_ZONE = st.sampled_from(_HARD) | st.sampled_from(_ZONES)
_ANY_EVERY = st.sampled_from(EVERY)
_ANCHORS = st.integers(date(2015, 1, 1).toordinal(), date(2036, 12, 31).toordinal()) | st.just(CALENDAR)


@settings(max_examples=600, deadline=None, derandomize=True, database=None)
@given(every=_ANY_EVERY, anchor=_ANCHORS, zone=_ANY_ZONE, now=_TIMES)
def test_a_period_is_on_now(every: str, anchor: int, zone: str, now: int) -> None:
    """The period that is on has begun and has not ended, and it is the same all the while."""
    span = next_span(every, anchor, zone, now)
    begins = midnight(zone, span.label)
    assert begins <= now < span.ends_at
    assert next_span(every, anchor, zone, begins) == span
    assert next_span(every, anchor, zone, span.ends_at - 1) == span


@settings(max_examples=300, deadline=None, derandomize=True, database=None)
@given(every=_ANY_EVERY, anchor=_ANCHORS, zone=_ANY_ZONE, now=_TIMES)
def test_consecutive_periods_touch(every: str, anchor: int, zone: str, now: int) -> None:
    """Without a change of zone one period ends where the next begins, and none is empty."""
    spans = [next_span(every, anchor, zone, now)]
    for _ in range(5):
        spans.append(next_span(every, anchor, zone, spans[-1].ends_at, spans[-1].label))
    for before, after in pairwise(spans):
        assert before.label < after.label
        assert midnight(zone, after.label) == before.ends_at < after.ends_at


_MOVES = st.lists(st.tuples(_ANY_ZONE, st.integers(0, 40 * 24), _ANY_EVERY, _ANCHORS), min_size=1, max_size=12)


@settings(max_examples=400, deadline=None, derandomize=True, database=None)
@given(now=_TIMES, moves=_MOVES)
def test_labels_only_ever_rise(now: int, moves: list[tuple[str, int, str, int]]) -> None:
    """Whatever zone, grid or kind of period comes next: its label is above the last and its end is to come."""
    label: int | None = None
    for zone, hours, every, anchor in moves:
        span = next_span(every, anchor, zone, now, label)
        assert label is None or span.label > label
        assert span.ends_at > now
        label, now = span.label, span.ends_at + hours * _HOUR


@settings(max_examples=200, deadline=None, derandomize=True, database=None)
@given(now=_TIMES, zones=st.lists(_ANY_ZONE, min_size=1, max_size=30))
def test_changes_of_zone_yield_no_second_day(now: int, zones: list[str]) -> None:
    """Who moves to another zone at every boundary gets a period a day, and those of the dates between the zones."""
    start, label, periods = now, None, 0
    for zone in zones:
        label, now = next_span("day", CALENDAR, zone, now, label)
        periods += 1
    # 26 hours lie between the first zone and the last: a date's beginning in one to its end in the other is 50.
    assert periods <= (now - start) // _DAY + 3
