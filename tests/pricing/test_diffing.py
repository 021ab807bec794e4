"""Changes of prices in words."""

from __future__ import annotations

from fractions import Fraction

import pytest

from pricing.diffing import diff, in_credits
from pricing.parsing import price_table
from pricing.table import PriceTable
from tests.pricing.cards import model_price
from tests.pricing.test_bounds import operation, table


def _said(before: PriceTable, after: PriceTable) -> list[str]:
    return list(map(str, diff(before, after)))


def _models(**prices: str) -> PriceTable:
    return price_table({name: model_price(text, name) for name, text in prices.items()})


_TOKENS = "input_tokens: 40 / 1M\noutput_tokens: 100 / 1M\n"


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        (_TOKENS, _TOKENS.replace("100", "120"), "fast: output_tokens 100 → 120 credits / 1M, +20 %"),
        (_TOKENS, _TOKENS.replace("100 / 1M", "$0.09 / 100k"), "fast: output_tokens 100 → 90 credits / 1M, −10 %"),
        ("request: 3", "request: 1", "fast: request 3 → 1 credits, −66.7 %"),
        ("request: 3", "request: 0", "fast: request 3 → 0 credits, −100 %"),
        ("request: 0", "request: 3", "fast: request 0 → 3 credits, it was free"),
        ("request: 1000", "request: 1000.1", "fast: request 1000 → 1000.1 credits, < 0.1 %"),
        ("request: 3", "request: 3\nimage: 5", "fast: image is now 5 credits"),
        ("request: 3\nimage: 5", "request: 3", "fast: image is no longer 5 credits"),
        ("request: 3\nmin: 5", "request: 3\nmin: 6", "fast: min 5 → 6 credits, +20 %"),
        (
            "image: [{when: {quality: high}, price: 9}, {price: 5}]",
            "image: [{when: {quality: high}, price: 12}, {price: 5}]",
            "fast: image (quality high) 9 → 12 credits, +33.3 %",
        ),
        ("image: {price: 5, free: 2}", "image: {price: 6, free: 2}", "fast: image beyond 2 5 → 6 credits, +20 %"),
        (
            "image: 1\nfactors: [{when: {region: eu}, multiply: 1.1}]",
            "image: 1\nfactors: [{when: {region: eu}, multiply: 1.2}]",
            "fast: all prices (region eu) × 1.1 → × 1.2, +9.1 %",
        ),
        ("request: 1", "request: $0.01", "prices: written or ordered otherwise; no figure is another"),
    ],
)
def test_one_change(before: str, after: str, said: str) -> None:
    """What it was, what it is, and by how much; in the same unit, however each was written."""
    assert _said(_models(fast=before), _models(fast=after)) == [said]


def test_what_comes_and_goes() -> None:
    """A new model with its prices; one that is no longer there; nothing where nothing changed."""
    one, two = _models(fast=_TOKENS), _models(fast=_TOKENS, smart="request: 1\nmax: 9")
    assert _said(one, two) == ["smart: new, request 1 credits, max 9 credits"]
    assert _said(two, one) == ["smart: no longer there"]
    assert _said(two, two) == []


def test_operations_and_surcharges() -> None:
    """Their bounds, factors and prices, what they match, and the order in which they do."""
    assert _said(table(changes="min: 2"), table(changes="min: 3")) == ["operation edit: min 2 → 3 credits, +50 %"]
    assert _said(table(changes="multiply: 0.5"), table(changes="multiply: 0.6")) == [
        "operation edit: prices × 0.5 → × 0.6, +20 %"
    ]
    assert _said(table(web_search="15"), table(web_search="20")) == ["surcharges: web_search 15 → 20 credits, +33.3 %"]
    models = {"fast": model_price("request: 1")}
    operations = {name: operation("min: 1", name) for name in ("one", "other")}
    turned = dict(reversed(operations.items()))
    before = price_table(models, operations, None, {"one": [None, "fast", None]})
    assert _said(before, price_table(models, turned, None, {"one": [None, "fast", None]})) == [
        "operations: matched in another order"
    ]
    assert _said(before, price_table(models, operations, None, {"one": [None, None, None]})) == [
        "operation one: matches other calls than before"
    ]


@pytest.mark.parametrize(
    ("amount", "written"),
    [(Fraction(1, 3), "~0.333333333"), (Fraction(12), "12"), (Fraction(1, 10), "0.1"), (Fraction(0), "0")],
)
def test_amounts(amount: Fraction, written: str) -> None:
    """Exact where nine decimals are enough, and said to be about where not."""
    assert in_credits(amount) == written
