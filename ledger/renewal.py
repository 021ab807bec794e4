"""What time alone does to an account, worked out lazily: no clock, no cron, one integer compare when nothing is due."""

from __future__ import annotations

from ledger.grants import release
from ledger.model import NEVER, Book

__all__ = ["bring_up_to"]


def bring_up_to(book: Book, now: int) -> None:
    """Expire what is due at `now`: of each expired grant, what no hold pins goes to breakage."""
    if book.next_due_at > now:
        return
    due = NEVER
    for grant_id, grant in book.grants.items():
        if grant.expires_at <= now:
            release(book, grant_id, now)
        # The store forgets grants of which nothing is left, so they must not count here either.
        elif grant.expires_at < due and book.balance[grant_id]:
            due = grant.expires_at
    book.next_due_at = due
    book.changed = True
