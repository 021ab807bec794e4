"""The picker and the price list of the coding assistant."""

from __future__ import annotations

import pytest

from tests.examples.lists import Call, load, tokens

CONFIG = load("monthly-packs")
FLEX = {"service_tier": "flex"}

PICKER = [
    # name, title, class, speed, quality
    ("demo", "Demo", "free", 5, 1),
    ("house", "House", "free", 3, 2),
    ("swift", "Swift", "standard", 5, 3),
    ("steady", "Steady", "standard", 4, 4),
    ("deep", "Deep", "advanced", 2, 5),
]

PUBLISHED = [
    # call, credits
    (Call("demo", tokens(900, 0, 900)), "0"),
    (Call("house", tokens(10_000, 0, 1_000)), "0.06"),  # 0.05 + 0.01
    (Call("swift", tokens(50_000, 40_000, 500)), "0.176"),  # 0.08 + 0.08 + 0.016
    (Call("steady", tokens(50_000, 40_000, 2_000)), "0.84"),  # 0.3 + 0.3 + 0.24
    (Call("deep", tokens(20_000, 0, 3_000)), "4.8"),  # 3 + 1.8
    (Call("deep", tokens(20_000, 10_000, 3_000)), "3.675"),  # 1.5 + 0.375 + 1.8
    (Call("deep", tokens(20_000, 0, 3_000), attributes=FLEX), "2.4"),  # 1.5 + 0.9
    (Call("deep", tokens(20_000, 10_000, 3_000), attributes=FLEX), "2.025"),  # 0.75 + 0.375 + 0.9
    (Call("deep", tokens(20_000, 0, 3_000), attributes={"service_tier": "default"}), "4.8"),
    (Call("steady", tokens(50_000, 40_000, 2_000), attributes=FLEX), "0.84"),
]


@pytest.mark.parametrize(("call", "credits"), PUBLISHED)
def test_charged(call: Call, credits: str) -> None:
    """Every line of the list is charged exactly, at the flex price where the request asks for it."""
    assert call.charged(CONFIG) == credits


@pytest.mark.parametrize(("attributes", "credits"), [({}, "4.8"), (FLEX, "2.4")])
def test_held(attributes: dict[str, str], credits: str) -> None:
    """A hold is at the price of the tier that the request asks for."""
    assert Call("deep", {"input_tokens": 20_000, "output_tokens": 3_000}, attributes=attributes).held(CONFIG) == credits


def test_the_picker() -> None:
    """The picker has every model with title, description, class, speed and quality, in the file's order."""
    assert [(m.name, m.title, m.klass, m.speed, m.quality) for m in CONFIG.models.values()] == PICKER
    assert all(model.description for model in CONFIG.models.values())


def test_buckets_and_limits() -> None:
    """The month's allowance burns before packs, which last a year; keys and accounts have their limits."""
    assert [(bucket.name, bucket.expires) for bucket in CONFIG.buckets.values()] == [
        ("monthly", None),
        ("packs", 365 * 86400),
    ]
    limits = CONFIG.limits
    assert (limits.key_requests_per_minute, limits.key_concurrent, limits.account_concurrent) == (120, 8, 16)
