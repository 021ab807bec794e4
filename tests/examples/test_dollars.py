"""The price list of the chat app whose users see dollars."""

from __future__ import annotations

from decimal import Decimal

import pytest
from click.testing import CliRunner

from pricing.amounts import NANO
from proxy.cli import main
from tests.examples.lists import Call, load, tokens

CONFIG = load("dollars")

PUBLISHED = [
    # call, dollars
    (Call("demo", tokens(900, 0, 900)), "0"),
    (Call("mini", tokens(1_000_000, 0, 0)), "0.5"),
    (Call("mini", tokens(1_000_000, 1_000_000, 0)), "0.125"),
    (Call("mini", tokens(0, 0, 1_000_000)), "2"),
    (Call("mini", tokens(12_000, 2_000, 800)), "0.00685"),  # 0.005 + 0.00025 + 0.0016
    (Call("mini", tokens(1, 0, 1)), "0.0000025"),
    (Call("large", tokens(1_000_000, 0, 0)), "2.5"),
    (Call("large", tokens(1_000_000, 1_000_000, 0)), "0.625"),
    (Call("large", tokens(0, 0, 1_000_000)), "10"),
    (Call("large", tokens(40_000, 30_000, 1_000)), "0.05375"),  # 0.025 + 0.01875 + 0.01
    (Call("large", tokens(1_000, 0, 500, web_search=2)), "0.0275"),  # 0.0025 + 0.005 + 0.02
    (Call("large", tokens(1_000, 0, 0), answered=False), "0.0025"),
]


@pytest.mark.parametrize(("call", "dollars"), PUBLISHED)
def test_charged(call: Call, dollars: str) -> None:
    """Every line of the list is charged to the nanodollar."""
    assert call.charged(CONFIG) == dollars


@pytest.mark.parametrize(
    ("call", "dollars"),
    [
        (Call("mini", {"input_tokens": 12_000, "output_tokens": 800}), "0.0076"),  # 0.006 + 0.0016
        (Call("large", {"input_tokens": 1_000, "output_tokens": 500, "web_search": 1}), "0.0175"),
    ],
)
def test_held(call: Call, dollars: str) -> None:
    """A hold puts all input at the price of what is not cached."""
    assert call.held(CONFIG) == dollars


def test_two_buckets_in_dollars() -> None:
    """A credit is a dollar, and the free bucket burns before the paid one."""
    assert (CONFIG.credit.plural, CONFIG.credit.usd, CONFIG.credit.show) == ("dollars", Decimal(1), "usd")
    assert [(bucket.name, bucket.expires) for bucket in CONFIG.buckets.values()] == [("free", None), ("paid", None)]


def test_debt_instead_of_a_stop() -> None:
    """Everybody may go five dollars below zero; the command that the example names takes an account's own limit."""
    assert CONFIG.plans[CONFIG.default_plan or ""].given.overdraft_limit == 5 * NANO
    ran = CliRunner().invoke(main, ["account", "create", "--help"])
    assert "--overdraft-limit" in ran.output
