"""Prices that depend on something: what was asked for, how long the input is, how much was used, and when."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pricing.amounts import NANO, format_credits
from pricing.conditions import TIME, moment
from pricing.document import Document
from pricing.errors import ConfigError, UnpricedModel
from pricing.meters import METERS, TOKEN_WHOLES, within
from pricing.parsing import parse_rules, price_table
from pricing.rating import of_surcharges, quote, quote_apart, rate
from pricing.table import Factor, ModelPrice, Price, PriceTable, RateCard, Rule
from tests.pricing.cards import cards, model_price, properties, quantities, unit_prices, usages
from tests.pricing.test_rating_properties import of_one_card

_TOKENS = "input_tokens: 0\noutput_tokens: 0\n"


def _table(price: str, surcharges: str = "") -> PriceTable:
    root = Document("prices.yaml", surcharges or "{}", {}).root()
    added = {meter: parse_rules(node, meter, Decimal("0.01")) for meter, node in root.members().items()}
    return price_table({"fast": model_price(price)}, {}, added)


def _bill(card: RateCard, usage: Mapping[str, int | Decimal]) -> list[str]:
    rating = rate(card, usage)
    assert sum(line.amount for line in rating.lines) == rating.total
    return [f"{line.meter}: {line.quantity} at {line.price} = {format_credits(line.amount)}" for line in rating.lines]


def test_a_long_input_changes_the_price_of_the_whole_call() -> None:
    """Above the threshold all tokens cost more, those below it too, and output as well; exactly at it nothing does."""
    price = """
input_tokens:  [{when: {input_tokens: "> 200k"}, price: 2 / 1k}, {price: 1 / 1k}]
cached_input_tokens: 1 / 10k
output_tokens: [{when: {input_tokens: "> 200k"}, price: 15 / 1k}, {price: 10 / 1k}]
"""
    card = _table(price).card("fast")
    assert _bill(card, {"input_tokens": 200_000, "output_tokens": 1000}) == [
        "input_tokens: 200000 at 1 / 1k = 200",
        "output_tokens: 1000 at 10 / 1k = 10",
    ]
    assert _bill(card, {"input_tokens": 200_001, "cached_input_tokens": 100_000, "output_tokens": 1000}) == [
        "input_tokens: 100001 at 2 / 1k = 200.002",
        "cached_input_tokens: 100000 at 1 / 10k = 10",
        "output_tokens: 1000 at 15 / 1k = 15",
    ]


def test_only_the_excess_may_cost_more() -> None:
    """Units up to a number cost one price and those beyond it another, each on its own line."""
    card = _table("character: {price: 5, beyond: {10: 3, 1k: $0.01}}").card("fast")
    assert _bill(card, {"character": 10}) == ["character: 10 at 5 = 50"]
    assert _bill(card, {"character": 1001}) == [
        "character: 10 at 5 = 50",
        "character: 990 at 3 = 2970",
        "character: 1 at $0.01 = 1",
    ]


def test_the_first_units_of_a_call_may_be_free() -> None:
    """They stand on the bill, at nothing; so do a surcharge's."""
    table = _table(_TOKENS + "audio_second: {price: 2, free: 3}", "web_search: {price: 15, free: 2, beyond: {1k: 10}}")
    card = table.card("fast")
    assert _bill(card, {"audio_second": 3, "web_search": 2}) == [
        "audio_second: 3 at free = 0",
        "web_search: 2 at free = 0",
    ]
    assert _bill(card, {"audio_second": Decimal("3.5"), "web_search": 3}) == [
        "audio_second: 3 at free = 0",
        "audio_second: 0.5 at 2 = 1",
        "web_search: 2 at free = 0",
        "web_search: 1 at 15 = 15",
    ]


def test_a_night_rate_goes_on_past_midnight() -> None:
    """Hours are UTC, from the first minute to before the last; days are those of the call's own moment."""
    night = '{when: {utc: "16:30-00:30"}, price: 1}'
    table = _table(f'request: [{night}, {{when: {{days: "sat, sun", utc: "08:00-09:00"}}, price: 2}}, {{price: 3}}]')
    assert table.asks_time("fast", None)

    def price(time: str) -> str:
        return table.card("fast", None, {TIME: time}).prices["request"].text

    for time, cost in {
        "mon 16:29": "3",
        "mon 16:30": "1",
        "mon 23:59": "1",
        "tue 00:29": "1",
        "tue 00:30": "3",
        "sat 08:59": "2",
        "fri 08:59": "3",
        "sun 09:00": "3",
    }.items():
        assert price(time) == cost, time


