"""`packs:`, `custom_pack:` and `typical:` as operators write them, how they are refused, and how prices are worded."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from fractions import Fraction
from importlib.resources import files
from typing import Any

import pytest

from pricing.amounts import format_credits
from pricing.errors import ConfigError
from proxy.config import Config, parse_config
from proxy.credit import Credit
from proxy.public_prices import Offered, public_prices
from proxy.web.pages import prices_page
from proxy.web.words import Words, quantity

_NANO = 10**9
_HEAD = """credit: {usd: 0.01}
upstreams: {d: {kind: demo}}
models:
  chat:  {upstream: d/c, price: {input_tokens: 1 / 1k, output_tokens: 3 / 1k}%s}
  voice: {upstream: d/v, price: {character: 0.01, audio_second: 2}}
"""


def _read(more: str = "", typical: str = "") -> Config:
    return parse_config(_HEAD % (typical and f", typical: {typical}") + more, "config.yaml", {})


def _refusal(more: str = "", typical: str = "") -> str:
    with pytest.raises(ConfigError) as caught:
        _read(more, typical)
    return str(caught.value)


def test_packs() -> None:
    """Each with its title, price, credits and bucket; without the keys there are none."""
    config = _read("""packs:
  small:   {price: $20, credits: 2000}
  top_up:  {title: Large, price: $99.50, credits: "10500.5", bucket: bonus}
custom_pack: {min: $5, max: $5000}
""")
    small, large = config.packs.values()
    assert (small.title, small.price, small.dollars, small.amount, small.bucket) == (
        "Small",
        "$20",
        Decimal(20),
        2000 * _NANO,
        "paid",
    )
    assert (large.title, large.dollars, large.bucket) == ("Large", Decimal("99.50"), "bonus")
    assert large.amount == 10_500_500_000_000
    assert config.custom_pack is not None
    assert (config.custom_pack.least, config.custom_pack.most) == ("$5", "$5000")
    assert (_read().packs, _read().custom_pack) == ({}, None)


def test_a_packs_bucket() -> None:
    """`paid` where there is such a bucket, wherever it burns; else the last."""
    packs = "packs: {a: {price: $1, credits: 100}}\n"
    assert _read(packs + "buckets: {paid: {}, free: {}}\n").packs["a"].bucket == "paid"
    assert _read(packs + "buckets: {free: {}, bought: {}}\n").packs["a"].bucket == "bought"


def test_what_packs_and_typical_calls_say_changes_no_price() -> None:
    """The table's version is that of its prices."""
    more = "packs: {a: {price: $1, credits: 100}}\ncustom_pack: {min: $5, max: $50}\n"
    assert _read(more, "{input_tokens: 5}").table.version == _read().table.version


@pytest.mark.parametrize(
    ("more", "line", "path", "fix"),
    [
        ("packs: {}\n", 6, "packs", "name at least one"),
        ("packs:\n  a: {}\n", 7, "packs.a", "`price:` is missing; write e.g. {price: $20, credits: 2000}"),
        ("packs:\n  a: {price: $20}\n", 7, "packs.a", "`credits:` is missing"),
        ("packs:\n  a:\n    price: 20\n    credits: 5\n", 8, "packs.a.price", "such as $20, not `20`"),
        ("packs:\n  a:\n    price: $20/month\n    credits: 5\n", 8, "packs.a.price", "such as $20"),
        ("packs:\n  a:\n    price: $0.001\n    credits: 5\n", 8, "packs.a.price", "such as $20"),
        ("packs:\n  a:\n    price: $-5\n    credits: 5\n", 8, "packs.a.price", "such as $20"),
        ("packs:\n  a:\n    price: $0\n    credits: 5\n", 8, "packs.a.price", "more than $0"),
        ("packs:\n  a:\n    price: $5\n    credits: 0\n", 9, "packs.a.credits", "more than 0"),
        ("packs:\n  a:\n    price: $5\n    credits: -5\n", 9, "packs.a.credits", "more than 0"),
        ("packs:\n  a:\n    price: $5\n    credits: 1e3\n", 9, "packs.a.credits", "decimal"),
        ("packs:\n  a:\n    price: $5\n    credits: 1000000001\n", 9, "packs.a.credits", "at most"),
        ("packs:\n  a:\n    price: $5\n    credits: 5\n    bucket: x\n", 10, "packs.a.bucket", "daily, subscription"),
        ("packs:\n  a: {price: $5, credits: 5, bonus: 1}\n", 7, "packs.a.bonus", "unknown key `bonus`"),
        ("custom_pack: {min: $5}\n", 6, "custom_pack", "`max:` is missing; write e.g. {min: $5, max: $5000}"),
        ("custom_pack:\n  min: $5\n  max: 50\n", 8, "custom_pack.max", "such as $20"),
        ("custom_pack:\n  min: $5\n  max: $4.99\n", 8, "custom_pack.max", "less than `min`, $5"),
    ],
)
def test_packs_are_refused(more: str, line: int, path: str, fix: str) -> None:
    """On their line, under their key, with what to write instead."""
    said = _refusal(more)
    assert said.startswith(f"config.yaml:{line}: {path}: "), said
    assert fix in said, said


