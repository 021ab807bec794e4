"""What a provider says that a chat used, in meters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from pricing.usage import Usage, impossible

__all__ = ["read_usage"]


def read_usage(reported: object) -> Usage | None:
    """Turn a provider's usage object into meters, or None where it is missing or impossible."""
    if not isinstance(reported, dict):
        return None
    usage: dict[str, Any] = {
        "input_tokens": reported.get("prompt_tokens"),
        "output_tokens": reported.get("completion_tokens"),
    }
    searches = reported.get("server_tool_use")
    if isinstance(searches, dict) and searches.get("web_search_requests"):
        usage["web_search"] = searches["web_search_requests"]
    for details, names in _DETAILS.items():
        found = reported.get(details)
        if isinstance(found, dict):
            _take(usage, found, names)
            for name, (whole, within) in _NESTED.items():
                nested = found.get(name)
                if isinstance(nested, dict):
                    _take(usage, nested, within)
                    _complete(usage, whole, [nested.get(part) for part in (*within, *_ONLY_ADDED)])
    return None if impossible(usage) else usage


def _take(usage: dict[str, Any], found: Mapping[str, Any], names: Mapping[str, str]) -> None:
    for name, meter in names.items():
        value = found.get(name)
        # An explicit zero says nothing that an absent figure does not.
        if value is not None and value != 0:
            usage.setdefault(meter, value)


def _complete(usage: dict[str, Any], whole: str, parts: list[object]) -> None:
    """Where a provider says the parts and not the whole, the whole is what they come to."""
    figures = [part for part in parts if part is not None]
    if whole not in usage and figures and all(type(figure) is int and figure >= 0 for figure in figures):
        _take(usage, {whole: sum(cast(list[int], figures))}, {whole: whole})


_DETAILS = {
    "prompt_tokens_details": {
        "cached_tokens": "cached_input_tokens",
        "cache_write_tokens": "cache_write_tokens",
        "cache_creation_tokens": "cache_write_tokens",
        "audio_tokens": "input_audio_tokens",
        "image_tokens": "input_image_tokens",
        "video_tokens": "input_video_tokens",
    },
    "completion_tokens_details": {
        "reasoning_tokens": "reasoning_tokens",
        "audio_tokens": "output_audio_tokens",
        "image_tokens": "output_image_tokens",
    },
}
# By the details' member: the meter that they are of, and the meters of those that have one.
_NESTED = {
    "cached_tokens_details": (
        "cached_input_tokens",
        {"audio_tokens": "cached_audio_tokens", "image_tokens": "cached_image_tokens"},
    ),
    "cache_creation_token_details": (
        "cache_write_tokens",
        {"ephemeral_1h_input_tokens": "cache_write_1h_tokens"},
    ),
}
_ONLY_ADDED = ("ephemeral_5m_input_tokens", "text_tokens")
