"""Who may answer a model's calls, in order, and at what price each answer is sold."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from functools import partial

from pricing.conditions import Attributes
from pricing.costs import cost_table
from pricing.document import Node
from pricing.doubts import MEANT, doubts, parse_meant
from pricing.errors import ConfigError
from pricing.meters import INPUT
from pricing.table import ModelPrice, PriceTable
from proxy.costs import parse_price_and_cost
from proxy.published import PublishedModel, published_model
from proxy.upstream.config import UpstreamConfig

__all__ = ["Remarks", "Target", "attributes_at", "limited", "parse_targets", "resold"]

_OF_UPSTREAMS = ("region",)
"""What of a call's attributes its request can't have said."""

_MOST_UNKNOWN = 16384
"""What is enforced where nobody knows how much can come back."""


@dataclass(frozen=True, slots=True)
class Remarks:
    """What reading a config found: warnings, in words, and refusals of prices that may be meant after all."""

    warnings: list[str]
    doubts: list[ConfigError]


@dataclass(frozen=True, slots=True)
class Target:
    """A model at an upstream, by its name there; price: that its answers are sold at, an entry of the price table.

    cost: what its provider charges, in nanodollars, where that is known, and `costs` a table of it. fixed: the price is
    written for it alone.
    max_output_tokens: the most that can come back a choice; enforce: whether it must be told so.
    """

    upstream: UpstreamConfig
    model: str
    price: ModelPrice
    cost: ModelPrice | None
    costs: PriceTable | None
    fixed: bool
    published: PublishedModel
    max_output_tokens: int = _MOST_UNKNOWN
    enforce: bool = False

    @property
    def name(self) -> str:
        return f"{self.upstream.name}/{self.model}"

    def told(self, asked: int | None, chosen: int | None) -> int | None:
        """The output limit that it is told, None where the caller's own stands, which is `asked`; chosen: by us."""
        if chosen is not None:
            return min(chosen, self.max_output_tokens)
        return self.max_output_tokens if self.enforce and (asked is None or asked > self.max_output_tokens) else None


def parse_targets(
    name: str, fields: Mapping[str, Node], upstreams: Mapping[str, UpstreamConfig], usd: Decimal, remarks: Remarks
) -> tuple[ModelPrice, tuple[Target, ...]]:
    """Read a model's `upstream:`, one or a list of them, with its own price; fields: the model's. Raises ConfigError.

    A margin is on what each of them charges, so with `cost_plus` each has a price of its own.
    """
    node = fields["upstream"]
    items = node.items() if node.is_list else [node]
    if not items:
        raise node.error("is empty; name at least one `<upstream>/<its model name>`")
    written = [item.fields(("upstream", "price", "cost")) if item.is_mapping else {"upstream": item} for item in items]
    price: ModelPrice | None = None
    found: dict[str, Target] = {}
    for item, own in zip(items, written, strict=True):
        if "upstream" not in own:
            raise item.error("`upstream:` is missing; add `upstream: <upstream>/<its model name>`")
        upstream, model = _named(own["upstream"], upstreams)
        read = partial(parse_price_and_cost, upstream=upstream, upstream_model=model, usd_per_credit=usd)
        first = price is None
        given = {
            **(fields if first else {"price": fields["price"]}),
            **({"cost": own["cost"]} if "cost" in own else {}),
        }
        if price is None:
            price, _ = read(name, given, warnings=[])
        # No model can be called so: names have no @.
        apart = "price" in own or ("cost_plus" in fields["price"].members() and not first)
        sold, cost = read(
            f"{name}@{upstream.name}/{model}" if apart else name, {**given, **own}, warnings=remarks.warnings
        )
        published = published_model(model) if upstream.kind == "openai" else PublishedModel()
        if cost is not None and (first or "price" in own):
            remarks.doubts.extend(_doubts(own.get("price", fields["price"]), sold, cost, usd, upstream.attributes))
        costs = None if cost is None else cost_table(cost)
        target = Target(upstream, model, sold, cost, costs, "price" in own, published)
        if target.name in found:
            raise item.error(f"`{target.name[:60]}` is in the list twice; remove one")
        found[target.name] = target
    assert price is not None
    return price, tuple(found.values())


def _doubts(
    node: Node, price: ModelPrice, cost: ModelPrice, usd: Decimal, attributes: Attributes
) -> Iterator[ConfigError]:
    """Refuse prices that are probably slips and are not said to be meant; node: where the price is written."""
    meant, written = parse_meant(node), node.members()
    for meter, problem in doubts(price, cost, usd, attributes):
        if meter not in meant:
            yield written.get(meter, node).error(f"{problem} Mend it, or write `{MEANT}: [{meter}]` beside it")


def _named(node: Node, upstreams: Mapping[str, UpstreamConfig]) -> tuple[UpstreamConfig, str]:
    text = node.text()
    name, slash, model = text.partition("/")
    if not slash or not model:
        raise node.error(f"must be `<upstream>/<its model name>`, not `{text[:60]}`")
    if name not in upstreams:
        raise node.error(f"there is no upstream `{name[:40]}`; known: {', '.join(upstreams)}")
    return upstreams[name], model


def attributes_at(target: Target, kept: Attributes) -> Attributes:
    """What a price would depend on at somebody else: what is kept of a call's request, and what they are."""
    asked = {name: value for name, value in kept.items() if name not in _OF_UPSTREAMS}
    return {**asked, **{name: value for name, value in target.upstream.attributes.items() if name not in asked}}


def limited(targets: tuple[Target, ...], most: int | None, model: str, warnings: list[str]) -> tuple[Target, ...]:
    """Give each its output limit; most: that the operator wrote, None where it is for each what its provider publishes.

    Those that are asked when others fail are not told more than they are known to take, which would be refused as
    the caller's fault.
    """
    found: list[Target] = []
    for target in targets:
        known = target.published.max_output_tokens
        sells_tokens = INPUT in target.price.rules
        limit, enforce = (
            most or known or _MOST_UNKNOWN,
            most is not None or (known is None and (sells_tokens or bool(found))),
        )
        if most is None and known is None and sells_tokens and target.upstream.kind != "demo":
            warnings.append(
                f"model {model}: the output limit of {target.model} is not known; {_MOST_UNKNOWN} is enforced."
                " Set max_output_tokens"
            )
        if found and known is not None:
            limit, enforce = min(limit, known), True
        found.append(replace(target, max_output_tokens=limit, enforce=enforce))
    return tuple(found)


def resold(targets: tuple[Target, ...], firsts: Mapping[str, Target], node: Node) -> tuple[Target, ...]:
    """Price whoever is asked when others fail, and has no price of their own, as the model that is sold from there.

    firsts: who is asked first, by model. node: the model's `upstream:`. Raises ConfigError where several models are
    sold from there at different prices.
    """
    return tuple(
        _resold(target, firsts, node.items()[index]) if index and not target.fixed else target
        for index, target in enumerate(targets)
    )


def _resold(target: Target, firsts: Mapping[str, Target], node: Node) -> Target:
    sold = {name: first.price for name, first in firsts.items() if first.name == target.name}
    if not sold:
        return target
    price, *others = sold.values()
    if any(replace(other, model=price.model) != price for other in others):
        raise node.error(
            f"`{target.name[:60]}` is sold as {' and '.join(sold)}, at different prices; give it one of its own here:"
            f" {{upstream: {target.name[:60]}, price: {{…}}}}"
        )
    return replace(target, price=price)
