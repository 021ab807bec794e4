"""The vocabulary of what is metered, and usage that cannot have happened."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pricing.meters import METERS, TOKEN_WHOLES, parts_of, within
from pricing.usage import impossible
from tests.pricing.cards import TOKENS, properties, usages

VOCABULARY = [
    "request", "input_tokens", "cached_input_tokens", "cache_write_tokens", "output_tokens", "reasoning_tokens",
    "input_audio_tokens", "output_audio_tokens", "input_image_tokens", "output_image_tokens", "image", "audio_second",
    "video_second", "character", "web_search", "web_page", "rerank_unit",
    # What providers charge by beside these.
    "cached_audio_tokens", "cached_image_tokens", "cache_write_1h_tokens", "cache_write_audio_tokens",
    "input_video_tokens", "output_video_tokens", "input_image", "pixel", "input_audio_second", "input_video_second",
    "map_search", "page", "session",
]  # fmt: skip


def test_vocabulary() -> None:
    """The meters are those of the public contract and a few more, each under its own name."""
    assert sorted(METERS) == sorted(VOCABULARY)
    assert all(name == meter.name for name, meter in METERS.items())


def test_containment() -> None:
    """Cached, written, audio, image and video tokens are input; reasoning, audio, image and video tokens are output."""
    assert set(parts_of("input_tokens")) == {
        "cached_input_tokens",
        "cache_write_tokens",
        "input_audio_tokens",
        "input_image_tokens",
        "input_video_tokens",
    }
    assert set(parts_of("cached_input_tokens")) == {"cached_audio_tokens", "cached_image_tokens"}
    assert set(parts_of("cache_write_tokens")) == {"cache_write_1h_tokens", "cache_write_audio_tokens"}
    assert set(within("output_tokens")) == {
        "reasoning_tokens",
        "output_audio_tokens",
        "output_image_tokens",
        "output_video_tokens",
    }


def test_parts() -> None:
    """Every part has one whole, measured in the same unit, within one of the two that all tokens are of."""
    for meter in METERS.values():
        if meter.whole is not None:
            assert METERS[meter.whole].token == meter.token
            assert meter.name in parts_of(meter.whole)
            assert any(meter.name in within(whole) for whole in TOKEN_WHOLES)
        elif meter.name not in TOKEN_WHOLES:
            assert parts_of(meter.name) == ()


def test_tokens() -> None:
    """What is counted in tokens is named so, and only a request is charged flat."""
    assert {name for name in METERS if name.endswith("_tokens")} == set(TOKENS)
    assert [name for name, meter in METERS.items() if meter.flat] == ["request"]


@properties
@given(usages())
def test_possible(usage: dict[str, int]) -> None:
    """Whole figures with no part above its whole are believed, overlapping parts included."""
    assert impossible(usage) is None


@pytest.mark.parametrize(
    "usage",
    [
        {},
        {"input_tokens": 0, "output_tokens": 0},
        {"input_tokens": 10**15, "output_tokens": 10**15},
        {"input_tokens": 5, "output_tokens": 5, "cached_input_tokens": 5, "reasoning_tokens": 5},
        {"input_tokens": 5, "cached_input_tokens": 4, "input_audio_tokens": 4},
        {"audio_second": Decimal("2.5"), "image": 3},
    ],
)
def test_believed(usage: dict[str, int | Decimal]) -> None:
    """Zero, large figures, full parts and fractions of seconds are all possible."""
    assert impossible(usage) is None


@pytest.mark.parametrize(
    ("usage", "fault"),
    [
        ({"input_tokens": -1}, "input_tokens is negative"),
        ({"image": -1}, "image is negative"),
        ({"audio_second": Decimal("-0.1")}, "audio_second is negative"),
        ({"input_tokens": 1.0}, "input_tokens"),
        ({"input_tokens": "5"}, "input_tokens"),
        ({"input_tokens": None}, "input_tokens"),
        ({"input_tokens": True}, "input_tokens"),
        ({"input_tokens": float("nan")}, "input_tokens"),
        ({"input_tokens": Decimal(5)}, "input_tokens is not an integer"),
        ({"output_tokens": 5, "reasoning_tokens": Decimal("1.5")}, "reasoning_tokens is not an integer"),
        ({"audio_second": 2.5}, "audio_second"),
        ({"image": Fraction(1, 2)}, "image"),
        ({"tokens": 1}, "tokens is no meter"),
        ({"input_tokens": 4, "cached_input_tokens": 5}, "cached_input_tokens is above input_tokens"),
        ({"input_tokens": 4, "output_tokens": 9, "cache_write_tokens": 5}, "cache_write_tokens is above input_tokens"),
        ({"output_tokens": 4, "reasoning_tokens": 5}, "reasoning_tokens is above output_tokens"),
        ({"cached_input_tokens": 1}, "cached_input_tokens is above input_tokens"),
        ({"output_audio_tokens": 1}, "output_audio_tokens is above output_tokens"),
    ],
)
def test_impossible(usage: dict[str, int | Decimal], fault: str) -> None:
    """Usage that cannot have happened is named by the meter at fault."""
    assert fault in (impossible(usage) or "")


@properties
@given(usages(), st.sampled_from(TOKENS), st.integers(-(10**9), -1))
def test_one_bad_figure_spoils_all(usage: dict[str, int], name: str, quantity: int) -> None:
    """One negative figure makes the whole usage impossible, whatever stands beside it."""
    assert impossible({**usage, name: quantity}) is not None


@properties
@given(usages(), st.sampled_from([name for name in TOKENS if METERS[name].whole]), st.integers(1, 1000))
def test_part_above_whole(usage: dict[str, int], part: str, excess: int) -> None:
    """A part above its whole makes the whole usage impossible."""
    assert impossible({**usage, part: usage.get(str(METERS[part].whole), 0) + excess}) is not None
