"""What providers charge the operator: `cost:` in the config, and prices that are such a cost plus a margin."""

from __future__ import annotations

import re
from dataclasses import replace
from decimal import Decimal
from fractions import Fraction

from pricing.amounts import NANO
from pricing.conditions import TIME, Attributes, moment
from pricing.document import Node
from pricing.errors import UnpricedModel
from pricing.parsing import parse_model_price, price_table
from pricing.published import decimals, dollars
from pricing.published_fields import MILLIONS
from pricing.rating import rate
from pricing.table import FREE, ModelPrice, Price, PriceTable, RateCard, Rule, Rules
from pricing.usage import Usage

__all__ = ["cost_card", "cost_of", "cost_table", "parse_cost", "parse_margin", "with_margin"]

_MARGIN = re.compile(r"(\d{1,4}(?:\.\d{1,6})?)\s*%", re.ASCII)
_MOST_PERCENT = 1000
_MOST_COST = 2**63 - 1


def parse_margin(node: Node) -> Fraction:
    """Read what `cost_plus` adds to a cost, such as `25%`, as a share of it; raises ConfigError."""
    text = node.text()
    match = _MARGIN.fullmatch(text)
    percent = Fraction(match[1]) if match else None
    if percent is None or percent > _MOST_PERCENT:
        raise node.error(f"must be a margin from 0% to {_MOST_PERCENT}%, such as 25%, not `{text[:40]}`")
    return percent / 100


def parse_cost(node: Node, model: str) -> ModelPrice:
    """Read `cost:` written out, in dollars, as a price in nanodollars; raises ConfigError."""
    members = node.members()
    for name in ("min", "max", "cost_plus", "i_mean_it"):
        if name in members:
            raise members[name].key_error(f"`{name}` is of prices and not of costs; remove it")
    price = parse_model_price(node, model, Decimal(1))
    for meter, rules in price.rules.items():
        for rule in rules:
            for written in (rule.price, *(beyond for _, beyond in rule.steps)):
                if written.nano and not written.text.startswith("$"):
                    raise members[meter].error(
                        f"`{written.text}` is not in dollars, and providers know no credits; write `${written.text}`"
                    )
    return price


def with_margin(cost: ModelPrice, margin: Fraction, usd_per_credit: Decimal) -> Rules:
    """Make the prices of all meters of a cost plus a margin.

    cost: in nanodollars. The texts are those of the results, which do not tell what they were made of: in credits
    where these have at most 9 decimals, else in dollars.
    """
    return {
        meter: tuple(_rule(meter, rule, margin, usd_per_credit) for rule in rules)
        for meter, rules in cost.rules.items()
    }


def _rule(meter: str, rule: Rule, margin: Fraction, usd: Decimal) -> Rule:
    steps = tuple((number, _marked(meter, price, margin, usd)) for number, price in rule.steps)
    return replace(rule, price=_marked(meter, rule.price, margin, usd), steps=steps)


def _marked(meter: str, price: Price, margin: Fraction, usd: Decimal) -> Price:
    if price == FREE:
        return price
    in_dollars = Fraction(price.nano, price.per) / NANO * (1 + margin)
    credits = in_dollars / Fraction(usd)
    return Price.of(_text(meter, credits) or dollars(meter, in_dollars), credits * NANO)


def _text(meter: str, credits: Fraction) -> str | None:
    """A price in credits, by the million where units are small; None where that has more than 9 decimals."""
    shown = credits * 1_000_000 if meter in MILLIONS else credits
    digits = decimals(shown)
    if digits is None or digits > 9:
        return None
    whole, rest = divmod(int(shown * 10**digits), 10**digits)
    unit = " / 1M" if meter in MILLIONS else ""
    return f"{whole}.{rest:0{digits}d}{unit}" if digits else f"{whole}{unit}"


def cost_table(cost: ModelPrice) -> PriceTable:
    """Make a table of what one model costs, to take its cards from; in nanodollars."""
    return price_table({cost.model: cost})


def cost_card(costs: PriceTable, attributes: Attributes) -> RateCard:
    """Take the card of such a table's one model; raises UnpricedModel."""
    (model,) = costs.models
    return costs.card(model, None, attributes)


def cost_of(costs: PriceTable, usage: Usage, attributes: Attributes, now: int, *, answered: bool) -> int | None:
    """What a provider takes for a call, in nanodollars, or None where that can't be said; now: microseconds.

    costs: as `cost_table` makes it. Nothing is said rather than too little of what was used and is in no price list,
    nor what no database can keep.
    """
    try:
        card = cost_card(costs, {**attributes, TIME: moment(now)})
    except UnpricedModel:
        return None
    rating = rate(card, usage, answered=answered)
    return None if rating.unpriced or rating.total > _MOST_COST else rating.total
