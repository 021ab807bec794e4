"""PostgreSQL stopped and started again under load: calls are refused meanwhile, nothing is lost or charged twice."""

from __future__ import annotations

import asyncio
import itertools
import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path

import httpx
import pytest

from tests.pooler import pooler
from tests.postgres import PostgresServer, own_database, running_postgres
from tests.proxy.chats import answer, body_of
from tests.proxy.running import Caller, Server, farebox
from tests.proxy.upstream import Upstream

_BODY = body_of(model="each")
_CALLERS = 8


@pytest.fixture(scope="module")
def database() -> Iterator[PostgresServer]:
    with running_postgres() as running:
        yield running


class Load:
    """Callers that call again and again; outcomes: of all calls so far, as status and code."""

    def __init__(self, caller: Caller) -> None:
        self.outcomes = Counter[tuple[int, str | None]]()
        self._caller = caller
        self._tasks = [asyncio.create_task(self._call()) for _ in range(_CALLERS)]

    async def _call(self) -> None:
        async with httpx.AsyncClient(timeout=30) as client:
            while True:
                answered = await client.post(self._caller.url, content=_BODY, headers=self._caller.headers)
                self.outcomes[answered.status_code, answered.json().get("error", {}).get("code")] += 1

    async def more(self, status: int, count: int) -> None:
        """Wait until so many more calls have had that status."""
        before = self._had(status)
        async with asyncio.timeout(30):
            while self._had(status) < before + count:
                for task in self._tasks:
                    assert not task.done(), task.exception()
                await asyncio.sleep(0.02)

    def _had(self, status: int) -> int:
        return sum(count for (had, _), count in self.outcomes.items() if had == status)

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


@pytest.mark.parametrize(("mode", "workers"), [("immediate", "2"), ("fast", "1")])
async def test_calls_go_on_after_postgres_was_down(
    upstream: Upstream, server: Callable[..., Server], database: PostgresServer, tmp_path: Path, mode: str, workers: str
) -> None:
    """While it is down every call is refused as `ledger_unavailable`; then they are answered, and sums are exact."""
    upstream.says(answer())
    url = own_database(database.url, str(tmp_path))
    running = server("serve", "--workers", workers, FAREBOX_DATABASE_URL=url).start()
    caller = running.caller("100000")
    load = Load(caller)
    for _ in range(2):
        await load.more(200, 20)
        database.stop(mode)
        await load.more(503, 20)
        for refused in (caller.get("/v1/credits"), running.admin("POST", "/accounts", {"name": "Nobody"})):
            assert (refused.status_code, refused.json()["error"]["code"]) == (503, "ledger_unavailable")
        database.start()
    await load.more(200, 20)
    await load.stop()
    assert load.outcomes.keys() == {(200, None), (503, "ledger_unavailable")}
    assert await asyncio.to_thread(caller.nothing_held, 30.0)
    rows = [
        json.loads(line)
        for line in caller.server.http.get(
            running.base + "/v1/credits/usage", headers={**caller.headers, "accept": "application/jsonl"}
        ).text.splitlines()
    ]
    # Those who left at the end before there was an answer are charged nothing.
    charged = [row for row in rows if row["total"] != "0"]
    assert len(charged) >= load.outcomes[200, None]
    assert Decimal(caller.available) == 100_000 - sum(Decimal(row["total"]) for row in rows) == 100_000 - len(charged)
    assert farebox(running.folder, "audit", FAREBOX_DATABASE_URL=url).returncode == 0
    assert running.stop() == 0
    assert not [line for line in running.lines if "Traceback" in line], "".join(running.lines)


@pytest.mark.parametrize(("lost", "charged"), [(1, "0"), (2, "1")], ids=["the hold's", "the settlement's"])
def test_a_commit_whose_answer_is_lost_is_neither_held_for_ever_nor_charged_twice(
    upstream: Upstream, server: Callable[..., Server], database: PostgresServer, tmp_path: Path, lost: int, charged: str
) -> None:
    """A hold that was placed after all is let go; a call that was settled after all is charged once."""
    upstream.says(answer())
    commits = itertools.count(1)
    armed = threading.Event()
    with pooler(own_database(database.url, str(tmp_path)), lambda: armed.is_set() and next(commits) == lost) as url:
        running = server("serve", FAREBOX_DATABASE_URL=url).start()
        caller = running.caller("1000")
        armed.set()
        refused = caller.chat("each")
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "ledger_unavailable")
        assert caller.nothing_held(10)
        (call,) = caller.get("/v1/credits/usage").json()["data"]
        assert (call["status"], call["total"]) == ("settled" if lost == 2 else "voided", charged)
        assert caller.chat("each").status_code == 200
        assert Decimal(caller.available) == 999 - Decimal(charged)
        assert running.stop() == 0
