"""Requests made of the API's description by schemathesis, good ones and bad ones: the server keeps to what it says."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from typing import Any, TypeAlias

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis.config import SchemathesisConfig
from schemathesis.core.parameters import ParameterLocation
from schemathesis.specs.openapi.checks import response_schema_conformance

from proxy.openapi import openapi_document
from tests.proxy.chats import DONE, answer, finish, usage_chunk, words
from tests.proxy.priced import in_force, priced
from tests.proxy.running import ADMIN_KEY, Caller, Server, until
from tests.proxy.upstream import Received, Script, Upstream, streamed

_Case: TypeAlias = schemathesis.Case[Any]
_CONFIG = {
    # Every request has a key that is good; the check `ignored_auth` sends it again with a bad one and without any.
    "generation": {"with-security-parameters": False},
    # Not everything that is wrong can be said in a schema: times before 1970, texts that can't be printed.
    "checks": {"positive_data_acceptance": {"enabled": False}},
}
_document = openapi_document()
# Every event of /v1/credits/events is awaited here, and there is no last one; tests/proxy/test_events.py reads them.
_described = schemathesis.openapi.from_dict(_document, config=SchemathesisConfig.from_dict(_CONFIG)).exclude(
    path="/v1/credits/events"
)
_KNOWN = {
    "model": "plain",
    "endpoint": "/v1/chat/completions",
    "bucket": "bonus",
    "timezone": "Europe/Rome",
    "operations": ["words_chat"],
    "X-Farebox-Operation": "prototype",
}
"""What the config and the system name, by the member or header; no other texts would do."""


@pytest.fixture(scope="module")
def config_text(running_upstream: Upstream) -> str:
    return priced(running_upstream.url)


def _script(received: Received) -> Script:
    if received.document.get("stream"):
        return streamed(words("one", " two"), finish(), usage_chunk(), DONE)
    return [answer()]


@pytest.fixture
def victim(shared: Server, upstream: Upstream) -> Iterator[Caller]:
    """An account for what is done to one route; at the end nothing of it is held, and each of its calls has a row."""
    upstream.chooses(_script)
    victim = shared.caller()
    yield victim
    account = f"/accounts/{victim.account}"
    assert until(lambda: bool(shared.done("GET", f"{account}/credits")["held"] == "0"))
    sums = shared.done("GET", f"{account}/usage/summary?by=model&period=all")["data"]
    assert sum(row["calls"] for row in sums) == len(upstream.received)


@pytest.fixture
def ids(shared: Server, victim: Caller) -> dict[str, str]:
    """What path parameters may be."""
    return {
        "account": victim.account,
        "id": victim.receipt(victim.chat("plain"))["id"],
        "grant": victim.balance()["grants"][0]["id"],
        "key": shared.done("POST", f"/accounts/{victim.account}/keys", {})["id"],
        "clock": shared.done("POST", "/clocks", {"now": "2026-01-31T12:00:00Z"})["id"],
        "name": "plain",
        "version": in_force(shared)["version"],
        "member": shared.caller().account,
    }


def _members(case: _Case) -> list[MutableMapping[str, Any]]:
    """List where a request has members that may be replaced or left out: not in a body that is to be wrong."""
    assert case.meta is not None
    members: list[MutableMapping[str, Any]] = [case.headers, case.query]
    if isinstance(case.body, dict) and not case.meta.is_negative_at(ParameterLocation.BODY):
        members.append(case.body)
    return members


def _acquaint(case: _Case, ids: dict[str, str]) -> None:
    """Put what exists in place of made up names."""
    assert case.meta is not None
    if case.path_parameters and not case.meta.is_negative_at(ParameterLocation.PATH):
        case.path_parameters = {name: ids[name] for name in case.path_parameters}
    all_members = _members(case)
    for members in (*all_members, *(of["body"] for of in all_members if isinstance(of.get("body"), dict))):
        members.update({name: known for name, known in _KNOWN.items() if members.get(name) is not None})


def _send(case: _Case, base: str, headers: dict[str, str]) -> schemathesis.Response:
    """Send it, without what this release refuses by name."""
    while True:
        answered = case.call(base, headers=headers)
        error = answered.json()["error"] if answered.status_code in (400, 403) else {}
        # A platform's key is refused almost everything else that these requests do.
        ours = error.get("code") == "permission_denied" and error["param"] == "X-Farebox-User"
        if (error.get("code") != "not_supported" and not ours) or error["param"] is None:
            return answered
        refused = [members for members in _members(case) if error["param"] in members]
        if not refused:
            return answered
        for members in refused:
            del members[error["param"]]


@_described.parametrize()
@settings(
    deadline=None,
    derandomize=True,
    max_examples=10,
    # The server remembers: the same request again, made smaller, may meet another state.
    phases=[Phase.explicit, Phase.generate],
    # The account is the route's: what an example does to it must not harm the next.
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.filter_too_much],
)
def test_answers_are_as_described(
    case: _Case, shared: Server, victim: Caller, ids: dict[str, str], upstream: Upstream
) -> None:
    """Statuses, media types, schemas and `Allow` are; what doesn't fit is refused, and what needs a key has it."""
    _acquaint(case, ids)
    key = ADMIN_KEY if case.path.startswith("/admin/") else victim.key
    headers = {"Authorization": f"Bearer {key}"}
    answered = _send(case, shared.base, headers)
    assert answered.headers["x-request-id"][0].startswith("req_")
    # Of a stream the description says no more than its media type.
    media = answered.headers.get("content-type", [""])[0]
    excluded = [response_schema_conformance] if media.startswith("text/event-stream") else []
    case.validate_response(
        answered,
        headers=headers,
        excluded_checks=excluded,
        transport_kwargs={"base_url": shared.base, "headers": headers},
    )
    if (case.path, answered.status_code) == ("/v1/chat/completions", 200):
        receipt = victim.receipt(answered.headers["x-request-id"][0])
        assert (receipt["status"], receipt["ended"], receipt["total"] > "0") == ("settled", "answered", True)


