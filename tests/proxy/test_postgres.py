"""Servers on PostgreSQL: several processes that share accounts, keys and what died."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from signal import SIGKILL

import httpx
import psycopg
import pytest

from tests.pooler import pooler
from tests.postgres import own_database, postgres_server
from tests.proxy.chats import DONE, answer, body_of, finish, usage_chunk, words
from tests.proxy.leavers import Leaver
from tests.proxy.running import Caller, Server, farebox, until
from tests.proxy.upstream import Gate, Upstream, streamed

_Factory = Callable[..., Server]


@pytest.fixture(scope="module")
def postgres() -> Iterator[str]:
    with postgres_server() as url:
        yield url


@pytest.fixture
def pair(server: _Factory, postgres: str, tmp_path: Path) -> Server:
    """Two workers on a database of their own."""
    url = own_database(postgres, str(tmp_path))
    return server("serve", "--workers", "2", FAREBOX_DATABASE_URL=url).start()


def _workers(server: Server) -> list[int]:
    """The processes that a server has started."""
    children = Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text()
    return [int(number) for number in children.split()]


def _audited(server: Server) -> None:
    url = server._variables["FAREBOX_DATABASE_URL"]
    ran = farebox(server.folder, "audit", "--json", FAREBOX_DATABASE_URL=url)
    assert ran.returncode == 0, ran.stdout


async def _at_once(caller: Caller, times: int, model: str = "each") -> list[httpx.Response]:
    """Calls on connections of their own, so that both workers get some."""
    body = body_of(model=model)

    async def call() -> httpx.Response:
        async with httpx.AsyncClient(timeout=30) as client:
            return await client.post(caller.url, content=body, headers=caller.headers)

    return list(await asyncio.gather(*(call() for _ in range(times))))


def _lives(process: int) -> bool:
    return Path(f"/proc/{process}").exists()


@pytest.fixture
def pooled_pair(server: _Factory, postgres: str, tmp_path: Path) -> Iterator[Server]:
    """The same, behind a pooler that hands connections out by the transaction."""
    with pooler(own_database(postgres, str(tmp_path))) as url:
        yield server("serve", "--workers", "2", FAREBOX_DATABASE_URL=url).start()


@pytest.mark.parametrize("workers", ["pair", "pooled_pair"])
async def test_workers_never_spend_more_than_there_is(
    upstream: Upstream, workers: str, request: pytest.FixtureRequest
) -> None:
    """Of 100 calls at once 7 are answered: there are credits for 7; both workers work, and stop in order."""
    await _seven_of_a_hundred(upstream, request.getfixturevalue(workers))


async def _seven_of_a_hundred(upstream: Upstream, pair: Server) -> None:
    upstream.says(answer())
    workers = _workers(pair)
    assert len(workers) == 2
    caller = pair.caller("7")
    answers = await _at_once(caller, 100)
    assert sum(answered.status_code == 200 for answered in answers) == 7
    assert {answered.status_code for answered in answers} == {200, 402}
    assert caller.available == "0"
    assert len(caller.get("/v1/credits/usage").json()["data"]) == 7
    _audited(pair)
    assert pair.stop() == 0
    assert not any(map(_lives, workers))


async def test_a_revoked_key_is_refused_by_every_worker(upstream: Upstream, pair: Server) -> None:
    """Within two seconds, though each of them knew it."""
    upstream.says(answer())
    caller = pair.caller("1000")
    made = pair.done("POST", f"/accounts/{caller.account}/keys", {})
    key = Caller(pair, caller.account, made["key"])
    assert {answered.status_code for answered in await _at_once(key, 40)} == {200}
    pair.done("DELETE", f"/keys/{made['id']}")
    await asyncio.sleep(2)
    assert {answered.status_code for answered in await _at_once(key, 40)} == {401}
    assert {answered.status_code for answered in await _at_once(caller, 4)} == {200}


async def test_a_killed_worker_is_replaced_and_what_it_held_is_released(upstream: Upstream, pair: Server) -> None:
    """The other goes on meanwhile; nobody is charged for what died, and within 30 seconds nothing is held."""
    gate = Gate()
    upstream.says(streamed(words("one"), gate, finish(), usage_chunk(), DONE))
    caller = pair.caller("1000")
    before = _workers(pair)
    calls = [Leaver(caller, body_of(stream=True, max_tokens=10)) for _ in range(16)]
    for call in calls:
        await call.__aenter__()
        await call.until(b"one")
    # One that has some of them: which worker takes a connection is chance.
    with psycopg.connect(pair._variables["FAREBOX_DATABASE_URL"]) as connection:
        rows = connection.execute("SELECT process FROM ledger_hold JOIN ledger_lease ON lease = lease_id").fetchall()
    os.kill(int(rows[0][0].partition(" ")[0]), SIGKILL)
    assert until(lambda: len(_workers(pair)) == 2 and _workers(pair) != before, 10)
    gate.open()
    for call in calls:
        await call.to_the_end()
        await call.__aexit__(None, None, None)
    assert await asyncio.to_thread(caller.nothing_held, 30.0)
    whole = sum(call.seen.endswith(b"0\r\n\r\n") for call in calls)
    assert whole < 16
    rows = caller.get("/v1/credits/usage").json()["data"]
    assert sorted(row["status"] for row in rows) == ["orphaned"] * (16 - whole) + ["settled"] * whole
    assert caller.available == str(1000 - whole * Decimal("0.041"))
    upstream.says(answer())
    assert {answered.status_code for answered in await _at_once(caller, 20)} == {200}
    _audited(pair)
    assert pair.stop() == 0


async def test_workers_end_with_whoever_started_them(pair: Server) -> None:
    """However that ended."""
    workers = _workers(pair)
    pair.stop(SIGKILL)
    assert until(lambda: not any(map(_lives, workers)), 10)


def test_workers_told_to_stop_before_all_serve_have_not_failed(server: _Factory, postgres: str, tmp_path: Path) -> None:
    """The exit code is 0, and nobody is left."""
    starting = server("serve", "--workers", "2", FAREBOX_DATABASE_URL=own_database(postgres, str(tmp_path)))
    starting.launch()
    assert until(lambda: len(_workers(starting)) == 2, 10)
    workers = _workers(starting)
    assert starting.stop() == 0
    assert not any(map(_lives, workers))


def test_two_servers_share_a_database(upstream: Upstream, server: _Factory, postgres: str, tmp_path: Path) -> None:
    """As on two hosts: an account, a key and a balance are the same on both."""
    upstream.says(answer())
    url = own_database(postgres, str(tmp_path))
    one, two = (server("serve", FAREBOX_DATABASE_URL=url).start() for _ in range(2))
    caller = one.caller("10")
    there = Caller(two, caller.account, caller.key)
    assert caller.chat("each").headers["x-credits-available"] == "9"
    assert there.chat("each").headers["x-credits-available"] == "8"
    assert caller.available == there.available == "8"
    started = time.monotonic()
    one.done("PATCH", f"/accounts/{caller.account}", {"status": "suspended"})
    assert there.chat("each").status_code == 403
    assert time.monotonic() - started < 2
    refused = farebox(tmp_path, "backup", "copy.db", FAREBOX_DATABASE_URL=url)
    assert (refused.returncode, "pg_dump" in refused.stderr) == (1, True)
    for each in (one, two):
        assert each.stop() == 0


def test_a_file_has_one_worker(server: _Factory, config_text: str, tmp_path: Path) -> None:
    """More are refused, with what they need."""
    server()
    ran = farebox(tmp_path, "serve", "--workers", "2", "--port", "0")
    assert ran.returncode == 1
    assert "PostgreSQL" in ran.stderr
