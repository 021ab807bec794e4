"""Spend limits: what may be spent in one scope is reserved when a hold is placed, and settled with it."""

from __future__ import annotations

from collections.abc import Iterable

from ledger.book import Book
from ledger.calendar import CALENDAR, next_span
from ledger.commands import PlaceHold, SetLimit
from ledger.errors import Conflict
from ledger.model import UNLIMITED, Hold, Limit
from ledger.outcomes import LimitSet

__all__ = [
    "PER",
    "free_of",
    "give_back",
    "limits_of",
    "reserve",
    "set_limit",
    "settle_limits",
    "up_to_date",
]

PER = ("day", "month", "ever")


def up_to_date(limit: Limit, zone: str, now: int) -> Limit:
    """A limit as of now: what was spent or reserved in a period that has ended does not count in the next."""
    if now < limit.ends_at:
        return limit
    span = next_span(limit.per, CALENDAR, zone, now, limit.label)
    return limit._replace(label=span.label, ends_at=span.ends_at, spent=0, reserved=0)


def limits_of(book: Book, command: PlaceHold, now: int) -> list[Limit]:
    """The limits that a call comes under, as of now; the one that it brings along for its run is set with its hold."""
    limits = [up_to_date(book.limits[scope], book.timezone, now) for scope in command.scopes if scope in book.limits]
    if command.run_limit is None:
        return limits
    run = command.scopes[-1]
    before = book.limits.get(run, Limit(run, 0, "ever"))
    return [limit for limit in limits if limit.scope != run] + [before._replace(amount=command.run_limit)]


def free_of(limit: Limit, *, reserved: bool = True) -> int:
    """What may be spent yet, in nanocredits; `reserved` False: if nothing were reserved."""
    return limit.amount - limit.spent - (limit.reserved if reserved else 0)


def set_limit(book: Book, command: SetLimit, now: int) -> LimitSet:
    """Set, change or lift a limit; raises Conflict."""
    if command.per not in PER:
        raise Conflict(f"a limit is per {', '.join(PER)}, not {command.per}")
    before = book.limits.get(command.scope)
    if command.amount is None:
        # It counts on, so that one set again knows what was spent before and what running calls may spend yet.
        if before is not None:
            _write(book, up_to_date(before, book.timezone, now)._replace(amount=UNLIMITED))
        return LimitSet(None)
    if command.amount < 0:
        raise Conflict("a spend limit is never negative")
    if before is not None and before.per == command.per:
        limit = up_to_date(before, book.timezone, now)._replace(amount=command.amount)
    elif command.per == "ever":
        limit = Limit(command.scope, command.amount, command.per)
    else:
        span = next_span(command.per, CALENDAR, book.timezone, now)
        limit = Limit(command.scope, command.amount, command.per, span.label, span.ends_at)
    _write(book, limit)
    return LimitSet(limit)


def reserve(book: Book, limits: Iterable[Limit], amount: int) -> tuple[tuple[str, int], ...]:
    """Reserve a hold's amount at limits that are up to date; returns what the hold has to remember."""
    reserved = []
    for limit in limits:
        _write(book, limit._replace(reserved=limit.reserved + amount))
        reserved.append((limit.scope, limit.label))
    return tuple(reserved)


def settle_limits(book: Book, hold: Hold, charged: int) -> None:
    """Turn what a hold reserved into what it was charged, in the period in which it was placed."""
    for scope, label in hold.limits:
        limit = book.limits.get(scope)
        if limit is not None and limit.label == label:
            left = max(0, limit.reserved - hold.amount)
            _write(book, limit._replace(reserved=left, spent=limit.spent + charged))


def give_back(book: Book, reserved: Iterable[tuple[str, int]], amount: int) -> None:
    """Take a refund off what was spent, in the period in which the call was charged."""
    for scope, label in reserved:
        limit = book.limits.get(scope)
        if limit is not None and limit.label == label:
            _write(book, limit._replace(spent=max(0, limit.spent - amount)))


def _write(book: Book, limit: Limit) -> None:
    book.limits[limit.scope] = limit
    book.limits_changed.add(limit.scope)
    if not book.limited:
        book.limited = book.changed = True
