"""What a call would cost, said before it is made and without holding anything."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from tests.proxy.chats import DONE, MESSAGES, finish, usage_chunk, words
from tests.proxy.priced import priced
from tests.proxy.running import Caller, Server
from tests.proxy.upstream import Gate, Upstream, streamed


@pytest.fixture(scope="module")
def config_text(running_upstream: Upstream) -> str:
    return priced(running_upstream.url)


@pytest.fixture(autouse=True)
def _answers(upstream: Upstream) -> None:
    upstream.says(streamed(words("one"), finish(), usage_chunk(), DONE))


def _compact(**members: Any) -> bytes:
    body = {"model": "plain", "messages": MESSAGES, "stream": True, **members}
    return json.dumps(body, separators=(",", ":"), ensure_ascii=False).encode()


def _quoted(caller: Caller, body: bytes, **headers: str) -> httpx.Response:
    sent = {"content-type": "application/json", **caller.headers}
    sent |= {name.replace("_", "-"): value for name, value in headers.items()}
    content = b'{"endpoint":"/v1/chat/completions","body":' + body + b"}"
    return caller.server.http.post(f"{caller.server.base}/v1/credits/quote", content=content, headers=sent)


def _quote(caller: Caller, body: bytes, **headers: str) -> dict[str, Any]:
    answered = _quoted(caller, body, **headers)
    assert answered.status_code == 200, answered.text
    document: dict[str, Any] = answered.json()
    assert document["object"] == "credits.quote"
    return document


_LONG: list[Any] = [{"role": "user", "content": "Grüße an die Welt, 你好世界. " * 200}]
_CALLS: dict[str, tuple[dict[str, Any], dict[str, str]]] = {
    "plain": ({}, {}),
    "with a limit": ({"max_tokens": 30}, {}),
    "with both limits": ({"max_tokens": 30, "max_completion_tokens": 70}, {}),
    "a limit above the model's": ({"max_tokens": 100_000}, {}),
    "several answers": ({"n": 3, "max_tokens": 100}, {}),
    "a long text": ({"messages": _LONG}, {}),
    "an image": (
        {
            "messages": [
                {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:," + "A" * 900}}]}
            ]
        },
        {},
    ),
    "tools": ({"tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}]}, {}),
    "a matched operation": ({"model": "words"}, {}),
    "a bounded operation": ({"model": "other"}, {}),
    "a named operation": ({}, {"X_Farebox_Operation": "prototype"}),
    "a search": ({"web_search_options": {}}, {}),
    "clamped": ({"max_tokens": 900}, {"X_Farebox_Fit": "clamp"}),
}


@pytest.mark.parametrize("credits", ["1000", "8", "20", "2"])
@pytest.mark.parametrize("case", _CALLS)
def test_the_most_is_what_the_call_then_holds(shared: Server, case: str, credits: str) -> None:
    """Whether it is bounded by bytes, counted or shortened; where it does not fit the refusal needs as much."""
    members, headers = _CALLS[case]
    caller = shared.caller(credits)
    quote = _quote(caller, _compact(**members), **headers)
    called = caller.post(_compact(**members), **headers)
    assert quote["available"] == credits
    assert quote["fits"] is (called.status_code == 200)
    if called.status_code == 200:
        receipt = caller.receipt(called)
        assert called.headers["x-credits-held"] == quote["most"]
        assert called.headers.get("x-credits-max-tokens") == (
            str(quote["shortened_to"]) if quote["shortened_to"] is not None else None
        )
        assert receipt["shortened_to"] == quote["shortened_to"]
        for name in ("model", "operation", "price_version"):
            assert receipt[name] == quote[name]
    else:
        error = called.json()["error"]
        assert (called.status_code, error["needed"]) == (402, quote["most"])
        assert error["max_tokens_affordable"] == quote["max_tokens_affordable"]


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(json.dumps(json.loads(_compact(messages=_LONG))).encode(), id="spaces and escapes"),
        pytest.param(json.dumps(json.loads(_compact()), indent=8).encode(), id="indented"),
        pytest.param(_compact().replace(b"Hello", b"\\u0048ello"), id="an escape"),
        pytest.param(_compact(temperature=1.0).replace(b"1.0", b"1.000000"), id="a long number"),
    ],
)
def test_a_quote_is_of_the_body_as_it_is_written(shared: Server, body: bytes) -> None:
    """The hold's bound is the body's bytes, so the same bytes are quoted at what they will hold."""
    caller = shared.caller()
    quote = _quote(caller, body)
    assert caller.post(body).headers["x-credits-held"] == quote["most"]


def test_the_figures_of_a_quote(caller: Caller) -> None:
    """Every figure of a small call with a limit, by hand."""
    body = _compact(max_tokens=30)
    assert _quote(caller, body) == {
        "object": "credits.quote",
        "model": "plain",
        "operation": None,
        # 9 tokens of input at 0.001.
        "least": "0.009",
        "most": f"0.{len(body) + 90}".rstrip("0"),
        "available": "1000",
        "fits": True,
        "shortened_to": None,
        # What is left of 1000 beside the input, at 0.003.
        "max_tokens_affordable": (1_000_000 - len(body)) // 3,
        "price_version": caller.server.done("GET", "/prices")["version"],
    }


def test_a_shortened_call_is_quoted_shortened(shared: Server, upstream: Upstream) -> None:
    """With 1 credit 330 tokens fit beside 9 of input, and so much is held."""
    caller = shared.caller("1")
    quote = _quote(caller, _compact())
    assert (quote["fits"], quote["shortened_to"], quote["max_tokens_affordable"]) == (True, 330, 330)
    assert quote["most"] == "0.999"
    assert caller.post(_compact()).headers["x-credits-held"] == "0.999"
    assert upstream.last.document["max_tokens"] == 330


def test_an_explicit_limit_is_not_shortened(shared: Server) -> None:
    """It does not fit, and the largest that would is named."""
    caller = shared.caller("1")
    quote = _quote(caller, _compact(max_tokens=400))
    assert (quote["fits"], quote["shortened_to"], quote["most"]) == (False, None, "1.209")
    assert quote["max_tokens_affordable"] == 330
    assert _quote(caller, _compact(max_tokens=330))["fits"] is True
    assert _quote(caller, _compact(max_tokens=331))["fits"] is False


def test_quoting_holds_nothing(shared: Server, upstream: Upstream) -> None:
    """Twenty quotes change neither the balance nor the usage, and reach nobody."""
    caller = shared.caller("1")
    before = caller.balance()
    for _ in range(20):
        _quote(caller, _compact())
    assert caller.balance() == before
    assert caller.get("/v1/credits/usage").json()["data"] == []
    assert not upstream.received


def test_a_quote_is_open_at_zero_credits(shared: Server) -> None:
    """It says that nothing fits."""
    quote = _quote(shared.caller(None), _compact())
    assert (quote["available"], quote["fits"], quote["max_tokens_affordable"]) == ("0", False, 0)


def test_running_calls_stand_in_the_way_of_a_quote(shared: Server, upstream: Upstream) -> None:
    """What they hold is not available, and the same call is told so."""
    caller = shared.caller("2")
    gate = Gate()
    upstream.says(streamed(words("one"), gate, finish(), usage_chunk(), DONE))
    with shared.http.stream("POST", caller.url, content=_compact(max_tokens=600), headers=caller.headers) as running:
        gate.reached()
        assert running.headers["x-credits-held"] == "1.809"
        quote = _quote(caller, _compact(max_tokens=100))
        assert (quote["available"], quote["fits"], quote["most"]) == ("0.191", False, "0.309")
        assert caller.post(_compact(max_tokens=100)).json()["error"]["code"] == "credits_held"
        gate.open()
        running.read()
    assert _quote(caller, _compact(max_tokens=100))["fits"] is True


def test_an_overdraft_is_part_of_what_fits(shared: Server) -> None:
    """The quote says what the call does."""
    caller = shared.caller("1")
    shared.done("PATCH", f"/accounts/{caller.account}", {"overdraft_limit": "5"})
    quote = _quote(caller, _compact(max_tokens=1000))
    assert quote["fits"] is True
    assert caller.post(_compact(max_tokens=1000)).headers["x-credits-held"] == quote["most"]


def test_a_suspended_account_fits_nothing(shared: Server, caller: Caller) -> None:
    """Its calls would be refused, whatever they cost."""
    shared.done("PATCH", f"/accounts/{caller.account}", {"status": "suspended"})
    assert _quote(caller, _compact())["fits"] is False


_REFUSED: dict[str, tuple[bytes, dict[str, str], tuple[int, str | None, str | None]]] = {
    "no model": (b'{"messages":[{}]}', {}, (400, None, "model")),
    "no messages": (b'{"model":"plain"}', {}, (400, None, "messages")),
    "unknown model": (_compact(model="none"), {}, (404, "model_not_found", "model")),
    "unknown operation": (
        _compact(), {"X_Farebox_Operation": "none"}, (400, "unknown_operation", "X-Farebox-Operation"),
    ),
    "another's operation": (_compact(), {"X_Farebox_Operation": "words_chat"}, (403, "operation_not_allowed", None)),
    "not priced": (_compact(modalities=["audio"]), {}, (400, "not_supported", "modalities")),
    "bad fit": (_compact(), {"X_Farebox_Fit": "stretch"}, (400, None, "X-Farebox-Fit")),
    "no object": (b"[]", {}, (422, None, "body")),
    "nothing": (b"null", {}, (422, None, "body")),
    "no JSON": (b"{", {}, (400, None, None)),
}  # fmt: skip


@pytest.mark.parametrize("case", _REFUSED)
def test_what_the_call_refuses_its_quote_refuses(caller: Caller, case: str) -> None:
    """With the same status, code and field."""
    body, headers, expected = _REFUSED[case]
    refused = _quoted(caller, body, **headers)
    error = refused.json()["error"]
    assert (refused.status_code, error["code"], error["param"]) == expected
    if body.startswith(b'{"'):
        called = caller.post(body, **headers)
        assert (called.status_code, called.json()["error"]["code"], called.json()["error"]["param"]) == expected


@pytest.mark.parametrize("depth", [50, 200, 300, 900, 5000])
def test_a_deep_body_is_quoted_as_it_is_called(upstream: Upstream, caller: Caller, depth: int) -> None:
    """Nesting is no failure inside the server: what a call takes is quoted, what it refuses is refused."""
    body = _compact(metadata="DEEP").replace(b'"DEEP"', b"[" * depth + b"]" * depth)
    called = caller.post(body)
    assert called.status_code in (200, 400)
    assert _quoted(caller, body).status_code == called.status_code


@pytest.mark.parametrize(
    ("endpoint", "status", "code"), [("/v1/embeddings", 400, "not_supported"), ("/v1/models", 422, None)]
)
def test_other_endpoints_are_refused_by_name(caller: Caller, endpoint: str, status: int, code: str | None) -> None:
    """Those of later releases as not supported, others as unknown."""
    fields = {"endpoint": endpoint, "body": {"model": "plain", "messages": MESSAGES}}
    refused = caller.server.http.post(f"{caller.server.base}/v1/credits/quote", json=fields, headers=caller.headers)
    error = refused.json()["error"]
    assert (refused.status_code, error["code"], error["param"]) == (status, code, "endpoint")
