"""Loads the pages that a batch turns: accounts with their open grants, and what single commands refer to."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence

import orjson

from ledger.book import Book
from ledger.commands import Adjust, Command, IssueGrant, PlaceHold, Refund, SetLimit, Settle, Void, VoidGrant
from ledger.model import UNLIMITED, Claim, Claimed, Grant, Hold, Leg, Limit, PaidBack, PaidFrom, Period, Run
from ledger.outcomes import Adjusted, Ended, Refunded

__all__ = [
    "ACCOUNT_COLUMNS",
    "CLAIM_COLUMNS",
    "GRANT_COLUMNS",
    "HOLD_COLUMNS",
    "LIMIT_COLUMNS",
    "RECEIPT_COLUMNS",
    "REFUND_COLUMNS",
    "account_row",
    "json_text",
    "load",
    "load_answer",
    "load_books",
    "load_claim",
    "load_clocks",
    "load_limits",
    "load_refunds",
    "pairs_text",
]

ACCOUNT_COLUMNS = (
    "account_id, status, timezone, debt, overdraft_limit, overdraft_held, next_due_at, created_at, plan, next_plan,"
    " next_plan_at, periods, clock, seen_at, limited"
)
LIMIT_COLUMNS = "scope, amount, per, label, ends_at, spent, reserved"
GRANT_COLUMNS = "grant_id, bucket, source, paid, granted, effective_at, expires_at, created_at, source_key, note"
HOLD_COLUMNS = "account_id, hold_id, amount, legs, memo, created_at, deadline, limits, claim"
CLAIM_COLUMNS = "account_id, claim, body, hold_id, at, charged, available, answer"
RECEIPT_COLUMNS = "account_id, hold_id, status, charged, paid_from, debt, memo, created_at, ended_at, late, limits"
REFUND_COLUMNS = "account_id, refund_id, hold_id, amount, paid_to, debt_reduced, reason, created_at"

_LOT = f"balance, held, lost, voided_at, {GRANT_COLUMNS}"
_LOAD_BOOKS = (
    "SELECT "
    + ", ".join(f"a.{name}" for name in ACCOUNT_COLUMNS.split(", "))
    + ", "
    + ", ".join(f"g.{name}" for name in _LOT.split(", "))
    + " FROM ledger_account a"
    " LEFT JOIN ledger_grant g INDEXED BY ledger_grant_open ON g.account_id = a.account_id AND g.open = 1"
    " WHERE a.account_id IN (SELECT value FROM json_each(?))"
)
_OF_ACCOUNT = len(ACCOUNT_COLUMNS.split(", "))
_PERIODS = ACCOUNT_COLUMNS.split(", ").index("periods")
_PAIRS = "(SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]') FROM json_each(?))"
_LOAD_HOLDS = f"SELECT {HOLD_COLUMNS} FROM ledger_hold WHERE (account_id, hold_id) IN {_PAIRS}"
_LOAD_RECEIPTS = f"SELECT {RECEIPT_COLUMNS} FROM ledger_receipt WHERE (account_id, hold_id) IN {_PAIRS}"
_LOAD_REFUNDS = (
    f"SELECT {REFUND_COLUMNS} FROM ledger_refund INDEXED BY ledger_refund_call"
    f" WHERE (account_id, hold_id) IN {_PAIRS} ORDER BY refund_id"
)
_LOAD_GRANTS = f"SELECT account_id, {_LOT} FROM ledger_grant WHERE (account_id, grant_id) IN {_PAIRS}"
_LOAD_ADJUSTMENT = (
    "SELECT adjustment_id, amount, reason, created_at, debt_reduced, granted, taken, debt_added FROM ledger_adjustment"
    " WHERE account_id = ? AND adjustment_id = ?"
)
_LOAD_LIMITS = f"SELECT account_id, {LIMIT_COLUMNS} FROM ledger_limit WHERE (account_id, scope) IN {_PAIRS}"
_LIMITS_OF = (
    f"SELECT {LIMIT_COLUMNS} FROM ledger_limit WHERE account_id = ? AND scope NOT LIKE 'run:%' AND amount < {UNLIMITED}"
)
_LOAD_RUN = "SELECT raw, charged FROM ledger_run WHERE account_id = ? AND run = ? AND operation = ?"
_LOAD_CLAIM = (
    "SELECT body, hold_id, at, answer IS NOT NULL, charged, available FROM ledger_claim"
    " WHERE account_id = ? AND claim = ?"
)
_LOAD_ANSWER = "SELECT answer FROM ledger_claim WHERE account_id = ? AND claim = ?"
_DIGEST = 32
_LOAD_SOURCE = f"SELECT {_LOT} FROM ledger_grant WHERE account_id = ? AND source_key = ?"


def load_books(cursor: sqlite3.Cursor, accounts: Iterable[int]) -> dict[int, Book]:
    """Load accounts' pages with their open grants; an unknown account's page has `exists` False."""
    wanted = list(accounts)
    books: dict[int, Book] = {}
    for row in cursor.execute(_LOAD_BOOKS, (json_text(wanted),)):
        book = books.get(row[0])
        if book is None:
            book = books[row[0]] = Book(*row[:_OF_ACCOUNT])
            book.exists, book.limited = True, bool(book.limited)
            book.periods = _read_periods(row[_PERIODS])
        if row[_OF_ACCOUNT] is not None:
            _add_lot(book, row[_OF_ACCOUNT:])
    for account in wanted:
        if account not in books:
            books[account] = Book(account)
    return books


def load(cursor: sqlite3.Cursor, commands: Sequence[Command], books: dict[int, Book]) -> None:
    """Load all that a batch needs beside the pages that are here already, by account."""
    missing = {command.account_id for command in commands if command.account_id not in books}
    if missing:
        books |= load_books(cursor, missing)
    ends: set[tuple[int, int]] = set()
    corrections: list[VoidGrant | Refund] = []
    for command in commands:
        if isinstance(command, PlaceHold):
            if command.claim is not None:
                book, key = books[command.account_id], command.claim.key
                book.claims = {key: load_claim(cursor, command.account_id, key), **book.claims}
            continue
        if isinstance(command, (Settle, Void)):
            if command.hold_id not in books[command.account_id].holds:
                ends.add((command.account_id, command.hold_id))
        elif isinstance(command, IssueGrant):
            if command.source_key is not None:
                _load_source(cursor, books[command.account_id], command.source_key)
        elif isinstance(command, Adjust):
            _load_adjustment(cursor, books[command.account_id], command.adjustment_id)
        elif isinstance(command, (VoidGrant, Refund)):
            corrections.append(command)
    if ends:
        for row in cursor.execute(_LOAD_HOLDS, (json_text([*ends]),)).fetchall():
            legs = tuple(Leg(*leg) for leg in orjson.loads(row[3]))
            claim = None if row[8] is None else Claim(row[8][:_DIGEST], row[8][_DIGEST:])
            books[row[0]].holds[row[1]] = Hold(row[1], row[2], legs, row[4], row[5], row[6], _read_pairs(row[7]), claim)
            ends.discard((row[0], row[1]))
    if ends:
        # Also those that are placed in this very batch: an id that has ended before must not be placed again.
        _load_ended(cursor, books, [[*pair] for pair in ends])
    if corrections:
        _load_corrected(cursor, books, corrections)
    _load_limits(cursor, books, commands)
    _load_runs(cursor, books, commands)


def _add_lot(book: Book, row: tuple[int, ...]) -> None:
    grant = Grant(*row[4:])  # type: ignore[arg-type]  # GRANT_COLUMNS, in order
    book.grants[grant.grant_id] = grant
    book.balance[grant.grant_id] = row[0]
    book.held[grant.grant_id] = row[1]
    book.lost[grant.grant_id] = row[2]
    if row[3] is not None:
        book.voided = {**book.voided, grant.grant_id: row[3]}


def _load_source(cursor: sqlite3.Cursor, book: Book, source_key: str) -> None:
    for row in cursor.execute(_LOAD_SOURCE, (book.account_id, source_key)):
        _add_lot(book, row)


def _load_ended(cursor: sqlite3.Cursor, books: dict[int, Book], pairs: list[list[int]]) -> None:
    for row in cursor.execute(_LOAD_RECEIPTS, (json_text(pairs),)).fetchall():
        account, hold, status, charged, paid_from, debt, memo, created, ended, late, limits = row
        paid = tuple(PaidFrom(*item) for item in orjson.loads(paid_from))
        books[account].ended[hold] = Ended(
            hold, status, charged, paid, debt, memo, created, ended, 0, bool(late), _read_pairs(limits)
        )


def _load_corrected(cursor: sqlite3.Cursor, books: dict[int, Book], commands: list[VoidGrant | Refund]) -> None:
    """Load the calls to be refunded, their earlier refunds, and all grants concerned, open or not."""
    grants = [[command.account_id, command.grant_id] for command in commands if isinstance(command, VoidGrant)]
    calls = [[command.account_id, command.hold_id] for command in commands if isinstance(command, Refund)]
    if calls:
        _load_ended(cursor, books, calls)
        for account, hold in {(account, hold) for account, hold in calls}:
            ended = books[account].ended.get(hold)
            grants += [[account, paid.grant_id] for paid in ended.paid_from] if ended else []
        for account, made in load_refunds(cursor, calls):
            book = books[account]
            book.refunds = {**book.refunds, made.hold_id: (*book.refunds.get(made.hold_id, ()), made)}
    for row in cursor.execute(_LOAD_GRANTS, (json_text(grants),)).fetchall():
        _add_lot(books[row[0]], row[1:])


def _load_adjustment(cursor: sqlite3.Cursor, book: Book, adjustment_id: int) -> None:
    """Load what an adjustment did, if it was made before."""
    row = cursor.execute(_LOAD_ADJUSTMENT, (book.account_id, adjustment_id)).fetchone()
    if row is None:
        return
    own_id, amount, reason, at, reduced, granted, taken, added = row
    grant = None
    if granted:
        lot = cursor.execute(_LOAD_GRANTS, (json_text([[book.account_id, adjustment_id]]),)).fetchone()
        grant = Grant(*lot[5:])
    paid = tuple(PaidFrom(*item) for item in orjson.loads(taken))
    made = Adjusted(own_id, amount, reason, at, reduced, grant, paid, added)
    book.adjustments = {**book.adjustments, adjustment_id: made}


def load_refunds(cursor: sqlite3.Cursor, calls: list[list[int]]) -> Iterator[tuple[int, Refunded]]:
    """Load the refunds of calls, given as [[account id, hold id]], oldest first; yields (account id, refund)."""
    for account, refund, hold, amount, to, reduced, reason, at in cursor.execute(_LOAD_REFUNDS, (json_text(calls),)):
        paid_to = tuple(PaidBack(*item) for item in orjson.loads(to))
        yield account, Refunded(refund, hold, amount, paid_to, reduced, reason, at)


def json_text(value: object) -> str:
    return orjson.dumps(value).decode()


def account_row(book: Book) -> tuple[object, ...]:
    """An account's row, in the order of ACCOUNT_COLUMNS."""
    return (
        book.account_id,
        book.status,
        book.timezone,
        book.debt,
        book.overdraft_limit,
        book.overdraft_held,
        book.next_due_at,
        book.created_at,
        book.plan,
        book.next_plan,
        book.next_plan_at,
        json_text({bucket: [*period] for bucket, period in book.periods.items()}) if book.periods else None,
        book.clock,
        book.seen_at,
        int(book.limited),
    )


