"""Calls that are refused before anything reaches a provider, and why their senders are told."""

from __future__ import annotations

import json
from typing import Any

import httpx
import openai
import pytest

from tests.proxy.chats import BODY, DONE, MESSAGES, answer, body_of, finish, usage_chunk, words
from tests.proxy.running import Caller, Server
from tests.proxy.upstream import Gate, Upstream, streamed


def _error(answered: httpx.Response, status: int) -> dict[str, Any]:
    """The error object, after what holds for every refusal."""
    assert answered.status_code == status, answered.text
    error: dict[str, Any] = answered.json()["error"]
    assert {"message", "type", "param", "code", "request_id"} <= error.keys()
    assert error["request_id"] == answered.headers["x-request-id"]
    assert error["request_id"].startswith("req_")
    return error


_BAD: dict[str, tuple[dict[str, Any], str | None]] = {
    "model missing": ({"model": ...}, "model"),
    "model null": ({"model": None}, "model"),
    "model a number": ({"model": 7}, "model"),
    "model empty": ({"model": ""}, "model"),
    "messages missing": ({"messages": ...}, "messages"),
    "messages empty": ({"messages": []}, "messages"),
    "messages a text": ({"messages": "hello"}, "messages"),
    "messages of texts": ({"messages": ["hello"]}, "messages"),
    "messages an object": ({"messages": {"role": "user"}}, "messages"),
    "stream a text": ({"stream": "true"}, "stream"),
    "stream a number": ({"stream": 1}, "stream"),
    "stream options a list": ({"stream": True, "stream_options": [1]}, "stream_options"),
    "n zero": ({"n": 0}, "n"),
    "n negative": ({"n": -1}, "n"),
    "n above 128": ({"n": 129}, "n"),
    "n a float": ({"n": 1.0}, "n"),
    "n a text": ({"n": "2"}, "n"),
    "n true": ({"n": True}, "n"),
    "n huge": ({"n": 10**40}, "n"),
    "limit zero": ({"max_tokens": 0}, "max_tokens"),
    "limit negative": ({"max_tokens": -5}, "max_tokens"),
    "limit a float": ({"max_tokens": 5.5}, "max_tokens"),
    "limit a text": ({"max_tokens": "5"}, "max_tokens"),
    "limit true": ({"max_tokens": True}, "max_tokens"),
    "new limit zero": ({"max_completion_tokens": 0}, "max_completion_tokens"),
    "new limit a text": ({"max_completion_tokens": "5"}, "max_completion_tokens"),
    "one limit of two": ({"max_tokens": 5, "max_completion_tokens": -1}, "max_completion_tokens"),
    "priority": ({"service_tier": "priority"}, "service_tier"),
    "scale": ({"service_tier": "scale"}, "service_tier"),
    "tier a number": ({"service_tier": 1}, "service_tier"),
    "web search": ({"web_search_options": {}}, "web_search_options"),
    "audio": ({"modalities": ["text", "audio"], "audio": {"voice": "alloy", "format": "wav"}}, "audio"),
    "audio modality": ({"modalities": ["text", "audio"]}, "modalities"),
}


@pytest.mark.parametrize("case", _BAD)
def test_a_bad_field_is_refused_by_name(upstream: Upstream, caller: Caller, case: str) -> None:
    """400 with the field in `param`; nothing is held and nothing reaches the provider."""
    members, param = _BAD[case]
    document = {"model": "words", "messages": MESSAGES, **members}
    body = json.dumps({name: value for name, value in document.items() if value is not ...}).encode()
    error = _error(caller.post(body), 400)
    assert error["param"] == param
    assert error["type"] == "invalid_request_error"
    assert upstream.received == []
    balance = caller.balance()
    assert (balance["available"], balance["held"]) == ("1000", "0")


@pytest.mark.parametrize(
    "members",
    [
        {"service_tier": "auto"},
        {"service_tier": "default"},
        {"service_tier": "flex"},
        {"service_tier": None},
        {"n": None, "max_tokens": None, "stream": None},
        {"modalities": ["text"]},
        {"audio": None},
        {"web_search_options": None},
    ],
)
def test_what_costs_no_more_passes(upstream: Upstream, caller: Caller, members: dict[str, Any]) -> None:
    """Cheap tiers, text output and null members are no reason to refuse."""
    upstream.says(answer())
    assert caller.chat(**members).status_code == 200


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"null", b'"text"', b'{"model": "words"', b"\xff\xfe", b"[" * 100_000]
)
def test_a_body_that_is_no_object_is_refused(upstream: Upstream, caller: Caller, body: bytes) -> None:
    """400 in OpenAI's envelope, whatever was sent."""
    _error(caller.post(body), 400)
    assert upstream.received == []


