"""What is said before a call (Quote) and after it (Rating): the same lines, on a bound and on what was used."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

from pricing.usage import Quantity

__all__ = ["LineItem", "Rating", "format_quantity"]


@dataclass(frozen=True, slots=True)
class LineItem:
    """One line of a bill; `amount` in nanocredits, `price` as the operator wrote it."""

    meter: str
    quantity: Quantity
    price: str
    amount: int


@dataclass(frozen=True, slots=True)
class Rating:
    """A priced usage: `total` is the sum of the lines' amounts, in nanocredits.

    `unpriced` names meters that were used and that the table has no price for; nothing was charged for them and
    the operator must be told.
    """

    lines: tuple[LineItem, ...]
    total: int
    unpriced: tuple[str, ...] = ()


def format_quantity(quantity: Quantity) -> str:
    """Write a quantity as a decimal string without exponent or trailing zeros."""
    if isinstance(quantity, int):
        return str(quantity)
    text = format(quantity.normalize() if quantity else Decimal(0), "f")
    return text
