"""Which fields of litellm's map say which price here, and which say none that is ever charged."""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal

__all__ = [
    "ALTERNATIVES",
    "BY_RESOLUTION",
    "FREE_IF_ZERO",
    "INCLUSIVE",
    "MILLIONS",
    "MOST_DOLLARS",
    "NEVER_CHARGED",
    "NO_OUTPUT",
    "PICTURES",
    "PRICE_WORDS",
    "REGIONS",
    "TIERS",
    "TOKENS",
    "UNITS",
    "NeverCharged",
]

PRICE_WORDS = re.compile("cost|pric|uplift|multiplier|surcharge|discount|dbu|billing|free_requests|provider_specific")
"""A field whose name has one of these may be a price: it is never passed over."""

TOKENS = {
    "input_cost_per_token": "input_tokens",
    "cache_read_input_token_cost": "cached_input_tokens",
    "cache_read_input_audio_token_cost": "cached_audio_tokens",
    "cache_read_input_image_token_cost": "cached_image_tokens",
    "cache_creation_input_token_cost": "cache_write_tokens",
    "cache_creation_input_token_cost_above_1hr": "cache_write_1h_tokens",
    "cache_creation_input_audio_token_cost": "cache_write_audio_tokens",
    "input_cost_per_audio_token": "input_audio_tokens",
    "input_cost_per_image_token": "input_image_tokens",
    "input_cost_per_video_token": "input_video_tokens",
    "output_cost_per_token": "output_tokens",
    "output_cost_per_reasoning_token": "reasoning_tokens",
    "output_cost_per_audio_token": "output_audio_tokens",
    "output_cost_per_image_token": "output_image_tokens",
    "output_cost_per_video_token": "output_video_tokens",
}
"""Prices by the token, whatever the mode."""

PICTURES = ("image_generation", "image_edit")

UNITS: dict[str, dict[str, str]] = {
    "input_cost_per_request": {"": "request"},
    "code_interpreter_cost_per_session": {"": "session"},
    "google_maps_grounding_cost_per_query": {"": "map_search"},
    "input_cost_per_image": {"embedding": "input_image", "video_generation": "input_image", "responses": "input_image"},
    "output_cost_per_image": dict.fromkeys(PICTURES, "image"),
    "input_cost_per_pixel": dict.fromkeys(PICTURES, "pixel"),
    "output_cost_per_pixel": dict.fromkeys(PICTURES, "pixel"),
    # What is billed for the length of a recording or connection is heard as much as said.
    "input_cost_per_second": {"audio_transcription": "audio_second", "realtime": "audio_second"},
    "output_cost_per_second": {
        "audio_transcription": "audio_second",
        "audio_speech": "audio_second",
        "video_generation": "video_second",
    },
    "output_cost_per_video_per_second": {"video_generation": "video_second"},
    "input_cost_per_audio_per_second": {"embedding": "input_audio_second"},
    "input_cost_per_video_per_second": {"embedding": "input_video_second"},
    "input_cost_per_character": {"audio_speech": "character"},
    "input_cost_per_query": {"rerank": "rerank_unit", "search": "web_search", "vector_store": "request"},
    "ocr_cost_per_page": {"ocr": "page"},
}
"""Prices by other units: the meter by mode, "" being any."""

ALTERNATIVES: dict[str, tuple[tuple[str, tuple[str, ...]], ...]] = {
    "input_cost_per_image": (("input_cost_per_token", ("embedding", "video_generation")),),
    "output_cost_per_image": (("output_cost_per_image_token", ()),),
    "input_cost_per_second": (("input_cost_per_audio_token", ()), ("cost_per_second", ())),
    "output_cost_per_second": (("output_cost_per_audio_token", ()),),
    "input_cost_per_character": (("input_cost_per_token", ()),),
    "output_cost_per_character": (("output_cost_per_token", ()),),
    "input_cost_per_video_per_second": (("input_cost_per_video_token", ()),),
    "input_cost_per_pixel": (("input_cost_per_image", ()), ("output_cost_per_image", ())),
    "output_cost_per_pixel": (("input_cost_per_image", ()), ("output_cost_per_image", ())),
}
"""Fields that say the same thing's price by another unit where the one they name says it too, but for some modes."""

FREE_IF_ZERO = {
    "cache_creation_input_token_cost": "input_cost_per_token",
    "cache_creation_input_token_cost_above_1hr": "input_cost_per_token",
}
"""Prices of which 0 says that nothing is added to the tokens' own, where those cost something."""

BY_RESOLUTION = re.compile(
    r"(?P<base>output_cost_per_second|output_cost_per_image)_(?P<resolution>\d{3,4}p?|\d[kK]|0\.5K)", re.ASCII
)

TIERS = {
    "priority": "priority",
    "flex": "flex",
    "batches": "batch",
    "ultrafast": "ultrafast",
    "balanced": "balanced",
    "decisions": "decisions",
}
"""A field's last word, and the `service_tier` that it is for."""

REGIONS = {
    "regional_processing_uplift_multiplier_eu": ("region", "eu"),
    "regional_processing_uplift_multiplier_us": ("region", "us"),
}
"""Factors of prices by the token where a call is answered in a region."""

INCLUSIVE = ("xai",)
"""Providers whose dearer prices begin at the threshold, not above it."""

NO_OUTPUT = ("embedding", "rerank", "moderation")
"""Modes of which nothing comes back that is counted in tokens."""


@dataclass(frozen=True, slots=True)
class NeverCharged:
    """Why a field is passed over; same_as: the field that it must be equal to."""

    reason: str
    same_as: str | None = None


_FORM = NeverCharged("says what a request looks like, and no price")

NEVER_CHARGED = {
    "input_cost_per_token_cache_hit": NeverCharged("an older name", same_as="cache_read_input_token_cost"),
    "cost_per_second": NeverCharged("throughput bought by the month, paid for called or not", "input_cost_per_second"),
    "input_dbu_cost_per_token": NeverCharged("in the provider's own units; the dollars stand beside it"),
    "output_dbu_cost_per_token": NeverCharged("in the provider's own units; the dollars stand beside it"),
    "search_free_requests": NeverCharged("a quota of the operator's account by day or month, of which no call knows"),
    "web_search_billing_unit": NeverCharged("says what counts as a search, and no price"),
    "dashscope_video_reference_input": _FORM,
    "bedrock_invocation_schema": _FORM,
    "volcengine_video_frames": _FORM,
}
"""Fields that look like prices and never charge here, with their reasons."""

MILLIONS = frozenset({*TOKENS.values(), "character", "pixel"})
"""Meters whose prices are written by the million."""

MOST_DOLLARS = {True: Decimal("0.001"), False: Decimal(1000)}
"""More a unit is a slip of the map: of small units (those written by the million), of others."""
