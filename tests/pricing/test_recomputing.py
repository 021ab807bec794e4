"""Tables read back out of their content, and calls rated again under them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pricing.conditions import ATTRIBUTES, TIME
from pricing.errors import NotKept, UnpricedModel, UnreadableTable
from pricing.meters import METERS
from pricing.parsing import price_table
from pricing.rating import rate
from pricing.receipt import LineItem, Rating
from pricing.recomputing import UsedCall, differences, rerate
from pricing.table import Bound, Factor, ModelPrice, OperationPrice, Price, PriceTable, Rule, Rules
from pricing.versions import kept_table
from tests.pricing.cards import model_price, properties, unit_prices, usages

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
prices = st.builds(Price.of, texts, unit_prices)
bounds = st.none() | st.builds(Bound, texts, st.integers(0, 10**18))
values = st.sampled_from(["flex", "auto", "high", ""])


steps = st.lists(st.tuples(st.integers(1, 10**6), prices), max_size=2, unique_by=lambda step: step[0]).map(
    lambda found: tuple(sorted(found, key=lambda step: step[0]))
)
conditions = st.tuples(
    st.dictionaries(st.sampled_from(ATTRIBUTES), values, max_size=2),
    st.dictionaries(st.just("input_tokens"), st.sampled_from(["> 3", "> 20k", "> 1M"]), max_size=1),
    st.dictionaries(st.just("utc"), st.sampled_from(["16:30-00:30", "00:00-01:00, 04:00-06:00"]), max_size=1),
    st.dictionaries(st.just("days"), st.sampled_from(["mon", "sat, sun"]), max_size=1),
).map(lambda found: tuple(pair for part in found for pair in part.items()) or (("quality", "high"),))
factors = st.builds(
    lambda when, text: Factor(when, Fraction(text), text), conditions, st.sampled_from(["0.5", "1.1", "0", "2"])
)
times = st.sampled_from(["mon 00:00", "sat 16:30", "sun 00:29", "tue 12:00"])


@st.composite
def rules(draw: st.DrawFn, least: int) -> Rules:
    """Draw prices of meters, some with conditions, the last always without."""
    chosen = draw(st.lists(st.sampled_from(list(METERS)), min_size=least, unique=True))
    return {
        meter: (
            *draw(st.lists(st.builds(Rule, conditions, prices, steps), max_size=2)),
            Rule((), draw(prices), draw(steps)),
        )
        for meter in chosen
    }


@st.composite
def tables(draw: st.DrawFn) -> PriceTable:
    """Draw a table of a model or two, operations, and surcharges."""
    models = {
        name: ModelPrice(name, draw(rules(1)), draw(bounds), draw(bounds), tuple(draw(st.lists(factors, max_size=2))))
        for name in ("fast", "smart")
    }
    operations, matching = {}, {}
    for name in draw(st.lists(texts, max_size=3, unique=True)):
        factor = draw(st.none() | st.decimals(0, 1000, places=3))
        written = "" if factor is None else str(factor)
        exact = None if factor is None else Fraction(factor)
        operations[name] = OperationPrice(
            name, draw(rules(0)), draw(bounds), draw(bounds), exact, written, draw(st.booleans())
        )
        matching[name] = draw(st.none() | st.lists(st.none() | texts | st.lists(texts), max_size=3))
    surcharges = {
        meter: chosen for meter, chosen in draw(rules(0)).items() if not METERS[meter].token and not METERS[meter].flat
    }
    return price_table(models, operations, surcharges, matching)


def test_a_line_that_differs_is_named() -> None:
    """With what the receipt says and what it should; lines in another order are the same."""
    lines = [LineItem("request", 1, "5", 5), LineItem("image", 2, "3", 6)]
    again = Rating(tuple(reversed(lines)), 11)
    assert differences(lines, 11, again) == []
    (found,) = differences([lines[0], LineItem("image", 2, "3", 7)], 11, again)
    assert (found.line, found.receipt, found.recomputed) == (
        "image",
        "2 at 3: 0.000000007",
        "2 at 3: 0.000000006",
    )


@properties
@given(tables())
def test_a_table_is_read_back_as_it_was(table: PriceTable) -> None:
    """Same content, same version, same prices, whatever was written."""
    again = kept_table(table.version, table.content)
    assert (again.content, again.version) == (table.content, table.version)
    assert (again.models, again.operations, again.surcharges) == (table.models, table.operations, table.surcharges)


@properties
@given(tables(), usages(), st.booleans(), st.dictionaries(st.sampled_from(ATTRIBUTES), values), times, st.data())
def test_any_call_recomputes_to_itself(
    table: PriceTable, usage: dict[str, int], answered: bool, attributes: dict[str, str], time: str, data: st.DataObject
) -> None:
    """Under any table that was kept, whatever it used; and if anything of it were different, that would be said."""
    operation = data.draw(st.sampled_from([None, *table.operations]))
    attributes |= {TIME: time}
    usage |= {"web_search": 3, "image": 2, "audio_second": Decimal("1.5")}  # type: ignore[dict-item]
    rating = rate(table.card("fast", operation, attributes), usage, answered=answered)
    call = UsedCall("fast", operation, usage, attributes, answered)
    made = rerate(kept_table(table.version, table.content), call, None)
    assert differences(rating.lines, rating.total, made) == []
    assert [each.line for each in differences(rating.lines, rating.total + 1, made)] == ["total"]
    for line in rating.lines:
        others = [other for other in rating.lines if other is not line]
        assert [each.line for each in differences(others, rating.total, made)] == [line.meter]


# As contents were written before operations had runs; later ones differ from them in nothing else.
_FIRST = (
    '{"models": {"fast": {"max": null, "min": ["0.5", "500000000"], "rules": {"request": [[[["quality", "high"]],'
    ' ["3", "3000000000", "1"]], [[], ["1 / 3", "1000000000", "3"]]]}}}, "operations": [["edit", {"max": null, "min":'
    ' null, "rules": {}}, "0.6", [null, "fast", null]]], "surcharges": {"web_search": ["$0.15", "15000000000", "1"]}}'
)


def _version(content: str) -> str:
    return "prices_" + hashlib.sha256(content.encode()).hexdigest()[:16]


def test_the_first_contents_are_still_read() -> None:
    """Byte for byte; its prices are those that were written."""
    table = kept_table(_version(_FIRST), _FIRST)
    assert table.content == _FIRST
    card = table.card("fast", "edit", {"quality": "high"})
    assert card.prices["request"] == Price("3 × 0.6", 1_800_000_000)
    assert card.surcharges["web_search"].nano == 15 * 10**9


_SPOILT: dict[str, Callable[[dict[str, Any]], object]] = {
    "a member more": lambda content: content.update(premium="10%"),
    "a member less": lambda content: content.pop("surcharges"),
    "an operation's member more": lambda content: content["operations"][0].append("day"),
    "an operation's member less": lambda content: content["operations"][0].pop(),
    "an unknown meter": lambda content: content["surcharges"].update(dream=["1", "1", "1"]),
    "a price for nothing": lambda content: content["surcharges"].update(web_search=["1", "1", "0"]),
    "a price not reduced": lambda content: content["surcharges"].update(web_search=["1", "2", "2"]),
    "a price that is no figure": lambda content: content["surcharges"].update(web_search=["1", "x", "1"]),
    "models that are a list": lambda content: content.update(models=[]),
}


@pytest.mark.parametrize("case", _SPOILT)
def test_what_would_be_lost_is_refused(case: str) -> None:
    """A content of another release, or of nobody's, even under its own digest."""
    content = json.loads(_FIRST)
    _SPOILT[case](content)
    text = json.dumps(content, sort_keys=True)
    with pytest.raises(UnreadableTable, match=_version(text)):
        kept_table(_version(text), text)


