"""Prices made of what providers publish, and what the config says that they charge."""

from __future__ import annotations

import json
from decimal import Decimal
from fractions import Fraction

import pytest

from pricing.amounts import NANO
from pricing.errors import ConfigError, UnpricedModel
from pricing.rating import rate
from pricing.table import ModelPrice
from proxy.config import Config, parse_config
from proxy.published import provider_of_host, published_price

OPENAI = 'kind: openai, base_url: "https://api.openai.com/v1"'
LOCAL = 'kind: openai, base_url: "http://127.0.0.1:11434/v1"'


def read(model: str, *, upstream: str = OPENAI, top: str = "", name: str = "gpt-4.1-mini") -> Config:
    text = f"""{top}
upstreams:
  up: {{{upstream}}}
models:
  fast:
    upstream: up/{name}
    max_output_tokens: 100
{model}
"""
    return parse_config(text, "config.yaml", {})


def texts(price: ModelPrice | None, meter: str) -> list[str]:
    assert price is not None
    return [rule.price.text for rule in price.rules[meter]]


def refusal(model: str, **options: str) -> str:
    with pytest.raises(ConfigError) as caught:
        read(model, **options)
    return str(caught.value)


def test_cost_plus_a_margin() -> None:
    """Every meter of the published price costs so much more, in credits; the cost is known beside it."""
    config = read("    price: {cost_plus: 25%}")
    fast = config.models["fast"]
    cost = published_price("openai", "gpt-4.1-mini")
    assert fast.cost == cost
    assert list(fast.price.rules) == list(cost.rules)
    assert texts(cost, "input_tokens")[-1] == "$0.40 / 1M"
    assert texts(fast.price, "input_tokens")[-1] == "50 / 1M"
    assert texts(fast.price, "output_tokens")[-1] == "200 / 1M"
    usage = {"input_tokens": 1_000_000, "cached_input_tokens": 200_000, "output_tokens": 1_000}
    dollars = Fraction(8 * 40, 1000) + Fraction(2, 100) + Fraction(16, 10_000)
    assert rate(config.card("fast"), usage).total == dollars * 100 * Fraction(5, 4) * NANO
    assert "$" not in json.dumps(config.table.content)


def test_where_credits_have_no_end_the_text_is_in_dollars() -> None:
    """A credit at a price that divides nothing: the charge is exact, and the text is what was charged in dollars."""
    fast = read("    price: {cost_plus: 25%}", top="credit: {usd: 0.03}").models["fast"]
    assert texts(fast.price, "input_tokens")[-1] == "$0.50 / 1M"
    price = fast.price.rules["input_tokens"][-1].price
    assert Fraction(price.nano, price.per) == Fraction(Decimal("0.5")) / Fraction(Decimal("0.03")) * NANO / 10**6


def test_what_is_written_beside_it_counts() -> None:
    """Meters replace the published ones, and bounds and factors are the model's own; the rest stays marked up."""
    model = """    price:
      cost_plus: 0%
      output_tokens: 700 / 1M
      request: 1
      min: 2
      factors: [{when: {region: eu}, multiply: 2}]"""
    fast = read(model).models["fast"]
    assert texts(fast.price, "output_tokens") == ["700 / 1M"]
    assert texts(fast.price, "request") == ["1"]
    assert texts(fast.price, "input_tokens")[-1] == "40 / 1M"
    assert fast.price.least is not None
    assert len(fast.price.factors) == 1


def test_a_cost_of_ones_own_is_what_the_margin_is_on() -> None:
    """What the operator's provider charges goes before what is published, by name or written out in dollars."""
    named = read("    cost: gpt-4.1-nano\n    price: {cost_plus: 100%}").models["fast"]
    assert texts(named.cost, "input_tokens")[-1] == "$0.10 / 1M"
    assert texts(named.price, "input_tokens")[-1] == "20 / 1M"
    written = "    cost: {input_tokens: $1 / 3M, output_tokens: 0}\n    price: {cost_plus: 50%}"
    fast = read(written, upstream=LOCAL, name="mine").models["fast"]
    assert texts(fast.cost, "input_tokens") == ["$1 / 3M"]
    assert texts(fast.price, "input_tokens") == ["50 / 1M"]
    assert texts(fast.price, "output_tokens") == ["0 / 1M"]


@pytest.mark.parametrize(
    ("upstream", "name", "known"),
    [
        (OPENAI, "gpt-4.1-mini", True),
        (OPENAI, "unheard-of", False),
        (LOCAL, "gpt-4.1-mini", False),
        (f"{LOCAL}, provider: openai", "gpt-4.1-mini", True),
        ('kind: openai, base_url: "https://api.groq.com/openai/v1"', "openai/gpt-oss-20b", True),
        ('kind: openai, base_url: "https://api.groq.com/openai/v1"', "gpt-4.1-mini", False),
    ],
)
def test_a_cost_is_known_where_its_provider_is(upstream: str, name: str, known: bool) -> None:
    """By the upstream's `provider` or its public host; a local server's model of a famous name costs nobody's price."""
    config = read("    price: {request: 1}", upstream=upstream, name=name)
    assert (config.models["fast"].cost is not None) is known
    assert config.warnings == ()


def test_the_cost_behind_cost_plus_is_known_on_any_upstream() -> None:
    """Who asks for a margin on a name's published price says that this is what it costs."""
    fast = read("    price: {cost_plus: 0%}", upstream=LOCAL).models["fast"]
    assert fast.cost == published_price(None, "gpt-4.1-mini")


