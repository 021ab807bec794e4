"""The price table: immutable, versioned by its content, swapped whole."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any

from pricing.conditions import TIME, Attributes, When, above, holds, timed
from pricing.errors import UnpricedModel
from pricing.meters import INPUT, METERS, OUTPUT, parts_of, within
from pricing.usage import Quantity

__all__ = ["FREE", "Bound", "Factor", "ModelPrice", "OperationPrice", "Price", "PriceTable", "RateCard", "Rule", "Step"]


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
        return self if self == FREE else Price.of(f"{self.text} × {text}", Fraction(self.nano, self.per) * factor)


FREE = Price("free", 0)
"""What units within a free quota cost."""


Step = tuple[int, Price]
"""A number of units, and the price of those beyond it."""


@dataclass(frozen=True, slots=True)
class Rule:
    """A price and the conditions for it; of a meter's rules the first that holds counts.

    steps: what units beyond so many of one call cost, in their order; `price` is that of the first ones.
    """

    when: When
    price: Price
    steps: tuple[Step, ...] = ()


@dataclass(frozen=True, slots=True)
class Factor:
    """What multiplies all of a model's own prices where its conditions hold; `text` is what the operator wrote."""

    when: When
    multiply: Fraction
    text: str


@dataclass(frozen=True, slots=True)
class Bound:
    """A least or most charge in nanocredits; `text` is what the operator wrote."""

    text: str
    nano: int


Rules = Mapping[str, tuple[Rule, ...]]


@dataclass(frozen=True, slots=True)
class ModelPrice:
    """What the operator wrote of a model: rules by meter, bounds of its own lines, factors that all apply."""

    model: str
    rules: Rules
    least: Bound | None = None
    most: Bound | None = None
    factors: tuple[Factor, ...] = ()


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
    calls of a run together. steps: for meters whose price changes beyond a number of units, those numbers and prices.
    parts: for each priced meter, those within it that have a price of their own and nothing priced between.
    roots: priced meters that no other priced one contains.
    slack: for each root, the nanocredits that rounding its lines one by one can add to rounding them at once.
    dearest_input, dearest_output: what one token can cost at most, or None where tokens are not sold.
    bands: the cards of calls with more input tokens than a number, from the least to the largest; they differ from
    this one in prices only.
    """

    model: str
    prices: Mapping[str, Price]
    parts: Mapping[str, tuple[str, ...]]
    roots: tuple[str, ...]
    slack: Mapping[str, int]
    dearest_input: Price | None
    dearest_output: Price | None
    least: Bound | None = None
    most: Bound | None = None
    surcharges: Mapping[str, Price] = field(default_factory=dict)
    per_run: bool = False
    steps: Mapping[str, tuple[Step, ...]] = field(default_factory=dict)
    bands: tuple[tuple[int, RateCard], ...] = ()

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
        steps: Mapping[str, tuple[Step, ...]] | None = None,
        bands: tuple[tuple[int, RateCard], ...] = (),
    ) -> RateCard:
        ordered = {name: prices[name] for name in METERS if name in prices}
        steps = steps or {}
        # What the model prices itself is not charged again.
        added = {name: price for name, price in (surcharges or {}).items() if name not in ordered}
        parts = {name: _priced_parts(name, ordered) for name in ordered}
        inner = {part for found in parts.values() for part in found}
        roots = tuple(name for name in ordered if name not in inner)
        return cls(
            model,
            ordered,
            parts,
            roots,
            {name: _slack((name, *within(name)), ordered, steps) for name in roots},
            _dearest(INPUT, ordered, steps),
            _dearest(OUTPUT, ordered, steps),
            least,
            most,
            added,
            per_run,
            {name: beyond for name, beyond in steps.items() if beyond and (name in ordered or name in added)},
            bands,
        )

    def bounded(self, least: Bound | None, most: Bound | None) -> RateCard:
        """The same prices between other bounds."""
        bands = tuple((number, card.bounded(least, most)) for number, card in self.bands)
        return replace(self, least=least, most=most, bands=bands)

    def at(self, input_tokens: Quantity) -> RateCard:
        """The card of a call with so many input tokens."""
        for number, card in reversed(self.bands):
            if input_tokens > number:
                return card
        return self

    @property
    def sells_tokens(self) -> bool:
        """Whether tokens are billed; where they are not they are recorded only."""
        return self.dearest_input is not None or self.dearest_output is not None

    def covers(self, meter: str) -> bool:
        """Whether the meter has a price here, its own, its whole's or a surcharge."""
        found: str | None = meter
        while found is not None:
            if found in self.prices or found in self.surcharges:
                return True
            found = METERS[found].whole
        return False


def _priced_parts(whole: str, prices: Mapping[str, Price]) -> tuple[str, ...]:
    """The priced meters within a whole that no other priced one stands between."""
    found: list[str] = []
    for part in parts_of(whole):
        found += (part,) if part in prices else _priced_parts(part, prices)
    return tuple(found)


def _slack(lines: Iterable[str], prices: Mapping[str, Price], steps: Mapping[str, tuple[Step, ...]]) -> int:
    """Half to even adds at most half a nanocredit to each line whose unit price is not whole nanocredits."""
    return sum(price.per != 1 for price in _all_prices(lines, prices, steps)) // 2


def _dearest(whole: str, prices: Mapping[str, Price], steps: Mapping[str, tuple[Step, ...]]) -> Price | None:
    return max(_all_prices((whole, *within(whole)), prices, steps), default=None)


