"""A SQLite ledger that is moved to PostgreSQL is the same there, to whoever calls; or nothing was moved."""

from __future__ import annotations

import asyncio
import importlib
import json
import pkgutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from signal import SIGKILL
from typing import Any

import psycopg
import pytest
from sqlmodel import SQLModel

import ledger
import proxy
from ledger.errors import LedgerLocked
from ledger.postgres import Postgres
from proxy.database import Database
from proxy.move import MOVED, MoveFailed, move
from tests.ledger.running import Clock, held, opened, running, settled
from tests.postgres import own_database, postgres_server
from tests.proxy.chats import answer, body_of, words
from tests.proxy.leavers import Leaver
from tests.proxy.running import ADMIN_KEY, Caller, Server, clean_environment, farebox, until
from tests.proxy.upstream import Gate, Upstream, streamed

_Factory = Callable[..., Server]
_CONFIG = """
upstreams:
  main: {{kind: openai, base_url: "{url}", api_key: operators-secret}}
models:
  one:   {{upstream: main/one-1, price: {{request: 1}}}}
  words: {{upstream: main/words-1, max_output_tokens: 1000, price: {{input_tokens: 1 / 1k, output_tokens: 3 / 1k}}}}
operations:
  editor: {{min: 40, max: 400, per: run}}
plans:
  free: {{allowances: {{daily: 50/day}}}}
keep_answers: true
"""
_FILE = {"FAREBOX_DATABASE_URL": "sqlite:///farebox.db"}


@pytest.fixture(scope="module")
def config_text(running_upstream: Upstream) -> str:
    return _CONFIG.format(url=running_upstream.url)


@pytest.fixture(scope="module")
def postgres() -> Iterator[str]:
    with postgres_server() as url:
        yield url


@pytest.fixture
def url(postgres: str, tmp_path: Path) -> str:
    """A database with nothing in it."""
    return own_database(postgres, str(tmp_path))


@pytest.fixture
def path(tmp_path: Path) -> str:
    """A small ledger, one of whose calls was running when its process died."""
    path = str(tmp_path / "farebox.db")

    async def fill() -> None:
        async with running(path, Clock()) as books:
            await opened(books, 1000)
            for number in range(20):
                await books.hold(held(1, 100 + number, 20))
                await books.end(settled(1, 100 + number, 7))
            await books.hold(held(1, 999, 50))

    asyncio.run(fill())
    return path


def _rows(url: str) -> int:
    """How many rows a database has of ours."""
    with psycopg.connect(url) as connection:
        present = [t.name for t in MOVED if _one(connection, f"SELECT to_regclass('{t.name}')") is not None]
        return sum(_one(connection, f"SELECT COUNT(*) FROM {name}") for name in present)


def _one(connection: psycopg.Connection[Any], statement: str) -> Any:
    row = connection.execute(statement.encode()).fetchone()
    assert row is not None
    return row[0]


def _made(url: str) -> None:
    """Make the tables, as a server does."""
    backend = Postgres(url)
    backend.create()
    backend.close()
    Database(url).close()


# -- what is moved


def _admin(server: Server, method: str, path: str, key: str, fields: Any) -> Any:
    headers = {"authorization": f"Bearer {ADMIN_KEY}", "idempotency-key": key}
    answered = server.http.request(method, f"{server.base}/admin/v1{path}", json=fields, headers=headers)
    assert answered.status_code < 300, answered.text
    return answered.json()


