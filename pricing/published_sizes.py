"""Prices of pictures that are published picture by picture: an entry for each quality and size of a model."""

from __future__ import annotations

import re
from collections.abc import Mapping
from fractions import Fraction

from pricing.amounts import NANO
from pricing.conditions import When
from pricing.errors import UnreadablePrice
from pricing.published import dollars, published
from pricing.table import ModelPrice, Price, Rule

__all__ = ["published_sizes", "quality_and_size"]

_NAME = re.compile(r"(?:(?P<quality>[a-z]+)/)?(?P<width>\d{2,5})-x-(?P<height>\d{2,5})/(?P<name>.+)", re.ASCII)
# What those that have such a quality or size make where none is asked for.
_QUALITY = "standard"
_SIZE = "1024x1024"


def quality_and_size(key: str) -> tuple[str, str, str] | None:
    """Read an entry's name such as `hd/1024-x-1792/dall-e-3`: the model's name, the quality or "", and the size."""
    match = _NAME.fullmatch(key)
    return match and (match["name"], match["quality"] or "", f"{match['width']}x{match['height']}")


def published_sizes(name: str, entries: Mapping[tuple[str, str], Mapping[str, object]]) -> ModelPrice:
    """Make one price of a model's entries by quality and size, in nanodollars.

    What is not asked for costs what the model makes then, where that is known, and else the dearest: a picture of a
    listed size is never sold below its cost. Raises UnreadablePrice.
    """
    amounts = {key: _picture(name, key[1], entry) for key, entry in entries.items()}
    exact = [
        ((("quality", quality),) * bool(quality) + (("size", size),), (quality, size)) for quality, size in amounts
    ]
    whens: list[tuple[When, Fraction]] = [(when, amounts[key]) for when, key in exact if len(when) == 2]
    qualities = dict.fromkeys(quality for quality, _ in amounts if quality)
    sizes = dict.fromkeys(size for _, size in amounts)
    for quality in qualities:
        whens.append(((("quality", quality),), _unsaid(amounts, quality, None)))
    for size in sizes:
        whens.append(((("size", size),), _unsaid(amounts, None, size)))
    whens.append(((), _unsaid(amounts, None, None)))
    return ModelPrice(name, {"image": tuple(Rule(when, _price(amount)) for when, amount in whens)})


def _unsaid(amounts: Mapping[tuple[str, str], Fraction], quality: str | None, size: str | None) -> Fraction:
    """The price of a picture of which only so much was asked for."""
    for default in (_QUALITY, ""):
        usual = amounts.get((default if quality is None else quality, _SIZE if size is None else size))
        if usual is not None:
            return usual
    return max(
        amount
        for (of, at), amount in amounts.items()
        if (quality is None or of == quality) and (size is None or at == size)
    )


def _picture(name: str, size: str, entry: Mapping[str, object]) -> Fraction:
    """What one picture costs, in dollars."""
    rules = published(name, entry).rules
    meter, ruled = next(iter(rules.items()))
    if len(rules) > 1 or len(ruled) > 1 or meter not in ("image", "pixel"):
        raise UnreadablePrice("mode", f"of {size} is no price of a picture alone")
    price = Fraction(ruled[0].price.nano, ruled[0].price.per) / NANO
    width, height = size.split("x")
    return price * int(width) * int(height) if meter == "pixel" else price


def _price(amount: Fraction) -> Price:
    return Price.of(dollars("image", amount), amount * NANO)
