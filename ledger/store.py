"""The ledger in one SQLite file: a batch of commands is loaded, planned and written in a handful of statements."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence

import orjson
from sqlalchemy.dialects import sqlite as dialect
from sqlalchemy.schema import CreateIndex, CreateTable

from ledger.burn import BucketOrder
from ledger.commands import Command, IssueGrant, PlaceHold, Settle, Void
from ledger.engine import apply
from ledger.errors import Conflict, LedgerUnavailable
from ledger.ids import IdSource
from ledger.model import Book, Ended, Grant, Hold, Leg, Outcome, PaidFrom
from ledger.tables import HOLD_HAS_ENDED, TABLES, TRIGGERS

__all__ = ["Store", "load_books"]

_GRANT = "grant_id, bucket, source, paid, granted, effective_at, expires_at, created_at, source_key, note"
_LOAD_BOOKS = (
    "SELECT a.account_id, a.status, a.timezone, a.debt, a.overdraft_limit, a.overdraft_held, a.next_due_at,"
    " a.created_at, g.balance, g.held, g.lost, "
    + ", ".join(f"g.{name}" for name in _GRANT.split(", "))
    + " FROM ledger_account a"
    " LEFT JOIN ledger_grant g INDEXED BY ledger_grant_open ON g.account_id = a.account_id AND g.open = 1"
    " WHERE a.account_id IN (SELECT value FROM json_each(?))"
)
_PAIRS = "(SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]') FROM json_each(?))"
_HOLD = "account_id, hold_id, amount, legs, memo, created_at, deadline"
_RECEIPT = "account_id, hold_id, status, charged, paid_from, debt, memo, created_at, ended_at, late"
_TAKE_HOLDS = f"DELETE FROM ledger_hold WHERE (account_id, hold_id) IN {_PAIRS} RETURNING {_HOLD}"
_UPDATE_GRANT = "UPDATE ledger_grant SET balance = ?, held = ?, lost = ? WHERE account_id = ? AND grant_id = ?"
_FLIP_GRANT = "UPDATE ledger_grant SET open = ? WHERE account_id = ? AND grant_id = ?"
_INSERT_GRANT = (
    f"INSERT INTO ledger_grant (account_id, {_GRANT}, balance, held, lost, open) VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)"
)
_INSERT_HOLD = f"INSERT INTO ledger_hold ({_HOLD}) VALUES (?,?,?,?,?,?,?)"
_INSERT_TRANSFER = (
    "INSERT INTO ledger_transfer (account_id, transfer_id, kind, source, target, amount, at, request)"
    " VALUES (?,?,?,?,?,?,?,?)"
)
_UPSERT_RECEIPT = (
    f"INSERT INTO ledger_receipt ({_RECEIPT}) VALUES (?,?,?,?,?,?,?,?,?,?) ON CONFLICT (account_id, hold_id) DO UPDATE"
    " SET status = excluded.status, charged = excluded.charged, paid_from = excluded.paid_from, debt = excluded.debt,"
    " memo = excluded.memo, ended_at = excluded.ended_at, late = excluded.late"
)
_UPSERT_ACCOUNT = (
    "INSERT INTO ledger_account (account_id, status, timezone, debt, overdraft_limit, overdraft_held, next_due_at,"
    " created_at) VALUES (?,?,?,?,?,?,?,?) ON CONFLICT (account_id) DO UPDATE SET status = excluded.status,"
    " timezone = excluded.timezone, debt = excluded.debt, overdraft_limit = excluded.overdraft_limit,"
    " overdraft_held = excluded.overdraft_held, next_due_at = excluded.next_due_at"
)


def load_books(cursor: sqlite3.Cursor, accounts: Iterable[int]) -> dict[int, Book]:
    """Load accounts' pages with their open grants; an unknown account's page has `exists` False."""
    books = {account: Book(account) for account in accounts}
    for row in cursor.execute(_LOAD_BOOKS, (_json(list(books)),)):
        book = books[row[0]]
        if not book.exists:
            book = books[row[0]] = Book(*row[:8])
            book.exists = True
        if row[8] is not None:
            _add_grant(book, row[8:])
    return books


def _add_grant(book: Book, row: tuple[int, ...]) -> None:
    grant = Grant(*row[3:])  # type: ignore[arg-type]  # the columns of _GRANT, in order
    book.grants[grant.grant_id] = grant
    book.balance[grant.grant_id] = row[0]
    book.held[grant.grant_id] = row[1]
    book.lost[grant.grant_id] = row[2]


def _is_double(error: sqlite3.IntegrityError) -> bool:
    """Whether something was to be recorded twice; any other constraint that fails is a fault, not a contradiction."""
    names = ("SQLITE_CONSTRAINT_PRIMARYKEY", "SQLITE_CONSTRAINT_UNIQUE")
    return error.sqlite_errorname in names or HOLD_HAS_ENDED in str(error)


def _json(value: object) -> str:
    return orjson.dumps(value).decode()


class Store:
    """One writing connection; used by one thread at a time."""

    def __init__(self, path: str) -> None:
        if sqlite3.sqlite_version_info < (3, 38):
            raise LedgerUnavailable(f"SQLite {sqlite3.sqlite_version} is too old; 3.38 or newer is needed")
        self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=10)
        self._cursor = self._connection.cursor()
        self._ids = IdSource()
        try:
            # FULL: a commit that was acknowledged survives a power cut.
            for pragma in ("journal_mode=WAL", "synchronous=FULL", "cache_size=-16384", "wal_autocheckpoint=4000"):
                self._cursor.execute(f"PRAGMA {pragma}").fetchall()
        except BaseException:
            self._connection.close()
            raise

    def create(self) -> None:
        """Create what is missing of the tables."""
        engine_dialect = dialect.dialect()
        self._cursor.execute("BEGIN IMMEDIATE")
        for table in TABLES:
            self._cursor.execute(str(CreateTable(table, if_not_exists=True).compile(dialect=engine_dialect)))
            for index in table.indexes:
                self._cursor.execute(str(CreateIndex(index, if_not_exists=True).compile(dialect=engine_dialect)))
        for trigger in TRIGGERS:
            self._cursor.execute(trigger)
        self._cursor.execute("COMMIT")

    def close(self) -> None:
        self._connection.close()

    def transact(self, commands: Sequence[Command], order: BucketOrder, now: int) -> list[Outcome]:
        """Carry out a batch in one durable transaction, all or nothing; returns the outcomes in order.

        Raises whatever the engine or SQLite raise, after a rollback: nothing of the batch is written then.
        """
        cursor = self._cursor
        cursor.execute("BEGIN IMMEDIATE")
        try:
            books = self._load(commands)
            outcomes = [apply(books[command.account_id], command, order, now) for command in commands]
            self._save(books.values())
            cursor.execute("COMMIT")
        except BaseException as error:
            if self._connection.in_transaction:
                cursor.execute("ROLLBACK")
            if isinstance(error, sqlite3.IntegrityError) and _is_double(error):
                raise Conflict(f"a command contradicts what is recorded: {error}") from error
            raise
        return outcomes

    def _load(self, commands: Sequence[Command]) -> dict[int, Book]:
        cursor = self._cursor
        books = load_books(cursor, {command.account_id for command in commands})
        ends: dict[int, int] = {}
        for command in commands:
            if isinstance(command, (Settle, Void)):
                ends[command.hold_id] = command.account_id
            elif isinstance(command, IssueGrant) and command.source_key is not None:
                self._load_source(books[command.account_id], command.source_key)
        if ends:
            for row in cursor.execute(_TAKE_HOLDS, (_json([[a, h] for h, a in ends.items()]),)).fetchall():
                legs = tuple(Leg(*leg) for leg in orjson.loads(row[3]))
                books[row[0]].holds[row[1]] = Hold(row[1], row[2], legs, row[4], row[5], row[6])
                del ends[row[1]]
        placed_here = {command.hold_id for command in commands if isinstance(command, PlaceHold)} if ends else ()
        missing = [[account, hold] for hold, account in ends.items() if hold not in placed_here]
        if missing:
            self._load_ended(books, missing)
        return books

    def _load_source(self, book: Book, source_key: str) -> None:
        for row in self._cursor.execute(
            f"SELECT balance, held, lost, {_GRANT} FROM ledger_grant WHERE account_id = ? AND source_key = ?",
            (book.account_id, source_key),
        ):
            _add_grant(book, row)

    def _load_ended(self, books: dict[int, Book], pairs: list[list[int]]) -> None:
        for row in self._cursor.execute(
            f"SELECT {_RECEIPT} FROM ledger_receipt WHERE (account_id, hold_id) IN {_PAIRS}", (_json(pairs),)
        ).fetchall():
            account, hold, status, charged, paid_from, debt, memo, created, ended, late = row
            paid = tuple(PaidFrom(*item) for item in orjson.loads(paid_from))
            books[account].ended[hold] = Ended(hold, status, charged, paid, debt, memo, created, ended, 0, bool(late))

    def _save(self, books: Iterable[Book]) -> None:
        grants: list[tuple[int, int, int, int, int]] = []
        flips: list[tuple[int, int, int]] = []
        issued: list[tuple[object, ...]] = []
        holds: list[tuple[object, ...]] = []
        receipts: list[tuple[object, ...]] = []
        transfers: list[tuple[object, ...]] = []
        accounts: list[tuple[object, ...]] = []
        for book in books:
            account = book.account_id
            new = {grant.grant_id for grant in book.issued} if book.issued else ()
            for grant in book.issued:
                left = book.balance[grant.grant_id]
                issued.append(
                    (account, *grant, left, book.held[grant.grant_id], book.lost[grant.grant_id], int(left > 0))
                )
            for grant_id in book.touched:
                if grant_id not in new:
                    left = book.balance[grant_id]
                    grants.append((left, book.held[grant_id], book.lost[grant_id], account, grant_id))
                    if left == 0:
                        flips.append((0, account, grant_id))
            for hold in book.placed:
                # Placed and ended within one batch: it never needs a row.
                if hold.hold_id in book.holds:
                    legs = _json([[*leg] for leg in hold.legs])
                    holds.append((account, hold.hold_id, hold.amount, legs, hold.memo, hold.created_at, hold.deadline))
            for e in book.closed:
                paid = _json([[*paid] for paid in e.paid_from])
                receipts.append(
                    (
                        account,
                        e.hold_id,
                        e.status,
                        e.charged,
                        paid,
                        e.debt,
                        e.memo,
                        e.created_at,
                        e.ended_at,
                        int(e.late),
                    )
                )
            for t in book.transfers:
                transfers.append((account, self._ids.next(), t.kind, t.source, t.target, t.amount, t.at, t.request))
            if book.changed:
                moving = (book.debt, book.overdraft_limit, book.overdraft_held, book.next_due_at)
                accounts.append((account, book.status, book.timezone, *moving, book.created_at))
        for statement, rows in (
            (_UPSERT_ACCOUNT, accounts),
            (_INSERT_GRANT, issued),
            (_UPDATE_GRANT, grants),
            (_FLIP_GRANT, flips),
            (_INSERT_HOLD, holds),
            (_UPSERT_RECEIPT, receipts),
            (_INSERT_TRANSFER, transfers),
        ):
            if rows:
                self._cursor.executemany(statement, rows)

    def open_holds(self) -> list[tuple[int, int, bytes]]:
        """List every open hold as (account id, hold id, memo)."""
        return self._cursor.execute("SELECT account_id, hold_id, memo FROM ledger_hold").fetchall()
