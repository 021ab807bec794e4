"""What a caller sees and pays when the provider fails."""

from __future__ import annotations

import json
from typing import Any

import httpx
import openai
import pytest

from tests.proxy.chats import DONE, EXACT, MESSAGES, answer, documents, finish, usage_chunk, words
from tests.proxy.running import Caller
from tests.proxy.upstream import CUT, END, Gate, Pause, Script, Step, Upstream, head, piece, response, streamed

_STREAMS = pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])


def _error(**members: Any) -> bytes:
    return json.dumps(
        {"error": {"message": "No", "type": "invalid_request_error", "param": None, "code": None, **members}}
    ).encode()


def _check_nothing_charged(caller: Caller, answered: httpx.Response) -> None:
    balance = caller.balance()
    assert (balance["available"], balance["held"], balance["debt"]) == ("1000", "0", "0")
    receipt = caller.receipt(answered)
    assert (receipt["status"], receipt["ended"]) == ("voided", "upstream_error")
    assert (receipt["total"], receipt["lines"], receipt["paid_from"]) == ("0", [], [])
    assert answered.json()["error"]["request_id"] == answered.headers["x-request-id"]
    assert "x-credits-charged" not in answered.headers


_ANSWERS: dict[str, tuple[list[Step], int, str | None]] = {
    "401": ([response(_error(message="Incorrect API key sk-abcdef123456"), 401)], 503, "upstream_unavailable"),
    "402": ([response(_error(message="Pay your bill"), 402)], 503, "upstream_unavailable"),
    "403": ([response(_error(message="No access for org-abcdef123456"), 403)], 503, "upstream_unavailable"),
    "404": ([response(_error(message="No such model words-1"), 404)], 502, "upstream_error"),
    "405": ([response(_error(), 405)], 502, "upstream_error"),
    "429 quota": (
        [
            response(
                _error(message="You exceeded your quota", type="insufficient_quota", code="insufficient_quota"), 429
            )
        ],
        503,
        "upstream_unavailable",
    ),
    "429 plain": ([response(_error(code="rate_limit_exceeded"), 429)], 429, "rate_limit_exceeded"),
    "429 without a body": ([response(b"", 429)], 429, "rate_limit_exceeded"),
    "500": ([response(_error(message="secret trace"), 500)], 502, "upstream_error"),
    "503": ([response(b"<html>down</html>", 503, kind="text/html")], 502, "upstream_error"),
    "529": ([response(b"", 529)], 502, "upstream_error"),
    "a redirect": ([response(b"", 302, {"location": "http://127.0.0.1:9/"})], 502, "upstream_error"),
    "a page": ([response(b"<html>hello</html>", kind="text/html")], 502, "upstream_error"),
    "nothing": ([response(b"")], 502, "upstream_error"),
    "not an object": ([response(b"[1]")], 502, "upstream_error"),
    "no choices": ([response(b'{"id":"x"}')], 502, "upstream_error"),
    "an error as an answer": ([response(_error(message="secret"))], 502, "upstream_error"),
    "half an answer": ([answer()[:-40], CUT], 502, "upstream_error"),
    "half a head": ([b"HTTP/1.1 200 OK\r\ncontent-", CUT], 502, "upstream_error"),
    "no head": ([CUT], 502, "upstream_error"),
    "no HTTP": ([b"220 smtp ready\r\n\r\n", CUT], 502, "upstream_error"),
    "half a chunk": ([head("application/json"), b"ff\r\n{", CUT], 502, "upstream_error"),
}


@_STREAMS
@pytest.mark.parametrize("case", _ANSWERS)
def test_a_failure_before_any_output_costs_nothing(upstream: Upstream, caller: Caller, case: str, stream: bool) -> None:
    """It has one status and code whatever the provider said, and a generic text."""
    script, status, code = _ANSWERS[case]
    upstream.says(script)
    answered = caller.chat(stream=stream)
    error = answered.json()["error"]
    assert (answered.status_code, error["code"]) == (status, code)
    for secret in ("sk-", "org-", "secret", "quota", "bill", "key", "words-1"):
        assert secret not in error["message"].lower()
    _check_nothing_charged(caller, answered)


@_STREAMS
@pytest.mark.parametrize("status", [400, 413, 422])
def test_the_callers_own_mistakes_pass_without_the_operators_ids(
    upstream: Upstream, caller: Caller, status: int, stream: bool
) -> None:
    """The provider's error object passes with its status; account and organisation ids are removed."""
    message = "Too long for org-AbCdEf123456 in proj_abc123DEF456: 9 tokens"
    body = _error(message=message, param="messages", code="context_length_exceeded", inner={"by": ["org-AbCdEf123456"]})
    upstream.says(response(body, status, {"openai-organization": "org-AbCdEf123456"}))
    answered = caller.chat(stream=stream)
    assert answered.status_code == status
    error = answered.json()["error"]
    assert (error["type"], error["param"]) == ("invalid_request_error", "messages")
    assert error["code"] == "context_length_exceeded"
    assert error["message"].startswith("Too long for ") and error["message"].endswith(": 9 tokens")
    assert b"AbCdEf" not in answered.content and b"abc123DEF" not in answered.content
    assert "AbCdEf" not in str(answered.headers)
    _check_nothing_charged(caller, answered)


