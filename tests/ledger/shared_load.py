"""One of several processes that work on a ledger in PostgreSQL; it says what was acknowledged, a line each.

Run as `python -m tests.ledger.shared_load URL SEED ACCOUNTS CALLS`; the accounts are those from 1 on. Each of its
callers makes so many calls, leaves some of them amid, and prints `settled ACCOUNT HOLD AMOUNT`, or `left` instead where
it did not wait for the answer, and `refused`.
"""

from __future__ import annotations

import asyncio
import random
import sys
from contextlib import suppress

from ledger.errors import UnknownHold
from ledger.ledger import Ledger
from ledger.outcomes import Refused
from tests.ledger.books import receipt_memo
from tests.ledger.crash_load import say
from tests.ledger.running import RULES, held

CALLERS = 16


async def call(ledger: Ledger, account: int, choose: random.Random) -> None:
    """One call: held and settled, or left while either was under way."""
    hold_id, most = ledger.next_id(), choose.randint(1, 20)
    placing = asyncio.create_task(ledger.hold(held(account, hold_id, most)))
    await asyncio.sleep(0)
    if choose.random() < 0.05:
        placing.cancel()
        # As the server does for a client that is gone: whatever was placed is let go, and nobody waits for that.
        with suppress(UnknownHold):
            await ledger.void(account, hold_id, receipt_memo(0))
        return
    if isinstance(await placing, Refused):
        say("refused")
        return
    amount = choose.randint(0, most)
    settling = asyncio.create_task(ledger.settle(account, hold_id, amount, receipt_memo(amount)))
    await asyncio.sleep(0)
    left = choose.random() < 0.1
    if left:
        settling.cancel()
    else:
        assert (await settling).charged == amount
    say(f"{'left' if left else 'settled'} {account} {hold_id} {amount}")


async def main(url: str, seed: int, accounts: int, calls: int) -> None:
    ledger = await Ledger.open(url, lambda: RULES, owner=f"process {seed}")
    choose = random.Random(seed)

    async def live() -> None:
        for _ in range(calls):
            await call(ledger, choose.randint(1, accounts), choose)

    await asyncio.gather(*(live() for _ in range(CALLERS)))
    await ledger.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], *map(int, sys.argv[2:])))
