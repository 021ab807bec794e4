"""Usage in, money out: the only multiplication of prices and the only rounding in the house.

Exact integers throughout. A charge rounds each line half to even, a quote rounds each line up, and a total is
the sum of its lines, so a receipt can be added up by hand and a quote is never below its charge.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

from pricing.meters import INPUT, METERS, OUTPUT
from pricing.receipt import LineItem, Rating
from pricing.table import Price, RateCard, Step
from pricing.usage import Quantity, Usage

__all__ = ["affordable_output", "in_run", "of_surcharges", "quote", "quote_apart", "rate"]


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
    card = card.at(usage.get(INPUT, 0))
    lines: list[LineItem] = []
    total = 0
    billable = _billable(card, usage)
    for name, price in card.prices.items():
        quantity = billable.get(name)
        if quantity and (answered or not METERS[name].flat):
            total += _add(lines, name, quantity, price, card.steps.get(name), _half_even)
    total += _bound(card, lines, total, answered=answered)
    total += _surcharges(card, usage, lines, _half_even)
    return Rating(tuple(lines), total, _unpriced(card, usage))


def _add(
    lines: list[LineItem],
    name: str,
    quantity: Quantity,
    price: Price,
    steps: tuple[Step, ...] | None,
    rounded: Callable[[int, int], int],
) -> int:
    """Add the line of a meter, or one for each price that its units come to; returns their sum, in nanocredits."""
    if not steps:
        amount = _amount(quantity, price, rounded)
        lines.append(LineItem(name, quantity, price.text, amount))
        return amount
    total = 0
    begins: Quantity = 0
    ends = (*(number for number, _ in steps), quantity)
    for current, end in zip((price, *(beyond for _, beyond in steps)), ends, strict=True):
        units = min(quantity, end) - begins
        if units <= 0:
            break
        amount = _amount(units, current, rounded)
        lines.append(LineItem(name, units, current.text, amount))
        total, begins = total + amount, begins + units
    return total


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


def _billable(card: RateCard, usage: Usage) -> dict[str, Quantity]:
    """The quantities that meters themselves are charged for: a whole less its separately priced parts.

    Providers' details may overlap (cached audio is both cached and audio); each token is billed once, in the part
    that the vocabulary lists first.
    """
    found: dict[str, Quantity] = {}
    for name in card.roots:
        quantity = usage.get(name)
        if quantity:
            _share_out(card.parts, usage, name, quantity, found)
    return found


def _share_out(
    parts: Mapping[str, tuple[str, ...]], usage: Usage, name: str, quantity: Quantity, found: dict[str, Quantity]
) -> None:
    """Give a meter's parts what they take of its quantity, and itself the rest."""
    for part in parts[name]:
        taken = min(usage.get(part, 0), quantity)
        if taken:
            quantity -= taken
            _share_out(parts, usage, part, taken, found)
    found[name] = quantity


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
    if not card.bands:
        return _quote(card, bound)
    return max(
        (_quote(within, {**bound, INPUT: most}) for within, most in _reachable(card, bound)),
        key=lambda rating: rating.total,
    )


def quote_apart(card: RateCard, bound: Usage) -> tuple[int, int]:
    """Bound the model's own lines and the surcharges each for themselves, in nanocredits, without the card's bounds.

    What a run's bounds take off the one says nothing of the other: the dearest of each may be of different lengths.
    """
    apart = [
        (_quoted(within, limited, []), _surcharges(within, limited, [], _up))
        for within, most in _reachable(card, bound)
        for limited in ({**bound, INPUT: most},)
    ]
    return max(own for own, _ in apart), max(added for _, added in apart)


def _reachable(card: RateCard, bound: Usage) -> Iterator[tuple[RateCard, Quantity]]:
    """The cards that a call within a bound may be rated by, with the most input tokens it can have in each."""
    most = bound.get(INPUT, 0)
    found = card
    for number, following in card.bands:
        if most <= number:
            break
        yield found, number
        found = following
    yield found, most


def _quote(card: RateCard, bound: Usage) -> Rating:
    lines: list[LineItem] = []
    total = _quoted(card, bound, lines)
    total += _bound(card, lines, total, answered=True)
    total += _surcharges(card, bound, lines, _up)
    return Rating(tuple(lines), total)


def _quoted(card: RateCard, bound: Usage, lines: list[LineItem]) -> int:
    total = 0
    for name, quantity in bound.items():
        dearest = card.dearest_input if name == INPUT else card.dearest_output if name == OUTPUT else None
        price = dearest or card.prices.get(name)
        if price is None or not quantity:
            continue
        if dearest is None:
            total += _add(lines, name, quantity, price, card.steps.get(name), _up)
            continue
        # At the dearest of its prices, those of its steps and parts too, however many lines it comes to.
        amount = _amount(quantity, price, _up) + card.slack.get(name, 0)
        lines.append(LineItem(name, quantity, price.text, amount))
        total += amount
    return total


def _surcharges(card: RateCard, usage: Usage, lines: list[LineItem], rounded: Callable[[int, int], int]) -> int:
    total = 0
    for name, price in card.surcharges.items():
        quantity = usage.get(name, 0)
        if quantity:
            total += _add(lines, name, quantity, price, card.steps.get(name), rounded)
    return total


def affordable_output(card: RateCard, bound: Usage, budget: int) -> int | None:
    """Find how many output tokens a budget still pays for, beside the rest of `bound`.

    bound: as for `quote`; its `output_tokens` are left out of account. budget: nanocredits.
    Returns None where more output costs nothing more, and a negative number where even the rest does not fit.
    """
    if not card.bands:
        return _affordable(card, bound, budget)
    found = [_affordable(within, {**bound, INPUT: most}, budget) for within, most in _reachable(card, bound)]
    return min((output for output in found if output is not None), default=None)


def _affordable(card: RateCard, bound: Usage, budget: int) -> int | None:
    price = card.dearest_output
    within = {name: quantity for name, quantity in bound.items() if name != OUTPUT}
    rest = _quoted(card, within, [])
    budget -= _surcharges(card, bound, [], _up)
    if card.least is not None and budget < card.least.nano:
        return -1
    if card.most is not None and budget >= card.most.nano:
        return None
    if rest > budget:
        return -1
    if price is None or price.nano == 0:
        return None
    return max(0, (budget - rest - card.slack.get(OUTPUT, 0)) * price.per // price.nano)
