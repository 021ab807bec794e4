"""The audit finds nothing in a sound ledger, and every kind of damage by the invariant that it breaks."""

from __future__ import annotations

import json
import shutil
import sqlite3
from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import psycopg
import pytest

from ledger.audit import Audit, Finding, audit
from ledger.commands import Command, IssueGrant, OpenAccount, SetLimit, SetPlan
from ledger.errors import LedgerError, LedgerUnavailable
from ledger.model import NEVER, Claim
from ledger.outcomes import Outcome
from ledger.postgres import Postgres
from ledger.rules import Allowance, Plan
from ledger.store import Store
from ledger.tables import TABLES
from tests.ledger.books import Stored, quick_store, read_page
from tests.ledger.running import DAY, HOUR, NOON, RULES, Clock, Life, held, running, settled, voided

BOUNDS = "0 <= held <= balance <= granted, and nothing left is closed"
VOIDED = "a voided grant has nothing but what is held, and the rest went where it came from"
BALANCE = "each balance is the fold of its transfers"
ISSUED = "each grant was issued once, in full"
DEBT = "debt is the fold of its transfers"
HELD = "held is the sum of the legs of open holds"
LEGS = "each hold's legs add up to it"
ENDED = "a hold is open or has ended, not both"
RECEIPT = "a receipt's total is its lines, its transfers, and what paid for it"
CHARGED = "only settled calls were charged"
WITHIN = "the refunds of a call are within its charge"
REFUNDS = "a refund is its transfers, to its debt and to grants that paid"
NODES = "every transfer has an account and known nodes"
EXPIRY = "expiry is noted for every account that has something to expire"
PERIODS = "no two periods of one allowance overlap"
RESERVED = "nothing is reserved at a spend limit but by open holds"
RENEWAL = "renewal is noted for every account that is to be renewed"
SEALED = "a sealed row is as it was sealed, and balances are what the journal makes them"
CLAIMED = "an idempotency key is claimed by an open hold or by a call that was settled"
LAW = "balances less debt are what was issued, sold and adjusted less revenue and breakage"

ACCOUNTS = range(1, 8)
_FIRST = "ORDER BY 1, 2 LIMIT 1"
_OPEN = f"(SELECT account_id, grant_id FROM ledger_grant WHERE balance - held > 1 AND lost = 0 AND held > 1 {_FIRST})"
_GRANT = f"WHERE (account_id, grant_id) IN {_OPEN}"
_HOLD = f"WHERE (account_id, hold_id) IN (SELECT account_id, hold_id FROM ledger_hold WHERE amount > 0 {_FIRST})"
_PAID = (
    "WHERE (account_id, hold_id) IN (SELECT account_id, hold_id FROM ledger_receipt"
    f" WHERE charged > 1 AND debt = 0 AND late = 0 {_FIRST})"
)
_TRANSFER = (
    f"WHERE (account_id, transfer_id) IN (SELECT account_id, transfer_id FROM ledger_transfer WHERE {{}} {_FIRST})"
)
_COLUMNS = "(account_id, transfer_id, kind, source, target, amount, at, request)"
_COPY = (
    f"INSERT INTO ledger_transfer {_COLUMNS}"
    " SELECT account_id, transfer_id + 1, kind, source, target, amount, at, request"
)

_REFUND = (
    "WHERE (account_id, refund_id) IN (SELECT account_id, refund_id FROM ledger_refund"
    " WHERE debt_reduced = 0 AND json_array_length(paid_to) = 1"
    f" AND json_extract(paid_to, '$[0][0]') <> refund_id {_FIRST})"
)
_KIND_VOID = "kind = 'void' AND target > -3"
_VOID = f"WHERE (account_id, grant_id) IN (SELECT account_id, source FROM ledger_transfer WHERE kind = 'void' {_FIRST})"

