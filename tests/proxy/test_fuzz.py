"""Requests that nobody would think of: no failure inside the server, nothing left held, no answer without a receipt."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.proxy.chats import DONE, USAGE, answer, finish, usage_chunk, words
from tests.proxy.priced import priced
from tests.proxy.running import Caller, Server, until
from tests.proxy.upstream import Received, Script, Upstream, streamed

_fuzzing = settings(
    deadline=None,
    derandomize=True,
    max_examples=250,
    # The server remembers: the same request again, made smaller, may meet another state.
    phases=[Phase.explicit, Phase.generate],
    # The server and the account are the module's: what an example does to them must not harm the next.
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

_texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12) | st.sampled_from(
    ["", "0", "-1", "1e3", "null", "\x00", "é" * 70, "a" * 3000, "%", "'", '"', "../..", "acct_", "req_" + "0" * 32]
)
_numbers = st.sampled_from([0, 1, -1, 128, 129, 2**31, 2**53, 2**63, 2**64, 10**30, 0.5, 1.0, -0.0, 1e300])

_json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | _numbers | _texts,
    lambda of: st.lists(of, max_size=3) | st.dictionaries(_texts, of, max_size=3),
    max_leaves=6,
)
_BODY: dict[str, Any] = {
    "model": "words",
    "messages": [{"role": "user", "content": "Hello world"}],
    "max_tokens": 40,
    "n": 1,
    "stream": False,
    "stream_options": {"include_usage": True},
    "tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}],
    "service_tier": "auto",
    "response_format": {"type": "json_object"},
    "web_search_options": {},
}
_CONTENTS = st.sampled_from(
    [
        [{"type": "text", "text": "Hello"}],
        [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}],
        [{"type": "image_url", "image_url": "x"}, {"type": "input_audio", "input_audio": {"data": "AAAA"}}],
        [{"type": "file", "file": {"file_data": 5}}],
        [{"text": None}, {"image_url": {}}, 7, None, "text"],
    ]
)


@st.composite
def _mutated_chats(draw: st.DrawFn) -> bytes:
    """Draw a chat's body with members left out, replaced and added, and now and then bytes that are no JSON."""
    body = {name: value for name, value in _BODY.items() if name in ("model", "messages") or draw(st.booleans())}
    body["model"] = draw(st.sampled_from(["words", "plain", "other", "least"]))
    body["stream"] = draw(st.booleans())
    for name in draw(st.lists(st.sampled_from([*_BODY, "audio", "Model", "usage", "metadata"]), max_size=2)):
        body[name] = draw(_json_values | _numbers)
    if draw(st.booleans()):
        body["messages"] = [{"role": "user", "content": draw(_CONTENTS | _json_values)}]
    text = json.dumps(body, ensure_ascii=draw(st.booleans())).encode()
    damage = draw(st.integers(0, 20))
    if damage == 0:
        text = text[: draw(st.integers(0, len(text)))]
    elif damage == 1:
        at = draw(st.integers(0, len(text) - 1))
        text = text[:at] + draw(st.binary(max_size=3)) + text[at + 1 :]
    return text


@pytest.fixture(scope="module")
def config_text(running_upstream: Upstream) -> str:
    return priced(running_upstream.url)


def _script(received: Received) -> Script:
    if received.document.get("stream"):
        return streamed(words("one", " two"), finish(), usage_chunk(), DONE)
    return [answer()]


@pytest.fixture(scope="module")
def rich(shared: Server) -> Caller:
    """Whoever makes calls that are fuzzed."""
    return shared.caller("100000")


def _sound(answered: httpx.Response) -> None:
    assert answered.status_code < 500, (answered.request.method, str(answered.request.url), answered.text)
    assert answered.headers["x-request-id"].startswith("req_")
    if answered.status_code >= 400 and answered.request.method != "HEAD":
        error = answered.json()["error"]
        assert error["message"] and error["type"] and error["request_id"] == answered.headers["x-request-id"]


@_fuzzing
@given(body=_mutated_chats())
def test_a_mutated_chat_is_refused_or_has_a_receipt(
    shared: Server, running_upstream: Upstream, rich: Caller, body: bytes
) -> None:
    """An answer has a settled receipt that adds up; a refusal has none; and nothing stays held."""
    running_upstream.chooses(_script)
    running_upstream.forget()
    answered = rich.post(body)
    _sound(answered)
    found = rich.get(f"/v1/credits/receipts/{answered.headers['x-request-id']}")
    if answered.status_code == 200:
        receipt = found.json()
        assert (receipt["status"], receipt["ended"]) == ("settled", "answered")
        lines = sum(Decimal(line["amount"]) for line in receipt["lines"])
        paid = sum(Decimal(part["amount"]) for part in receipt["paid_from"])
        assert Decimal(receipt["total"]) == lines == paid + Decimal(receipt["debt"])
        assert Decimal(receipt["total"]) > 0
        if "x-credits-charged" in answered.headers:
            assert answered.headers["x-credits-charged"] == receipt["total"]
        assert USAGE["prompt_tokens"] == 20
        assert len(running_upstream.received) == 1
    else:
        assert found.status_code == 404
        assert not running_upstream.received
    assert until(lambda: rich.balance()["held"] == "0")


@_fuzzing
@given(
    values=st.dictionaries(
        st.sampled_from(
            ["x-farebox-operation", "x-farebox-thread", "x-farebox-run", "x-farebox-fit", "x-stainless-retry-count",
             "idempotency-key", "x-farebox-user", "traceparent", "accept", "content-type", "x-api-key"]
        ),
        st.binary(max_size=12).map(lambda raw: bytes(byte for byte in raw if byte >= 32 and byte != 127).strip())
        | st.sampled_from([b"clamp", b"prototype", b"words_chat", b"=1+1", "Grüße".encode(), b"x" * 300]),
        max_size=4,
    )
)  # fmt: skip
def test_odd_headers_fail_nothing(
    shared: Server, running_upstream: Upstream, rich: Caller, values: dict[str, bytes]
) -> None:
    """They are recorded, obeyed or refused by name."""
    running_upstream.chooses(_script)
    headers = [(b"authorization", f"Bearer {rich.key}".encode())]
    headers += [(name.encode(), value) for name, value in values.items()]
    answered = shared.http.post(rich.url, content=b'{"model":"plain","messages":[{}]}', headers=headers)
    _sound(answered)
    if answered.status_code == 200:
        receipt = rich.receipt(answered)
        assert receipt["status"] == "settled"
        # A call under a key that was used before is that one's.
        for name in ("thread", "run") if "x-idempotent-replayed" not in answered.headers else ():
            sent = values.get(f"x-farebox-{name}")
            assert receipt[name] == (sent.decode("utf-8", "replace") if sent else None)
    assert until(lambda: rich.balance()["held"] == "0")


def test_the_books_are_in_order_after_all_that(shared: Server, rich: Caller) -> None:
    """Nothing is held, what is left is what was granted less what was charged, and the audit is clean."""
    balance = rich.balance()
    assert (balance["held"], balance["debt"]) == ("0", "0")
    charged = Decimal(0)
    for row in rich.get("/v1/credits/usage/summary?by=model&period=all").json()["data"]:
        charged += Decimal(row["total"])
    assert Decimal(balance["available"]) == Decimal(100_000) - charged
    assert shared.done("GET", "/audit")["clean"] is True