@pytest.mark.parametrize("key", [None, "", "fbx_unknown", "Bearer", "é" * 5, "x" * 5000])
def test_an_unknown_key_is_refused(upstream: Upstream, shared: Server, key: str | None) -> None:
    """401 `invalid_api_key` on every route of a caller."""
    headers = {} if key is None else {b"authorization": f"Bearer {key}".strip().encode()}
    for method, path in (("POST", "/v1/chat/completions"), ("GET", "/v1/credits"), ("GET", "/v1/models")):
        answered = shared.http.request(method, shared.base + path, headers=headers, content=BODY)
        assert _error(answered, 401)["code"] == "invalid_api_key"
    assert upstream.received == []


def test_a_key_may_come_as_x_api_key(upstream: Upstream, caller: Caller) -> None:
    """The Anthropic SDK's header is read too."""
    upstream.says(answer())
    headers = {"x-api-key": caller.key, "content-type": "application/json"}
    assert caller.server.http.post(caller.url, content=BODY, headers=headers).status_code == 200


def test_an_unknown_model_is_404(upstream: Upstream, caller: Caller) -> None:
    """A model that nobody priced reaches no provider."""
    error = _error(caller.chat("gpt-unpriced"), 404)
    assert (error["code"], error["param"]) == ("model_not_found", "model")
    assert upstream.received == []
    with pytest.raises(openai.NotFoundError):
        caller.openai.models.retrieve("gpt-unpriced")


def test_a_body_above_the_limit_is_413(upstream: Upstream, caller: Caller) -> None:
    """With and without a Content-Length; the limit itself still passes."""
    upstream.says(answer())
    room = 1_000_000 - len(body_of(user=""))
    assert caller.post(body_of(user="x" * room)).status_code == 200
    too_large = body_of(user="x" * (room + 1))
    _error(caller.post(too_large), 413)
    chunks = iter([too_large[:500_000], too_large[500_000:]])
    _error(caller.server.http.post(caller.url, content=chunks, headers=caller.headers), 413)
    assert len(upstream.received) == 1


@pytest.mark.parametrize(
    "path",
    ["completions", "responses", "messages", "embeddings", "images/generations", "images/edits", "audio/speech",
     "audio/transcriptions", "audio/translations", "videos", "moderations", "rerank", "web/extract"],
)  # fmt: skip
def test_an_endpoint_of_a_later_release_is_refused_by_name(upstream: Upstream, caller: Caller, path: str) -> None:
    """400 `not_supported`, never a call that nobody meters."""
    answered = caller.server.http.post(f"{caller.server.base}/v1/{path}", content=BODY, headers=caller.headers)
    error = _error(answered, 400)
    assert error["code"] == "not_supported" and path in error["message"]
    assert upstream.received == []


def test_unknown_routes_and_methods_are_refused(caller: Caller) -> None:
    """404 and 405 come in the same envelope, and no route leads past the metering."""
    assert _error(caller.get("/v1/nothing"), 404)["code"] == "not_found"
    assert _error(caller.get("/nothing"), 404)["code"] == "not_found"
    _error(caller.get("/v1/chat/completions"), 404 if caller.get("/v1/chat/completions").status_code == 404 else 405)
    slash = caller.server.http.post(caller.url + "/", content=BODY, headers=caller.headers)
    assert slash.status_code in (307, 404)


def test_insufficient_credits_say_what_is_missing(upstream: Upstream, shared: Server) -> None:
    """402 with every figure that a client can act on; SDKs are told not to retry."""
    caller = shared.caller("0.5")
    answered = caller.chat(max_tokens=1000)
    error = _error(answered, 402)
    assert error["code"] == "insufficient_credits"
    # 9 counted input tokens and 1000 x 0.003
    assert (error["needed"], error["available"], error["held"], error["debt"]) == ("3.009", "0.5", "0", "0")
    # (0.5 - 0.009) / 0.003 = 163.7
    assert error["max_tokens_affordable"] == 163
    assert (error["fits_at"], error["top_up_url"]) == (None, "https://example.com/credits")
    assert answered.headers["x-should-retry"] == "false"
    assert "retry-after" not in answered.headers
    assert upstream.received == []
    assert caller.available == "0.5"


