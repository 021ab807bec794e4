"""Calls made again under one Idempotency-Key: answered once by a model, charged once, and given again as they were."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from signal import SIGKILL
from typing import Any

import httpx
import pytest
from openai import OpenAI

from tests.proxy.chats import (
    BODY,
    DONE,
    EXACT,
    MESSAGES,
    STREAM_BODY,
    answer,
    body_of,
    documents,
    finish,
    usage_chunk,
    words,
)
from tests.proxy.leavers import Leaver
from tests.proxy.running import Caller, Server, until
from tests.proxy.upstream import CUT, Gate, Upstream, response, streamed

_USAGE_BODY = body_of(stream=True, stream_options={"include_usage": True})
_STREAM = streamed(words("one", " two three"), finish(), usage_chunk(), DONE)


def _again(caller: Caller, body: bytes = BODY, key: str = "k-1") -> httpx.Response:
    return caller.post(body, Idempotency_Key=key)


def _conflict(answered: httpx.Response, code: str = "idempotency_conflict") -> dict[str, Any]:
    assert answered.status_code == 409, answered.text
    error: dict[str, Any] = answered.json()["error"]
    assert (error["code"], error["param"]) == (code, "Idempotency-Key")
    in_progress = code == "idempotency_in_progress"
    assert answered.headers["x-should-retry"] == ("true" if in_progress else "false")
    assert answered.headers.get("retry-after") == ("1" if in_progress else None)
    return error


def _headers(answered: httpx.Response) -> dict[str, str]:
    """What was said of the answer, without what every connection says."""
    return {name: value for name, value in answered.headers.items() if name not in ("date", "server")}


@pytest.mark.parametrize("body", [BODY, STREAM_BODY, _USAGE_BODY, body_of(stream=True, max_tokens=5)])
def test_the_same_call_again_gives_the_same_answer(upstream: Upstream, caller: Caller, body: bytes) -> None:
    """Byte for byte, with the first one's headers, though its account has changed since; the model is asked once."""
    upstream.says(answer() if body == BODY else _STREAM)
    first = _again(caller, body)
    assert first.status_code == 200
    assert "x-idempotent-replayed" not in first.headers
    caller.chat("gift", max_tokens=5)
    upstream.forget()
    for _ in range(2):
        second = _again(caller, body)
        assert second.content == first.content
        assert _headers(second) == {**_headers(first), "x-idempotent-replayed": "true"}
    assert upstream.received == []
    assert caller.available == "999.959"
    rows = caller.get("/v1/credits/usage").json()["data"]
    assert [row["total"] for row in rows if row["model"] == "words"] == [EXACT]


def test_a_replayed_stream_is_a_stream_to_the_sdk(upstream: Upstream, caller: Caller) -> None:
    """Chunks, the usage with what it cost, and the end."""
    upstream.says(_STREAM)
    heard = []
    for _ in range(2):
        stream = caller.openai.chat.completions.create(
            model="words",
            messages=MESSAGES,
            stream=True,
            stream_options={"include_usage": True},
            extra_headers={"Idempotency-Key": "k"},
        )
        heard.append([chunk.model_dump() for chunk in stream])
    assert heard[0] == heard[1]
    assert heard[1][-1]["credits"] == {"charged": EXACT, "available": "999.959", "estimated": False}
    assert len(upstream.received) == 1


def test_an_estimated_stream_is_given_again_as_one(upstream: Upstream, caller: Caller) -> None:
    """Its usage is Farebox's own count both times."""
    upstream.says(streamed(words("one", " two three"), finish(), DONE))
    first, second = _again(caller, _USAGE_BODY), _again(caller, _USAGE_BODY)
    assert first.content == second.content
    assert documents(second.content)[-2]["credits"]["estimated"] is True


def test_another_body_under_the_key_is_refused(upstream: Upstream, caller: Caller) -> None:
    """While the first runs and after it; neither is called or charged."""
    gate = Gate()
    upstream.says(streamed(words("one"), gate, finish(), usage_chunk(), DONE))
    with caller.server.http.stream(
        "POST", caller.url, content=STREAM_BODY, headers={**caller.headers, "Idempotency-Key": "k-1"}
    ) as stream:
        gate.reached()
        _conflict(_again(caller, BODY))
        # The same bytes are the same call: it is running.
        _conflict(_again(caller, STREAM_BODY), "idempotency_in_progress")
        gate.open()
        whole = stream.read()
    _conflict(_again(caller, BODY))
    assert _again(caller, STREAM_BODY).content == whole
    assert len(upstream.received) == 1
    assert caller.available == "999.959"


