"""What providers publish of their models: limits and prices, read from litellm's map without importing litellm."""

from __future__ import annotations

import difflib
import importlib.util
import json
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache
from pathlib import Path

from pricing.errors import UnpricedModel
from pricing.published import published
from pricing.published_sizes import published_sizes, quality_and_size
from pricing.table import ModelPrice

__all__ = [
    "PublishedModel",
    "litellm_folder",
    "near_names",
    "provider_of_host",
    "providers",
    "published_model",
    "published_price",
]

# Providers that bill for reasoning which their chat API does not show.
_HIDES_REASONING = frozenset(
    {"openai", "azure", "azure_ai", "text-completion-openai", "gemini", "vertex_ai-language-models"}
)

_HOSTS = {
    "api.openai.com": "openai",
    "api.anthropic.com": "anthropic",
    "generativelanguage.googleapis.com": "gemini",
    "api.mistral.ai": "mistral",
    "api.groq.com": "groq",
    "openrouter.ai": "openrouter",
    "api.deepseek.com": "deepseek",
    "api.x.ai": "xai",
    "api.together.xyz": "together_ai",
    "api.together.ai": "together_ai",
    "api.fireworks.ai": "fireworks_ai",
    "api.perplexity.ai": "perplexity",
    "api.cohere.com": "cohere",
    "api.cohere.ai": "cohere",
    "dashscope.aliyuncs.com": "dashscope",
    "dashscope-intl.aliyuncs.com": "dashscope",
    "dashscope-us.aliyuncs.com": "dashscope",
    "api.cerebras.ai": "cerebras",
    "api.sambanova.ai": "sambanova",
    "api.deepinfra.com": "deepinfra",
    "api.novita.ai": "novita",
    "api.moonshot.ai": "moonshot",
    "api.z.ai": "zai",
    "api.minimax.io": "minimax",
    "api.studio.nebius.com": "nebius",
    "api.hyperbolic.xyz": "hyperbolic",
    "api.lambda.ai": "lambda_ai",
    "api.ai21.com": "ai21",
    "api.voyageai.com": "voyage",
    "api.jina.ai": "jina_ai",
    "ai-gateway.vercel.sh": "vercel_ai_gateway",
    "inference.baseten.co": "baseten",
}
"""Whose price list a public host is billed by."""

_HOST_ENDS = {".openai.azure.com": "azure"}

# Names that the map gives parts of one provider's list.
_ALIASES = {
    "openai": ("text-completion-openai",),
    "cohere": ("cohere_chat",),
    "bedrock": ("bedrock_converse",),
}


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
    """The map, read once; its prices are exact decimals, which cost a few milliseconds more than floats."""
    text = (litellm_folder() / "model_prices_and_context_window_backup.json").read_bytes()
    data = json.loads(text, parse_float=Decimal)
    assert isinstance(data, dict)
    # An example of an entry, and no model.
    data.pop("sample_spec", None)
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


def provider_of_host(host: str) -> str | None:
    """Whose price list a host's calls are billed by, None of hosts that are nobody's in particular."""
    ends = (provider for end, provider in _HOST_ENDS.items() if host.endswith(end))
    return _HOSTS.get(host) or next(ends, None)


def providers() -> frozenset[str]:
    """All providers that the map names."""
    return frozenset(str(entry["litellm_provider"]) for entry in _published().values() if "litellm_provider" in entry)


def published_price(provider: str | None, name: str) -> ModelPrice:
    """What a provider publishes as a model's price, in nanodollars.

    provider: as the map names it; None looks for exactly the name. Raises UnpricedModel where nothing is published,
    and UnreadablePrice naming the field that can't be expressed.
    """
    found = _key(provider, name)
    if found is None and (entries := _by_size(provider, name)):
        return published_sizes(name, entries)
    if found is None:
        raise UnpricedModel(f"no price of `{name}` is published" + (f" for {provider}" if provider else ""))
    return published(name, _published()[found])


def _key(provider: str | None, name: str) -> str | None:
    entries = _published()
    if provider is None:
        return name if name in entries else None
    if f"{provider}/{name}" in entries:
        return f"{provider}/{name}"
    listed = str(entries.get(name, {}).get("litellm_provider"))
    if listed == provider or listed.startswith(f"{provider}-") or listed in _ALIASES.get(provider, ()):
        return name
    return None


def _by_size(provider: str | None, name: str) -> dict[tuple[str, str], Mapping[str, object]]:
    """The entries of a model of pictures that has one for each quality and size."""
    found: dict[tuple[str, str], Mapping[str, object]] = {}
    for key, entry in _published().items():
        if key.endswith(f"/{name}") and "-x-" in key:
            own = key if provider is None else key.removeprefix(f"{provider}/")
            named = quality_and_size(own)
            if named is not None and named[0] == name and (provider is None or _key(provider, own) == key):
                found[named[1:]] = entry
    return found


def near_names(provider: str | None, name: str) -> list[str]:
    """Names like one, of the provider's models or of all; the nearest first."""
    entries = _published()
    if provider is None:
        return difflib.get_close_matches(name, entries, 3)
    own = {key.removeprefix(f"{provider}/") for key in entries if _key(provider, key.removeprefix(f"{provider}/"))}
    return difflib.get_close_matches(name, own, 3)
