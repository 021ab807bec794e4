"""Bounds, surcharges, conditions and operations: what changes a model's own lines, and in which order."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pricing.document import Document
from pricing.errors import ConfigError
from pricing.parsing import parse_operation_price, parse_rules, price_table
from pricing.rating import affordable_output, quote, rate
from pricing.table import OperationPrice, PriceTable, RateCard
from tests.pricing.cards import model_price, properties

NANO = 10**9
TOKENS = "input_tokens: 1 / 1\noutput_tokens: 2 / 1\nrequest: 1\n"


def operation(text: str, name: str = "edit") -> OperationPrice:
    fields = Document("prices.yaml", text, {}).root().fields(("min", "max", "multiply", "price"))
    return parse_operation_price(name, fields, Decimal("0.01"))


def table(model: str = TOKENS, changes: str | None = None, **surcharges: str) -> PriceTable:
    lines = "\n".join(f"{meter}: {price}" for meter, price in surcharges.items()) or "{}"
    found = {
        meter: parse_rules(node, meter, Decimal("0.01"))
        for meter, node in Document("prices.yaml", lines, {}).root().members().items()
    }
    operations = {} if changes is None else {"edit": operation(changes)}
    return price_table({"fast": model_price(model)}, operations, found)


def bill(card: RateCard, *, answered: bool = True, **usage: int) -> list[tuple[str, int]]:
    rating = rate(card, {"request": 1, **usage}, answered=answered)
    assert sum(line.amount for line in rating.lines) == rating.total
    return [(line.meter, line.amount // NANO) for line in rating.lines]


def test_within_its_bounds_a_bill_has_no_further_line() -> None:
    """A charge between min and max is what the meters make of it."""
    card = table(TOKENS + "min: 2\nmax: 10").card("fast")
    assert bill(card, input_tokens=3, output_tokens=1) == [("request", 1), ("input_tokens", 3), ("output_tokens", 2)]


def test_min_adds_what_is_missing() -> None:
    """Below its min a charge gets a line that makes it up."""
    assert bill(table(TOKENS + "min: 9").card("fast"), input_tokens=3) == [
        ("request", 1),
        ("input_tokens", 3),
        ("min", 5),
    ]


def test_max_takes_what_is_too_much() -> None:
    """Above its max a charge gets the one line that may be negative."""
    assert bill(table(TOKENS + "max: 10").card("fast"), input_tokens=30) == [
        ("request", 1),
        ("input_tokens", 30),
        ("max", -21),
    ]


def test_min_needs_an_answer() -> None:
    """A call that brought no output pays for its input, and neither the request nor the min."""
    card = table(TOKENS + "min: 9").card("fast")
    assert bill(card, answered=False, input_tokens=3) == [("input_tokens", 3)]


def test_surcharges_come_after_the_bounds() -> None:
    """A search costs its price on top of a charge that is at its max."""
    card = table(TOKENS + "max: 10", web_search="15").card("fast")
    assert bill(card, input_tokens=30, web_search=2)[-2:] == [("max", -21), ("web_search", 30)]
    assert quote(card, {"request": 1, "input_tokens": 30, "web_search": 1}).total == 25 * NANO


def test_a_models_own_price_replaces_the_surcharge() -> None:
    """A search that the model prices itself is not charged twice, and is within its bounds."""
    card = table(TOKENS + "web_search: 3\nmax: 10", web_search="15").card("fast")
    assert bill(card, input_tokens=1, web_search=1) == [("request", 1), ("input_tokens", 1), ("web_search", 3)]


def test_an_operations_bounds_replace_the_models_each_on_its_own() -> None:
    """An operation's max replaces the model's, and the model's min stays."""
    card = table(TOKENS + "min: 5\nmax: 10", "max: 20").card("fast", "edit")
    assert bill(card, input_tokens=30)[-1] == ("max", -11)
    assert bill(card, input_tokens=1)[-1] == ("min", 3)


def test_multiply_changes_the_models_prices_only() -> None:
    """A factor is on the model's own meters; a meter that the operation prices itself is as written there."""
    card = table(TOKENS, "multiply: 0.5\nprice: {request: 4}").card("fast", "edit")
    assert bill(card, input_tokens=2, output_tokens=3) == [("request", 4), ("input_tokens", 1), ("output_tokens", 3)]
    assert card.prices["input_tokens"].text == "1 / 1 × 0.5"


