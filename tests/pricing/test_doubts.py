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
    assert list(_doubts("image: [{when: {quality: low}, price: 0.1}, {price: 10}]")) == ["image"]
    assert list(_doubts("image: 1")) == ["image"]
    assert _doubts("web_search: 0\nrequest: 0") == {}


@pytest.mark.parametrize(
    ("cost", "price", "doubted"),
    [
        ("cache_write_tokens: $3.75 / 1M", "", ["cache_write_tokens"]),
        ("cache_write_tokens: $3.75 / 1M", "cache_write_tokens: 380 / 1M", []),
        ("cached_input_tokens: $0.30 / 1M", "", []),
        ('input_tokens: [{when: {input_tokens: "> 200k"}, price: $6 / 1M}, {price: $3 / 1M}]', "", ["input_tokens"]),
        ('input_tokens: [{when: {utc: "16:30-00:30"}, price: $6 / 1M}, {price: $3 / 1M}]', "", ["input_tokens"]),
        ("input_tokens: [{when: {service_tier: priority}, price: $6 / 1M}, {price: $3 / 1M}]", "", []),
        ("input_tokens: [{when: {region: eu}, price: $6 / 1M}, {price: $3 / 1M}]", "", []),
        (
            "input_tokens: [{when: {service_tier: flex}, price: $2 / 1M}, {price: $3 / 1M}]",
            "factors: [{when: {service_tier: flex}, multiply: 0.5}]",
            ["input_tokens", "output_tokens"],
        ),
        ("", "factors: [{when: {service_tier: flex}, multiply: 0.5}]", []),
        ("", 'factors: [{when: {input_tokens: "> 9"}, multiply: 0.5}]', ["input_tokens", "output_tokens"]),
    ],
)
def test_every_kind_of_call_is_looked_at(cost: str, price: str, doubted: list[str]) -> None:
    """Long ones, those at night, in a tier that is sold, and parts that are sold as their whole."""
    said = {"input_tokens": "$3 / 1M", "output_tokens": "$15 / 1M"}
    sold = {"input_tokens": "320 / 1M", "output_tokens": "1600 / 1M"}
    charged = "\n".join([cost, *(f"{name}: {text}" for name, text in said.items() if not cost.startswith(name))])
    asked = "\n".join([price, *(f"{name}: {text}" for name, text in sold.items() if not price.startswith(name))])
    found = dict(doubts(model_price(asked), model_price(charged, usd="1"), Decimal("0.01")))
    assert list(found) == doubted


def test_a_region_is_that_of_who_answers() -> None:
    """What a provider takes more there is looked at where there is somebody there."""
    cost = model_price("request: [{when: {region: eu}, price: $2}, {price: $1}]", usd="1")
    assert dict(doubts(model_price("request: 150"), cost, Decimal("0.01"))) == {}
    found = dict(doubts(model_price("request: 150"), cost, Decimal("0.01"), {"region": "eu"}))
    assert "the provider takes $2: sold below cost" in found["request"]


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