async def test_fifty_at_once_are_one_call(upstream: Upstream, caller: Caller) -> None:
    """One is answered and charged; the others hear that it runs, or get its answer."""
    gate = Gate()
    upstream.says(gate, answer())
    refused = 0

    async def call(client: httpx.AsyncClient) -> httpx.Response:
        nonlocal refused
        answered = await client.post(caller.url, content=BODY, headers={**caller.headers, "Idempotency-Key": "one"})
        refused += answered.status_code == 409
        if refused == 49:
            gate.open()
        return answered

    async with httpx.AsyncClient(timeout=20, limits=httpx.Limits(max_connections=50)) as client:
        answers = await asyncio.gather(*(call(client) for _ in range(50)))
    for each in answers:
        if each.status_code != 200:
            _conflict(each, "idempotency_in_progress")
    assert sum(each.status_code == 200 for each in answers) == 1
    assert len(upstream.received) == 1
    assert caller.available == "999.959"


async def test_of_equal_calls_at_once_nobody_is_refused_for_good(upstream: Upstream, caller: Caller) -> None:
    """A call that finds the key free and then taken is told to try again, also if the other was answered meanwhile."""
    upstream.says(answer())
    body = body_of(messages=[{"role": "user", "content": "word " * 40_000}])
    async with httpx.AsyncClient(timeout=20, limits=httpx.Limits(max_connections=20)) as client:
        for attempt in range(5):
            headers = {**caller.headers, "Idempotency-Key": f"attempt-{attempt}"}
            answers = await asyncio.gather(*(client.post(caller.url, content=body, headers=headers) for _ in range(10)))
            assert any(each.status_code == 200 for each in answers)
            for each in answers:
                if each.status_code != 200:
                    _conflict(each, "idempotency_in_progress")
    assert len(upstream.received) == 5


def test_the_sdk_waits_for_the_running_call(upstream: Upstream, caller: Caller) -> None:
    """Its own retry, as the refusal asks for it, brings the answer of the call that was running."""
    gate = Gate()
    upstream.says(gate, answer())

    def ask(client: OpenAI) -> str | None:
        said = client.chat.completions.create(
            model="words", messages=MESSAGES, extra_headers={"Idempotency-Key": "one"}
        )
        return said.choices[0].message.content

    def open_then(response: httpx.Response) -> None:
        if response.status_code == 409:
            gate.open()

    with ThreadPoolExecutor(1) as aside, httpx.Client(timeout=20, event_hooks={"response": [open_then]}) as own:
        first = aside.submit(ask, caller.openai)
        gate.reached()
        patient = OpenAI(api_key=caller.key, base_url=caller.server.base + "/v1", max_retries=2, http_client=own)
        assert ask(patient) == first.result() == "one two three"
    assert len(upstream.received) == 1
    assert caller.available == "999.959"


@pytest.mark.parametrize("body", [BODY, STREAM_BODY])
def test_a_call_that_failed_frees_its_key(upstream: Upstream, caller: Caller, body: bytes) -> None:
    """Refused by the provider, gone before an answer, or broken off midway: made again, it is a new call."""
    upstream.says(response(b'{"error": {"message": "no"}}', 500))
    assert _again(caller, body).status_code == 502
    upstream.says(CUT)
    assert _again(caller, body).status_code == 502
    upstream.says(streamed(words("one"), CUT, ends=False))
    if body == STREAM_BODY:
        assert b"upstream_error" in _again(caller, body).content
    before = caller.available
    upstream.says(answer() if body == BODY else _STREAM)
    assert _again(caller, body).status_code == 200
    assert float(before) > float(caller.available)
    received = len(upstream.received)
    assert _again(caller, body).headers["x-idempotent-replayed"] == "true"
    assert len(upstream.received) == received


