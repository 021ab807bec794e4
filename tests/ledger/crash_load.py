"""A process that works on a ledger until it is killed; it says what was acknowledged, a line each.

Run as `python -m tests.ledger.crash_load FILE`. It prints `account ID CREDITS`, `hold ID` and `settle ID AMOUNT`.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys

from ledger.ledger import Ledger
from ledger.outcomes import Held
from tests.ledger.books import receipt_memo
from tests.ledger.running import BUCKETS, RULES, held

_ACCOUNTS = (1, 2, 3)
_CREDITS = 1_000_000
_CALLERS = 12


def say(line: str) -> None:
    # One write a line, unbuffered: what was said before the kill is read, whole.
    os.write(1, f"{line}\n".encode())


async def call(ledger: Ledger, account: int, chance: random.Random) -> None:
    """Hold, settle and sometimes void, one call after the other, for ever."""
    while True:
        hold_id = ledger.next_id()
        assert isinstance(await ledger.hold(held(account, hold_id, chance.randint(0, 50))), Held)
        say(f"hold {account} {hold_id}")
        if chance.random() < 0.1:
            await ledger.void(account, hold_id, receipt_memo(0))
        else:
            amount = chance.randint(0, 60)
            await ledger.settle(account, hold_id, amount, receipt_memo(amount))
            say(f"settle {account} {hold_id} {amount}")


async def main(path: str) -> None:
    ledger = await Ledger.open(path, lambda: RULES, owner="the one that will be killed")
    for account in _ACCOUNTS:
        await ledger.open_account(account)
        for bucket in BUCKETS:
            await ledger.issue(account, bucket, _CREDITS, source_key=bucket)
        say(f"account {account} {_CREDITS * len(BUCKETS)}")
    callers = [call(ledger, _ACCOUNTS[number % 3], random.Random(number)) for number in range(_CALLERS)]
    await asyncio.gather(*callers)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
