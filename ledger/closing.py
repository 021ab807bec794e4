"""Closes ranges of all accounts' journals, beside what else is done: seals what is old enough, packs what is older."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence

from ledger.commands import KeepSeal, PackSeal
from ledger.errors import LedgerUnavailable
from ledger.lanes import Lanes
from ledger.outcomes import Closed

__all__ = ["Due", "close_ranges"]

_log = logging.getLogger("farebox.ledger")
_AT_ONCE = 20
_IN_BATCH = 5
_REST = 4
"""How much longer than it works what is done gently rests."""

Due = Callable[[Sequence[int]], Awaitable[Sequence[KeepSeal | PackSeal]]]
"""Makes the next command of each account that has one."""


async def close_ranges(
    lanes: Lanes, accounts_above: Callable[[int, int], Awaitable[list[int]]], due: Due, *, gently: bool
) -> int:
    """Close ranges of all accounts; returns how many. gently: it leaves most of the time to those who wait."""
    closed = last = 0
    while accounts := await accounts_above(last, _AT_ONCE):
        last, began = accounts[-1], time.monotonic()
        while commands := await due(accounts):
            outcomes = await _in_turn(lanes, commands)
            accounts = [command.account_id for command, done in zip(commands, outcomes, strict=True) if done]
            closed += len(accounts)
            if gently:
                await asyncio.sleep(_REST * (time.monotonic() - began))
                began = time.monotonic()
    return closed


async def _in_turn(lanes: Lanes, commands: Sequence[KeepSeal | PackSeal]) -> list[bool]:
    """Carry out a few at a time, as who waits must not wait for a long batch; returns of each whether it was done.

    One that can't be is logged, and keeps no other account's from being done.
    """
    done: list[bool] = []
    size = _IN_BATCH if isinstance(commands[0], KeepSeal) else 1
    for first in range(0, len(commands), size):
        some = commands[first : first + size]
        outcomes = await asyncio.gather(*map(lanes.submit, some), return_exceptions=True)
        for command, outcome in zip(some, outcomes, strict=True):
            if isinstance(outcome, LedgerUnavailable):
                raise outcome
            if isinstance(outcome, BaseException):
                _log.error("a range of account %d was not closed: %s", command.account_id, outcome)
            done.append(isinstance(outcome, Closed) and outcome.done)
    return done
