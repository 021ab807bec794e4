"""What time alone does to an account, worked out lazily: no clock, no cron, one integer compare when nothing is due."""

from __future__ import annotations

from ledger.model import BREAKAGE, NEVER, Book, Transfer

__all__ = ["bring_up_to", "release_to_breakage"]


def bring_up_to(book: Book, now: int) -> None:
    """Expire what is due at `now`: of each expired grant, what no hold pins goes to breakage."""
    if book.next_due_at > now:
        return
    due = NEVER
    for grant_id, grant in book.grants.items():
        if grant.expires_at <= now:
            release_to_breakage(book, grant_id, now)
        elif grant.expires_at < due:
            due = grant.expires_at
    book.next_due_at = due
    book.changed = True


def release_to_breakage(book: Book, grant_id: int, now: int, request: int | None = None) -> None:
    """Take from an expired grant what no hold pins."""
    free = book.balance[grant_id] - book.held[grant_id]
    if free:
        book.balance[grant_id] -= free
        book.lost[grant_id] += free
        book.touched.add(grant_id)
        book.transfers.append(Transfer("expiry", grant_id, BREAKAGE, free, now, request))