@pytest.mark.parametrize(
    ("price", "credits", "said"),
    [
        ("$20", "2000", None),
        ("$100", "10500", "come to $0.009524 each, and a credit sells for $0.01; $100 would buy 10000"),
        ("$10", "500", "come to $0.020000 each, and a credit sells for $0.01; $10 would buy 1000"),
    ],
)
def test_packs_off_the_price_are_warned_of(price: str, credits: str, said: str | None) -> None:
    """With what a credit of it comes to, what one sells for, and what the price would buy."""
    warnings = _read(f"packs: {{large: {{price: {price}, credits: {credits}}}}}\n").warnings
    found = [warning for warning in warnings if warning.startswith("pack ")]
    assert found == ([] if said is None else [f"pack large: its credits {said}"])


@pytest.mark.parametrize(
    ("usd", "credits", "bonus"),
    # At $0.03 a credit $1 buys 33.333…; of a nanocredit that is bought in part none is a bonus.
    [("0.01", "100", "0"), ("0.01", "90", "0"), ("0.01", "100.5", "0.5"), ("0.03", "34", "0.666666666")],
)
def test_a_packs_bonus(usd: str, credits: str, bonus: str) -> None:
    """What it holds above what its price buys; nothing where it holds less."""
    pack = _read(f"packs: {{a: {{price: $1, credits: {credits}}}}}\n").packs["a"]
    assert format_credits(pack.bonus(Decimal(usd))) == bonus


@pytest.mark.parametrize(
    ("typical", "path", "fix"),
    [
        ("{}", "typical", "names no meter"),
        ("5", "typical", "must be a mapping"),
        ("{tokens: 5}", "typical.tokens", "unknown key"),
        ("{input_tokens: -5}", "typical.input_tokens", "from 0"),
        ("{input_tokens: 1.5}", "typical.input_tokens", "whole number"),
        ("{request: 2}", "typical.request", "from 1 to 1"),
        ("{web_search: 10000000000}", "typical.web_search", "at most"),
        ("{input_tokens: 5, cached_input_tokens: 6}", "typical", "cached_input_tokens is above input_tokens"),
        ("{input_tokens: 5, image: 1}", "typical.image", "`image` has no price here; price it, or remove it"),
    ],
)
def test_a_typical_call_is_refused(typical: str, path: str, fix: str) -> None:
    """Where no call could use that, or where it would be shown at no price."""
    said = _refusal("surcharges: {web_search: 15}\n", typical)
    assert said.startswith(f"config.yaml:4: models.chat.{path}: "), said
    assert fix in said, said


def _shown(config: Config, now: int = 0) -> list[Mapping[str, Any]]:
    models: list[Mapping[str, Any]] = public_prices(Offered(config, now, None))["models"]
    return models