@pytest.mark.parametrize("text", ["", "[]", "null", "{", "1", "[" * 100_000])
def test_what_is_no_table_is_refused(text: str) -> None:
    """Whatever it is."""
    with pytest.raises(UnreadableTable, match="no price table"):
        kept_table(_version(text), text)


def test_an_altered_content_is_refused() -> None:
    """It is another version's, or nobody's."""
    with pytest.raises(UnreadableTable, match="was altered"):
        kept_table(_version(_FIRST), _FIRST.replace("3000000000", "2000000000"))


def test_doubt_is_not_settled_by_a_guess() -> None:
    """What is not known of a call is only asked for where its price depends on it."""
    flat = price_table({"fast": model_price("request: 1")})
    table = price_table({"fast": model_price("request: [{when: {quality: high}, price: 2}, {price: 1}]\nimage: 3")})
    usage = {"request": 1, "image": 1}
    assert rerate(flat, UsedCall("fast", None, usage, None, True), None).total == 10**9
    assert rerate(flat, UsedCall("fast", None, {"image": 1}, None, None), None).total == 0
    assert rerate(table, UsedCall("fast", None, usage, {"quality": "high"}, True), None).total == 5 * 10**9
    with pytest.raises(NotKept, match="asks of the request"):
        rerate(table, UsedCall("fast", None, usage, None, True), None)
    with pytest.raises(NotKept, match="any output"):
        rerate(flat, UsedCall("fast", None, usage, None, None), None)
    for unknown in (UsedCall("slow", None, usage, {}, True), UsedCall("fast", "edit", usage, None, True)):
        with pytest.raises(UnpricedModel):
            rerate(table, unknown, None)


def test_lines_are_compared_by_their_meter() -> None:
    """Their order is no difference; one that stands there twice is."""
    table = price_table({"fast": model_price("request: 1\nimage: 3")})
    rating = rerate(table, UsedCall("fast", None, {"request": 1, "image": 1}, {}, True), None)
    assert differences(rating.lines[::-1], 4 * 10**9, rating) == []
    twice = [*rating.lines, LineItem("image", 1, "3", 3 * 10**9)]
    assert [each.line for each in differences(twice, 4 * 10**9, rating)] == ["image"]