def _documents(server: Server, callers: list[Caller], team: str) -> dict[str, Any]:
    """Everything that a server says of what was, but for when what died was released."""
    found: dict[str, Any] = {}
    for path in (
        f"/accounts/{team}/statement",
        f"/accounts/{team}/members",
        "/accounts",
        "/actions",
        "/orphans",
        "/usage",
        "/usage/summary?by=model",
    ):
        found[path] = server.done("GET", path)
    for caller in callers:
        there = Caller(server, caller.account, caller.key)
        for path in ("", "/usage", "/usage/summary?by=day", "/usage?run=r"):
            answered = there.get(f"/v1/credits{path}")
            assert answered.status_code == 200, answered.text
            found[f"{caller.key} {path}"] = answered.json()
        for row in there.get("/v1/credits/usage").json()["data"]:
            found[row["id"]] = there.receipt(row["id"])
        for path in ("credits", "keys", "grants", "limits", "statement"):
            found[f"{caller.account} {path}"] = server.done("GET", f"/accounts/{caller.account}/{path}")
    return {name: _without_times_of_death(document) for name, document in found.items()}


def _without_times_of_death(document: Any) -> Any:
    if isinstance(document, list):
        return [_without_times_of_death(item) for item in document]
    if not isinstance(document, dict):
        return document
    dead = document.get("status") == "orphaned"
    return {
        k: _without_times_of_death(v) for k, v in document.items() if not (dead and k in ("settled_at", "released_at"))
    }


async def test_everything_is_the_same_there(
    upstream: Upstream, server: _Factory, url: str, tmp_path: Path, config_text: str
) -> None:
    """Plans, limits, runs, refunds, teams, kept answers; what was running when the server died is released there too,
    and calls go on."""
    source = server("serve", **_FILE).start()
    upstream.says(answer())
    clock = source.done("POST", "/clocks", {"now": "2026-11-21T12:00:00Z"})["id"]
    planned = source.done("POST", "/accounts", {"name": "Ada Łovelace", "clock": clock, "plan": "free"})["id"]
    ada = Caller(source, planned, source.done("POST", f"/accounts/{planned}/keys", {})["key"])
    bob = source.caller("1000")
    limited = source.done(
        "POST", f"/accounts/{bob.account}/keys", {"limit": {"credits": "3", "per": "ever"}, "name": "limited"}
    )
    limited_bob = Caller(source, bob.account, limited["key"])
    team = source.done("POST", "/accounts", {"name": "Team", "kind": "team"})["id"]
    granted = _admin(source, "POST", f"/accounts/{team}/grants", "grant-1", {"bucket": "paid", "credits": "500"})
    source.done("POST", f"/accounts/{team}/members", {"account": bob.account})
    for_team = source.done("POST", f"/accounts/{bob.account}/keys", {"pays": team})["key"]
    member = Caller(source, bob.account, for_team)
    for caller in (ada, bob, limited_bob, limited_bob, member):
        assert caller.chat("one").status_code == 200
    for _ in range(3):
        assert bob.post(body_of(model="one"), X_Farebox_Run="r", X_Farebox_Operation="editor").status_code == 200
    kept = bob.post(body_of(model="one"), Idempotency_Key="k-1")
    request = bob.chat("one").headers["x-request-id"]
    source.done("POST", f"/receipts/{request}/refund", {"credits": "0.5", "reason": "slow"})
    source.done("POST", f"/accounts/{bob.account}/adjust", {"credits": "-1", "bucket": "paid", "reason": "typo"})
    source.done("PATCH", f"/accounts/{planned}", {"timezone": "Europe/Warsaw"})
    gate = Gate()
    upstream.says(streamed(words("one"), gate))
    async with Leaver(bob, body_of(stream=True, max_tokens=10)) as call:
        await call.until(b"one")
        source.stop(SIGKILL)
    gate.open()

    moved = farebox(tmp_path, "move", "farebox.db", url, "--json")
    assert moved.returncode == 0, moved.stderr
    assert "FAREBOX_DATABASE_URL" in moved.stderr
    rows = json.loads(moved.stdout)["rows"]
    assert (rows["ledger_hold"], rows["people_member"], rows["command"], rows["ledger_refund"]) == (1, 1, 1, 1)
    assert rows.keys() == {table.name for table in MOVED}
    assert 0 not in [rows[t] for t in ("ledger_limit", "ledger_run", "ledger_clock", "ledger_claim", "action")]

    callers = [ada, bob, limited_bob, member]
    source.start()
    there = server("serve", FAREBOX_DATABASE_URL=url).start()
    documents = [_documents(each, callers, team) for each in (source, there)]
    for name, document in documents[0].items():
        assert documents[1][name] == document, name
    assert [row["status"] for row in documents[1]["/orphans"]["data"]] == ["orphaned"]

    upstream.says(answer())
    bob_there = Caller(there, bob.account, bob.key)
    again = bob_there.post(body_of(model="one"), Idempotency_Key="k-1")
    assert (again.content, again.headers["x-idempotent-replayed"]) == (kept.content, "true")
    assert _admin(there, "POST", f"/accounts/{team}/grants", "grant-1", {"bucket": "paid", "credits": "500"}) == granted
    run = bob_there.post(body_of(model="one"), X_Farebox_Run="r", X_Farebox_Operation="editor")
    assert run.headers["x-credits-charged"] == "0"
    last = Caller(there, bob.account, limited["key"])
    assert [last.chat("one").status_code for _ in range(2)] == [200, 402]
    there.done("POST", f"/clocks/{clock}/advance", {"to": "2026-11-23T12:00:00Z"})
    assert Caller(there, planned, ada.key).available == "50"
    assert farebox(tmp_path, "audit", FAREBOX_DATABASE_URL=url).returncode == 0
    for each in (source, there):
        assert each.stop() == 0


