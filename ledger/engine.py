"""The rules of money, pure: `apply(book, command, order, now)` changes one account's page and says what happened.

No clock, no database, no network. A refusal is a value. The same engine runs over every store.
"""

from __future__ import annotations

from dataclasses import replace

from ledger.adjustment import adjust
from ledger.burn import BucketOrder, burnable, in_order, unheld
from ledger.commands import (
    Adjust,
    Command,
    IssueGrant,
    OpenAccount,
    PlaceHold,
    Refund,
    SetAccount,
    Settle,
    Void,
    VoidGrant,
)
from ledger.errors import Conflict, UnknownAccount, UnknownHold
from ledger.grants import add_grant, release, void_grant
from ledger.model import (
    ADJUSTED,
    DEBT,
    OVERDRAFT,
    REFUNDED,
    REVENUE,
    AccountSet,
    Balance,
    Book,
    Ended,
    Grant,
    Held,
    Hold,
    Issued,
    Leg,
    Opened,
    Outcome,
    PaidFrom,
    Refused,
    Transfer,
)
from ledger.refund import refund
from ledger.renewal import bring_up_to

__all__ = ["apply", "balance"]

_STATUSES = ("active", "suspended", "closed")


def apply(book: Book, command: Command, order: BucketOrder, now: int) -> Outcome:
    """Carry out one command on its account's page.

    book: changed in place; it also collects what the store has to write. order: the buckets' burn-down order.
    now: microseconds since 1970. Returns the outcome, a Refused among them. Raises UnknownAccount, UnknownHold,
    UnknownGrant or Conflict, and then the page must be thrown away.
    """
    if isinstance(command, OpenAccount):
        return _open(book, command, now)
    if not book.exists:
        raise UnknownAccount(f"no account {command.account_id}")
    bring_up_to(book, now)
    if isinstance(command, PlaceHold):
        return _place(book, command, order, now)
    if isinstance(command, (Settle, Void)):
        return _end(book, command, order, now)
    if isinstance(command, IssueGrant):
        return _issue(book, command, now)
    if isinstance(command, Refund):
        return refund(book, command, now)
    if isinstance(command, VoidGrant):
        return void_grant(book, command, now)
    if isinstance(command, Adjust):
        return adjust(book, command, order, now)
    return _set(book, command)


def balance(book: Book, order: BucketOrder, now: int) -> Balance:
    """Project what a reader sees at `now`; the page is brought up to date in memory and must not be written back."""
    bring_up_to(book, now)
    grants = in_order(book, order, now)
    return Balance(
        status=book.status,
        timezone=book.timezone,
        available=_available(book, now),
        held=sum(book.held[grant.grant_id] for grant in grants) + book.overdraft_held,
        debt=book.debt,
        overdraft_limit=book.overdraft_limit,
        grants=[(grant, book.balance[grant.grant_id], book.held[grant.grant_id]) for grant in grants],
    )


def _available(book: Book, now: int) -> int:
    return max(0, unheld(book, now) - book.debt)


def _open(book: Book, command: OpenAccount, now: int) -> Opened:
    if book.exists:
        return Opened(book.account_id, new=False)
    book.exists = book.changed = True
    book.timezone = command.timezone
    book.overdraft_limit = command.overdraft_limit
    book.created_at = now
    return Opened(book.account_id, new=True)


def _set(book: Book, command: SetAccount) -> AccountSet:
    if command.status is not None:
        if command.status not in _STATUSES:
            raise Conflict(f"an account is {', '.join(_STATUSES)}, not {command.status}")
        if book.status == "closed" != command.status:
            raise Conflict("a closed account can't be opened again")
        book.status = command.status
    if command.timezone is not None:
        book.timezone = command.timezone
    if command.overdraft_limit is not None:
        if command.overdraft_limit < 0:
            raise Conflict("an overdraft limit is never negative")
        book.overdraft_limit = command.overdraft_limit
    book.changed = True
    return AccountSet(book.account_id, book.status, book.timezone, book.overdraft_limit)


def _issue(book: Book, command: IssueGrant, now: int) -> Issued:
    if command.source_key is not None:
        for grant in book.grants.values():
            if grant.source_key == command.source_key:
                return Issued(grant, book.balance[grant.grant_id], 0, new=False)
    if command.source in (ADJUSTED, REFUNDED):
        raise Conflict(f"the source {command.source} is for what an adjustment or a refund grants")
    grant = Grant(
        grant_id=command.grant_id,
        bucket=command.bucket,
        source=command.source,
        paid=command.paid,
        granted=command.amount,
        effective_at=now if command.effective_at is None else command.effective_at,
        expires_at=command.expires_at,
        created_at=now,
        source_key=command.source_key,
        note=command.note,
    )
    repaid = add_grant(book, grant, "grant", now)
    return Issued(grant, grant.granted - repaid, repaid)


