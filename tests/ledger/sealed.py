"""Sealing and packing in tests, at once and in short ranges."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ledger import sealing
from ledger.ids import LATEST
from ledger.outcomes import Closed
from ledger.rules import Rules
from ledger.sealing import next_pack, next_seal
from ledger.store import Store

__all__ = ["close_all", "in_short_ranges"]


@contextmanager
def in_short_ranges(rows: int = 5) -> Iterator[None]:
    """Have ranges of about so many rows made, of all that is there, however new it is."""
    before = (sealing._LEAST, sealing._MOST, sealing._SETTLED_FOR)
    sealing._LEAST, sealing._MOST, sealing._SETTLED_FOR = rows, 8 * rows, 0  # type: ignore[misc]
    try:
        yield
    finally:
        sealing._LEAST, sealing._MOST, sealing._SETTLED_FOR = before  # type: ignore[misc]


def close_all(store: Store, *, pack: bool = False) -> int:
    """Seal, or pack, all that can be; returns how many ranges were."""
    closed = 0
    for (account,) in store.backend.rows("SELECT account_id FROM ledger_account ORDER BY account_id"):
        while command := (
            next_pack(store.backend, account, 2**63 - 1) if pack else next_seal(store.backend, account, LATEST)
        ):
            (outcome,) = store.transact([command], Rules(), 0)
            assert outcome == Closed(True)
            closed += 1
    return closed
