"""What providers publish as prices: the whole of litellm's map, and what an entry may say."""

from __future__ import annotations

import json
from collections.abc import Mapping
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest

from pricing.amounts import NANO
from pricing.conditions import TIME
from pricing.errors import UnpricedModel, UnreadablePrice
from pricing.meters import METERS
from pricing.parsing import price_table
from pricing.published import dollars, published
from pricing.published_fields import NEVER_CHARGED, TIERS
from pricing.published_sizes import published_sizes, quality_and_size
from pricing.table import ModelPrice, RateCard
from pricing.versions import kept_table
from proxy.published import litellm_folder

MAP: dict[str, dict[str, Any]] = json.loads(
    (litellm_folder() / "model_prices_and_context_window_backup.json").read_bytes(), parse_float=Decimal
)
del MAP["sample_spec"]

REFUSED = {
    "annotation_cost_per_page": "nothing tells pages that are annotated",
    "citation_cost_per_token": "no usage counts citations",
    "explicit_cache_read_input_token_cost": "no usage tells explicit caches from others",
    "guardrail_cost_per_unit": "units of its own",
    "input_cost_per_character": "what goes in and what comes out cost differently",
    "input_cost_per_query": "beside other units, only for some inputs",
    "input_cost_per_text_message": "no usage counts messages",
    "input_cost_per_token": "missing beside prices of tokens, or a slip of the map",
    "input_cost_per_video_per_second": "without a price of the other input",
    "input_cost_per_video_per_second_above_15s_interval": "a price by the length of a video",
    "ocr_cost_per_credit": "units of its own",
    "ocr_cost_per_page": "beside prices of tokens",
    "off_peak_pricing.weekday_timezone": "weekdays of another time zone",
    "output_cost_per_image": "a piece of music, not a picture",
    "output_cost_per_token": "a slip of the map",
    "regional_endpoint_uplift_multiplier": "for every region but one",
    "tiered_pricing": "by the number of results",
}
"""The fields that entries are refused for, and why they can't be expressed."""


def card(price: ModelPrice, **attributes: str) -> RateCard:
    return price_table({price.model: price}).card(price.model, None, {TIME: "wed 08:00", **attributes})


def per_unit(found: RateCard, meter: str) -> Fraction:
    """What a unit of a meter costs in dollars, in its whole's price where it has none."""
    name: str | None = meter
    while name is not None and name not in found.prices:
        name = METERS[name].whole
    assert name is not None, meter
    return Fraction(found.prices[name].nano, found.prices[name].per) / NANO


def test_the_whole_map_converts_or_is_refused_by_name() -> None:
    """Of all entries with a price at most 3 in 100 are refused, and only for fields that stand here."""
    converted, refused = 0, {}
    for name, entry in MAP.items():
        try:
            price = published(name, entry)
        except UnreadablePrice as error:
            refused[name] = error.field
        except UnpricedModel:
            said = [key for key in entry if "cost" in key and key not in NEVER_CHARGED]
            assert not any(entry[key] for key in said if key != "input_cost_per_second"), name
        else:
            converted += 1
            for meter, rules in price.rules.items():
                assert not rules[-1].when and all(rule.when for rule in rules[:-1]), (name, meter)
    assert set(refused.values()) == set(REFUSED)
    assert len(refused) / (converted + len(refused)) < 0.03


NAIVE = {
    "input_cost_per_token": "input_tokens",
    "output_cost_per_token": "output_tokens",
    "cache_read_input_token_cost": "cached_input_tokens",
    "cache_creation_input_token_cost": "cache_write_tokens",
    "input_cost_per_audio_token": "input_audio_tokens",
    "output_cost_per_audio_token": "output_audio_tokens",
    "output_cost_per_reasoning_token": "reasoning_tokens",
}


def test_every_price_is_what_its_entry_says() -> None:
    """Worked out again from the entry without the converter: at each length of input and each service tier."""
    seen = 0
    for name, entry in MAP.items():
        if "off_peak_pricing" in entry or "tiered_pricing" in entry or entry.get("mode") in ("image_generation", None):
            continue
        try:
            price = published(name, entry)
        except (UnreadablePrice, UnpricedModel):
            continue
        if "input_tokens" not in price.rules:
            continue
        edge = 1 if entry["litellm_provider"] == "xai" else 0
        for tier, service in [("", ""), *TIERS.items(), ("priority", "fast")]:
            found = card(price, service_tier=service)
            for field, meter in NAIVE.items():
                plain, suffix = entry.get(field), f"_{tier}" if tier else ""
                if field.startswith("cache_creation") and not plain:
                    continue
                if f"{field}{suffix}" in entry:
                    assert per_unit(found, meter) == Fraction(entry[f"{field}{suffix}"]), (name, field, tier)
                    seen += 1
                for thousands in (100, 128, 200, 256, 272, 512):
                    above = f"{field}_above_{thousands}k_tokens"
                    if above + suffix in entry:
                        longer = found.at(thousands * 1000 + 1 - edge)
                        assert per_unit(longer, meter) == Fraction(entry[above + suffix]), (name, above, tier)
                        seen += 1
                        shorter = found.at(thousands * 1000 - edge)
                        assert shorter is found or shorter is not longer, (name, above, tier)
    assert seen > 10_000


