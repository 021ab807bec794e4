"""What only a break of a rule has shown to be untold elsewhere: see scripts/breaks.yaml."""

from __future__ import annotations

import pytest

from pricing.errors import UnpricedModel
from pricing.parsing import price_table
from pricing.rating import rate
from tests.pricing.cards import model_price

NANO = 10**9


def test_max_needs_no_answer() -> None:
    """A call that brought no output pays for its input, at most the max, and neither the request nor the min."""
    card = price_table({"fast": model_price("input_tokens: 1 / 1\noutput_tokens: 2 / 1\nrequest: 1\nmin: 5\nmax: 10")})
    rating = rate(card.card("fast"), {"request": 1, "input_tokens": 30}, answered=False)
    assert [(line.meter, line.amount // NANO) for line in rating.lines] == [("input_tokens", 30), ("max", -20)]
    assert rating.total == 10 * NANO


def test_an_operation_that_there_is_not_has_no_price() -> None:
    """An operation that the table does not know is refused as a model is, never sold at the model's own price."""
    table = price_table({"fast": model_price("request: 1")})
    with pytest.raises(UnpricedModel, match="operation 'edit'"):
        table.card("fast", "edit")