@pytest.mark.parametrize(
    "body", [b"", b"null", b"[]", b"<html>", b'{"error":"plain"}', b'{"error":{"code":7}}', b'{"a":1}']
)
def test_a_mistake_without_an_error_object_is_still_an_error(upstream: Upstream, caller: Caller, body: bytes) -> None:
    """Whatever the provider's 400 holds, the caller gets OpenAI's envelope."""
    upstream.says(response(body, 400))
    answered = caller.chat()
    assert answered.status_code == 400
    assert {"message", "type", "param", "code", "request_id"} <= answered.json()["error"].keys()
    _check_nothing_charged(caller, answered)


@_STREAMS
def test_the_providers_limit_comes_with_its_delay(upstream: Upstream, caller: Caller, stream: bool) -> None:
    """A plain 429 passes as one, with its Retry-After."""
    upstream.says(response(_error(message="org-abcdef123456 is limited"), 429, {"retry-after": "17"}))
    answered = caller.chat(stream=stream)
    assert (answered.status_code, answered.headers["retry-after"]) == (429, "17")
    assert "org-" not in answered.text
    _check_nothing_charged(caller, answered)


@_STREAMS
def test_a_refused_connection_is_unavailable(upstream: Upstream, caller: Caller, stream: bool) -> None:
    """Nobody listens at the provider's address."""
    answered = caller.chat("gone", stream=stream)
    assert (answered.status_code, answered.json()["error"]["code"]) == (503, "upstream_unavailable")
    _check_nothing_charged(caller, answered)


def test_a_model_that_is_switched_off_is_unavailable(upstream: Upstream, caller: Caller) -> None:
    """A model whose provider has no key is refused before any hold."""
    answered = caller.chat("off")
    assert (answered.status_code, answered.json()["error"]["code"]) == (503, "upstream_unavailable")
    assert caller.available == "1000"
    assert upstream.received == []


_SLOW: dict[str, Script] = {
    "before the head": [Gate()],
    "in the head": [b"HTTP/1.1 200 OK\r\n", Gate()],
    "after the head": [head(), Gate()],
    "in the body": [head("application/json"), piece(b"{"), Gate()],
    "in the first event": streamed(b"data: {", Gate()),
    "in an error": [head().replace(b"200", b"500"), piece(b"{"), Gate()],
}


@_STREAMS
@pytest.mark.parametrize("case", _SLOW)
def test_a_provider_that_hangs_before_any_output_times_out(
    upstream: Upstream, caller: Caller, case: str, stream: bool
) -> None:
    """It costs nothing, and the provider's connection is cut."""
    upstream.says(_SLOW[case])
    answered = caller.chat("hasty", stream=stream)
    code = answered.json()["error"]["code"]
    # Where only a stream may come, another content type is an error at once.
    expected = (502, "upstream_error") if stream and case == "in the body" else (504, "upstream_timeout")
    assert (answered.status_code, code) == expected
    _check_nothing_charged(caller, answered)
    assert upstream.last.was_cut()


def _slowly(body: bytes) -> Script:
    """A whole answer in four pieces, 0.15 s apart."""
    parts = [body[:20], body[20:40], body[40:60], body[60:]]
    return [head("application/json"), *(step for part in parts for step in (Pause(0.15), piece(part))), END]


def test_a_slow_answer_may_take_longer_than_its_first_byte(upstream: Upstream, caller: Caller) -> None:
    """`first_byte` limits the wait for the first byte only; 0.6 s of steady bytes are no timeout at 0.3 s."""
    upstream.says(_slowly(answer().partition(b"\r\n\r\n")[2]))
    answered = caller.chat("tardy")
    assert answered.status_code == 200, answered.text
    assert answered.headers["x-credits-charged"] == EXACT


def test_a_slow_stream_may_take_longer_than_its_first_byte(upstream: Upstream, caller: Caller) -> None:
    """Each event puts the deadline off."""
    steps: list[Step] = [step for word in ("one", " two", " three") for step in (Pause(0.15), words(word))]
    upstream.says(streamed(*steps, Pause(0.15), finish(), usage_chunk(), DONE))
    assert caller.receipt(caller.chat("tardy", stream=True))["total"] == EXACT


