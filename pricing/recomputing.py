"""Rating again what was rated before: of what is kept of a call, under the table of then or any other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pricing.amounts import format_credits
from pricing.conditions import Attributes
from pricing.errors import NotKept
from pricing.rating import in_run, of_surcharges, rate
from pricing.receipt import LineItem, Rating, format_quantity
from pricing.table import PriceTable, RateCard
from pricing.usage import Usage

__all__ = ["Difference", "Share", "UsedCall", "differences", "rerate"]

Share = Callable[[RateCard, int, bool], int]
"""What a call is charged for its share of a run: of its card, what it costs before the bounds, and `answered`."""


@dataclass(frozen=True, slots=True)
class UsedCall:
    """What is kept of a call that its price depends on; attributes, answered: None where they were not kept."""

    model: str
    operation: str | None
    usage: Usage
    attributes: Attributes | None
    answered: bool | None


@dataclass(frozen=True, slots=True)
class Difference:
    """One line of a receipt, or `total`, as it was written and as it should be, in words."""

    line: str
    receipt: str
    recomputed: str


def rerate(table: PriceTable, call: UsedCall, share: Share | None) -> Rating:
    """Price a call again; share: of its run, None for a call without one.

    Raises UnpricedModel, and NotKept where its price depends on something that is not known: nothing is guessed.
    """
    if call.attributes is None and table.asks(call.model, call.operation):
        raise NotKept("what its price asks of the request was kept")
    card = table.card(call.model, call.operation, call.attributes)
    answered = (True, False) if call.answered is None else (call.answered,)
    rating, *others = (_rerate(card, call.usage, share, answered=each) for each in answered)
    if any(other != rating for other in others):
        raise NotKept("it was kept whether any output was received")
    return rating


def _rerate(card: RateCard, usage: Usage, share: Share | None, *, answered: bool) -> Rating:
    if share is None or not card.per_run:
        return rate(card, usage, answered=answered)
    rating = rate(card.bounded(None, None), usage, answered=answered)
    raw = rating.total - of_surcharges(card, rating)
    return in_run(card, rating, raw, share(card, raw, answered))


def differences(lines: Sequence[LineItem], total: int, rating: Rating) -> list[Difference]:
    """Compare a receipt's lines and total, in nanocredits, with a rating; the order of lines makes no difference."""
    found = []
    for name in dict.fromkeys(line.meter for line in (*lines, *rating.lines)):
        written = [line for line in lines if line.meter == name]
        made = [line for line in rating.lines if line.meter == name]
        if written != made:
            found.append(Difference(name, _said(written), _said(made)))
    if total != rating.total:
        found.append(Difference("total", format_credits(total), format_credits(rating.total)))
    return found


def _said(lines: Sequence[LineItem]) -> str:
    return (
        " and ".join(
            f"{format_quantity(line.quantity)} at {line.price}: {format_credits(line.amount)}" for line in lines
        )
        or "no line"
    )
