"""The burn-down order: bucket order, then soonest expiry, then free before paid, then oldest."""

from __future__ import annotations

from collections.abc import Mapping

from ledger.book import Book
from ledger.model import Grant

__all__ = ["BucketOrder", "burnable", "in_order", "unheld"]

BucketOrder = Mapping[str, int]
"""Rank by bucket, the first burned has the lowest; a bucket without rank burns last."""


def in_order(book: Book, order: BucketOrder, now: int) -> list[Grant]:
    """List the grants in force at `now`, in burn-down order."""
    live = [grant for grant in book.grants.values() if grant.effective_at <= now < grant.expires_at]
    if book.voided:
        live = [grant for grant in live if grant.grant_id not in book.voided]
    if len(live) > 1:
        last = len(order)
        live.sort(key=lambda g: (order.get(g.bucket, last), g.expires_at, g.paid, g.created_at, g.grant_id))
    return live


def unheld(book: Book, now: int) -> int:
    """Sum what no hold pins of the grants in force, in nanocredits; debt is not taken off.

    Of a voided grant nothing is left but what holds pin, so it need not be looked for.
    """
    balance, held = book.balance, book.held
    return sum(
        balance[grant_id] - held[grant_id]
        for grant_id, grant in book.grants.items()
        if grant.effective_at <= now < grant.expires_at
    )


def burnable(book: Book, order: BucketOrder, amount: int, now: int) -> tuple[list[tuple[int, int]], int]:
    """Split an amount over what is not held, in burn-down order.

    Returns [(grant id, amount)] and what the grants did not cover.
    """
    takes: list[tuple[int, int]] = []
    for grant in in_order(book, order, now):
        if not amount:
            break
        grant_id = grant.grant_id
        take = min(book.balance[grant_id] - book.held[grant_id], amount)
        if take > 0:
            takes.append((grant_id, take))
            amount -= take
    return takes, amount