def test_no_table_is_forgotten() -> None:
    """Every table of every room is moved; one that is added later must be in its room's list."""
    for package in (ledger, proxy):
        for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
            if not module.name.endswith("__main__"):
                importlib.import_module(module.name)
    assert {table.name for table in MOVED} == set(SQLModel.metadata.tables)


def test_the_file_stays_as_it_was(path: str, url: str) -> None:
    """What is held there is still held; it can be moved again, elsewhere."""
    assert move(path, url).rows["ledger_hold"] == 1
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT hold_id FROM ledger_hold").fetchall() == [(999,)]


# -- what is refused


def test_a_running_servers_file_is_refused(path: str, url: str) -> None:
    """By the name of who has it; the database has nothing."""

    async def beside() -> None:
        async with running(path, Clock(), owner="farebox serve on http://here"):
            with pytest.raises(LedgerLocked, match="farebox serve on http://here"):
                move(path, url)

    asyncio.run(beside())
    assert _rows(url) == 0


def test_a_database_that_is_not_empty_is_refused(path: str, url: str) -> None:
    """By the names of the tables that have rows, and they stay as they are."""
    move(path, url)
    before = _rows(url)
    with pytest.raises(MoveFailed, match=r"ledger_account, ledger_grant.* name an empty one"):
        move(path, url)
    assert _rows(url) == before


def test_a_text_that_postgresql_can_not_keep_is_refused(path: str, url: str) -> None:
    """With the row that has it."""
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE ledger_grant SET note = 'a' || char(0) || 'b'")
        (grant,) = connection.execute("SELECT grant_id FROM ledger_grant").fetchone()
    with pytest.raises(MoveFailed, match=rf"ledger_grant \(1, {grant}\).*NUL"):
        move(path, url)
    assert _rows(url) == 0


def test_a_table_of_another_release_is_refused(path: str, url: str) -> None:
    """Rather than left behind; one that says the same on both sides, such as a version, is no hindrance."""
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE future (version TEXT)")
        connection.execute("INSERT INTO future VALUES ('7')")
    with pytest.raises(MoveFailed, match="future"):
        move(path, url)
    assert _rows(url) == 0
    with psycopg.connect(url) as there:
        there.execute("CREATE TABLE future AS SELECT '7' AS version")
    move(path, url)


