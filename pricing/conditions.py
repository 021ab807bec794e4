"""What a price may depend on: what a request asks for, where it is answered, when, and how long its input is."""

from __future__ import annotations

import re
from collections.abc import Mapping

from pricing.document import Node
from pricing.meters import INPUT

__all__ = [
    "ATTRIBUTES",
    "TIME",
    "Attributes",
    "When",
    "above",
    "first_moment",
    "holds",
    "implies",
    "moment",
    "parse_when",
    "timed",
]

Attributes = Mapping[str, str]
"""What is known of a request that a price may depend on, such as `service_tier: flex`."""

When = tuple[tuple[str, str], ...]
"""Conditions, all of which must hold."""

ATTRIBUTES = ("service_tier", "quality", "size", "resolution", "search_context_size", "region")
"""What must be as written."""

TIME = "time"
"""The attribute that says when a call was admitted, as `moment` writes it."""

_UTC = "utc"
_DAYS = "days"
_NAMES = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_KNOWN = (*ATTRIBUTES, INPUT, _UTC, _DAYS)
_ABOVE = re.compile(r">\s*(\d{1,9})\s*([kM]?)", re.ASCII)
_HOURS = re.compile(r"([01]\d|2[0-3]):([0-5]\d)\s*-\s*(?:([01]\d|2[0-3]):([0-5]\d)|24:00)", re.ASCII)
_UNITS = {"": 1, "k": 1_000, "M": 1_000_000}
_DAY_MINUTES = 24 * 60
_EPOCH_WEEKDAY = 3  # 1970-01-01 was a Thursday
_MINUTE = 60_000_000


def moment(now: int) -> str:
    """Write a time as far as prices depend on it: the UTC weekday, hour and minute; now: microseconds."""
    minutes = now // _MINUTE
    days, minute = divmod(minutes, _DAY_MINUTES)
    return f"{_NAMES[(days + _EPOCH_WEEKDAY) % 7]} {minute // 60:02d}:{minute % 60:02d}"


def first_moment(when: When) -> str:
    """A moment at which conditions on it hold, as `moment` writes it."""
    asked = dict(when)
    return f"{_days(asked.get(_DAYS, _NAMES[0]))[0]} {asked.get(_UTC, '12:00')[:5]}"


def timed(when: When) -> bool:
    """Whether conditions depend on when a call was admitted."""
    return any(name in (_UTC, _DAYS) for name, _ in when)


def above(when: When) -> int | None:
    """The input tokens above which the conditions hold, None where they hold for any."""
    return next((_threshold(text) for name, text in when if name == INPUT), None)


def holds(when: When, attributes: Attributes, input_above: int) -> bool:
    """Whether all conditions hold; input_above: the input is known to have more tokens than this."""
    for name, text in when:
        if name == INPUT:
            if input_above < _threshold(text):
                return False
        elif name in (_UTC, _DAYS):
            day, _, clock = attributes[TIME].partition(" ")
            if not (day in _days(text) if name == _DAYS else _within(clock, text)):
                return False
        elif attributes.get(name) != text:
            return False
    return True


def implies(when: When, other: When) -> bool:
    """Whether whatever fulfils `when` fulfils `other` too, as far as that can be told."""
    given = dict(when)
    return all(
        given.get(name) == text or (name == INPUT and INPUT in given and _threshold(given[INPUT]) >= _threshold(text))
        for name, text in other
    )


def parse_when(node: Node) -> When:
    """Read a `when:` mapping; what it says is kept in one way of writing it. Raises ConfigError."""
    pairs = node.fields(_KNOWN)
    if not pairs:
        raise node.error(f"names nothing; known: {', '.join(_KNOWN)}")
    return tuple((name, _parse(name, child)) for name, child in pairs.items())


def _parse(name: str, node: Node) -> str:
    text = node.text()
    if name == INPUT:
        match = _ABOVE.fullmatch(text)
        if match is None or not int(match[1]):
            raise node.error(f'must be a number of tokens such as "> 200k", not `{text[:40]}`')
        return f"> {match[1]}{match[2]}"
    if name == _UTC:
        windows = [_HOURS.fullmatch(window.strip()) for window in text.split(",")]
        if not all(windows):
            raise node.error(f'must be hours such as "16:30-00:30", several divided by commas, not `{text[:40]}`')
        return ", ".join(re.sub(r"\s", "", match[0]) for match in windows if match)
    if name == _DAYS:
        days = [day.strip().lower() for day in text.split(",")]
        if not all(day in _NAMES for day in days):
            raise node.error(f'must be days such as "sat, sun"; known: {", ".join(_NAMES)}')
        return ", ".join(dict.fromkeys(days))
    return text


def _threshold(text: str) -> int:
    match = _ABOVE.fullmatch(text)
    if match is None:
        raise ValueError(f"`{text}` is no number of tokens")
    return int(match[1]) * _UNITS[match[2]]


def _days(text: str) -> list[str]:
    return text.split(", ")


def _within(clock: str, text: str) -> bool:
    """Whether a time of day is in any window; one that ends before it begins goes on past midnight."""
    for window in text.split(", "):
        begins, _, ends = window.partition("-")
        if begins <= clock < ends or (ends <= begins and (clock >= begins or clock < ends)):
            return True
    return False
