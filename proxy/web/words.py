"""Prices in words, for pages: "40 credits per 1M input tokens"."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from decimal import Decimal, localcontext
from fractions import Fraction

from pricing.amounts import NANO
from pricing.conditions import When
from pricing.meters import INPUT, METERS
from pricing.table import FREE, Bound, Factor, Price, Rule, Rules
from proxy.credit import Credit

__all__ = ["Words"]

_EXACT_DIGITS = 60
_MOST_DECIMALS = 9
_ABOUT_DIGITS = 6
_MILLION = 1_000_000
_SECONDS = {
    "audio_second": "second of audio",
    "input_audio_second": "second of audio sent",
    "video_second": "second of video",
    "input_video_second": "second of video sent",
}
_NAMES = {
    "request": "call",
    "cache_write_1h_tokens": "tokens cached for an hour",
    "cache_write_tokens": "tokens written to the cache",
    "input_image": "image sent",
    **_SECONDS,
}
_MANY = {"character": 1000}
_CONDITIONS = {"utc": "at {} UTC", "days": "on {} (UTC)", INPUT: "with {} input tokens"}


@dataclass(frozen=True, slots=True)
class Words:
    """Says amounts in credits, or in dollars where the operator shows them so."""

    credit: Credit

    def amount(self, credits: Fraction) -> str:
        """Write an amount of credits with its unit."""
        if self.credit.show == "usd":
            return _dollars(credits * Fraction(self.credit.usd))
        return f"{_figure(credits)} {self.credit.name if credits == 1 else self.credit.plural}"

    def between(self, low: Fraction | None, high: Fraction | None) -> str | None:
        """Write the least and the most of a charge, None where neither is known."""
        if low is not None and high is not None:
            if low == high:
                return self.amount(low)
            first = _figure(low) if self.credit.show == "credits" else self.amount(low)
            return f"{first}–{self.amount(high)}"
        if low is not None:
            return f"at least {self.amount(low)}"
        return None if high is None else f"at most {self.amount(high)}"

    def prices(
        self, rules: Rules, least: Bound | None = None, most: Bound | None = None, factors: Iterable[Factor] = ()
    ) -> list[str]:
        """Write prices line by line, in the vocabulary's order, then what bounds and multiplies them."""
        lines = [line for meter in METERS if meter in rules for line in self._meter(meter, rules[meter])]
        bounds = self.between(
            None if least is None else Fraction(least.nano, NANO), None if most is None else Fraction(most.nano, NANO)
        )
        lines += [f"{bounds} a call"] if bounds else []
        return lines + [f"all of it × {factor.text} {_conditions(factor.when)}" for factor in factors]

    def _meter(self, meter: str, rules: tuple[Rule, ...]) -> Iterator[str]:
        for rule in rules:
            when = _conditions(rule.when) or ("otherwise" if len(rules) > 1 else "")
            said, unit = self._price(meter, rule.price)
            for number, beyond in rule.steps:
                said += f" up to {number:,} of a call, then {self._price(meter, beyond)[0]}"
            yield f"{said} {unit} {when}".rstrip()

    def _price(self, meter: str, price: Price) -> tuple[str, str]:
        """The amount and the unit that it is for, one that is easily compared whatever the operator wrote."""
        name = _NAMES.get(meter, meter.replace("_", " "))
        count = _MILLION if METERS[meter].token else _MANY.get(meter, 1)
        many = {1: name, 1000: f"1,000 {name}s", _MILLION: f"1M {name}"}[count]
        said = "free" if price == FREE else self.amount(Fraction(price.nano * count, price.per * NANO))
        return said, f"per {many}"


def quantity(meter: str, text: str) -> str:
    """Write how much of a meter a call uses, such as `2,000 input tokens`."""
    figure = _figure(Fraction(text))
    seconds = _SECONDS.get(meter)
    if seconds is not None:
        name = seconds if figure == "1" else seconds.replace("second", "seconds", 1)
    else:
        name = _NAMES.get(meter, meter.replace("_", " "))
        if not METERS[meter].token and figure != "1":
            name = "images sent" if meter == "input_image" else name.replace("search", "searche") + "s"
    return f"{figure} {name}"


def _conditions(when: When) -> str:
    said = []
    for name, text in when:
        pattern = _CONDITIONS.get(name, f"with {name.replace('_', ' ')} {{}}")
        said.append(pattern.format(text.replace("> ", "more than ")))
    return " and ".join(said)


def _figure(value: Fraction) -> str:
    """Write a number with all its decimals, or, where these don't end, its first digits with `about`."""
    with localcontext() as context:
        context.prec = _EXACT_DIGITS
        number = Decimal(value.numerator) / value.denominator
        exact = Fraction(number) == value and number == round(number, _MOST_DECIMALS)
        if not exact:
            context.prec = _ABOUT_DIGITS
            number = +number
    text = f"{number:,f}"
    return ("" if exact else "about ") + (text.rstrip("0").rstrip(".") if "." in text else text)


def _dollars(value: Fraction) -> str:
    figure = _figure(value)
    about, number = ("about ", figure.removeprefix("about ")) if figure.startswith("about ") else ("", figure)
    cents = "0" if len(number.partition(".")[2]) == 1 else ""
    return f"{about}${number}{cents}"
