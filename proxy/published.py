"""What providers publish about their models: limits, from the map that litellm ships, without importing litellm."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import orjson

__all__ = ["PublishedModel", "litellm_folder", "published_model"]

# Providers that bill for reasoning which their chat API does not show.
_HIDES_REASONING = frozenset(
    {"openai", "azure", "azure_ai", "text-completion-openai", "gemini", "vertex_ai-language-models"}
)


@dataclass(frozen=True, slots=True)
class PublishedModel:
    """A model's published limits in tokens, None where unknown; hides_reasoning: it thinks and does not show it."""

    max_input_tokens: int | None = None
    max_output_tokens: int | None = None
    reasons: bool = False
    hides_reasoning: bool = False


def litellm_folder() -> Path:
    """Find litellm's files; importing it costs seconds and 165 MB, its data files cost neither."""
    spec = importlib.util.find_spec("litellm")
    if spec is None or spec.origin is None:
        raise RuntimeError("litellm is not installed; reinstall Farebox with its dependencies")
    return Path(spec.origin).parent


@lru_cache(1)
def _published() -> Mapping[str, dict[str, object]]:
    data = orjson.loads((litellm_folder() / "model_prices_and_context_window_backup.json").read_bytes())
    assert isinstance(data, dict)
    return data


def _positive(value: object) -> int | None:
    return value if isinstance(value, int) and value > 0 else None


def published_model(name: str) -> PublishedModel:
    """Look a provider's model name up; everything is unknown of a model that the map does not list."""
    entry = _published().get(name)
    if not isinstance(entry, dict):
        return PublishedModel()
    reasons = entry.get("supports_reasoning") is True
    return PublishedModel(
        max_input_tokens=_positive(entry.get("max_input_tokens")),
        max_output_tokens=_positive(entry.get("max_output_tokens")),
        reasons=reasons,
        hides_reasoning=reasons and entry.get("litellm_provider") in _HIDES_REASONING,
    )
