"""Turns the pages that a batch changed into rows: what is written, to which table, in which order."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from ledger.backend import Row, Write
from ledger.book import Book
from ledger.loading import (
    ACCOUNT_COLUMNS,
    CLAIM_COLUMNS,
    GRANT_COLUMNS,
    HOLD_COLUMNS,
    LIMIT_COLUMNS,
    RECEIPT_COLUMNS,
    REFUND_COLUMNS,
    account_row,
    json_text,
    pairs_text,
)
from ledger.outcomes import Refunded

__all__ = ["WRITES", "changes"]


def _columns(text: str) -> tuple[str, ...]:
    return tuple(text.split(", "))


_GRANT_KEY = ("account_id", "grant_id")
_HOLD_KEY = ("account_id", "hold_id")
_UPSERT_ACCOUNT = Write("ledger_account", _columns(ACCOUNT_COLUMNS), "upsert", 1)
_INSERT_GRANT = Write(
    "ledger_grant", ("account_id", *_columns(GRANT_COLUMNS), "balance", "held", "lost", "open"), "insert"
)
_UPDATE_GRANT = Write("ledger_grant", (*_GRANT_KEY, "balance", "held", "lost"), "update", 2)
_FLIP_GRANT = Write("ledger_grant", (*_GRANT_KEY, "open"), "update", 2)
_VOID_GRANT = Write("ledger_grant", (*_GRANT_KEY, "voided_at"), "update", 2)
_DELETE_HOLD = Write("ledger_hold", _HOLD_KEY, "delete", 2)
_INSERT_HOLD = Write("ledger_hold", (*_columns(HOLD_COLUMNS), "lease"), "insert")
_UPSERT_RECEIPT = Write("ledger_receipt", _columns(RECEIPT_COLUMNS), "upsert", 2)
_INSERT_REFUND = Write("ledger_refund", _columns(REFUND_COLUMNS), "insert")
_INSERT_ADJUSTMENT = Write(
    "ledger_adjustment",
    _columns("account_id, adjustment_id, amount, reason, created_at, debt_reduced, granted, taken, debt_added"),
    "insert",
)
_INSERT_TRANSFER = Write(
    "ledger_transfer",
    _columns("account_id, transfer_id, kind, source, target, amount, at, request, note"),
    "insert",
)
_UPSERT_LIMIT = Write("ledger_limit", ("account_id", *_columns(LIMIT_COLUMNS)), "upsert", 2)
_UPSERT_RUN = Write("ledger_run", ("account_id", "run", "operation", "raw", "charged"), "upsert", 3)
_UPSERT_CLAIM = Write("ledger_claim", _columns(CLAIM_COLUMNS), "upsert", 2)


WRITES = (
    *(_UPSERT_ACCOUNT, _INSERT_GRANT, _UPDATE_GRANT, _FLIP_GRANT, _VOID_GRANT, _DELETE_HOLD, _INSERT_HOLD),
    *(_UPSERT_RECEIPT, _INSERT_REFUND, _INSERT_ADJUSTMENT, _INSERT_TRANSFER, _UPSERT_LIMIT, _UPSERT_RUN, _UPSERT_CLAIM),
)
"""All that a batch may write, in this order."""


def _refund_row(account_id: int, made: Refunded) -> Row:
    to = json_text([[*back] for back in made.to])
    return (account_id, made.refund_id, made.hold_id, made.amount, to, made.debt_reduced, made.reason, made.created_at)


def changes(
    books: Iterable[Book], next_id: Callable[[int], int], lease: Callable[[], int | None]
) -> Iterable[tuple[Write, Sequence[Row]]]:
    """List what pages have to write; each row is there, or is not, as its write says.

    next_id: makes transfers' ids, above that of their call. lease: of the process that places the holds.
    """
    grants: list[Row] = []
    flips: list[Row] = []
    issued: list[Row] = []
    holds: list[Row] = []
    freed: list[Row] = []
    receipts: dict[tuple[int, int], Row] = {}
    refunds: list[Row] = []
    adjustments: list[Row] = []
    voids: list[Row] = []
    transfers: list[Row] = []
    accounts: list[Row] = []
    limits: list[Row] = []
    runs: list[Row] = []
    claims: list[Row] = []
    for book in books:
        account = book.account_id
        new = {grant.grant_id for grant in book.issued} if book.issued else ()
        for grant in book.issued:
            left = book.balance[grant.grant_id]
            issued.append((account, *grant, left, book.held[grant.grant_id], book.lost[grant.grant_id], int(left > 0)))
        for grant_id in book.touched:
            if grant_id not in new:
                left = book.balance[grant_id]
                grants.append((account, grant_id, left, book.held[grant_id], book.lost[grant_id]))
                if left == 0:
                    flips.append((account, grant_id, 0))
        for grant_id in book.reopened:
            if book.balance[grant_id] > 0:
                flips.append((account, grant_id, 1))
        if book.voided:
            voids += [(account, grant_id, at) for grant_id, at in book.voided.items() if grant_id in book.touched]
        for hold in book.placed:
            # Placed and ended within one batch: it never needs a row.
            if hold.hold_id in book.holds:
                legs = json_text([[*leg] for leg in hold.legs])
                holds.append(
                    (
                        account,
                        hold.hold_id,
                        hold.amount,
                        legs,
                        hold.memo,
                        hold.created_at,
                        hold.deadline,
                        pairs_text(hold.limits),
                        None if hold.claim is None else hold.claim.key + hold.claim.body,
                        lease(),
                    )
                )
        placed = {hold.hold_id for hold in book.placed} if book.placed else ()
        for e in book.closed:
            # One that is settled late had its row taken when it was released.
            if e.hold_id not in placed and not e.late:
                freed.append((account, e.hold_id))
            paid = json_text([[*paid] for paid in e.paid_from])
            # Released and settled late within one batch: what it came to is the settlement.
            receipts[account, e.hold_id] = (
                account,
                e.hold_id,
                e.status,
                e.charged,
                paid,
                e.debt,
                e.memo,
                e.created_at,
                e.ended_at,
                int(e.late),
                pairs_text(e.limits),
            )
        if book.refunded:
            refunds += [_refund_row(account, made) for made in book.refunded]
        for a in book.adjusted:
            taken = json_text([[*paid] for paid in a.taken])
            about = (a.adjustment_id, a.amount, a.reason, a.created_at, a.debt_reduced)
            adjustments.append((account, *about, int(a.grant is not None), taken, a.debt_added))
        for t in book.transfers:
            # What a call comes to is never sealed before the call.
            own_id = next_id(t.request or 0)
            transfers.append((account, own_id, t.kind, t.source, t.target, t.amount, t.at, t.request, t.note))
        limits += [(account, *book.limits[scope]) for scope in book.limits_changed]
        runs += [(account, *key, *book.runs[key]) for key in book.runs_changed]
        for key in book.claims_changed:
            if (found := book.claims[key]) is not None:
                called = (found.hold_id, found.at, found.charged, found.available)
                claims.append((account, *found.claim, *called, book.answers[key] if found.answered else None))
        if book.changed:
            accounts.append(account_row(book))
    rows = (
        *(accounts, issued, grants, flips, voids, freed, holds),
        *([*receipts.values()], refunds, adjustments, transfers, limits, runs, claims),
    )
    return zip(WRITES, rows, strict=True)
