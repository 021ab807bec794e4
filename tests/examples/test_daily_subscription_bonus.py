"""The price list of the app builder."""

from __future__ import annotations

import pytest

from tests.examples.lists import Call, load, tokens

CONFIG = load("daily-subscription-bonus")

PUBLISHED = [
    # call, credits
    (Call("demo", tokens(900, 0, 900)), "1"),
    (Call("build", tokens(10_000, 2_000, 1_000)), "0.75"),  # 0.48 + 0.03 + 0.24
    (Call("build", tokens(1_000, 0, 100)), "0.5"),  # 0.06 + 0.024, at least 0.5
    (Call("build", tokens(100_000, 0, 10_000)), "5"),  # 6 + 2.4, at most 5
    (Call("build", tokens(1_000, 0, 0), answered=False), "0.06"),
    (Call("think", tokens(2_000, 0, 500)), "1.2"),  # 0.6 + 0.6
    (Call("think", tokens(2_000, 1_000, 1_500, reasoning_tokens=1_000)), "1.875"),  # 0.3 + 0.075 + 0.6 + 0.9
    (Call("other", tokens(10_000, 0, 2_000)), "0.58"),  # 0.3 + 0.18 + 0.1
    (Call("other", tokens(10_000, 4_000, 2_000)), "0.58"),
    (Call("build", tokens(20_000, 0, 2_000), header="prototype"), "1.008"),  # (1.2 + 0.48) × 0.6
    (Call("build", tokens(10_000, 2_000, 1_000), header="prototype"), "0.5"),  # 0.75 × 0.6, at least 0.5
    (Call("think", tokens(2_000, 0, 500), header="prototype"), "0.72"),
    (Call("other", tokens(10_000, 0, 2_000), header="prototype"), "0.348"),
]


@pytest.mark.parametrize(("call", "credits"), PUBLISHED)
def test_charged(call: Call, credits: str) -> None:
    """Every line of the list is charged exactly."""
    assert call.charged(CONFIG) == credits


@pytest.mark.parametrize(
    ("call", "credits"),
    [
        (Call("build", {"input_tokens": 10_000, "output_tokens": 1_000}), "0.84"),  # 0.6 + 0.24
        (Call("build", {"input_tokens": 100_000, "output_tokens": 16_384}), "5"),
        (Call("build", {"input_tokens": 10, "output_tokens": 16}), "0.5"),
        (Call("think", {"input_tokens": 2_000, "output_tokens": 1_500}), "2.4"),  # 0.6 + 1.8: all at the dearest
    ],
)
def test_held(call: Call, credits: str) -> None:
    """A hold is within the same bounds as its charge."""
    assert call.held(CONFIG) == credits


def test_a_draft_is_one_by_name_only() -> None:
    """No call is a first draft unless its header says so."""
    assert {Call(name).operation(CONFIG) for name in CONFIG.models} == {None}
    assert Call("build", header="prototype").operation(CONFIG) == "prototype"


def test_buckets() -> None:
    """Daily credits burn first, then the subscription's, then bonus, into which packs are bought and which expires."""
    assert list(CONFIG.buckets) == ["daily", "subscription", "bonus"]
    assert CONFIG.buckets["bonus"].expires == 90 * 86400
    assert {pack.bucket for pack in CONFIG.packs.values()} == {"bonus"}