# What is done to the file, or in PostgreSQL, and the invariants that must name it.
DAMAGE: dict[str, tuple[str, set[str]]] = {
    "a balance grew": (f"UPDATE ledger_grant SET balance = balance + 1 {_GRANT}", {BALANCE, LAW}),
    "a balance shrank": (f"UPDATE ledger_grant SET balance = balance - 1 {_GRANT}", {BALANCE, LAW}),
    "a balance is above its grant": (f"UPDATE ledger_grant SET balance = granted + 1 {_GRANT}", {BOUNDS, BALANCE}),
    "a grant was deleted": (f"DELETE FROM ledger_grant {_GRANT}", {BALANCE, LAW}),
    "a grant was closed with credits in it": (f"UPDATE ledger_grant SET open = 0 {_GRANT}", {BOUNDS}),
    "a used grant was opened again": ("UPDATE ledger_grant SET open = 1 WHERE balance = 0", {BOUNDS}),
    "a grant's size was raised": (f"UPDATE ledger_grant SET granted = granted + 1 {_GRANT}", {ISSUED}),
    "a gift was declared paid": (f"UPDATE ledger_grant SET paid = 1 - paid {_GRANT}", {ISSUED}),
    "lost credits were made up": (f"UPDATE ledger_grant SET lost = 1 {_GRANT}", {BALANCE}),
    "held grew": (f"UPDATE ledger_grant SET held = held + 1 {_GRANT}", {HELD}),
    "held shrank": (f"UPDATE ledger_grant SET held = held - 1 {_GRANT}", {HELD}),
    "more is held than is left": (f"UPDATE ledger_grant SET held = balance + 1 {_GRANT}", {BOUNDS, HELD}),
    "held is negative": (f"UPDATE ledger_grant SET held = -1 {_GRANT}", {BOUNDS, HELD}),
    "overdraft is held for nobody": ("UPDATE ledger_account SET overdraft_held = overdraft_held + 1", {HELD}),
    "debt grew": ("UPDATE ledger_account SET debt = debt + 1 WHERE account_id = 1", {DEBT, LAW}),
    "debt was forgiven": ("UPDATE ledger_account SET debt = debt - 1 WHERE debt > 0", {DEBT, LAW}),
    "a charge was deleted": (
        f"DELETE FROM ledger_transfer {_TRANSFER.format('kind = ' + repr('charge'))}",
        {BALANCE, RECEIPT, LAW},
    ),
    "a debt was deleted": (
        f"DELETE FROM ledger_transfer {_TRANSFER.format('kind = ' + repr('debt'))}",
        {DEBT, RECEIPT, LAW},
    ),
    "a repayment was deleted": (
        f"DELETE FROM ledger_transfer {_TRANSFER.format('kind = ' + repr('repayment'))}",
        {BALANCE, DEBT},
    ),
    "an expiry was deleted": (
        f"DELETE FROM ledger_transfer {_TRANSFER.format('kind = ' + repr('expiry'))}",
        {BALANCE, LAW},
    ),
    "a grant's issue was deleted": (
        f"DELETE FROM ledger_transfer {_TRANSFER.format('kind = ' + repr('grant'))}",
        {BALANCE, ISSUED, LAW},
    ),
    "a grant was issued twice": (
        f"{_COPY} FROM ledger_transfer {_TRANSFER.format('kind = ' + repr('grant'))}",
        {BALANCE, ISSUED, LAW},
    ),
    "a call was charged twice": (
        f"{_COPY} FROM ledger_transfer {_TRANSFER.format('kind = ' + repr('charge'))}",
        {BALANCE, RECEIPT, LAW},
    ),
    "a charge grew": (
        f"UPDATE ledger_transfer SET amount = amount + 1 {_TRANSFER.format('kind = ' + repr('charge'))}",
        {BALANCE, RECEIPT, LAW},
    ),
    "a charge was moved to another call": (
        f"UPDATE ledger_transfer SET request = 1 {_TRANSFER.format('kind = ' + repr('charge'))}",
        {RECEIPT},
    ),
    "a charge was called breakage": (
        f"UPDATE ledger_transfer SET target = -4 {_TRANSFER.format('kind = ' + repr('charge'))}",
        {BALANCE, RECEIPT},
    ),
    "a charge was taken from another grant": (
        f"UPDATE ledger_transfer SET source = source + 1 {_TRANSFER.format('kind = ' + repr('charge'))}",
        {BALANCE},
    ),
    "a transfer goes nowhere": (
        f"UPDATE ledger_transfer SET target = -9 {_TRANSFER.format('kind = ' + repr('expiry'))}",
        {NODES},
    ),
    "a transfer comes from nowhere": (
        f"UPDATE ledger_transfer SET source = -9 {_TRANSFER.format('kind = ' + repr('grant'))}",
        {NODES, ISSUED},
    ),
    "a transfer of less than nothing": (
        f"UPDATE ledger_transfer SET amount = -amount {_TRANSFER.format('kind = ' + repr('charge'))}",
        {NODES, BALANCE, RECEIPT},
    ),
    "an account was deleted": ("DELETE FROM ledger_account WHERE account_id = 1", {NODES}),
    "a receipt says more than was charged": (
        f"UPDATE ledger_receipt SET charged = charged + 1 {_PAID}",
        {RECEIPT},
    ),
    "a receipt says less than was charged": (f"UPDATE ledger_receipt SET charged = charged - 1 {_PAID}", {RECEIPT}),
    "a receipt's debt was made up": (f"UPDATE ledger_receipt SET debt = 1 {_PAID}", {RECEIPT}),
    "a receipt names other payers": (f"UPDATE ledger_receipt SET paid_from = '[]' {_PAID}", {RECEIPT}),
    "a receipt has other lines": (
        f"""UPDATE ledger_receipt SET memo = CAST('{{"lines": [{{"amount": 1}}]}}' AS BLOB) {_PAID}""",
        {RECEIPT},
    ),
    "a receipt can't be read": (f"UPDATE ledger_receipt SET memo = x'00ff' {_PAID}", {RECEIPT}),
    "a receipt was deleted": (f"DELETE FROM ledger_receipt {_PAID}", {RECEIPT}),
    "a charged call was declared void": (f"UPDATE ledger_receipt SET status = 'voided' {_PAID}", {CHARGED}),
    "a charged call was declared an orphan": (f"UPDATE ledger_receipt SET status = 'orphaned' {_PAID}", {CHARGED}),
    "a call ended in a way that there is not": (f"UPDATE ledger_receipt SET status = 'lost' {_PAID}", {CHARGED}),
    "a leg grew": (f"UPDATE ledger_hold SET legs = json_set(legs, '$[0][1]', 10000) {_HOLD}", {HELD, LEGS}),
    "a leg pins another grant": (f"UPDATE ledger_hold SET legs = json_set(legs, '$[0][0]', 77777) {_HOLD}", {HELD}),
    "a hold lost its legs": (f"UPDATE ledger_hold SET legs = '[]' {_HOLD}", {HELD, LEGS}),
    "a hold grew": (f"UPDATE ledger_hold SET amount = amount + 1 {_HOLD}", {LEGS}),
    "a hold was deleted": (f"DELETE FROM ledger_hold {_HOLD}", {HELD}),
    "an ended hold was opened again": (
        "INSERT INTO ledger_hold (account_id, hold_id, amount, legs, memo, created_at, deadline)"
        f" SELECT account_id, hold_id, 0, '[]', memo, created_at, 0 FROM ledger_receipt {_FIRST}",
        {ENDED},
    ),
    "a voided grant has credits": (
        f"UPDATE ledger_grant SET balance = balance + 1, lost = lost - 1, open = 1 {_VOID}",
        {VOIDED, BALANCE, LAW},
    ),
    "a void was undone": (f"UPDATE ledger_grant SET voided_at = NULL {_VOID}", {VOIDED}),
    "a live grant was declared void": (f"UPDATE ledger_grant SET voided_at = 1 {_GRANT}", {VOIDED}),
    "a void was dated later": (f"UPDATE ledger_grant SET voided_at = {NEVER} {_VOID}", {VOIDED}),
    "a void went elsewhere": (
        f"UPDATE ledger_transfer SET target = -3 - target {_TRANSFER.format(_KIND_VOID)}",
        {VOIDED},
    ),
    "a void was deleted": (f"DELETE FROM ledger_transfer {_TRANSFER.format(_KIND_VOID)}", {BALANCE, LAW}),
    "an adjustment's grant was deleted from the journal": (
        f"DELETE FROM ledger_transfer {_TRANSFER.format('source = -6 AND target > 0')}",
        {BALANCE, ISSUED, LAW},
    ),
    "an adjustment that took credits was deleted": (
        f"DELETE FROM ledger_transfer {_TRANSFER.format('source > 0 AND target = -6')}",
        {BALANCE, LAW},
    ),
    "debt that was written off was not": (
        f"DELETE FROM ledger_transfer {_TRANSFER.format('source = -6 AND target = -5')}",
        {DEBT, LAW},
    ),
    "an adjustment's grant was called an admin's": (
        "UPDATE ledger_grant SET source = 'admin' WHERE source = 'adjustment'",
        {ISSUED},
    ),
    "a refund's grant was called an admin's": (
        "UPDATE ledger_grant SET source = 'admin' WHERE source = 'refund'",
        {ISSUED},
    ),
    "a refund was deleted from the journal": (
        f"DELETE FROM ledger_transfer {_TRANSFER.format('source = -3 AND target > 0')}",
        {BALANCE, REFUNDS, LAW},
    ),
    "a refund was moved to another call": (
        f"UPDATE ledger_transfer SET request = 1 {_TRANSFER.format('source = -3')}",
        {REFUNDS},
    ),
    "a refund was moved to no call": (
        f"UPDATE ledger_transfer SET request = NULL {_TRANSFER.format('source = -3')}",
        {NODES, REFUNDS},
    ),
    "a refund of debt was deleted from the journal": (
        f"DELETE FROM ledger_transfer {_TRANSFER.format('source = -3 AND target = -5')}",
        {DEBT, REFUNDS, LAW},
    ),
    "a refund was deleted": (f"DELETE FROM ledger_refund {_REFUND}", {REFUNDS}),
    "a refund grew": (f"UPDATE ledger_refund SET amount = amount + 1 {_REFUND}", {REFUNDS}),
    "a refund is above its charge": (f"UPDATE ledger_refund SET amount = 1000000 {_REFUND}", {WITHIN, REFUNDS}),
    "a refund says that it reduced debt": (
        f"UPDATE ledger_refund SET debt_reduced = amount, paid_to = '[]' {_REFUND}",
        {REFUNDS},
    ),
    "a refund names another grant": (
        f"UPDATE ledger_refund SET paid_to = json_set(paid_to, '$[0][0]', 77777) {_REFUND}",
        {REFUNDS},
    ),
    "a refund is of no call": (f"UPDATE ledger_refund SET hold_id = 1 {_REFUND}", {WITHIN, REFUNDS}),
    "a refund went to a grant that had not paid": (
        "UPDATE ledger_receipt SET paid_from = json_array(json_array(77777, 'paid', charged - debt))"
        " WHERE (account_id, hold_id) IN"
        f" (SELECT account_id, hold_id FROM ledger_refund {_REFUND})",
        {REFUNDS},
    ),
    "an answer was kept of a call that failed": (
        "UPDATE ledger_claim SET hold_id = 14 WHERE answer IS NOT NULL",
        {CLAIMED},
    ),
    "a key is claimed by nobody": ("UPDATE ledger_claim SET hold_id = 1 WHERE answer IS NULL", {CLAIMED}),
    "a key was claimed by another": ("UPDATE ledger_claim SET claim = body WHERE answer IS NULL", {CLAIMED}),
    "a key was claimed for another body": ("UPDATE ledger_claim SET body = claim WHERE answer IS NULL", {CLAIMED}),
    "a hold forgot its key": ("UPDATE ledger_hold SET claim = NULL WHERE claim IS NOT NULL", {CLAIMED}),
    "a period began before the last had ended": (
        "UPDATE ledger_grant SET effective_at = effective_at - 1 WHERE source = 'allowance'",
        {PERIODS},
    ),
    "more is reserved than is held": ("UPDATE ledger_limit SET reserved = reserved + 1", {RESERVED}),
    "a hold is under no limit": ("UPDATE ledger_hold SET limits = NULL WHERE limits IS NOT NULL", {RESERVED}),
    "a renewal was forgotten": (
        f"UPDATE ledger_account SET next_due_at = next_due_at + 1 WHERE next_plan_at < {NEVER}",
        {RENEWAL},
    ),
    "an expiry was forgotten": (f"UPDATE ledger_account SET next_due_at = {NEVER}", {EXPIRY}),
}


