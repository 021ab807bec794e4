"""Reads of calls: every call that got a hold, once, held or ended; listed, exported, and summed up."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import islice, takewhile
from typing import Any, Final
from zoneinfo import ZoneInfo

import orjson
from sqlalchemy import Connection, text

from ledger.archive import packed_receipt, packed_receipts
from ledger.backend import Reader, Row
from ledger.dialects import Dialect, dialect_of
from ledger.model import PaidFrom
from ledger.readers import reader_of

__all__ = [
    "MEMBERS",
    "Recorded",
    "Total",
    "Which",
    "find_call",
    "list_orphans",
    "list_usage",
    "summarize",
    "usage_page",
]

MEMBERS: Final = ("thread", "run", "model", "operation", "app", "key", "member")
"""The memo's members that calls can be asked for by."""

_NANO = 10**9
_PAGE = 1000
# Every zone's offset since 1970 is a multiple of this but a few of seconds long gone, so days can be made of them.
_QUARTER_HOUR = 900_000_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Recorded:
    """A call as the ledger knows it; status: held, settled, voided or orphaned; refunded: nanocredits so far."""

    hold_id: int
    status: str
    charged: int
    debt: int
    paid_from: tuple[PaidFrom, ...]
    memo: bytes
    created_at: int
    ended_at: int | None
    account_id: int
    refunded: int


@dataclass(frozen=True, slots=True)
class Which:
    """Which calls are meant: of one account or of all, by exact values of the memo's MEMBERS, by time of creation.

    since is inclusive, until exclusive, in microseconds. Raises ValueError for a member that is none of MEMBERS.
    """

    account_id: int | None = None
    members: Mapping[str, str] = field(default_factory=dict)
    since: int | None = None
    until: int | None = None

    def __post_init__(self) -> None:
        unknown = [name for name in self.members if name not in MEMBERS]
        if unknown:
            raise ValueError(f"calls can't be asked for by {', '.join(unknown)}")

    def condition(self, sql: Dialect) -> tuple[str, dict[str, Any]]:
        """Write the SQL condition on a table of calls, and its parameters."""
        conditions, values = ["TRUE"], dict[str, Any]()
        for column, operator, value in (
            ("account_id", "=", self.account_id),
            ("created_at", ">=", self.since),
            ("created_at", "<", self.until),
        ):
            if value is not None:
                name = f"value_{len(values)}"
                conditions.append(f"{column} {operator} :{name}")
                values[name] = value
        for member, wanted in self.members.items():
            conditions.append(sql.member_is(member, f":member_{member}"))
            values[f"member_{member}"] = sql.text(wanted)
        return " AND ".join(conditions), values


@dataclass(frozen=True, slots=True)
class Total:
    """Calls of one key; key: None where the memo has none. total: charged less refunded, in nanocredits."""

    key: str | None
    calls: int
    total: int


def find_call(connection: Connection, account_id: int, hold_id: int) -> Recorded | None:
    """Find a call, held or ended, or None."""
    call = "account_id = :account AND hold_id = :hold"
    # One statement, so that a call that ends meanwhile is found in one place or the other.
    row = connection.execute(
        text(
            f"SELECT {_columns(connection)} FROM (SELECT {_HELD} FROM ledger_hold WHERE {call}"
            f" UNION ALL SELECT {_CALL} FROM ledger_receipt WHERE {call}) c"
        ),
        {"account": account_id, "hold": hold_id},
    ).first()
    if row is not None:
        return _recorded(row)
    reader = reader_of(connection)
    packed = packed_receipt(reader, account_id, hold_id)
    return None if packed is None else _unpacked(reader, [packed])[0]


def list_usage(connection: Connection, which: Which, limit: int, after: tuple[int, int] | None) -> list[Recorded]:
    """List calls, newest first; after: (hold id, account id) of the last one seen.

    Of one account it reads as many as it lists; of all accounts every call is looked at.
    """
    if which.account_id is None:
        return _calls(connection, which, "(hold_id, account_id) < (:after_hold, :after_account)", _NEWEST, limit, after)
    # One account's calls lie in this order already.
    return _calls(connection, which, "hold_id < :after_hold", "hold_id DESC", limit, after)