def test_the_affordable_limit_fits_and_one_more_does_not(upstream: Upstream, shared: Server) -> None:
    """The number that the refusal names is exact, also for several choices."""
    caller = shared.caller("0.5")
    upstream.says(answer())
    assert _error(caller.chat(max_tokens=164), 402)["max_tokens_affordable"] == 163
    # 163.7 / 3 = 54.6
    assert _error(caller.chat(max_completion_tokens=55, n=3), 402)["max_tokens_affordable"] == 54
    assert upstream.received == []
    assert caller.chat(max_completion_tokens=54, n=3).status_code == 200
    assert upstream.last.document["max_completion_tokens"] == 54
    # 0.5 - 0.041 = 0.459; (0.459 - 0.009) / 0.003 = 150
    assert _error(caller.chat(max_tokens=151), 402)["max_tokens_affordable"] == 150
    assert caller.chat(max_tokens=150).status_code == 200


def test_an_account_without_credits_is_refused(upstream: Upstream, shared: Server) -> None:
    """The first call of an account that was granted nothing does not pass."""
    caller = shared.caller(None)
    error = _error(caller.chat(), 402)
    assert (error["code"], error["available"], error["max_tokens_affordable"]) == ("insufficient_credits", "0", 0)
    assert upstream.received == []


def test_credits_held_by_ones_own_call_ask_for_a_retry(upstream: Upstream, shared: Server) -> None:
    """402 `credits_held`, to be tried again in 2 seconds; when the running call has ended it fits."""
    caller = shared.caller("4")
    gate = Gate()
    upstream.says(streamed(words("one", " two"), gate, words(" three"), finish(), usage_chunk(), DONE))
    stream = caller.openai.chat.completions.create(model="words", messages=MESSAGES, stream=True, max_tokens=1000)
    gate.reached()
    answered = caller.chat(max_tokens=1000)
    error = _error(answered, 402)
    held = caller.balance()["held"]
    assert error["code"] == "credits_held"
    assert (error["needed"], error["held"]) == ("3.009", held)
    assert held.startswith("3.")
    assert (answered.headers["x-should-retry"], answered.headers["retry-after"]) == ("true", "2")
    assert _error(caller.chat(max_tokens=2000), 402)["code"] == "credits_held"
    gate.open()
    assert "".join(part.choices[0].delta.content or "" for part in stream) == "one two three"
    upstream.says(answer())
    assert caller.chat(max_tokens=1000).status_code == 200
    # 4 - 2 x 0.041
    assert caller.available == "3.918"


def test_the_client_retries_while_its_credits_are_held(upstream: Upstream, shared: Server) -> None:
    """OpenAI's client, with retries on, comes back after `Retry-After` and is then answered."""
    caller = shared.caller("4")
    gate = Gate()
    upstream.says(streamed(words("one"), gate, finish(), usage_chunk(), DONE))
    stream = caller.openai.chat.completions.create(model="words", messages=MESSAGES, stream=True, max_tokens=1000)
    gate.reached()

    def release(answered: httpx.Response) -> None:
        if answered.status_code == 402:
            assert len(upstream.received) == 1
            upstream.says(answer())
            gate.open()

    with httpx.Client(event_hooks={"response": [release]}) as http:
        client = openai.OpenAI(api_key=caller.key, base_url=shared.base + "/v1", max_retries=2, http_client=http)
        raw = client.chat.completions.with_raw_response.create(model="words", messages=MESSAGES, max_tokens=1000)
    assert raw.retries_taken == 1
    assert len(list(stream)) == 2


def test_a_large_prompt_is_counted_before_it_is_refused(upstream: Upstream, shared: Server) -> None:
    """Bytes are a bound; where the bound does not fit, the tokens decide: 4000 bytes are 807 tokens here."""
    caller = shared.caller("3.9")
    upstream.says(answer())
    sent = json.dumps({"model": "words", "messages": [{"role": "user", "content": "word " * 799 + "word"}]}).encode()
    assert len(sent) > 4000
    assert caller.post(sent, x_other="1").status_code == 200
    # 3 + 3 + 1 + 800 tokens and 1000 x 0.003
    upstream.forget()
    error = _error(shared.caller("3.8").post(sent[:-1] + b',"max_tokens":1000}'), 402)
    assert error["needed"] == "3.807"


def test_another_accounts_receipt_looks_like_none(upstream: Upstream, shared: Server, caller: Caller) -> None:
    """404 for another's, for none and for nonsense alike; the operator sees it."""
    upstream.says(answer())
    request = caller.chat().headers["x-request-id"]
    other = shared.caller(None)
    for name in (request, "req_" + "0" * 32, "req_x", "nonsense", "req_" + "f" * 32, "key_" + request[4:]):
        assert _error(other.get(f"/v1/credits/receipts/{name}"), 404)["code"] == "not_found"
    assert shared.done("GET", f"/receipts/{request}")["total"] == "0.041"
