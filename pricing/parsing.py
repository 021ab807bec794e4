"""From the operator's words to a price table, exactly, or a refusal with line and fix."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from decimal import Decimal
from fractions import Fraction

from pricing.amounts import NANO
from pricing.document import Node
from pricing.meters import INPUT, METERS, OUTPUT
from pricing.table import Price, PriceTable, RateCard

__all__ = ["parse_price", "parse_rate_card", "price_table"]

_PRICE = re.compile(r"(\$?)\s*(\d{1,12}(?:\.\d{1,15})?)(?:\s*/\s*(\d{1,12})?\s*([kM]?))?", re.ASCII)
_UNITS = {"": 1, "k": 1_000, "M": 1_000_000}
_LATER = ("min", "max", "per", "cost_plus", "multiply", "typical")
_MOST_PER_UNIT = 10**9 * NANO
"""No unit of anything costs more than 10⁹ credits."""


def parse_price(node: Node, meter: str, usd_per_credit: Decimal) -> Price:
    """Read `<amount> / <count>[k|M]`, in credits, or in dollars with `$`.

    A token price must say its unit: `40` may mean per token or per million, a millionfold difference.
    """
    if not node.is_null and node.is_list:
        raise node.error("price rules with `when` are not supported by this release; write one price")
    text = node.text()
    if text.lstrip("$ ").startswith("-"):
        raise node.error(f"`{text}` is negative; a price is 0 or more")
    match = _PRICE.fullmatch(text)
    if match is None or ("/" in text and not (match[3] or match[4])):
        raise node.error(
            f"`{text[:40]}` is no price; write `<amount> / <count>` such as `40 / 1M`, `$1.60 / 1M` or `15`"
        )
    dollars, amount, count, unit = match.groups()
    per = int(count or 1) * _UNITS[unit or ""]
    if per == 0:
        raise node.error(f"`{text}` is a price for 0 units; write a count such as `/ 1M`")
    value = Fraction(Decimal(amount))
    if value and METERS[meter].token and "/" not in text:
        raise node.error(
            f"`{text}` does not say for how many tokens; write `{text} / 1M` (per million) or `{text} / 1k`"
        )
    if dollars:
        value /= Fraction(usd_per_credit)
    price = Price.of(text, value * NANO / per)
    if price.nano > _MOST_PER_UNIT * price.per:
        raise node.error(f"`{text}` is more than 10⁹ credits a unit; lower it")
    return price


def parse_rate_card(node: Node, model: str, usd_per_credit: Decimal) -> RateCard:
    """Read a model's `price:` mapping of meters."""
    fields = node.fields(METERS, _LATER)
    prices = {name: parse_price(child, name, usd_per_credit) for name, child in fields.items()}
    if not prices:
        raise node.error("has no price; write at least one meter, such as `request: 1`")
    if any(METERS[name].token for name in prices):
        for name in (INPUT, OUTPUT):
            if name not in prices:
                raise node.error(
                    f"prices tokens but not `{name}`; add `{name}: <amount> / 1M` (0 is allowed, written out)"
                )
    return RateCard.of(model, prices)


def price_table(cards: Mapping[str, RateCard]) -> PriceTable:
    """Make the table and its version: a digest of every price, exact and as written."""
    content = {
        name: {meter: [price.text, str(price.nano), str(price.per)] for meter, price in card.prices.items()}
        for name, card in sorted(cards.items())
    }
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    return PriceTable(f"prices_{digest[:16]}", dict(cards))
