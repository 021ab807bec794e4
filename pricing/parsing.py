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
from pricing.table import Bound, ModelPrice, OperationPrice, Price, PriceTable, Rule, Rules

__all__ = ["parse_meters", "parse_model_price", "parse_operation_price", "parse_price", "price_table"]

_PRICE = re.compile(r"(\$?)\s*(\d{1,12}(?:\.\d{1,15})?)(?:\s*/\s*(\d{1,12})?\s*([kM]?))?", re.ASCII)
_UNITS = {"": 1, "k": 1_000, "M": 1_000_000}
_LATER = ("per", "cost_plus")
_MOST_FACTOR = 1000

ATTRIBUTES = ("service_tier", "quality", "size", "resolution")
"""What a price's `when` may ask of a request."""

_MOST_PER_UNIT = 10**9 * NANO
"""No unit of anything costs more than 10⁹ credits."""


def parse_price(node: Node, meter: str, usd_per_credit: Decimal) -> Price:
    """Read `<amount> / <count>[k|M]`, in credits, or in dollars with `$`.

    A token price must say its unit: `40` may mean per token or per million, a millionfold difference.
    """
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


def parse_rules(node: Node, meter: str, usd_per_credit: Decimal) -> tuple[Rule, ...]:
    """Read a meter's price: one, or a list of `{when: {…}, price: …}` of which the first that matches counts."""
    if not node.is_list:
        return (Rule((), parse_price(node, meter, usd_per_credit)),)
    rules: list[Rule] = []
    items = node.items()
    for item in items:
        fields = item.fields(("when", "price"))
        if "price" not in fields:
            raise item.error("`price:` is missing; write e.g. `{when: {quality: high}, price: 150}`")
        if rules and not rules[-1].when:
            raise item.error("is never reached: the rule before it has no `when`; put that one last")
        when: tuple[tuple[str, str], ...] = ()
        if "when" in fields:
            pairs = fields["when"].fields(ATTRIBUTES)
            if not pairs:
                raise fields["when"].error(f"names nothing; known: {', '.join(ATTRIBUTES)}")
            when = tuple((name, child.text()) for name, child in pairs.items())
            if any(set(when) >= set(rule.when) for rule in rules):
                raise item.error("is never reached: a rule before it matches the same and more; turn them round")
        rules.append(Rule(when, parse_price(fields["price"], meter, usd_per_credit)))
    if not rules or rules[-1].when:
        raise node.error("needs a last rule without `when`: every call must have a price")
    return tuple(rules)


def parse_bounds(fields: Mapping[str, Node], usd_per_credit: Decimal) -> tuple[Bound | None, Bound | None]:
    """Read `min` and `max`, in credits or dollars."""
    least, most = (_bound(fields[name], usd_per_credit) if name in fields else None for name in ("min", "max"))
    if least is not None and most is not None and least.nano > most.nano:
        raise fields["min"].error(f"`min` {least.text} is above `max` {most.text}; lower it")
    return least, most


def _bound(node: Node, usd_per_credit: Decimal) -> Bound:
    price = parse_price(node, "request", usd_per_credit)
    if price.per != 1 or "/" in price.text:
        raise node.error(
            f"`{price.text}` must be an amount such as `40` or `$0.40`, with at most 9 decimals of credits"
        )
    return Bound(price.text, price.nano)


def parse_meters(fields: Mapping[str, Node], usd_per_credit: Decimal) -> Rules:
    """Read the meters among a mapping's members."""
    return {name: parse_rules(child, name, usd_per_credit) for name, child in fields.items() if name in METERS}


def parse_model_price(node: Node, model: str, usd_per_credit: Decimal) -> ModelPrice:
    """Read a model's `price:` mapping of meters, with `min` and `max`."""
    fields = node.fields((*METERS, "min", "max"), _LATER)
    rules = parse_meters(fields, usd_per_credit)
    if not rules:
        raise node.error("has no price; write at least one meter, such as `request: 1`")
    if any(METERS[name].token for name in rules):
        for name in (INPUT, OUTPUT):
            if name not in rules:
                raise node.error(
                    f"prices tokens but not `{name}`; add `{name}: <amount> / 1M` (0 is allowed, written out)"
                )
    return ModelPrice(model, rules, *parse_bounds(fields, usd_per_credit))


def parse_operation_price(name: str, fields: Mapping[str, Node], usd_per_credit: Decimal) -> OperationPrice:
    """Read what an operation does to prices: `min`, `max`, `multiply`, `price`."""
    least, most = parse_bounds(fields, usd_per_credit)
    rules: Rules = {}
    if "price" in fields:
        rules = parse_meters(fields["price"].fields(METERS), usd_per_credit)
        if not rules:
            raise fields["price"].error("has no price; write at least one meter, or remove it")
    multiply, text = None, ""
    if "multiply" in fields:
        decimal = fields["multiply"].decimal()
        multiply, text = Fraction(decimal), fields["multiply"].text()
        if multiply > _MOST_FACTOR:
            raise fields["multiply"].error(f"multiplies prices by more than {_MOST_FACTOR}; lower it")
    per_run = "per" in fields and fields["per"].choice(("call", "run")) == "run"
    if per_run and least is None and most is None:
        raise fields["per"].error("bounds nothing; write `min` or `max` too")
    return OperationPrice(name, rules, least, most, multiply, text, per_run)


def price_table(
    models: Mapping[str, ModelPrice],
    operations: Mapping[str, OperationPrice] | None = None,
    surcharges: Mapping[str, Price] | None = None,
    matching: Mapping[str, object] | None = None,
) -> PriceTable:
    """Make the table and its version: a digest of every price, exact and as written.

    matching: whatever else decides which operation prices a call; it belongs to the version.
    """
    operations, surcharges = operations or {}, surcharges or {}
    content = {
        "models": {name: _content(price) for name, price in models.items()},
        # The first operation that matches counts, so their order belongs to the version.
        "operations": [
            [name, _content(price), price.multiply_text, (matching or {}).get(name), *["run"] * price.per_run]
            for name, price in operations.items()
        ],
        "surcharges": {name: _price_content(price) for name, price in surcharges.items()},
    }
    text = json.dumps(content, sort_keys=True)
    digest = hashlib.sha256(text.encode()).hexdigest()
    return PriceTable(f"prices_{digest[:16]}", text, dict(models), dict(operations), dict(surcharges))


def _content(price: ModelPrice | OperationPrice) -> dict[str, object]:
    return {
        "rules": {
            meter: [[list(map(list, rule.when)), _price_content(rule.price)] for rule in rules]
            for meter, rules in price.rules.items()
        },
        "min": price.least and [price.least.text, str(price.least.nano)],
        "max": price.most and [price.most.text, str(price.most.nano)],
    }


def _price_content(price: Price) -> list[str]:
    return [price.text, str(price.nano), str(price.per)]