def test_tables_of_published_prices_are_kept() -> None:
    """A table made of the whole map can be read back out of what is kept of it."""
    models = {}
    for name, entry in MAP.items():
        try:
            models[name] = published(name, entry)
        except (UnreadablePrice, UnpricedModel):
            continue
    table = price_table(models)
    assert kept_table(table.version, table.content) == table


def rules(entry: Mapping[str, object], meter: str) -> list[tuple[dict[str, str], str]]:
    found = published("model", entry).rules[meter]
    return [(dict(rule.when), rule.price.text) for rule in found]


D = Decimal
TOKENS = {"mode": "chat", "input_cost_per_token": D("1E-6"), "output_cost_per_token": D("4E-6")}


def test_the_most_particular_price_counts() -> None:
    """Longer input before tier before neither; where no price for both is published, the longer input's."""
    entry = {
        **TOKENS,
        "input_cost_per_token_above_200k_tokens": D("2E-6"),
        "input_cost_per_token_above_200k_tokens_priority": D("5E-6"),
        "input_cost_per_token_priority": D("3E-6"),
        "input_cost_per_token_flex": D("5E-7"),
        "input_cost_per_token_batches": D("4E-7"),
    }
    assert rules(entry, "input_tokens") == [
        ({"input_tokens": "> 200k", "service_tier": "batch"}, "$0.40 / 1M"),
        ({"input_tokens": "> 200k", "service_tier": "fast"}, "$5.00 / 1M"),
        ({"input_tokens": "> 200k", "service_tier": "priority"}, "$5.00 / 1M"),
        ({"input_tokens": "> 200k"}, "$2.00 / 1M"),
        ({"service_tier": "batch"}, "$0.40 / 1M"),
        ({"service_tier": "fast"}, "$3.00 / 1M"),
        ({"service_tier": "flex"}, "$0.50 / 1M"),
        ({"service_tier": "priority"}, "$3.00 / 1M"),
        ({}, "$1.00 / 1M"),
    ]
    inclusive = {**entry, "litellm_provider": "xai"}
    assert rules(inclusive, "input_tokens")[3] == ({"input_tokens": "> 199999"}, "$2.00 / 1M")


def test_ranges_price_the_whole_call() -> None:
    """Of `tiered_pricing` the range counts that holds all input; what it does not say costs what its whole does."""
    entry = {
        "mode": "chat",
        "tiered_pricing": [
            {"range": [0, D("32000.0")], "input_cost_per_token": D("1E-6"), "output_cost_per_token": D("2E-6")},
            {
                "range": [D("32000.0"), D("128000.0")],
                "input_cost_per_token": D("3E-6"),
                "output_cost_per_token": D("4E-6"),
                "output_cost_per_reasoning_token": D("5E-6"),
            },
        ],
    }
    assert rules(entry, "input_tokens") == [({"input_tokens": "> 32k"}, "$3.00 / 1M"), ({}, "$1.00 / 1M")]
    assert rules(entry, "reasoning_tokens") == [({"input_tokens": "> 32k"}, "$5.00 / 1M"), ({}, "$2.00 / 1M")]


def test_off_peak_hours_come_first() -> None:
    """They replace whatever the input's length would cost; a window that is the whole day has days only."""
    off_peak = {
        "input_cost_per_token": D("5E-7"),
        "windows": [
            {"hours_utc": ["16:30-00:30"], "weekdays": [1, 5]},
            {"hours_utc": "00:00-00:00", "weekdays": [6, 7]},
        ],
    }
    entry = {**TOKENS, "input_cost_per_token_above_200k_tokens": D("2E-6"), "off_peak_pricing": off_peak}
    assert rules(entry, "input_tokens")[:2] == [
        ({"utc": "16:30-00:30", "days": "mon, fri"}, "$0.50 / 1M"),
        ({"days": "sat, sun"}, "$0.50 / 1M"),
    ]
    price = published("model", entry)
    assert card(price, **{TIME: "sun 12:00"}).at(300_000).prices["input_tokens"].text == "$0.50 / 1M"
    assert card(price, **{TIME: "tue 17:00"}).at(300_000).prices["input_tokens"].text == "$2.00 / 1M"


