"""Prices that are probably slips."""

from __future__ import annotations

from decimal import Decimal

import pytest

from pricing.document import Document
from pricing.doubts import doubts, parse_meant
from pricing.errors import ConfigError
from pricing.meters import METERS
from pricing.table import ModelPrice
from tests.pricing.cards import model_price

_COST = model_price(
    "input_tokens: $0.40 / 1M\noutput_tokens: $1.60 / 1M\n"
    "image: [{when: {quality: high}, price: $0.10}, {price: $0.01}]\nweb_search: 0",
    usd="1",
)


def _doubts(price: str, cost: ModelPrice = _COST) -> dict[str, str]:
    return dict(doubts(model_price(price), cost, Decimal("0.01")))


@pytest.mark.parametrize(
    ("price", "doubted"),
    [
        ("40 / 1M", None),
        ("$0.40 / 1M", None),
        ("39999 / 1M", None),
        ("40 / 1k", "`40 / 1k` is $400 a million, and the provider takes $0.4: 1000 times as much; is its unit right?"),
        ("40000 / 1M", "1000 times as much"),
        ("39.999999 / 1M", "`39.999999 / 1M` is $0.39999999 a million, and the provider takes $0.4: sold below cost."),
        ("0.041 / 1M", "sold below cost"),
        ("0.04 / 1M", "a thousandth or less; is its unit right?"),
        ("0", "`0` is $0 a million, and the provider takes $0.4: nothing; is its unit right?"),
        ("{price: 40 / 1M, beyond: {1k: 39 / 1M}}", "sold below cost"),
        ("{price: 40 / 1M, free: 10}", "nothing"),
        ("{price: 40 / 1M, beyond: {1k: 40 / 1k}}", "1000 times as much"),
    ],
)
def test_a_price_beside_its_cost(price: str, doubted: str | None) -> None:
    """Below it, a thousandth or a thousand times of it; a credit is worth a cent here."""
    found = _doubts(f"input_tokens: {price}\noutput_tokens: 160 / 1M")
    assert list(found) == ([] if doubted is None else ["input_tokens"])
    assert doubted is None or doubted in found["input_tokens"]


def test_like_is_compared_with_like() -> None:
    """Prices of the same conditions; what the provider has no price for, or takes nothing for, may be anything."""
    assert _doubts("image: [{when: {quality: high}, price: 10}, {price: 1}]") == {}
    assert list(_doubts("image: [{when: {quality: high}, price: 9}, {price: 1}]")) == ["image"]
    assert _doubts("image: [{when: {quality: low}, price: 0.1}, {price: 1}]") == {}
    assert _doubts("web_search: 0\nrequest: 0") == {}


def test_what_is_meant() -> None:
    """Named meters, or all of them; anything else is refused."""

    def meant(text: str) -> frozenset[str]:
        return parse_meant(Document("prices.yaml", text, {}).root())

    assert meant("request: 1") == frozenset()
    assert meant("i_mean_it: [request, image]") == {"request", "image"}
    assert meant("i_mean_it: true") == frozenset(METERS)
    for text in ("i_mean_it: [tokens]", "i_mean_it: yes", "i_mean_it: false"):
        with pytest.raises(ConfigError):
            meant(text)