# How PostgreSQL says what SQLite says in the above.
_IN_POSTGRES = {
    "json_set(legs, '$[0][0]', 77777)": "jsonb_set(legs::jsonb, '{0,0}', '77777')::text",
    "json_set(legs, '$[0][1]', 10000)": "jsonb_set(legs::jsonb, '{0,1}', '10000')::text",
    "json_set(paid_to, '$[0][0]', 77777)": "jsonb_set(paid_to::jsonb, '{0,0}', '77777')::text",
    "json_array(json_array(77777,": "jsonb_build_array(jsonb_build_array(77777,",
    "json_array_length(paid_to)": "json_array_length(paid_to::json)",
    "json_extract(paid_to, '$[0][0]')": "(paid_to::json #>> '{0,0}')::bigint",
    "CAST('{": "convert_to('{",
    "}' AS BLOB)": "}', 'UTF8')",
    "x'00ff'": "'\\x00ff'",
}


def live(store: Store) -> None:
    """Have a busy random life, with open holds, debt, breakage, orphans and late settlements in it."""
    life = Life(seed=5)
    store.transact(life.openings(), RULES, life.now)
    for _ in range(120):
        commands = [life.next() for _ in range(8)]
        try:
            outcomes: list[Outcome | LedgerError] = [*store.transact(commands, RULES, life.now)]
        except LedgerError:
            outcomes = [alone(store, command, life.now) for command in commands]
        for command, outcome in zip(commands, outcomes, strict=True):
            life.note(outcome, command)
        life.pass_time()
    # What the life may have come to the end of: a debtor, and credits that expire, held and not.
    store.transact(
        [
            OpenAccount(5, overdraft_limit=50),
            held(5, 11, 20),
            settled(5, 11, 25),
            held(5, 12, 15),
            OpenAccount(6),
            IssueGrant(6, 1, "daily", 100, expires_at=life.now + HOUR),
            held(6, 11, 30),
            replace(held(6, 12, 1), claim=Claim(b"r" * 32, b"b" * 32)),
            replace(held(6, 13, 1), claim=Claim(b"a" * 32, b"b" * 32)),
            replace(settled(6, 13, 1), answer=b"said"),
            held(6, 14, 1),
            voided(6, 14),
        ],
        RULES,
        life.now,
    )
    # Plans and limits: a second period, a plan that is to end, and what is reserved in scopes that sort by their bytes.
    plans = {name: Plan(name, (Allowance("daily", amount, "day"),)) for name, amount in (("free", 10), ("pro", 100))}
    rules, scopes = replace(RULES, plans=plans), ("key:b", "key:B", "key:é", "key:Z")
    store.transact(
        [
            OpenAccount(7, plan="pro"),
            *(SetLimit(7, scope, 1000, "day") for scope in scopes),
            replace(held(7, 11, 30), scopes=scopes[:2]),
            settled(7, 11, 20),
        ],
        rules,
        life.now,
    )
    store.transact([replace(held(7, 12, 30), scopes=scopes), SetPlan(7, "free")], rules, life.now + DAY)


