"""Refunds: a charge goes back the way it came, its debt first, then the grants that paid, last burned first.

Refunds of one call follow one another along that way, so what was refunded before says where the next one starts.
"""

from __future__ import annotations

from collections.abc import Iterator

from ledger.book import Book
from ledger.commands import Refund
from ledger.errors import Conflict, UnknownHold
from ledger.grants import add_grant, is_dead, note_expiry, release
from ledger.model import DEBT, NEVER, OVERDRAFT, REFUNDED, REVENUE, Grant, PaidBack, Transfer
from ledger.outcomes import Ended, Refunded, RefundRefused

__all__ = ["refund"]


def refund(book: Book, command: Refund, now: int) -> Refunded | RefundRefused:
    """Refund a call; raises UnknownHold for one that has not ended, and Conflict."""
    ended = book.ended.get(command.hold_id)
    if ended is None:
        raise UnknownHold(f"no call {command.hold_id} of account {book.account_id} has ended")
    earlier = book.refunds.get(command.hold_id, ())
    for recorded in earlier:
        if recorded.refund_id == command.refund_id:
            return recorded
    if command.amount is not None and command.amount <= 0:
        raise Conflict("a refund is above 0")
    done = sum(recorded.amount for recorded in earlier)
    left = ended.charged - done
    amount = left if command.amount is None else command.amount
    if amount > left or not left:
        return RefundRefused(left)
    to: list[PaidBack] = []
    reduced = bonus = 0
    for node, share in _shares(ended, done, amount):
        if node == OVERDRAFT:
            # What later grants have repaid of the call's debt can't be undone in them: it comes as a new grant.
            reduced = _reduce_debt(book, share, command, now)
            bonus += share - reduced
        elif (command.as_bonus or command.operator_fault) and is_dead(book, node, now):
            bonus += share
        else:
            _give_back(book, node, share, command, now)
            to.append(PaidBack(node, book.grants[node].bucket, share))
    if bonus:
        _add_bonus(book, bonus, command, now)
        to.append(PaidBack(command.refund_id, command.bonus_bucket, bonus))
    made = Refunded(command.refund_id, command.hold_id, amount, tuple(to), reduced, command.reason, now)
    book.refunds = {**book.refunds, made.hold_id: (*earlier, made)}
    book.refunded = (*book.refunded, made)
    return made


def _shares(ended: Ended, done: int, amount: int) -> Iterator[tuple[int, int]]:
    """Walk a charge backwards past what is refunded already; yields (grant id, or OVERDRAFT for its debt, amount)."""
    way = [(OVERDRAFT, ended.debt), *((paid.grant_id, paid.amount) for paid in reversed(ended.paid_from))]
    for node, part in way:
        passed = min(part, done)
        share = min(part - passed, amount)
        done -= passed
        amount -= share
        if share:
            yield node, share


def _reduce_debt(book: Book, share: int, command: Refund, now: int) -> int:
    reduced = min(share, book.debt)
    if reduced:
        book.debt -= reduced
        book.changed = True
        book.transfers.append(_transfer(DEBT, reduced, command, now))
    return reduced


def _give_back(book: Book, grant_id: int, share: int, command: Refund, now: int) -> None:
    book.balance[grant_id] += share
    book.touched.add(grant_id)
    book.reopened |= {grant_id}
    book.transfers.append(_transfer(grant_id, share, command, now))
    if is_dead(book, grant_id, now):
        release(book, grant_id, now, command.hold_id)
    else:
        note_expiry(book, book.grants[grant_id])


def _add_bonus(book: Book, amount: int, command: Refund, now: int) -> None:
    grant = Grant(
        grant_id=command.refund_id,
        bucket=command.bonus_bucket,
        source=REFUNDED,
        paid=False,
        granted=amount,
        effective_at=now,
        expires_at=NEVER if command.bonus_expires_at is None else command.bonus_expires_at,
        created_at=now,
        note=command.reason,
    )
    add_grant(book, grant, "refund", now, request=command.hold_id, note=command.reason)


def _transfer(target: int, amount: int, command: Refund, now: int) -> Transfer:
    return Transfer("refund", REVENUE, target, amount, now, command.hold_id, command.reason)
