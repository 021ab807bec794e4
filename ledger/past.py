"""What accounts did since a time, oldest first, read in pieces: for asking what if; and whether credits had lasted."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from ledger.archive import packed_since, packed_transfers
from ledger.backend import Reader
from ledger.ids import first_id
from ledger.rules import Rules

__all__ = [
    "Lot",
    "PastCall",
    "accounts_from",
    "as_they_ended",
    "calls_since",
    "count_accounts",
    "lots_since",
    "short_by",
]

_PAGE = 2000
_HOUR = 3_600_000_000
_LAST = 2**63 - 1
_ACCOUNTS = (
    "SELECT account_id, overdraft_limit, plan FROM ledger_account WHERE account_id > ? ORDER BY account_id LIMIT ?"
)
_CALLS = (
    "SELECT hold_id, charged, memo, created_at, ended_at FROM ledger_receipt WHERE account_id = ? AND hold_id >= ?"
    " AND status = 'settled' ORDER BY hold_id LIMIT ?"
)
_GRANTS = (
    "SELECT grant_id, bucket, paid, effective_at, expires_at, balance FROM ledger_grant"
    " WHERE account_id = ? AND expires_at > ?"
)
_LEFT = (
    "SELECT source, CAST(SUM(amount) AS BIGINT) FROM ledger_transfer"
    " WHERE account_id = ? AND transfer_id >= ? AND source > 0 GROUP BY source"
)


class PastCall(NamedTuple):
    """A settled call; charged: nanocredits; created_at, ended_at: microseconds, in its account's own time."""

    hold_id: int
    charged: int
    memo: bytes
    created_at: int
    ended_at: int


class Lot(NamedTuple):
    """What of one grant there was to spend since a time, and when; order: by which lots are burned.

    left: nanocredits, those that expired or were taken later too, as they could have been spent before.
    """

    order: tuple[int, ...]
    effective_at: int
    expires_at: int
    left: int


def count_accounts(reader: Reader) -> int:
    """How many accounts there are."""
    return int(reader.rows("SELECT COUNT(*) FROM ledger_account")[0][0])


def accounts_from(reader: Reader, rules: Rules, above: int, limit: int) -> list[tuple[int, int]]:
    """List accounts by id from the one after `above`, with the overdraft limit of each, in nanocredits."""
    return [
        (int(account), int(rules.overdraft_limit(own, plan)))
        for account, own, plan in reader.rows(_ACCOUNTS, above, limit)
    ]


def calls_since(reader: Reader, account_id: int, since: int) -> Iterator[PastCall]:
    """Walk through an account's settled calls that began at a time or later, oldest first; since: microseconds."""
    # A call has its id a moment before its hold is placed.
    first = first_id(since - _HOUR)
    packed = (
        PastCall(row[1], row[3], row[10], row[6], row[7])
        for row in packed_since(reader, account_id, first)
        if row[2] == "settled"
    )
    # What was packed may have begun after what was not: a range is of calls by when they ended.
    for call in heapq.merge(_hot(reader, account_id, first), packed, key=lambda call: call.hold_id):
        if call.created_at >= since:
            yield call


def as_they_ended(calls: Iterable[PastCall]) -> Iterator[PastCall]:
    """Put calls in the order in which they ended, of that in which they began; as many wait as run at once."""
    waiting: list[tuple[int, int, PastCall]] = []
    for call in calls:
        # What begins later ends later than now.
        while waiting and waiting[0][0] <= call.created_at:
            yield heapq.heappop(waiting)[2]
        heapq.heappush(waiting, (call.ended_at, call.hold_id, call))
    while waiting:
        yield heapq.heappop(waiting)[2]


def _hot(reader: Reader, account_id: int, first: int) -> Iterator[PastCall]:
    while True:
        rows = reader.rows(_CALLS, account_id, first, _PAGE)
        yield from map(PastCall._make, rows)
        if len(rows) < _PAGE:
            return
        first = rows[-1][0] + 1


def lots_since(reader: Reader, account_id: int, since: int, ranks: Mapping[str, int]) -> list[Lot]:
    """List what an account had to spend since a time, burned first to last; ranks: the order of the buckets."""
    first = first_id(since)
    taken = {int(grant): int(amount) for grant, amount in reader.rows(_LEFT, account_id, first)}
    for row, _ in packed_transfers(reader, account_id, _LAST):
        if row[1] < first:
            break
        if row[3] > 0:
            taken[row[3]] = taken.get(row[3], 0) + row[5]
    lots = []
    for grant, bucket, paid, effective_at, expires_at, balance in reader.rows(_GRANTS, account_id, since):
        left = int(balance) + taken.get(grant, 0)
        if left:
            rank = ranks.get(bucket, len(ranks))
            lots.append(Lot((rank, expires_at, paid, grant), int(effective_at), int(expires_at), left))
    return sorted(lots)


def short_by(lots: Sequence[Lot], spends: Iterable[tuple[int, int]], overdraft: int) -> tuple[int, int] | None:
    """Spend lots in their order; returns when that first fell short and by how much in all, or None.

    spends: (time, nanocredits), in the order of time. overdraft: nanocredits that may be missing at any time.
    """
    left = [lot.left for lot in lots]
    missing, since = 0, None
    waiting = sorted(range(len(lots)), key=lambda index: lots[index].effective_at, reverse=True)
    live: list[int] = []
    for now, amount in spends:
        while waiting and lots[waiting[-1]].effective_at <= now:
            heapq.heappush(live, waiting.pop())
        while amount and live:
            index = live[0]
            if lots[index].expires_at <= now or not left[index]:
                heapq.heappop(live)
                continue
            taken = min(left[index], amount)
            left[index] -= taken
            amount -= taken
        missing += amount
        if since is None and missing > overdraft:
            since = now
    return None if since is None else (since, missing - overdraft)
