"""What one call used: meter → quantity."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal

from pricing.meters import METERS

__all__ = ["Quantity", "Usage", "impossible"]

Quantity = int | Decimal
Usage = Mapping[str, Quantity]
"""Quantities by meter. Wholes include their parts: `input_tokens` counts the cached ones too."""


def impossible(usage: Usage) -> str | None:
    """Say why this usage cannot have happened, or return None.

    Negative or non-integer tokens, an unknown meter, or a part above its whole make a whole usage untrustworthy:
    the caller replaces all of it by a count of its own, never single figures of it.
    """
    for name, quantity in usage.items():
        meter = METERS.get(name)
        if meter is None:
            return f"{name} is no meter"
        if isinstance(quantity, bool) or not isinstance(quantity, (int, Decimal)):
            return f"{name} is not a number"
        if meter.token and not isinstance(quantity, int):
            return f"{name} is not an integer"
        if quantity < 0:
            return f"{name} is negative"
    for name, quantity in usage.items():
        whole = METERS[name].whole
        if whole is not None and quantity > usage.get(whole, 0):
            return f"{name} is above {whole}"
    return None
