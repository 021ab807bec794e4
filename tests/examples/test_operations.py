"""The operations list of the studio."""

from __future__ import annotations

from decimal import Decimal

import pytest

from pricing.usage import Quantity
from proxy.errors import ApiError
from tests.examples.lists import Call, load, tokens

CONFIG = load("operations")


def image(count: int, **attributes: str) -> Call:
    return Call("picture", {"image": count}, "/v1/images/generations", attributes)


def video(seconds: Quantity, **attributes: str) -> Call:
    return Call("film", {"video_second": seconds}, "/v1/videos", attributes)


def speech(characters: int) -> Call:
    return Call("voice", {"character": characters}, "/v1/audio/speech")


PUBLISHED = [
    # call, operation, credits
    (Call("demo", tokens(1_000, 0, 100)), None, "0.84"),
    (Call("fast", tokens(10_000, 0, 2_000)), "chat_fast", "40"),  # 12 + 9.6, at least 40
    (Call("fast", tokens(50_000, 20_000, 5_000)), "chat_fast", "66"),  # 36 + 6 + 24
    (Call("fast", tokens(300_000, 0, 20_000)), "chat_fast", "400"),  # 360 + 96, at most 400
    (Call("fast", tokens(10_000, 0, 2_000, web_search=1)), "chat_fast", "55"),
    (Call("fast", tokens(300_000, 0, 20_000, web_search=2, web_page=3)), "chat_fast", "454"),  # 400 + 30 + 24
    (Call("expert", tokens(5_000, 0, 1_000)), "chat_expert", "100"),  # 20 + 16, at least 100
    (Call("expert", tokens(50_000, 10_000, 8_000)), "chat_expert", "298"),  # 160 + 10 + 128
    (Call("expert", tokens(250_000, 0, 20_000)), "chat_expert", "1000"),  # 1000 + 320, at most 1,000
    (Call("expert", tokens(250_000, 0, 20_000, web_page=2, web_search=1)), "chat_expert", "1031"),
    (Call("small", tokens(1_000, 0, 100)), "standard_request", "2"),  # 0.6 + 0.24, at least 2
    (Call("small", tokens(4_000, 0, 500)), "standard_request", "3.6"),  # 2.4 + 1.2
    (Call("small", tokens(20_000, 0, 2_000)), "standard_request", "10"),  # 12 + 4.8, at most 10
    (Call("small", tokens(1_000, 0, 0), answered=False), "standard_request", "0.6"),
    (Call("big", tokens(1_000, 0, 200)), "advanced_request", "10"),  # 3 + 2.4, at least 10
    (Call("big", tokens(4_000, 0, 500)), "advanced_request", "18"),  # 12 + 6
    (Call("big", tokens(20_000, 0, 1_000)), "advanced_request", "40"),  # 60 + 12, at most 40
    (Call("small", {"web_page": 1}, answered=False), "standard_request", "8"),
    (image(1), "image", "50"),
    (image(1, quality="medium"), "image", "50"),
    (image(3, quality="high"), "image", "450"),
    (video(8, resolution="720p"), "video", "1600"),
    (video(8, resolution="1080p"), "video", "4000"),
    (video(Decimal("2.5")), "video", "500"),
    (speech(1), "speech", "10"),
    (speech(500), "speech", "10"),
    (speech(1_234), "speech", "24.68"),
    (speech(4_000), "speech", "80"),
    (speech(40_000), "speech", "80"),
]


@pytest.mark.parametrize(("call", "operation", "credits"), PUBLISHED)
def test_charged(call: Call, operation: str | None, credits: str) -> None:
    """Every call is its operation by itself and is charged what the list says, surcharges beyond the most."""
    assert call.operation(CONFIG) == operation
    assert call.charged(CONFIG) == credits


@pytest.mark.parametrize(
    ("call", "credits"),
    [
        (Call("fast", {"input_tokens": 50_000, "output_tokens": 5_000}), "84"),  # 60 + 24
        (Call("fast", {"input_tokens": 50_000, "output_tokens": 32_768, "web_search": 1}), "232.2864"),
        (Call("fast", {"input_tokens": 900_000, "output_tokens": 32_768, "web_search": 1}), "415"),
        (Call("small", {"input_tokens": 10, "output_tokens": 16}), "2"),
        (Call("big", {"input_tokens": 20_000, "output_tokens": 8_192}), "40"),
        (image(2, quality="high"), "300"),
        (speech(5_000), "80"),
    ],
)
def test_held(call: Call, credits: str) -> None:
    """A hold is the most that its call can be charged."""
    assert call.held(CONFIG) == credits


@pytest.mark.parametrize(
    ("operation", "typical"), [("chat_fast", ("40", "120")), ("chat_expert", ("150", "600")), ("speech", None)]
)
def test_typical(operation: str, typical: tuple[str, str] | None) -> None:
    """What is typical is shown as written, and changes no charge."""
    shown = CONFIG.operations[operation].typical
    assert (shown and tuple(bound.text for bound in shown)) == typical


def test_a_cheap_operation_is_not_had_for_a_dear_model() -> None:
    """Naming an operation whose criteria the call does not meet is refused."""
    with pytest.raises(ApiError, match="not for the model `big`"):
        Call("big", header="standard_request").operation(CONFIG)
