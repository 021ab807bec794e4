"""Sealed ranges of an account's journal: what a range is, its digest, what it leaves behind. Pure.

A range is the transfers between two ids and what they belong to: the receipts, refunds and adjustments that they are
the legs of, the grants that they issue, and the receipts of calls that cost nothing and were held in that time. An
orphan's receipt is in none, as it may still be settled.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from hashlib import sha256
from typing import Any, Final, NamedTuple

import orjson

from ledger.backend import Row
from ledger.model import DEBT, REVENUE

__all__ = [
    "COLUMNS",
    "NO_SEAL",
    "REFUNDED_SO_FAR",
    "Rows",
    "Seal",
    "State",
    "faults",
    "fold",
    "mismatch",
    "read_state",
    "seal_of",
]

COLUMNS: Final[Mapping[str, str]] = {
    "transfer": "account_id, transfer_id, kind, source, target, amount, at, request, note",
    "grant": "account_id, grant_id, bucket, source, paid, granted, effective_at, expires_at, created_at, source_key,"
    " note",
    "void": "account_id, grant_id, voided_at",
    "receipt": "account_id, hold_id, status, charged, debt, paid_from, created_at, ended_at, late, limits, memo",
    "refund": "account_id, refund_id, hold_id, amount, debt_reduced, paid_to, reason, created_at",
    "adjustment": "account_id, adjustment_id, amount, reason, created_at, debt_reduced, granted, taken, debt_added",
}
"""What of each table is sealed: all that never changes; void is of grants that were. The first two say which row."""

_LEAF: Final = 8
REFUNDED_SO_FAR: Final = 0
"""Stands in a state for the sum of refunds, which is no node's."""

Rows = Mapping[str, Sequence[Row]]
"""A range's rows by table, in the order of their ids."""

State = Mapping[int, tuple[int, int | None]]
"""By node, the sum of what went in less what came out, and of grants what was lost of it, None where that is not known.

Grants of which nothing is left are left out.
"""


class Seal(NamedTuple):
    """What is recorded of a range; see `ledger.tables.SealRow`."""

    account_id: int
    number: int
    to_id: int
    first_hold: int
    last_hold: int
    first_at: int
    last_at: int
    transfers: int
    receipts: int
    sealed_at: int
    digest: bytes
    state: str
    leaves: bytes


NO_SEAL: Final = Seal(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, bytes(32), "[]", b"")
"""What comes before an account's first."""


def seal_of(account_id: int, before: Seal, rows: Rows, to_id: int, sealed_at: int) -> Seal:
    """Seal a range; before: the account's seal before it, or NO_SEAL. The same seal comes of the same rows."""
    holds = [row[1] for row in rows["receipt"]]
    times = [row[6] for row in rows["receipt"]]
    text = _state_text(fold(read_state(before.state), rows))
    counts = (len(rows["transfer"]), len(holds))
    within = (min(holds, default=0), max(holds, default=0), min(times, default=0), max(times, default=0))
    said = (account_id, before.number + 1, to_id, *within, *counts, sealed_at)
    digests = [*_digests(rows)]
    whole = sha256(before.digest + orjson.dumps([*said, text]) + b"".join(digests)).digest()
    return Seal(*said, whole, text, b"".join(digest[:_LEAF] for digest in digests))


def mismatch(before: Seal, seal: Seal, rows: Rows) -> dict[str, Any] | None:
    """Name what is not as it was sealed, the first row or the seal itself; None where all is as it was."""
    if seal_of(seal.account_id, before, rows, seal.to_id, seal.sealed_at) == seal:
        return None
    return _changed(seal, rows) or {"what": "the seal was altered"}


def _leaves(rows: Rows) -> Iterator[tuple[str, Row, bytes]]:
    """List a range's rows in the order of its leaves, each with its table and leaf."""
    listed = ((table, row) for table in COLUMNS for row in rows[table])
    for (table, row), digest in zip(listed, _digests(rows), strict=True):
        yield table, row, digest[:_LEAF]


def _digests(rows: Rows) -> Iterator[bytes]:
    for table in COLUMNS:
        if table == "receipt":
            for *rest, memo in rows[table]:
                yield sha256(orjson.dumps([table, *rest]) + b"\n" + memo).digest()
        else:
            for row in rows[table]:
                yield sha256(orjson.dumps([table, *row])).digest()