@pytest.mark.parametrize("where", ["missing.db", "config.yaml", "."])
def test_what_is_no_ledger_is_refused(where: str, tmp_path: Path, config_text: str, url: str) -> None:
    """And nothing is made of it."""
    (tmp_path / "config.yaml").write_text(config_text)
    ran = farebox(tmp_path, "move", where, url)
    assert (ran.returncode, "no ledger" in ran.stderr) == (1, True)
    assert [file.name for file in tmp_path.iterdir()] == ["config.yaml"]
    ran = farebox(tmp_path, "move", where, "sqlite:///other.db")
    assert (ran.returncode, "postgresql://" in ran.stderr) == (1, True)


_BENT = """CREATE FUNCTION bend() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {} RETURN NEW; END $$;
    CREATE TRIGGER bend BEFORE INSERT ON {} FOR EACH ROW EXECUTE FUNCTION bend()"""


@pytest.mark.parametrize(
    ("table", "change", "found"),
    [
        ("ledger_receipt", "NEW.charged = NEW.charged + 1;", "ledger_receipt is not the same"),
        ("people_setting", "NEW.value = NULL; RETURN NULL;", "people_setting is not the same"),
        ("ledger_transfer", "NEW.kind = replace(NEW.kind, 'charge', 'expiry');", "the audit does not find the same"),
    ],
)
def test_what_did_not_arrive_as_it_was_leaves_nothing(path: str, url: str, table: str, change: str, found: str) -> None:
    """Whatever changed it on its way, or left it out."""
    Database(path).close()
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("INSERT INTO people_setting VALUES ('a', x'00')")
    _made(url)
    with psycopg.connect(url) as there:
        there.execute(_BENT.format(change, table).encode())
    with pytest.raises(MoveFailed, match=found):
        move(path, url)
    assert _rows(url) == 0


@contextmanager
def _stuck(path: str, url: str) -> Iterator[tuple[subprocess.Popen[bytes], psycopg.Connection[Any]]]:
    """A move that has come to the receipts and goes no further until the block has ended."""
    _made(url)
    with psycopg.connect(url, autocommit=True) as there, ExitStack() as after:
        there.execute(_BENT.format("PERFORM pg_advisory_xact_lock(1);", "ledger_receipt").encode())
        with there.transaction():
            there.execute("SELECT pg_advisory_xact_lock(1)")
            command = [sys.executable, "-m", "proxy", "move", path, url]
            # It is waited for when the lock is free.
            moving = after.enter_context(subprocess.Popen(command, env=clean_environment(), stderr=subprocess.DEVNULL))
            assert until(lambda: _waiting(there, "advisory"), 30)
            yield moving, there


def _waiting(connection: psycopg.Connection[Any], kind: str) -> bool:
    return bool(_one(connection, f"SELECT COUNT(*) FROM pg_locks WHERE locktype = '{kind}' AND NOT granted"))


def test_killed_midway_it_leaves_nothing(path: str, url: str) -> None:
    """And the next attempt moves everything."""
    with _stuck(path, url) as (moving, _):
        moving.send_signal(SIGKILL)
        assert moving.wait() == -SIGKILL
    assert _rows(url) == 0
    with psycopg.connect(url) as there:
        there.execute("DROP TRIGGER bend ON ledger_receipt")
    assert move(path, url).rows["ledger_receipt"] == 20


@pytest.mark.usefixtures("upstream")
def test_a_server_that_starts_meanwhile_waits(path: str, url: str, server: _Factory) -> None:
    """And then finds everything."""
    starting = server("serve", FAREBOX_DATABASE_URL=url)
    with ThreadPoolExecutor(1) as beside:
        with _stuck(path, url) as (moving, there):
            started = beside.submit(starting.start)
            assert until(lambda: _waiting(there, "relation"), 30)
        assert moving.wait() == 0
        started.result()
    (orphan,) = starting.done("GET", "/orphans")["data"]
    assert orphan["status"] == "orphaned"
    assert starting.stop() == 0
