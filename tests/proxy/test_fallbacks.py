"""Who is asked when a provider fails, and that whoever answers is paid at their price, once.

`first-1` is asked first of every model here; an answer is 20 and 7 tokens. At its model's own price that is 0.041, at
the price that `own` gives its second 0.075, and at that of `other` 0.41.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping
from typing import Any

import httpx
import pytest

from tests.proxy.chats import DONE, EXACT, answer, body_of, chunk, documents, finish, usage_chunk, words
from tests.proxy.leavers import Leaver
from tests.proxy.running import Caller, Server, until
from tests.proxy.upstream import CUT, Gate, Pause, Received, Script, Upstream, head, response, streamed

_CONFIG = """
upstreams:
  main:  {{kind: openai, base_url: "{url}", api_key: operators-secret, output_limit: max_completion_tokens}}
  elder: {{kind: openai, base_url: "{url}"}}
  hasty: {{kind: openai, base_url: "{url}", timeouts: {{first_byte: 300ms, between_bytes: 300ms, total: 1s}}}}
  gone:  {{kind: openai, base_url: "http://127.0.0.1:{closed}/v1"}}
  off:   {{kind: openai, base_url: "{url}", api_key: ""}}
models:
  own:
    upstream: [main/first-1, {{upstream: elder/second-1, price: {{input_tokens: 2 / 1k, output_tokens: 5 / 1k}}}}]
    max_output_tokens: 1000
    price: &price {{input_tokens: 1 / 1k, output_tokens: 3 / 1k}}
  lends:  {{upstream: [main/first-1, main/other-1], max_output_tokens: 1000, price: *price}}
  same:  {{upstream: [main/first-1, main/third-1], max_output_tokens: 1000, price: *price}}
  many:  {{upstream: [main/first-1, main/other-1, gone/x, main/third-1], max_output_tokens: 1000, price: *price}}
  hasty: {{upstream: [hasty/first-1, main/third-1], max_output_tokens: 1000, price: *price}}
  gone:  {{upstream: [gone/first-1, main/third-1], max_output_tokens: 1000, price: *price}}
  skips: {{upstream: [off/first-1, main/other-1], max_output_tokens: 1000, price: *price}}
  off:   {{upstream: [off/first-1, off/third-1], max_output_tokens: 1000, price: *price}}
  looks:
    upstream: [main/first-1, {{upstream: main/second-1, price: {{request: 1, web_search: 2}}}}]
    max_output_tokens: 1000
    price: *price
  other: {{upstream: main/other-1, max_output_tokens: 1000, price: {{input_tokens: 10 / 1k, output_tokens: 30 / 1k}}}}
operations:
  run:   {{per: run, min: 0.02, max: 100}}
  least: {{min: 0.5}}
"""
_STREAMS = pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
_WHOLE = answer()
_STREAMED = streamed(words("one", " two", " three"), finish(), usage_chunk(), DONE)


@pytest.fixture(scope="module")
def config_text(running_upstream: Upstream, closed_port: int) -> str:
    return _CONFIG.format(url=running_upstream.url, closed=closed_port)


def _scripted(upstream: Upstream, scripts: Mapping[str, Script]) -> None:
    """Answer each of the provider's models with its script, and those that have none as usual."""

    def choose(received: Received) -> Script:
        usual: Script = _STREAMED if received.document.get("stream") else [_WHOLE]
        return scripts.get(received.document["model"], usual)

    upstream.chooses(choose)


def _asked(upstream: Upstream) -> list[str]:
    return [received.document["model"] for received in upstream.received]


def _attempts(caller: Caller, answered: httpx.Response) -> list[tuple[str, str, int | None]]:
    theirs = caller.server.done("GET", f"/receipts/{answered.headers['x-request-id']}")
    return [(attempt["upstream"], attempt["model"], attempt["status"]) for attempt in theirs["attempts"]]


def _error(status: int) -> Script:
    return [response(b'{"error": {"message": "No", "type": "x", "param": null, "code": null}}', status)]


