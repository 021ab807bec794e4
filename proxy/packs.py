"""`packs:` and `custom_pack:` of the config: credits that are bought at once."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction

from pricing.amounts import NANO, format_credits, parse_credits
from pricing.document import Node
from pricing.errors import InvalidAmount
from proxy.choice import named, title_of

__all__ = ["CustomPack", "PackConfig", "packs_off_price", "parse_custom_pack", "parse_packs"]

_DOLLARS = re.compile(r"\$(\d{1,9}(?:\.\d{1,2})?)", re.ASCII)
_PAID = "paid"


@dataclass(frozen=True, slots=True)
class PackConfig:
    """Credits at a price. price: as written, and in dollars; amount: nanocredits; bucket: where they go."""

    name: str
    title: str
    price: str
    dollars: Decimal
    amount: int
    bucket: str

    def bonus(self, usd: Decimal) -> int:
        """What it holds above what its price buys at `usd` a credit, in nanocredits; never negative."""
        bought = -(-Fraction(self.dollars) * NANO // Fraction(usd))
        return max(0, self.amount - int(bought))


@dataclass(frozen=True, slots=True)
class CustomPack:
    """The amounts that a customer may choose; as written, and in dollars."""

    least: str
    most: str
    least_dollars: Decimal
    most_dollars: Decimal


def parse_packs(node: Node | None, buckets: Iterable[str]) -> dict[str, PackConfig]:
    """Read `packs:`; buckets: in their order. Raises ConfigError."""
    known = list(buckets)
    return {name: _pack(name, child, known) for name, child in (named(node) if node else {}).items()}


def _pack(name: str, node: Node, buckets: Sequence[str]) -> PackConfig:
    fields = node.fields(("title", "price", "credits", "bucket"))
    for key in ("price", "credits"):
        if key not in fields:
            raise node.error(f"`{key}:` is missing; write e.g. {{price: $20, credits: 2000}}")
    price, dollars = _dollars(fields["price"])
    try:
        amount = parse_credits(fields["credits"].text())
    except InvalidAmount as error:
        raise fields["credits"].error(str(error)) from None
    # What was paid for burns last, whatever the operator calls it.
    default = _PAID if _PAID in buckets else buckets[-1]
    bucket = fields["bucket"].choice(buckets) if "bucket" in fields else default
    title = fields["title"].text() if "title" in fields else title_of(name)
    return PackConfig(name, title, price, dollars, amount, bucket)


def parse_custom_pack(node: Node | None) -> CustomPack | None:
    """Read `custom_pack:`; raises ConfigError."""
    if node is None:
        return None
    fields = node.fields(("min", "max"))
    for key in ("min", "max"):
        if key not in fields:
            raise node.error(f"`{key}:` is missing; write e.g. {{min: $5, max: $5000}}")
    (least, least_dollars), (most, most_dollars) = _dollars(fields["min"]), _dollars(fields["max"])
    if most_dollars < least_dollars:
        raise fields["max"].error(f"is less than `min`, {least}; turn them round")
    return CustomPack(least, most, least_dollars, most_dollars)


def _dollars(node: Node) -> tuple[str, Decimal]:
    """Read such as `$20`; returns it as written and its dollars."""
    text = node.text()
    match = _DOLLARS.fullmatch(text)
    if match is None:
        raise node.error(f"must be dollars such as $20, not `{text[:40]}`")
    dollars = Decimal(match[1])
    if not dollars:
        raise node.error("must be more than $0; what is given away is a grant")
    return text, dollars


def packs_off_price(packs: Mapping[str, PackConfig], usd: Decimal) -> list[str]:
    """Say which packs sell credits for something else than what a credit sells for."""
    return [
        f"pack {pack.name}: its credits come to ${pack.dollars * NANO / pack.amount:.6f} each, and a credit sells for"
        f" ${usd:f}; {pack.price} would buy {format_credits(int(pack.dollars / usd * NANO))}"
        for pack in packs.values()
        if pack.amount * usd != pack.dollars * NANO
    ]
