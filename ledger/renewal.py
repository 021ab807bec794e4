"""What time alone does to an account, worked out lazily: no clock, no cron, one integer compare when nothing is due."""

from __future__ import annotations

from ledger.book import Book
from ledger.calendar import CALENDAR, local_date, midnight, next_span
from ledger.errors import Conflict
from ledger.grants import add_grant, release
from ledger.ids import SLOTS, renewal_id
from ledger.model import ALLOWANCE, NEVER, Grant, Period
from ledger.rules import Allowance, Plan, Rules

__all__ = ["bring_up_to", "is_on", "issue_period", "next_due", "switch_plan"]

# However the operator edits a plan, its accounts are looked at once a day.
_LOOK = 86_400_000_000


def bring_up_to(book: Book, rules: Rules, now: int) -> None:
    """Do what is due at `now`: expire, change the plan, issue the periods that are on; missed ones are not made up for.

    Of each expired grant, what no hold pins goes to breakage.
    """
    if book.next_due_at > now:
        return
    for grant_id, grant in book.grants.items():
        if grant.expires_at <= now:
            release(book, grant_id, now)
    if book.next_plan_at <= now:
        switch_plan(book, rules, book.next_plan)
    plan = rules.plans.get(book.plan) if book.plan is not None else None
    if plan is not None and book.status != "closed":
        for allowance in plan.allowances:
            if not is_on(book, allowance.bucket, now):
                issue_period(book, plan, allowance, now)
    book.seen_at = now
    book.next_due_at = next_due(book, plan, now)
    book.changed = True


def next_due(book: Book, plan: Plan | None, now: int) -> int:
    """When time alone next changes the page, or might."""
    due = book.next_plan_at
    if plan is not None and book.status != "closed":
        due = min(due, now + _LOOK, *(book.periods[allowance.bucket].ends_at for allowance in plan.allowances))
    elif book.plan is not None:
        due = min(due, now + _LOOK)
    for grant_id, grant in book.grants.items():
        # The store forgets grants of which nothing is left, so they must not count here either.
        if now < grant.expires_at < due and book.balance[grant_id]:
            due = grant.expires_at
    return due


def is_on(book: Book, bucket: str, now: int) -> bool:
    """Whether a period of the bucket's allowance has been granted and has not ended."""
    period = book.periods.get(bucket)
    return period is not None and now < period.ends_at


def switch_plan(book: Book, rules: Rules, name: str | None) -> None:
    """Put an account on another plan; what that gives is issued elsewhere.

    An allowance that the plan before did not have begins a new row of periods, once the one that is on has ended.
    """
    before = rules.plans.get(book.plan) if book.plan is not None else None
    after = rules.plans.get(name) if name is not None else None
    for allowance in after.allowances if after is not None else ():
        period = book.periods.get(allowance.bucket)
        if period is not None and (before is None or before.allowance(allowance.bucket) is None):
            book.periods = {**book.periods, allowance.bucket: period._replace(anchor=None)}
    book.plan, book.next_plan, book.next_plan_at = name, None, NEVER
    book.changed = True


def issue_period(book: Book, plan: Plan, allowance: Allowance, now: int) -> Grant:
    """Begin a period and grant what it gives; the one before must have ended."""
    bucket = allowance.bucket
    last = book.periods.get(bucket)
    slot = len(book.periods) if last is None else last.slot
    if slot >= SLOTS:
        raise Conflict(f"an account can have {SLOTS} allowances at most")
    anchor = last.anchor if last is not None else None
    starts = None if anchor is None or last is None else last.ends_at
    anew = last is not None and last.every != allowance.every
    if last is None or anchor is None or anew:
        # On the grid of another kind of period the label that was last would hide the one that is on.
        anchor = local_date(book.timezone, now if last is None or anchor is None else last.ends_at)
        anchor = anchor if last is None else max(anchor, last.label + 1)
    grid = CALENDAR if allowance.calendar else anchor
    # West of the date line the day that begins the new kind may not have begun: it is that day's period all the same.
    look = max(now, midnight(book.timezone, anchor)) if anew else now
    span = next_span(allowance.every, grid, book.timezone, look, None if last is None or anew else last.label)
    if last is not None and span.label <= last.label:
        span = span._replace(label=anchor)
    if starts is None:
        starts = now
    elif starts <= (begins := midnight(book.timezone, span.label)) <= now:
        # Periods that nobody touched lie between.
        starts = begins
    grant = Grant(
        grant_id=renewal_id(starts, slot),
        bucket=bucket,
        source=ALLOWANCE,
        paid=plan.paid,
        granted=allowance.amount,
        effective_at=starts,
        expires_at=span.ends_at,
        created_at=now,
        source_key=f"{ALLOWANCE}/{bucket}/{span.label}",
    )
    add_grant(book, grant, "grant", now)
    period = Period(slot, allowance.every, anchor, span.label, starts, span.ends_at, allowance.amount, allowance.amount)
    book.periods = {**book.periods, bucket: period}
    return grant