def load_claim(cursor: sqlite3.Cursor, account_id: int, key: bytes) -> Claimed | None:
    """Load what an idempotency key has claimed."""
    row = cursor.execute(_LOAD_CLAIM, (account_id, key)).fetchone()
    return None if row is None else Claimed(Claim(key, row[0]), row[1], row[2], bool(row[3]), row[4], row[5])


def load_answer(cursor: sqlite3.Cursor, account_id: int, key: bytes) -> bytes | None:
    """Load the answer that is kept under an idempotency key."""
    row = cursor.execute(_LOAD_ANSWER, (account_id, key)).fetchone()
    return None if row is None else row[0]


def load_clocks(cursor: sqlite3.Cursor) -> dict[int, int]:
    """Load what the test clocks show, in microseconds since 1970."""
    return dict(cursor.execute("SELECT clock_id, now FROM ledger_clock").fetchall())


def load_limits(cursor: sqlite3.Cursor, account_id: int) -> list[Limit]:
    """Load all of an account's spend limits but those of runs."""
    return [Limit(*row) for row in cursor.execute(_LIMITS_OF, (account_id,))]


def pairs_text(pairs: Iterable[tuple[str, int]]) -> str | None:
    """Write what a hold is reserved at; most are at nothing."""
    return json_text([[*pair] for pair in pairs]) if pairs else None


