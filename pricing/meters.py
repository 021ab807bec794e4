"""The one vocabulary of what can be metered, and which meter is part of which."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["INPUT", "METERS", "OUTPUT", "TOKEN_WHOLES", "Meter", "parts_of", "within"]


@dataclass(frozen=True, slots=True)
class Meter:
    """One countable thing; `whole` names the meter that already counts it, so that no part is billed twice.

    A whole may be part of another: an hour's cache writes are cache writes, which are input.
    `flat` marks what is charged for having answered at all and never for an answer that did not come.
    """

    name: str
    whole: str | None = None
    token: bool = False
    flat: bool = False


# The order is the order in which parts take their share of a whole that providers' overlapping details exceed.
METERS: dict[str, Meter] = {
    meter.name: meter
    for meter in (
        Meter("request", flat=True),
        Meter("input_tokens", token=True),
        Meter("cached_input_tokens", whole="input_tokens", token=True),
        Meter("cached_audio_tokens", whole="cached_input_tokens", token=True),
        Meter("cached_image_tokens", whole="cached_input_tokens", token=True),
        Meter("cache_write_tokens", whole="input_tokens", token=True),
        Meter("cache_write_1h_tokens", whole="cache_write_tokens", token=True),
        Meter("cache_write_audio_tokens", whole="cache_write_tokens", token=True),
        Meter("input_audio_tokens", whole="input_tokens", token=True),
        Meter("input_image_tokens", whole="input_tokens", token=True),
        Meter("input_video_tokens", whole="input_tokens", token=True),
        Meter("output_tokens", token=True),
        Meter("reasoning_tokens", whole="output_tokens", token=True),
        Meter("output_audio_tokens", whole="output_tokens", token=True),
        Meter("output_image_tokens", whole="output_tokens", token=True),
        Meter("output_video_tokens", whole="output_tokens", token=True),
        Meter("image"),
        Meter("input_image"),
        Meter("pixel"),
        Meter("audio_second"),
        Meter("input_audio_second"),
        Meter("video_second"),
        Meter("input_video_second"),
        Meter("character"),
        Meter("web_search"),
        Meter("map_search"),
        Meter("web_page"),
        Meter("page"),
        Meter("rerank_unit"),
        Meter("session"),
    )
}

INPUT = "input_tokens"
OUTPUT = "output_tokens"
TOKEN_WHOLES = (INPUT, OUTPUT)


_PARTS = {name: tuple(meter.name for meter in METERS.values() if meter.whole == name) for name in METERS}


def parts_of(whole: str) -> tuple[str, ...]:
    """Name the meters contained in `whole` itself, in the order in which they take their share."""
    return _PARTS[whole]


def within(whole: str) -> tuple[str, ...]:
    """Name all meters contained in `whole`, those within its parts too."""
    return tuple(name for part in _PARTS[whole] for name in (part, *within(part)))