def usage_page(connection: Connection, which: Which, limit: int, after: tuple[int, int] | None) -> list[Recorded]:
    """List calls account by account, newest first in each: the order in which all of them are cheap to walk through."""
    if which.account_id is not None:
        return list_usage(connection, which, limit, after)
    order = "account_id DESC, hold_id DESC"
    return _calls(connection, which, "(account_id, hold_id) < (:after_account, :after_hold)", order, limit, after)


def list_orphans(connection: Connection, limit: int, after: tuple[int, int] | None) -> list[Recorded]:
    """List calls of all accounts whose process died and that were not settled since, newest first."""
    hold, account = after or _BEYOND
    rows = connection.execute(
        text(
            f"SELECT {_columns(connection)} FROM ledger_receipt c WHERE status = 'orphaned'"
            f" AND (hold_id, account_id) < (:hold, :account) ORDER BY {_NEWEST} LIMIT :limit"
        ),
        {"hold": hold, "account": account, "limit": limit},
    )
    return [_recorded(row) for row in rows]


def summarize(connection: Connection, which: Which, by: str, timezone: str) -> list[Total]:
    """Sum calls up by a member of MEMBERS, the dearest first, or by `day` in a time zone, the newest first.

    Refunds count where their call does. Raises ValueError for another `by`, ZoneInfoNotFoundError.
    """
    if by == "day":
        zone = ZoneInfo(timezone)
        quarters = _sums(connection, which, f"created_at / {_QUARTER_HOUR}", lambda row: row[6] // _QUARTER_HOUR)
        return _days(quarters, zone)
    if by not in MEMBERS:
        raise ValueError(f"calls can't be summed up by {by}")
    sums = _sums(connection, which, dialect_of(connection).member(by), lambda row: _members(row[10]).get(by))
    totals = [Total(None if key is None else str(key), calls, total) for key, (calls, total) in sums.items()]
    return sorted(totals, key=lambda total: (-total.total, -total.calls, total.key or ""))


def _days(sums: Mapping[int, tuple[int, int]], zone: ZoneInfo) -> list[Total]:
    days: dict[str, Total] = {}
    for quarter, (calls, total) in sums.items():
        moment = _EPOCH + timedelta(microseconds=quarter * _QUARTER_HOUR)
        day = moment.astimezone(zone).date().isoformat()
        before = days.get(day, Total(day, 0, 0))
        days[day] = Total(day, before.calls + calls, before.total + total)
    return [days[day] for day in sorted(days, reverse=True)]


_REFUNDED = (
    "SELECT account_id, hold_id, SUM(amount) FROM ledger_refund WHERE (account_id, hold_id) IN {pairs}"
    " GROUP BY account_id, hold_id"
)
_NEWEST = "hold_id DESC, account_id DESC"
_BEYOND = (2**63 - 1, 2**63 - 1)
_CALL = "account_id, hold_id, status, charged, debt, paid_from, memo, created_at, ended_at"
_HELD = (
    "account_id, hold_id, 'held' AS status, 0 AS charged, 0 AS debt, '[]' AS paid_from, memo, created_at,"
    " CAST(NULL AS BIGINT) AS ended_at"
)


def _refunded(connection: Connection) -> str:
    by_call = dialect_of(connection).hint("ledger_refund_call")
    return (
        f"(SELECT CAST(COALESCE(SUM(f.amount), 0) AS BIGINT) FROM ledger_refund f{by_call}"
        " WHERE f.account_id = c.account_id AND f.hold_id = c.hold_id)"
    )


def _columns(connection: Connection) -> str:
    return f"{_CALL}, {_refunded(connection)} AS refunded"


def _calls(
    connection: Connection, which: Which, beyond: str, order: str, limit: int, after: tuple[int, int] | None
) -> list[Recorded]:
    sql = dialect_of(connection)
    condition, values = which.condition(sql)
    hold, account = after or _BEYOND
    by_account = order.startswith("account_id")
    first = f"ORDER BY {order} LIMIT :limit"
    held = sql.first(f"SELECT {_HELD} FROM ledger_hold WHERE {condition} AND {beyond}", first)
    ended = sql.first(f"SELECT {_CALL} FROM ledger_receipt WHERE {condition} AND {beyond}", first)
    # One statement, so that a call that ends meanwhile is neither missed nor listed twice.
    rows = connection.execute(
        text(f"SELECT {_columns(connection)} FROM ({held} UNION ALL {ended} {first}) c ORDER BY {order}"),
        {**values, "after_hold": hold, "after_account": account, "limit": limit},
    )
    hot = [_recorded(row) for row in rows]
    reader = reader_of(connection)
    key = _by_account if by_account else _newest
    last = key(hot[-1]) if len(hot) == limit else (0, 0)
    # No more than can come before the last that was found already.
    wanted = takewhile(
        lambda row: ((row[0], row[1]) if by_account else (row[1], row[0])) > last,
        _packed(reader, which, by_account=by_account, after=after, least=last),
    )
    packed = _unpacked(reader, [*islice(wanted, limit)])
    return sorted(hot + packed, key=key, reverse=True)[:limit] if packed else hot


def _newest(call: Recorded) -> tuple[int, int]:
    return call.hold_id, call.account_id


def _by_account(call: Recorded) -> tuple[int, int]:
    return call.account_id, call.hold_id


def _packed(
    reader: Reader,
    which: Which,
    *,
    by_account: bool,
    after: tuple[int, int] | None,
    least: tuple[int, int] = (0, 0),
) -> Iterator[Row]:
    """Walk through the receipts that are meant and were packed away; least: what is below this may be left out."""
    since, until = which.since, which.until
    found = packed_receipts(reader, which.account_id, since, until, by_account=by_account, after=after, least=least)
    for row in found:
        created = row[6]
        if (since is None or created >= since) and (until is None or created < until):
            memo = _members(row[10]) if which.members else {}
            if all(memo.get(name) == wanted for name, wanted in which.members.items()):
                yield row


def _members(memo: bytes) -> Mapping[str, Any]:
    """Read a memo; one that is no JSON has no members."""
    try:
        read = orjson.loads(memo)
    except ValueError:
        return {}
    return read if isinstance(read, dict) else {}


def _unpacked(reader: Reader, rows: Sequence[Row]) -> list[Recorded]:
    """Make calls of packed receipts, each with what was refunded of it since."""
    given = {}
    if rows:
        given = {row[:2]: int(row[2]) for row in reader.rows_in(_REFUNDED, [row[:2] for row in rows])}
    return [
        Recorded(
            hold,
            status,
            charged,
            debt,
            tuple(PaidFrom(*item) for item in orjson.loads(paid_from)),
            memo,
            created,
            ended,
            account,
            given.get((account, hold), 0),
        )
        for account, hold, status, charged, debt, paid_from, created, ended, _, _, memo in rows
    ]


def _recorded(row: Any) -> Recorded:
    account, hold, status, charged, debt, paid_from, memo, created, ended, refunded = row
    paid = tuple(PaidFrom(*item) for item in orjson.loads(paid_from))
    return Recorded(hold, status, charged, debt, paid, memo, created, ended, account, refunded)


def _sums(connection: Connection, which: Which, key: str, key_of: Callable[[Row], Any]) -> dict[Any, tuple[int, int]]:
    """Sum up, by a key in SQL and the same of a packed row: how many calls, and what they came to.

    SQL adds whole credits and the rest apart, as all accounts' may pass 64 bits.
    """
    condition, values = which.condition(dialect_of(connection))
    rows = connection.execute(
        text(
            f"SELECT key, COUNT(*), SUM(net / {_NANO}), SUM(net % {_NANO})"
            f" FROM (SELECT {key} AS key, charged - {_refunded(connection)} AS net"
            f" FROM (SELECT {_HELD} FROM ledger_hold WHERE {condition}"
            f" UNION ALL SELECT {_CALL} FROM ledger_receipt WHERE {condition}) c) summed GROUP BY key"
        ),
        values,
    )
    sums = {key: (calls, int(whole) * _NANO + int(rest)) for key, calls, whole, rest in rows}
    reader = reader_of(connection)
    packed = _packed(reader, which, by_account=True, after=None)
    while some := [*islice(packed, _PAGE)]:
        for row, call in zip(some, _unpacked(reader, some), strict=True):
            calls, total = sums.get(key_of(row), (0, 0))
            sums[key_of(row)] = (calls + 1, total + call.charged - call.refunded)
    return sums