def test_a_published_price_that_cannot_be_expressed_is_a_warning() -> None:
    """The config stands, the cost is unknown, and the warning names the field."""
    host = 'kind: openai, base_url: "https://api.perplexity.ai"'
    config = read("    price: {request: 1}", upstream=host, name="sonar-deep-research")
    assert config.models["fast"].cost is None
    (warning,) = config.warnings
    assert "citation_cost_per_token" in warning
    assert "Set cost" in warning


@pytest.mark.parametrize(
    ("model", "name", "line", "problem"),
    [
        ("    price: {cost_plus: 25}", "gpt-4.1-mini", 8, "must be a margin from 0% to 1000%"),
        ("    price: {cost_plus: 1001%}", "gpt-4.1-mini", 8, "must be a margin from 0% to 1000%"),
        ("    price: {cost_plus: -5%}", "gpt-4.1-mini", 8, "must be a margin from 0% to 1000%"),
        ("    price: {cost_plus: 5%}", "gpt-4.1-mimi", 8, "did you mean `gpt-4.1-mini`"),
        ("    price: {cost_plus: 5%}", "unheard-of-by-anybody", 8, "write the model's price out, or set its `cost:`"),
        ("    price: {cost_plus: 5%}", "omni-moderation-latest", 8, "costs nothing"),
        ("    cost: gpt-4.1-mimi\n    price: {request: 1}", "m", 8, "did you mean `gpt-4.1-mini`"),
        ("    cost: perplexity/sonar-deep-research\n    price: {request: 1}", "m", 8, "`citation_cost_per_token`"),
        ("    cost: {request: 2}\n    price: {request: 1}", "m", 8, "write `$2`"),
        ("    cost: {request: $2, min: $1}\n    price: {request: 1}", "m", 8, "`min` is of prices and not of costs"),
        ("    cost: {cost_plus: 5%}\n    price: {request: 1}", "m", 8, "`cost_plus` is of prices and not of costs"),
        ("    cost: {input_tokens: $2 / 1M}\n    price: {request: 1}", "m", 8, "add `output_tokens:"),
    ],
)
def test_refused(model: str, name: str, line: int, problem: str) -> None:
    """With the line, and what to write instead."""
    message = refusal(model, name=name)
    assert message.startswith(f"config.yaml:{line}: ")
    assert problem in message


def test_costs_of_fallbacks() -> None:
    """Each of who may answer has its own cost, and a margin is on that, the model's or one of its own."""
    text = f"""
upstreams:
  up: {{{OPENAI}}}
  local: {{{LOCAL}}}
models:
  fast:
    upstream:
      - up/gpt-4.1-mini
      - {{upstream: up/gpt-4.1-nano, price: {{cost_plus: 100%}}}}
      - {{upstream: local/mine, cost: {{request: $1}}}}
      - up/gpt-4.1
    max_output_tokens: 100
    price: {{cost_plus: 0%}}
"""
    fast = parse_config(text, "config.yaml", {}).models["fast"]
    first, second, third, fourth = fast.targets
    assert fast.cost == first.cost == published_price("openai", "gpt-4.1-mini")
    assert texts(second.price, "input_tokens")[-1] == "20 / 1M"
    assert second.cost == published_price("openai", "gpt-4.1-nano")
    assert texts(third.cost, "request") == ["$1"]
    assert texts(third.price, "request") == ["100"]
    assert texts(fourth.price, "input_tokens")[-1] == "200 / 1M"
    assert texts(fourth.cost, "input_tokens")[-1] == "$2.00 / 1M"


def test_unknown_providers_are_refused() -> None:
    """A provider of whom nothing is published is a slip of the pen."""
    message = refusal("    price: {request: 1}", upstream=f"{LOCAL}, provider: open-ai")
    assert "did you mean `openai`?" in message


@pytest.mark.parametrize(
    ("host", "provider"),
    [
        ("api.openai.com", "openai"),
        ("eu.api.openai.com", None),
        ("mine.openai.azure.com", "azure"),
        ("openai.azure.com.example.com", None),
        ("api.mistral.ai", "mistral"),
        ("127.0.0.1", None),
    ],
)
def test_hosts(host: str, provider: str | None) -> None:
    """A host is its provider's by its whole name; of a region's host the price depends on more than the list says."""
    assert provider_of_host(host) == provider


def test_names_of_other_providers_are_not_looked_up() -> None:
    """A provider's price is looked up under its own name, or where the entry says that it is the provider's."""
    assert published_price("gemini", "gemini-2.5-pro").rules
    assert published_price("anthropic", "claude-sonnet-4-5").rules
    with pytest.raises(UnpricedModel):
        published_price("groq", "gpt-4.1-mini")
    with pytest.raises(UnpricedModel):
        published_price(None, "sample_spec")


def test_pictures_are_found_by_their_models_name() -> None:
    """Though the map lists them by quality and size, and by the pixel."""
    rules = published_price("azure", "dall-e-3").rules["image"]
    assert dict(rules[0].when) == {"quality": "hd", "size": "1024x1024"}
    price = rules[0].price
    assert Fraction(price.nano, price.per) / NANO == Fraction(Decimal("8.39233E-8")) * 1024 * 1024


def test_prices_are_exact() -> None:
    """What the map writes as 1.25e-05 is exactly that, and no float near it."""
    price = published_price("openai", "gpt-4-turbo").rules["input_tokens"][-1].price
    assert Fraction(price.nano, price.per) / NANO == Fraction(1, 100_000)