def test_a_price_that_depends_on_the_time_is_never_guessed() -> None:
    """Without the time of a call there is no card of it."""
    table = _table("request: [{when: {days: sun}, price: 1}, {price: 3}]")
    with pytest.raises(UnpricedModel, match="depends on the time"):
        table.card("fast")


@given(st.integers(0, 2**50))
def test_moments(now: int) -> None:
    """The weekday and the minute, as the calendar has them."""
    from datetime import UTC, datetime, timedelta

    at = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=now)
    assert moment(now) == at.strftime("%a %H:%M").lower()


def test_factors_multiply_all_of_a_models_own_prices() -> None:
    """All that hold apply, one after the other; surcharges stay as they are."""
    table = _table(
        "input_tokens: 40 / 1M\noutput_tokens: 160 / 1M\nimage: {price: 10, free: 1}\n"
        "factors: [{when: {service_tier: flex}, multiply: 0.5}, {when: {region: eu}, multiply: 1.1}]",
        "web_search: 15",
    )
    usage = {"input_tokens": 1_000_000, "output_tokens": 1_000_000, "image": 2, "web_search": 1}
    card = table.card("fast", None, {"service_tier": "flex", "region": "eu"})
    assert _bill(card, usage) == [
        "input_tokens: 1000000 at 40 / 1M × 0.5 × 1.1 = 22",
        "output_tokens: 1000000 at 160 / 1M × 0.5 × 1.1 = 88",
        "image: 1 at free = 0",
        "image: 1 at 10 × 0.5 × 1.1 = 5.5",
        "web_search: 1 at 15 = 15",
    ]
    assert rate(table.card("fast", None, {"region": "us"}), usage).total == (40 + 160 + 10 + 15) * NANO


def test_surcharges_depend_on_what_was_asked_for() -> None:
    """As do the models' own prices."""
    table = _table(_TOKENS, "web_search: [{when: {search_context_size: high}, price: 50}, {price: 30}]")
    assert rate(table.card("fast", None, {"search_context_size": "high"}), {"web_search": 1}).total == 50 * NANO
    assert rate(table.card("fast"), {"web_search": 1}).total == 30 * NANO


@pytest.mark.parametrize(
    ("price", "line", "problem"),
    [
        ("request:\n  price: 1\n  when: {region: eu}", 3, "is for a list of rules"),
        ("request:\n  beyond: {10: 1}", 1, "`price:` is missing"),
        ("request: {price: 1, free: none}", 1, "must be a number of units"),
        ("request: {price: 1, free: 0}", 1, "must be a number of units"),
        ("request:\n  price: 1\n  beyond:\n    10: 1\n    9: 2", 5, "from the least to the largest"),
        ("request:\n  price: 1\n  free: 10\n  beyond:\n    10: 1", 5, "from the least to the largest"),
        ("request: {price: 1, beyond: {some: 1}}", 1, "must be a number of units"),
        ("request: [{when: {input_tokens: 200k}, price: 1}, {price: 2}]", 1, 'such as "> 200k"'),
        ('request: [{when: {input_tokens: "> 0"}, price: 1}, {price: 2}]', 1, 'such as "> 200k"'),
        ('request: [{when: {utc: "16:30"}, price: 1}, {price: 2}]', 1, "must be hours"),
        ('request: [{when: {utc: "16:30-25:00"}, price: 1}, {price: 2}]', 1, "must be hours"),
        ("request: [{when: {days: weekend}, price: 1}, {price: 2}]", 1, "must be days"),
        ("request: [{when: {}, price: 1}, {price: 2}]", 1, "names nothing"),
        (
            'request:\n- {when: {input_tokens: "> 100k"}, price: 1}\n- {when: {input_tokens: "> 200k"}, price: 2}\n'
            "- {price: 3}",
            3,
            "is never reached",
        ),
        ("request: 1\nfactors:\n- {multiply: 2}", 3, "`when:` is missing"),
        ("request: 1\nfactors:\n- {when: {region: eu}}", 3, "`multiply:` is missing"),
        ("request: 1\nfactors:\n- {when: {region: eu}, multiply: 1001}", 3, "lower it"),
        ("request: 1\nfactors:\n- {when: {region: eu}, multiply: -1}", 3, "negative"),
    ],
)
def test_what_makes_no_sense_is_refused(price: str, line: int, problem: str) -> None:
    """With its line, and what to write instead."""
    with pytest.raises(ConfigError) as refused:
        model_price(price)
    assert problem in refused.value.problem
    assert refused.value.line == line


