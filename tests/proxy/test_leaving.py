"""What a client pays that leaves before its answer's end: the provider is cut off, and nothing stays held."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from tests.proxy.chats import DONE, EXACT, answer, body_of, finish, usage_chunk, words
from tests.proxy.leavers import Leaver
from tests.proxy.running import Caller, Server, until
from tests.proxy.upstream import Gate, Received, Script, Upstream, head, piece, streamed

_MANY = 100
_STREAMS = pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
_RUDE = pytest.mark.parametrize("rude", [False, True], ids=["closes", "resets"])


def _body(model: str, stream: bool) -> bytes:
    return body_of(model=model, stream=stream, max_tokens=100)


async def _leave(
    caller: Caller, body: bytes, *, after: bytes = b"", gate: Gate | None = None, rude: bool = False
) -> list[str]:
    """Make a hundred calls at once, left when each has seen `after` and all are at the gate; returns their ids."""
    async with contextlib.AsyncExitStack() as stack:
        calls = [Leaver(caller, body, rude=rude) for _ in range(_MANY)]
        await asyncio.gather(*(stack.enter_async_context(call) for call in calls))
        if gate is not None:
            await gate.reached_by(_MANY)
        await asyncio.gather(*(call.until(after) for call in calls))
    return [call.request_id for call in calls]


async def _nothing_held(caller: Caller) -> None:
    assert await asyncio.to_thread(caller.nothing_held, 1.0), caller.balance()


def _all_cut(upstream: Upstream) -> None:
    assert len(upstream.received) == _MANY
    for received in upstream.received:
        assert received.was_cut()


@_STREAMS
@_RUDE
async def test_leaving_before_the_first_byte_costs_the_input(
    upstream: Upstream, shared: Server, stream: bool, rude: bool
) -> None:
    """The provider had the prompt: 100 x 0.009, and no flat price because nothing came."""
    caller = shared.caller("200")
    gate = Gate()
    upstream.says(gate)
    await _leave(caller, _body("both", stream), gate=gate, rude=rude)
    await _nothing_held(caller)
    _all_cut(upstream)
    assert caller.available == "199.1"


@_STREAMS
async def test_leaving_after_the_head_costs_the_input(upstream: Upstream, shared: Server, stream: bool) -> None:
    """A head is no output."""
    caller = shared.caller("200")
    gate = Gate()
    upstream.says(head("text/event-stream" if stream else "application/json"), gate)
    await _leave(caller, _body("both", stream), gate=gate)
    await _nothing_held(caller)
    _all_cut(upstream)
    assert caller.available == "199.1"


@_RUDE
async def test_leaving_midway_costs_what_was_received(upstream: Upstream, shared: Server, rude: bool) -> None:
    """Two words of a stream: 100 x (1 + 0.009 + 2 x 0.003)."""
    caller = shared.caller("200")
    gate = Gate()
    upstream.says(streamed(words("one", " two"), gate, words(" three"), finish(), usage_chunk(), DONE))
    ids = await _leave(caller, _body("both", True), gate=gate, after=b" two", rude=rude)
    await _nothing_held(caller)
    _all_cut(upstream)
    assert caller.available == "98.5"
    receipt = caller.receipt(ids[0])
    assert (receipt["status"], receipt["ended"], receipt["estimated"]) == ("settled", "client_left", True)
    assert receipt["total"] == "1.015"


async def test_leaving_within_an_answer_costs_the_input(upstream: Upstream, shared: Server) -> None:
    """Half of an answer that is not streamed is no output yet; the caller gets none of it."""
    caller = shared.caller("200")
    gate = Gate()
    upstream.says(head("application/json"), piece(answer().partition(b"\r\n\r\n")[2][:80]), gate)
    await _leave(caller, _body("both", False), gate=gate)
    await _nothing_held(caller)
    _all_cut(upstream)
    assert caller.available == "199.1"


@_STREAMS
@_RUDE
async def test_leaving_at_the_last_byte_costs_the_answer(
    upstream: Upstream, shared: Server, stream: bool, rude: bool
) -> None:
    """Whoever has seen the end has been charged, exactly, before it: 100 x 0.041."""
    caller = shared.caller("200")
    upstream.says(streamed(words("one", " two", " three"), finish(), usage_chunk(), DONE) if stream else [answer()])
    await _leave(caller, _body("words", stream), after=b"[DONE]" if stream else b'"total_tokens": 27}}', rude=rude)
    assert caller.available == "195.9"
    assert caller.balance()["held"] == "0"


@_RUDE
async def test_leaving_at_the_finish_still_waits_for_the_figures(
    upstream: Upstream, shared: Server, rude: bool
) -> None:
    """After a `finish_reason` usage is awaited, so the charge is exact: 100 x 0.041."""
    caller = shared.caller("200")
    gate = Gate()
    upstream.says(streamed(words("one", " two", " three"), finish(), gate, usage_chunk(), DONE))
    ids = await _leave(caller, _body("words", True), gate=gate, after=b'"stop"', rude=rude)
    for _ in range(5):  # round trips, so that the server has seen them leave
        caller.balance()
    gate.open()
    await _nothing_held(caller)
    assert caller.available == "195.9"
    receipt = caller.receipt(ids[0])
    assert (receipt["ended"], receipt["estimated"], receipt["total"]) == ("client_left", False, EXACT)


async def test_the_wait_for_figures_is_short(upstream: Upstream, shared: Server) -> None:
    """Where no usage comes for 2 seconds after the finish, what was received is charged by own count."""
    caller = shared.caller("200")
    gate = Gate()
    upstream.says(streamed(words("one", " two", " three"), finish(), gate))
    async with Leaver(caller, _body("words", True)) as call:
        await gate.reached_by(1)
        await call.until(b'"stop"')
    assert await asyncio.to_thread(caller.nothing_held, 3.0)
    receipt = caller.receipt(call.request_id)
    assert (receipt["total"], receipt["estimated"], receipt["ended"]) == ("0.018", True, "client_left")
    assert upstream.last.was_cut()


@_STREAMS
async def test_a_call_that_is_to_finish_is_read_to_its_end(upstream: Upstream, shared: Server, stream: bool) -> None:
    """With `on_leave: finish` the provider is not cut off, and the charge is exact: 100 x 1.041."""
    caller = shared.caller("200")
    gate = Gate()
    if stream:
        upstream.says(streamed(words("one"), gate, words(" two", " three"), finish(), usage_chunk(), DONE))
    else:
        upstream.says(gate, answer())
    await _leave(caller, _body("finish", stream), gate=gate, after=b'"one"' if stream else b"")
    assert not any(received.cut.is_set() for received in upstream.received)
    gate.open()
    await _nothing_held(caller)
    assert all(received.told.wait(1) for received in upstream.received)
    assert caller.available == "95.9"


async def test_leaving_with_half_a_request_costs_nothing(upstream: Upstream, shared: Server) -> None:
    """A body that never arrives whole is never held for."""
    caller = shared.caller("200")
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(10):
            await stack.enter_async_context(Leaver(caller, _body("both", True), short=10))
    assert caller.chat("nothing").status_code == 404
    assert (caller.available, caller.balance()["held"]) == ("200", "0")
    assert upstream.received == []


async def test_some_leave_and_some_stay(upstream: Upstream, shared: Server) -> None:
    """Leavers do not disturb whoever stays: 50 x 0.041 for those, 50 x 0.012 for the others."""
    caller = shared.caller("200")
    gate = Gate()

    def script(_: Received) -> Script:
        return streamed(words("one"), gate, words(" two", " three"), finish(), usage_chunk(), DONE)

    upstream.chooses(script)
    body = _body("words", True)
    async with contextlib.AsyncExitStack() as stay:
        staying = [await stay.enter_async_context(Leaver(caller, body)) for _ in range(50)]
        async with contextlib.AsyncExitStack() as leave:
            leaving = [await leave.enter_async_context(Leaver(caller, body)) for _ in range(50)]
            await gate.reached_by(100)
            await asyncio.gather(*(call.until(b'"one"') for call in (*staying, *leaving)))
        assert await asyncio.to_thread(until, lambda: sum(each.was_cut(0) for each in upstream.received) == 50)
        gate.open()
        await asyncio.gather(*(call.until(b"[DONE]") for call in staying))
    await _nothing_held(caller)
    totals = [caller.receipt(call.request_id)["total"] for call in (*staying, *leaving)]
    assert totals == [EXACT] * 50 + ["0.012"] * 50


async def test_a_client_that_stops_reading_is_one_that_left(upstream: Upstream, shared: Server) -> None:
    """A stream that nobody reads holds nothing for longer than the time between two bytes."""
    caller = shared.caller("200")
    upstream.says(streamed(*(words("one" * 20_000) for _ in range(400))))
    async with Leaver(caller, _body("hasty", True)) as call:
        await call.until(b'"content"')
        assert await asyncio.to_thread(caller.nothing_held, 3.0)
    assert caller.receipt(call.request_id)["ended"] == "client_left"
