"""How grants come and go: a new one repays debt first, a dead one loses what no hold pins."""

from __future__ import annotations

from ledger.book import Book
from ledger.commands import VoidGrant
from ledger.errors import Conflict, UnknownGrant
from ledger.model import BREAKAGE, DEBT, NEVER, Grant, Transfer
from ledger.outcomes import Voided

__all__ = ["add_grant", "is_dead", "note_expiry", "release", "void_grant"]


def add_grant(
    book: Book, grant: Grant, kind: str, now: int, *, request: int | None = None, note: str | None = None
) -> int:
    """Put a new grant on the page, moved there from its origin; returns what of it repaid debt. Raises Conflict."""
    grant_id = grant.grant_id
    if grant.granted <= 0 or grant.expires_at <= now or grant_id in book.grants:
        raise Conflict("a grant needs an amount above 0, an expiry to come and an id of its own")
    book.grants[grant_id] = grant
    book.issued.append(grant)
    book.held[grant_id] = book.lost[grant_id] = 0
    book.transfers.append(Transfer(kind, grant.origin, grant_id, grant.granted, now, request, note))
    repaid = min(book.debt, grant.granted)
    if repaid:
        book.debt -= repaid
        book.changed = True
        book.transfers.append(Transfer("repayment", grant_id, DEBT, repaid, now))
    book.balance[grant_id] = grant.granted - repaid
    note_expiry(book, grant)
    return repaid


def note_expiry(book: Book, grant: Grant) -> None:
    """See to it that the page is looked at when this grant expires."""
    if grant.expires_at < book.next_due_at:
        book.next_due_at = grant.expires_at
        book.changed = True


def is_dead(book: Book, grant_id: int, now: int) -> bool:
    """Whether a grant has expired or was voided: what holds release of it, or a refund gives it, is lost."""
    return book.grants[grant_id].expires_at <= now or grant_id in book.voided


def release(book: Book, grant_id: int, now: int, request: int | None = None, note: str | None = None) -> int:
    """Take from a dead grant what no hold pins, and return how much; whichever came first says where it goes.

    Void before expiry: back to its origin. Expiry first: to breakage, though it was voided since.
    """
    free = book.balance[grant_id] - book.held[grant_id]
    if free:
        grant = book.grants[grant_id]
        void = book.voided.get(grant_id, NEVER) < grant.expires_at
        kind, target = ("void", grant.origin) if void else ("expiry", BREAKAGE)
        book.balance[grant_id] -= free
        book.lost[grant_id] += free
        book.touched.add(grant_id)
        book.transfers.append(Transfer(kind, grant_id, target, free, now, request, note))
    return free


def void_grant(book: Book, command: VoidGrant, now: int) -> Voided:
    """Void a grant; raises UnknownGrant."""
    grant_id = command.grant_id
    grant = book.grants.get(grant_id)
    if grant is None:
        raise UnknownGrant(f"no grant {grant_id} in account {book.account_id}")
    if grant_id in book.voided:
        return Voided(grant, 0, book.held[grant_id], book.voided[grant_id], new=False)
    book.voided = {**book.voided, grant_id: now}
    book.touched.add(grant_id)
    amount = release(book, grant_id, now, note=command.reason)
    return Voided(grant, amount, book.held[grant_id], now)
