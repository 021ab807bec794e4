"""Reads sealed ranges again: that every row is as it was sealed, and that balances are what the journal makes them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from ledger.backend import Reader
from ledger.errors import LedgerUnavailable
from ledger.model import DEBT
from ledger.ranges import last_seal, load_range, read_seals, sealed_rows
from ledger.seals import NO_SEAL, Rows, Seal, faults, fold, mismatch

__all__ = ["Sealed", "verify"]

_NEWEST = "SELECT account_id, to_id, transfers + receipts FROM ledger_seal ORDER BY to_id DESC"
_LAST = (
    "SELECT s.account_id, s.digest FROM ledger_seal s WHERE s.to_id ="
    " (SELECT MAX(l.to_id) FROM ledger_seal l WHERE l.account_id = s.account_id) ORDER BY s.account_id"
)
_GRANTS = "SELECT grant_id, balance, lost FROM ledger_grant WHERE account_id = ?"
_RECEIPTS = (
    "SELECT COUNT(*) FROM ledger_receipt WHERE account_id = ? AND hold_id <= ? AND status <> 'orphaned'"
    " AND NOT (late = 1 AND charged = 0)"
)
_LOOSE = (
    "SELECT MIN(transfer_id) FROM ledger_transfer WHERE account_id = ? AND transfer_id <="
    " (SELECT MAX(to_id) FROM ledger_seal WHERE account_id = ? AND packed IS NOT NULL)"
)
_UNPACKED = "SELECT COALESCE(SUM(receipts), 0) FROM ledger_seal WHERE account_id = ? AND packed IS NULL"
_DEBT = "SELECT debt FROM ledger_account WHERE account_id = ?"
_AT_ONCE = 50
_ALL = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Sealed:
    """What is sealed. ranges, rows: how much; read: how many of the rows were read again.

    head: a digest of all accounts' last seals, to be noted elsewhere: whoever rewrites the past can't keep it.
    """

    ranges: int
    rows: int
    read: int
    head: str | None


def verify(reader: Reader, most_rows: int | None) -> tuple[Sealed, list[dict[str, Any]]]:
    """Read sealed ranges again, the newest first and not more than about so many rows; None: all of them.

    Returns with what is sealed the first thing that is wrong in each account.
    """
    ranges = total = read = 0
    first: dict[int, int] = {}
    for account, to_id, rows in reader.rows(_NEWEST):
        ranges, total = ranges + 1, total + rows
        if most_rows is None or total <= most_rows:
            first[account] = to_id
            read = total
    found = []
    for account, to_id in sorted(first.items()):
        if (wrong := _first_wrong(reader, account, to_id)) is not None:
            found.append({"account_id": account, **wrong})
    head = sha256(b"".join(b"%d " % account + bytes(digest) for account, digest in reader.rows(_LAST))).hexdigest()
    return Sealed(ranges, total, read, head if ranges else None), found


def _first_wrong(reader: Reader, account: int, first: int) -> dict[str, Any] | None:
    """Read an account's ranges from the one on that ends at an id."""
    ((loose,),) = reader.rows(_LOOSE, account, account)
    if loose is not None:
        return {"table": "ledger_transfer", "id": loose, "what": "was added to what is packed"}
    try:
        return _first_wrong_range(reader, account, first)
    except LedgerUnavailable as error:
        return {"what": str(error)}


def _first_wrong_range(reader: Reader, account: int, first: int) -> dict[str, Any] | None:
    before = last_seal(reader, account, first)
    whole, sums = before == NO_SEAL, dict[int, tuple[int, int | None]]()
    for seal, rows in _ranges(reader, account, before):
        if seal.number != before.number + 1:
            return {"range": before.number + 1, "what": "the seal is missing"}
        if (what := mismatch(before, seal, rows)) is not None:
            return {"range": seal.number, **what}
        if wrong := faults(rows):
            return {"range": seal.number, "what": wrong[0]}
        before, sums = seal, fold(sums, rows)
    return _rebuilt(reader, account, before, sums) if whole else None


def _ranges(reader: Reader, account: int, before: Seal) -> Iterator[tuple[Seal, Rows]]:
    while seals := read_seals(reader, account, before.to_id, _AT_ONCE):
        for seal in seals:
            yield seal, sealed_rows(reader, seal, before.to_id)
            before = seal


def _rebuilt(reader: Reader, account: int, last: Seal, sums: Any) -> dict[str, Any] | None:
    """Compare an account with what all of its journal comes to."""
    rows = load_range(reader, account, last.to_id, _ALL)
    # In the time that is sealed there are the receipts that are sealed, and those of calls that were charged since.
    ((there,),), ((sealed,),) = reader.rows(_RECEIPTS, account, last.to_id), reader.rows(_UNPACKED, account)
    since = sum(row[1] <= last.to_id and row[3] > 0 for row in rows["receipt"])
    if there != sealed + since:
        what = f"{there} receipts of sealed time are there, {sealed + since} were made"
        return {"table": "ledger_receipt", "id": None, "what": what}
    sums = fold(sums, rows)
    for grant, balance, lost in reader.rows(_GRANTS, account):
        if (rebuilt := sums.get(grant, (0, 0))) != (balance, lost):
            return {"table": "ledger_grant", "id": grant, "what": f"{balance} left, {lost} lost; rebuilt: {rebuilt}"}
    debt = reader.rows(_DEBT, account)
    if debt and debt[0][0] != -sums.get(DEBT, (0, 0))[0]:
        return {"table": "ledger_account", "id": account, "what": f"debt {debt[0][0]} is not what the journal makes it"}
    return None
