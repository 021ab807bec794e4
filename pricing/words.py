"""Bills in words: what each line of a receipt says, for people."""

from __future__ import annotations

from collections.abc import Mapping

from pricing.amounts import format_credits
from pricing.meters import METERS
from pricing.table import FREE
from pricing.usage import Quantity

__all__ = ["counted", "line_in_words", "shares", "unit_of"]

# One, and many.
_UNITS = {
    "request": ("request", "requests"),
    "input_tokens": ("input token", "input tokens"),
    "cached_input_tokens": ("input token read from a cache", "input tokens read from a cache"),
    "cached_audio_tokens": ("audio token read from a cache", "audio tokens read from a cache"),
    "cached_image_tokens": ("image token read from a cache", "image tokens read from a cache"),
    "cache_write_tokens": ("input token written to a cache", "input tokens written to a cache"),
    "cache_write_1h_tokens": (
        "input token written to a cache for an hour",
        "input tokens written to a cache for an hour",
    ),
    "cache_write_audio_tokens": ("audio token written to a cache", "audio tokens written to a cache"),
    "output_tokens": ("output token", "output tokens"),
    "reasoning_tokens": ("token of reasoning", "tokens of reasoning"),
    "image": ("image", "images"),
    "input_image": ("image in the input", "images in the input"),
    "audio_second": ("second of audio", "seconds of audio"),
    "input_audio_second": ("second of audio in the input", "seconds of audio in the input"),
    "video_second": ("second of video", "seconds of video"),
    "input_video_second": ("second of video in the input", "seconds of video in the input"),
    "web_search": ("web search", "web searches"),
    "map_search": ("map search", "map searches"),
}


def unit_of(meter: str, quantity: Quantity = 2) -> str:
    """Name a meter's unit, one or many of it."""
    plain = meter.replace("_", " ")
    one, many = _UNITS.get(meter, (plain.removesuffix("s") if METERS[meter].token else plain, plain))
    return one if quantity == 1 else many if meter in _UNITS or METERS[meter].token else f"{plain}s"


def counted(meter: str, quantity: Quantity) -> str:
    """Write so many units of a meter: `1,234 input tokens`."""
    number = f"{quantity:,}" if isinstance(quantity, int) else f"{quantity.normalize():,f}"
    return f"{number} {unit_of(meter, quantity)}"


def line_in_words(meter: str, quantity: Quantity, price: str, amount: int, unit: str) -> str:
    """Say what a line is for; amount: nanocredits; unit: what credits are called."""
    said = f"{format_credits(amount)} {unit}"
    if meter == "min":
        return f"raised to the least that such a call costs, {price}: {said} more"
    if meter == "max":
        return f"lowered to the most that such a call costs, {price}: {format_credits(abs(amount))} {unit} less"
    if price == FREE.text:
        return f"{counted(meter, quantity)} within the free quota"
    return f"{counted(meter, quantity)} at {price}: {said}"


def shares(total: int, weights: Mapping[str, int]) -> dict[str, int]:
    """Divide a whole number by weights, so that the parts add up to it; the largest remainders get what is left."""
    whole = sum(weights.values())
    if not whole:
        return dict.fromkeys(weights, 0)
    parts = {name: total * weight // whole for name, weight in weights.items()}
    rest = sorted(weights, key=lambda name: (-(total * weights[name] % whole), name))
    for name in rest[: total - sum(parts.values())]:
        parts[name] += 1
    return parts