def test_typical_calls() -> None:
    """As written, surcharges too, else a thousand tokens and half as many back, a minute, a thousand characters."""
    chat, voice = _shown(_read())
    assert chat["typical"] == {"usage": {"input_tokens": "1000", "output_tokens": "500"}, "cost": "2.5"}
    assert voice["typical"] == {"usage": {"audio_second": "60", "character": "1000"}, "cost": "130"}
    config = _read("surcharges: {web_search: 15}\n", "{input_tokens: 5_000, output_tokens: 0, web_search: 1.5}")
    assert _shown(config)[0]["typical"] == {
        "usage": {"input_tokens": "5000", "output_tokens": "0", "web_search": "1.5"},
        "cost": "27.5",
    }
    # Every answered call is one request, whether `typical` says so or not.
    price = "price: {request: 1, input_tokens: 1 / 1k, output_tokens: 0 / 1k}, typical: {input_tokens: 500}"
    config = parse_config(f"upstreams: {{d: {{kind: demo}}}}\nmodels: {{a: {{upstream: d/a, {price}}}}}\n", "c", {})
    assert _shown(config)[0]["typical"]["cost"] == "1.5"


def test_a_typical_call_costs_what_it_costs_now() -> None:
    """Where prices depend on the hour, that of the moment counts."""
    prices = "price: {request: [{when: {utc: '00:00-08:00'}, price: 1}, {price: 3}]}"
    config = parse_config(f"upstreams: {{d: {{kind: demo}}}}\nmodels: {{a: {{upstream: d/a, {prices}}}}}\n", "c", {})
    hour = 3_600_000_000
    assert [_shown(config, now)[0]["typical"]["cost"] for now in (7 * hour, 8 * hour)] == ["1", "3"]


def test_a_typical_call_that_the_prices_in_force_do_not_cover() -> None:
    """Other servers may have announced others than this file's: then nothing is said, and certainly not 0."""
    config = _read("surcharges: {web_search: 15}\n", "{input_tokens: 5, web_search: 1}")
    assert _shown(config.under(_read().table))[0]["typical"]["cost"] is None


def test_prices_to_come() -> None:
    """They are announced by version and time, and so is since when those of now are in force."""
    at = 1_800_000_000_000_000
    offer = Offered(_read(), at, at, ((at + 60_000_000, "prices_next"),))
    shown, page = public_prices(offer), prices_page(offer)
    assert shown["effective_at"] == "2027-01-15T08:00:00Z"
    assert shown["upcoming"] == [{"effective_from": "2027-01-15T08:01:00Z", "version": "prices_next"}]
    assert page["since"] == "2027-01-15 08:00 UTC"
    assert [(each["version"], each["from"]) for each in page["later"]] == [("prices_next", "2027-01-15 08:01 UTC")]


def test_words() -> None:
    """Figures are whole, or said to be about right; dollars have cents."""
    credits, dollars = Words(Credit()), Words(Credit(usd=Decimal("0.01"), show="usd"))
    assert credits.amount(Fraction(1)) == "1 credit"
    assert credits.amount(Fraction("1234567.5")) == "1,234,567.5 credits"
    assert credits.amount(Fraction(100, 3)) == "about 33.3333 credits"
    assert credits.amount(Fraction(1, 10**9)) == "0.000000001 credits"
    assert dollars.amount(Fraction(150)) == "$1.50"
    assert dollars.amount(Fraction(200)) == "$2"
    assert dollars.amount(Fraction("0.0125")) == "$0.000125"
    assert dollars.amount(Fraction(100, 3)) == "about $0.333333"
    assert credits.between(Fraction(2), Fraction(2)) == "2 credits"
    assert credits.between(None, None) is None
    assert quantity("video_second", "60") == "60 seconds of video"
    assert quantity("video_second", "1") == "1 second of video"
    assert quantity("web_search", "2") == "2 web searches"
    assert quantity("request", "1") == "1 call"


def test_what_pages_are_made_of_is_in_the_package() -> None:
    """Templates and static files lie in a package of the wheel, beside the code that reads them."""
    room = files("proxy.web")
    for name in ("templates/prices.html", "static/farebox.css", "static/farebox.svg"):
        assert room.joinpath(*name.split("/")).is_file(), name