_FAILURES: dict[str, Script] = {
    **{str(status): _error(status) for status in (401, 402, 403, 404, 405, 429, 500, 503, 529)},
    "no head": [CUT],
    "half a head": [b"HTTP/1.1 200 OK\r\ncontent-", CUT],
    "a page": [response(b"<html>hello</html>", kind="text/html")],
    "an error as an answer": _error(200),
}
_PLAIN: dict[str, Script] = {
    "half an answer": [answer()[:-40], CUT],
    "nothing": [response(b"")],
    "no choices": [response(b'{"id":"x"}')],
}
_EVENTS: dict[str, Script] = {
    "cut before the first event": [head(), CUT],
    "closed before the first event": streamed(),
    "only the end": streamed(DONE),
    "an error event first": streamed(b'data: {"error": {"message": "x"}}\n\n', DONE),
    "usage, then an error": streamed(usage_chunk(), b'data: {"error": {"message": "x"}}\n\n'),
    "half an event": streamed(words("one")[:30], CUT, ends=False),
}


@pytest.mark.parametrize(
    ("script", "stream"),
    [
        *(pytest.param(script, False, id=f"{name}-plain") for name, script in (_FAILURES | _PLAIN).items()),
        *(pytest.param(script, True, id=f"{name}-stream") for name, script in (_FAILURES | _EVENTS).items()),
    ],
)
def test_the_next_is_asked_after_a_failure_that_nobody_saw(
    upstream: Upstream, caller: Caller, script: Script, stream: bool
) -> None:
    """The caller gets the second's answer whole, as if the first had not been, and pays for that alone."""
    _scripted(upstream, {"first-1": script})
    answered = caller.chat("own", stream=stream)
    assert answered.status_code == 200, answered.text
    assert b"error" not in answered.content and answered.content.count(b"one") == 1
    receipt = caller.receipt(answered)
    assert (receipt["total"], receipt["upstream_model"], receipt["model"]) == ("0.075", "second-1", "own")
    assert (receipt["status"], receipt["ended"], receipt["estimated"]) == ("settled", "answered", False)
    assert caller.available == "999.925"
    assert _asked(upstream) == ["first-1", "second-1"]
    (first, _, status), second = _attempts(caller, answered)
    assert (first, second) == ("main", ("elder", "second-1", 200))
    assert status is None or status == 200 or str(status) in _FAILURES


@_STREAMS
@pytest.mark.parametrize("model", ["hasty", "gone"])
def test_the_next_is_asked_where_nobody_answers_in_time(
    upstream: Upstream, caller: Caller, model: str, stream: bool
) -> None:
    """Or at all; each has the whole of its own time."""
    _scripted(upstream, {"first-1": [Gate()]})
    answered = caller.chat(model, stream=stream)
    assert answered.status_code == 200, answered.text
    receipt = caller.receipt(answered)
    assert (receipt["total"], receipt["upstream_model"], receipt["ended"]) == (EXACT, "third-1", "answered")
    assert [status for _, _, status in _attempts(caller, answered)] == [None, 200]


def test_a_stream_that_hangs_before_its_first_event_falls_back(upstream: Upstream, caller: Caller) -> None:
    """Its head was there, and nothing of it had gone out; the connection is cut."""
    _scripted(upstream, {"first-1": [head(), Gate()]})
    answered = caller.chat("hasty", stream=True)
    assert caller.receipt(answered)["total"] == EXACT
    assert upstream.received[0].was_cut()
    assert documents(answered.content)[-1] == "[DONE]"


