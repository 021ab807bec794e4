"""What holds for any prices and any usage."""

from __future__ import annotations

from fractions import Fraction

from hypothesis import assume, given
from hypothesis import strategies as st

from pricing.meters import METERS, TOKEN_WHOLES, within
from pricing.rating import affordable_output, quote, rate
from pricing.table import RateCard
from tests.pricing.cards import TOKENS, cards, exact_card, properties, quantities, unit_prices, usages


@properties
@given(cards(), usages(), st.booleans())
def test_a_bill_adds_up(card: RateCard, usage: dict[str, int], answered: bool) -> None:
    """The total is the sum of the lines, no line is negative, and each is within half a nanocredit of exact."""
    rating = rate(card, usage, answered=answered)
    assert rating.total == sum(line.amount for line in rating.lines)
    for line in rating.lines:
        assert line.amount >= 0
        assert line.quantity > 0
        exact = Fraction(line.quantity) * Fraction(line.price)
        assert abs(line.amount - exact) <= Fraction(1, 2)
        assert abs(line.amount - exact) < Fraction(1, 2) or line.amount % 2 == 0


@properties
@given(cards(), usages())
def test_every_token_is_billed_once(card: RateCard, usage: dict[str, int]) -> None:
    """The lines of a whole and of its parts add up to the whole, however its parts overlap."""
    billed = {line.meter: line.quantity for line in rate(card, usage).lines}
    for whole in TOKEN_WHOLES:
        assert sum(billed.get(name, 0) for name in (whole, *within(whole))) == usage[whole]
        for part in within(whole):
            assert billed.get(part, 0) <= usage.get(part, 0)


@properties
@given(cards(), usages())
def test_a_part_is_billed_as_itself(card: RateCard, usage: dict[str, int]) -> None:
    """A part that overlaps with no other is billed in full, at its own price or within its whole."""
    for whole in TOKEN_WHOLES:
        for part in within(whole):
            around = _around(part)
            used = usage.get(part, 0)
            alone = {whole: usage[whole], **dict.fromkeys(around, used), part: used}
            billed = {line.meter: line.quantity for line in rate(card, alone).lines}
            # Its own price, else that of the smallest priced whole around it.
            taker = next((name for name in (part, *around) if name in card.prices), whole)
            assert billed.get(whole, 0) == alone[whole] - (used if taker != whole else 0)
            if taker != whole:
                assert billed.get(taker, 0) == used


def _around(part: str) -> list[str]:
    """The meters that contain a part, and are parts themselves, from the smallest."""
    whole = str(METERS[part].whole)
    return [] if METERS[whole].whole is None else [whole, *_around(whole)]


def _root(name: str) -> str:
    whole = METERS[name].whole
    return name if whole is None else _root(whole)


@properties
@given(cards(), usages(), st.sampled_from(TOKENS), st.integers(1, 5) | quantities)
def test_more_usage_never_costs_less(card: RateCard, usage: dict[str, int], name: str, more: int) -> None:
    """Further tokens of any kind, counted in their whole too, never make a call cheaper, whatever the prices."""
    larger = dict(usage)
    for meter in {name, *(_around(name) if METERS[name].whole else []), _root(name)}:
        larger[meter] = usage.get(meter, 0) + more
    assert rate(card, larger).total >= rate(card, usage).total


@properties
@given(st.data(), usages(), st.sampled_from([name for name in TOKENS if METERS[name].whole]), st.integers(1, 10**7))
def test_a_discount_never_costs_more(data: st.DataObject, usage: dict[str, int], part: str, more: int) -> None:
    """Where parts cost no more than their whole, finding that more of the whole was such a part never adds to the bill.

    Prices are whole nanocredits a token here: with fractions each line may round by half a nanocredit.
    """
    whole = _root(part)
    most = data.draw(st.integers(0, 10**9))
    card = exact_card({
        **{name: Fraction(1) for name in TOKEN_WHOLES},
        whole: Fraction(most),
        part: Fraction(data.draw(st.integers(0, most))),
    })  # fmt: skip
    larger = dict(usage)
    for meter in [*reversed(_around(part)), part]:
        larger[meter] = min(usage.get(meter, 0) + more, larger[str(METERS[meter].whole)])
    assert rate(card, larger).total <= rate(card, usage).total


