"""What is true after a server was killed, or was asked to stop, amid running calls."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from signal import SIGINT, SIGKILL, SIGTERM

import httpx
import pytest

from tests.proxy.chats import DONE, EXACT, answer, body_of, documents, finish, usage_chunk, words
from tests.proxy.leavers import Leaver
from tests.proxy.running import Caller, Server, until
from tests.proxy.upstream import Gate, Received, Script, Upstream, streamed

_Factory = Callable[..., Server]
_BODY = body_of(stream=True, max_tokens=100)


class _Mixed:
    """A hundred streams, twenty each at five points: no head, no event, midway, finished, ended."""

    def __init__(self, upstream: Upstream) -> None:
        self.gate = Gate()
        text, end = words("one", " two"), [words(" three"), finish()]
        self._scripts: list[Script] = [
            [self.gate],
            streamed(self.gate),
            streamed(text, self.gate, *end, usage_chunk(), DONE),
            streamed(text, *end, self.gate, usage_chunk(), DONE),
            streamed(text, *end, usage_chunk(), DONE),
        ]
        self._next = 0
        upstream.chooses(self._choose)

    def _choose(self, _: Received) -> Script:
        self._next += 1
        return self._scripts[self._next % 5]

    async def run(self, caller: Caller, stack: contextlib.AsyncExitStack) -> list[Leaver]:
        """Start them all; returns when each is at its point."""
        calls = [await stack.enter_async_context(Leaver(caller, _BODY)) for _ in range(100)]
        await self.gate.reached_by(80)
        reading = [asyncio.create_task(_read(call)) for call in calls]
        try:
            async with asyncio.timeout(10):
                while sum(b"[DONE]" in call.seen for call in calls) < 20:
                    await asyncio.wait(reading, return_when=asyncio.FIRST_COMPLETED, timeout=0.05)
                while sum(b" two" in call.seen for call in calls) < 60:
                    await asyncio.wait(reading, return_when=asyncio.FIRST_COMPLETED, timeout=0.05)
        finally:
            for task in reading:
                task.cancel()
            await asyncio.gather(*reading, return_exceptions=True)
        return calls


async def _read(call: Leaver) -> None:
    await call.until(b"[DONE]")


async def test_a_kill_charges_nobody_twice_and_holds_nothing(upstream: Upstream, server: _Factory) -> None:
    """After kill -9 and a restart every stream that had its last byte is charged, every other is an orphan at 0."""
    running = server().start()
    caller = running.caller("500")
    async with contextlib.AsyncExitStack() as stack:
        calls = await _Mixed(upstream).run(caller, stack)
        assert running.stop(SIGKILL) == -SIGKILL
    before = running.audit()
    assert before["totals"]["held"] != "0"
    running.start()
    balance = caller.balance()
    # 20 x 0.041
    assert (balance["available"], balance["held"], balance["debt"]) == ("499.18", "0", "0")
    ended = [call.request_id for call in calls if b"[DONE]" in call.seen]
    assert len(ended) == 20
    for request in ended:
        receipt = caller.receipt(request)
        assert (receipt["status"], receipt["ended"], receipt["total"]) == ("settled", "answered", EXACT)
    begun = [call.request_id for call in calls if call.seen and b"[DONE]" not in call.seen]
    assert len(begun) == 40
    for request in begun:
        receipt = caller.receipt(request)
        assert (receipt["status"], receipt["ended"], receipt["total"]) == ("orphaned", "died", "0")
    orphans = [orphan["id"] for orphan in running.audit()["orphans"]]
    assert len(orphans) == 80 and set(begun) <= set(orphans) and not set(ended) & set(orphans)
    upstream.says(answer())
    assert caller.chat().headers["x-credits-charged"] == EXACT
    assert running.stop() == 0
    running.start()
    assert caller.available == "499.139"
    assert len(running.audit()["orphans"]) == 80


async def test_a_stop_ends_what_does_not_end_by_itself(upstream: Upstream, server: _Factory) -> None:
    """SIGTERM with a drain of 1 s: streams end with an error event, all is settled, the exit code is 0, no orphan."""
    running = server().start("--drain", "1")
    caller = running.caller("500")
    async with contextlib.AsyncExitStack() as stack:
        calls = await _Mixed(upstream).run(caller, stack)
        running.signal(SIGTERM)
        await asyncio.gather(*(call.to_the_end() for call in calls))
        assert await asyncio.to_thread(running.wait, 15) == 0
    kinds: dict[tuple[str, str], int] = {}
    running.start()
    for call in calls:
        receipt = caller.receipt(call.request_id)
        kind = (receipt["ended"], receipt["total"])
        kinds[kind] = kinds.get(kind, 0) + 1
        if b"200 OK" not in call.seen[:20]:
            assert call.seen.startswith(b"HTTP/1.1 503")
        elif b"[DONE]" not in call.seen:
            assert documents(call.seen.partition(b"\r\n\r\n")[2])[-1]["error"]["code"] == "upstream_error"
    # Nothing came of 40, two words of 20, three of 20, and 20 were answered.
    assert kinds == {
        ("upstream_error", "0"): 40,
        ("upstream_broke", "0.015"): 20,
        ("upstream_broke", "0.018"): 20,
        ("answered", EXACT): 20,
    }
    balance = caller.balance()
    # 500 - 20 x 0.015 - 20 x 0.018 - 20 x 0.041
    assert (balance["available"], balance["held"]) == ("498.52", "0")
    assert running.audit()["orphans"] == []


@pytest.mark.parametrize("number", [SIGTERM, SIGINT])
def test_a_stop_lets_a_stream_end(upstream: Upstream, server: _Factory, number: int) -> None:
    """While it drains the server is not ready and takes no calls; the running stream ends as if nothing were."""
    running = server().start("--drain", "30")
    caller = running.caller()
    gate = Gate()
    upstream.says(streamed(words("one"), gate, words(" two", " three"), finish(), usage_chunk(), DONE))
    assert running.http.get(running.base + "/readyz").status_code == 200
    with running.http.stream("POST", caller.url, content=body_of(stream=True), headers=caller.headers) as stream:
        gate.reached()
        running.signal(number)
        assert until(lambda: running.http.get(running.base + "/readyz").status_code == 503)
        assert running.http.get(running.base + "/healthz").status_code == 200
        refused = caller.chat()
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "overloaded")
        assert len(upstream.received) == 1
        gate.open()
        content = stream.read()
    assert content.endswith(words(" two", " three") + finish() + DONE)
    assert running.wait() == 0
    running.start()
    receipt = caller.receipt(stream)
    assert (receipt["ended"], receipt["total"], receipt["estimated"]) == ("answered", EXACT, False)
    assert running.audit()["orphans"] == []


def test_a_stop_lets_an_answer_end(upstream: Upstream, server: _Factory) -> None:
    """A call that is not streamed is waited for as well."""
    running = server().start("--drain", "30")
    caller = running.caller()
    gate = Gate()
    upstream.says(gate, answer())

    def call() -> httpx.Response:
        with httpx.Client(timeout=20) as client:
            return client.post(caller.url, content=body_of(), headers=caller.headers)

    with ThreadPoolExecutor(1) as thread:
        waiting = thread.submit(call)
        gate.reached()
        running.signal(SIGTERM)
        assert until(lambda: running.http.get(running.base + "/readyz").status_code == 503)
        gate.open()
        answered = waiting.result(20)
    assert answered.headers["x-credits-charged"] == EXACT
    assert running.wait() == 0


def test_an_idle_server_stops_at_once(server: _Factory) -> None:
    """With nothing to wait for, a stop does not take the drain; an ordinary restart keeps every figure."""
    running = server().start("--drain", "60")
    caller = running.caller("7")
    assert running.stop() == 0
    running.start()
    assert caller.available == "7"
    assert running.audit()["orphans"] == []


def test_a_second_signal_hurries(upstream: Upstream, server: _Factory) -> None:
    """An operator that asks twice does not wait for running calls; they are settled all the same."""
    running = server().start("--drain", "60")
    caller = running.caller()
    gate = Gate()
    upstream.says(streamed(words("one", " two"), gate))
    with running.http.stream("POST", caller.url, content=body_of(stream=True), headers=caller.headers) as stream:
        gate.reached()
        running.signal()
        assert until(lambda: running.http.get(running.base + "/readyz").status_code == 503)
        running.signal()
        assert documents(stream.read())[-1]["error"]["code"] == "upstream_error"
    assert running.wait() == 0
    running.start()
    assert caller.receipt(stream)["total"] == "0.015"


async def test_repeated_kills_never_lose_or_double_a_charge(upstream: Upstream, server: _Factory) -> None:
    """Killed three times amid answers: what is left is what was granted less what was charged, by receipts."""
    running = server().start()
    caller = running.caller("100")
    answered: list[str] = []
    for _ in range(3):
        upstream.says(answer())
        async with httpx.AsyncClient(timeout=20, limits=httpx.Limits(max_connections=30)) as client:

            async def call(client: httpx.AsyncClient = client) -> None:
                with contextlib.suppress(httpx.TransportError):
                    while True:
                        done = await client.post(caller.url, content=body_of(max_tokens=9), headers=caller.headers)
                        assert done.status_code == 200
                        answered.append(done.headers["x-request-id"])

            calls = [asyncio.create_task(call()) for _ in range(30)]
            count = len(answered)
            async with asyncio.timeout(20):
                while len(answered) < count + 60:
                    await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED, timeout=0.01)
                    assert not any(task.done() for task in calls)
            running.signal(SIGKILL)
            await asyncio.gather(*calls)
            await asyncio.to_thread(running.wait)
        running.start()
        balance = caller.balance()
        assert (balance["held"], balance["debt"]) == ("0", "0")
    assert len(set(answered)) == len(answered)
    assert {caller.receipt(request)["total"] for request in answered} == {EXACT}
    totals = running.audit()["totals"]
    assert totals["balances"] == caller.available