def in_schema(url: str, name: str) -> str:
    """The URL by which a server is asked for the tables of one schema."""
    return f"{url}&options=-csearch_path%3D{name}"


def alone(store: Store, command: Command, now: int) -> Outcome | LedgerError:
    try:
        return store.transact([command], RULES, now)[0]
    except LedgerError as error:
        return error


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ledger after a busy life."""
    path = tmp_path_factory.mktemp("sound") / "ledger.db"
    store = quick_store(str(path))
    live(store)
    store.close()
    return path


@pytest.fixture(scope="module")
def server(postgres_url: str, sound: Path) -> str:
    """The same rows in PostgreSQL, in tables of their own, with a copy of each, and in which nothing is forbidden."""
    url = in_schema(postgres_url, "audited")
    with psycopg.connect(postgres_url) as connection:
        connection.execute("CREATE SCHEMA audited")
        connection.execute("CREATE SCHEMA sound")
    backend = Postgres(url)
    backend.create()
    backend.close()
    with closing(sqlite3.connect(sound)) as file, psycopg.connect(url) as connection:
        for table in TABLES:
            for (name,) in connection.execute(
                "SELECT conname FROM pg_constraint WHERE conrelid = %s::regclass AND contype = 'c'", (table.name,)
            ).fetchall():
                connection.execute(f"ALTER TABLE {table.name} DROP CONSTRAINT {name}".encode())
            connection.execute(f"ALTER TABLE {table.name} DISABLE TRIGGER USER".encode())
            columns = ", ".join(column.name for column in table.columns)
            with connection.cursor().copy(f"COPY {table.name} ({columns}) FROM STDIN".encode()) as copy:
                for row in file.execute(f"SELECT {columns} FROM {table.name}"):
                    copy.write_row(row)
            connection.execute(f"CREATE TABLE sound.{table.name} AS TABLE {table.name}".encode())
    return url


def damaged(sound: Path, directory: Path, *statements: str) -> Audit:
    """Audit a copy of the ledger in which something was edited behind its back."""
    path = directory / "damaged.db"
    shutil.copy(sound, path)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA ignore_check_constraints = ON")
        for (trigger,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            connection.execute(f"DROP TRIGGER {trigger}")
        for statement in statements:
            assert connection.execute(statement).rowcount > 0, "there was nothing to damage"
    return audit(str(path))


def damaged_server(server: str, *statements: str) -> Audit:
    """Audit the ledger in PostgreSQL while something is edited behind its back."""
    concerned = [table.name for table in TABLES if any(table.name in statement for statement in statements)]
    with psycopg.connect(server, autocommit=True) as connection:
        try:
            for statement in statements:
                for words, same in _IN_POSTGRES.items():
                    statement = statement.replace(words, same)
                assert connection.execute(statement.encode()).rowcount > 0, "there was nothing to damage"
            return audit(server)
        finally:
            for name in concerned:
                connection.execute(f"DELETE FROM {name}".encode())
                connection.execute(f"INSERT INTO {name} SELECT * FROM sound.{name}".encode())


def written(found: Audit) -> str:
    """The report as it is told; rows that begin alike, with one account and one call, are told in any order."""

    def ordered(rows: list[dict[str, object]]) -> list[dict[str, object]]:
        begin = [[*row.values()][:2] for row in rows]
        return sorted(rows, key=lambda row: (begin.index([*row.values()][:2]), str(row)))

    findings = [Finding(finding.invariant, ordered(finding.rows)) for finding in found.findings]
    return json.dumps(asdict(replace(found, findings=findings)), indent=1)


def test_a_sound_ledger_is_clean(sound: Path) -> None:
    """After a busy life nothing is found, everything was checked, and the totals are those of the journal."""
    found = audit(str(sound))
    assert found.findings == []
    assert found.clean
    assert set(found.checked) == {
        BOUNDS,
        BALANCE,
        ISSUED,
        DEBT,
        HELD,
        LEGS,
        ENDED,
        RECEIPT,
        CHARGED,
        VOIDED,
        WITHIN,
        REFUNDS,
        NODES,
        EXPIRY,
        CLAIMED,
        LAW,
        PERIODS,
        RESERVED,
        RENEWAL,
        SEALED,
    }
    with closing(sqlite3.connect(sound)) as connection:
        pages = [read_page(connection, account) for account in ACCOUNTS]
    assert found.totals["issued"] == sum(page.net(-1) for page in pages) > 0
    assert found.totals["sold"] == sum(page.net(-2) for page in pages) > 0
    assert found.totals["adjusted"] == sum(page.net(-6) for page in pages) != 0
    assert found.totals["revenue"] == -sum(page.net(-3) for page in pages) > 0
    assert found.totals["refunded"] == sum(page.moved(source=-3) for page in pages) > 0
    assert found.totals["breakage"] == sum(page.moved(target=-4) for page in pages) > 0
    assert found.totals["debt"] == sum(page.debt for page in pages) > 0
    assert found.totals["held"] == sum(lot.held for page in pages for lot in page.lots.values()) > 0
    assert found.totals["overdraft_held"] == sum(page.overdraft_held for page in pages) > 0
    assert found.totals["balances"] == sum(lot.balance for page in pages for lot in page.lots.values()) > 0


def test_a_sound_ledger_is_clean_in_postgres(sound: Path, server: str) -> None:
    """The same rows come to the same report, number by number."""
    found = damaged_server(server)
    assert written(found) == written(audit(str(sound)))
    assert found.clean


def test_what_postgres_came_to_by_itself_is_clean(postgres_url: str) -> None:
    """After a busy life on PostgreSQL nothing is found there, and the totals are those of its journal."""
    with closing(Stored(postgres_url, RULES, NOON)) as stored:
        live(stored.store)
        found = audit(postgres_url)
        pages = [stored.page(account) for account in ACCOUNTS]
    assert found.findings == []
    assert found.totals["revenue"] == -sum(page.net(-3) for page in pages) > 0
    assert found.totals["debt"] == sum(page.debt for page in pages) > 0
    assert found.totals["held"] == sum(lot.held for page in pages for lot in page.lots.values()) > 0
    assert found.totals["balances"] == sum(lot.balance for page in pages for lot in page.lots.values()) > 0
    assert found.orphans


def test_orphans_are_listed_and_not_broken(sound: Path) -> None:
    """Calls whose process died are in the report, those settled late after all are not, and neither is a finding."""
    with closing(sqlite3.connect(sound)) as connection:
        receipts = [ended for account in ACCOUNTS for ended in read_page(connection, account).receipts.values()]
    orphans = {ended.hold_id for ended in receipts if ended.status == "orphaned"}
    found = audit(str(sound))
    assert {orphan["hold_id"] for orphan in found.orphans} == orphans
    assert orphans
    assert any(ended.late for ended in receipts)
    assert found.clean


@pytest.mark.parametrize("what", DAMAGE)
def test_damage_is_found_and_named(what: str, sound: Path, tmp_path: Path) -> None:
    """What was edited behind the ledger's back is found, under the invariants that it breaks, with the rows."""
    statement, expected = DAMAGE[what]
    found = damaged(sound, tmp_path, statement)
    assert not found.clean
    assert {finding.invariant for finding in found.findings} >= expected
    assert all(finding.rows for finding in found.findings)