def _place(book: Book, command: PlaceHold, order: BucketOrder, now: int) -> Held | Refused:
    amount = command.amount
    if amount < 0:
        raise Conflict("a hold is never negative")
    free = unheld(book, now)
    available = max(0, free - book.debt)
    headroom = free - book.debt - book.overdraft_held + book.overdraft_limit
    if book.status != "active":
        return _refusal(book, command, book.status, headroom, available, now)
    # A call that can cost nothing is open to everybody, debtors too.
    if amount > max(headroom, 0):
        reason = "held" if amount <= _affordable(book, headroom, now) else "insufficient"
        return _refusal(book, command, reason, headroom, available, now)
    if command.within and amount * command.within > available:
        return _refusal(book, command, "large", headroom, available, now)
    if command.hold_id in book.holds or command.hold_id in book.ended:
        raise Conflict(f"hold {command.hold_id} already exists")
    takes, uncovered = burnable(book, order, amount, now)
    legs = [Leg(grant_id, take) for grant_id, take in takes]
    for grant_id, take in takes:
        book.held[grant_id] += take
        book.touched.add(grant_id)
    if uncovered:
        legs.append(Leg(OVERDRAFT, uncovered))
        book.overdraft_held += uncovered
        book.changed = True
    hold = Hold(command.hold_id, amount, tuple(legs), command.memo, now, command.deadline)
    book.holds[hold.hold_id] = hold
    book.placed.append(hold)
    return Held(hold, max(0, free - (amount - uncovered) - book.debt))


def _affordable(book: Book, headroom: int, now: int) -> int:
    """The largest hold that would fit with nothing held; what is held of a dead grant would not come back."""
    held = sum(
        book.held[grant_id]
        for grant_id, grant in book.grants.items()
        if grant.expires_at > now and grant_id not in book.voided
    )
    return headroom + held + book.overdraft_held


def _refusal(book: Book, command: PlaceHold, reason: str, headroom: int, available: int, now: int) -> Refused:
    return Refused(
        reason=reason,
        needed=command.amount,
        available=available,
        held=sum(book.held.values()) + book.overdraft_held,
        debt=book.debt,
        affordable=max(0, _affordable(book, headroom, now)),
    )


def _end(book: Book, command: Settle | Void, order: BucketOrder, now: int) -> Ended:
    charged = command.amount if isinstance(command, Settle) else 0
    if charged < 0:
        raise Conflict("a charge is never negative")
    hold = book.holds.pop(command.hold_id, None)
    late = False
    if hold is None:
        recorded = book.ended.get(command.hold_id)
        if recorded is None:
            raise UnknownHold(f"no hold {command.hold_id} in account {command.account_id}")
        if recorded.status != "orphaned" or not isinstance(command, Settle):
            return replace(recorded, available=_available(book, now))
        # Its process only lost its lease and has an answer after all: usage above a hold of 0, posted once.
        hold = Hold(command.hold_id, 0, (), recorded.memo, recorded.created_at, 0)
        late = True
    paid = _consume(book, hold, charged, now)
    excess = charged - sum(amount for _, amount in paid)
    if excess:
        takes, excess = burnable(book, order, excess, now)
        for grant_id, take in takes:
            book.balance[grant_id] -= take
            book.touched.add(grant_id)
            book.transfers.append(Transfer("charge", grant_id, REVENUE, take, now, hold.hold_id))
        paid += takes
        if excess:
            _owe(book, excess, hold.hold_id, now)
    debt = excess + sum(amount for grant_id, amount in paid if grant_id == OVERDRAFT)
    merged: dict[int, int] = {}
    for grant_id, amount in paid:
        if grant_id != OVERDRAFT:
            merged[grant_id] = merged.get(grant_id, 0) + amount
    ended = Ended(
        hold_id=hold.hold_id,
        status="settled" if isinstance(command, Settle) else "orphaned" if command.orphaned else "voided",
        charged=charged,
        paid_from=tuple(
            PaidFrom(grant_id, book.grants[grant_id].bucket, amount) for grant_id, amount in merged.items()
        ),
        debt=debt,
        memo=command.memo,
        created_at=hold.created_at,
        ended_at=now,
        available=_available(book, now),
        late=late,
    )
    book.ended[hold.hold_id] = ended
    book.closed.append(ended)
    return ended


def _consume(book: Book, hold: Hold, charged: int, now: int) -> list[tuple[int, int]]:
    """Charge a prefix of the hold's legs and release the rest; what is released of a dead grant leaves it."""
    paid: list[tuple[int, int]] = []
    left = charged
    for grant_id, held in hold.legs:
        take = min(held, left)
        left -= take
        if take:
            paid.append((grant_id, take))
        if grant_id == OVERDRAFT:
            book.overdraft_held -= held
            book.changed = True
            if take:
                _owe(book, take, hold.hold_id, now)
            continue
        book.held[grant_id] -= held
        book.balance[grant_id] -= take
        book.touched.add(grant_id)
        if take:
            book.transfers.append(Transfer("charge", grant_id, REVENUE, take, now, hold.hold_id))
        if take < held and (book.grants[grant_id].expires_at <= now or grant_id in book.voided):
            release(book, grant_id, now, hold.hold_id)
    return paid


def _owe(book: Book, amount: int, request: int, now: int) -> None:
    book.debt += amount
    book.changed = True
    book.transfers.append(Transfer("debt", DEBT, REVENUE, amount, now, request))
