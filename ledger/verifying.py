"""Reads sealed ranges again: that every row is as it was sealed, and that balances are what the journal makes them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from ledger.backend import Reader
from ledger.model import DEBT
from ledger.ranges import load_range, read_seals, sealed_rows
from ledger.seals import NO_SEAL, Seal, again, changed, faults, fold

__all__ = ["Sealed", "verify"]

_NEWEST = "SELECT account_id, number, transfers + receipts FROM ledger_seal ORDER BY to_id DESC"
_LAST = (
    "SELECT s.account_id, s.digest FROM ledger_seal s WHERE s.number ="
    " (SELECT MAX(l.number) FROM ledger_seal l WHERE l.account_id = s.account_id) ORDER BY s.account_id"
)
_GRANTS = "SELECT grant_id, balance, lost FROM ledger_grant WHERE account_id = ?"
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
    last: dict[int, int] = {}
    for account, number, rows in reader.rows(_NEWEST):
        ranges, total = ranges + 1, total + rows
        last.setdefault(account, number)
        if most_rows is None or total <= most_rows:
            first[account] = number
            read = total
    found = []
    for account, number in sorted(first.items()):
        if (wrong := _first_wrong(reader, account, number, last[account])) is not None:
            found.append({"account_id": account, **wrong})
    head = sha256(b"".join(b"%d " % account + bytes(digest) for account, digest in reader.rows(_LAST))).hexdigest()
    return Sealed(ranges, total, read, head if ranges else None), found


def _first_wrong(reader: Reader, account: int, first: int, last: int) -> dict[str, Any] | None:
    before, sums = NO_SEAL, dict[int, tuple[int, int | None]]()
    if first > 1:
        found = read_seals(reader, account, first - 1, first - 1)
        if not found:
            return {"range": first - 1, "what": "the seal is missing"}
        before = found[0]
    for number, (seal, rows) in enumerate(_ranges(reader, account, first, last, before), first):
        if seal.number != number:
            return {"range": number, "what": "the seal is missing"}
        if (what := changed(seal, rows)) is not None:
            return {"range": number, **what}
        if again(before, seal, rows) != seal:
            return {"range": number, "what": "the seal was altered"}
        if wrong := faults(rows):
            return {"range": number, "what": wrong[0]}
        before, sums = seal, fold(sums, rows)
    return _rebuilt(reader, account, before, sums) if first == 1 else None


def _ranges(reader: Reader, account: int, first: int, last: int, before: Seal) -> Iterator[tuple[Seal, Any]]:
    for start in range(first, last + 1, _AT_ONCE):
        for seal in read_seals(reader, account, start, min(start + _AT_ONCE - 1, last)):
            yield seal, sealed_rows(reader, seal, before.to_id)
            before = seal


def _rebuilt(reader: Reader, account: int, last: Seal, sums: Any) -> dict[str, Any] | None:
    """Compare an account with what all of its journal comes to."""
    sums = fold(sums, load_range(reader, account, last.to_id, _ALL))
    for grant, balance, lost in reader.rows(_GRANTS, account):
        if (rebuilt := sums.get(grant, (0, 0))) != (balance, lost):
            return {"table": "ledger_grant", "id": grant, "what": f"{balance} left, {lost} lost; rebuilt: {rebuilt}"}
    debt = reader.rows(_DEBT, account)
    if debt and debt[0][0] != -sums.get(DEBT, (0, 0))[0]:
        return {"table": "ledger_account", "id": account, "what": f"debt {debt[0][0]} is not what the journal makes it"}
    return None