@_STREAMS
@pytest.mark.parametrize(
    ("model", "failing", "who", "total"),
    [
        ("own", (), "first-1", "0.041"),
        ("own", ("first-1",), "second-1", "0.075"),
        ("lends", ("first-1",), "other-1", "0.41"),
        ("same", ("first-1",), "third-1", "0.041"),
        ("many", ("first-1", "other-1"), "third-1", "0.041"),
        ("skips", (), "other-1", "0.41"),
    ],
)
def test_an_answer_is_sold_at_the_price_of_who_gave_it(
    upstream: Upstream, caller: Caller, model: str, failing: tuple[str, ...], who: str, total: str, stream: bool
) -> None:
    """Its own in the list, else that of the model that is sold from there, else its model's; with its own count too."""
    _scripted(upstream, dict.fromkeys(failing, _error(500)))
    receipt = caller.receipt(caller.chat(model, stream=stream))
    assert (receipt["upstream_model"], receipt["total"], receipt["model"]) == (who, total, model)
    # 9 and 3 tokens by Farebox's own count.
    told = streamed(words("one two three"), finish(), DONE) if stream else [answer(usage=...)]
    _scripted(upstream, {**dict.fromkeys(failing, _error(500)), who: told})
    estimated = caller.receipt(caller.chat(model, stream=stream))
    own = {"0.041": "0.018", "0.075": "0.033", "0.41": "0.18"}[total]
    assert (estimated["total"], estimated["estimated"], estimated["upstream_model"]) == (own, True, who)


def test_the_limit_goes_by_the_name_that_the_next_has_for_it(upstream: Upstream, caller: Caller) -> None:
    """And the rest of the request is the caller's for both."""
    _scripted(upstream, {"first-1": _error(500)})
    caller.chat("own", temperature=0.3)
    first, second = (received.document for received in upstream.received)
    assert (first.pop("model"), second.pop("model")) == ("first-1", "second-1")
    assert (first.pop("max_completion_tokens"), second.pop("max_tokens")) == (1000, 1000)
    assert first == second
    assert [received.headers.get("authorization") for received in upstream.received] == [
        "Bearer operators-secret",
        None,
    ]


@pytest.mark.parametrize("run", [{}, {"X_Farebox_Run": "r", "X_Farebox_Operation": "run"}], ids=["call", "run"])
def test_the_hold_is_of_the_dearest_who_may_answer(upstream: Upstream, caller: Caller, run: dict[str, str]) -> None:
    """As much as if it alone had been asked for, under a name as long; in a run and in a quote too."""
    _scripted(upstream, {})
    names = ("lends", "skips", "other")
    bodies = [body_of(model=model, stream=True, max_tokens=50) for model in names]
    held = {caller.post(body, **run).headers["x-credits-held"] for body in bodies}
    assert len(held) == 1 and _asked(upstream) == ["first-1", "other-1", "other-1"]
    headers = {"content-type": "application/json", **caller.headers}
    for body in bodies if not run else ():
        content = b'{"endpoint":"/v1/chat/completions","body":' + body + b"}"
        quoted = caller.server.http.post(caller.server.base + "/v1/credits/quote", content=content, headers=headers)
        assert quoted.json()["most"] in held


def test_a_call_is_shortened_to_what_fits_the_dearest(upstream: Upstream, shared: Server) -> None:
    """5 credits pay for 166 tokens of output at 30 / 1k, less the input; without credit for any, it is refused."""
    _scripted(upstream, {"first-1": _error(500)})
    caller = shared.caller("5")
    receipt = caller.receipt(caller.chat("lends"))
    # 9 tokens of input at 10 / 1k are 0.09.
    assert receipt["shortened_to"] == 163
    assert [received.document["max_completion_tokens"] for received in upstream.received] == [163, 163]
    assert receipt["total"] == "0.41"
    refused = shared.caller("0.3").chat("lends", max_tokens=50)
    assert (refused.status_code, refused.json()["error"]["code"]) == (402, "insufficient_credits")
    assert refused.json()["error"]["needed"] == "1.59"


def test_calls_of_a_run_are_priced_by_who_answered(upstream: Upstream, caller: Caller) -> None:
    """The bounds are the operation's whoever it is: 0.02 at least for both, then 0.41 and 0.041 more."""
    _scripted(upstream, {"first-1": _error(500)})
    body, headers = body_of(model="lends", max_tokens=10), {"X_Farebox_Run": "r", "X_Farebox_Operation": "run"}
    first = caller.post(body, **headers)
    _scripted(upstream, {})
    second = caller.post(body, **headers)
    assert [caller.receipt(each)["total"] for each in (first, second)] == ["0.41", "0.041"]
    least = caller.post(body, X_Farebox_Operation="least")
    assert caller.receipt(least)["total"] == "0.5"


