"""Bills of real price pages, worked out by hand: see the files in bills/."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pytest
import yaml

from pricing.amounts import format_credits
from pricing.document import Document
from pricing.parsing import parse_model_price, price_table
from pricing.rating import quote, rate

BILLS = sorted(Path(__file__).with_name("bills").glob("*.yaml"))


@pytest.mark.parametrize("path", BILLS, ids=lambda path: path.stem)
def test_bill(path: Path) -> None:
    """Each line and the total are what a bookkeeper with the price page comes to, and what is held covers them."""
    text = path.read_text(encoding="utf-8")
    node = Document(path.name, text, {}).root().members()["price"]
    # A credit that sells for a dollar: what is charged is what the page says.
    table = price_table({"model": parse_model_price(node, "model", Decimal(1))})
    for call in yaml.safe_load(text)["calls"]:
        card = table.card("model", None, call.get("attributes"))
        usage = {
            meter: Decimal(number) if isinstance(number, str) else number for meter, number in call["usage"].items()
        }
        rating = rate(card, usage)
        found = [
            f"{line.quantity} {line.meter} at {line.price} = {format_credits(line.amount)}" for line in rating.lines
        ]
        assert found == call["lines"]
        assert format_credits(rating.total) == call["total"]
        assert sum(Decimal(line.rpartition(" = ")[2]) for line in found) == Decimal(call["total"])
        bound = {meter: number for meter, number in usage.items() if meter in card.roots}
        assert quote(card, bound).total >= rating.total
        assert not rating.unpriced


def test_there_are_enough_bills() -> None:
    """Of each way that providers charge by, one."""
    assert len(BILLS) >= 15