@properties
@given(cards(), usages(), st.lists(quantities, min_size=2, max_size=2), st.booleans())
def test_a_quote_covers_its_charge(card: RateCard, usage: dict[str, int], spare: list[int], answered: bool) -> None:
    """Whatever is used within the bound, in whatever parts, costs no more than was quoted."""
    bound = {
        "request": 1,
        "input_tokens": usage["input_tokens"] + spare[0],
        "output_tokens": usage["output_tokens"] + spare[1],
    }
    quoted = quote(card, bound)
    assert quoted.total == sum(line.amount for line in quoted.lines)
    assert rate(card, usage, answered=answered).total <= quoted.total
    tight = {name: usage[name] for name in ("request", *TOKEN_WHOLES)}
    assert rate(card, usage).total <= quote(card, tight).total <= quoted.total


@properties
@given(cards(), usages())
def test_a_quote_is_tight(card: RateCard, usage: dict[str, int]) -> None:
    """A quote exceeds the exact price of its dearest use by less than a nanocredit a line that may be rounded."""
    bound = {name: usage[name] for name in ("request", *TOKEN_WHOLES)}
    exact = Fraction(card.prices["request"].text) if "request" in card.prices else Fraction(0)
    for whole in TOKEN_WHOLES:
        family = [name for name in (whole, *within(whole)) if name in card.prices]
        exact += usage[whole] * max(Fraction(card.prices[name].text) for name in family)
    assert exact <= quote(card, bound).total < exact + 1 + len(card.prices)


@properties
@given(cards(), quantities, st.integers(0, 10**6) | st.integers(0, 10**20))
def test_what_is_affordable(card: RateCard, input_tokens: int, budget: int) -> None:
    """The affordable output fits the budget, and one token more does not."""
    of_one_card(card, input_tokens, budget)


def of_one_card(card: RateCard, input_tokens: int, budget: int) -> None:
    """What a budget affords under a card is quoted within it, and no token more."""
    rest = {"request": 1, "input_tokens": input_tokens}
    output = affordable_output(card, {**rest, "output_tokens": 10**9}, budget)
    if output is None:
        assert quote(card, {**rest, "output_tokens": 10**12}).total <= budget
        return
    if output >= 1:
        assert quote(card, {**rest, "output_tokens": output}).total <= budget
    assert quote(card, {**rest, "output_tokens": max(output, 0) + 1}).total > budget


@properties
@given(cards(), quantities, quantities)
def test_a_quote_affords_itself(card: RateCard, input_tokens: int, output_tokens: int) -> None:
    """A budget of exactly a quote affords at least the output that was quoted."""
    assume(output_tokens > 0)
    bound = {"request": 1, "input_tokens": input_tokens, "output_tokens": output_tokens}
    affordable = affordable_output(card, bound, quote(card, bound).total)
    assert affordable is None or affordable >= output_tokens


@properties
@given(cards(), usages())
def test_no_answer_no_flat_price(card: RateCard, usage: dict[str, int]) -> None:
    """Without an answer the bill is the same but for the price of the request."""
    answered = rate(card, usage)
    unanswered = rate(card, usage, answered=False)
    assert unanswered.lines == tuple(line for line in answered.lines if line.meter != "request")


@properties
@given(unit_prices, quantities, quantities)
def test_other_units(price: Fraction, quantity: int, more: int) -> None:
    """Images, seconds and the like are billed by their own count alone, and a quote covers them."""
    card = exact_card({"image": price})
    usage = {"image": quantity, "input_tokens": more, "output_tokens": more}
    assert [line.meter for line in rate(card, usage).lines] == ["image"] * (quantity > 0)
    assert rate(card, usage).total <= quote(card, {"image": quantity + more}).total
