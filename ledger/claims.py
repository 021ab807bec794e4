"""Idempotency keys: a call that is made again under one is the same call, held and charged once."""

from __future__ import annotations

from ledger.book import Book
from ledger.commands import PlaceHold, Settle, Void
from ledger.model import KEPT_FOR, Claimed, Hold
from ledger.outcomes import Ended

__all__ = ["claim", "claimed", "end_claim", "is_over"]


def is_over(found: Claimed, now: int) -> bool:
    """Whether an answer has been kept long enough; a call that runs has its key for as long as it runs."""
    return found.answered and found.at + KEPT_FOR <= now


def claimed(book: Book, command: PlaceHold, now: int) -> Claimed | None:
    """Find the call that has a command's key, or None where it is free."""
    found = None if command.claim is None else book.claims.get(command.claim.key)
    return None if found is None or is_over(found, now) else found


def claim(book: Book, command: PlaceHold, now: int) -> None:
    """Give a hold that is placed its key."""
    if command.claim is not None:
        _write(book, command.claim.key, Claimed(command.claim, command.hold_id, now))


def end_claim(book: Book, hold: Hold, command: Settle | Void, ended: Ended) -> None:
    """Keep the answer of a call that has one, and free the key of one that failed."""
    if hold.claim is None:
        return
    key = hold.claim.key
    if isinstance(command, Settle) and command.answer is not None:
        _write(book, key, Claimed(hold.claim, hold.hold_id, ended.ended_at, True, ended.charged, ended.available))
        book.answers = {**book.answers, key: command.answer}
    else:
        _write(book, key, None)


def _write(book: Book, key: bytes, found: Claimed | None) -> None:
    book.claims = {**book.claims, key: found}
    book.claims_changed |= {key}
