"""An account's rows can lie on one node of many: each key, trigger and statement of the paid path names the account."""

from __future__ import annotations

import re
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest

from ledger.commands import PlaceHold, RunShare, Settle
from ledger.functions import FUNCTIONS, call_of
from ledger.ledger import Ledger
from ledger.model import KEPT_FOR, Claim
from ledger.rules import Allowance, Plan
from ledger.saving import WRITES
from ledger.tables import TABLES
from ledger.wire import Statement, carry_out
from tests.ledger.books import receipt_memo
from tests.ledger.running import DAY, NOON, RULES, Clock, held, settled
from tests.postgres import own_database

_COPIED = {"ledger_lease", "ledger_clock"}
_SPREAD = {table.name for table in TABLES} - _COPIED
_SCRIPT = Path(__file__).parent.parent.parent / "scripts" / "citus.sql"
_RULES = replace(
    RULES,
    plans={
        "small": Plan("small", (Allowance("daily", 50, "day"),)),
        "large": Plan("large", (Allowance("daily", 90, "day"),)),
    },
)

# What goes to all nodes, and why it may.
_TO_ALL = {
    "FROM ledger_claim c\n    LEFT JOIN ledger_account": "old answers, each ten minutes; joined within the account",
    "FROM ledger_hold LEFT JOIN ledger_lease": "when a process starts or has died; a lease is on each node",
}
_BY_ACCOUNT = (
    r"SELECT .* FROM ledger_\w+ WHERE account_id = (%s|ANY\(%s\))",
    r"SELECT .* FROM ledger_\w+ WHERE \(account_id, \w+\) IN \(SELECT \* FROM unnest\(%s::bigint\[\], ",
    r"SELECT .* FROM ledger_account a LEFT JOIN LATERAL \(SELECT \* FROM ledger_grant o"
    r" WHERE o\.account_id = a\.account_id .* WHERE a\.account_id = ANY\(%s\)",
    r"SELECT .* FROM unnest\(%s, %s\) AS d\(account_id, hold_id\) JOIN ledger_hold h ON h\.account_id = d\.account_id ",
    r"(UPDATE|DELETE FROM) ledger_\w+ t .* WHERE t\.account_id = d\.account_id",
    r"INSERT INTO ledger_\w+ \(account_id, (?!.* ON CONFLICT)",
    r"INSERT INTO ledger_\w+ \(account_id, .* ON CONFLICT \(account_id[,)]",
)


