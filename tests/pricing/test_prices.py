"""From the operator's words to exact prices, or a refusal with file, line and fix."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pricing.errors import ConfigError, PricingError
from pricing.parsing import price_table
from pricing.table import RateCard
from tests.pricing.cards import model_price, properties, rate_card

NANO = 10**9


def read(text: str, usd: str = "0.01") -> RateCard:
    return price_table({"fast": model_price(text, "fast", usd)}).card("fast")


@pytest.mark.parametrize(
    ("text", "nano"),
    [
        ("40 / 1M", Fraction(40 * NANO, 10**6)),
        ("40/1M", Fraction(40 * NANO, 10**6)),
        ("40 / M", Fraction(40 * NANO, 10**6)),
        ("40 / 1000000", Fraction(40 * NANO, 10**6)),
        ("40 / 1000k", Fraction(40 * NANO, 10**6)),
        ("4 / 1k", Fraction(4 * NANO, 1000)),
        ("4 / 1000", Fraction(4 * NANO, 1000)),
        ("4 / 1", Fraction(4 * NANO)),
        ("0.5 / 3k", Fraction(NANO, 6000)),
        ("0.000000001 / 7M", Fraction(1, 7_000_000)),
        ("$1.60 / 1M", Fraction(160 * NANO, 10**6)),
        ("$ 1.60 / 1M", Fraction(160 * NANO, 10**6)),
        ("$0.0000016 / 1", Fraction(160 * NANO, 10**6)),
        ("0", Fraction(0)),
        ("0 / 1M", Fraction(0)),
        ("$0", Fraction(0)),
    ],
)
def test_token_prices(text: str, nano: Fraction) -> None:
    """A token price is exactly what its amount and count say, in credits or in dollars at the credit's price."""
    price = rate_card(input_tokens=text, output_tokens="0").prices["input_tokens"]
    assert Fraction(price.nano, price.per) == nano
    assert price.text == text


@pytest.mark.parametrize(
    ("text", "usd", "nano"),
    [
        ("15", "0.01", Fraction(15 * NANO)),
        ("15 / 1", "0.01", Fraction(15 * NANO)),
        ("15 / 1k", "0.01", Fraction(15 * NANO, 1000)),
        ("$3", "0.01", Fraction(300 * NANO)),
        ("$3", "1", Fraction(3 * NANO)),
        ("$1", "0.03", Fraction(100 * NANO, 3)),
        ("0.123456789012345", "0.01", Fraction(123456789012345, 10**6)),
    ],
)
def test_unit_prices(text: str, usd: str, nano: Fraction) -> None:
    """What is not counted in tokens may be priced by the piece, and no digit is lost."""
    price = rate_card(usd, image=text).prices["image"]
    assert Fraction(price.nano, price.per) == nano


@properties
@given(st.decimals(0, 10**6, places=6), st.integers(1, 10**6), st.sampled_from(["", "k", "M"]))
def test_every_price_is_exact(amount: Decimal, count: int, unit: str) -> None:
    """Any amount a count is read as exactly that ratio."""
    price = rate_card(request=f"{amount} / {count}{unit}").prices["request"]
    units = count * {"": 1, "k": 1000, "M": 10**6}[unit]
    assert Fraction(price.nano, price.per) == Fraction(amount) * NANO / units


