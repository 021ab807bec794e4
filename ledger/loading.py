"""Loads the pages that a batch turns: accounts with their open grants, and what single commands refer to."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import orjson

from ledger.archive import packed_receipt
from ledger.backend import Pairs, Reader, Row
from ledger.book import Book
from ledger.commands import Adjust, Command, IssueGrant, PlaceHold, Refund, SetLimit, Settle, Void, VoidGrant
from ledger.model import UNLIMITED, Claim, Claimed, Grant, Hold, Leg, Limit, PaidBack, PaidFrom, Period, Run
from ledger.outcomes import Adjusted, Ended, Refunded
from ledger.seals import COLUMNS

__all__ = [
    "ACCOUNT_COLUMNS",
    "CLAIM_COLUMNS",
    "GRANT_COLUMNS",
    "HOLD_COLUMNS",
    "LOAD_HOLDS",
    "LIMIT_COLUMNS",
    "LOT_COLUMNS",
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

LOT_COLUMNS = f"balance, held, lost, voided_at, {GRANT_COLUMNS}"
_OF_ACCOUNT = len(ACCOUNT_COLUMNS.split(", "))
_PERIODS = ACCOUNT_COLUMNS.split(", ").index("periods")
LOAD_HOLDS = f"SELECT {HOLD_COLUMNS} FROM ledger_hold WHERE (account_id, hold_id) IN {{pairs}}"
_LOAD_RECEIPTS = f"SELECT {COLUMNS['receipt']} FROM ledger_receipt WHERE (account_id, hold_id) IN {{pairs}}"
_LOAD_REFUNDS = (
    f"SELECT {REFUND_COLUMNS} FROM ledger_refund WHERE (account_id, hold_id) IN {{pairs}} ORDER BY refund_id"
)
_LOAD_GRANTS = f"SELECT account_id, {LOT_COLUMNS} FROM ledger_grant WHERE (account_id, grant_id) IN {{pairs}}"
_LOAD_ADJUSTMENT = (
    "SELECT adjustment_id, amount, reason, created_at, debt_reduced, granted, taken, debt_added FROM ledger_adjustment"
    " WHERE account_id = ? AND adjustment_id = ?"
)
_LOAD_LIMITS = f"SELECT account_id, {LIMIT_COLUMNS} FROM ledger_limit WHERE (account_id, scope) IN {{pairs}}"
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
_LOAD_SOURCE = f"SELECT {LOT_COLUMNS} FROM ledger_grant WHERE account_id = ? AND source_key = ?"


def load_books(reader: Reader, accounts: Iterable[int]) -> dict[int, Book]:
    """Load accounts' pages with their open grants; an unknown account's page has `exists` False."""
    wanted = list(accounts)
    books: dict[int, Book] = {}
    for row in reader.books(wanted):
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


def load(reader: Reader, commands: Sequence[Command], books: dict[int, Book]) -> None:
    """Load all that a batch needs beside the pages that are here already, by account."""
    missing = {command.account_id for command in commands if command.account_id not in books}
    if missing:
        books |= load_books(reader, missing)
    ends: set[tuple[int, int]] = set()
    corrections: list[VoidGrant | Refund] = []
    for command in commands:
        if isinstance(command, PlaceHold):
            if command.claim is not None:
                book, key = books[command.account_id], command.claim.key
                book.claims = {key: load_claim(reader, command.account_id, key), **book.claims}
            continue
        if isinstance(command, (Settle, Void)):
            if command.hold_id not in books[command.account_id].holds:
                ends.add((command.account_id, command.hold_id))
        elif isinstance(command, IssueGrant):
            if command.source_key is not None:
                _load_source(reader, books[command.account_id], command.source_key)
        elif isinstance(command, Adjust):
            _load_adjustment(reader, books[command.account_id], command.adjustment_id)
        elif isinstance(command, (VoidGrant, Refund)):
            corrections.append(command)
    if ends:
        for row in reader.holds([*ends]):
            legs = tuple(Leg(*leg) for leg in orjson.loads(row[3]))
            claim = None if row[8] is None else Claim(row[8][:_DIGEST], row[8][_DIGEST:])
            books[row[0]].holds[row[1]] = Hold(row[1], row[2], legs, row[4], row[5], row[6], _read_pairs(row[7]), claim)
            ends.discard((row[0], row[1]))
    if ends:
        # Also those that are placed in this very batch: an id that has ended before must not be placed again.
        _load_ended(reader, books, [*ends])
    if corrections:
        _load_corrected(reader, books, corrections)
    _load_limits(reader, books, commands)
    _load_runs(reader, books, commands)


def _add_lot(book: Book, row: Row) -> None:
    grant = Grant(*row[4:])
    book.grants[grant.grant_id] = grant
    book.balance[grant.grant_id] = row[0]
    book.held[grant.grant_id] = row[1]
    book.lost[grant.grant_id] = row[2]
    if row[3] is not None:
        book.voided = {**book.voided, grant.grant_id: row[3]}


def _load_source(reader: Reader, book: Book, source_key: str) -> None:
    for row in reader.rows(_LOAD_SOURCE, book.account_id, source_key):
        _add_lot(book, row)


def _load_ended(reader: Reader, books: dict[int, Book], pairs: Pairs) -> None:
    found = reader.rows_in(_LOAD_RECEIPTS, pairs)
    for account, hold in {*pairs} - {row[:2] for row in found}:
        assert isinstance(hold, int)
        if (row := packed_receipt(reader, account, hold)) is not None:
            found.append(row)
    for account, hold, status, charged, debt, paid_from, created, ended, late, limits, memo in found:
        paid = tuple(PaidFrom(*item) for item in orjson.loads(paid_from))
        books[account].ended[hold] = Ended(
            hold, status, charged, paid, debt, memo, created, ended, 0, bool(late), _read_pairs(limits)
        )


def _load_corrected(reader: Reader, books: dict[int, Book], commands: list[VoidGrant | Refund]) -> None:
    """Load the calls to be refunded, their earlier refunds, and all grants concerned, open or not."""
    grants = [(command.account_id, command.grant_id) for command in commands if isinstance(command, VoidGrant)]
    calls = [(command.account_id, command.hold_id) for command in commands if isinstance(command, Refund)]
    if calls:
        _load_ended(reader, books, calls)
        for account, hold in set(calls):
            ended = books[account].ended.get(hold)
            grants += [(account, paid.grant_id) for paid in ended.paid_from] if ended else []
        for account, made in load_refunds(reader, calls):
            book = books[account]
            book.refunds = {**book.refunds, made.hold_id: (*book.refunds.get(made.hold_id, ()), made)}
    for row in reader.rows_in(_LOAD_GRANTS, grants):
        _add_lot(books[row[0]], row[1:])


def _load_adjustment(reader: Reader, book: Book, adjustment_id: int) -> None:
    """Load what an adjustment did, if it was made before."""
    found = reader.rows(_LOAD_ADJUSTMENT, book.account_id, adjustment_id)
    if not found:
        return
    own_id, amount, reason, at, reduced, granted, taken, added = found[0]
    grant = None
    if granted:
        (lot,) = reader.rows_in(_LOAD_GRANTS, [(book.account_id, adjustment_id)])
        grant = Grant(*lot[5:])
    paid = tuple(PaidFrom(*item) for item in orjson.loads(taken))
    made = Adjusted(own_id, amount, reason, at, reduced, grant, paid, added)
    book.adjustments = {**book.adjustments, adjustment_id: made}


def load_refunds(reader: Reader, calls: Pairs) -> Iterator[tuple[int, Refunded]]:
    """Load the refunds of calls, given as (account id, hold id), oldest first; yields (account id, refund)."""
    for account, refund, hold, amount, to, reduced, reason, at in reader.rows_in(_LOAD_REFUNDS, calls):
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


def load_claim(reader: Reader, account_id: int, key: bytes) -> Claimed | None:
    """Load what an idempotency key has claimed."""
    for body, hold_id, at, answered, charged, available in reader.rows(_LOAD_CLAIM, account_id, key):
        return Claimed(Claim(key, bytes(body)), hold_id, at, bool(answered), charged, available)
    return None


def load_answer(reader: Reader, account_id: int, key: bytes) -> bytes | None:
    """Load the answer that is kept under an idempotency key."""
    found = reader.rows(_LOAD_ANSWER, account_id, key)
    return found[0][0] if found else None


def load_clocks(reader: Reader) -> dict[int, int]:
    """Load what the test clocks show, in microseconds since 1970."""
    return dict(reader.rows("SELECT clock_id, now FROM ledger_clock"))


def load_limits(reader: Reader, account_id: int) -> list[Limit]:
    """Load all of an account's spend limits but those of runs."""
    return [Limit(*row) for row in reader.rows(_LIMITS_OF, account_id)]