@pytest.mark.parametrize("what", DAMAGE)
def test_damage_is_found_alike_in_postgres(what: str, sound: Path, server: str, tmp_path: Path) -> None:
    """The same damage comes to the same findings, row by row and number by number."""
    statement, expected = DAMAGE[what]
    found = damaged_server(server, statement)
    assert {finding.invariant for finding in found.findings} >= expected
    assert written(found) == written(damaged(sound, tmp_path, statement))


def test_a_whole_charge_made_up_with_its_journal_is_found(sound: Path, tmp_path: Path) -> None:
    """Journal and balance that were changed to agree with each other still disagree with the receipt."""
    found = damaged(
        sound,
        tmp_path,
        f"UPDATE ledger_grant SET balance = balance - 1 {_GRANT}",
        f"INSERT INTO ledger_transfer {_COLUMNS} SELECT account_id, 1, 'charge', grant_id, -3, 1, 1, 1"
        f" FROM ledger_grant WHERE (account_id, grant_id) IN {_OPEN}",
    )
    assert [finding.invariant for finding in found.findings] == [RECEIPT]


def test_much_damage_is_reported_in_a_few_rows(sound: Path, tmp_path: Path) -> None:
    """A finding lists the first rows only, however many are broken."""
    found = damaged(sound, tmp_path, "UPDATE ledger_receipt SET charged = charged + 1")
    (rows,) = [finding.rows for finding in found.findings if finding.invariant == RECEIPT]
    assert len(rows) == 20


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE ledger_receipt SET charged = charged + 1",
        "UPDATE ledger_grant SET held = held + 1",
        "DELETE FROM ledger_refund",
        "DELETE FROM ledger_account",
        "UPDATE ledger_hold SET legs = '{}'",
        "UPDATE ledger_hold SET legs = '5'",
        "UPDATE ledger_hold SET legs = '['",
        "UPDATE ledger_refund SET paid_to = 'gone'",
        "UPDATE ledger_hold SET legs = '[[1.5, 0.5], {}, null, [], [null, null]]'",
        "UPDATE ledger_receipt SET paid_from = '{'",
        "UPDATE ledger_receipt SET memo = CAST('{\"lines\": {}}' AS BLOB)",
        'UPDATE ledger_receipt SET memo = CAST(\'{"lines": [{"amount": 0.5}, {}, null, 5]}\' AS BLOB)',
        "UPDATE ledger_receipt SET memo = CAST('{}' AS BLOB)",
    ],
)
def test_much_damage_is_found_alike_in_postgres(statement: str, sound: Path, server: str, tmp_path: Path) -> None:
    """The first rows of much damage are the same, whatever stands where a number or a list should be."""
    found = damaged_server(server, statement)
    assert not found.clean
    assert written(found) == written(damaged(sound, tmp_path, statement))


