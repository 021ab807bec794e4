"""The rules of money, pure: `apply(book, command, rules, now)` changes one account's page and says what happened.

No clock, no database, no network. A refusal is a value. The same engine runs over every store.
"""

from __future__ import annotations

from dataclasses import replace

from ledger.adjustment import adjust
from ledger.book import Balance, Book
from ledger.burn import BucketOrder, burnable, in_order, unheld
from ledger.caps import free_of, give_back, limits_of, reserve, set_limit, settle_limits
from ledger.claims import claim, claimed, end_claim
from ledger.commands import (
    Adjust,
    Command,
    IssueGrant,
    OpenAccount,
    PlaceHold,
    Refund,
    SetAccount,
    SetLimit,
    SetPlan,
    Settle,
    Void,
    VoidGrant,
)
from ledger.errors import Conflict, UnknownAccount, UnknownHold
from ledger.grants import add_grant, release, void_grant
from ledger.model import (
    ADJUSTED,
    ALLOWANCE,
    DEBT,
    NEVER,
    OVERDRAFT,
    REFUNDED,
    REVENUE,
    Grant,
    Hold,
    Leg,
    Limit,
    PaidFrom,
    Transfer,
)
from ledger.outcomes import AccountSet, Ended, Held, Issued, Opened, Outcome, Refused
from ledger.plans import renewals_ahead, set_plan
from ledger.refund import refund
from ledger.renewal import bring_up_to
from ledger.rules import Rules
from ledger.runs import charge_share, hold_share, run_of

__all__ = ["apply", "balance"]

_STATUSES = ("active", "suspended", "closed")


def apply(book: Book, command: Command, rules: Rules, now: int) -> Outcome:
    """Carry out one command on its account's page.

    book: changed in place; it also collects what the store has to write. rules: the operator's, in force now.
    now: microseconds since 1970. Returns the outcome, a Refused among them. Raises UnknownAccount, UnknownHold,
    UnknownGrant or Conflict, and then the page must be thrown away.
    """
    now = max(now, book.seen_at)
    if isinstance(command, OpenAccount):
        return _open(book, command, rules, now)
    if not book.exists:
        raise UnknownAccount(f"no account {command.account_id}")
    bring_up_to(book, rules, now)
    if isinstance(command, PlaceHold):
        return _place(book, command, rules, now)
    if isinstance(command, (Settle, Void)):
        return _end(book, command, rules.order, now)
    if isinstance(command, IssueGrant):
        return _issue(book, command, rules, now)
    if isinstance(command, Refund):
        return _refund(book, command, rules, now)
    if isinstance(command, VoidGrant):
        return void_grant(book, command, now)
    if isinstance(command, Adjust):
        expires_at = _expiry(command.expires_at, command.bucket, rules, now)
        return adjust(book, replace(command, expires_at=expires_at), rules.order, now)
    if isinstance(command, SetPlan):
        return set_plan(book, command, rules, now)
    if isinstance(command, SetLimit):
        return set_limit(book, command, now)
    if isinstance(command, SetAccount):
        return _set(book, command, rules)
    raise Conflict("a test clock is no account")


def balance(book: Book, rules: Rules, now: int) -> Balance:
    """Project what a reader sees at `now`; the page is brought up to date in memory and must not be written back."""
    now = max(now, book.seen_at)
    bring_up_to(book, rules, now)
    grants = in_order(book, rules.order, now)
    return Balance(
        status=book.status,
        timezone=book.timezone,
        available=_available(book, now),
        held=sum(book.held[grant.grant_id] for grant in grants) + book.overdraft_held,
        debt=book.debt,
        overdraft_limit=_overdraft_limit(book, rules),
        grants=[(grant, book.balance[grant.grant_id], book.held[grant.grant_id]) for grant in grants],
        at=now,
        created_at=book.created_at,
        plan=book.plan,
        next_plan=None if book.next_plan_at == NEVER else (book.next_plan, book.next_plan_at),
        periods={bucket: period for bucket, period in book.periods.items() if now < period.ends_at},
    )


def _available(book: Book, now: int) -> int:
    return max(0, unheld(book, now) - book.debt)


def _overdraft_limit(book: Book, rules: Rules) -> int:
    return rules.overdraft_limit(book.overdraft_limit, book.plan)


def _expiry(given: int | None, bucket: str, rules: Rules, now: int) -> int:
    """When a grant expires: as given, or after its bucket's lifetime."""
    if given is not None:
        return given
    lifetime = rules.lifetimes.get(bucket)
    return NEVER if lifetime is None else now + lifetime


def _open(book: Book, command: OpenAccount, rules: Rules, now: int) -> Opened:
    if book.exists:
        return Opened(book.account_id, new=False)
    book.exists = book.changed = True
    book.timezone = command.timezone
    book.overdraft_limit = command.overdraft_limit
    book.clock = command.clock
    book.created_at = now
    if command.plan is not None:
        set_plan(book, SetPlan(book.account_id, command.plan), rules, now)
    if command.welcome is not None:
        bucket, amount, grant_id = command.welcome
        welcome = IssueGrant(book.account_id, grant_id, bucket, amount, "signup", expires_at=None, source_key="signup")
        _issue(book, welcome, rules, now)
    return Opened(book.account_id, new=True)


def _set(book: Book, command: SetAccount, rules: Rules) -> AccountSet:
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
    elif command.plans_overdraft:
        book.overdraft_limit = None
    book.changed = True
    return AccountSet(book.account_id, book.status, book.timezone, _overdraft_limit(book, rules))


