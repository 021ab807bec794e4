"""`typical:` of the config's models: what a usual call uses, so that people can compare what models cost."""

from __future__ import annotations

from collections.abc import Mapping

from pricing.conditions import TIME, Attributes, moment
from pricing.document import Node
from pricing.meters import INPUT, METERS, OUTPUT
from pricing.rating import rate
from pricing.table import ModelPrice, PriceTable, Rules
from pricing.usage import Quantity, Usage, impossible

__all__ = ["parse_typical", "typical_cost", "usual"]

_REQUEST = "request"
_MOST = 10**9
_TOKENS: Usage = {INPUT: 1000, OUTPUT: 500}
_UNITS = {
    "audio_second": 60,
    "input_audio_second": 60,
    "video_second": 60,
    "input_video_second": 60,
    "character": 1000,
}
"""How much of a meter a usual call uses, where that is not one unit."""


def parse_typical(
    nodes: Mapping[str, Node], prices: Mapping[str, ModelPrice], surcharges: Rules
) -> dict[str, dict[str, Quantity]]:
    """Read `typical:` of the models that say it, by model; raises ConfigError.

    nodes: the models'; prices: by model, surcharges: what beside them a usual call may use.
    """
    written = {name: node.members().get("typical") for name, node in nodes.items()}
    return {
        name: _typical(node, {*prices[name].rules, *surcharges}) for name, node in written.items() if node is not None
    }


def _typical(node: Node, priced: set[str]) -> dict[str, Quantity]:
    fields = node.fields(METERS)
    if not fields:
        raise node.error("names no meter; write e.g. {input_tokens: 2000, output_tokens: 400}, or remove it")
    usage: dict[str, Quantity] = {}
    for name, child in fields.items():
        usage[name] = quantity = _quantity(child, name)
        if quantity and name not in priced and not METERS[name].token and name != _REQUEST:
            raise child.key_error(f"`{name}` has no price here; price it, or remove it")
    problem = impossible(usage)
    if problem is not None:
        raise node.error(f"no call can use this: {problem}; mend it")
    return usage


def _quantity(node: Node, meter: str) -> Quantity:
    if meter == _REQUEST:
        return node.integer(1, 1)
    if METERS[meter].token:
        return node.integer(0, _MOST)
    quantity = node.decimal()
    if quantity > _MOST:
        raise node.error(f"must be at most {_MOST}")
    return int(quantity) if quantity == int(quantity) else quantity


def usual(price: ModelPrice) -> dict[str, Quantity]:
    """What a call of a model is put at where the operator does not say it: what it sells, and a little of it."""
    sold = [name for name in METERS if name in price.rules]
    tokens = any(METERS[name].token for name in sold)
    return {
        **({_REQUEST: 1} if _REQUEST in sold else {}),
        **(_TOKENS if tokens else {name: _UNITS.get(name, 1) for name in sold}),
    }


def typical_cost(table: PriceTable, model: str, usage: Usage, attributes: Attributes, now: int) -> int | None:
    """What a call with this usage is charged, in nanocredits, at the model's own price, without any operation.

    attributes: of who is asked first. now: the time whose prices count, in microseconds. Returns None where the table
    does not price all of the usage, which it may not where it is not that of the file. Raises UnpricedModel.
    """
    card = table.card(model, None, {**attributes, TIME: moment(now)})
    rating = rate(card, {_REQUEST: 1, **usage})
    return None if rating.unpriced else rating.total