def test_there_has_to_be_a_ledger(tmp_path: Path) -> None:
    """No file, and a file that is no ledger, can't be audited, and neither is made one."""
    with pytest.raises(LedgerUnavailable, match="no ledger at"):
        audit(str(tmp_path / "nowhere.db"))
    letter = tmp_path / "letter.db"
    letter.write_bytes(b"to the editor " * 1000)
    with pytest.raises(LedgerUnavailable, match="can't be audited"):
        audit(str(letter))
    assert [path.name for path in tmp_path.iterdir()] == ["letter.db"]


async def test_a_running_ledger_can_be_audited(tmp_path: Path) -> None:
    """The audit runs beside the owner, sees open holds as sound, and changes nothing."""
    path = str(tmp_path / "ledger.db")
    async with running(path, Clock(NOON)) as ledger:
        await ledger.open_account(1, overdraft_limit=50)
        await ledger.issue(1, "paid", 100, paid=True)
        await ledger.hold(held(1, 11, 30))
        await ledger.hold(held(1, 12, 90))
        await ledger.hold(held(1, 13, 0))
        assert audit(path).findings == []
        assert (await ledger.balance(1, NOON)).held == 120


def test_there_has_to_be_a_ledger_in_postgres(postgres_url: str) -> None:
    """A database without the tables, and a server that is not there, can't be audited; no password is told."""
    with pytest.raises(LedgerUnavailable, match="can't be audited"):
        audit(in_schema(postgres_url, "nowhere"))
    with pytest.raises(LedgerUnavailable, match="can't be audited") as raised:
        audit("postgresql://farebox:secret@127.0.0.1:1/farebox")
    assert "secret" not in str(raised.value)


