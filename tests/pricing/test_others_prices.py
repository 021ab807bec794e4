"""Published prices as a project that keeps its own list of them has them: the same, or known to differ and why."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import pytest
import yaml
from genai_prices.data import providers
from genai_prices.types import ModelInfo, Provider, Usage

from pricing.amounts import NANO
from pricing.conditions import TIME
from pricing.costs import with_margin
from pricing.errors import PricingError
from pricing.parsing import price_table
from pricing.rating import rate
from pricing.table import ModelPrice
from proxy.published import litellm_folder, published_price

KNOWN = yaml.safe_load(Path(__file__).with_name("others_prices.yaml").read_text(encoding="utf-8"))

# Theirs, and how the map names it.
PROVIDERS = {
    "anthropic": "anthropic",
    "cerebras": "cerebras",
    "cohere": "cohere",
    "deepseek": "deepseek",
    "fireworks": "fireworks_ai",
    "google": "gemini",
    "groq": "groq",
    "minimax": "minimax",
    "mistral": "mistral",
    "moonshotai": "moonshot",
    "openai": "openai",
    "perplexity": "perplexity",
    "together": "together_ai",
    "x-ai": "xai",
    "zai": "zai",
}

SATURDAY = datetime(2026, 11, 21, 12, 30, tzinfo=UTC)
WEDNESDAY = datetime(2026, 11, 18, 8, 0, tzinfo=UTC)
PLAIN = {"input_tokens": 10_000, "output_tokens": 1_000}
CACHED = {**PLAIN, "cached_input_tokens": 4_000}
LONG = {"input_tokens": 300_000, "cached_input_tokens": 1_000, "output_tokens": 1_000}

CASES: dict[str, tuple[Mapping[str, int], datetime, str]] = {
    "plain": (PLAIN, SATURDAY, ""),
    "peak": (PLAIN, WEDNESDAY, ""),
    "cached": (CACHED, SATURDAY, ""),
    "written": ({**PLAIN, "cache_write_tokens": 5_000}, SATURDAY, ""),
    "edge": ({**PLAIN, "input_tokens": 200_000}, SATURDAY, ""),
    "long": (LONG, SATURDAY, ""),
    "flex": (CACHED, SATURDAY, "flex"),
    "priority": (CACHED, SATURDAY, "priority"),
    "fast": (CACHED, SATURDAY, "fast"),
}

_THEIR_NAMES = {"cached_input_tokens": "cache_read_tokens", "cache_write_tokens": "cache_write_tokens"}


def models(provider: str) -> Iterator[tuple[str, ModelPrice, ModelInfo, Provider]]:
    """All chat models that both lists have and that convert."""
    theirs = next(found for found in providers if found.id == provider)
    text = (litellm_folder() / "model_prices_and_context_window_backup.json").read_bytes()
    own = PROVIDERS[provider]
    seen: set[str] = set()
    for key, entry in json.loads(text).items():
        name = key.removeprefix(f"{own}/")
        if entry.get("mode") not in ("chat", "responses"):
            continue
        if name == key and entry.get("litellm_provider") not in (own, f"{own}_chat"):
            continue
        model = next((found for found in theirs.models if found.is_match(name)), None)
        if model is not None and name not in seen:
            seen.add(name)
            try:
                yield name, published_price(own, name), model, theirs
            except PricingError:
                continue


@pytest.mark.parametrize("provider", PROVIDERS)
def test_what_others_list(provider: str) -> None:
    """At no margin a call costs to the nanodollar what theirs says, but for what is known to differ, and still does."""
    differing: dict[str, list[str]] = {}
    compared = 0
    for name, cost, model, theirs in models(provider):
        rules = with_margin(cost, Fraction(0), Decimal(1))
        table = price_table({name: ModelPrice(name, rules)})
        for case, (usage, at, tier) in CASES.items():
            if tier and not any(variant.when == {"service_tier": tier} for variant in model.price_variants or ()):
                continue
            card = table.card(name, None, {TIME: at.strftime("%a %H:%M").lower(), "service_tier": tier})
            reported = Usage(**{_THEIR_NAMES.get(meter, meter): number for meter, number in usage.items()})
            context = {"service_tier": tier} if tier else None
            expected = model.calc_price(reported, theirs, genai_request_timestamp=at, price_context=context)
            compared += 1
            if Fraction(rate(card, usage).total, NANO) != Fraction(expected.total_price):
                differing.setdefault(name, []).append(case)
    known = {name: case["differs"] for name, case in KNOWN.get(provider, {}).items()}
    assert differing == known
    assert all(case["why"] for case in KNOWN.get(provider, {}).values())
    assert compared > 10
