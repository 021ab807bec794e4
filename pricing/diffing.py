"""What a change of prices changes, in words: `smart: output_tokens 100 → 120 credits / 1M, +20 %`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, Decimal
from fractions import Fraction

from pricing.amounts import NANO
from pricing.conditions import When
from pricing.meters import METERS
from pricing.table import ModelPrice, OperationPrice, Price, PriceTable, Rules

__all__ = ["PriceChange", "diff", "in_credits"]

_PER_TOKENS = 1_000_000
_DIGITS = 9
_SHOWN_PERCENT = Decimal("0.1")


@dataclass(frozen=True, slots=True)
class _Figure:
    """One number of a table: in credits for `per`, which is `" / 1M"` for tokens; a plain factor where per is None."""

    amount: Fraction
    per: str | None = ""

    def written(self, unit: str) -> str:
        number = in_credits(self.amount)
        return f"× {number}" if self.per is None else f"{number} {unit}{self.per}"


_Figures = Mapping[str, _Figure]


@dataclass(frozen=True, slots=True)
class PriceChange:
    """One figure that is another, or a subject that is new or gone; percent: by how much, None where that says nothing.

    subject: a model, `operation …` or `surcharges`. figure: which of its figures, None for all of it.
    """

    subject: str
    figure: str | None
    words: str
    percent: Fraction | None = None

    def __str__(self) -> str:
        return f"{self.subject}: {self.words}"


def in_credits(amount: Fraction) -> str:
    """Write a number of credits, exactly where 9 decimals are enough, else with as many and a `~`."""
    rounded = Decimal(round(amount * 10**_DIGITS)).scaleb(-_DIGITS)
    text = f"{rounded:f}"
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return text if Fraction(rounded) == amount else f"~{text}"


def diff(before: PriceTable, after: PriceTable, unit: str = "credits") -> list[PriceChange]:
    """List what is different between two tables; unit: what credits are called.

    Two versions always differ in something: where no figure does, in what operations match, or in how prices are
    written.
    """
    found: list[PriceChange] = []
    old, new = _subjects(before), _subjects(after)
    for subject, figures in new.items():
        if subject not in old:
            shown = ", ".join(f"{name} {figure.written(unit)}" for name, figure in figures.items())
            found.append(PriceChange(subject, None, f"new, {shown or 'at the prices of its models'}"))
        else:
            found += _changes(subject, old[subject], figures, unit)
    found += [PriceChange(subject, None, "no longer there") for subject in old if subject not in new]
    if list(before.operations) != list(after.operations) and not before.operations.keys() ^ after.operations.keys():
        found.append(PriceChange("operations", None, "matched in another order"))
    found += [
        PriceChange(f"operation {name}", None, "matches other calls than before")
        for name in after.operations
        if name in before.operations and before.matching.get(name) != after.matching.get(name)
    ]
    if not found and before.version != after.version:
        found.append(PriceChange("prices", None, "written or ordered otherwise; no figure is another"))
    return found


def _changes(subject: str, old: _Figures, new: _Figures, unit: str) -> Iterator[PriceChange]:
    for name, figure in new.items():
        was = old.get(name)
        if was is None:
            yield PriceChange(subject, name, f"{name} is now {figure.written(unit)}")
        elif was != figure:
            yield _change(subject, name, was, figure, unit)
    for name, figure in old.items():
        if name not in new:
            yield PriceChange(subject, name, f"{name} is no longer {figure.written(unit)}")


def _change(subject: str, name: str, was: _Figure, now: _Figure, unit: str) -> PriceChange:
    shown = was.written(unit).removesuffix(f" {unit}{was.per}") if was.per == now.per else was.written(unit)
    words = f"{name} {shown} → {now.written(unit)}"
    if not was.amount:
        return PriceChange(subject, name, f"{words}, it was free" if was.per is not None else words)
    percent = (now.amount - was.amount) / was.amount * 100
    return PriceChange(subject, name, f"{words}, {_percent(percent)}", percent)


def _percent(percent: Fraction) -> str:
    value = Decimal(percent.numerator) / Decimal(percent.denominator)
    # What rounds to nothing is not said to be nothing.
    shown = value.quantize(_SHOWN_PERCENT, ROUND_HALF_EVEN) if abs(value) >= _SHOWN_PERCENT else value
    text = f"{shown.normalize():f}" if abs(value) >= _SHOWN_PERCENT else ("< 0.1" if value > 0 else "> -0.1")
    return f"{'+' if value > 0 and text[0].isdigit() else ''}{text.replace('-', '−')} %"


def _subjects(table: PriceTable) -> dict[str, _Figures]:
    found: dict[str, _Figures] = {name: dict(_of_model(price)) for name, price in table.models.items()}
    found |= {f"operation {name}": dict(_of_operation(price)) for name, price in table.operations.items()}
    if table.surcharges:
        found["surcharges"] = dict(_of_rules(table.surcharges))
    return found


def _of_model(price: ModelPrice) -> Iterator[tuple[str, _Figure]]:
    yield from _of_rules(price.rules)
    yield from _of_bounds(price)
    for factor in price.factors:
        yield f"all prices{_shown(factor.when)}", _Figure(factor.multiply, None)


def _of_operation(price: OperationPrice) -> Iterator[tuple[str, _Figure]]:
    yield from _of_rules(price.rules)
    yield from _of_bounds(price)
    if price.multiply is not None:
        yield "prices", _Figure(price.multiply, None)


def _of_bounds(price: ModelPrice | OperationPrice) -> Iterator[tuple[str, _Figure]]:
    per = " / run" if isinstance(price, OperationPrice) and price.per_run else ""
    for name, bound in (("min", price.least), ("max", price.most)):
        if bound is not None:
            yield name, _Figure(Fraction(bound.nano, NANO), per)


def _of_rules(rules: Rules) -> Iterator[tuple[str, _Figure]]:
    for meter, chosen in rules.items():
        for rule in chosen:
            name = f"{meter}{_shown(rule.when)}"
            yield name, _figure(meter, rule.price)
            for number, price in rule.steps:
                yield f"{name} beyond {number}", _figure(meter, price)


def _figure(meter: str, price: Price) -> _Figure:
    each = Fraction(price.nano, price.per * NANO)
    return _Figure(each * _PER_TOKENS, " / 1M") if METERS[meter].token else _Figure(each)


def _shown(when: When) -> str:
    return f" ({', '.join(f'{name} {text}' for name, text in when)})" if when else ""