_LIMIT = b'data: {"error": {"message": "limit of org-abcdef123456", "code": "rate_limit_exceeded"}}\n\n'
_BROKEN: dict[str, Script] = {
    "cut": streamed(words("one", " two"), CUT, ends=False),
    "cut within an event": streamed(words("one", " two"), words(" three")[:30], CUT, ends=False),
    "closed": streamed(words("one", " two")),
    "closed within an event": streamed(words("one", " two"), words(" three")[:30]),
    "closed after one choice of two": streamed(words("one"), words(" two", index=1), finish()),
    "closed before the second choice": streamed(words("one", " two"), finish()),
    "an error event": streamed(words("one", " two"), _LIMIT, DONE),
    # As routers write it: the error beside a last, empty delta.
    "an error event with a choice": streamed(
        words("one", " two"),
        b'data: {"error":{"code":502,"message":"org-abcdef123456"},"choices":[{"index":0,"delta":{"content":""},'
        b'"finish_reason":"error"}]}\n\n',
        DONE,
    ),
    "an error event with null choices": streamed(words("one", " two"), b'data: {"error": "x", "choices": []}\n\n'),
    "hangs": streamed(words("one", " two"), Gate()),
    "hangs after the finish": streamed(words("one", " two"), finish(), Gate()),
}


@pytest.mark.parametrize("case", _BROKEN)
def test_a_stream_that_breaks_off_is_charged_for_what_was_received(
    upstream: Upstream, caller: Caller, case: str
) -> None:
    """9 input tokens and 2 of output by own count; an error event ends it, without `[DONE]`."""
    upstream.says(_BROKEN[case])
    answered = caller.chat("hasty", stream=True, n=2 if "two" in case or "second" in case else 1)
    assert answered.status_code == 200
    *_, last = documents(answered.content)
    assert b"[DONE]" not in answered.content
    assert last["error"]["code"] == "upstream_error"
    assert last["error"]["request_id"] == answered.headers["x-request-id"]
    assert "org-" not in last["error"]["message"]
    assert b"org-" not in answered.content
    receipt = caller.receipt(answered)
    assert (receipt["status"], receipt["ended"], receipt["estimated"]) == ("settled", "upstream_broke", True)
    # 9 x 0.001 + 2 x 0.003
    assert receipt["total"] == "0.015"
    assert (caller.available, caller.balance()["held"]) == ("999.985", "0")


def test_a_broken_stream_costs_its_flat_price_once_it_put_something_out(upstream: Upstream, caller: Caller) -> None:
    """`request` is charged for the words that came: 1 + 0.009 + 0.003."""
    upstream.says(streamed(words("one"), CUT, ends=False))
    assert caller.receipt(caller.chat("both", stream=True))["total"] == "1.012"


def test_usage_does_not_make_a_broken_stream_exact(upstream: Upstream, caller: Caller) -> None:
    """Figures of a stream that broke off are not its last; what was received is counted."""
    upstream.says(streamed(words("one"), usage_chunk({"prompt_tokens": 20, "completion_tokens": 999}), CUT, ends=False))
    receipt = caller.receipt(caller.chat(stream=True))
    assert (receipt["total"], receipt["estimated"]) == ("0.012", True)


_UNBEGUN: dict[str, Script] = {
    "cut before the first event": [head(), CUT],
    "closed before the first event": streamed(),
    "only the end": streamed(DONE),
    "an error event first": streamed(_LIMIT),
    "an error event first, then the end": streamed(_LIMIT, DONE),
    "no events": streamed(b"hello"),
}


@pytest.mark.parametrize("case", _UNBEGUN)
def test_a_stream_that_never_began_costs_nothing(upstream: Upstream, caller: Caller, case: str) -> None:
    """Its status has not gone out yet, so it is an error like any other."""
    upstream.says(_UNBEGUN[case])
    answered = caller.chat(stream=True)
    assert (answered.status_code, answered.json()["error"]["code"]) == (502, "upstream_error")
    assert "org-" not in answered.text
    _check_nothing_charged(caller, answered)


def test_a_stream_that_never_ends_is_ended(upstream: Upstream, caller: Caller) -> None:
    """`total` is the longest that a call takes, however steadily its events come."""
    upstream.says(streamed(*[step for _ in range(40) for step in (words("one"), Pause(0.1))]))
    answered = caller.chat("hasty", stream=True)
    received = answered.content.count(b'"content": "one"')
    assert 5 <= received <= 12
    assert documents(answered.content)[-1]["error"]["code"] == "upstream_error"
    assert upstream.last.was_cut()
    assert caller.receipt(answered)["ended"] == "upstream_broke"


def test_the_client_raises_where_a_stream_breaks_off(upstream: Upstream, caller: Caller) -> None:
    """OpenAI's client gives what came and then an APIError, never a silent end."""
    upstream.says(streamed(words("one", " two"), CUT, ends=False))
    text = ""
    with pytest.raises(openai.APIError) as raised:
        for part in caller.openai.chat.completions.create(model="words", messages=MESSAGES, stream=True):
            text += part.choices[0].delta.content or ""
    assert text == "one two"
    assert "charged" in raised.value.message


def test_an_upstream_connection_that_was_closed_meanwhile_is_replaced(upstream: Upstream, caller: Caller) -> None:
    """A kept-alive connection that the provider closed after its answer does not fail the next call."""
    for _ in range(5):
        upstream.says(answer(), CUT)
        assert caller.chat().status_code == 200
    # 1000 - 5 x 0.041
    assert caller.available == "999.795"