def _read_pairs(text: str | None) -> tuple[tuple[str, int], ...]:
    return () if text is None else tuple((scope, label) for scope, label in orjson.loads(text))


def _read_periods(text: str | None) -> dict[str, Period]:
    return {} if text is None else {bucket: Period(*period) for bucket, period in orjson.loads(text).items()}


def _load_limits(cursor: sqlite3.Cursor, books: dict[int, Book], commands: Sequence[Command]) -> None:
    """Load the spend limits that commands come under; of most accounts there are none."""
    wanted: set[tuple[int, str]] = set()
    for command in commands:
        book = books[command.account_id]
        scopes: Iterable[str] = ()
        if isinstance(command, PlaceHold):
            scopes = command.scopes if book.limited else ()
        elif isinstance(command, (Settle, Void, Refund)):
            call = book.holds.get(command.hold_id) or book.ended.get(command.hold_id)
            scopes = [scope for scope, _ in call.limits] if call is not None else ()
        elif isinstance(command, SetLimit):
            scopes = (command.scope,)
        wanted.update((book.account_id, scope) for scope in scopes if scope not in book.asked)
    if wanted:
        for account, scope in wanted:
            books[account].asked.add(scope)
        for account, *limit in cursor.execute(_LOAD_LIMITS, (json_text([[*pair] for pair in wanted]),)):
            books[account].limits[limit[0]] = Limit(*limit)


def _load_runs(cursor: sqlite3.Cursor, books: dict[int, Book], commands: Sequence[Command]) -> None:
    """Load what the runs of calls have come to, where that counts."""
    for command in commands:
        if isinstance(command, (PlaceHold, Settle)) and command.share is not None:
            book, key = books[command.account_id], (command.share.run, command.share.operation)
            if key not in book.runs:
                row = cursor.execute(_LOAD_RUN, (book.account_id, *key)).fetchone()
                book.runs[key] = Run() if row is None else Run(*row)
