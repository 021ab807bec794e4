"""Bills worked out by hand."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction

import pytest

from pricing.rating import affordable_output, quote, rate
from pricing.receipt import LineItem
from tests.pricing.cards import exact_card, rate_card

FAST = {"input_tokens": "60 / 1M", "cached_input_tokens": "15 / 1M", "output_tokens": "$2.40 / 1M"}


def test_a_bill() -> None:
    """1,000 tokens in, 400 of them cached, and 200 out cost 0.036 + 0.006 + 0.048 credits."""
    rating = rate(rate_card(**FAST), {"input_tokens": 1000, "cached_input_tokens": 400, "output_tokens": 200})
    assert rating.lines == (
        LineItem("input_tokens", 600, "60 / 1M", 36_000_000),
        LineItem("cached_input_tokens", 400, "15 / 1M", 6_000_000),
        LineItem("output_tokens", 200, "$2.40 / 1M", 48_000_000),
    )
    assert rating.total == 90_000_000
    assert rating.unpriced == ()


@pytest.mark.parametrize(
    ("quantity", "amount"), [(1, 0), (2, 1), (3, 2), (4, 2), (5, 2), (6, 3), (7, 4), (9, 4), (11, 6)]
)
def test_halves_go_to_even(quantity: int, amount: int) -> None:
    """Half a nanocredit a unit: each half rounds to the even neighbour, so 0.5 is 0, 1.5 is 2, 2.5 is 2."""
    assert rate(rate_card(character="0.5 / 1000000000"), {"character": quantity}).total == amount


@pytest.mark.parametrize(("quantity", "amount"), [(1, 0), (2, 1), (3, 1), (4, 1), (5, 2), (7, 2), (8, 3)])
def test_thirds_go_to_the_nearest(quantity: int, amount: int) -> None:
    """A third of a nanocredit a unit rounds to the nearest whole one."""
    assert rate(rate_card(character="1 / 3000000000"), {"character": quantity}).total == amount


def test_each_line_is_rounded_by_itself() -> None:
    """Two lines of half a nanocredit cost nothing, two of one and a half cost 4, and a quote is not below that."""
    card = exact_card({"input_tokens": Fraction(1, 2), "output_tokens": Fraction(1, 2)})
    assert rate(card, {"input_tokens": 1, "output_tokens": 1}).total == 0
    assert rate(card, {"input_tokens": 3, "output_tokens": 3}).total == 4
    assert quote(card, {"input_tokens": 3, "output_tokens": 3}).total >= 4


def test_fractions_of_seconds() -> None:
    """2.5 seconds at 3 credits cost 7.5."""
    rating = rate(rate_card(audio_second="3"), {"audio_second": Decimal("2.5")})
    assert rating.lines == (LineItem("audio_second", Decimal("2.5"), "3", 7_500_000_000),)


def test_parts_without_a_price_cost_their_wholes() -> None:
    """Cached and reasoning tokens without prices of their own are billed once, as input and output."""
    card = rate_card(input_tokens="1 / 1", output_tokens="10 / 1")
    rating = rate(card, {"input_tokens": 7, "cached_input_tokens": 5, "output_tokens": 4, "reasoning_tokens": 3})
    assert [(line.meter, line.quantity) for line in rating.lines] == [("input_tokens", 7), ("output_tokens", 4)]
    assert rating.total == 47 * 10**9


def test_reasoning_is_part_of_output() -> None:
    """Reasoning with a price of its own leaves only the rest at the output's price."""
    card = rate_card(input_tokens="0", output_tokens="10 / 1", reasoning_tokens="4 / 1")
    rating = rate(card, {"output_tokens": 9, "reasoning_tokens": 6})
    assert [(line.meter, line.quantity) for line in rating.lines] == [("output_tokens", 3), ("reasoning_tokens", 6)]
    assert rating.total == 54 * 10**9


def test_a_whole_that_is_all_parts() -> None:
    """Input that was cached to the last token has no line of plain input."""
    rating = rate(rate_card(**FAST), {"input_tokens": 400, "cached_input_tokens": 400, "output_tokens": 0})
    assert [(line.meter, line.amount) for line in rating.lines] == [("cached_input_tokens", 6_000_000)]