def test_searches_cost_what_is_searched() -> None:
    """Who asks for no size gets the medium one; a region's uplift is of tokens only."""
    sizes = {
        f"search_context_size_{size}": D(cost)
        for size, cost in (("low", "0.005"), ("medium", "0.008"), ("high", "0.012"))
    }
    entry = {**TOKENS, "search_context_cost_per_query": sizes, "regional_processing_uplift_multiplier_eu": D("1.1")}
    assert rules(entry, "web_search") == [
        ({"search_context_size": "low"}, "$0.005"),
        ({"search_context_size": "high"}, "$0.012"),
        ({}, "$0.008"),
    ]
    assert rules(entry, "output_tokens") == [({"region": "eu"}, "$4.40 / 1M"), ({}, "$4.00 / 1M")]


@pytest.mark.parametrize(
    ("entry", "meter", "expected"),
    [
        ({"mode": "image_generation", "input_cost_per_image": D("0.04")}, "image", [({}, "$0.04")]),
        ({"mode": "image_generation", "input_cost_per_pixel": D("1.5E-8")}, "pixel", [({}, "$0.015 / 1M")]),
        (
            {"mode": "image_generation", "output_cost_per_image": D("0.08"), "output_cost_per_image_4K": D("0.16")},
            "image",
            [({"resolution": "4K"}, "$0.16"), ({}, "$0.08")],
        ),
        (
            {"mode": "image_generation", "input_cost_per_token": D("5E-6"), "output_cost_per_image_token": D("4E-5")},
            "output_tokens",
            [({}, "$40.00 / 1M")],
        ),
        (
            {"mode": "video_generation", "output_cost_per_second": D("0.1"), "output_cost_per_second_480p": D("0.05")},
            "video_second",
            [({"resolution": "480p"}, "$0.05"), ({}, "$0.10")],
        ),
        (
            {
                "mode": "audio_transcription",
                "input_cost_per_second": D("0.0001"),
                "output_cost_per_second": D("0.0001"),
            },
            "audio_second",
            [({}, "$0.0001")],
        ),
        ({"mode": "audio_speech", "input_cost_per_character": D("0.000015")}, "character", [({}, "$15.00 / 1M")]),
        (
            {"mode": "ocr", "ocr_cost_per_page": D("0.004"), "ocr_cost_per_page_batches": D("0.002")},
            "page",
            [({"service_tier": "batch"}, "$0.002"), ({}, "$0.004")],
        ),
        (
            {
                "mode": "rerank",
                "input_cost_per_query": D("0.002"),
                "input_cost_per_token": 0,
                "output_cost_per_token": 0,
            },
            "rerank_unit",
            [({}, "$0.002")],
        ),
        ({"mode": "embedding", "input_cost_per_token": D("2E-8")}, "output_tokens", [({}, "$0 / 1M")]),
        ({"mode": "chat", "code_interpreter_cost_per_session": D("0.03")}, "session", [({}, "$0.03")]),
        # No surcharge for what is put into the cache: its tokens cost what others do.
        ({**TOKENS, "cache_creation_input_token_cost": 0}, "input_tokens", [({}, "$1.00 / 1M")]),
    ],
)
def test_units(entry: dict[str, object], meter: str, expected: list[tuple[dict[str, str], str]]) -> None:
    """Each mode's unit is the meter that counts it, and zeros of tokens beside other units sell no tokens."""
    assert rules(entry, meter) == expected
    price = published("model", entry)
    assert "cache_write_tokens" not in price.rules
    assert ("input_tokens" in price.rules) == any(amount for key, amount in entry.items() if "per_token" in key)


def test_free_pictures() -> None:
    """The first pictures shown to a video model may be free."""
    entry = {
        "mode": "video_generation",
        "output_cost_per_second": D("0.1"),
        "input_cost_per_image": D("0.04"),
        "provider_specific_entry": {"minimax_free_input_images": 5},
    }
    (rule,) = published("model", entry).rules["input_image"]
    assert (rule.price.nano, [(count, price.text) for count, price in rule.steps]) == (0, [(5, "$0.04")])


