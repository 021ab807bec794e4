"""Price tables that were in force, read back out of what was kept of them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from decimal import Decimal
from fractions import Fraction
from typing import Any

from pricing.conditions import TIME, When, holds
from pricing.errors import UnreadableTable
from pricing.meters import METERS
from pricing.parsing import price_table
from pricing.table import Bound, Factor, ModelPrice, OperationPrice, Price, PriceTable, Rule, Rules

__all__ = ["kept_table"]


def kept_table(version: str, content: str) -> PriceTable:
    """Make the table of a version out of its content: the same prices, the same content, the same version.

    Every content that was ever kept can be read: it has had all that rating needs from the first. Operations got a
    fifth member, `run`, where their bounds are a run's; rules got steps, models factors, and surcharges rules, each
    only where a table uses it. It names no format, so that a version stays the digest of prices alone: whoever extends
    it leaves out what a table does not use, and older versions stay what they are.
    Raises UnreadableTable where the content is not the version's, or says anything that would be lost here.
    """
    if version != f"prices_{hashlib.sha256(content.encode()).hexdigest()[:16]}":
        raise UnreadableTable(f"what is kept of {version} has another digest: it was altered")
    try:
        table = _table(json.loads(content))
    except (ValueError, TypeError, KeyError, AttributeError, ArithmeticError, RecursionError) as error:
        raise UnreadableTable(f"what is kept of {version} is no price table: {error!r}") from error
    if table.content != content:
        raise UnreadableTable(f"what is kept of {version} says more than this release knows")
    return table


def _table(document: Mapping[str, Any]) -> PriceTable:
    operations, matching = {}, {}
    for name, price, multiply, criteria, *per in document["operations"]:
        factor = Fraction(Decimal(multiply)) if multiply else None
        operations[name] = OperationPrice(
            name, _rules(price), *_bounds(price), factor, multiply, per_run=per == ["run"]
        )
        matching[name] = criteria
    models = {
        name: ModelPrice(name, _rules(price), *_bounds(price), _factors(price))
        for name, price in document["models"].items()
    }
    surcharges = {_meter(name): _surcharge(rules) for name, rules in document["surcharges"].items()}
    return price_table(models, operations, surcharges, matching)


def _rules(document: Mapping[str, Any]) -> Rules:
    return {_meter(meter): tuple(map(_rule, rules)) for meter, rules in document["rules"].items()}


def _surcharge(rules: Any) -> tuple[Rule, ...]:
    return tuple(map(_rule, rules)) if isinstance(rules[0], list) else (Rule((), _price(rules)),)


def _rule(rule: Any) -> Rule:
    when, price, *more = rule
    steps = tuple((int(number), _price(beyond)) for number, beyond in (more[0] if more else ()))
    return Rule(_when(when), _price(price), steps)


def _when(when: Any) -> When:
    pairs = tuple((str(name), str(value)) for name, value in when)
    # Conditions that nothing here knows would be taken for attributes that no call has.
    holds(pairs, {TIME: "mon 00:00"}, 0)
    return pairs


def _factors(document: Mapping[str, Any]) -> tuple[Factor, ...]:
    return tuple(Factor(_when(when), Fraction(Decimal(text)), text) for when, text in document.get("factors", ()))


def _meter(name: str) -> str:
    # A card would leave out what is no meter here.
    return METERS[name].name


def _price(price: Any) -> Price:
    text, nano, per = price
    return Price.of(text, Fraction(int(nano), int(per)))


def _bounds(document: Mapping[str, Any]) -> tuple[Bound | None, Bound | None]:
    least, most = (bound and Bound(bound[0], int(bound[1])) for bound in (document["min"], document["max"]))
    return least, most