def test_postgres_is_audited_beside_its_writers(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The audit waits for nobody, and what is committed meanwhile is in all that it sees or in nothing of it."""
    with closing(Stored(postgres_url, RULES, NOON)) as stored:
        stored.do(OpenAccount(1, overdraft_limit=50), IssueGrant(1, 21, "paid", 100, paid=True), held(1, 11, 30))
        before = audit(postgres_url)
        asked = 0

        def execute(cursor: psycopg.Cursor[Any], query: bytes, *values: Any, **options: Any) -> psycopg.Cursor[Any]:
            nonlocal asked
            if cursor.connection.read_only:
                asked += 1
                if asked % 2 == 0:
                    stored.do(held(1, 100 + asked, 0), settled(1, 100 + asked, 1))
            return plain(cursor, query, *values, **options)

        plain = psycopg.Cursor.execute
        monkeypatch.setattr(psycopg.Cursor, "execute", execute)
        with psycopg.connect(postgres_url) as writer:
            writer.execute("SELECT * FROM ledger_grant FOR UPDATE").fetchall()
            writer.rollback()
            assert audit(postgres_url) == before
        monkeypatch.undo()
        with psycopg.connect(postgres_url) as writer:
            writer.execute("UPDATE ledger_grant SET balance = balance - 1")
            after = audit(postgres_url)
            writer.rollback()
    assert before.clean and after.clean
    assert after.totals["revenue"] == asked // 2 > 10
