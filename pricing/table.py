"""The price table: immutable, versioned by its content, swapped whole."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

from pricing.errors import UnpricedModel
from pricing.meters import INPUT, METERS, OUTPUT, parts_of

__all__ = ["Price", "PriceTable", "RateCard"]


@dataclass(frozen=True, slots=True)
class Price:
    """A price for one unit of a meter: exactly `nano / per` nanocredits; `text` is what the operator wrote."""

    text: str
    nano: int
    per: int = 1

    def __lt__(self, other: Price) -> bool:
        return self.nano * other.per < other.nano * self.per

    @classmethod
    def of(cls, text: str, nanocredits: Fraction) -> Price:
        return cls(text, nanocredits.numerator, nanocredits.denominator)


@dataclass(frozen=True, slots=True)
class RateCard:
    """Everything needed to price a call of one model; derived figures are worked out once, when the table loads.

    prices: own price by meter, in the vocabulary's order.
    parts: for each priced whole, its parts that have a price of their own.
    slack: for each priced whole, the nanocredits that rounding its parts one by one can add to rounding them at once.
    dearest_input, dearest_output: what one token can cost at most, or None where tokens are not sold.
    """

    model: str
    prices: Mapping[str, Price]
    parts: Mapping[str, tuple[str, ...]]
    slack: Mapping[str, int]
    dearest_input: Price | None
    dearest_output: Price | None

    @classmethod
    def of(cls, model: str, prices: Mapping[str, Price]) -> RateCard:
        ordered = {name: prices[name] for name in METERS if name in prices}
        parts = {
            name: tuple(part for part in parts_of(name) if part in ordered)
            for name in ordered
            if METERS[name].whole is None
        }
        # Half to even adds at most half a nanocredit to each line whose unit price is not whole nanocredits.
        slack = {name: sum(ordered[line].per != 1 for line in (name, *within)) // 2 for name, within in parts.items()}
        return cls(model, ordered, parts, slack, _dearest(ordered, INPUT), _dearest(ordered, OUTPUT))

    @property
    def sells_tokens(self) -> bool:
        """Whether tokens are billed; where they are not they are recorded only."""
        return self.dearest_input is not None or self.dearest_output is not None


def _dearest(prices: Mapping[str, Price], whole: str) -> Price | None:
    return max((prices[name] for name in (whole, *parts_of(whole)) if name in prices), default=None)


@dataclass(frozen=True, slots=True)
class PriceTable:
    """All rate cards of one version; `version` is a digest of everything that can change a charge."""

    version: str
    cards: Mapping[str, RateCard]

    def card(self, model: str) -> RateCard:
        """Look up a model's rate card; raises UnpricedModel, because nothing is ever sold at a guess."""
        try:
            return self.cards[model]
        except KeyError:
            raise UnpricedModel(f"the price table has no model {model!r}") from None
