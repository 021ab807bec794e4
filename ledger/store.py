"""The ledger in one SQLite file: a batch of commands is loaded, planned and written in a handful of statements."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable, Sequence

from sqlalchemy import Dialect, Table
from sqlalchemy.dialects import sqlite as dialect
from sqlalchemy.schema import CreateIndex, CreateTable

from ledger.book import Book
from ledger.commands import Command, ForgetAnswers, OpenAccount, SetClock
from ledger.engine import apply
from ledger.errors import Conflict, LedgerUnavailable, UnknownClock
from ledger.ids import IdSource
from ledger.loading import (
    ACCOUNT_COLUMNS,
    CLAIM_COLUMNS,
    GRANT_COLUMNS,
    HOLD_COLUMNS,
    LIMIT_COLUMNS,
    RECEIPT_COLUMNS,
    REFUND_COLUMNS,
    account_row,
    json_text,
    load,
    load_clocks,
    pairs_text,
)
from ledger.outcomes import ClockSet, Forgotten, Outcome, Refunded
from ledger.pages import Pages
from ledger.rules import Rules
from ledger.tables import HOLD_HAS_ENDED, TABLES, TRIGGERS

__all__ = ["Store"]

_UPDATE_GRANT = "UPDATE ledger_grant SET balance = ?, held = ?, lost = ? WHERE account_id = ? AND grant_id = ?"
_FLIP_GRANT = "UPDATE ledger_grant SET open = ? WHERE account_id = ? AND grant_id = ?"
_INSERT_GRANT = (
    f"INSERT INTO ledger_grant (account_id, {GRANT_COLUMNS}, balance, held, lost, open)"
    " VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)"
)
_VOID_GRANT = "UPDATE ledger_grant SET voided_at = ? WHERE account_id = ? AND grant_id = ?"
_INSERT_REFUND = f"INSERT INTO ledger_refund ({REFUND_COLUMNS}) VALUES (?,?,?,?,?,?,?,?)"
_INSERT_ADJUSTMENT = (
    "INSERT INTO ledger_adjustment"
    " (account_id, adjustment_id, amount, reason, created_at, debt_reduced, granted, taken, debt_added)"
    " VALUES (?,?,?,?,?,?,?,?,?)"
)
_DELETE_HOLD = "DELETE FROM ledger_hold WHERE account_id = ? AND hold_id = ?"
_INSERT_HOLD = f"INSERT INTO ledger_hold ({HOLD_COLUMNS}) VALUES (?,?,?,?,?,?,?,?,?)"
_INSERT_TRANSFER = (
    "INSERT INTO ledger_transfer (account_id, transfer_id, kind, source, target, amount, at, request, note)"
    " VALUES (?,?,?,?,?,?,?,?,?)"
)
_UPSERT_RECEIPT = (
    f"INSERT INTO ledger_receipt ({RECEIPT_COLUMNS}) VALUES (?,?,?,?,?,?,?,?,?,?,?)"
    " ON CONFLICT (account_id, hold_id) DO UPDATE SET status = excluded.status, charged = excluded.charged,"
    " paid_from = excluded.paid_from, debt = excluded.debt, memo = excluded.memo,"
    " ended_at = excluded.ended_at, late = excluded.late"
)
_UPSERT_ACCOUNT = (
    f"INSERT INTO ledger_account ({ACCOUNT_COLUMNS}) VALUES ({','.join('?' * len(ACCOUNT_COLUMNS.split(',')))})"
    " ON CONFLICT (account_id) DO UPDATE SET "
    + ", ".join(f"{name} = excluded.{name}" for name in ACCOUNT_COLUMNS.split(", ")[1:])
)
_UPSERT_LIMIT = (
    f"INSERT INTO ledger_limit (account_id, {LIMIT_COLUMNS}) VALUES (?,?,?,?,?,?,?,?) ON CONFLICT (account_id, scope)"
    " DO UPDATE SET amount = excluded.amount, per = excluded.per, label = excluded.label, ends_at = excluded.ends_at,"
    " spent = excluded.spent, reserved = excluded.reserved"
)
_PUT_CLAIM = f"INSERT OR REPLACE INTO ledger_claim ({CLAIM_COLUMNS}) VALUES (?,?,?,?,?,?,?,?)"
_FREE_CLAIM = "DELETE FROM ledger_claim WHERE account_id = ? AND claim = ?"
# Those of test clocks have times of their own.
_OLD_CLAIMS = """SELECT c.account_id, c.claim, LENGTH(c.answer) FROM ledger_claim c
    LEFT JOIN ledger_account a USING (account_id)
    WHERE c.answer IS NOT NULL AND c.at < ? AND a.clock IS NULL ORDER BY c.at LIMIT 100"""
_MOST_FORGOTTEN = 500_000
"""Bytes of answers that one command forgets: everybody else's commands wait for it."""

