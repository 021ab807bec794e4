"""Two accounts on one server: neither sees, names or changes anything of the other's."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from typing import Any

import pytest

from tests.proxy.chats import DONE, answer, body_of, finish, usage_chunk, words
from tests.proxy.running import Caller, Server
from tests.proxy.upstream import Gate, Upstream, streamed


@dataclass(frozen=True)
class _Tenant:
    """An account with a history: a call with a thread and a run, a refund, a grant."""

    caller: Caller
    request: str
    key: str
    grant: str
    entry: str

    @property
    def marks(self) -> tuple[str, ...]:
        """What nobody else may ever be told."""
        return (self.request, self.key, self.grant, self.entry, self.caller.account, "secret-of-first")


@pytest.fixture(scope="module")
def first(shared: Server, running_upstream: Upstream) -> _Tenant:
    return _tenant(shared, running_upstream, "secret-of-first")


@pytest.fixture
def second(shared: Server, upstream: Upstream, first: _Tenant) -> _Tenant:
    return _tenant(shared, upstream, "of-second")


def _tenant(server: Server, upstream: Upstream, mark: str) -> _Tenant:
    caller = server.caller("777")
    upstream.says(answer())
    called = caller.post(body_of(), X_Farebox_Thread=mark, X_Farebox_Run=mark)
    receipt = caller.receipt(called)
    entry = caller.get("/v1/credits/statement").json()["data"][0]["id"]
    return _Tenant(caller, receipt["id"], receipt["key"], receipt["paid_from"][0]["grant"], entry)


def test_anothers_receipt_looks_like_none(first: _Tenant, second: _Tenant) -> None:
    """404 in the same words, also under an id made of both."""
    mixed = first.request[:20] + second.caller.account[5:]
    unknown = "req_" + "1" * 16 + second.caller.account[5:]
    answers = []
    for request in (first.request, mixed, unknown, "req_x"):
        refused = second.caller.get(f"/v1/credits/receipts/{request}")
        assert refused.status_code == 404
        error = refused.json()["error"]
        answers.append({name: value for name, value in error.items() if name != "request_id"})
    assert answers == [answers[0]] * 4 and answers[0]["code"] == "not_found"
    assert second.caller.get(f"/v1/credits/receipts/{second.request}").status_code == 200


_PATHS = (
    "/v1/credits",
    "/v1/credits/usage",
    "/v1/credits/usage?key={first.key}",
    "/v1/credits/usage?thread=secret-of-first",
    "/v1/credits/usage?run=secret-of-first",
    "/v1/credits/usage?after={first.request}",
    "/v1/credits/usage/summary?by=thread",
    "/v1/credits/usage/summary?by=run&period=all",
    "/v1/credits/usage/summary?by=key",
    "/v1/credits/usage/summary?by=model&key={first.key}",
    "/v1/credits/statement",
    "/v1/credits/statement?after={first.entry}",
    "/v1/models",
    "/metrics",
)


@pytest.mark.parametrize("path", _PATHS)
@pytest.mark.parametrize("accept", ["application/json", "text/csv", "application/jsonl"])
def test_no_list_has_anything_of_anothers(first: _Tenant, second: _Tenant, path: str, accept: str) -> None:
    """Whatever is filtered or asked to come after."""
    server = second.caller.server
    if path.startswith(("/v1/credits/usage?key", "/v1/credits/usage?thread", "/v1/credits/usage?run")):
        listed = second.caller.get(path.format(first=first)).json()
        assert listed["data"] == []
    answered = server.http.get(
        server.base + path.format(first=first), headers={**second.caller.headers, "accept": accept}
    )
    assert answered.status_code == 200
    for mark in first.marks:
        assert mark not in answered.text
    if path == "/v1/credits/usage" and accept == "text/csv":
        assert [row["id"] for row in csv.DictReader(io.StringIO(answered.text))] == [second.request]


_COMMANDS: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("GET", "/accounts/{0.caller.account}", {}),
    ("PATCH", "/accounts/{0.caller.account}", {"status": "suspended"}),
    ("GET", "/accounts/{0.caller.account}/credits", {}),
    ("GET", "/accounts/{0.caller.account}/usage", {}),
    ("GET", "/accounts/{0.caller.account}/usage/summary", {}),
    ("GET", "/accounts/{0.caller.account}/statement", {}),
    ("GET", "/accounts/{0.caller.account}/keys", {}),
    ("POST", "/accounts/{0.caller.account}/keys", {}),
    ("GET", "/accounts/{0.caller.account}/grants", {}),
    ("POST", "/accounts/{0.caller.account}/grants", {"bucket": "paid", "credits": "1"}),
    ("POST", "/accounts/{0.caller.account}/adjust", {"credits": "1", "reason": "x"}),
    ("DELETE", "/keys/{0.key}", {}),
    ("GET", "/receipts/{0.request}", {}),
    ("POST", "/receipts/{0.request}/refund", {"reason": "x"}),
    ("POST", "/grants/{0.grant}/void", {"reason": "x"}),
    ("GET", "/usage", {}),
    ("GET", "/usage/summary", {}),
    ("GET", "/orphans", {}),
    ("GET", "/actions", {}),
    ("GET", "/audit", {}),
    ("GET", "/prices", {}),
    ("POST", "/prices/reload", {}),
)


@pytest.mark.parametrize(("method", "path", "fields"), _COMMANDS)
@pytest.mark.parametrize("own", [True, False])
def test_a_callers_key_commands_nothing(
    first: _Tenant, second: _Tenant, method: str, path: str, fields: dict[str, Any], own: bool
) -> None:
    """403 on every route of the operator's, on one's own account as on another's."""
    server = second.caller.server
    url = f"{server.base}/admin/v1{path.format(second if own else first)}"
    before = first.caller.balance()
    refused = server.http.request(method, url, json=fields or None, headers=second.caller.headers)
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "permission_denied")
    assert first.caller.balance() == before
    assert second.caller.available == "776.959"