@st.composite
def _models(draw: st.DrawFn) -> ModelPrice:
    """Draw a model that sells tokens and images, at prices that depend on all there is."""
    prices = st.builds(Price.of, st.just("x"), unit_prices)
    steps = st.lists(st.tuples(st.integers(1, 10**6), prices), max_size=2, unique_by=lambda step: step[0])
    ordered = steps.map(lambda found: tuple(sorted(found, key=lambda step: step[0])))
    whens = st.sampled_from([(("input_tokens", "> 5"),), (("input_tokens", "> 100k"),), (("region", "eu"),)])
    ruled = st.builds(
        lambda first, last: (*first, last),
        st.lists(st.builds(Rule, whens, prices, ordered), max_size=2),
        st.builds(Rule, st.just(()), prices, ordered),
    )
    parts = [name for whole in TOKEN_WHOLES for name in within(whole)]
    chosen = draw(st.lists(st.sampled_from([*parts, "request", "image"]), unique=True))
    factors = st.builds(Factor, whens, st.sampled_from([Fraction(1, 3), Fraction(2)]), st.just("y"))
    rules = {name: draw(ruled) for name in (*TOKEN_WHOLES, *chosen)}
    return ModelPrice("fast", rules, None, None, tuple(draw(st.lists(factors, max_size=2))))


@properties
@given(_models(), usages(), quantities, st.lists(quantities, min_size=3, max_size=3))
def test_a_quote_covers_its_charge(model: ModelPrice, usage: dict[str, int], images: int, spare: list[int]) -> None:
    """Whatever is used within the bound, however long the input turns out to be, and whatever prices depend on."""
    card = price_table({"fast": model}).card("fast", None, {"region": "eu"})
    usage["image"] = images
    bound = {name: usage[name] + more for name, more in zip((*TOKEN_WHOLES, "image"), spare, strict=True)}
    quoted = quote(card, {"request": 1, **bound})
    assert quoted.total == sum(line.amount for line in quoted.lines)
    assert rate(card, usage).total <= quoted.total


@properties
@given(_models(), _models(), usages(), st.lists(quantities, min_size=3, max_size=3))
def test_each_part_of_a_quote_covers_its_own(
    model: ModelPrice, added: ModelPrice, usage: dict[str, int], spare: list[int]
) -> None:
    """What a run's bounds may take off and the surcharges, each by the length that makes it dearest."""
    surcharges = {"web_search": added.rules["input_tokens"]}
    card = price_table({"fast": model}, {}, surcharges).card("fast").bounded(None, None)
    usage["web_search"] = 2
    bound = {name: usage[name] + more for name, more in zip((*TOKEN_WHOLES, "web_search"), spare, strict=True)}
    own, rest = quote_apart(card, {"request": 1, "image": 0, **bound})
    rating = rate(card, usage)
    assert of_surcharges(card, rating) <= rest
    assert rating.total - of_surcharges(card, rating) <= own


@properties
@given(_models(), quantities, st.integers(0, 10**6) | st.integers(0, 10**20))
def test_what_is_affordable(model: ModelPrice, input_tokens: int, budget: int) -> None:
    """The affordable output fits the budget, and one token more does not."""
    of_one_card(price_table({"fast": model}).card("fast"), input_tokens, budget)


@properties
@given(cards(), usages(), st.data())
def test_two_calls_cost_what_one_does(card: RateCard, usage: dict[str, int], data: st.DataObject) -> None:
    """However usage is split; but for a nanocredit a line, and for what overlapping parts leave to choose."""
    alone = {name for name in usage if METERS[name].whole is None}
    alone |= {next((name for name in usage if METERS[name].whole == whole), whole) for whole in TOKEN_WHOLES}
    usage = {name: quantity for name, quantity in usage.items() if name in alone}
    first: dict[str, int] = {}
    for name, quantity in usage.items():
        most = quantity if METERS[name].whole is None else min(quantity, first[str(METERS[name].whole)])
        least = 0
        if (whole := METERS[name].whole) is not None:
            least = max(0, quantity - (usage[whole] - first[whole]))
        first[name] = data.draw(st.integers(least, max(least, most)), name)
    second = {name: quantity - first[name] for name, quantity in usage.items()}
    one = rate(card, usage)
    two = [rate(card, part) for part in (first, second)]
    assert abs(one.total - sum(rating.total for rating in two)) <= len(one.lines)
