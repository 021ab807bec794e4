"""What a credit is called, and what it sells for."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

from pricing.amounts import NANO, format_credits
from pricing.document import Node

__all__ = ["Credit", "parse_credit"]


@dataclass(frozen=True, slots=True)
class Credit:
    """What a credit is called and sells for."""

    name: str = "credit"
    plural: str = "credits"
    usd: Decimal = Decimal("0.01")
    show: str = "credits"

    def say(self, nanocredits: int) -> str:
        """Write an amount for people, in credits or, where the operator shows them so, in dollars."""
        if self.show == "usd":
            dollars = Decimal(nanocredits) * self.usd / NANO
            return f"${dollars.quantize(Decimal('0.000001')).normalize():f}"
        return f"{format_credits(nanocredits)} {self.name if nanocredits == NANO else self.plural}"


def parse_credit(node: Node) -> Credit:
    """Read `credit:`; raises ConfigError."""
    fields = node.fields(("name", "plural", "usd", "show"))
    name = fields["name"].text() if "name" in fields else "credit"
    usd = Decimal("0.01")
    if "usd" in fields:
        usd = fields["usd"].decimal()
        if not usd:
            raise fields["usd"].error(
                "a credit that sells for nothing cannot price anything in dollars; write e.g. 0.01"
            )
    return Credit(
        name=name,
        plural=fields["plural"].text() if "plural" in fields else name + "s",
        usd=usd,
        show=fields["show"].choice(("credits", "usd")) if "show" in fields else "credits",
    )