@pytest.mark.parametrize(
    ("said", "field"),
    [
        ({"input_cost_per_moon_phase": D("0.1")}, "input_cost_per_moon_phase"),
        ({"input_cost_per_token": D("-1E-6")}, "input_cost_per_token"),
        ({"input_cost_per_token": D("0.01")}, "input_cost_per_token"),
        ({"input_cost_per_token": 1e-06}, "input_cost_per_token"),
        ({"input_cost_per_token": "1e-06"}, "input_cost_per_token"),
        ({"input_cost_per_token": D("NaN")}, "input_cost_per_token"),
        ({"input_cost_per_token_cache_hit": D("1E-7")}, "input_cost_per_token_cache_hit"),
        ({"search_context_cost_per_query": {"search_context_size_low": D("0.1")}}, "search_context_cost_per_query"),
        ({"tiered_pricing": [{"range": [0, 5]}]}, "tiered_pricing"),
        ({"off_peak_pricing": {"input_cost_per_token": D("1E-7"), "windows": []}}, "off_peak_pricing"),
        ({"provider_specific_entry": {"asia": D("1.1")}}, "provider_specific_entry.asia"),
        ({"regional_processing_uplift_multiplier_eu": D("0.1")}, "regional_processing_uplift_multiplier_eu"),
        ({"input_cost_per_second": D("0.1")}, "input_cost_per_second"),
        ({"some_new_surcharge": D("0.1")}, "some_new_surcharge"),
    ],
)
def test_what_is_not_understood_is_refused(said: dict[str, object], field: str) -> None:
    """By its name, whatever else the entry says; a float too, because it has lost the figure that was meant."""
    with pytest.raises(UnreadablePrice) as refused:
        published("model", {**TOKENS, **said})
    assert refused.value.field == field


def test_pictures_by_quality_and_size() -> None:
    """Entries for each quality and size are one price; who asks for less gets what is made then, else the dearest."""
    costs = {"hd/1024-x-1024": "0.08", "hd/1024-x-1792": "0.12", "standard/1024-x-1024": "0.04"}
    entries = {}
    for said, cost in costs.items():
        named = quality_and_size(f"{said}/dall-e-3")
        assert named is not None and named[0] == "dall-e-3"
        entries[named[1:]] = {"mode": "image_generation", "output_cost_per_image": D(cost)}
    price = published_sizes("dall-e-3", entries)
    asked = [{"quality": "hd", "size": "1024x1792"}, {"quality": "hd"}, {"size": "1024x1792"}, {}, {"size": "9x9"}]
    found = [card(price, **attributes).prices["image"].text for attributes in asked]
    assert found == ["$0.12", "$0.08", "$0.12", "$0.04", "$0.04"]
    unusual = {
        (quality, "512x512"): {"mode": "image_generation", "output_cost_per_image": D(cost)}
        for quality, cost in (("low", "0.01"), ("high", "0.07"), ("medium", "0.03"))
    }
    assert card(published_sizes("model", unusual), size="512x512").prices["image"].text == "$0.07"


def test_a_part_that_costs_what_its_whole_does() -> None:
    """Says nothing of its own: of a long input it is as dear as the rest."""
    entry = {
        **TOKENS,
        "input_cost_per_token_above_200k_tokens": D("2E-6"),
        "input_cost_per_audio_token": TOKENS["input_cost_per_token"],
    }
    price = published("model", entry)
    assert per_unit(card(price).at(200_001), "input_audio_tokens") == Fraction(2, 10**6)


def test_two_prices_of_one_thing_are_none() -> None:
    """Where two fields say what a second of a recording costs they must say the same."""
    with pytest.raises(UnreadablePrice, match="`output_cost_per_second` says another price"):
        published(
            "model",
            {"mode": "audio_transcription", "input_cost_per_second": D("0.1"), "output_cost_per_second": D("0.2")},
        )


def test_tokens_need_both_prices() -> None:
    """A price of the input alone is no price of a call that answers; nothing published is no price at all."""
    with pytest.raises(UnreadablePrice, match="`output_cost_per_token` is missing"):
        published("model", {"mode": "chat", "input_cost_per_token": D("1E-6")})
    with pytest.raises(UnpricedModel):
        published("model", {"mode": "chat", "max_tokens": 4096})


@pytest.mark.parametrize(
    ("meter", "amount", "text"),
    [
        ("input_tokens", Fraction(16, 10**7), "$1.60 / 1M"),
        ("input_tokens", Fraction(Decimal("1.25e-05")), "$12.50 / 1M"),
        ("input_tokens", Fraction(Decimal("2.8E-8")), "$0.028 / 1M"),
        ("image", Fraction(1, 25), "$0.04"),
        ("request", Fraction(3), "$3.00"),
        ("request", Fraction(1, 3), "$1 / 3"),
        ("output_tokens", Fraction(0), "$0 / 1M"),
    ],
)
def test_dollars(meter: str, amount: Fraction, text: str) -> None:
    """Prices are written as operators would, exactly."""
    assert dollars(meter, amount) == text