def _refund(book: Book, command: Refund, rules: Rules, now: int) -> Outcome:
    expires_at = _expiry(command.bonus_expires_at, command.bonus_bucket, rules, now)
    before = len(book.refunded)
    outcome = refund(book, replace(command, bonus_expires_at=expires_at), now)
    for made in book.refunded[before:]:
        give_back(book, book.ended[command.hold_id].limits, made.amount)
    return outcome


def _issue(book: Book, command: IssueGrant, rules: Rules, now: int) -> Issued:
    if command.source_key is not None:
        for grant in book.grants.values():
            if grant.source_key == command.source_key:
                return Issued(grant, book.balance[grant.grant_id], 0, new=False)
    if command.source in (ADJUSTED, REFUNDED, ALLOWANCE):
        raise Conflict(f"the source {command.source} is for what an adjustment, a refund or a plan grants")
    grant = Grant(
        grant_id=command.grant_id,
        bucket=command.bucket,
        source=command.source,
        paid=command.paid,
        granted=command.amount,
        effective_at=now if command.effective_at is None else command.effective_at,
        expires_at=_expiry(command.expires_at, command.bucket, rules, now),
        created_at=now,
        source_key=command.source_key,
        note=command.note,
    )
    repaid = add_grant(book, grant, "grant", now)
    return Issued(grant, grant.granted - repaid, repaid)


def _place(book: Book, command: PlaceHold, rules: Rules, now: int) -> Held | Refused:
    amount = command.amount
    if amount < 0:
        raise Conflict("a hold is never negative")
    if command.claim is not None and (found := claimed(book, command, now)) is not None:
        available = _available(book, now)
        return Refused("claimed", amount, available, 0, book.debt, available, claimed=found)
    if command.share is not None:
        amount += hold_share(run_of(book, command.share), command.share)
    limits = limits_of(book, command, now) if command.scopes else []
    free = unheld(book, now)
    available = max(0, free - book.debt)
    headroom = free - book.debt - book.overdraft_held + _overdraft_limit(book, rules)
    tightest = min(limits, key=free_of) if limits else None
    reason = None
    if book.status != "active":
        reason = book.status
    elif command.plans is not None and book.plan not in command.plans:
        reason = "plan"
    # A call that can cost nothing is open to everybody, debtors too.
    elif amount > max(headroom, 0):
        reason = "held" if amount <= _affordable(book, headroom, now) else "insufficient"
    elif tightest is not None and amount > max(free_of(tightest), 0):
        reason = "limit"
    elif command.within and amount * command.within > available:
        reason = "large"
    if reason is not None:
        return _refusal(book, command, rules, reason, amount, headroom, limits, now)
    if command.hold_id in book.holds or command.hold_id in book.ended:
        raise Conflict(f"hold {command.hold_id} already exists")
    takes, uncovered = burnable(book, rules.order, amount, now)
    legs = [Leg(grant_id, take) for grant_id, take in takes]
    for grant_id, take in takes:
        book.held[grant_id] += take
        book.touched.add(grant_id)
    if uncovered:
        legs.append(Leg(OVERDRAFT, uncovered))
        book.overdraft_held += uncovered
        book.changed = True
    reserved = reserve(book, limits, amount) if limits else ()
    hold = Hold(command.hold_id, amount, tuple(legs), command.memo, now, command.deadline, reserved, command.claim)
    book.holds[hold.hold_id] = hold
    book.placed.append(hold)
    if command.claim is not None:
        claim(book, command, now)
    return Held(hold, max(0, free - (amount - uncovered) - book.debt))


def _affordable(book: Book, headroom: int, now: int) -> int:
    """The largest hold that would fit with nothing held; what is held of a dead grant would not come back."""
    held = sum(
        book.held[grant_id]
        for grant_id, grant in book.grants.items()
        if grant.expires_at > now and grant_id not in book.voided
    )
    return headroom + held + book.overdraft_held


def _refusal(
    book: Book,
    command: PlaceHold,
    rules: Rules,
    reason: str,
    amount: int,
    headroom: int,
    limits: list[Limit],
    now: int,
) -> Refused:
    affordable = _affordable(book, headroom, now)
    if limits:
        affordable = min(affordable, *(free_of(limit, reserved=False) for limit in limits))
    return Refused(
        reason=reason,
        needed=amount,
        available=_available(book, now),
        held=sum(book.held.values()) + book.overdraft_held,
        debt=book.debt,
        affordable=max(0, affordable),
        fits_at=_fits_at(book, rules, amount) if reason == "insufficient" else None,
        limit=min(limits, key=free_of) if limits else None,
        plan=book.plan,
        run=None if command.share is None else run_of(book, command.share),
    )


def _fits_at(book: Book, rules: Rules, amount: int) -> int | None:
    """When renewals will make a hold fit, or None if they will not."""
    for at, page in renewals_ahead(book, rules):
        headroom = unheld(page, at) - page.debt - page.overdraft_held + _overdraft_limit(page, rules)
        if amount <= _affordable(page, headroom, at):
            return at
    return None


def _end(book: Book, command: Settle | Void, order: BucketOrder, now: int) -> Ended:
    charged = command.amount if isinstance(command, Settle) else 0
    memo = command.memo
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
        hold = Hold(command.hold_id, 0, (), recorded.memo, recorded.created_at, 0, recorded.limits)
        late = True
    if isinstance(command, Settle) and command.share is not None:
        run, share = run_of(book, command.share), charge_share(book, command.share)
        charged += share
        memo = memo if command.share.close is None else command.share.close(run, share)
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
    if hold.limits:
        settle_limits(book, hold, charged)
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
        memo=memo,
        created_at=hold.created_at,
        ended_at=now,
        available=_available(book, now),
        late=late,
        limits=hold.limits,
    )
    book.ended[hold.hold_id] = ended
    book.closed.append(ended)
    if hold.claim is not None:
        end_claim(book, hold, command, ended)
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