def pairs_text(pairs: Iterable[tuple[str, int]]) -> str | None:
    """Write what a hold is reserved at; most are at nothing."""
    return json_text([[*pair] for pair in pairs]) if pairs else None


def _read_pairs(text: str | None) -> tuple[tuple[str, int], ...]:
    return () if text is None else tuple((scope, label) for scope, label in orjson.loads(text))


def _read_periods(text: str | None) -> dict[str, Period]:
    return {} if text is None else {bucket: Period(*period) for bucket, period in orjson.loads(text).items()}


def _load_limits(reader: Reader, books: dict[int, Book], commands: Sequence[Command]) -> None:
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
        for account, *limit in reader.rows_in(_LOAD_LIMITS, [*wanted]):
            books[account].limits[limit[0]] = Limit(*limit)


def _load_runs(reader: Reader, books: dict[int, Book], commands: Sequence[Command]) -> None:
    """Load what the runs of calls have come to, where that counts."""
    for command in commands:
        if isinstance(command, (PlaceHold, Settle)) and command.share is not None:
            book, key = books[command.account_id], (command.share.run, command.share.operation)
            if key not in book.runs:
                found = reader.rows(_LOAD_RUN, book.account_id, *key)
                book.runs[key] = Run(*found[0]) if found else Run()
