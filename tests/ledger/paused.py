"""A process that is paused for longer than its lease lasts, and then goes on as if nothing had been.

Run as `python -m tests.ledger.paused URL HOLDS`: it places so many holds of 10 on account 1, says `held`, waits for a
line, settles each for 7 and says `late` or `in time` for it; when it has taken another lease it places another hold,
and says `again`.
"""

from __future__ import annotations

import asyncio
import sys

from ledger import minding
from ledger.ids import microseconds
from ledger.ledger import Ledger
from ledger.outcomes import Held
from tests.ledger.books import receipt_memo
from tests.ledger.crash_load import say
from tests.ledger.running import RULES, held


async def main(url: str, holds: int) -> None:
    # Quicker than in earnest.
    vars(minding).update(RENEW_SECONDS=0.1, LAPSE_SECONDS=0.6)
    ledger = await Ledger.open(url, lambda: RULES, owner="the one that is paused", clock=microseconds)
    lease = ledger.minder._ownership.lease
    placed = await asyncio.gather(*(ledger.hold(held(1, number, 10)) for number in range(1, holds + 1)))
    assert all(isinstance(one, Held) for one in placed)
    say("held")
    await asyncio.to_thread(sys.stdin.readline)
    for end in await asyncio.gather(*(ledger.settle(1, n, 7, receipt_memo(7)) for n in range(1, holds + 1))):
        assert end.charged == 7
        say("late" if end.late else "in time")
    while ledger.minder.lapsed or ledger.minder._ownership.lease == lease:  # noqa: ASYNC110  # time alone tells
        await asyncio.sleep(0.02)
    assert isinstance(await ledger.hold(held(1, holds + 1, 10)), Held)
    say("again")
    await ledger.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