_UPSERT_RUN = (
    "INSERT INTO ledger_run (account_id, run, operation, raw, charged) VALUES (?,?,?,?,?)"
    " ON CONFLICT (account_id, run, operation) DO UPDATE SET raw = excluded.raw, charged = excluded.charged"
)
_UPSERT_CLOCK = (
    "INSERT INTO ledger_clock (clock_id, now) VALUES (?,?) ON CONFLICT (clock_id) DO UPDATE SET now = excluded.now"
)


def _is_double(error: sqlite3.IntegrityError) -> bool:
    """Whether something was to be recorded twice; any other constraint that fails is a fault, not a contradiction."""
    names = ("SQLITE_CONSTRAINT_PRIMARYKEY", "SQLITE_CONSTRAINT_UNIQUE")
    return error.sqlite_errorname in names or HOLD_HAS_ENDED in str(error)


def _refund_row(account_id: int, made: Refunded) -> tuple[object, ...]:
    to = json_text([[*back] for back in made.to])
    return (account_id, made.refund_id, made.hold_id, made.amount, to, made.debt_reduced, made.reason, made.created_at)


class Store:
    """One writing connection; used by one thread at a time."""

    def __init__(self, path: str) -> None:
        if sqlite3.sqlite_version_info < (3, 38):
            raise LedgerUnavailable(f"SQLite {sqlite3.sqlite_version} is too old; 3.38 or newer is needed")
        # It holds people's balances: nobody else's to read. What SQLite puts beside it gets the same mode.
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
        self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=10)
        self._cursor = self._connection.cursor()
        self._ids = IdSource()
        self._pages = Pages()
        self._clocks: dict[int, int] = {}
        try:
            # FULL: a commit that was acknowledged survives a power cut.
            for pragma in ("journal_mode=WAL", "synchronous=FULL", "cache_size=-16384", "wal_autocheckpoint=4000"):
                self._cursor.execute(f"PRAGMA {pragma}").fetchall()
        except BaseException:
            self._connection.close()
            raise

    def create(self) -> None:
        """Create what is missing of the tables and their columns."""
        engine_dialect = dialect.dialect()
        self._cursor.execute("BEGIN IMMEDIATE")
        for table in TABLES:
            self._cursor.execute(str(CreateTable(table, if_not_exists=True).compile(dialect=engine_dialect)))
            self._add_columns(table, engine_dialect)
            for index in table.indexes:
                self._cursor.execute(str(CreateIndex(index, if_not_exists=True).compile(dialect=engine_dialect)))
        for trigger in TRIGGERS:
            self._cursor.execute(trigger)
        self._cursor.execute("COMMIT")
        self._clocks = load_clocks(self._cursor)

    def _add_columns(self, table: Table, engine_dialect: Dialect) -> None:
        """Bring a table that an older release made up to date; what releases add may be null."""
        present = {row[1] for row in self._cursor.execute(f"PRAGMA table_info({table.name})")}
        for column in table.columns:
            if column.name not in present:
                kind = column.type.compile(engine_dialect)
                self._cursor.execute(f"ALTER TABLE {table.name} ADD COLUMN {column.name} {kind}")

    def close(self) -> None:
        self._connection.close()

    def transact(self, commands: Sequence[Command], rules: Rules, now: int) -> list[Outcome]:
        """Carry out a batch in one durable transaction, all or nothing; returns the outcomes in order.

        Raises whatever the engine or SQLite raise, after a rollback: nothing of the batch is written then.
        """
        cursor = self._cursor
        clocks = self._clocks
        books = self._pages.take({command.account_id for command in commands})
        cursor.execute("BEGIN IMMEDIATE")
        try:
            load(cursor, commands, books)
            outcomes = [self._apply(books[command.account_id], command, rules, now) for command in commands]
            self._save(books.values())
            cursor.execute("COMMIT")
        except BaseException as error:
            self._clocks = clocks
            if self._connection.in_transaction:
                cursor.execute("ROLLBACK")
            if isinstance(error, sqlite3.IntegrityError) and _is_double(error):
                raise Conflict(f"a command contradicts what is recorded: {error}") from error
            raise
        self._pages.keep(books, commands)
        return outcomes

    def _apply(self, book: Book, command: Command, rules: Rules, now: int) -> Outcome:
        """Carry out a command at its account's own time."""
        if isinstance(command, SetClock):
            return self._set_clock(command)
        if isinstance(command, ForgetAnswers):
            return self._forget(command)
        clock = command.clock if isinstance(command, OpenAccount) and not book.exists else book.clock
        if clock is not None:
            if clock not in self._clocks:
                raise UnknownClock(f"no clock {clock}")
            now = self._clocks[clock]
        return apply(book, command, rules, now)

    def _forget(self, command: ForgetAnswers) -> Forgotten:
        forgotten = size = 0
        for account, claim, length in self._cursor.execute(_OLD_CLAIMS, (command.before,)).fetchall():
            if forgotten and size + length > _MOST_FORGOTTEN:
                break
            self._cursor.execute(_FREE_CLAIM, (account, claim))
            forgotten, size = forgotten + 1, size + length
        return Forgotten(forgotten)

    def _set_clock(self, command: SetClock) -> ClockSet:
        """Make a test clock, or move it on."""
        before = self._clocks.get(command.account_id)
        if before is None and not command.create:
            raise UnknownClock(f"no clock {command.account_id}")
        if before is not None and command.now < before:
            raise Conflict("a clock does not go back")
        self._cursor.execute(_UPSERT_CLOCK, (command.account_id, command.now))
        self._clocks = {**self._clocks, command.account_id: command.now}
        return ClockSet(command.account_id, command.now)

    def _save(self, books: Iterable[Book]) -> None:
        grants: list[tuple[int, int, int, int, int]] = []
        flips: list[tuple[int, int, int]] = []
        issued: list[tuple[object, ...]] = []
        holds: list[tuple[object, ...]] = []
        freed: list[tuple[int, int]] = []
        receipts: list[tuple[object, ...]] = []
        refunds: list[tuple[object, ...]] = []
        adjustments: list[tuple[object, ...]] = []
        voids: list[tuple[int, int, int]] = []
        transfers: list[tuple[object, ...]] = []
        accounts: list[tuple[object, ...]] = []
        limits: list[tuple[object, ...]] = []
        runs: list[tuple[object, ...]] = []
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
            for grant_id in book.reopened:
                if book.balance[grant_id] > 0:
                    flips.append((1, account, grant_id))
            if book.voided:
                voids += [(at, account, grant_id) for grant_id, at in book.voided.items() if grant_id in book.touched]
            for hold in book.placed:
                # Placed and ended within one batch: it never needs a row.
                if hold.hold_id in book.holds:
                    legs = json_text([[*leg] for leg in hold.legs])
                    holds.append(
                        (
                            account,
                            hold.hold_id,
                            hold.amount,
                            legs,
                            hold.memo,
                            hold.created_at,
                            hold.deadline,
                            pairs_text(hold.limits),
                            None if hold.claim is None else hold.claim.key + hold.claim.body,
                        )
                    )
            placed = {hold.hold_id for hold in book.placed} if book.placed else ()
            for e in book.closed:
                # One that is settled late had its row taken when it was released.
                if e.hold_id not in placed and not e.late:
                    freed.append((account, e.hold_id))
                paid = json_text([[*paid] for paid in e.paid_from])
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
                        pairs_text(e.limits),
                    )
                )
            if book.refunded:
                refunds += [_refund_row(account, made) for made in book.refunded]
            for a in book.adjusted:
                taken = json_text([[*paid] for paid in a.taken])
                about = (a.adjustment_id, a.amount, a.reason, a.created_at, a.debt_reduced)
                adjustments.append((account, *about, int(a.grant is not None), taken, a.debt_added))
            for t in book.transfers:
                transfers.append(
                    (account, self._ids.next(), t.kind, t.source, t.target, t.amount, t.at, t.request, t.note)
                )
            limits += [(account, *book.limits[scope]) for scope in book.limits_changed]
            runs += [(account, *key, *book.runs[key]) for key in book.runs_changed]
            if book.claims_changed:
                self._save_claims(book)
            if book.changed:
                accounts.append(account_row(book))
        for statement, rows in (
            (_UPSERT_ACCOUNT, accounts),
            (_INSERT_GRANT, issued),
            (_UPDATE_GRANT, grants),
            (_FLIP_GRANT, flips),
            (_VOID_GRANT, voids),
            (_DELETE_HOLD, freed),
            (_INSERT_HOLD, holds),
            (_UPSERT_RECEIPT, receipts),
            (_INSERT_REFUND, refunds),
            (_INSERT_ADJUSTMENT, adjustments),
            (_INSERT_TRANSFER, transfers),
            (_UPSERT_LIMIT, limits),
            (_UPSERT_RUN, runs),
        ):
            if rows:
                self._cursor.executemany(statement, rows)
                if self._cursor.rowcount != len(rows):
                    # A hold that is gone, say: whoever deletes its row ends it. The pages here were not the file's.
                    raise LedgerUnavailable("the ledger's file was changed by somebody else")

    def _save_claims(self, book: Book) -> None:
        for key in book.claims_changed:
            found = book.claims[key]
            if found is None:
                self._cursor.execute(_FREE_CLAIM, (book.account_id, key))
            else:
                row = (book.account_id, *found.claim, found.hold_id, found.at, found.charged, found.available)
                self._cursor.execute(_PUT_CLAIM, (*row, book.answers[key] if found.answered else None))

    def open_holds(self) -> list[tuple[int, int, bytes]]:
        """List every open hold as (account id, hold id, memo)."""
        return self._cursor.execute("SELECT account_id, hold_id, memo FROM ledger_hold").fetchall()