def test_ids_are_of_the_account_that_they_name(shared: Server, first: _Tenant, second: _Tenant) -> None:
    """For the operator too, the half of one account's id with the half of another's is no id."""
    own, before = second.caller.account[5:], (first.caller.balance(), second.caller.balance())
    for method, path in (
        ("GET", f"/receipts/{first.request[:20]}{own}"),
        ("POST", f"/receipts/{first.request[:20]}{own}/refund"),
        ("POST", f"/grants/{first.grant[:22]}{own}/void"),
        ("DELETE", f"/keys/{first.key[:20]}{own}"),
    ):
        refused = shared.admin(method, path, {"reason": "x"} if method == "POST" else None)
        assert (refused.status_code, refused.json()["error"]["code"]) == (404, "not_found")
    assert (first.caller.balance(), second.caller.balance()) == before
    listed = shared.done("GET", f"/accounts/{second.caller.account}/usage?key={first.key}")
    assert listed["data"] == []


def test_a_running_call_is_anothers_too(shared: Server, upstream: Upstream, first: _Tenant, second: _Tenant) -> None:
    """Its receipt, its hold and its place among running calls."""
    gate = Gate()
    upstream.says(streamed(words("one"), gate, finish(), usage_chunk(), DONE))
    mine = first.caller
    with shared.http.stream("POST", mine.url, content=body_of(stream=True), headers=mine.headers) as stream:
        gate.reached()
        request = stream.headers["x-request-id"]
        assert second.caller.get(f"/v1/credits/receipts/{request}").status_code == 404
        assert second.caller.balance()["held"] == "0"
        assert request not in second.caller.get("/v1/credits/usage").text
        gate.open()
        stream.read()


def test_a_refusal_tells_ones_own_figures(shared: Server, first: _Tenant, second: _Tenant) -> None:
    """402 names what the caller has, and nobody else's credits or ids."""
    poor = shared.caller("0.01")
    refused = poor.chat(max_tokens=1000)
    assert (refused.status_code, refused.json()["error"]["available"]) == (402, "0.01")
    for mark in (*first.marks, *second.marks, "777", "776"):
        assert mark not in refused.text
