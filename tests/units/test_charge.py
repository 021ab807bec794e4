"""A charge between prices and the ledger, at the edge of what either can hold."""

from __future__ import annotations

from pathlib import Path

import pytest

from ledger.commands import PlaceHold
from ledger.errors import LedgerError
from ledger.ledger import Ledger
from ledger.outcomes import Held
from ledger.rules import Rules
from proxy.charge import Charge
from proxy.config import parse_config
from proxy.pending import Pending
from proxy.receipts import ANSWERED, CallMemo

CONFIG = """
upstreams: {up: {kind: demo}}
models: {fast: {upstream: up/m, price: {input_tokens: 40 / 1k, output_tokens: 160 / 1k}}}
"""
ACCOUNT = 7
CREDIT = 10**9


@pytest.mark.parametrize("tokens", [10**9, 10**12, 10**15, 2**63, 10**30])
async def test_large_figures_end_their_hold(tmp_path: Path, tokens: int) -> None:
    """However many tokens a provider reports, the call ends and its hold with it, and the ledger stays readable."""
    card = parse_config(CONFIG, "config.yaml", {}).card("fast")
    ledger = await Ledger.open(str(tmp_path / "ledger.db"), lambda: Rules({"paid": 0}))
    pending = Pending()
    try:
        await ledger.open_account(ACCOUNT)
        await ledger.issue(ACCOUNT, "paid", 100 * CREDIT)
        memo = CallMemo("/v1/chat/completions", "fast", "m", None, None, None, None, "key", "prices", None)
        held = await ledger.hold(PlaceHold(ACCOUNT, ledger.next_id(), CREDIT, memo.held()))
        assert isinstance(held, Held)
        charge = Charge(ledger, pending, ACCOUNT, held, card, memo)
        try:
            ended = await charge.settle({"request": 1, "input_tokens": tokens, "output_tokens": 1}, ANSWERED)
        except LedgerError:
            await pending.drain(1)
        else:
            assert ended.charged >= 100 * CREDIT
        assert (await ledger.balance(ACCOUNT)).held == 0
    finally:
        await ledger.close()
