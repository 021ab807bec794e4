"""The balance as server-sent events: once at the start, and again after each change."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest

from tests.proxy.chats import BODY, DONE, answer, body_of, finish, usage_chunk, words
from tests.proxy.leavers import Leaver
from tests.proxy.running import Caller, Server
from tests.proxy.upstream import Gate, Upstream, response, streamed


class _Events:
    """An open stream of events."""

    def __init__(self, answered: httpx.Response) -> None:
        self.answered = answered
        self._lines = answered.iter_lines()

    def next(self) -> dict[str, Any]:
        """Wait for the next `balance` event."""
        kind = ""
        for line in self._lines:
            if line.startswith("event: "):
                kind = line.removeprefix("event: ")
            elif line.startswith("data: "):
                assert kind == "balance"
                document: dict[str, Any] = json.loads(line.removeprefix("data: "))
                return document
        raise AssertionError("the events ended")

    def until(self, wanted: Callable[[dict[str, Any]], bool], most: int = 6) -> dict[str, Any]:
        """Wait for an event that is as wanted, among the next few."""
        for _ in range(most):
            event = self.next()
            if wanted(event):
                return event
        raise AssertionError("none of the events was as wanted")


@contextmanager
def _watching(caller: Caller) -> Iterator[_Events]:
    # Shorter than the server's own look at the clock, so that only an event about the change is in time.
    with (
        httpx.Client(timeout=8) as client,
        client.stream("GET", caller.server.base + "/v1/credits/events", headers=caller.headers) as answered,
    ):
        yield _Events(answered)


def test_the_first_event_is_the_balance(caller: Caller) -> None:
    """At once, as `GET /v1/credits` says it; nobody may keep it back or store it."""
    with _watching(caller) as events:
        assert events.next() == caller.balance()
        assert events.answered.headers["content-type"].startswith("text/event-stream")
        assert events.answered.headers["cache-control"] == "no-cache"


def test_a_charge_and_a_grant_are_events(shared: Server, upstream: Upstream, caller: Caller) -> None:
    """Each is followed by the balance after it."""
    upstream.says(answer())
    with _watching(caller) as events:
        assert events.next()["available"] == "1000"
        assert caller.chat().status_code == 200
        event = events.until(lambda balance: balance["held"] == "0")
        assert event["available"] == "999.959"
        shared.done("POST", f"/accounts/{caller.account}/grants", {"bucket": "bonus", "credits": "5"})
        assert events.next() == caller.balance()
        assert caller.available == "1004.959"


def test_a_hold_is_an_event(shared: Server, upstream: Upstream, caller: Caller) -> None:
    """What a running call holds is seen while it runs, and released after it."""
    gate = Gate()
    upstream.says(streamed(words("one"), gate, finish(), usage_chunk(), DONE))
    with _watching(caller) as events:
        events.next()
        with shared.http.stream("POST", caller.url, content=body_of(stream=True), headers=caller.headers) as stream:
            gate.reached()
            assert events.next()["held"] == stream.headers["x-credits-held"]
            gate.open()
            stream.read()
        assert events.next()["available"] == "999.959"


def test_every_command_on_the_account_is_an_event(shared: Server, upstream: Upstream, caller: Caller) -> None:
    """Refund, adjustment, void and a changed overdraft limit."""
    upstream.says(answer())
    request = caller.chat().headers["x-request-id"]
    grant = caller.balance()["grants"][0]["id"]
    with _watching(caller) as events:
        assert events.next()["available"] == "999.959"
        shared.done("POST", f"/receipts/{request}/refund", {"reason": "slow"})
        assert events.next()["available"] == "1000"
        shared.done("POST", f"/accounts/{caller.account}/adjust", {"credits": "-1", "reason": "mistake"})
        assert events.next()["available"] == "999"
        shared.done("PATCH", f"/accounts/{caller.account}", {"overdraft_limit": "7"})
        assert events.next()["overdraft_limit"] == "7"
        shared.done("POST", f"/grants/{grant}/void", {"reason": "not meant"})
        assert events.next()["available"] == "0"


def test_a_failed_call_gives_back_its_hold(upstream: Upstream, caller: Caller) -> None:
    """The last event after it has everything available again."""
    gate = Gate()
    upstream.says(gate, response(b"{}", 500))
    with _watching(caller) as events:
        events.next()
        gate.open()
        assert caller.chat().status_code == 502
        caller.server.done("POST", f"/accounts/{caller.account}/grants", {"bucket": "paid", "credits": "1"})
        assert events.until(lambda balance: balance["available"] == "1001")["held"] == "0"


async def test_a_client_that_leaves_is_charged_in_an_event(upstream: Upstream, caller: Caller) -> None:
    """Whoever watches sees the charge at once, not at the next look at the clock."""
    gate = Gate()
    upstream.says(gate)
    with _watching(caller) as events:
        events.next()
        async with Leaver(caller, BODY):
            await gate.reached_by(1)
        event = events.until(lambda balance: balance["held"] == "0")
        assert event["available"] == "999.991"


def test_others_changes_are_no_events(shared: Server, upstream: Upstream, caller: Caller) -> None:
    """The next event after another account's charge is one's own."""
    upstream.says(answer())
    other = shared.caller()
    with _watching(caller) as events:
        events.next()
        assert other.chat().status_code == 200
        shared.done("POST", f"/accounts/{caller.account}/grants", {"bucket": "paid", "credits": "1"})
        event = events.next()
        assert (event["account"], event["available"]) == (caller.account, "1001")


def test_many_may_watch_one_account(upstream: Upstream, caller: Caller) -> None:
    """Each gets every balance, and one that leaves takes nothing from the others."""
    upstream.says(answer())
    with _watching(caller) as first, _watching(caller) as second:
        assert first.next() == second.next()
        with _watching(caller) as third:
            third.next()
        assert caller.chat().status_code == 200
        for events in (first, second):
            assert events.until(lambda balance: balance["held"] == "0")["available"] == "999.959"


@pytest.mark.parametrize("headers", [{}, {"authorization": "Bearer fbx_unknown"}])
def test_events_need_a_key(shared: Server, headers: dict[str, str]) -> None:
    """401, and no stream."""
    assert shared.http.get(shared.base + "/v1/credits/events", headers=headers).status_code == 401


def test_a_look_at_the_head_ends(caller: Caller) -> None:
    """HEAD has no body to wait for, so the connection is free for the next request."""
    limits = httpx.Limits(max_connections=1)
    with httpx.Client(base_url=caller.server.base, timeout=5, limits=limits, headers=caller.headers) as client:
        assert client.head("/v1/credits/events").status_code in (200, 405)
        assert client.get("/v1/credits").status_code == 200


def test_watchers_do_not_keep_a_server_from_stopping(server: Callable[..., Server]) -> None:
    """It ends the events and exits 0 in time, without a traceback."""
    running = server().start()
    caller = running.caller()
    with _watching(caller) as events:
        events.next()
        began = time.monotonic()
        assert running.stop() == 0
        assert time.monotonic() - began < 15
    assert not [line for line in running.lines if "Traceback" in line or "ERROR" in line], "".join(running.lines)
