"""Bills in words."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pricing.amounts import NANO
from pricing.meters import METERS
from pricing.usage import Quantity
from pricing.words import counted, line_in_words, shares
from tests.pricing.cards import properties


@pytest.mark.parametrize(
    ("meter", "quantity", "price", "amount", "said"),
    [
        ("input_tokens", 1_234_567, "40 / 1M", NANO // 2, "1,234,567 input tokens at 40 / 1M: 0.5 credits"),
        ("output_tokens", 1, "$1 / 1k", NANO, "1 output token at $1 / 1k: 1 credits"),
        ("reasoning_tokens", 2, "5", 10 * NANO, "2 tokens of reasoning at 5: 10 credits"),
        ("input_audio_tokens", 1, "5", NANO, "1 input audio token at 5: 1 credits"),
        ("output_image_tokens", 7, "5", NANO, "7 output image tokens at 5: 1 credits"),
        ("audio_second", Decimal("1.50"), "2", 3 * NANO, "1.5 seconds of audio at 2: 3 credits"),
        ("web_page", 1, "8", 8 * NANO, "1 web page at 8: 8 credits"),
        ("web_page", 3, "8", 24 * NANO, "3 web pages at 8: 24 credits"),
        ("web_search", 2, "free", 0, "2 web searches within the free quota"),
        ("min", 1, "40", 5 * NANO, "raised to the least that such a call costs, 40: 5 credits more"),
        ("max", 1, "40 / run", -5 * NANO, "lowered to the most that such a call costs, 40 / run: 5 credits less"),
    ],
)
def test_lines(meter: str, quantity: Quantity, price: str, amount: int, said: str) -> None:
    """What was used, at what price, and what that comes to."""
    assert line_in_words(meter, quantity, price, amount, "credits") == said


@pytest.mark.parametrize("meter", METERS)
def test_every_meter_has_words(meter: str) -> None:
    """None shows its own name, and one of it is not many of it."""
    one, many = counted(meter, 1), counted(meter, 2)
    assert "_" not in one + many
    assert one.removeprefix("1 ") != many.removeprefix("2 ")


@properties
@given(st.integers(0, 10**7), st.dictionaries(st.text(max_size=3), st.integers(0, 10**6), min_size=1, max_size=6))
def test_shares_add_up(total: int, weights: dict[str, int]) -> None:
    """Each is its exact share rounded down or up, and together they are the whole."""
    parts = shares(total, weights)
    whole = sum(weights.values())
    assert sum(parts.values()) == (total if whole else 0)
    for name, weight in weights.items():
        assert not whole or total * weight // whole <= parts[name] <= -(-total * weight // whole)
