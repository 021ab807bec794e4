"""When published prices hold: ranges of input tokens, off-peak hours, and the numbers that both are made of."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from decimal import Decimal

from pricing.conditions import When
from pricing.errors import UnreadablePrice
from pricing.published_fields import TOKENS

__all__ = ["count", "number", "off_peak", "ranges"]

_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_HOURS = re.compile(r"([01]\d|2[0-3]):[0-5]\d-([01]\d|2[0-3]):[0-5]\d", re.ASCII)


def number(key: str, value: object) -> Decimal:
    """Read an exact, finite number; raises UnreadablePrice, of a float too: it has already lost the figure."""
    if isinstance(value, bool) or not isinstance(value, (int, Decimal)) or not Decimal(value).is_finite():
        raise UnreadablePrice(key, "is no exact number")
    return Decimal(value)


def count(tokens: int) -> str:
    """Write a number of tokens as an operator would."""
    return f"{tokens // 1000}k" if tokens % 1000 == 0 else str(tokens)


def ranges(key: str, value: object) -> list[tuple[int, dict[str, Decimal]]]:
    """Read ranges of input tokens: the number above which each begins, and the prices of the whole call in it.

    A range holds its end and not its beginning, and the last goes on. Raises UnreadablePrice where they leave a gap.
    """
    found: list[tuple[int, dict[str, Decimal]]] = []
    end = Decimal(0)
    for item in value if isinstance(value, list) else [None]:
        bounds = item.get("range") if isinstance(item, Mapping) else None
        if not isinstance(item, Mapping) or not isinstance(bounds, list) or len(bounds) != 2:
            raise UnreadablePrice(key, "has an item without `range`")
        begins, ends = (number(key, bound) for bound in bounds)
        if begins != end or ends <= begins or begins != int(begins):
            raise UnreadablePrice(key, "leaves a gap between its ranges")
        end = ends
        prices = {name: number(f"{key}.{name}", said) for name, said in item.items() if name != "range"}
        if not {"input_cost_per_token", "output_cost_per_token"} <= set(prices) or not set(prices) <= set(TOKENS):
            raise UnreadablePrice(key, "must price input and output in each range, and nothing that is not known")
        found.append((int(begins), prices))
    if not found:
        raise UnreadablePrice(key, "is empty")
    return found


def off_peak(key: str, value: object) -> Iterator[tuple[str, Decimal, When]]:
    """Read off-peak prices: the field that each replaces, its amount, and hours for it; raises UnreadablePrice."""
    if not isinstance(value, Mapping):
        raise UnreadablePrice(key, "is no mapping")
    prices = {name: number(f"{key}.{name}", said) for name, said in value.items() if name in TOKENS}
    strange = set(value) - set(prices) - {"windows", "hours_utc"}
    if strange:
        # The weekdays of another time zone begin at other hours than those that conditions know.
        raise UnreadablePrice(f"{key}.{min(strange)}", "is not known")
    whens: list[When] = []
    if "hours_utc" in value:
        whens.append(_utc(key, value["hours_utc"]))
    windows = value.get("windows", [])
    for window in windows if isinstance(windows, list) else [windows]:
        if not isinstance(window, Mapping) or not set(window) <= {"hours_utc", "weekdays"}:
            raise UnreadablePrice(key, "has a window that is not known")
        days = window.get("weekdays")
        when = _utc(key, window.get("hours_utc"))
        if days is not None:
            if not isinstance(days, list) or not days or not all(day in range(1, 8) for day in days):
                raise UnreadablePrice(key, "has weekdays that are not 1 (Monday) to 7")
            when += (("days", ", ".join(_DAYS[day - 1] for day in sorted(days))),)
        if not when:
            raise UnreadablePrice(key, "has a window that is always")
        whens.append(when)
    if not whens or not prices:
        raise UnreadablePrice(key, "says no hours, or no prices")
    for name, amount in prices.items():
        for when in whens:
            yield name, amount, when


def _utc(key: str, value: object) -> When:
    """Hours as a condition; none where they are the whole day, which a window is that ends where it begins."""
    windows = [value] if isinstance(value, str) else value
    if not isinstance(windows, list) or not all(isinstance(text, str) and _HOURS.fullmatch(text) for text in windows):
        raise UnreadablePrice(key, "has hours that are not like 16:30-00:30")
    if any(text[:5] == text[6:] for text in windows):
        return ()
    return (("utc", ", ".join(windows)),)
