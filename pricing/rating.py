"""Usage in, money out: the only multiplication of prices and the only rounding in the house.

Exact integers throughout. A charge rounds each line half to even, a quote rounds each line up, and a total is
the sum of its lines, so a receipt can be added up by hand and a quote is never below its charge.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from pricing.meters import INPUT, METERS, OUTPUT
from pricing.receipt import LineItem, Rating
from pricing.table import Price, RateCard
from pricing.usage import Quantity, Usage

__all__ = ["affordable_output", "in_run", "of_surcharges", "quote", "rate"]


def _half_even(numerator: int, denominator: int) -> int:
    whole, rest = divmod(numerator, denominator)
    twice = rest * 2
    return whole + (twice > denominator or (twice == denominator and whole % 2 == 1))


def _up(numerator: int, denominator: int) -> int:
    return -(-numerator // denominator)


def _amount(quantity: Quantity, price: Price, rounded: Callable[[int, int], int]) -> int:
    if isinstance(quantity, int):
        return rounded(quantity * price.nano, price.per)
    numerator, denominator = quantity.as_integer_ratio()
    return rounded(numerator * price.nano, denominator * price.per)


def rate(card: RateCard, usage: Usage, *, answered: bool = True) -> Rating:
    """Price what a call used.

    usage: quantities by meter; wholes include their parts. Meters without a price of their own count in their whole.
    answered: whether any output was received; without it `request` and other flat meters are not charged, nor `min`.
    Returns the model's lines in the vocabulary's order, what a bound adds or takes, the surcharges, and their sum in
    nanocredits.
    """
    lines: list[LineItem] = []
    total = 0
    for name, price in card.prices.items():
        meter = METERS[name]
        if meter.flat and not answered:
            continue
        quantity = _billable(card, usage, name)
        if not quantity:
            continue
        amount = _amount(quantity, price, _half_even)
        lines.append(LineItem(name, quantity, price.text, amount))
        total += amount
    total += _bound(card, lines, total, answered=answered)
    for name, price in card.surcharges.items():
        quantity = usage.get(name, 0)
        if quantity:
            amount = _amount(quantity, price, _half_even)
            lines.append(LineItem(name, quantity, price.text, amount))
            total += amount
    return Rating(tuple(lines), total, _unpriced(card, usage))


def of_surcharges(card: RateCard, rating: Rating) -> int:
    """What of a rating's total no bound bounds, in nanocredits."""
    return sum(line.amount for line in rating.lines if line.meter in card.surcharges)


def in_run(card: RateCard, rating: Rating, raw: int, charged: int) -> Rating:
    """Add to an unbounded rating the line that brings its run within the card's bounds, before the surcharges.

    raw: its own lines' sum; charged: what its run is charged for it; both in nanocredits.
    """
    if charged == raw:
        return rating
    name, bound = ("min", card.least) if charged > raw else ("max", card.most or card.least)
    line = LineItem(name, 1, f"{bound.text if bound else ''} / run", charged - raw)
    own = [item for item in rating.lines if item.meter not in card.surcharges]
    added = [item for item in rating.lines if item.meter in card.surcharges]
    return replace(rating, lines=(*own, line, *added), total=rating.total - raw + charged)


def _bound(card: RateCard, lines: list[LineItem], total: int, *, answered: bool) -> int:
    """Add the line that brings the model's own lines within their bounds; returns its amount, in nanocredits."""
    if card.most is not None and total > card.most.nano:
        name, bound = "max", card.most
    elif card.least is not None and answered and total < card.least.nano:
        name, bound = "min", card.least
    else:
        return 0
    lines.append(LineItem(name, 1, bound.text, bound.nano - total))
    return bound.nano - total


def _billable(card: RateCard, usage: Usage, name: str) -> Quantity:
    """The quantity that `name` itself is charged for: a whole less its separately priced parts.

    Providers' details may overlap (cached audio is both cached and audio); each token is billed once, in the part
    that the vocabulary lists first.
    """
    whole = METERS[name].whole
    if whole is None:
        parts = card.parts[name]
        if not parts:
            return usage.get(name, 0)
        rest = usage.get(name, 0)
        for part in parts:
            rest -= usage.get(part, 0)
        return max(rest, 0)
    left = usage.get(whole, 0)
    for part in card.parts.get(whole, ()):
        quantity = min(usage.get(part, 0), left)
        if part == name:
            return quantity
        left -= quantity
    return usage.get(name, 0)


def _unpriced(card: RateCard, usage: Usage) -> tuple[str, ...]:
    missing = []
    for name, quantity in usage.items():
        if quantity and name != "request" and not METERS[name].token and not card.covers(name):
            missing.append(name)
    return tuple(missing)


def quote(card: RateCard, bound: Usage) -> Rating:
    """Bound what a call can cost before it is made: every line at the dearest price its units can take, rounded up.

    bound: upper bounds by meter; of tokens, the wholes. The sum is at least what `rate` makes of any usage within it.
    """
    lines: list[LineItem] = []
    total = _quoted(card, bound, lines)
    total += _bound(card, lines, total, answered=True)
    total += _quoted_surcharges(card, bound, lines)
    return Rating(tuple(lines), total)


def _quoted(card: RateCard, bound: Usage, lines: list[LineItem]) -> int:
    total = 0
    for name, quantity in bound.items():
        price = (
            card.dearest_input if name == INPUT else card.dearest_output if name == OUTPUT else card.prices.get(name)
        )
        if price is None or not quantity:
            continue
        amount = _amount(quantity, price, _up) + card.slack.get(name, 0)
        lines.append(LineItem(name, quantity, price.text, amount))
        total += amount
    return total


def _quoted_surcharges(card: RateCard, bound: Usage, lines: list[LineItem]) -> int:
    total = 0
    for name, price in card.surcharges.items():
        quantity = bound.get(name, 0)
        if quantity:
            amount = _amount(quantity, price, _up)
            lines.append(LineItem(name, quantity, price.text, amount))
            total += amount
    return total


def affordable_output(card: RateCard, bound: Usage, budget: int) -> int | None:
    """Find how many output tokens a budget still pays for, beside the rest of `bound`.

    bound: as for `quote`; its `output_tokens` are left out of account. budget: nanocredits.
    Returns None where more output costs nothing more, and a negative number where even the rest does not fit.
    """
    price = card.dearest_output
    within = {name: quantity for name, quantity in bound.items() if name != OUTPUT}
    rest = _quoted(card, within, [])
    budget -= _quoted_surcharges(card, bound, [])
    if card.least is not None and budget < card.least.nano:
        return -1
    if card.most is not None and budget >= card.most.nano:
        return None
    if rest > budget:
        return -1
    if price is None or price.nano == 0:
        return None
    return max(0, (budget - rest - card.slack.get(OUTPUT, 0)) * price.per // price.nano)