def test_who_has_no_price_for_a_search_is_not_asked(upstream: Upstream, caller: Caller) -> None:
    """Who has one answers at once; where nobody has, it is refused before any hold."""
    _scripted(upstream, {})
    assert caller.receipt(caller.chat("looks", web_search_options={}))["total"] == "3"
    assert caller.receipt(caller.chat("looks"))["total"] == EXACT
    assert _asked(upstream) == ["second-1", "first-1"]
    refused = caller.chat("same", web_search_options={})
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "web_search_options")
    assert len(upstream.received) == 2


@_STREAMS
@pytest.mark.parametrize("status", [400, 413, 422])
def test_the_callers_own_mistake_is_told_at_once(upstream: Upstream, caller: Caller, status: int, stream: bool) -> None:
    """Somebody else would only say it again."""
    _scripted(upstream, {"first-1": _error(status)})
    assert caller.chat("many", stream=stream).status_code == status
    assert _asked(upstream) == ["first-1"]
    assert (caller.available, caller.balance()["held"]) == ("1000", "0")


@pytest.mark.parametrize(
    "told", [streamed(words("one"), CUT, ends=False), streamed(chunk({"role": "assistant"}), CUT, ends=False)]
)
def test_after_the_first_event_nobody_else_is_asked(upstream: Upstream, caller: Caller, told: Script) -> None:
    """What went out can't be taken back; where it was no text, nothing is charged."""
    _scripted(upstream, {"first-1": told})
    answered = caller.chat("many", stream=True)
    assert answered.status_code == 200
    assert documents(answered.content)[-1]["error"]["code"] == "upstream_error"
    assert _asked(upstream) == ["first-1"]
    receipt = caller.receipt(answered)
    assert receipt["total"] == ("0.012" if b"one" in answered.content else "0")


def test_an_error_beside_the_first_words_does_not_fall_back(upstream: Upstream, caller: Caller) -> None:
    """They were put out, and are charged as ever, although they came with the error."""
    event = chunk({"content": "one"}, error={"message": "broken"})
    _scripted(upstream, {"first-1": streamed(event)})
    receipt = caller.receipt(caller.chat("same", stream=True))
    assert (receipt["total"], receipt["ended"]) == ("0.012", "upstream_broke")
    assert _asked(upstream) == ["first-1"]


@_STREAMS
def test_where_all_fail_the_last_failure_is_told(upstream: Upstream, caller: Caller, stream: bool) -> None:
    """Nothing is charged; who is unreachable on the way is passed over like the others."""
    _scripted(upstream, {"first-1": _error(500), "other-1": _error(404), "third-1": _error(429)})
    answered = caller.chat("many", stream=stream)
    assert (answered.status_code, answered.json()["error"]["code"]) == (429, "rate_limit_exceeded")
    receipt = caller.receipt(answered)
    assert (receipt["status"], receipt["ended"], receipt["total"]) == ("voided", "upstream_error", "0")
    assert _attempts(caller, answered) == [
        ("main", "first-1", 500),
        ("main", "other-1", 404),
        ("gone", "x", None),
        ("main", "third-1", 429),
    ]
    assert (caller.available, caller.balance()["held"]) == ("1000", "0")


def test_a_model_is_off_where_all_its_upstreams_are(upstream: Upstream, caller: Caller) -> None:
    """It is not listed and refused before any hold; one that anybody answers is offered."""
    answered = caller.chat("off")
    assert (answered.status_code, answered.json()["error"]["code"]) == (503, "upstream_unavailable")
    listed = {model["id"] for model in caller.get("/v1/models").json()["data"]}
    assert "off" not in listed and "skips" in listed
    assert upstream.received == []


