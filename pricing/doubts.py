"""Prices that are probably slips: a thousand times what the provider takes, a thousandth of it, or below it."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from fractions import Fraction

from pricing.diffing import in_credits
from pricing.document import Node
from pricing.meters import METERS
from pricing.table import ModelPrice, Price, Rule

__all__ = ["MEANT", "doubts", "parse_meant"]

MEANT = "i_mean_it"
"""The member of a price that names the meters whose price is meant."""

_TIMES = 1000
_MILLION = 1_000_000
_NANO = 10**9


def doubts(price: ModelPrice, cost: ModelPrice, usd_per_credit: Decimal) -> Iterator[tuple[str, str]]:
    """List meters whose price is doubtful, with why; price: in nanocredits, cost: in nanodollars, of the same model.

    Prices are compared that have the same conditions; what the provider takes nothing for may cost anything.
    """
    for meter, rules in price.rules.items():
        theirs = {rule.when: rule.price for rule in cost.rules.get(meter, ())}
        for rule in rules:
            taken = theirs.get(rule.when)
            if taken is not None and taken.nano:
                said = _doubt(meter, rule, taken, usd_per_credit)
                if said is not None:
                    yield meter, said
                    break


def _doubt(meter: str, rule: Rule, taken: Price, usd: Decimal) -> str | None:
    cost = Fraction(taken.nano, taken.per)
    # The first units may be free, and those after them cheaper: each of them is looked at.
    sold = [
        Fraction(each.nano, each.per) * Fraction(usd) for each in (rule.price, *(beyond for _, beyond in rule.steps))
    ]
    count, unit = (_MILLION, " a million") if METERS[meter].token else (1, "")
    figures = f"`{rule.price.text}` is ${_said(min(sold), count)}{unit}, and the provider takes ${_said(cost, count)}"
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