@pytest.fixture
def url(postgres_url: str, tmp_path: Path) -> str:
    return own_database(postgres_url, str(tmp_path))


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Every statement that the writers' and the lease's threads carry out."""
    statements: set[str] = set()
    execute = psycopg.Cursor.execute

    def listen(self: psycopg.Cursor[Any], query: Any, *values: Any, **options: Any) -> psycopg.Cursor[Any]:
        if threading.current_thread().name.startswith(("ledger-writer", "ledger-lease")):
            statements.add(query.decode() if isinstance(query, bytes) else str(query))
        return execute(self, query, *values, **options)

    def listen_too(connection: Any, sent: Sequence[Statement]) -> Any:
        for statement in sent:
            statements.update(_bodies(statement.text.decode()))
        return carry_out(connection, sent)

    monkeypatch.setattr(psycopg.Cursor, "execute", listen)
    monkeypatch.setattr("ledger.postgres.carry_out", listen_too)
    return statements


def _bodies(statement: str) -> set[str]:
    """The statements about the ledger in one, or in the function that it calls."""
    called = re.search(r"ledger_\w+_[0-9a-f]{12}", statement)
    if called is not None:
        (statement,) = (each for each in FUNCTIONS if f" {called[0]}(" in each)
        statement = statement.partition("BEGIN ")[2]
    found = [part.strip() for part in re.sub(r"\$\d+", "%s", statement).split(";")]
    said = [re.sub(r"^(PERFORM|RETURN QUERY SELECT) ", "SELECT ", part) for part in found]
    return {part for part in said if re.search(r"\bledger_", part) and not part.startswith("IF ")}


async def _everything(url: str, clock: Clock) -> None:
    """Have a ledger do all that it can, and a second one find what was left held."""
    ledger = await Ledger.open(url, lambda: _RULES, clock=clock)
    shown = await ledger.create_clock(NOON)
    await ledger.open_account(1, plan="small", clock=shown, overdraft_limit=10)
    await ledger.open_account(2)
    grant = (await ledger.issue(2, "paid", 1000, paid=True, source_key="order-1")).grant
    await ledger.set_limit(2, "key:a", 100)
    share = RunShare("r", "write", 3, 10, 40)
    claim = Claim(b"k" * 32, b"b" * 32)
    await ledger.hold(
        PlaceHold(2, 10, 20, receipt_memo(0), scopes=("key:a", "run:r"), run_limit=90, share=share, claim=claim)
    )
    closing = replace(share, close=lambda run, amount: receipt_memo(5 + amount))
    await ledger.end(Settle(2, 10, 5, b"", closing, answer=b"said"))
    await ledger.hold(replace(held(2, 11, 20), claim=Claim(b"o" * 32, b"b" * 32)))
    await ledger.void(2, 11, receipt_memo(0))
    await ledger.hold(held(1, 12, 30))
    await ledger.end(settled(1, 12, 70))
    await ledger.end(settled(1, 12, 70))
    await ledger.refund(1, 12, 60, "sorry", bonus_bucket="bonus")
    await ledger.advance_clock(shown, NOON + DAY)
    await ledger.hold(held(1, 13, 5))
    await ledger.set_plan(1, "large")
    await ledger.set_account(1, timezone="Asia/Tokyo")
    for _ in range(2):
        await ledger.adjust(2, 5, "bonus", "a gift", adjustment_id=77)
    await ledger.adjust(2, -5, "bonus", "a mistake")
    await ledger.void_grant(2, grant.grant_id)
    clock.now += KEPT_FOR + 1
    assert await ledger.forget_answers() == 1
    await ledger.close()
    # What it left held has no lease any more.
    ledger = await Ledger.open(url, lambda: _RULES, clock=clock)
    assert [call.hold_id for call in await ledger.orphans(5)] == [13]
    await ledger.settle(1, 13, 4, receipt_memo(4))
    await ledger.close()


async def test_the_paid_path_names_the_account(url: str, said: set[str]) -> None:
    """In every statement, so that each can be sent to the nodes that have its accounts; what is not so is listed."""
    await _everything(url, Clock())
    written = {body for write in WRITES for body in _bodies(call_of(write).decode())}
    assert written <= said, "not everything was done"
    about = {statement for statement in said if set(re.findall(r"ledger_\w+", statement)) & _SPREAD}
    to_all = {part for part in _TO_ALL for statement in about if part in statement}
    assert to_all == _TO_ALL.keys()
    for statement in about:
        if not any(part in statement for part in _TO_ALL):
            assert any(re.match(pattern, statement, re.DOTALL) for pattern in _BY_ACCOUNT), statement


def test_every_key_begins_with_the_account(postgres_url: str) -> None:
    """And every unique index has it, so that one node alone can tell; nothing refers to another table."""
    for table in TABLES:
        first = next(iter(table.primary_key.columns)).name
        assert (first == "account_id") is (table.name in _SPREAD), table.name
    with psycopg.connect(postgres_url) as connection:
        indexes = connection.execute(
            "SELECT indrelid::regclass::text, pg_get_indexdef(indexrelid) FROM pg_index WHERE indisunique"
            " AND indrelid = ANY(SELECT to_regclass(name) FROM unnest(%s::text[]) AS named(name))",
            ([*_SPREAD],),
        ).fetchall()
        foreign = connection.execute("SELECT conname FROM pg_constraint WHERE contype = 'f'").fetchall()
    assert {table for table, _ in indexes} == _SPREAD
    assert [index for _, index in indexes if not re.search(r"\(account_id[,)]", index)] == []
    assert foreign == []


def test_triggers_stay_within_the_account(postgres_url: str) -> None:
    """They are of rows, and what they read is of the row's own account."""
    with psycopg.connect(postgres_url) as connection:
        triggers = connection.execute(
            "SELECT tgname, tgtype::int & 1, prosrc FROM pg_trigger JOIN pg_proc p ON p.oid = tgfoid"
            " WHERE NOT tgisinternal AND tgrelid::regclass::text LIKE 'ledger%'"
        ).fetchall()
    assert len(triggers) > 1
    for name, of_rows, body in triggers:
        assert of_rows, name
        own = re.findall(r" WHERE account_id = (?:NEW|OLD)\.account_id\b", body)
        assert len(re.findall(r"\bledger_\w+", body)) == len(own), name


def test_the_script_spreads_every_table() -> None:
    """Of the ledger, beside the first one; the few that have no account are copied to every node."""
    script = _SCRIPT.read_text(encoding="utf-8")
    spread = re.findall(
        r"create_distributed_table\('(\w+)', 'account_id'(?:, colocate_with => 'ledger_account')?\)", script
    )
    assert spread[0] == "ledger_account"
    assert sorted(spread) == sorted(_SPREAD)
    assert script.count("colocate_with") == len(spread) - 1
    assert set(re.findall(r"create_reference_table\('(\w+)'\)", script)) == _COPIED