def _all_prices(
    names: Iterable[str], prices: Mapping[str, Price], steps: Mapping[str, tuple[Step, ...]]
) -> Iterator[Price]:
    for name in names:
        if name in prices:
            yield prices[name]
            yield from (price for _, price in steps.get(name, ()))


@dataclass(frozen=True, slots=True)
class _Kind:
    """What the table says of one model's calls of one operation; thresholds: of input, that prices depend on."""

    price: ModelPrice
    changes: OperationPrice | None
    rules: Rules
    conditions: tuple[When, ...]
    thresholds: tuple[int, ...]
    timed: bool


@dataclass(frozen=True, slots=True)
class PriceTable:
    """All prices of one version; `version` is a digest of `content`, which is everything that can change a charge.

    matching: by operation, what decides which calls are its; the first that matches prices a call.
    """

    version: str
    content: str
    models: Mapping[str, ModelPrice]
    operations: Mapping[str, OperationPrice]
    surcharges: Rules
    matching: Mapping[str, Any] = field(default_factory=dict)
    _kinds: dict[tuple[str, str | None], _Kind] = field(default_factory=dict, compare=False, repr=False)
    _cards: dict[object, RateCard] = field(default_factory=dict, compare=False, repr=False)

    def card(self, model: str, operation: str | None = None, attributes: Attributes | None = None) -> RateCard:
        """Make the rate card of a call; raises UnpricedModel, because nothing is ever sold at a guess.

        attributes: of the request; those that no rule asks for make no difference. With `asks_time` the time is one.
        """
        kind = self._kind(model, operation)
        given = attributes or {}
        if kind.timed and TIME not in given:
            raise UnpricedModel(f"the price of model {model!r} depends on the time, and that is not known")
        # Only whether conditions hold may tell cards apart: what callers send must not fill the memory.
        key = (model, operation, tuple(holds(when, given, 0) for when in kind.conditions))
        card = self._cards.get(key)
        if card is None:
            bands = tuple((number, self._make(kind, given, number)) for number in kind.thresholds)
            card = self._cards[key] = self._make(kind, given, 0, bands)
        return card

    def asks(self, model: str, operation: str | None) -> bool:
        """Whether any price of a kind of call depends on its request's attributes; raises UnpricedModel."""
        return bool(self._kind(model, operation).conditions)

    def asks_time(self, model: str, operation: str | None) -> bool:
        """Whether any price of a kind of call depends on when it was admitted; raises UnpricedModel."""
        return self._kind(model, operation).timed

    def asks_for(self, model: str, operation: str | None, name: str, value: str) -> bool:
        """Whether any price of a kind of call is for this attribute's value; raises UnpricedModel."""
        return any((name, value) in when for when in self._kind(model, operation).conditions)

    def _kind(self, model: str, operation: str | None) -> _Kind:
        kind = self._kinds.get((model, operation))
        if kind is None:
            kind = self._kinds[model, operation] = self._find(model, operation)
        return kind

    def _find(self, model: str, operation: str | None) -> _Kind:
        price = self.models.get(model)
        changes = self.operations.get(operation) if operation is not None else None
        if price is None or (operation is not None and changes is None):
            what = f"model {model!r}" if price is None else f"operation {operation!r}"
            raise UnpricedModel(f"the price table has no {what}")
        rules = {**price.rules, **(changes.rules if changes else {})}
        whens = [factor.when for factor in price.factors]
        whens += [rule.when for chosen in (*rules.values(), *self.surcharges.values()) for rule in chosen]
        thresholds = sorted({number for when in whens if (number := above(when)) is not None})
        # The length of the input is not a matter of the request's attributes.
        asked = dict.fromkeys(tuple(pair for pair in when if pair[0] != INPUT) for when in whens)
        return _Kind(
            price,
            changes,
            rules,
            tuple(filter(None, asked)),
            tuple(thresholds),
            any(timed(when) for when in whens),
        )

    def _make(
        self, kind: _Kind, attributes: Attributes, number: int, bands: tuple[tuple[int, RateCard], ...] = ()
    ) -> RateCard:
        changes, price = kind.changes, kind.price
        factors = [(factor.multiply, factor.text) for factor in price.factors if holds(factor.when, attributes, number)]
        multiplied = [
            *factors,
            *([(changes.multiply, changes.multiply_text)] if changes and changes.multiply is not None else []),
        ]
        prices, steps, surcharges = {}, {}, {}
        for name, chosen in kind.rules.items():
            rule = _first(chosen, attributes, number, f"model {price.model!r}: {name}")
            kept = changes is not None and name in changes.rules
            prices[name], steps[name] = _multiplied(rule, [] if kept else multiplied)
        for name, chosen in self.surcharges.items():
            rule = _first(chosen, attributes, number, f"surcharge {name}")
            surcharges[name], beyond = _multiplied(rule, [])
            steps.setdefault(name, beyond)
        return RateCard.of(
            price.model,
            prices,
            least=(changes.least if changes else None) or price.least,
            most=(changes.most if changes else None) or price.most,
            surcharges=surcharges,
            per_run=changes is not None and changes.per_run,
            steps=steps,
            bands=bands,
        )


def _first(rules: tuple[Rule, ...], attributes: Attributes, number: int, what: str) -> Rule:
    for rule in rules:
        if holds(rule.when, attributes, number):
            return rule
    raise UnpricedModel(f"{what}: no rule of it holds")


def _multiplied(rule: Rule, factors: Iterable[tuple[Fraction, str]]) -> tuple[Price, tuple[Step, ...]]:
    price, steps = rule.price, rule.steps
    for factor, text in factors:
        price = price.times(factor, text)
        steps = tuple((number, beyond.times(factor, text)) for number, beyond in steps)
    return price, steps
