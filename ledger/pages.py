"""Pages kept between batches: what the last commit left in the file need not be read from it again.

Only the process that has the ledger's lock writes to it, so a page that was committed is what the file says. A batch
takes its pages out, and puts them back after its commit: one that fails leaves nothing here to be wrong.
"""

from __future__ import annotations

from collections.abc import Iterable

from ledger.book import Book
from ledger.commands import Command, PlaceHold, Settle, Void

__all__ = ["Pages"]

_MOST = 2_000
_MOST_ASKED = 64


class Pages:
    """Accounts' pages as they are in the file, those used last; most: how many are kept."""

    def __init__(self, most: int = _MOST) -> None:
        self._most = most
        self._books: dict[int, Book] = {}

    def take(self, accounts: Iterable[int]) -> dict[int, Book]:
        """Take out the pages that are here."""
        taken: dict[int, Book] = {}
        for account in accounts:
            book = self._books.pop(account, None)
            if book is not None:
                taken[account] = book
        return taken

    def keep(self, books: dict[int, Book], commands: Iterable[Command]) -> None:
        """Put a batch's pages back, all of them written and committed.

        What is not a call's hold or end may have loaded more than a page has, so such pages are read again.
        """
        if not self._most:
            return
        rare = {command.account_id for command in commands if not isinstance(command, (PlaceHold, Settle, Void))}
        for account, book in books.items():
            if account not in rare:
                self._books[account] = _written(book)
        while len(self._books) > self._most:
            del self._books[next(iter(self._books))]


def _written(book: Book) -> Book:
    """Make the page that loading would: only grants of which something is left, and nothing more to be written.

    It also has the open holds that it was there to see placed.
    """
    for grant_id in book.touched:
        if not book.balance[grant_id]:
            for lots in (book.grants, book.balance, book.held, book.lost):
                del lots[grant_id]
    few = len(book.asked) < _MOST_ASKED
    return Book(
        account_id=book.account_id,
        status=book.status,
        timezone=book.timezone,
        debt=book.debt,
        overdraft_limit=book.overdraft_limit,
        overdraft_held=book.overdraft_held,
        next_due_at=book.next_due_at,
        created_at=book.created_at,
        plan=book.plan,
        next_plan=book.next_plan,
        next_plan_at=book.next_plan_at,
        periods=book.periods,
        clock=book.clock,
        seen_at=book.seen_at,
        limited=book.limited,
        exists=True,
        grants=book.grants,
        balance=book.balance,
        held=book.held,
        lost=book.lost,
        holds=book.holds,
        voided=book.voided,
        limits=book.limits if few else {},
        asked=book.asked if few else set(),
        runs=book.runs if len(book.runs) < _MOST_ASKED else {},
    )