def test_overlapping_parts_are_billed_once() -> None:
    """100 tokens in, 80 cached and 50 audio: 30 must be both, and every token is billed in one line."""
    card = rate_card(input_tokens="9 / 1", cached_input_tokens="1 / 1", input_audio_tokens="5 / 1", output_tokens="0")
    rating = rate(card, {"input_tokens": 100, "cached_input_tokens": 80, "input_audio_tokens": 50})
    assert [(line.meter, line.quantity) for line in rating.lines] == [
        ("cached_input_tokens", 80),
        ("input_audio_tokens", 20),
    ]


def test_no_output_no_request() -> None:
    """The price a request is charged for an answer, not for having asked."""
    card = rate_card(request="2", input_tokens="1 / 1", output_tokens="1 / 1")
    usage = {"request": 1, "input_tokens": 3, "output_tokens": 0}
    assert rate(card, usage).total == 5 * 10**9
    assert [line.meter for line in rate(card, usage, answered=False).lines] == ["input_tokens"]


def test_free_input_has_its_line() -> None:
    """What is priced at 0 is on the bill at 0, so that the bill shows what was used."""
    rating = rate(rate_card(input_tokens="0", output_tokens="1 / 1"), {"input_tokens": 8, "output_tokens": 1})
    assert rating.lines[0] == LineItem("input_tokens", 8, "0", 0)


def test_used_but_not_priced() -> None:
    """A meter that the price does not cover costs nothing and is named, so that the operator hears of it."""
    rating = rate(rate_card(**FAST), {"input_tokens": 1, "output_tokens": 1, "web_search": 2, "web_page": 0})
    assert rating.unpriced == ("web_search",)


def test_tokens_of_a_model_sold_by_the_image() -> None:
    """Where tokens are not sold they are recorded, neither billed nor reported as missing."""
    rating = rate(rate_card(image="50"), {"request": 1, "input_tokens": 90, "output_tokens": 4000, "image": 2})
    assert [line.meter for line in rating.lines] == ["image"]
    assert rating.total == 100 * 10**9
    assert rating.unpriced == ()


def test_quote_takes_the_dearest() -> None:
    """A quote puts every input token at the dearest price that one can take, and every output token likewise."""
    card = rate_card(
        input_tokens="4 / 1", cache_write_tokens="5 / 1", cached_input_tokens="1 / 1",
        output_tokens="10 / 1", reasoning_tokens="12 / 1", request="2",
    )  # fmt: skip
    assert quote(card, {"request": 1, "input_tokens": 10, "output_tokens": 10}).total == (2 + 50 + 120) * 10**9


def test_quote_rounds_up() -> None:
    """A third of a nanocredit is held as a whole one."""
    card = exact_card({"input_tokens": Fraction(1, 3), "output_tokens": Fraction(1, 3)})
    assert [line.amount for line in quote(card, {"input_tokens": 1, "output_tokens": 4}).lines] == [1, 2]


def test_what_a_budget_buys() -> None:
    """Of 100 credits, 30 for the input and 2 for the request leave 68: at 10 each, 6 output tokens."""
    card = rate_card(request="2", input_tokens="3 / 1", output_tokens="10 / 1")
    bound = {"request": 1, "input_tokens": 10, "output_tokens": 500}
    assert affordable_output(card, bound, 100 * 10**9) == 6
    assert affordable_output(card, bound, 92 * 10**9) == 6
    assert affordable_output(card, bound, 92 * 10**9 - 1) == 5
    assert affordable_output(card, bound, 32 * 10**9) == 0
    assert affordable_output(card, bound, 31 * 10**9) == -1


def test_a_budget_and_free_output() -> None:
    """Where output costs nothing any number is affordable, once the rest is."""
    card = rate_card(input_tokens="3 / 1", output_tokens="0")
    assert affordable_output(card, {"input_tokens": 10}, 30 * 10**9) is None
    assert (affordable_output(card, {"input_tokens": 10}, 29 * 10**9) or 0) < 0


def test_a_budget_for_the_input_alone() -> None:
    """A budget that pays for the rest to the last nanocredit affords 0 output tokens: the rest does fit."""
    card = exact_card({
        "input_tokens": Fraction(3), "output_tokens": Fraction(1, 3), "reasoning_tokens": Fraction(1, 3),
    })  # fmt: skip
    assert quote(card, {"input_tokens": 10, "output_tokens": 0}).total == 30
    assert affordable_output(card, {"input_tokens": 10}, 30) == 0