def test_a_refused_call_frees_its_key(upstream: Upstream, shared: Server) -> None:
    """Out of credits, and then not; with the credits spent, what was answered is given again all the same."""
    upstream.says(answer())
    caller = shared.caller(None)
    assert _again(caller, body_of(model="each")).status_code == 402
    shared.done("POST", f"/accounts/{caller.account}/grants", {"bucket": "paid", "credits": "1"})
    assert _again(caller, body_of(model="each")).status_code == 200
    assert caller.chat("each").status_code == 402
    replay = _again(caller, body_of(model="each"))
    assert (replay.status_code, replay.headers["x-credits-available"]) == (200, "0")
    # What is wrong with the call is said before its key is looked at twice.
    assert _again(caller, body_of(model="nothing"), "k-2").status_code == 404
    assert _again(caller, body_of(model="gift"), "k-2").status_code == 200


async def test_a_client_that_leaves_finds_its_answer_later(upstream: Upstream, caller: Caller) -> None:
    """A keyed call goes on without it, at each point; the retry gets the whole answer, charged once and exactly."""
    for number, point in enumerate((b"", b"HTTP/1.1 200", b"one", b" two")):
        upstream.forget()
        gate, key = Gate(), f"leaver-{number}"
        parts: list[Any] = [gate, words("one"), words(" two three"), finish(), usage_chunk(), DONE]
        parts.insert({b"": 0, b"HTTP/1.1 200": 1, b"one": 1, b" two": 2}[point], parts.pop(0))
        upstream.says(streamed(*parts))
        async with Leaver(caller, STREAM_BODY, rude=True, key=key) as leaver:
            await gate.reached_by(1)
            if point:
                await leaver.until(point)
        gate.open()
        assert upstream.last.told.wait(5)
        assert await asyncio.to_thread(caller.nothing_held)
        replay = await asyncio.to_thread(_again, caller, STREAM_BODY, key)
        assert replay.headers["x-idempotent-replayed"] == "true"
        assert replay.content.endswith(finish() + DONE)
        assert len(upstream.received) == 1
        receipt = caller.receipt(replay)
        assert (receipt["total"], receipt["estimated"]) == (EXACT, False)


async def test_a_client_that_stops_reading_does_not_hold_its_answer_up(upstream: Upstream, caller: Caller) -> None:
    """The stream is read to its end without it, and whoever asks again gets all of it."""
    text = "word " * 20_000
    upstream.says(streamed(*(words(text) for _ in range(30)), finish(), usage_chunk(), DONE))
    body = body_of(model="tardy", stream=True)
    async with Leaver(caller, body, key="stalled", narrow=True) as leaver:
        await leaver.until(b"word ")
        assert await asyncio.to_thread(caller.nothing_held, 10.0)
        replay = await asyncio.to_thread(_again, caller, body, "stalled")
    assert replay.content.count(b"word ") == 600_000
    assert replay.content.endswith(DONE)
    assert len(upstream.received) == 1


@pytest.mark.parametrize("body", [BODY, STREAM_BODY])
def test_a_long_answer_is_charged_once_and_not_kept(upstream: Upstream, caller: Caller, body: bytes) -> None:
    """Above 4 MB the second call is refused for good, and says that the first was charged."""
    text = "x" * 4_000_001
    upstream.says(answer(text) if body == BODY else streamed(words(text), finish(), usage_chunk(), DONE))
    assert len(_again(caller, body).content) > 4_000_000
    assert "charged once" in _conflict(_again(caller, body))["message"]
    assert caller.available == "999.959"
    assert len(upstream.received) == 1


def test_keys_are_their_accounts_own(upstream: Upstream, shared: Server) -> None:
    """Another account's call of that key is another call, and so is another member's of one team."""
    upstream.says(answer())
    first, second = shared.caller(), shared.caller()
    team = shared.done("POST", "/accounts", {"name": "Crew", "kind": "team"})["id"]
    shared.done("POST", f"/accounts/{team}/grants", {"bucket": "paid", "credits": "9"})
    callers = [first, second]
    for member in (first, second):
        shared.done("POST", f"/accounts/{team}/members", {"account": member.account})
        key = shared.done("POST", f"/accounts/{member.account}/keys", {"pays": team})["key"]
        callers.append(Caller(shared, member.account, key))
    assert all("x-idempotent-replayed" not in _again(caller).headers for caller in callers)
    assert len(upstream.received) == 4
    # Two keys of one account are one caller.
    other = Caller(shared, first.account, shared.done("POST", f"/accounts/{first.account}/keys", {})["key"])
    assert _again(other).headers["x-idempotent-replayed"] == "true"


