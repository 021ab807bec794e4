"""The price table: immutable, versioned by its content, swapped whole."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction

from pricing.errors import UnpricedModel
from pricing.meters import INPUT, METERS, OUTPUT, parts_of

__all__ = ["Bound", "ModelPrice", "OperationPrice", "Price", "PriceTable", "RateCard", "Rule"]

Attributes = Mapping[str, str]
"""What a request says of itself that a price may depend on, such as `service_tier: flex`."""


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

    def times(self, factor: Fraction, text: str) -> Price:
        """The price multiplied; text: the factor as the operator wrote it."""
        return Price.of(f"{self.text} × {text}", Fraction(self.nano, self.per) * factor)


@dataclass(frozen=True, slots=True)
class Rule:
    """A price and the attributes that a request must have for it; of a meter's rules the first that matches counts."""

    when: tuple[tuple[str, str], ...]
    price: Price

    def matches(self, attributes: Attributes) -> bool:
        return all(attributes.get(name) == value for name, value in self.when)


@dataclass(frozen=True, slots=True)
class Bound:
    """A least or most charge in nanocredits; `text` is what the operator wrote."""

    text: str
    nano: int


Rules = Mapping[str, tuple[Rule, ...]]


@dataclass(frozen=True, slots=True)
class ModelPrice:
    """What the operator wrote of a model: rules by meter, and bounds of its own lines."""

    model: str
    rules: Rules
    least: Bound | None = None
    most: Bound | None = None


@dataclass(frozen=True, slots=True)
class OperationPrice:
    """What an operation changes: its rules replace the model's meter by meter, its bounds each on its own.

    multiply: factor on the model's own prices, with its text; the operation's rules are not multiplied. per_run: its
    bounds are for all calls of a run together.
    """

    name: str
    rules: Rules
    least: Bound | None = None
    most: Bound | None = None
    multiply: Fraction | None = None
    multiply_text: str = ""
    per_run: bool = False


@dataclass(frozen=True, slots=True)
class RateCard:
    """Everything needed to price one kind of call; derived figures are worked out once, when the table loads.

    prices: own price by meter, in the vocabulary's order. least, most: bounds of the sum of those lines.
    surcharges: prices of meters that any call may add; they come after the bounds. per_run: the bounds are for all
    calls of a run together.
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
    least: Bound | None = None
    most: Bound | None = None
    surcharges: Mapping[str, Price] = field(default_factory=dict)
    per_run: bool = False

    @classmethod
    def of(
        cls,
        model: str,
        prices: Mapping[str, Price],
        *,
        least: Bound | None = None,
        most: Bound | None = None,
        surcharges: Mapping[str, Price] | None = None,
        per_run: bool = False,
    ) -> RateCard:
        ordered = {name: prices[name] for name in METERS if name in prices}
        parts = {
            name: tuple(part for part in parts_of(name) if part in ordered)
            for name in ordered
            if METERS[name].whole is None
        }
        # Half to even adds at most half a nanocredit to each line whose unit price is not whole nanocredits.
        slack = {name: sum(ordered[line].per != 1 for line in (name, *within)) // 2 for name, within in parts.items()}
        return cls(
            model,
            ordered,
            parts,
            slack,
            _dearest(ordered, INPUT),
            _dearest(ordered, OUTPUT),
            least,
            most,
            # What the model prices itself is not charged again.
            {name: price for name, price in (surcharges or {}).items() if name not in ordered},
            per_run,
        )

    def bounded(self, least: Bound | None, most: Bound | None) -> RateCard:
        """The same prices between other bounds."""
        return replace(self, least=least, most=most)

    @property
    def sells_tokens(self) -> bool:
        """Whether tokens are billed; where they are not they are recorded only."""
        return self.dearest_input is not None or self.dearest_output is not None

    def covers(self, meter: str) -> bool:
        """Whether the meter has a price here, its own, its whole's or a surcharge."""
        return meter in self.prices or meter in self.surcharges or METERS[meter].whole in self.prices


def _dearest(prices: Mapping[str, Price], whole: str) -> Price | None:
    return max((prices[name] for name in (whole, *parts_of(whole)) if name in prices), default=None)


@dataclass(frozen=True, slots=True)
class PriceTable:
    """All prices of one version; `version` is a digest of `content`, which is everything that can change a charge."""

    version: str
    content: str
    models: Mapping[str, ModelPrice]
    operations: Mapping[str, OperationPrice]
    surcharges: Mapping[str, Price]
    _cards: dict[object, RateCard] = field(default_factory=dict, compare=False, repr=False)

    def card(self, model: str, operation: str | None = None, attributes: Attributes | None = None) -> RateCard:
        """Make the rate card of a call; raises UnpricedModel, because nothing is ever sold at a guess.

        attributes: of the request; those that no rule asks for make no difference.
        """
        price, changes, rules = self._find(model, operation)
        # Only known values may tell cards apart: what callers send must not fill the memory.
        known = {pair for chosen in rules.values() for rule in chosen for pair in rule.when}
        given = {name: value for name, value in (attributes or {}).items() if (name, value) in known} if known else {}
        key = (model, operation, tuple(sorted(given.items())))
        card = self._cards.get(key)
        if card is None:
            card = self._cards[key] = self._make(price, changes, rules, given)
        return card

    def asks(self, model: str, operation: str | None) -> bool:
        """Whether any price of a kind of call depends on attributes; raises UnpricedModel."""
        _, _, rules = self._find(model, operation)
        return any(rule.when for chosen in rules.values() for rule in chosen)

    def _find(self, model: str, operation: str | None) -> tuple[ModelPrice, OperationPrice | None, Rules]:
        price = self.models.get(model)
        changes = self.operations.get(operation) if operation is not None else None
        if price is None or (operation is not None and changes is None):
            what = f"model {model!r}" if price is None else f"operation {operation!r}"
            raise UnpricedModel(f"the price table has no {what}")
        return price, changes, {**price.rules, **(changes.rules if changes else {})}

    def _make(
        self, price: ModelPrice, changes: OperationPrice | None, rules: Rules, attributes: Attributes
    ) -> RateCard:
        prices = {}
        for name, chosen in rules.items():
            found = next((rule.price for rule in chosen if rule.matches(attributes)), None)
            if found is None:
                raise UnpricedModel(f"model {price.model!r}: no rule of {name} matches")
            if changes and changes.multiply is not None and name not in changes.rules:
                found = found.times(changes.multiply, changes.multiply_text)
            prices[name] = found
        return RateCard.of(
            price.model,
            prices,
            least=(changes.least if changes else None) or price.least,
            most=(changes.most if changes else None) or price.most,
            surcharges=self.surcharges,
            per_run=changes is not None and changes.per_run,
        )
