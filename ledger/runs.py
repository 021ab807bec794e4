"""Runs: calls that share an action of their user, with bounds on what all of them cost together."""

from __future__ import annotations

from dataclasses import replace

from ledger.book import Book
from ledger.commands import RunShare
from ledger.model import Run

__all__ = ["charge_share", "hold_share", "run_of", "share_of"]


def run_of(book: Book, share: RunShare) -> Run:
    """What the run's calls of this operation have come to."""
    return book.runs.get((share.run, share.operation), Run())


def hold_share(run: Run, share: RunShare) -> int:
    """The most that a call can be charged for its share, whichever other calls of the run end before it.

    What the run has been charged by then counts towards its minimum and its maximum, and can only grow.
    """
    needed = share.raw if share.least is None else max(share.raw, share.least - run.charged)
    return needed if share.most is None else max(0, min(needed, share.most - run.charged))


def share_of(run: Run, share: RunShare) -> int:
    """What a call is charged for its share: bounded(Σ raw after) − bounded(Σ raw before), never below 0.

    Nor above what the call can come to by itself: what lower bounds took off before stays off, though they rose since.
    """
    raw = run.raw + share.raw
    bounded = raw if share.least is None or not share.floor else max(raw, share.least)
    bounded = bounded if share.most is None else min(bounded, share.most)
    most = hold_share(run, share if share.floor else replace(share, least=None))
    return min(max(0, bounded - run.charged), most)


def charge_share(book: Book, share: RunShare) -> int:
    """Add a call to its run; returns its charge, as `share_of` has it."""
    run = run_of(book, share)
    charged = share_of(run, share)
    book.runs[share.run, share.operation] = Run(run.raw + share.raw, run.charged + charged)
    book.runs_changed.add((share.run, share.operation))
    return charged
