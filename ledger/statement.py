"""An account's statement: its journal as the account's owner reads it, with the running balance."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import islice

from ledger.archive import effect, packed_balance, packed_transfers
from ledger.backend import Reader
from ledger.model import DEBT

__all__ = ["Entry", "read_statement"]


@dataclass(frozen=True, slots=True)
class Entry:
    """One transfer: kind is grant, charge, refund, expiry, void, debt, repayment or adjustment.

    amount: signed by its effect on the balance, which is Σ credits − debt; a repayment moves credits to debt, so that
    it shows what was repaid and leaves the balance as it was. bucket: None where only debt moved. request: a hold id.
    """

    entry_id: int
    at: int
    kind: str
    bucket: str | None
    amount: int
    balance: int
    request: int | None
    note: str | None


def _owned(node: str) -> str:
    return f"CASE WHEN {node} > 0 OR {node} = {DEBT} THEN 1 ELSE 0 END"


# What enters an account's own nodes raises its balance, what leaves them lowers it; within them nothing changes.
_EFFECT = f"amount * ({_owned('target')} - {_owned('source')})"
_STATEMENT = f"""
    WITH page AS (
        SELECT transfer_id, at, kind, source, target, amount, request, note, {_EFFECT} AS effect FROM ledger_transfer
        WHERE account_id = ? AND transfer_id < ? ORDER BY transfer_id DESC LIMIT ?),
    earlier AS (
        SELECT COALESCE(SUM({_EFFECT}), 0) AS balance FROM ledger_transfer
        WHERE account_id = ? AND transfer_id < (SELECT MIN(transfer_id) FROM page))
    SELECT p.transfer_id, p.at, p.kind, g.bucket, CASE p.kind WHEN 'repayment' THEN p.amount ELSE p.effect END,
        CAST(earlier.balance + SUM(p.effect) OVER (ORDER BY p.transfer_id) AS BIGINT),
        p.request, CASE p.kind WHEN 'grant' THEN g.note ELSE p.note END
    FROM page p CROSS JOIN earlier
    LEFT JOIN ledger_grant g ON g.account_id = ?
        AND g.grant_id = CASE WHEN p.source > p.target THEN p.source ELSE p.target END
    ORDER BY p.transfer_id DESC"""
_GRANTS = "SELECT grant_id, bucket, note FROM ledger_grant WHERE (account_id, grant_id) IN {pairs}"


def read_statement(reader: Reader, account_id: int, limit: int, after: int | None) -> list[Entry]:
    """Read a page of an account's statement, newest first; after: only what is older than this entry."""
    before = 2**63 - 1 if after is None else after
    packed = packed_balance(reader, account_id)
    # All that was packed is older than what was not.
    rows = reader.rows(_STATEMENT, account_id, before, limit, account_id, account_id)
    entries = [replace(entry, balance=entry.balance + packed) for entry in (Entry(*row) for row in rows)]
    return entries + _packed_entries(reader, account_id, limit - len(entries), before)


def _packed_entries(reader: Reader, account_id: int, limit: int, before: int) -> list[Entry]:
    found = [*islice(packed_transfers(reader, account_id, before), limit)]
    grants = {max(row[3], row[4]) for row, _ in found}
    names = {grant: rest for grant, *rest in reader.rows_in(_GRANTS, [(account_id, grant) for grant in grants])}
    entries = []
    for row, balance in found:
        _, number, kind, source, target, amount, at, request, note = row
        bucket, grant_note = names.get(max(source, target), (None, None))
        shown = amount if kind == "repayment" else effect(row)
        entries.append(
            Entry(number, at, kind, bucket, shown, balance, request, grant_note if kind == "grant" else note)
        )
    return entries
