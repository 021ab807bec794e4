"""What of the journal no seal covers, in SQL: the audit reads only that, and what the last seals say came before.

The accounts are found by stepping through the journal's key, so that what is read grows with what is open alone.
"""

from __future__ import annotations

from dataclasses import dataclass

from ledger.dialects import Dialect
from ledger.model import ADJUSTMENT, ISSUE, REVENUE, SALE

__all__ = ["EVERYTHING", "Unsealed", "unsealed"]


@dataclass(frozen=True, slots=True)
class Unsealed:
    """Parts of statements. transfers, receipts, refunds: tables of what is open.

    before: a table of (account_id, node, amount, lost) as of the last seals.

    whole: of a transfer t, 1 where nothing that its grant lost can be sealed. sealed_to, packed_to: the last ids of an
    account, whose id is put in.
    """

    transfers: str
    receipts: str
    refunds: str
    before: str
    whole: str
    sealed_to: str
    packed_to: str


EVERYTHING = Unsealed(
    transfers="ledger_transfer",
    receipts="ledger_receipt",
    refunds="ledger_refund",
    before="(SELECT 0 AS account_id, 0 AS node, 0 AS amount, 0 AS lost WHERE 1 = 0) no_seals",
    whole="1",
    sealed_to="0",
    packed_to="0",
)
"""Where nothing is sealed."""


def unsealed(sql: Dialect) -> Unsealed:
    """What is open in a ledger that has seals."""
    transfers = f"({_above(sql, 'ledger_transfer', 'transfer_id')}) open_transfers"
    # Calls that were held before the seal and charged after it.
    charged = (
        f"SELECT DISTINCT account_id, request FROM {transfers} WHERE target = {REVENUE} AND kind <> 'void'"
        " AND request <= sealed_to"
    )
    of_those = sql.probe(
        charged, "ledger_receipt", "f.account_id = s.account_id AND f.hold_id = s.request", "f.*, 0 AS sealed_to"
    )
    receipts = f"({_above(sql, 'ledger_receipt', 'hold_id')} UNION ALL {of_those}) open_receipts"
    return Unsealed(
        transfers=transfers,
        receipts=receipts,
        refunds=f"""(SELECT f.* FROM ledger_refund f WHERE {_sealed_to("f.account_id")} = 0
            OR (f.account_id, f.hold_id, f.created_at) IN (
                SELECT account_id, request, at FROM {transfers} WHERE kind = 'refund')) open_refunds""",
        before=f"""(SELECT s.account_id, {_integer(sql, 0)} AS node, {_integer(sql, 1)} AS amount,
                {_integer(sql, 2)} AS lost FROM ledger_account a JOIN ledger_seal s ON s.account_id = a.account_id
                AND s.to_id = (SELECT MAX(m.to_id) FROM ledger_seal m WHERE m.account_id = a.account_id),
            {sql.items("s.state", "part")}) before_open""",
        whole=f"CASE WHEN sealed_to = 0 OR source IN ({ISSUE}, {SALE}, {ADJUSTMENT}) THEN 1 ELSE 0 END",
        sealed_to=_sealed_to("{}"),
        packed_to=_last("{}", " AND packed IS NOT NULL"),
    )


def _above(sql: Dialect, table: str, key: str) -> str:
    accounts = f"""WITH RECURSIVE found(account_id) AS (SELECT MIN(account_id) FROM {table} UNION ALL
            SELECT (SELECT MIN(n.account_id) FROM {table} n WHERE n.account_id > found.account_id) FROM found
            WHERE found.account_id IS NOT NULL)
        SELECT account_id, {_sealed_to("found.account_id")} AS sealed_to FROM found WHERE account_id IS NOT NULL"""
    return sql.probe(accounts, table, f"f.account_id = s.account_id AND f.{key} > s.sealed_to", "f.*, s.sealed_to")


def _integer(sql: Dialect, place: int) -> str:
    return f"CAST({sql.number('part', place)} AS BIGINT)"


def _sealed_to(account: str) -> str:
    return _last(account, "")


def _last(account: str, condition: str) -> str:
    return f"COALESCE((SELECT MAX(to_id) FROM ledger_seal l WHERE l.account_id = {account}{condition}), 0)"
