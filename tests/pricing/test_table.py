"""The price table's version: it changes when a price does, and only then."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pricing.errors import UnpricedModel
from pricing.parsing import price_table
from pricing.table import ModelPrice
from tests.pricing.cards import model_price, properties

Prices = dict[str, dict[str, str]]

meters = st.sampled_from(["request", "image", "web_search", "character"])
prices = st.sampled_from(["1", "2", "1 / 1k", "0"])
tables: st.SearchStrategy[Prices] = st.dictionaries(
    st.sampled_from(["fast", "smart", "tiny"]), st.dictionaries(meters, prices, min_size=1), min_size=1
)


def models(table: Prices) -> dict[str, ModelPrice]:
    return {name: priced(own, name) for name, own in table.items()}


def priced(own: dict[str, str], name: str = "fast", usd: str = "0.01") -> ModelPrice:
    return model_price("\n".join(f'{meter}: "{price}"' for meter, price in own.items()), name, usd)


@properties
@given(tables, tables)
def test_version_is_the_content(one: Prices, other: Prices) -> None:
    """Two tables have one version exactly if they have the same prices."""
    assert (price_table(models(one)).version == price_table(models(other)).version) == (one == other)


@properties
@given(tables)
def test_order_is_no_content(table: Prices) -> None:
    """The order in which models and meters are written does not change the version."""
    turned = {name: dict(reversed(own.items())) for name, own in reversed(table.items())}
    assert price_table(models(turned)).version == price_table(models(table)).version


def test_dollars_follow_the_credit() -> None:
    """A new dollar price of the credit changes the version where prices are in dollars, and only there."""

    def version(usd: str, price: str) -> str:
        return price_table({"fast": priced({"request": price}, usd=usd)}).version

    assert version("0.01", "$1") != version("0.02", "$1")
    assert version("0.01", "1") == version("0.02", "1")


def test_lookup() -> None:
    """A model of the table has its own card; any other is refused, never guessed."""
    table = price_table(models({"fast": {"request": "1"}, "smart": {"request": "2"}}))
    assert table.version.startswith("prices_")
    assert table.card("smart").prices["request"].text == "2"
    with pytest.raises(UnpricedModel, match="fast-2"):
        table.card("fast-2")


def test_table_is_a_snapshot() -> None:
    """A table keeps its cards when the mapping that it was made from changes."""
    source = models({"fast": {"request": "1"}})
    table = price_table(source)
    source.clear()
    assert table.card("fast").prices["request"].text == "1"
