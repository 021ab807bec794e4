"""A call's part of its run, between prices and the ledger: what its bounds are for, and what is outside of them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import orjson
import pytest

from ledger.commands import PlaceHold
from ledger.ledger import Ledger
from ledger.model import Run
from ledger.outcomes import Held
from ledger.rules import Rules
from proxy.admission import Terms
from proxy.charge import Charge
from proxy.config import parse_config
from proxy.pending import Pending
from proxy.receipts import ANSWERED, CLIENT_LEFT, CallMemo

CONFIG = """
upstreams: {up: {kind: demo}}
models: {fast: {upstream: up/m, price: {input_tokens: 1 / 1, output_tokens: 2 / 1}}}
surcharges: {web_search: 15}
operations:
  least: {min: 40, per: run}
  most:  {max: 10, per: run}
"""
ACCOUNT = 7
CREDIT = 10**9
CARDS = {name: parse_config(CONFIG, "config.yaml", {}).card("fast", name) for name in ("least", "most")}


@pytest.fixture
async def ledger(tmp_path: Path) -> AsyncIterator[Ledger]:
    """A ledger with one account that has 1,000 credits."""
    opened = await Ledger.open(str(tmp_path / "ledger.db"), lambda: Rules({"paid": 0}))
    await opened.open_account(ACCOUNT)
    await opened.issue(ACCOUNT, "paid", 1000 * CREDIT)
    yield opened
    await opened.close()


async def bill(
    ledger: Ledger, operation: str, ended: str = ANSWERED, *, answered: bool = True, **usage: int
) -> list[tuple[str, int]]:
    """Make a call of the run `r`; returns its receipt's lines, in credits, which add up to what was charged."""
    memo = CallMemo("/v1/chat/completions", "fast", "m", operation, None, None, "r", "key", "prices", None)
    held = await ledger.hold(PlaceHold(ACCOUNT, ledger.next_id(), 0, memo.held()))
    assert isinstance(held, Held)
    charge = Charge(ledger, Pending(), ACCOUNT, held, CARDS[operation], memo, "r")
    settled = await charge.settle(usage, ended, answered=answered)
    lines = [(line["meter"], int(line["amount"])) for line in orjson.loads(settled.memo)["lines"]]
    assert sum(amount for _, amount in lines) == settled.charged
    return [(meter, amount // CREDIT) for meter, amount in lines]


async def test_surcharges_are_outside_of_a_runs_bounds(ledger: Ledger) -> None:
    """A search costs its price beside a run that is below its minimum, and beside one that is at its maximum."""
    assert await bill(ledger, "least", input_tokens=3, web_search=2) == [
        ("input_tokens", 3), ("min", 37), ("web_search", 30),
    ]  # fmt: skip
    assert await bill(ledger, "least", input_tokens=3, web_search=1) == [
        ("input_tokens", 3), ("max", -3), ("web_search", 15),
    ]  # fmt: skip
    assert await bill(ledger, "most", input_tokens=30, web_search=1) == [
        ("input_tokens", 30), ("max", -20), ("web_search", 15),
    ]  # fmt: skip


async def test_a_call_without_an_answer_does_not_bring_its_run_to_the_minimum(ledger: Ledger) -> None:
    """It costs its input; the first that is answered pays what the run lacks."""
    assert await bill(ledger, "least", CLIENT_LEFT, answered=False, input_tokens=3) == [("input_tokens", 3)]
    assert await bill(ledger, "least", input_tokens=3) == [("input_tokens", 3), ("min", 34)]


def terms(operation: str, needs: dict[str, str], output: int = 100) -> Terms:
    return Terms((CARDS[operation],), needs, 3, output, 1, 1, True, run="r")


def test_a_hold_has_the_surcharges_beside_its_share() -> None:
    """What a search costs is held apart; the share is of the model's own lines, before its run's bounds."""
    rest, share = terms("most", {"web_search": "tools"}).share("most")
    assert share is not None
    assert (rest, share.raw, share.least, share.most) == (15 * CREDIT, 203 * CREDIT, None, 10 * CREDIT)
    rest, share = terms("least", {}).share("least")
    assert share is not None
    assert (rest, share.raw, share.least, share.most) == (0, 203 * CREDIT, 40 * CREDIT, None)


def test_what_a_run_was_charged_counts_in_what_fits() -> None:
    """Beside 8 of a maximum of 10, 2 credits pay any answer; beside 37 of a minimum of 40, 3 do, and 2 do not."""
    assert terms("most", {}).affordable(2 * CREDIT) == -1
    assert terms("most", {}).later_in(Run(8 * CREDIT, 8 * CREDIT)).affordable(2 * CREDIT) is None
    assert terms("least", {}).affordable(3 * CREDIT) == -1
    later = terms("least", {}).later_in(Run(37 * CREDIT, 37 * CREDIT))
    assert (later.affordable(3 * CREDIT), later.affordable(2 * CREDIT)) == (0, -1)
    assert terms("most", {}).later_in(None) == terms("most", {})
