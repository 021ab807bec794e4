"""Reads what was packed away: single receipts, calls in order, an account's journal. It stays there for ever."""

from __future__ import annotations

import heapq
from collections.abc import Iterator

from ledger.backend import Reader, Row
from ledger.model import DEBT
from ledger.ranges import packed_rows, unpack
from ledger.seals import read_state

__all__ = ["effect", "packed_balance", "packed_receipt", "packed_receipts", "packed_since", "packed_transfers"]

_OF_CALL = (
    "SELECT packed FROM ledger_seal WHERE account_id = ? AND packed IS NOT NULL AND first_hold <= ? AND last_hold >= ?"
)
_LAST = "SELECT state FROM ledger_seal WHERE account_id = ? AND packed IS NOT NULL ORDER BY to_id DESC LIMIT 1"
_ENDS = "SELECT MIN(to_id) FROM ledger_seal WHERE account_id = ? AND to_id >= ?"
_BELOW = (
    "SELECT to_id, state, packed FROM ledger_seal WHERE account_id = ? AND packed IS NOT NULL AND to_id <= ?"
    " ORDER BY to_id DESC LIMIT 1"
)
_RANGES = (
    "SELECT account_id, to_id, first_hold, last_hold FROM ledger_seal WHERE packed IS NOT NULL AND receipts > 0"
    " AND account_id BETWEEN ? AND ? AND last_at >= ? AND first_at < ?"
)
_ACCOUNT_BELOW = "SELECT MAX(account_id) FROM ledger_seal WHERE account_id <= ? AND packed IS NOT NULL"
_ALL = 2**63 - 1


def packed_receipt(reader: Reader, account_id: int, hold_id: int) -> Row | None:
    """Find a receipt that was packed away, in the order of `ledger.seals.COLUMNS`, or None."""
    for (packed,) in reader.rows(_OF_CALL, account_id, hold_id, hold_id):
        for row in unpack(packed)[1]:
            if row[1] == hold_id:
                return row
    return None


def packed_receipts(
    reader: Reader,
    account_id: int | None,
    since: int | None,
    until: int | None,
    *,
    by_account: bool,
    after: tuple[int, int] | None,
    least: tuple[int, int] = (0, 0),
) -> Iterator[Row]:
    """Walk through packed receipts, newest first, or account by account and newest first in each.

    account_id: None for all. since, until: ranges without any call of that time may be left out. after: (hold id,
    account id), below which the walk begins. least: (hold id, account id), or by account the other way about; ranges
    that are wholly below may be left out.
    """

    begins, ends = -_ALL if since is None else since, _ALL if until is None else until
    if account_id is not None or not by_account:
        first, last = (0, _ALL) if account_id is None else (account_id, account_id)
        ranges = reader.rows(_RANGES, first, last, begins, ends)
        newest = least[1] if by_account and account_id == least[0] else 0 if by_account else least[0]
        yield from _merged(reader, [each for each in ranges if each[3] >= newest], after)
        return
    account = _ALL if after is None else after[1]
    while (found := reader.rows(_ACCOUNT_BELOW, account)[0][0]) is not None:
        if found < least[0]:
            return
        beyond = after if after is not None and after[1] == found else None
        yield from _merged(reader, reader.rows(_RANGES, found, found, begins, ends), beyond)
        account = found - 1


def _merged(reader: Reader, ranges: list[Row], after: tuple[int, int] | None) -> Iterator[Row]:
    """Walk through the receipts of ranges, newest first; ranges overlap, as calls do."""
    beyond = (-_ALL, 0) if after is None else (-after[0], -after[1])
    found: list[tuple[tuple[int, int], Row]] = []
    for account, to_id, oldest, newest in sorted(ranges, key=lambda each: (-each[3], -each[0])):
        if (-oldest, -account) <= beyond:
            continue
        # No later range has what comes before this one's first.
        while found and found[0][0] < (-newest, -account):
            yield heapq.heappop(found)[1]
        packed = packed_rows(reader, account, to_id)
        assert packed is not None
        for row in packed[1]:
            if (-row[1], -account) > beyond:
                heapq.heappush(found, ((-row[1], -account), row))
    while found:
        yield heapq.heappop(found)[1]


def packed_since(reader: Reader, account_id: int, first: int) -> Iterator[Row]:
    """Walk through an account's packed receipts of calls from an id on, oldest first."""
    ranges = [each for each in reader.rows(_RANGES, account_id, account_id, -_ALL, _ALL) if each[3] >= first]
    found: list[tuple[int, Row]] = []
    for account, to_id, oldest, _ in sorted(ranges, key=lambda each: int(each[2])):
        # No later range has what comes before this one's first.
        while found and found[0][0] < oldest:
            yield heapq.heappop(found)[1]
        packed = packed_rows(reader, account, to_id)
        assert packed is not None
        for row in packed[1]:
            if row[1] >= first:
                heapq.heappush(found, (row[1], row))
    while found:
        yield heapq.heappop(found)[1]


def packed_balance(reader: Reader, account_id: int) -> int:
    """What an account's packed journal comes to: credits less debt, in nanocredits."""
    found = reader.rows(_LAST, account_id)
    return _balance(found[0][0]) if found else 0


def packed_transfers(reader: Reader, account_id: int, before: int) -> Iterator[tuple[Row, int]]:
    """Walk through an account's packed transfers below an id, newest first, each with the balance after it."""
    ((ends,),) = reader.rows(_ENDS, account_id, before)
    to_id = _ALL if ends is None else ends
    while found := reader.rows(_BELOW, account_id, to_id):
        ((ends, state, packed),) = found
        balance = _balance(state)
        for row in reversed(unpack(packed)[0]):
            if row[1] < before:
                yield row, balance
            balance -= effect(row)
        to_id = ends - 1


def effect(transfer: Row) -> int:
    """What a transfer does to its account's balance, which is credits less debt."""
    _, _, _, source, target, amount, *_ = transfer
    return int(amount) * (_is_owned(target) - _is_owned(source))


def _is_owned(node: int) -> bool:
    return node > 0 or node == DEBT


def _balance(state: str) -> int:
    return sum(amount for node, (amount, _) in read_state(state).items() if _is_owned(node))
