"""Proves the ledger's invariants by SQL, on one read-only snapshot, beside a running server."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ledger.archive import packed_receipt
from ledger.backend import Reader
from ledger.connecting import CONNECTING
from ledger.dialects import POSTGRES, SQLITE, Dialect
from ledger.errors import LedgerUnavailable
from ledger.model import ADJUSTED, ADJUSTMENT, ALLOWANCE, BREAKAGE, DEBT, ISSUE, REFUNDED, REVENUE, SALE
from ledger.opening import is_postgres
from ledger.seals import REFUNDED_SO_FAR
from ledger.sqlite import SqliteReader
from ledger.unsealed import EVERYTHING, Unsealed, unsealed
from ledger.verifying import Sealed, verify

if TYPE_CHECKING:
    import psycopg

__all__ = ["MOST_ROWS", "Audit", "Finding", "audit", "audit_within"]

MOST_ROWS: Final = 1_000_000
"""Of the sealed rows so many are read again, if not all are asked for; under a minute in PostgreSQL."""

_MOST_SHOWN = 20
_Row = dict[str, Any]
_Read = Callable[[str], list[_Row]]


@dataclass(frozen=True, slots=True)
class Finding:
    """An invariant that does not hold, with the first rows that break it."""

    invariant: str
    rows: list[dict[str, object]]


@dataclass(frozen=True, slots=True)
class Audit:
    """What was found. totals: nanocredits by name. orphans: calls whose process died; they are listed, not broken."""

    findings: list[Finding]
    totals: dict[str, int]
    orphans: list[dict[str, object]]
    checked: list[str]
    sealed: Sealed

    @property
    def clean(self) -> bool:
        return not self.findings

    @property
    def broken(self) -> list[str]:
        """The invariants that do not hold."""
        return [finding.invariant for finding in self.findings]


_ORIGIN: Final = (
    f"CASE g.source WHEN '{ADJUSTED}' THEN {ADJUSTMENT} WHEN '{REFUNDED}' THEN {REVENUE}"
    f" ELSE CASE g.paid WHEN 0 THEN {ISSUE} ELSE {SALE} END END"
)


def _invariants(sql: Dialect, unsealed: Unsealed) -> dict[str, str]:
    """Each selects the rows that break the invariant it is named by; the first two columns say which."""
    return {
        "0 <= held <= balance <= granted, and nothing left is closed": """
            SELECT account_id, grant_id, granted, balance, held, lost, open FROM ledger_grant
            WHERE held < 0 OR held > balance OR balance + lost > granted OR lost < 0
                OR open <> CASE WHEN balance > 0 THEN 1 ELSE 0 END""",
        "a voided grant has nothing but what is held, and the rest went where it came from": f"""
            SELECT account_id, grant_id, voided_at, balance, held, NULL AS target FROM ledger_grant
            WHERE voided_at IS NOT NULL AND balance <> held
            UNION ALL
            SELECT t.account_id, t.source, g.voided_at, g.balance, g.held, t.target
            FROM (SELECT * FROM {unsealed.transfers}) t
            LEFT JOIN ledger_grant g ON g.account_id = t.account_id AND g.grant_id = t.source
            WHERE t.kind = 'void' AND (g.voided_at IS NULL OR t.target <> {_ORIGIN} OR t.at < g.voided_at)""",
        "each balance is the fold of its transfers": f"""
            WITH fold AS (
                SELECT account_id, node, SUM(amount) AS amount, SUM(lost) AS lost, MAX(whole) AS whole FROM (
                    SELECT account_id, target AS node, amount, 0 AS lost, {unsealed.whole} AS whole
                    FROM {unsealed.transfers} WHERE target > 0
                    UNION ALL
                    SELECT account_id, source, -amount,
                        CASE WHEN target IN ({REVENUE}, {DEBT}) AND kind <> 'void' THEN 0 ELSE amount END, 0
                    FROM {unsealed.transfers} WHERE source > 0
                    UNION ALL
                    SELECT account_id, node, amount, COALESCE(lost, 0), CASE WHEN lost IS NULL THEN 0 ELSE 1 END
                    FROM {unsealed.before} WHERE node > 0) moved
                GROUP BY account_id, node)
            SELECT g.account_id, g.grant_id, g.balance, g.lost, f.amount AS fold, f.lost AS fold_lost
            FROM ledger_grant g LEFT JOIN fold f ON f.account_id = g.account_id AND f.node = g.grant_id
            WHERE g.balance <> COALESCE(f.amount, 0) OR (f.whole = 1 AND g.lost <> f.lost) OR g.lost < f.lost
            UNION ALL
            SELECT f.account_id, f.node, NULL, NULL, f.amount, f.lost FROM fold f
            LEFT JOIN ledger_grant g ON g.account_id = f.account_id AND g.grant_id = f.node WHERE g.grant_id IS NULL""",
        "each grant was issued once, in full": f"""
            WITH issued AS (
                SELECT t.account_id, t.target, SUM(t.amount) AS amount, MIN(t.source) AS source, COUNT(*) AS times
                FROM (SELECT * FROM {unsealed.transfers}) t
                LEFT JOIN ledger_refund r ON r.account_id = t.account_id AND r.refund_id = t.target
                WHERE t.target > 0 AND (t.source IN ({ISSUE}, {SALE}, {ADJUSTMENT})
                    -- A refund's own grant; other transfers from revenue give back what a grant has paid.
                    OR (t.source = {REVENUE} AND t.request = r.hold_id))
                GROUP BY t.account_id, t.target)
            SELECT g.account_id, g.grant_id, g.granted, i.amount AS issued, i.times FROM ledger_grant g
            LEFT JOIN issued i ON i.account_id = g.account_id AND i.target = g.grant_id
            WHERE i.amount <> g.granted OR i.times <> 1 OR i.source <> {_ORIGIN}
                OR (i.amount IS NULL AND {unsealed.sealed_to.format("g.account_id")} = 0)""",
        "debt is the fold of its transfers": f"""
            WITH fold AS (
                SELECT account_id, SUM(amount) AS debt FROM (
                    SELECT account_id, CASE {DEBT} WHEN source THEN amount ELSE -amount END AS amount
                    FROM {unsealed.transfers} WHERE source = {DEBT} OR target = {DEBT}
                    UNION ALL
                    SELECT account_id, -amount FROM {unsealed.before} WHERE node = {DEBT}) moved
                GROUP BY account_id)
            SELECT a.account_id, a.debt, f.debt AS fold FROM ledger_account a LEFT JOIN fold f USING (account_id)
            WHERE a.debt <> COALESCE(f.debt, 0)""",
        "held is the sum of the legs of open holds": f"""
            WITH legs AS (
                SELECT h.account_id, {sql.number("leg", 0)} AS node, SUM({sql.number("leg", 1)}) AS amount
                FROM ledger_hold h, {sql.items("h.legs", "leg")} GROUP BY 1, 2)
            SELECT g.account_id, g.grant_id, g.held, l.amount AS legs FROM ledger_grant g
            LEFT JOIN legs l ON l.account_id = g.account_id AND l.node = g.grant_id
            WHERE g.held <> COALESCE(l.amount, 0)
            UNION ALL
            SELECT a.account_id, 0, a.overdraft_held, l.amount FROM ledger_account a
            LEFT JOIN legs l ON l.account_id = a.account_id AND l.node = 0
            WHERE a.overdraft_held <> COALESCE(l.amount, 0)""",
        "each hold's legs add up to it": f"""
            SELECT h.account_id, h.hold_id, h.amount, COALESCE(SUM({sql.number("leg", 1)}), 0) AS pinned
            FROM ledger_hold h LEFT JOIN {sql.items("h.legs", "leg")} ON TRUE
            GROUP BY h.account_id, h.hold_id, h.amount
            HAVING COALESCE(SUM({sql.number("leg", 1)}), 0) <> h.amount""",
        "a hold is open or has ended, not both": """
            SELECT h.account_id, h.hold_id FROM ledger_hold h JOIN ledger_receipt r USING (account_id, hold_id)""",
        "a receipt's total is its lines, its transfers, and what paid for it": f"""
            WITH moved AS (
                SELECT account_id, request, SUM(amount) AS amount,
                    SUM(CASE source WHEN {DEBT} THEN amount ELSE 0 END) AS debt
                FROM {unsealed.transfers} WHERE target = {REVENUE} AND kind <> 'void' GROUP BY account_id, request),
            receipt AS (
                SELECT account_id, hold_id, charged, debt, {sql.lines} AS lines, {sql.paid} AS paid
                FROM {unsealed.receipts})
            SELECT r.account_id, r.hold_id, r.charged, r.lines, r.paid, r.debt, m.amount AS moved FROM receipt r
            LEFT JOIN moved m ON m.account_id = r.account_id AND m.request = r.hold_id
            WHERE r.lines {sql.is_not} r.charged OR r.paid + r.debt {sql.is_not} r.charged
                OR r.charged <> COALESCE(m.amount, 0) OR r.debt <> COALESCE(m.debt, 0)
            UNION ALL
            SELECT m.account_id, m.request, NULL, NULL, NULL, NULL, m.amount FROM moved m
            LEFT JOIN ledger_receipt r ON r.account_id = m.account_id AND r.hold_id = m.request
            WHERE r.hold_id IS NULL""",
        "only settled calls were charged": f"""
            SELECT account_id, hold_id, status, charged FROM {unsealed.receipts}
            WHERE status NOT IN ('settled', 'voided', 'orphaned') OR (status <> 'settled' AND charged <> 0)
            UNION
            SELECT account_id, hold_id, status, charged FROM ledger_receipt
            WHERE status = 'orphaned' AND charged <> 0""",
        "the refunds of a call are within its charge": f"""
            SELECT f.account_id, f.hold_id, r.charged, r.debt,
                SUM(f.amount) AS refunded, SUM(f.debt_reduced) AS debt_reduced
            FROM ledger_refund f LEFT JOIN ledger_receipt r USING (account_id, hold_id)
            GROUP BY f.account_id, f.hold_id, r.charged, r.debt
            HAVING (r.charged IS NULL AND f.hold_id > {unsealed.packed_to.format("f.account_id")})
                OR SUM(f.amount) > r.charged OR SUM(f.debt_reduced) > r.debt""",
        "a refund is its transfers, to its debt and to grants that paid": f"""
            WITH said AS (
                SELECT account_id, hold_id, {DEBT} AS node, debt_reduced AS amount, 0 AS own FROM {unsealed.refunds}
                WHERE debt_reduced > 0
                UNION ALL
                SELECT f.account_id, f.hold_id, {sql.number("part", 0)}, {sql.number("part", 2)},
                    CASE {sql.number("part", 0)} WHEN f.refund_id THEN 1 ELSE 0 END
                FROM (SELECT * FROM {unsealed.refunds}) f, {sql.items("f.paid_to", "part")}),
            sums AS (
                SELECT account_id, hold_id, node, SUM(amount) AS amount, MAX(own) AS own FROM said GROUP BY 1, 2, 3),
            moved AS (
                SELECT account_id, request AS hold_id, target AS node, SUM(amount) AS amount
                FROM {unsealed.transfers} WHERE source = {REVENUE} GROUP BY 1, 2, 3),
            paid AS (
                SELECT r.account_id, r.hold_id, {sql.number("part", 0)} AS node, {sql.number("part", 2)} AS amount
                FROM ledger_receipt r, {sql.items("r.paid_from", "part")}
                WHERE (r.account_id, r.hold_id) IN (SELECT account_id, hold_id FROM ledger_refund))
            SELECT s.account_id, s.hold_id, s.node, s.amount AS refunded, m.amount AS moved, p.amount AS paid
            FROM sums s
            LEFT JOIN moved m USING (account_id, hold_id, node) LEFT JOIN paid p USING (account_id, hold_id, node)
            WHERE s.amount {sql.is_not} m.amount OR (s.node > 0 AND s.own = 0 AND s.amount > COALESCE(p.amount, 0)
                AND (p.amount IS NOT NULL OR s.hold_id > {unsealed.packed_to.format("s.account_id")}))
            UNION ALL
            SELECT m.account_id, m.hold_id, m.node, s.amount, m.amount, NULL FROM moved m
            LEFT JOIN sums s USING (account_id, hold_id, node) WHERE s.amount IS NULL
            UNION ALL
            SELECT f.account_id, f.hold_id, f.refund_id, f.amount, f.debt_reduced, NULL FROM ledger_refund f
            WHERE f.amount <> f.debt_reduced
                + (SELECT COALESCE(SUM({sql.number("part", 2)}), 0) FROM {sql.items("f.paid_to", "part")})
            UNION ALL
            SELECT account_id, NULL, NULL, SUM(made), SUM(moved), NULL FROM (
                SELECT account_id, amount AS made, 0 AS moved FROM ledger_refund
                UNION ALL SELECT account_id, 0, amount FROM {unsealed.transfers} WHERE kind = 'refund'
                UNION ALL SELECT account_id, 0, amount FROM {unsealed.before} WHERE node = {REFUNDED_SO_FAR}) refunds
            GROUP BY account_id HAVING SUM(made) <> SUM(moved)""",
        "every transfer has an account and known nodes": f"""
            SELECT t.account_id, t.transfer_id, t.source, t.target
            FROM (SELECT * FROM {unsealed.transfers}) t LEFT JOIN ledger_account a USING (account_id)
            WHERE a.account_id IS NULL OR t.amount <= 0 OR NOT CASE t.kind
                WHEN 'grant' THEN t.source IN ({ISSUE}, {SALE}) AND t.target > 0
                WHEN 'repayment' THEN t.source > 0 AND t.target = {DEBT}
                WHEN 'charge' THEN t.source > 0 AND t.target = {REVENUE}
                WHEN 'debt' THEN t.source = {DEBT} AND t.target = {REVENUE}
                WHEN 'expiry' THEN t.source > 0 AND t.target = {BREAKAGE}
                WHEN 'void' THEN t.source > 0 AND t.target IN ({ISSUE}, {SALE}, {ADJUSTMENT}, {REVENUE})
                WHEN 'refund' THEN t.source = {REVENUE} AND (t.target > 0 OR t.target = {DEBT})
                    AND t.request IS NOT NULL
                WHEN 'adjustment' THEN (t.source = {ADJUSTMENT} AND (t.target > 0 OR t.target = {DEBT}))
                    OR ((t.source > 0 OR t.source = {DEBT}) AND t.target = {ADJUSTMENT})
                ELSE FALSE END""",
        "no two periods of one allowance overlap": f"""
            SELECT account_id, bucket{sql.bytewise} AS bucket, grant_id, effective_at, before_ends FROM (
                SELECT account_id, bucket, grant_id, effective_at, LAG(expires_at) OVER (
                    PARTITION BY account_id, bucket ORDER BY effective_at) AS before_ends
                -- What an upgrade adds to a period has one part more in its key.
                FROM ledger_grant WHERE source = '{ALLOWANCE}' AND source_key NOT LIKE '{ALLOWANCE}/%/%/%') periods
            WHERE before_ends > effective_at""",
        "nothing is reserved at a spend limit but by open holds": f"""
            WITH held AS (
                SELECT h.account_id, {sql.word("part", 0)} AS scope, {sql.number("part", 1)} AS label,
                    SUM(h.amount) AS amount
                FROM ledger_hold h, {sql.items("h.limits", "part")} WHERE h.limits IS NOT NULL GROUP BY 1, 2, 3)
            SELECT l.account_id, l.scope{sql.bytewise} AS scope, l.label, l.reserved, held.amount AS held
            FROM ledger_limit l
            LEFT JOIN held USING (account_id, scope, label) WHERE l.reserved > COALESCE(held.amount, 0)""",
        "an idempotency key is claimed by an open hold or by a call that was settled": f"""
            SELECT c.account_id, c.hold_id, c.at, c.answer IS NOT NULL AS answered FROM ledger_claim c
            LEFT JOIN ledger_hold h USING (account_id, hold_id) LEFT JOIN ledger_receipt r USING (account_id, hold_id)
            WHERE CASE WHEN c.answer IS NULL THEN substr(h.claim, 1, 32) {sql.is_not} c.claim
                OR substr(h.claim, 33) {sql.is_not} c.body
                ELSE r.status {sql.is_not} 'settled' AND c.hold_id > {unsealed.packed_to.format("c.account_id")} END""",
        "renewal is noted for every account that is to be renewed": """
            SELECT account_id, next_plan_at, next_due_at FROM ledger_account WHERE next_plan_at < next_due_at""",
        "expiry is noted for every account that has something to expire": """
            SELECT a.account_id, a.next_due_at, MIN(g.expires_at) AS expires_at FROM ledger_account a
            JOIN ledger_grant g USING (account_id) WHERE g.balance > g.held
            GROUP BY a.account_id, a.next_due_at HAVING MIN(g.expires_at) < a.next_due_at""",
    }


def _totals(unsealed: Unsealed) -> dict[str, tuple[str, str]]:
    """Each is a sum over a table; net: what was voided is not issued or sold, what was refunded is no revenue."""

    def net(node: int, sign: int) -> tuple[str, str]:
        return (
            "amount",
            f"""(SELECT {sign} * CASE target WHEN {node} THEN amount ELSE -amount END AS amount
                FROM {unsealed.transfers} WHERE {node} IN (source, target)
                UNION ALL SELECT {sign} * amount FROM {unsealed.before} WHERE node = {node}) moved""",
        )

    return {
        "balances": ("balance", "ledger_grant"),
        "held": ("held", "ledger_grant"),
        "overdraft_held": ("overdraft_held", "ledger_account"),
        "debt": ("debt", "ledger_account"),
        "issued": net(ISSUE, -1),
        "sold": net(SALE, -1),
        "adjusted": net(ADJUSTMENT, -1),
        "revenue": net(REVENUE, 1),
        "breakage": net(BREAKAGE, 1),
        "refunded": ("amount", "ledger_refund"),
    }


_NANO = 10**9

_SEALED = "a sealed row is as it was sealed, and balances are what the journal makes them"
_OF_PACKED = (
    "SELECT f.account_id, f.hold_id, SUM(f.amount), SUM(f.debt_reduced) FROM ledger_refund f"
    " LEFT JOIN ledger_receipt r ON r.account_id = f.account_id AND r.hold_id = f.hold_id"
    " WHERE r.status IS NULL GROUP BY f.account_id, f.hold_id"
)
_LAW = "balances less debt are what was issued, sold and adjusted less revenue and breakage"
_ORPHANS = (
    "SELECT account_id, hold_id, created_at, ended_at FROM ledger_receipt WHERE status = 'orphaned'"
    " ORDER BY hold_id, account_id"
)


def audit(where: str, *, most_rows: int | None = MOST_ROWS) -> Audit:
    """Check every invariant of a ledger, the file of that path or in PostgreSQL at that URL.

    What is sealed was checked when it was, and counts by what its last seals say; of it, the newest rows are read
    again, about as many as most_rows, None for all. Raises LedgerUnavailable if there is no ledger.
    """
    postgres = is_postgres(where)
    with _server(where) if postgres else _file(where) as (read, reader):
        return _audit(read, reader, POSTGRES if postgres else SQLITE, most_rows)


def audit_within(connection: psycopg.Connection[Any]) -> Audit:
    """Check every invariant of a ledger in PostgreSQL as a transaction sees it; raises psycopg.Error."""
    return _audit(*_reading(connection), POSTGRES, MOST_ROWS)


def _audit(read: _Read, reader: Reader, sql: Dialect, most_rows: int | None) -> Audit:
    sealed, changed = verify(reader, most_rows)
    open_rows = unsealed(sql) if sealed.ranges else EVERYTHING
    changed += _refunded_too_much(reader)
    findings = [Finding(_SEALED, changed[:_MOST_SHOWN])] if changed else []
    invariants = _invariants(sql, open_rows)
    for invariant, statement in invariants.items():
        rows = read(f"SELECT * FROM ({statement}) broken ORDER BY 1, 2 NULLS FIRST LIMIT {_MOST_SHOWN}")
        if rows:
            findings.append(Finding(invariant, [{name: _plain(value) for name, value in row.items()} for row in rows]))
    totals = {name: _total(read, column, rows) for name, (column, rows) in _totals(open_rows).items()}
    came = totals["issued"] + totals["sold"] + totals["adjusted"]
    if totals["balances"] - totals["debt"] != came - totals["revenue"] - totals["breakage"]:
        findings.append(Finding(_LAW, [dict(totals)]))
    return Audit(findings, totals, read(_ORPHANS), [_SEALED, *invariants, _LAW], sealed)


def _refunded_too_much(reader: Reader) -> list[_Row]:
    """Compare refunds of packed calls with what those were charged, which SQL can't."""
    found: list[_Row] = []
    for account, hold, amount, debt in reader.rows(_OF_PACKED):
        try:
            receipt = packed_receipt(reader, account, hold)
        except LedgerUnavailable as error:
            found.append({"account_id": account, "table": "ledger_receipt", "id": hold, "what": str(error)})
            continue
        if receipt is not None and (amount > receipt[3] or debt > receipt[4]):
            what = f"{amount} were refunded, of them {debt} of debt; it was charged {receipt[3]}, of them {receipt[4]}"
            found.append({"account_id": account, "table": "ledger_receipt", "id": hold, "what": what})
    return found


