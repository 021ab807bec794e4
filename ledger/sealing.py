"""Seals what is old enough, and packs sealed ranges away: what to do next in an account, and how it is written.

A range is closed when it is long enough or its month, by UTC, is over; none goes over the end of a month. All that is
read here can't change any more; that it is whole is looked at again under the account's lock, when it is written.
"""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from itertools import takewhile
from typing import Final

from ledger.backend import Backend, Reader, Row, Write
from ledger.commands import KeepSeal, PackSeal
from ledger.errors import Conflict
from ledger.ids import first_id, time_of
from ledger.ranges import FREE_RECEIPTS, last_seal, load_range, pack, read_seals
from ledger.seals import Seal, faults, mismatch, seal_of

__all__ = ["keep", "month_of", "next_pack", "next_seal", "take_away"]

_log = logging.getLogger("farebox.ledger")
_LEAST: Final = 256
_MOST: Final = 1024
_SETTLED_FOR: Final = 600_000_000
"""Microseconds that a row must be old: hosts' clocks, which make the ids, never differ by so much."""

_HEAD = (
    "SELECT transfer_id, at, request FROM ledger_transfer WHERE account_id = ? AND transfer_id > ? AND transfer_id <= ?"
    " ORDER BY transfer_id LIMIT ?"
)
_OLDEST_HOLD = "SELECT MIN(hold_id) FROM ledger_hold WHERE account_id = ?"
_CLOCK = "SELECT clock FROM ledger_account WHERE account_id = ?"
_COUNT = "SELECT COUNT(*) FROM ledger_transfer WHERE account_id = ? AND transfer_id > ? AND transfer_id <= ?"
_FREE = f"SELECT COUNT(*) FROM ledger_receipt WHERE {FREE_RECEIPTS}"
_UNPACKED = "SELECT to_id FROM ledger_seal WHERE account_id = ? AND packed IS NULL AND to_id < ? ORDER BY to_id LIMIT 1"
_INSERT = Write("ledger_seal", Seal._fields, "insert")
_PACK = Write("ledger_seal", ("account_id", "to_id", "packed"), "update", 2)
_TAKE_TRANSFER = Write("ledger_transfer", ("account_id", "transfer_id"), "delete", 2)
_TAKE_RECEIPT = Write("ledger_receipt", ("account_id", "hold_id"), "delete", 2)


def month_of(at: int) -> tuple[int, int]:
    """When the month of a time begins and ends, by UTC; all in microseconds since 1970."""
    moment = datetime.fromtimestamp(at // 1_000_000, UTC)
    first = datetime(moment.year, moment.month, 1, tzinfo=UTC)
    after = datetime(moment.year + moment.month // 12, moment.month % 12 + 1, 1, tzinfo=UTC)
    return int(first.timestamp()) * 1_000_000, int(after.timestamp()) * 1_000_000


def next_seal(reader: Reader, account_id: int, now: int) -> KeepSeal | None:
    """Make an account's next seal, or None while there is nothing to close; now: the real time.

    Accounts of test clocks are never sealed: what refunds and adjustments did is found by its moment, and theirs may
    stand still.
    """
    if reader.rows(_CLOCK, account_id)[0][0] is not None:
        return None
    before = last_seal(reader, account_id)
    settled = first_id(now - _SETTLED_FOR)
    ((oldest_hold,),) = reader.rows(_OLDEST_HOLD, account_id)
    upto = settled if oldest_hold is None else min(settled, oldest_hold - 1)
    head = reader.rows(_HEAD, account_id, before.to_id, upto, _MOST)
    if not head:
        return None
    month_ends = first_id(month_of(time_of(head[0][0]))[1])
    month = [row for row in head if row[0] < month_ends]
    # Nor of a moment that may come again, after a clock was set back.
    within = [*takewhile(lambda row: row[1] <= now - _SETTLED_FOR, month)]
    closed = month_ends <= upto and len(within) == len(month) < _MOST and within != []
    for place in _cuts(within, closed=closed):
        to_id = within[place][0]
        rows = load_range(reader, account_id, before.to_id, to_id)
        if wrong := faults(rows):
            _log.error("account %d is not sealed up to %d: %s", account_id, to_id, "; ".join(wrong[:3]))
            continue
        seal = seal_of(account_id, before, rows, to_id, now)
        free = sum(before.to_id < row[1] <= to_id and not row[3] and not row[8] for row in rows["receipt"])
        return KeepSeal(account_id, seal, before.to_id, free)
    return None


def _cuts(within: list[Row], *, closed: bool) -> list[int]:
    """Places of the last row of a range, none of them amid what one command wrote; more than one, as one may not do."""
    ends = [place for place in range(_LEAST - 1, len(within) - 1) if within[place][1:] != within[place + 1][1:]]
    if not ends and len(within) == _MOST:
        # One command cannot have made so many but by expiry, where it does not matter.
        ends = [_MOST - 1]
    return ends[:4] + ([len(within) - 1] if closed else [])


def keep(backend: Backend, command: KeepSeal) -> bool:
    """Write a seal, in the transaction that has the account's lock; False: it is not what was read any more."""
    seal = command.seal
    account, within = seal.account_id, (seal.account_id, command.from_id, seal.to_id)
    last = last_seal(backend, account)
    ((oldest_hold,),) = backend.rows(_OLDEST_HOLD, account)
    ((transfers,),), ((free,),) = backend.rows(_COUNT, *within), backend.rows(_FREE, *within)
    if (
        (last.number, last.to_id) != (seal.number - 1, command.from_id)
        or (oldest_hold is not None and oldest_hold <= seal.to_id)
        or (transfers, free) != (seal.transfers, command.free)
    ):
        return False
    backend.write(_INSERT, [seal])
    return True


def next_pack(reader: Reader, account_id: int, to_id: int) -> PackSeal | None:
    """Pack an account's oldest range that ends before an id; None if there is none, or it is not as it was sealed."""
    for (ends,) in reader.rows(_UNPACKED, account_id, to_id):
        before = last_seal(reader, account_id, ends)
        (seal,) = read_seals(reader, account_id, before.to_id, 1)
        rows = load_range(reader, account_id, before.to_id, seal.to_id)
        if (what := mismatch(before, seal, rows)) is not None:
            _log.error("account %d is not packed up to %d: %s", account_id, seal.to_id, what)
            return None
        holds, transfers = (tuple(row[1] for row in rows[table]) for table in ("receipt", "transfer"))
        return PackSeal(account_id, seal, pack(rows), transfers, holds)
    return None


def take_away(backend: Backend, command: PackSeal) -> None:
    """Write a packed range, and take its rows from their tables; raises Conflict where they are not all there."""
    account = command.account_id
    taken = (
        backend.write(_PACK, [(account, command.seal.to_id, command.packed)]),
        backend.write(_TAKE_TRANSFER, [(account, number) for number in command.transfers]),
        backend.write(_TAKE_RECEIPT, [(account, number) for number in command.holds]) if command.holds else 0,
    )
    if taken != (1, len(command.transfers), len(command.holds)):
        raise Conflict(f"the range {command.seal.number} of account {account} is not what was packed")
