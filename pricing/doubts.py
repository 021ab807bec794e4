"""Prices that are probably slips: a thousand times what the provider takes, a thousandth of it, or below it."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from fractions import Fraction

from pricing.conditions import ATTRIBUTES, TIME, Attributes, When, first_moment
from pricing.diffing import in_credits
from pricing.document import Node
from pricing.meters import METERS
from pricing.parsing import price_table
from pricing.table import ModelPrice, Price, RateCard, Step

__all__ = ["MEANT", "compared", "doubts", "parse_meant"]

MEANT = "i_mean_it"
"""The member of a price that names the meters whose price is meant."""

_TIMES = 1000
_MILLION = 1_000_000
_NANO = 10**9
_NOON = "mon 12:00"
_TIER = "service_tier"


def doubts(
    price: ModelPrice, cost: ModelPrice, usd_per_credit: Decimal, attributes: Attributes | None = None
) -> Iterator[tuple[str, str]]:
    """List meters whose price is doubtful, with why; price: in nanocredits, cost: in nanodollars, of the same model.

    attributes: of who answers. What calls of every kind would pay is compared with what the provider takes for them: at
    any length and hour that either distinguishes, in any tier that both do; a part without a price is sold as its
    whole. What the provider takes nothing for may cost anything.
    """
    ours, theirs = price_table({price.model: price}), price_table({cost.model: cost})
    found: set[str] = set()
    for given in _kinds(price, cost, attributes or {}):
        card, taken = ours.card(price.model, None, given), theirs.card(cost.model, None, given)
        for number in sorted({0, *(each for each, _ in (*card.bands, *taken.bands))}):
            for meter, said in compared(card.at(number + 1), taken.at(number + 1), usd_per_credit):
                if meter not in found:
                    found.add(meter)
                    yield meter, said + _where(number, given, attributes or {})


def compared(card: RateCard, taken: RateCard, usd_per_credit: Decimal) -> Iterator[tuple[str, str]]:
    """List meters whose price on a card, in nanocredits, is doubtful beside what a provider takes, in nanodollars."""
    for meter, each in taken.prices.items():
        name = _sold_as(meter, card)
        if name is not None and each.nano:
            said = _doubt(meter, card.prices[name], card.steps.get(name, ()), each, usd_per_credit)
            if said is not None:
                yield meter, said


def _kinds(price: ModelPrice, cost: ModelPrice, attributes: Attributes) -> Iterator[Attributes]:
    """What calls can be, as far as either has conditions on it."""
    sold, taken = ({value for when in _whens(each) for name, value in when if name == _TIER} for each in (price, cost))
    tiers = sold & taken
    yield {TIME: _NOON, **attributes}
    for when in dict.fromkeys((*_whens(price), *_whens(cost))):
        asked = dict(when)
        if (_TIER not in asked or asked[_TIER] in tiers) and asked.get("region") in (None, attributes.get("region")):
            plain = {name: value for name, value in asked.items() if name in ATTRIBUTES}
            yield {TIME: first_moment(when), **attributes, **plain}


def _whens(price: ModelPrice) -> Iterator[When]:
    yield from (rule.when for rules in price.rules.values() for rule in rules if rule.when)
    yield from (factor.when for factor in price.factors)


def _sold_as(meter: str, card: RateCard) -> str | None:
    """The meter whose price a meter's units have, None where they are not sold."""
    name: str | None = meter
    while name is not None and name not in card.prices:
        name = METERS[name].whole
    return name


def _where(number: int, given: Attributes, attributes: Attributes) -> str:
    asked = [f"{name} {value}" for name, value in given.items() if name != TIME and attributes.get(name) != value]
    said = [*asked, *([f"input_tokens > {number}"] if number else [])]
    return f" (That is with {', '.join(said)}.)" if said else ""


def _doubt(meter: str, price: Price, steps: tuple[Step, ...], taken: Price, usd: Decimal) -> str | None:
    cost = Fraction(taken.nano, taken.per)
    # The first units may be free, and those after them cheaper: each of them is looked at.
    sold = [Fraction(each.nano, each.per) * Fraction(usd) for each in (price, *(beyond for _, beyond in steps))]
    count, unit = (_MILLION, " a million") if METERS[meter].token else (1, "")
    figures = f"`{price.text}` is ${_said(min(sold), count)}{unit}, and the provider takes ${_said(cost, count)}"
    if max(sold) >= _TIMES * cost:
        return f"{figures}: {_TIMES} times as much; is its unit right?"
    if min(sold) * _TIMES <= cost:
        return f"{figures}: {'nothing' if not min(sold) else 'a thousandth or less'}; is its unit right?"
    if min(sold) < cost:
        return f"{figures}: sold below cost."
    return None


def _said(each: Fraction, count: int) -> str:
    return in_credits(each * count / _NANO)


def parse_meant(price: Node) -> frozenset[str]:
    """Read the meters of a `price:` whose figures are meant, whatever the provider takes; raises ConfigError."""
    node = price.members().get(MEANT)
    if node is None:
        return frozenset()
    if not node.is_list:
        node.choice(("true",))
        return frozenset(METERS)
    return frozenset(item.choice(METERS) for item in node.items())
