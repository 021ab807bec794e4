"""Reads the rows of a range of an account's journal, from their tables or from where they were packed."""

from __future__ import annotations

import zlib
from typing import Any, Final

import orjson

from ledger.backend import Reader, Row
from ledger.errors import LedgerUnavailable
from ledger.model import ADJUSTMENT, ISSUE, REVENUE, SALE
from ledger.seals import COLUMNS, NO_SEAL, Rows, Seal

__all__ = ["FREE_RECEIPTS", "last_seal", "load_range", "pack", "packed_rows", "read_seals", "sealed_rows", "unpack"]

_SEAL_COLUMNS = ", ".join(Seal._fields)
_LAST = f"SELECT {_SEAL_COLUMNS} FROM ledger_seal WHERE account_id = ? AND to_id < ? ORDER BY to_id DESC LIMIT 1"
_ABOVE = f"SELECT {_SEAL_COLUMNS} FROM ledger_seal WHERE account_id = ? AND to_id > ? ORDER BY to_id LIMIT ?"
_PACKED = "SELECT packed FROM ledger_seal WHERE account_id = ? AND to_id = ?"
_TRANSFERS = (
    f"SELECT {COLUMNS['transfer']} FROM ledger_transfer"
    " WHERE account_id = ? AND transfer_id > ? AND transfer_id <= ? ORDER BY transfer_id"
)
_RECEIPTS = f"SELECT {COLUMNS['receipt']} FROM ledger_receipt WHERE (account_id, hold_id) IN {{pairs}}"
FREE_RECEIPTS: Final = (
    # One that was settled late was an orphan's when its time was sealed.
    "account_id = ? AND hold_id > ? AND hold_id <= ? AND charged = 0 AND late = 0 AND status <> 'orphaned'"
)
"""Which receipts of calls that cost nothing are in a range: of an account, above an id, up to another."""

_FREE = f"SELECT {COLUMNS['receipt']} FROM ledger_receipt WHERE {FREE_RECEIPTS}"
_GRANTS = f"SELECT {COLUMNS['grant']} FROM ledger_grant WHERE (account_id, grant_id) IN {{pairs}}"
_VOIDED = f"SELECT {COLUMNS['void']} FROM ledger_grant WHERE (account_id, grant_id) IN {{pairs}}"
_REFUNDS = f"SELECT {COLUMNS['refund']} FROM ledger_refund WHERE (account_id, hold_id) IN {{pairs}}"
_ADJUSTMENTS = f"SELECT {COLUMNS['adjustment']} FROM ledger_adjustment WHERE account_id = ?"


def last_seal(reader: Reader, account_id: int, before: int = 2**63 - 1) -> Seal:
    """An account's last seal that ends before an id, or NO_SEAL."""
    found = reader.rows(_LAST, account_id, before)
    return Seal(*found[0]) if found else NO_SEAL


def read_seals(reader: Reader, account_id: int, above: int, most: int) -> list[Seal]:
    """An account's next seals that end above an id, in order."""
    return [Seal(*row) for row in reader.rows(_ABOVE, account_id, above, most)]


def load_range(reader: Reader, account_id: int, from_id: int, to_id: int) -> Rows:
    """Read what belongs to the transfers above from_id and up to to_id, from their tables."""
    return _with_the_rest(reader, account_id, reader.rows(_TRANSFERS, account_id, from_id, to_id), from_id, to_id)


def _with_the_rest(reader: Reader, account: int, transfers: list[Row], from_id: int, to_id: int) -> Rows:
    calls: set[int] = set()
    refunds: set[tuple[int, int]] = set()
    adjusted: set[int] = set()
    grants: set[int] = set()
    voided: set[int] = set()
    for _, _, kind, source, target, _, at, request, _ in transfers:
        if target == REVENUE and kind != "void":
            calls.add(request)
        elif kind == "refund":
            refunds.add((request, at))
        elif kind == "adjustment":
            adjusted.add(at)
        elif kind == "void":
            voided.add(source)
        if target > 0 and source in (ISSUE, SALE, ADJUSTMENT):
            grants.add(target)
    refunded = _of(reader, _REFUNDS, account, {hold for hold, _ in refunds})
    refunded = [row for row in refunded if (row[2], row[7]) in refunds]
    # A refund's own grant has the refund's id.
    grants |= {row[1] for row in refunded}
    receipts = _of(reader, _RECEIPTS, account, calls) + reader.rows(_FREE, account, from_id, to_id)
    adjustments = reader.rows(_ADJUSTMENTS, account) if adjusted else []
    return {
        "transfer": transfers,
        "grant": sorted(_of(reader, _GRANTS, account, grants)),
        "void": sorted(_of(reader, _VOIDED, account, voided)),
        "receipt": sorted(receipts, key=_by_id),
        "refund": sorted(refunded),
        "adjustment": sorted(row for row in adjustments if row[4] in adjusted),
    }


def _of(reader: Reader, statement: str, account: int, ids: set[int]) -> list[Row]:
    return reader.rows_in(statement, [(account, number) for number in ids]) if ids else []


def _by_id(row: Row) -> Any:
    return row[1]


def sealed_rows(reader: Reader, seal: Seal, from_id: int) -> Rows:
    """Read a sealed range's rows, wherever they are; from_id: where the seal before ends."""
    if (found := packed_rows(reader, seal.account_id, seal.to_id)) is None:
        return load_range(reader, seal.account_id, from_id, seal.to_id)
    transfers, receipts = found
    return {**_with_the_rest(reader, seal.account_id, transfers, from_id, seal.to_id), "receipt": receipts}


def packed_rows(reader: Reader, account_id: int, to_id: int) -> tuple[list[Row], list[Row]] | None:
    """Read the transfers and receipts of the range that ends at an id, or None where they are not packed."""
    ((packed,),) = reader.rows(_PACKED, account_id, to_id)
    return None if packed is None else unpack(packed)


def pack(rows: Rows) -> bytes:
    """Write a range's transfers and receipts in little space; the rest stays in its tables."""
    # A memo is bytes, JSON nearly always, and as such has no place in JSON.
    receipts = [[*rest, memo.decode("latin-1")] for *rest, memo in rows["receipt"]]
    return zlib.compress(orjson.dumps([[*map(list, rows["transfer"])], receipts]))


def unpack(packed: bytes) -> tuple[list[Row], list[Row]]:
    """Read transfers and receipts again that were packed; raises LedgerUnavailable."""
    try:
        transfers, receipts = orjson.loads(zlib.decompress(packed))
        return [tuple(row) for row in transfers], [(*rest, memo.encode("latin-1")) for *rest, memo in receipts]
    except (zlib.error, ValueError, TypeError, AttributeError) as error:
        raise LedgerUnavailable(f"what was packed can't be read, `farebox audit` says where: {error}") from error