def test_a_key_is_free_again_after_a_day(upstream: Upstream, shared: Server) -> None:
    """Not a second before: 24 hours after the answer, in the account's own time."""
    upstream.says(answer())
    clock = shared.done("POST", "/clocks", {"now": "2027-03-28T10:00:00Z"})["id"]
    account = shared.done("POST", "/accounts", {"name": "A", "clock": clock})["id"]
    shared.done("POST", f"/accounts/{account}/grants", {"bucket": "paid", "credits": "9"})
    caller = Caller(shared, account, shared.done("POST", f"/accounts/{account}/keys", {})["key"])
    assert _again(caller).status_code == 200
    shared.done("POST", f"/clocks/{clock}/advance", {"to": "2027-03-29T09:59:59Z"})
    assert _again(caller).headers["x-idempotent-replayed"] == "true"
    shared.done("POST", f"/clocks/{clock}/advance", {"to": "2027-03-29T10:00:00Z"})
    assert "x-idempotent-replayed" not in _again(caller).headers
    assert _again(caller).headers["x-idempotent-replayed"] == "true"
    assert len(upstream.received) == 2


@pytest.mark.parametrize("key", ["", "k" * 256, "two words", "a\tb"])
def test_a_key_that_is_none_is_refused(caller: Caller, key: str) -> None:
    """With 400 and the header's name."""
    answered = _again(caller, key=key)
    assert (answered.status_code, answered.json()["error"]["param"]) == (400, "Idempotency-Key")


@pytest.fixture
def own(server: Callable[..., Server], upstream: Upstream) -> Server:
    return server().start()


def test_a_kept_answer_survives_a_crash(upstream: Upstream, own: Server) -> None:
    """It is as durable as its charge; a call that died frees its key, and made again it is charged once."""
    upstream.says(answer())
    caller = own.caller()
    first = _again(caller, key="answered")
    gate = Gate()
    upstream.says(streamed(words("one"), gate, finish(), usage_chunk(), DONE))
    with caller.server.http.stream(
        "POST", caller.url, content=STREAM_BODY, headers={**caller.headers, "Idempotency-Key": "died"}
    ):
        gate.reached()
        own.stop(SIGKILL)
    own.start()
    assert _again(caller, key="answered").content == first.content
    upstream.forget()
    upstream.says(_STREAM)
    retried = _again(caller, STREAM_BODY, "died")
    assert "x-idempotent-replayed" not in retried.headers
    assert len(upstream.received) == 1
    assert caller.available == "999.918"
    own.audit()


def test_answers_need_not_be_kept(upstream: Upstream, own: Server, config_text: str) -> None:
    """Switched off, the key still guards against a second charge, and nothing of the answer is in the file."""
    (own.folder / "config.yaml").write_text(config_text + "keep_answers: false\n")
    own.done("POST", "/prices/reload")
    upstream.says(answer("a most secret answer"))
    caller = own.caller()
    assert _again(caller).status_code == 200
    _conflict(_again(caller))
    assert caller.available == "999.959"
    assert until(lambda: own.stop() == 0)
    for file in own.folder.glob("farebox.db*"):
        assert b"most secret" not in file.read_bytes()


async def test_who_does_not_read_a_replay_is_still_calling(upstream: Upstream, own: Server, config_text: str) -> None:
    """It waits in pieces for its reader, and counts as a running call until it is read or given up."""
    (own.folder / "config.yaml").write_text(config_text + "limits: {per_key: {concurrent: 4}}\n")
    own.done("POST", "/prices/reload")
    upstream.says(answer("x" * 3_900_000))
    caller = own.caller()
    assert len(_again(caller).content) > 3_900_000
    async with contextlib.AsyncExitStack() as stack:
        for stalled in [
            await stack.enter_async_context(Leaver(caller, BODY, key="k-1", narrow=True)) for _ in range(4)
        ]:
            await stalled.until(b"x-idempotent-replayed")
        refused = await asyncio.to_thread(_again, caller)
        assert (refused.status_code, refused.json()["error"]["code"]) == (429, "rate_limit_exceeded")
    assert until(lambda: _again(caller).status_code == 200, 5)