@_STREAMS
async def test_leaving_the_second_costs_the_input_at_its_price(
    upstream: Upstream, caller: Caller, stream: bool
) -> None:
    """9 tokens at 2 / 1k: the second had the prompt. What the first had of it is nobody's debt."""
    gate = Gate()
    _scripted(upstream, {"first-1": _error(500), "second-1": [gate]})
    async with Leaver(caller, body_of(model="own", stream=stream)):
        await gate.reached_by(1)
    assert await asyncio.to_thread(caller.nothing_held, 5)
    assert upstream.last.was_cut()
    (row,) = (await asyncio.to_thread(caller.get, "/v1/credits/usage")).json()["data"]
    receipt = caller.receipt(row["id"])
    assert (receipt["total"], receipt["ended"], receipt["upstream_model"]) == ("0.018", "client_left", "second-1")


async def test_leaving_midway_through_the_second_costs_what_was_received(upstream: Upstream, caller: Caller) -> None:
    """9 and 2 tokens at 2 and 5 / 1k."""
    gate = Gate()
    _scripted(upstream, {"first-1": _error(500), "second-1": streamed(words("one", " two"), gate)})
    async with Leaver(caller, body_of(model="own", stream=True)) as leaver:
        await leaver.until(b"two")
    assert await asyncio.to_thread(caller.nothing_held, 5)
    receipt = caller.receipt(leaver.request_id)
    assert (receipt["total"], receipt["ended"], receipt["upstream_model"]) == ("0.028", "client_left", "second-1")


@_STREAMS
async def test_after_leaving_nobody_else_is_asked(upstream: Upstream, caller: Caller, stream: bool) -> None:
    """A keyed call is not cancelled when its client leaves; once it fails it is over, and its key is free."""
    gate = Gate()
    # The server has to hear of its leaving before the provider fails.
    _scripted(upstream, {"first-1": [gate, Pause(0.3), *_error(500)]})
    async with Leaver(caller, body_of(model="own", stream=stream), key="k"):
        await gate.reached_by(1)
    gate.open()
    assert await asyncio.to_thread(caller.nothing_held, 5)
    assert _asked(upstream) == ["first-1"]
    assert caller.available == "1000"
    _scripted(upstream, {"first-1": _error(500)})
    again = await asyncio.to_thread(lambda: caller.post(body_of(model="own", stream=stream), Idempotency_Key="k"))
    assert caller.receipt(again)["total"] == "0.075"


@_STREAMS
def test_a_keyed_call_falls_back_once(upstream: Upstream, caller: Caller, stream: bool) -> None:
    """Asked again, it gives the second's answer again, and asks nobody."""
    _scripted(upstream, {"first-1": _error(500)})
    body = body_of(model="own", stream=stream)
    first, again = (caller.post(body, Idempotency_Key="k") for _ in range(2))
    assert first.content == again.content and again.headers["x-idempotent-replayed"] == "true"
    assert _asked(upstream) == ["first-1", "second-1"]
    assert caller.available == "999.925"


def test_a_stopping_server_asks_nobody_else(upstream: Upstream, server: Callable[..., Server]) -> None:
    """What fails meanwhile has failed; nothing is charged."""
    running = server().start()
    caller = running.caller()
    gate = Gate()
    _scripted(upstream, {"first-1": [gate, *_error(500)]})
    answers: list[httpx.Response] = []
    with httpx.Client(timeout=20) as client:
        sent: dict[str, Any] = {"content": body_of(model="own"), "headers": caller.headers}
        calling = threading.Thread(target=lambda: answers.append(client.post(caller.url, **sent)))
        calling.start()
        gate.reached()
        running.signal()
        assert until(lambda: running.http.get(running.base + "/readyz").status_code == 503, 5)
        gate.open()
        calling.join()
    assert (answers[0].status_code, answers[0].json()["error"]["code"]) == (502, "upstream_error")
    assert running.wait() == 0
    assert _asked(upstream) == ["first-1"]
    running.audit()
