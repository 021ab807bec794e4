"""A model's `price:` and `cost:`: what callers pay, and what the provider charges the operator."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal

from pricing.costs import parse_cost, parse_margin, with_margin
from pricing.document import Node
from pricing.errors import UnpricedModel, UnreadablePrice
from pricing.parsing import parse_model_price
from pricing.table import ModelPrice, Rules
from proxy.published import near_names, published_price
from proxy.upstream.config import UpstreamConfig

__all__ = ["parse_price_and_cost"]


def parse_price_and_cost(
    name: str,
    fields: Mapping[str, Node],
    upstream: UpstreamConfig,
    upstream_model: str,
    usd_per_credit: Decimal,
    warnings: list[str],
) -> tuple[ModelPrice, ModelPrice | None]:
    """Read a model's price, in nanocredits, and its cost, in nanodollars, None where that is not known.

    The cost is what `cost:` says, else what the upstream's provider publishes. An upstream whose provider is not known
    is nobody's, and its models' names mean nothing: only `cost_plus` looks one up, because the operator asked for it.
    Adds a warning where something is published that can't be read. Raises ConfigError.
    """
    cost = _cost(name, fields["cost"]) if "cost" in fields else None
    asked = cost

    def marked(node: Node) -> Rules:
        nonlocal asked
        margin = parse_margin(node)
        if asked is None:
            asked = _asked(node, upstream.provider, upstream_model)
        if not any(
            price.nano
            for rules in asked.rules.values()
            for rule in rules
            for price in (rule.price, *(beyond for _, beyond in rule.steps))
        ):
            raise node.error(f"`{upstream_model}` costs nothing, and neither does a margin on it; write its price out")
        return with_margin(asked, margin, usd_per_credit)

    price = parse_model_price(fields["price"], name, usd_per_credit, marked)
    return price, _known(name, fields, upstream, upstream_model, warnings) if asked is None else asked


def _known(
    name: str, fields: Mapping[str, Node], upstream: UpstreamConfig, upstream_model: str, warnings: list[str]
) -> ModelPrice | None:
    """What a provider charges, in nanodollars: as `cost:` says, else as is published; None where nobody knows."""
    if "cost" in fields:
        return _cost(name, fields["cost"])
    if upstream.provider is None:
        return None
    try:
        return published_price(upstream.provider, upstream_model)
    except UnpricedModel:
        return None
    except UnreadablePrice as error:
        warnings.append(
            f"model {name}: what {upstream_model} costs is not known: of its published price {error}. Set cost"
        )
        return None


def _cost(name: str, node: Node) -> ModelPrice:
    if node.is_mapping:
        return parse_cost(node, name)
    return _asked(node, None, node.text())


def _asked(node: Node, provider: str | None, name: str) -> ModelPrice:
    """Look a published price up that the operator asks for at a node; raises ConfigError."""
    try:
        return published_price(provider, name)
    except UnpricedModel as error:
        near = near_names(provider, name)
        hint = f"did you mean {', '.join(f'`{one}`' for one in near)}? " if near and name not in near else ""
        fix = "write the model's price out, or set its `cost:`" if node.path.endswith("cost_plus") else "write it out"
        raise node.error(f"{error}; {hint}{fix}") from None
    except UnreadablePrice as error:
        raise node.error(f"the published price of `{name}` can't be expressed: {error}; write it out") from None