def _each(key: str) -> Iterator[tuple[str, str]]:
    """List the method and path of each operation that takes such a key."""
    for path, operations in _document["paths"].items():
        for method, operation in operations.items():
            if {key: []} in operation["security"]:
                yield method.upper(), path


def test_no_route_of_the_operators_takes_a_callers_key(shared: Server, victim: Caller, ids: dict[str, str]) -> None:
    """Not even for what is the caller's own."""
    for method, path in _each("admin"):
        answered = shared.http.request(method, shared.base + path.format_map(ids), json={}, headers=victim.headers)
        assert answered.status_code == 403, (method, path)


@pytest.mark.parametrize("digit", "0f7")
def test_what_was_never_made_is_not_found(shared: Server, victim: Caller, digit: str) -> None:
    """Whatever its id says: first, last, any; and where it has an account in it, that of one that exists."""
    own = digit * 16 + victim.account.removeprefix("acct_")
    ids = {
        "account": "acct_" + digit * 16,
        "id": "req_" + own,
        "grant": "grant_" + own,
        "clock": "clock_" + own,
        "key": "key_" + own,
        "member": "acct_" + digit * 16,
        "name": "-",
        "version": "prices_" + digit * 16,
    }
    for key, secret in (("admin", ADMIN_KEY), ("caller", victim.key)):
        for method, path in _each(key):
            if "{" in path:
                url = shared.base + path.format_map(ids)
                body = {"reason": "none"}
                answered = shared.http.request(method, url, json=body, headers={"authorization": f"Bearer {secret}"})
                assert answered.status_code == 404, (method, path, answered.text)


def test_the_server_serves_this_description(shared: Server) -> None:
    """It is what the requests above were made of."""
    assert shared.http.get(shared.base + "/openapi.json").json() == _document


def test_the_books_are_in_order_after_all_that(shared: Server) -> None:
    """The audit is clean."""
    assert shared.done("GET", "/audit")["clean"] is True