def _total(read: _Read, column: str, rows: str) -> int:
    (sums,) = read(f"SELECT SUM({column} / {_NANO}) AS whole, SUM({column} % {_NANO}) AS rest FROM {rows}")
    return int(sums["whole"] or 0) * _NANO + int(sums["rest"] or 0)


def _plain(value: object) -> object:
    """What PostgreSQL calls a truth or adds up to a decimal is a number in the findings, as it is on SQLite."""
    if isinstance(value, Decimal):
        return int(value) if value == int(value) else float(value)
    return int(value) if isinstance(value, bool) else value


@contextmanager
def _file(path: str) -> Iterator[tuple[_Read, Reader]]:
    """Read a file, in one transaction: every statement sees the same moment."""
    if not Path(path).is_file():
        raise LedgerUnavailable(f"there is no ledger at {path}")
    connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True, isolation_level=None, timeout=10)
    try:
        connection.execute("BEGIN")
        reader = SqliteReader(connection)
        connection.row_factory = sqlite3.Row
        yield lambda statement: [dict(row) for row in connection.execute(statement)], reader
    except sqlite3.Error as error:
        raise LedgerUnavailable(f"{path} can't be audited: {error}") from error
    finally:
        connection.close()


@contextmanager
def _server(url: str) -> Iterator[tuple[_Read, Reader]]:
    """Read from PostgreSQL, in one transaction of one snapshot, in which nothing can be written."""
    import psycopg

    try:
        with psycopg.connect(url, **CONNECTING) as connection:
            connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
            connection.read_only = True
            yield _reading(connection)
    except psycopg.Error as error:
        # Not the URL: it may have a password in it.
        raise LedgerUnavailable(f"the ledger's database can't be audited: {error}") from error


def _reading(connection: psycopg.Connection[Any]) -> tuple[_Read, Reader]:
    from psycopg.rows import dict_row

    from ledger.postgres import PostgresReader

    named = connection.cursor(row_factory=dict_row)
    reader = PostgresReader(lambda: connection.cursor(binary=True))
    return lambda statement: named.execute(statement.encode()).fetchall(), reader
