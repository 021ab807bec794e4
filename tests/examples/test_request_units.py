"""The price list of the assistant that is sold by the request."""

from __future__ import annotations

from decimal import Decimal

import pytest

from pricing.amounts import NANO
from tests.examples.lists import Call, load, tokens

CONFIG = load("request-units")

PUBLISHED = [
    # model, units a request
    ("demo", "0"),
    ("small", "1"),
    ("medium", "2"),
    ("large", "5"),
]

PACKS = [
    # pack, dollars, requests
    ("starter", 20, 500),
    ("studio", 100, 2_500),
    ("agency", 500, 12_500),
]


@pytest.mark.parametrize(("model", "units"), PUBLISHED)
@pytest.mark.parametrize("usage", [tokens(1, 0, 1), tokens(900_000, 5, 8_192, reasoning_tokens=4_000)])
def test_charged(model: str, units: str, usage: dict[str, int]) -> None:
    """A request costs its units however long it and its answer are, and exactly that is held."""
    assert Call(model, usage).charged(CONFIG) == units
    assert Call(model, usage).held(CONFIG) == units


@pytest.mark.parametrize("model", CONFIG.models)
def test_no_answer(model: str) -> None:
    """A request that brought no answer costs nothing."""
    assert Call(model, tokens(1_000, 0, 0), answered=False).charged(CONFIG) == "0"


def test_packs() -> None:
    """Packs of 500, 2,500 and 12,500 requests cost $20, $100 and $500: all at what a credit sells for."""
    packs = CONFIG.packs.values()
    assert [(pack.name, int(pack.dollars), pack.amount // NANO) for pack in packs] == PACKS
    assert {Decimal(price) / requests for _, price, requests in PACKS} == {CONFIG.credit.usd}
