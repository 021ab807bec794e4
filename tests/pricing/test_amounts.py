"""Credits as people write them."""

from __future__ import annotations

import re
from decimal import Decimal

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pricing.amounts import MAX_CREDITS, NANO, format_credits, parse_credits
from pricing.errors import InvalidAmount
from pricing.receipt import format_quantity
from tests.pricing.cards import properties

MOST = MAX_CREDITS * NANO


@pytest.mark.parametrize(
    ("nanocredits", "text"),
    [
        (0, "0"),
        (1, "0.000000001"),
        (-1, "-0.000000001"),
        (10 * NANO, "10"),
        (12_500_000_000, "12.5"),
        (-500_000_000, "-0.5"),
        (100 * NANO + 10, "100.00000001"),
        (1_370 * NANO, "1370"),
        (MOST, "1000000000"),
    ],
)
def test_format(nanocredits: int, text: str) -> None:
    """An amount is written without exponent, trailing zero or needless point."""
    assert format_credits(nanocredits) == text


@properties
@given(st.integers(-(2**63), 2**63))
def test_format_is_exact(nanocredits: int) -> None:
    """What is written has one spelling and is exactly the amount."""
    text = format_credits(nanocredits)
    assert re.fullmatch(r"-?(0|[1-9]\d*)(\.\d{0,8}[1-9])?", text, re.ASCII)
    assert text != "-0"
    assert Decimal(text) * NANO == nanocredits


@properties
@given(st.integers(-MOST, MOST))
def test_round_trip(nanocredits: int) -> None:
    """Every amount that can be written can be read back."""
    assert parse_credits(format_credits(nanocredits), signed=True, zero=True) == nanocredits


@pytest.mark.parametrize(
    ("value", "nanocredits"),
    [
        ("12.5", 12_500_000_000),
        ("10", 10 * NANO),
        ("0.000000001", 1),
        ("1.500000000", 1_500_000_000),
        (25, 25 * NANO),
        (1, NANO),
        (10**9, MOST),
        ("1000000000", MOST),
        ("1000000000.000000000", MOST),
    ],
)
def test_parse(value: object, nanocredits: int) -> None:
    """Decimal strings and integers are read exactly."""
    assert parse_credits(value) == nanocredits


@pytest.mark.parametrize(
    "value",
    [
        1.5,
        1.0,
        float("nan"),
        float("inf"),
        True,
        False,
        None,
        [],
        ["1"],
        {},
        b"1",
        Decimal(1),
        "",
        " ",
        "1 ",
        " 1",
        "1\n",
        "1e3",
        "1E-3",
        "NaN",
        "nan",
        "inf",
        "Infinity",
        "0x10",
        "1_000",
        "1,5",
        "1,000",
        "+1",
        "--1",
        "- 1",
        ".5",
        "5.",
        ".",
        "-",
        "1.2.3",
        "$1",
        "1 credit",
        "0.0000000001",
        "1.0000000000",
        "\u0663",
        "\uff11",
        "\u22121",
        "0",
        "-0",
        "0.000000000",
        0,
        "-1",
        "-0.5",
        -1,
        "1000000000.000000001",
        "1000000001",
        10**9 + 1,
        10**19,
        -(10**19),
        10**30,
        "9" * 400,
        "0." + "0" * 400 + "1",
        10**5000,
    ],
    ids=lambda value: (
        repr(value)[:24] if not isinstance(value, int) or abs(value) < 10**40 else "more digits than Python prints"
    ),
)
def test_parse_refuses(value: object) -> None:
    """What is no plain amount above 0 and up to 10⁹ credits is refused."""
    with pytest.raises(InvalidAmount):
        parse_credits(value)


def test_parse_refuses_more_digits_than_are_printed() -> None:
    """An integer of 5,000 digits, which Python does not convert to text, is refused like any other too large one."""
    with pytest.raises(InvalidAmount):
        parse_credits(10**5000)


def test_signed_and_zero() -> None:
    """Negative amounts and 0 are read where the command has a meaning for them, and only there."""
    assert parse_credits("-2.5", signed=True) == -2_500_000_000
    assert parse_credits(-3, signed=True) == -3 * NANO
    assert parse_credits("-1000000000", signed=True) == -MOST
    assert parse_credits("0", zero=True) == 0
    assert parse_credits("-0", zero=True) == 0
    for value, signed, zero in (("0", True, False), ("-1", False, True), ("-1000000001", True, True)):
        with pytest.raises(InvalidAmount):
            parse_credits(value, signed=signed, zero=zero)


@properties
@given(
    st.text() | st.text("0123456789.-+eE_ ", max_size=24) | st.floats() | st.integers() | st.none() | st.booleans(),
    st.booleans(),
    st.booleans(),
)
@example("1" * 19 + "." + "1" * 9, False, False)
@example("-" + "0" * 39, True, True)
def test_parse_reads_or_refuses(value: object, signed: bool, zero: bool) -> None:
    """Anything at all is either refused as an amount or read as exactly what it says."""
    try:
        amount = parse_credits(value, signed=signed, zero=zero)
    except InvalidAmount:
        return
    assert not isinstance(value, (bool, float))
    assert Decimal(str(value)) * NANO == amount
    assert (-MOST if signed else 0) <= amount <= MOST
    assert amount != 0 or zero


@pytest.mark.parametrize(
    ("quantity", "text"),
    [
        (0, "0"),
        (1200, "1200"),
        (Decimal("2.50"), "2.5"),
        (Decimal("1E+3"), "1000"),
        (Decimal("1E-7"), "0.0000001"),
        (Decimal("0.0"), "0"),
    ],
)
def test_quantities(quantity: int | Decimal, text: str) -> None:
    """A quantity is a decimal string without exponent or trailing zeros."""
    assert format_quantity(quantity) == text