def test_the_first_rule_that_matches_counts() -> None:
    """A request's own attributes choose among a meter's prices; unknown values fall to the last rule."""
    prices = table(
        "image: [{when: {quality: high, size: big}, price: 9}, {when: {quality: high}, price: 5}, {price: 1}]"
    )

    def image(**attributes: str) -> int:
        return rate(prices.card("fast", None, attributes), {"image": 1}).total // NANO

    assert [image(quality="high", size="big"), image(quality="high"), image(), image(quality="x")] == [9, 5, 1, 1]


def test_callers_values_do_not_fill_the_memory() -> None:
    """However many values callers make up, a table keeps one card for all of them."""
    prices = table("image: [{when: {quality: high}, price: 5}, {price: 1}]")
    cards = {id(prices.card("fast", None, {"quality": str(made_up), "size": "x"})) for made_up in range(1000)}
    assert len(cards) == 1


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("image: [{when: {quality: high}, price: 5}]", "needs a last rule without `when`"),
        ("image: [{price: 5}, {when: {quality: high}, price: 5}]", "is never reached"),
        ("image: [{when: {qality: high}, price: 5}, {price: 1}]", "did you mean `quality`?"),
        ("image: [{when: {}, price: 5}, {price: 1}]", "names nothing"),
        ("image: [{when: {quality: high}}, {price: 1}]", "`price:` is missing"),
        ("image: []", "needs a last rule"),
        ("request: 1\nmin: 5\nmax: 4", "`min` 5 is above `max` 4"),
        ("request: 1\nmin: 5 / 1k", "must be an amount"),
        ("request: 1\nmax: -1", "is negative"),
    ],
)
def test_refused(text: str, says: str) -> None:
    """Rules and bounds that could leave a call without a price, or mean two things, are refused with the fix."""
    with pytest.raises(ConfigError, match=r"^prices\.yaml:\d+: ") as refused:
        model_price(text)
    assert says in str(refused.value)


amounts = st.integers(0, 60)
bounds = st.tuples(amounts, amounts).map(sorted)


@properties
@given(bounds, st.integers(0, 20), st.integers(0, 20), st.integers(0, 20), st.integers(0, 20), st.integers(0, 3))
def test_a_hold_covers_its_charge(
    bound: list[int], most_in: int, most_out: int, used_in: int, used_out: int, searches: int
) -> None:
    """With bounds and surcharges too, no usage within a quote's bound costs more than the quote."""
    least, most = bound
    card = table(TOKENS + f"min: {least}\nmax: {most}", web_search="7").card("fast")
    held = quote(card, {"request": 1, "input_tokens": most_in, "output_tokens": most_out, "web_search": searches})
    used = {"request": 1, "input_tokens": min(used_in, most_in), "output_tokens": min(used_out, most_out)}
    assert rate(card, {**used, "web_search": searches}).total <= held.total
    assert sum(line.amount for line in held.lines) == held.total


@properties
@given(bounds, st.integers(0, 20), st.integers(0, 3), st.integers(0, 120))
def test_what_is_affordable_fits_and_one_more_does_not(
    bound: list[int], given: int, searches: int, budget: int
) -> None:
    """The affordable output is the largest whose quote is within the budget, bounds and surcharges included."""
    least, most = bound
    card = table(TOKENS + f"min: {least}\nmax: {most}", web_search="7").card("fast")
    rest = {"request": 1, "input_tokens": given, "web_search": searches}

    def fits(output: int) -> bool:
        return quote(card, {**rest, "output_tokens": output}).total <= budget * NANO

    output = affordable_output(card, rest, budget * NANO)
    if output is None:
        assert fits(10**6)
    elif output < 0:
        assert not fits(0)
    else:
        assert fits(output)
        assert not fits(output + 1)


@properties
@given(
    st.sampled_from(["", "min: 1\n", "max: 9\n"]), st.sampled_from([None, "multiply: 0.5", "multiply: 0.50", "max: 9"])
)
def test_the_version_names_everything_that_prices(own: str, changes: str | None) -> None:
    """Bounds, operations, factors and surcharges are part of the version."""
    one = table(TOKENS + own, changes)
    plain = table(TOKENS)
    assert (one.version == plain.version) == (not own and changes is None)
    assert one.version != table(TOKENS + own, changes, web_search="15").version