def _changed(seal: Seal, rows: Rows) -> dict[str, Any] | None:
    """Name the first row that is not as it was sealed: altered, added or missing; None where all are as they were."""
    there = [*_leaves(rows)]
    sealed = [seal.leaves[place : place + _LEAF] for place in range(0, len(seal.leaves), _LEAF)]
    place = next((at for at, (one, leaf) in enumerate(zip(there, sealed, strict=False)) if one[2] != leaf), None)
    if place is None:
        if len(there) == len(sealed):
            return None
        place = min(len(there), len(sealed))
    if place == len(there):
        return {"table": None, "id": None, "what": "a row is missing"} if not there else _named(there[-1], "after")
    if there[place][2] in sealed[place:]:
        return _named(there[place], "before")
    is_more = place == len(sealed) or sealed[place] in {leaf for _, _, leaf in there[place:]}
    return _named(there[place], "added" if is_more else "altered")


def _named(leaf: tuple[str, Row, bytes], what: str) -> dict[str, Any]:
    table, row, _ = leaf
    said = f"was {what}" if what in ("added", "altered") else f"a row {what} it is missing"
    return {"table": "ledger_grant" if table == "void" else f"ledger_{table}", "id": row[1], "what": said}


def fold(state: State, rows: Rows) -> dict[int, tuple[int, int | None]]:
    """Carry the sums of nodes on over a range; grants that nothing is left of stay in what is returned."""
    sums: dict[int, tuple[int, int | None]] = dict(state)
    issued = {row[1] for row in rows["grant"]}
    for _, _, kind, source, target, amount, *_ in rows["transfer"]:
        for node, signed in ((source, -amount), (target, amount)):
            balance, lost = sums.get(node, (0, 0 if node < 0 or node in issued else None))
            if node == source and node > 0 and lost is not None and (kind == "void" or target not in (REVENUE, DEBT)):
                lost += amount
            sums[node] = (balance + signed, lost)
        if kind == "refund":
            sums[REFUNDED_SO_FAR] = (sums.get(REFUNDED_SO_FAR, (0, 0))[0] + amount, 0)
    return sums


def _state_text(state: State) -> str:
    """Write a state as it is kept."""
    kept = [[node, amount, lost] for node, (amount, lost) in sorted(state.items()) if amount]
    return orjson.dumps(kept).decode()


def read_state(text: str) -> State:
    """Read a state as it is kept."""
    return {node: (amount, lost) for node, amount, lost in orjson.loads(text)}


def faults(rows: Rows) -> list[str]:
    """Say what is wrong with a range in itself: a charge without its receipt, a receipt whose sums do not agree."""
    found = []
    charged: dict[int | None, list[int]] = {}
    for _, _, kind, source, target, amount, _, request, _ in rows["transfer"]:
        if target == REVENUE and kind != "void":
            sums = charged.setdefault(request, [0, 0])
            sums[0] += amount
            sums[1] += amount if source == DEBT else 0
    for row in rows["receipt"]:
        _, hold, status, total, debt, paid_from, _, _, _, _, memo = row
        moved, owed = charged.pop(hold, [0, 0])
        paid = sum(item[2] for item in orjson.loads(paid_from))
        if (moved, owed) != (total, debt) or paid + debt != total or _lines(memo) != total:
            found.append(f"receipt {hold}: its total is not its lines, its transfers, and what paid for it")
        if status != "settled" and total:
            found.append(f"receipt {hold}: it was charged, though it was not settled")
    return found + [f"charge of {request}: it has no receipt" for request in charged]


def _lines(memo: bytes) -> int | None:
    """The sum of a memo's lines, as the audit has it: what is no amount adds nothing, what is no JSON has no sum."""
    try:
        document = orjson.loads(memo)
    except ValueError:
        return None
    lines = document.get("lines") if isinstance(document, dict) else None
    amounts = [line.get("amount") for line in (lines if isinstance(lines, list) else ()) if isinstance(line, dict)]
    return sum(amount for amount in amounts if isinstance(amount, int))
