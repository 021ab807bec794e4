"""Rate cards and usages for tests: written as an operator would, or drawn at random."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from fractions import Fraction

from hypothesis import settings
from hypothesis import strategies as st

from pricing.document import Document
from pricing.meters import METERS, TOKEN_WHOLES, within
from pricing.parsing import parse_model_price, price_table
from pricing.table import ModelPrice, Price, RateCard

properties = settings(deadline=None, derandomize=True, max_examples=200)

TOKENS = tuple(name for name, meter in METERS.items() if meter.token)


def rate_card(usd: str = "0.01", **prices: str) -> RateCard:
    """Parse a model's prices from the operator's words."""
    text = "\n".join(f'{meter}: "{price}"' for meter, price in prices.items())
    return price_table({"model": model_price(text, "model", usd)}).card("model")


def model_price(text: str, model: str = "fast", usd: str = "0.01") -> ModelPrice:
    """Parse the text of a model's `price:`."""
    return parse_model_price(Document("prices.yaml", text, {}).root(), model, Decimal(usd))


def exact_card(prices: Mapping[str, Fraction]) -> RateCard:
    """Make a card from exact prices in nanocredits a unit."""
    return RateCard.of("model", {name: Price.of(str(price), price) for name, price in prices.items()})


# Small figures meet at rounding's edges, large ones at overflow's.
unit_prices: st.SearchStrategy[Fraction] = st.builds(
    Fraction,
    st.integers(0, 40) | st.integers(0, 10**15),
    st.integers(1, 12) | st.integers(1, 10**9),
)
quantities: st.SearchStrategy[int] = st.integers(0, 30) | st.integers(0, 10**7)


@st.composite
def cards(draw: st.DrawFn) -> RateCard:
    """Draw a card that prices tokens: the wholes, any of their parts, perhaps a price a request."""
    prices = {name: draw(unit_prices) for name in TOKEN_WHOLES}
    for name in (*(part for whole in TOKEN_WHOLES for part in within(whole)), "request"):
        if draw(st.booleans()):
            prices[name] = draw(unit_prices)
    return exact_card(prices)


@st.composite
def usages(draw: st.DrawFn) -> dict[str, int]:
    """Draw a possible usage: no part above its whole, parts that may overlap."""
    usage = {"request": 1}
    for whole in TOKEN_WHOLES:
        usage[whole] = draw(quantities)
        for part in within(whole):
            around = METERS[part].whole or whole
            if around in usage and draw(st.booleans()):
                usage[part] = min(draw(quantities), usage[around])
    return usage
