"""Requests that nobody would think of: no failure inside the server, nothing left held, no answer without a receipt."""

from __future__ import annotations

from decimal import Decimal
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.proxy.chats import DONE, USAGE, answer, finish, usage_chunk, words
from tests.proxy.described import Request, mutated_chats, operations, requests
from tests.proxy.priced import priced
from tests.proxy.running import ADMIN_KEY, Caller, Server, until
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


@pytest.fixture(scope="module")
def config_text(running_upstream: Upstream) -> str:
    return priced(running_upstream.url)


def _script(received: Received) -> Script:
    if received.document.get("stream"):
        return streamed(words("one", " two"), finish(), usage_chunk(), DONE)
    return [answer()]


@pytest.fixture(scope="module")
def document(shared: Server) -> dict[str, Any]:
    answered = shared.http.get(shared.base + "/openapi.json")
    assert answered.status_code == 200
    described: dict[str, Any] = answered.json()
    return described


@pytest.fixture(scope="module")
def rich(shared: Server) -> Caller:
    """Whoever makes calls that are fuzzed."""
    return shared.caller("100000")


@pytest.fixture(scope="module")
def ids(shared: Server, running_upstream: Upstream) -> dict[str, list[str]]:
    """Ids of an account that may be maltreated, and ids that almost are ids."""
    running_upstream.chooses(_script)
    victim = shared.caller()
    receipt = victim.receipt(victim.chat("plain"))
    grant = victim.balance()["grants"][0]["id"]
    key = shared.done("POST", f"/accounts/{victim.account}/keys", {})["id"]
    zeros, ones = "0" * 32, "f" * 32
    return {
        "account": [victim.account, "acct_" + "0" * 16, "acct_" + "f" * 16, "acct_" + "7" * 16],
        "id": [receipt["id"], "req_" + zeros, "req_" + ones, "req_" + "7" * 32],
        "grant": [grant, "grant_" + zeros, "grant_" + ones, "grant_" + "7" * 16 + victim.account[5:]],
        "key": [key, "key_" + zeros, "key_" + ones, "key_" + "7" * 16 + victim.account[5:]],
        "name": ["plain", "none"],
    }


def _sent(
    server: Server, method: str, path: str, query: dict[str, str], body: Any, headers: dict[str, str]
) -> httpx.Response:
    """Send a request; of an endless answer only the head is read."""
    url = server.base + quote(path, safe="/%")
    with server.http.stream(method, url, params=query or None, json=body, headers=headers) as answered:
        if path != "/v1/credits/events" or answered.status_code != 200:
            answered.read()
        return answered


def _sound(answered: httpx.Response) -> None:
    assert answered.status_code < 500, (answered.request.method, str(answered.request.url), answered.text)
    assert answered.headers["x-request-id"].startswith("req_")
    if answered.status_code >= 400 and answered.request.method != "HEAD":
        error = answered.json()["error"]
        assert error["message"] and error["type"] and error["request_id"] == answered.headers["x-request-id"]


def test_every_described_route_is_there(shared: Server, document: dict[str, Any], ids: dict[str, list[str]]) -> None:
    """With real ids none of them is 404, 405 or 500, and each says who may ask."""
    account = shared.caller()
    for method, path, operation in operations(document):
        for name, known in ids.items():
            path = path.replace(f"{{{name}}}", known[0])
        security = operation["security"]
        unknown = _sent(shared, method.upper(), path, {}, None, {})
        assert unknown.status_code == (401 if security else 200), (method, path)
        if not security or path.endswith(("/void", "/chat/completions")) or method == "delete":
            continue
        key = ADMIN_KEY if "admin" in security[0] else account.key
        answered = _sent(shared, method.upper(), path, {}, None, {"authorization": f"Bearer {key}"})
        own = path.startswith("/v1/credits/receipts/")
        assert answered.status_code in ({404} if own else {200, 201, 400, 422}), (method, path, answered.text)


def test_no_request_fails_inside_the_server(
    shared: Server, running_upstream: Upstream, document: dict[str, Any], rich: Caller, ids: dict[str, list[str]]
) -> None:
    """Whatever is sent to whichever route, under any key, it is answered or refused as the API does."""
    running_upstream.chooses(_script)

    @_fuzzing
    @given(
        request=requests(document, ids),
        key=st.sampled_from([ADMIN_KEY, ADMIN_KEY, rich.key, rich.key, "fbx_none", None]),
        accept=st.sampled_from(["application/json", "text/csv", "application/jsonl", "*/*", "text/html"]),
    )
    def send(request: Request, key: str | None, accept: str) -> None:
        method, path, query, body = request
        headers = {"accept": accept} if key is None else {"accept": accept, "authorization": f"Bearer {key}"}
        answered = _sent(shared, method, path, query, body, headers)
        _sound(answered)
        if key != ADMIN_KEY and "/admin/" in path:
            assert answered.status_code in (401, 403, 404, 405)

    send()


@_fuzzing
@given(body=mutated_chats())
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
        for name in ("thread", "run"):
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
