"""Plans: up at once with a share of the period, down at its end; and when renewals will make a call fit."""

from __future__ import annotations

from copy import copy

from ledger.book import Book
from ledger.commands import SetPlan
from ledger.errors import Conflict
from ledger.grants import add_grant
from ledger.model import ALLOWANCE, NEVER, Grant
from ledger.outcomes import PlanSet
from ledger.renewal import bring_up_to, is_on, issue_period, next_due, switch_plan
from ledger.rules import Allowance, Plan, Rules

__all__ = ["main_allowances", "projection", "renewals_ahead", "set_plan"]

# How often each comes in 400 years, in which the calendar repeats itself.
_TIMES = {"day": 146_097, "week": 20_871, "month": 4_800, "year": 400}
_MOST_BOUNDARIES = 40


def set_plan(book: Book, command: SetPlan, rules: Rules, now: int) -> PlanSet:
    """Change an account's plan; raises Conflict for one that does not exist.

    Up, or as much: at once. Each allowance that is on and gives more adds floor((new − entitled) · remaining / total)
    to its period's end; one that is not on begins. Down: when the longest period that is on has ended, and until then
    nothing changes. What a period has been entitled to once, it is not given again.
    """
    if book.status == "closed":
        raise Conflict("a closed account has no plan to change")
    if command.plan is not None and command.plan not in rules.plans:
        raise Conflict(f"there is no plan {command.plan}")
    before = rules.plans.get(book.plan) if book.plan is not None else None
    after = rules.plans[command.plan] if command.plan is not None else None
    if book.plan == command.plan:
        book.next_plan, book.next_plan_at = None, NEVER
        book.changed = True
        return PlanSet(command.plan, now, ())
    ends_at = max(
        (book.periods[a.bucket].ends_at for a in main_allowances(before) if a.bucket in book.periods), default=now
    )
    if _worth(after) < _worth(before) and ends_at > now:
        book.next_plan, book.next_plan_at = command.plan, ends_at
        book.next_due_at = min(book.next_due_at, ends_at)
        book.changed = True
        return PlanSet(command.plan, ends_at, ())
    switch_plan(book, rules, command.plan)
    # A clock that is put back must not find a period of which more than all remains.
    book.seen_at = now
    grants: list[Grant] = []
    for number, allowance in enumerate(after.allowances if after is not None else ()):
        assert after is not None
        if not is_on(book, allowance.bucket, now):
            grants.append(issue_period(book, after, allowance, now))
        elif (share := _share(book, allowance, now)) > 0:
            grants.append(_add_share(book, after, allowance, share, command.grant_ids[number], now))
    book.next_due_at = min(book.next_due_at, next_due(book, after, now))
    return PlanSet(command.plan, now, tuple(grants))


def main_allowances(plan: Plan | None) -> list[Allowance]:
    """The plan's allowances of its longest period: those that its price is for."""
    if plan is None or not plan.allowances:
        return []
    longest = min(_TIMES[allowance.every] for allowance in plan.allowances)
    return [allowance for allowance in plan.allowances if _TIMES[allowance.every] == longest]


def _worth(plan: Plan | None) -> int:
    """What a plan gives in 400 years; without a plan there is less than any gives."""
    if plan is None:
        return -1
    return sum(allowance.amount * _TIMES[allowance.every] for allowance in plan.allowances)


def _share(book: Book, allowance: Allowance, now: int) -> int:
    """What an upgrade adds to the period that is on; another kind of period waits for its turn."""
    period = book.periods[allowance.bucket]
    more = allowance.amount - period.entitled
    if allowance.every != period.every or more <= 0:
        return 0
    return more * (period.ends_at - now) // (period.ends_at - period.starts_at)


def _add_share(book: Book, plan: Plan, allowance: Allowance, share: int, grant_id: int, now: int) -> Grant:
    period = book.periods[allowance.bucket]
    grant = Grant(
        grant_id=grant_id,
        bucket=allowance.bucket,
        source=ALLOWANCE,
        paid=plan.paid,
        granted=share,
        effective_at=now,
        expires_at=period.ends_at,
        created_at=now,
        source_key=f"{ALLOWANCE}/{allowance.bucket}/{period.label}/{grant_id}",
    )
    add_grant(book, grant, "grant", now)
    more = period._replace(entitled=allowance.amount, granted=period.granted + share)
    book.periods = {**book.periods, allowance.bucket: more}
    return grant


def projection(book: Book) -> Book:
    """A page to try things on; the given one stays as it is."""
    page = copy(book)
    page.grants, page.balance, page.held, page.lost = (
        dict(book.grants),
        dict(book.balance),
        dict(book.held),
        dict(book.lost),
    )
    page.touched, page.issued, page.transfers = set(), [], []
    return page


def _renews_at(page: Book, bucket: str) -> int:
    """When a plan's allowance comes next; one that the operator has just added, when the page is next looked at."""
    period = page.periods.get(bucket)
    return page.next_due_at if period is None else max(period.ends_at, page.next_due_at)


def renewals_ahead(book: Book, rules: Rules) -> list[tuple[int, Book]]:
    """The page as it will be at each of the renewals to come, with the times, if nobody touches it before.

    Periods that nobody touched are not made up for, so only the first renewal of each allowance can bring more than was
    there before.
    """
    page = projection(book)
    ahead: list[tuple[int, Book]] = []
    seen: set[str] = set()
    while len(ahead) < _MOST_BOUNDARIES:
        plan = rules.plans.get(page.plan) if page.plan is not None else None
        ends = {a.bucket: _renews_at(page, a.bucket) for a in plan.allowances} if plan is not None else {}
        ends = {bucket: at for bucket, at in ends.items() if bucket not in seen}
        at = min([*ends.values(), page.next_plan_at])
        if at == NEVER:
            break
        if page.next_plan_at <= at:
            seen = set()
        else:
            seen |= {bucket for bucket, ended in ends.items() if ended <= at}
        page = projection(page)
        bring_up_to(page, rules, at)
        untouched = projection(book)
        bring_up_to(untouched, rules, at)
        ahead.append((at, untouched))
    return ahead
