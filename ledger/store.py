"""The ledger in one database: a batch of commands is loaded, planned and written in a handful of statements."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ledger.backend import Backend, Stale, Write
from ledger.book import Book
from ledger.commands import Command, ForgetAnswers, KeepSeal, OpenAccount, PackSeal, SetClock, Settle, Void
from ledger.engine import apply
from ledger.errors import Conflict, LedgerUnavailable, UnknownClock
from ledger.ids import IdSource, microseconds
from ledger.loading import load
from ledger.outcomes import ClockSet, Closed, Forgotten, Outcome
from ledger.pages import Pages
from ledger.rules import Rules
from ledger.saving import changes
from ledger.sealing import keep, take_away

__all__ = ["Store"]

_PUT_CLOCK = Write("ledger_clock", ("clock_id", "now"), "upsert", 1)
_FREE_CLAIM = Write("ledger_claim", ("account_id", "claim"), "delete", 2)
# Those of test clocks have times of their own.
_OLD_CLAIMS = """SELECT c.account_id, c.claim, LENGTH(c.answer) FROM ledger_claim c
    LEFT JOIN ledger_account a ON a.account_id = c.account_id
    WHERE c.answer IS NOT NULL AND c.at < ? AND a.clock IS NULL ORDER BY c.at LIMIT 100"""
_TRIES = 5
_MOST_FORGOTTEN = 500_000
"""Bytes of answers that one command forgets: everybody else's commands wait for it."""


class Store:
    """One writing connection's commands; used by one thread at a time.

    node, clock, above: make ids, see `ledger.ids.IdSource`. lease: what holds are placed under, asked again for every
    batch.
    """

    def __init__(
        self, backend: Backend, node: int | None = None, clock: Callable[[], int] = microseconds, above: int = 0
    ) -> None:
        self.backend = backend
        self.lease: Callable[[], int | None] = lambda: None
        self._ids = IdSource(clock, node, above)
        self.above = above
        # Where others write too, what was here need not be there any more.
        self._pages = Pages() if backend.exclusive else Pages(0)
        self._clocks: dict[int, int] | None = None
        self._committing = False

    def close(self) -> None:
        self.backend.close()

    def transact(self, commands: Sequence[Command], rules: Rules, now: int) -> list[Outcome]:
        """Carry out a batch in one durable transaction, all or nothing; returns the outcomes in order.

        Raises whatever the engine raises, and LedgerUnavailable, after a rollback: nothing of the batch is written
        then, unless it is the commit itself whose answer was lost.
        """
        for left in reversed(range(_TRIES)):
            try:
                return self._transact(commands, rules, now)
            except self.backend.error as error:
                if self.backend.is_double(error):
                    raise Conflict(f"a command contradicts what is recorded: {error}") from error
                if not left or not self.backend.is_passing(error):
                    nobodys, asked = self.backend.is_nobodys(error), self._committing
                    message = f"the store did not commit: {error}"
                    raise LedgerUnavailable(message, nobodys=nobodys, perhaps_done=asked) from error
        raise AssertionError

    def _transact(self, commands: Sequence[Command], rules: Rules, now: int) -> list[Outcome]:
        backend, clocks, self._committing = self.backend, self._clocks, False
        accounts = {command.account_id for command in commands}
        books = self._pages.take(accounts)
        try:
            ends = [
                (command.account_id, command.hold_id) for command in commands if isinstance(command, (Settle, Void))
            ]
            backend.begin(sorted(accounts), ends)
            load(backend, commands, books)
            if not backend.exclusive:
                self._clocks = None
            outcomes = [self._apply(books[command.account_id], command, rules, now) for command in commands]
            self._save(books)
        except BaseException:
            self._clocks = clocks
            backend.rollback()
            raise
        self._pages.keep(books, commands)
        return outcomes

    def _apply(self, book: Book, command: Command, rules: Rules, now: int) -> Outcome:
        """Carry out a command at its account's own time."""
        if isinstance(command, SetClock):
            return self._set_clock(command)
        if isinstance(command, ForgetAnswers):
            return self._forget(command)
        if isinstance(command, KeepSeal):
            return Closed(keep(self.backend, command))
        if isinstance(command, PackSeal):
            take_away(self.backend, command)
            return Closed(True)
        clock = command.clock if isinstance(command, OpenAccount) and not book.exists else book.clock
        if clock is not None:
            shown = self._shown()
            if clock not in shown:
                raise UnknownClock(f"no clock {clock}")
            now = shown[clock]
        return apply(book, command, rules, now)

    def _forget(self, command: ForgetAnswers) -> Forgotten:
        forgotten: list[tuple[int, bytes]] = []
        size = 0
        for account, claim, length in self.backend.rows(_OLD_CLAIMS, command.before):
            if forgotten and size + length > _MOST_FORGOTTEN:
                break
            forgotten.append((account, claim))
            size += length
        return Forgotten(self.backend.write(_FREE_CLAIM, forgotten) if forgotten else 0)

    def _shown(self) -> dict[int, int]:
        """What the test clocks show."""
        if self._clocks is None:
            self._clocks = dict(self.backend.rows("SELECT clock_id, now FROM ledger_clock"))
        return self._clocks

    def _set_clock(self, command: SetClock) -> ClockSet:
        """Make a test clock, or move it on."""
        before = self._shown().get(command.account_id)
        if before is None and not command.create:
            raise UnknownClock(f"no clock {command.account_id}")
        if before is not None and command.now < before:
            raise Conflict("a clock does not go back")
        self.backend.write(_PUT_CLOCK, [(command.account_id, command.now)])
        self._clocks = {**self._shown(), command.account_id: command.now}
        return ClockSet(command.account_id, command.now)

    def _save(self, books: dict[int, Book]) -> None:
        """Write what the batch changed, and commit."""
        for account, book in books.items():
            freed = [(account, key) for key in book.claims_changed if book.claims[key] is None]
            if freed:
                self.backend.write(_FREE_CLAIM, freed)
        self._committing = True
        try:
            self.backend.commit(
                (write, rows) for write, rows in changes(books.values(), self._ids.next, self.lease) if rows
            )
        except Stale as error:
            # A hold that is gone, say: whoever deletes its row ends it. The pages here were not the file's.
            raise LedgerUnavailable("the ledger's database was changed by somebody else") from error

    def open_holds(self) -> list[tuple[int, int, bytes]]:
        """List every open hold as (account id, hold id, memo)."""
        return [
            (account, hold, bytes(memo))
            for account, hold, memo in self.backend.rows("SELECT account_id, hold_id, memo FROM ledger_hold")
        ]
