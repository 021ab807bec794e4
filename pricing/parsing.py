"""From the operator's words to a price table, exactly, or a refusal with line and fix."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from decimal import Decimal
from fractions import Fraction

from pricing.amounts import NANO
from pricing.conditions import implies, parse_when
from pricing.document import Node
from pricing.meters import INPUT, METERS, OUTPUT
from pricing.table import FREE, Bound, Factor, ModelPrice, OperationPrice, Price, PriceTable, Rule, Rules, Step

__all__ = [
    "parse_bound",
    "parse_meters",
    "parse_model_price",
    "parse_operation_price",
    "parse_price",
    "parse_rules",
    "price_table",
]

_PRICE = re.compile(r"(\$?)\s*(\d{1,12}(?:\.\d{1,15})?)(?:\s*/\s*(\d{1,12})?\s*([kM]?))?", re.ASCII)
_UNITS = {"": 1, "k": 1_000, "M": 1_000_000}
_LATER = ("per",)
_MOST_FACTOR = 1000

_COUNT = re.compile(r"([1-9]\d{0,11})\s*([kM]?)", re.ASCII)
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
    """Read a meter's price: one, or a list of `{when: {…}, price: …}` of which the first that holds counts."""
    if not node.is_list:
        return (_rule(node, meter, usd_per_credit),)
    rules: list[Rule] = []
    for item in node.items():
        rule = _rule(item, meter, usd_per_credit, conditional=True)
        if rules and not rules[-1].when:
            raise item.error("is never reached: the rule before it has no `when`; put that one last")
        if rule.when and any(implies(rule.when, before.when) for before in rules):
            raise item.error("is never reached: a rule before it matches the same and more; turn them round")
        rules.append(rule)
    if not rules or rules[-1].when:
        raise node.error("needs a last rule without `when`: every call must have a price")
    return tuple(rules)


def _rule(node: Node, meter: str, usd_per_credit: Decimal, *, conditional: bool = False) -> Rule:
    """Read a price, or a mapping of it and what goes with it."""
    if not node.is_mapping and not conditional:
        return Rule((), parse_price(node, meter, usd_per_credit))
    fields = node.fields(("when", "price", "free", "beyond"))
    if "when" in fields and not conditional:
        raise fields["when"].key_error("is for a list of rules; write `[{when: …, price: …}, {price: …}]`")
    if "price" not in fields:
        raise node.error("`price:` is missing; write e.g. `{when: {quality: high}, price: 150}`")
    price = parse_price(fields["price"], meter, usd_per_credit)
    steps: list[Step] = []
    if "free" in fields:
        steps.append((_count(fields["free"]), price))
        price = FREE
    for number, child in fields["beyond"].members().items() if "beyond" in fields else ():
        match = _COUNT.fullmatch(number)
        if match is None:
            raise child.key_error(f"must be a number of units such as `128k:`, not `{number[:40]}`")
        steps.append((int(match[1]) * _UNITS[match[2]], parse_price(child, meter, usd_per_credit)))
        if len(steps) > 1 and steps[-1][0] <= steps[-2][0]:
            raise child.key_error("is not beyond the number before it; write them from the least to the largest")
    return Rule(parse_when(fields["when"]) if "when" in fields else (), price, tuple(steps))


def _count(node: Node) -> int:
    match = _COUNT.fullmatch(node.text())
    if match is None:
        raise node.error(f"must be a number of units such as 3 or 1k, not `{node.text()[:40]}`")
    return int(match[1]) * _UNITS[match[2]]


def parse_factors(node: Node) -> tuple[Factor, ...]:
    """Read a list of `{when: {…}, multiply: …}`, all of which apply."""
    factors = []
    for item in node.items():
        fields = item.fields(("when", "multiply"))
        for name in ("when", "multiply"):
            if name not in fields:
                raise item.error(f"`{name}:` is missing; write e.g. {{when: {{service_tier: flex}}, multiply: 0.5}}")
        factors.append(Factor(parse_when(fields["when"]), *_factor(fields["multiply"])))
    return tuple(factors)


def _factor(node: Node) -> tuple[Fraction, str]:
    multiply = Fraction(node.decimal())
    if multiply > _MOST_FACTOR:
        raise node.error(f"multiplies prices by more than {_MOST_FACTOR}; lower it")
    return multiply, node.text()


def parse_bounds(fields: Mapping[str, Node], usd_per_credit: Decimal) -> tuple[Bound | None, Bound | None]:
    """Read `min` and `max`, in credits or dollars."""
    least, most = (parse_bound(fields[name], usd_per_credit) if name in fields else None for name in ("min", "max"))
    if least is not None and most is not None and least.nano > most.nano:
        raise fields["min"].error(f"`min` {least.text} is above `max` {most.text}; lower it")
    return least, most


