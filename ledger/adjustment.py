"""Corrections by a signed amount: up writes off debt and grants the rest, down takes credits and owes the rest."""

from __future__ import annotations

from ledger.book import Book
from ledger.burn import BucketOrder, burnable
from ledger.commands import Adjust
from ledger.errors import Conflict
from ledger.grants import add_grant
from ledger.model import ADJUSTED, ADJUSTMENT, DEBT, NEVER, Grant, PaidFrom, Transfer
from ledger.outcomes import Adjusted

__all__ = ["adjust"]


def adjust(book: Book, command: Adjust, order: BucketOrder, now: int) -> Adjusted:
    """Post an adjustment, once under its id; raises Conflict for one of 0."""
    if command.amount == 0:
        raise Conflict("an adjustment is above or below 0")
    made = book.adjustments.get(command.adjustment_id)
    if made is None:
        made = _raise(book, command, now) if command.amount > 0 else _lower(book, command, order, now)
        book.adjustments = {**book.adjustments, made.adjustment_id: made}
        book.adjusted = (*book.adjusted, made)
    return made


def _raise(book: Book, command: Adjust, now: int) -> Adjusted:
    reduced = min(book.debt, command.amount)
    if reduced:
        book.debt -= reduced
        book.changed = True
        book.transfers.append(_transfer(ADJUSTMENT, DEBT, reduced, command, now))
    rest = command.amount - reduced
    if not rest:
        return Adjusted(command.adjustment_id, command.amount, command.reason, now, reduced, None)
    grant = Grant(
        grant_id=command.adjustment_id,
        bucket=command.bucket,
        source=ADJUSTED,
        paid=False,
        granted=rest,
        effective_at=now,
        expires_at=NEVER if command.expires_at is None else command.expires_at,
        created_at=now,
        note=command.reason,
    )
    add_grant(book, grant, "adjustment", now, note=command.reason)
    return Adjusted(command.adjustment_id, command.amount, command.reason, now, reduced, grant)


def _lower(book: Book, command: Adjust, order: BucketOrder, now: int) -> Adjusted:
    takes, owed = burnable(book, order, -command.amount, now)
    for grant_id, take in takes:
        book.balance[grant_id] -= take
        # It was not spent: a bucket's count of used-up grants must not include it.
        book.lost[grant_id] += take
        book.touched.add(grant_id)
        book.transfers.append(_transfer(grant_id, ADJUSTMENT, take, command, now))
    if owed:
        book.debt += owed
        book.changed = True
        book.transfers.append(_transfer(DEBT, ADJUSTMENT, owed, command, now))
    taken = tuple(PaidFrom(grant_id, book.grants[grant_id].bucket, take) for grant_id, take in takes)
    return Adjusted(command.adjustment_id, command.amount, command.reason, now, 0, None, taken, owed)


def _transfer(source: int, target: int, amount: int, command: Adjust, now: int) -> Transfer:
    return Transfer("adjustment", source, target, amount, now, None, command.reason)