@pytest.mark.parametrize(
    ("price", "fix"),
    [
        ("-1", "negative"),
        ("-0.5 / 1M", "negative"),
        ("$-1 / 1M", "negative"),
        ("-$1 / 1M", "negative"),
        ("$ -1 / 1M", "negative"),
        ("40", "`40 / 1M` (per million)"),
        ("0.00004", "per million"),
        ("$1.60", "`$1.60 / 1M`"),
        ("40 / 0", "0 units"),
        ("40 / 0k", "0 units"),
        ("40 / 0M", "0 units"),
        ("40 /", "`40 / 1M`"),
        ("1e-5", "such as"),
        ("1e-5 / 1", "such as"),
        ("4E1 / 1M", "such as"),
        ("nan", "such as"),
        (".inf", "such as"),
        ("inf / 1M", "such as"),
        ("null", "such as"),
        ("true", "such as"),
        ("free", "such as"),
        ("0x10 / 1M", "such as"),
        ("1_000 / 1M", "such as"),
        ("1,5 / 1M", "such as"),
        (".5 / 1M", "such as"),
        ("5. / 1M", "such as"),
        ("+5 / 1M", "such as"),
        ("40 per 1M", "such as"),
        ("40 / 1G", "such as"),
        ("40 / 1m", "such as"),
        ("40 / 1.5M", "such as"),
        ("40 / -1M", "such as"),
        ("40 / 1M / 1M", "such as"),
        ("40 credits / 1M", "such as"),
        ("40$ / 1M", "such as"),
        ("\u20ac40 / 1M", "such as"),
        ("\u0664\u0660 / 1M", "such as"),
        ("1234567890123 / 1M", "such as"),
        ("10000000000 / 1", "lower it"),
        ("", "write one"),
        ('""', "is empty"),
        ("~", "such as"),
    ],
)
def test_price_refused(price: str, fix: str) -> None:
    """What is no exact price above or at 0 with its unit is refused at its line, with the fix."""
    with pytest.raises(ConfigError) as caught:
        read(f"output_tokens: 1 / 1M\n\ninput_tokens: {price}\n")
    message = str(caught.value)
    assert message.startswith("prices.yaml:3: input_tokens: ")
    assert fix in message
    assert caught.value.line == 3


@properties
@given(st.text("0123456789.-+$/ kM_eE,naif", max_size=14) | st.text(max_size=14))
def test_any_text_is_a_price_or_refused(text: str) -> None:
    """Whatever stands where a price should, it is read as at least 0 or refused as a config error."""
    escaped = "".join(f"\\U{ord(character):08x}" for character in text if not 0xD800 <= ord(character) < 0xE000)
    try:
        price = read(f'image: "{escaped}"').prices["image"]
    except ConfigError:
        return
    assert price.nano >= 0
    assert price.per > 0


@pytest.mark.parametrize(
    ("text", "line", "fix"),
    [
        ("input_tokens: 1 / 1M\n", 1, "add `output_tokens:"),
        ("output_tokens: 1 / 1M\n", 1, "add `input_tokens:"),
        ("cached_input_tokens: 1 / 1M\nrequest: 1\n", 1, "add `input_tokens:"),
        ("input_tokens: 1 / 1M\noutput_tokens: 1 / 1M\ninput_tokens: 2 / 1M\n", 3, "twice (first on line 1)"),
        ("input_tokens: 1 / 1M\noutput_token: 1 / 1M\n", 2, "did you mean `output_tokens`?"),
        ("request: 1\nminutes: 5\n", 2, "unknown key `minutes`"),
        ("cost_plus: 25%\n", 1, "`cost_plus` is of a model's `price:` only"),
        ("request: 1\nper: run\n", 2, "`per` is not supported by this release"),
        ("{}", 1, "write at least one meter"),
    ],
)
def test_card_refused(text: str, line: int, fix: str) -> None:
    """A rate card that is incomplete, ambiguous or of a later release is refused at its line, with the fix."""
    with pytest.raises(ConfigError) as caught:
        read(text)
    assert str(caught.value).startswith(f"prices.yaml:{line}: ")
    assert fix in str(caught.value)


def test_wholes_and_parts_worked_out() -> None:
    """A card keeps its prices in the vocabulary's order and knows the dearest that a token can cost."""
    card = rate_card(output_tokens="10 / 1M", request="1", cached_input_tokens="9 / 1M", input_tokens="4 / 1M")
    assert list(card.prices) == ["request", "input_tokens", "cached_input_tokens", "output_tokens"]
    assert card.dearest_input == card.prices["cached_input_tokens"]
    assert card.dearest_output == card.prices["output_tokens"]
    assert card.sells_tokens


def test_sold_by_other_units() -> None:
    """A model without token prices sells no tokens."""
    card = rate_card(image="50")
    assert card.dearest_input is None
    assert card.dearest_output is None
    assert not card.sells_tokens


def test_config_error_is_a_pricing_error() -> None:
    """The refusal carries file, line and problem apart, and can be caught with all of pricing's."""
    error = ConfigError("config.yaml", 7, "price: broken; mend it")
    assert isinstance(error, PricingError)
    assert (error.file, error.line, error.problem) == ("config.yaml", 7, "price: broken; mend it")
    assert str(error) == "config.yaml:7: price: broken; mend it"