def parse_bound(node: Node, usd_per_credit: Decimal) -> Bound:
    """Read an amount, in credits or dollars, that comes to whole nanocredits."""
    price = parse_price(node, "request", usd_per_credit)
    if price.per != 1 or "/" in price.text:
        raise node.error(
            f"`{price.text}` must be an amount such as `40` or `$0.40`, with at most 9 decimals of credits"
        )
    return Bound(price.text, price.nano)


def parse_meters(fields: Mapping[str, Node], usd_per_credit: Decimal) -> Rules:
    """Read the meters among a mapping's members."""
    return {name: parse_rules(child, name, usd_per_credit) for name, child in fields.items() if name in METERS}


def parse_model_price(
    node: Node, model: str, usd_per_credit: Decimal, marked: Callable[[Node], Rules] | None = None
) -> ModelPrice:
    """Read a model's `price:` mapping of meters, with `min`, `max` and `factors`.

    marked: makes the rules that `cost_plus` stands for, or refuses its node; the meters that are written beside it
    replace its own. Without it there is no cost to add to. Raises ConfigError.
    """
    fields = node.fields((*METERS, "min", "max", "factors", "cost_plus", "i_mean_it"), _LATER)
    if "cost_plus" in fields and marked is None:
        raise fields["cost_plus"].key_error("`cost_plus` is of a model's `price:` only; remove it")
    rules = {
        **(marked(fields["cost_plus"]) if marked is not None and "cost_plus" in fields else {}),
        **parse_meters(fields, usd_per_credit),
    }
    if not rules:
        raise node.error("has no price; write at least one meter, such as `request: 1`")
    if any(METERS[name].token for name in rules):
        for name in (INPUT, OUTPUT):
            if name not in rules:
                raise node.error(
                    f"prices tokens but not `{name}`; add `{name}: <amount> / 1M` (0 is allowed, written out)"
                )
    factors = parse_factors(fields["factors"]) if "factors" in fields else ()
    return ModelPrice(model, rules, *parse_bounds(fields, usd_per_credit), factors)


def parse_operation_price(name: str, fields: Mapping[str, Node], usd_per_credit: Decimal) -> OperationPrice:
    """Read what an operation does to prices: `min`, `max`, `multiply`, `price`."""
    least, most = parse_bounds(fields, usd_per_credit)
    rules: Rules = {}
    if "price" in fields:
        rules = parse_meters(fields["price"].fields(METERS), usd_per_credit)
        if not rules:
            raise fields["price"].error("has no price; write at least one meter, or remove it")
    multiply, text = _factor(fields["multiply"]) if "multiply" in fields else (None, "")
    per_run = "per" in fields and fields["per"].choice(("call", "run")) == "run"
    if per_run and least is None and most is None:
        raise fields["per"].error("bounds nothing; write `min` or `max` too")
    return OperationPrice(name, rules, least, most, multiply, text, per_run)


def price_table(
    models: Mapping[str, ModelPrice],
    operations: Mapping[str, OperationPrice] | None = None,
    surcharges: Rules | None = None,
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
        "surcharges": {
            name: _price_content(rules[0].price)
            if len(rules) == 1 and not rules[0].steps
            else list(map(_rule_content, rules))
            for name, rules in surcharges.items()
        },
    }
    text = json.dumps(content, sort_keys=True)
    digest = hashlib.sha256(text.encode()).hexdigest()
    return PriceTable(
        f"prices_{digest[:16]}", text, dict(models), dict(operations), dict(surcharges), dict(matching or {})
    )


def _content(price: ModelPrice | OperationPrice) -> dict[str, object]:
    # What a price does not use is left out, so that its version stays what it was before there was such a thing.
    factors = price.factors if isinstance(price, ModelPrice) else ()
    return {
        "rules": {meter: list(map(_rule_content, rules)) for meter, rules in price.rules.items()},
        "min": price.least and [price.least.text, str(price.least.nano)],
        "max": price.most and [price.most.text, str(price.most.nano)],
    } | ({"factors": [[list(map(list, factor.when)), factor.text] for factor in factors]} if factors else {})


def _rule_content(rule: Rule) -> list[object]:
    steps = [[number, _price_content(price)] for number, price in rule.steps]
    return [list(map(list, rule.when)), _price_content(rule.price), *([steps] if steps else [])]


def _price_content(price: Price) -> list[str]:
    return [price.text, str(price.nano), str(price.per)]
