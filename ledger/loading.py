"""Loads the pages that a batch turns: accounts with their open grants, and what single commands refer to."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence

import orjson

from ledger.commands import Command, IssueGrant, PlaceHold, Refund, Settle, Void, VoidGrant
from ledger.model import Book, Ended, Grant, Hold, Leg, PaidBack, PaidFrom, Refunded

__all__ = [
    "GRANT_COLUMNS",
    "HOLD_COLUMNS",
    "RECEIPT_COLUMNS",
    "REFUND_COLUMNS",
    "json_text",
    "load",
    "load_books",
    "load_refunds",
]

GRANT_COLUMNS = "grant_id, bucket, source, paid, granted, effective_at, expires_at, created_at, source_key, note"
HOLD_COLUMNS = "account_id, hold_id, amount, legs, memo, created_at, deadline"
RECEIPT_COLUMNS = "account_id, hold_id, status, charged, paid_from, debt, memo, created_at, ended_at, late"
REFUND_COLUMNS = "account_id, refund_id, hold_id, amount, paid_to, debt_reduced, reason, created_at"

_LOT = f"balance, held, lost, voided_at, {GRANT_COLUMNS}"
_LOAD_BOOKS = (
    "SELECT a.account_id, a.status, a.timezone, a.debt, a.overdraft_limit, a.overdraft_held, a.next_due_at,"
    " a.created_at, " + ", ".join(f"g.{name}" for name in _LOT.split(", ")) + " FROM ledger_account a"
    " LEFT JOIN ledger_grant g INDEXED BY ledger_grant_open ON g.account_id = a.account_id AND g.open = 1"
    " WHERE a.account_id IN (SELECT value FROM json_each(?))"
)
_PAIRS = "(SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]') FROM json_each(?))"
_LOAD_HOLDS = f"SELECT {HOLD_COLUMNS} FROM ledger_hold WHERE (account_id, hold_id) IN {_PAIRS}"
_LOAD_RECEIPTS = f"SELECT {RECEIPT_COLUMNS} FROM ledger_receipt WHERE (account_id, hold_id) IN {_PAIRS}"
_LOAD_REFUNDS = (
    f"SELECT {REFUND_COLUMNS} FROM ledger_refund INDEXED BY ledger_refund_call"
    f" WHERE (account_id, hold_id) IN {_PAIRS} ORDER BY refund_id"
)
_LOAD_GRANTS = f"SELECT account_id, {_LOT} FROM ledger_grant WHERE (account_id, grant_id) IN {_PAIRS}"
_LOAD_SOURCE = f"SELECT {_LOT} FROM ledger_grant WHERE account_id = ? AND source_key = ?"


def load_books(cursor: sqlite3.Cursor, accounts: Iterable[int]) -> dict[int, Book]:
    """Load accounts' pages with their open grants; an unknown account's page has `exists` False."""
    wanted = list(accounts)
    books: dict[int, Book] = {}
    for row in cursor.execute(_LOAD_BOOKS, (json_text(wanted),)):
        book = books.get(row[0])
        if book is None:
            book = books[row[0]] = Book(*row[:8])
            book.exists = True
        if row[8] is not None:
            _add_lot(book, row[8:])
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
            continue
        if isinstance(command, (Settle, Void)):
            if command.hold_id not in books[command.account_id].holds:
                ends.add((command.account_id, command.hold_id))
        elif isinstance(command, IssueGrant):
            if command.source_key is not None:
                _load_source(cursor, books[command.account_id], command.source_key)
        elif isinstance(command, (VoidGrant, Refund)):
            corrections.append(command)
    if ends:
        for row in cursor.execute(_LOAD_HOLDS, (json_text([*ends]),)).fetchall():
            legs = tuple(Leg(*leg) for leg in orjson.loads(row[3]))
            books[row[0]].holds[row[1]] = Hold(row[1], row[2], legs, row[4], row[5], row[6])
            ends.discard((row[0], row[1]))
    if ends:
        # Also those that are placed in this very batch: an id that has ended before must not be placed again.
        _load_ended(cursor, books, [[*pair] for pair in ends])
    if corrections:
        _load_corrected(cursor, books, corrections)


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
        account, hold, status, charged, paid_from, debt, memo, created, ended, late = row
        paid = tuple(PaidFrom(*item) for item in orjson.loads(paid_from))
        books[account].ended[hold] = Ended(hold, status, charged, paid, debt, memo, created, ended, 0, bool(late))


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


def load_refunds(cursor: sqlite3.Cursor, calls: list[list[int]]) -> Iterator[tuple[int, Refunded]]:
    """Load the refunds of calls, given as [[account id, hold id]], oldest first; yields (account id, refund)."""
    for account, refund, hold, amount, to, reduced, reason, at in cursor.execute(_LOAD_REFUNDS, (json_text(calls),)):
        paid_to = tuple(PaidBack(*item) for item in orjson.loads(to))
        yield account, Refunded(refund, hold, amount, paid_to, reduced, reason, at)


def json_text(value: object) -> str:
    return orjson.dumps(value).decode()
