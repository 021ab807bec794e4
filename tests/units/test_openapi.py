"""The description of the API is sound in itself, covers every route, and fits what the routes answer."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any
from unittest.mock import MagicMock

import jsonschema  # type: ignore[import-untyped]  # ships no types
import pytest
from starlette.routing import Route

from proxy.app import build_app
from proxy.endpoints import CHAT, METERED
from proxy.errors import ApiError
from proxy.openapi import openapi_document

DOCUMENT = openapi_document()
METHODS = {"get", "post", "patch", "delete", "put"}


def operations() -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in DOCUMENT["paths"].items():
        for method, operation in methods.items():
            yield path, method, operation


def references(value: object) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"]
        for member in value.values():
            yield from references(member)
    elif isinstance(value, list):
        for item in value:
            yield from references(item)


def valid(name: str, instance: object) -> bool:
    """Whether an object fits the schema of this name."""
    schema = {"$ref": f"#/components/schemas/{name}", "components": DOCUMENT["components"]}
    return bool(jsonschema.Draft202012Validator(schema).is_valid(instance))


def test_document() -> None:
    """It is an OpenAPI 3.1 document, plain JSON, and says which key each route takes."""
    assert DOCUMENT["openapi"] == "3.1.0"
    assert json.loads(json.dumps(DOCUMENT)) == DOCUMENT
    assert DOCUMENT["info"]["title"] == "Farebox"
    assert DOCUMENT["info"]["version"]
    schemes = DOCUMENT["components"]["securitySchemes"]
    assert {(scheme["type"], scheme["scheme"]) for scheme in schemes.values()} == {("http", "bearer")}
    for path, _, operation in operations():
        keys = [name for requirement in operation["security"] for name in requirement]
        caller = path.startswith("/v1") and path != "/v1/prices"
        wanted = ["admin"] if path.startswith("/admin") else ["caller"] if caller else []
        assert keys == wanted, path


def test_references() -> None:
    """Every reference leads somewhere, and no schema or refusal is left over."""
    found = set(references(DOCUMENT))
    for reference in found:
        place: Any = DOCUMENT
        assert reference.startswith("#/"), reference
        for part in reference[2:].split("/"):
            place = place[part]
    for kind in ("schemas", "responses"):
        assert {f"#/components/{kind}/{name}" for name in DOCUMENT["components"][kind]} <= found


def test_schemas() -> None:
    """Every schema is valid JSON Schema."""
    for schema in DOCUMENT["components"]["schemas"].values():
        jsonschema.Draft202012Validator.check_schema(schema)
    for _, _, operation in operations():
        for parameter in operation.get("parameters", []):
            jsonschema.Draft202012Validator.check_schema(parameter["schema"])


def test_operations() -> None:
    """Operations have ids of their own, their path's parameters, tags that exist, and answers that are described."""
    ids = [operation["operationId"] for _, _, operation in operations()]
    assert len(set(ids)) == len(ids)
    tags = {tag["name"] for tag in DOCUMENT["tags"]}
    for path, method, operation in operations():
        assert method in METHODS
        assert set(operation["tags"]) <= tags
        parameters = operation.get("parameters", [])
        named = [(parameter["name"], parameter["in"]) for parameter in parameters]
        assert len(set(named)) == len(named)
        in_path = {parameter["name"] for parameter in parameters if parameter["in"] == "path"}
        assert in_path == set(re.findall(r"\{(\w+)\}", path))
        assert all(parameter["required"] for parameter in parameters if parameter["in"] == "path")
        assert any(status.startswith("2") for status in operation["responses"])
        assert "requestBody" not in operation or method != "get"
        for status, response in operation["responses"].items():
            assert re.fullmatch(r"[2-5]\d\d", status)
            assert "$ref" in response or response["description"]


def test_refusals() -> None:
    """A refusal lists the codes that its status can carry, and its body is the envelope that the proxy writes."""
    responses = DOCUMENT["components"]["responses"]
    assert "`insufficient_credits`" in responses["Refused402"]["description"]
    assert "x-should-retry" in responses["Refused402"]["headers"]
    assert "retry-after" in responses["Refused429"]["headers"]
    assert all(response["description"] for response in responses.values())
    error = ApiError(402, "insufficient_credits", "Not enough", extra={"needed": "12.5"})
    assert valid("Error", json.loads(error.envelope("req_1")))
    assert valid("Error", json.loads(ApiError(400, None, "No").envelope("")))
    assert not valid("Error", {"error": {"message": "No"}})


def _plain(path: str) -> str:
    return re.sub(r"\{\w+(:\w+)?\}", "{}", path)


def test_every_route() -> None:
    """Every route that Farebox serves of its own is described; new ones go into proxy/openapi_routes.py.

    Pages for people are no part of the API: their routes say `include_in_schema=False`.
    """
    described = {(method, _plain(path)) for path, method, _ in operations()}
    front: Any = build_app(MagicMock())
    served = {
        (method.lower(), _plain(route.path))
        for route in front._cold.routes
        if isinstance(route, Route) and route.include_in_schema and (route.path not in METERED or route.path == CHAT)
        for method in route.methods or ()
        if method != "HEAD"
    }
    assert len(served) > 10
    assert sorted(served - described) == []


GRANT = {
    "object": "credits.grant", "id": "grant_1", "bucket": "daily", "source": "allowance", "note": None, "paid": True,
    "granted": "20", "remaining": "20", "held": "20", "burns": 1, "effective_at": "2026-11-20T23:00:00Z",
    "expires_at": None, "created_at": "2026-11-20T23:00:00Z",
}  # fmt: skip
BUCKET = {
    "bucket": "daily", "title": "Daily credits", "remaining": "20", "held": "20", "granted": "20", "grants": 1,
    "exhausted": 0, "resets_at": "2026-11-21T23:00:00Z",
}  # fmt: skip
BALANCE = {
    "object": "credits.balance", "account": "acct_1", "plan": "starter", "timezone": "Europe/Rome",
    "usd_per_credit": "0.01", "available": "1370", "held": "180", "debt": "0", "overdraft_limit": "0", "low": False,
    "monthly_limit": "2000", "used": "450", "resets_at": None, "limits": [], "buckets": [BUCKET], "grants": [GRANT],
}  # fmt: skip
RECEIPT = {
    "object": "credits.receipt", "id": "req_1", "status": "settled", "ended": "answered",
    "endpoint": "/v1/chat/completions", "model": "fast", "upstream_model": "gpt-4.1-mini", "operation": None,
    "app": None, "thread": "t1", "run": None, "key": "key_1", "member": None, "price_version": "prices_1",
    "estimated": False, "shortened_to": None, "total": "0.5", "debt": "0", "refunded": "0", "reward": "0",
    "created_at": "2026-11-21T10:00:00Z", "settled_at": "2026-11-21T10:00:01Z",
    "lines": [{"meter": "input_tokens", "quantity": "12", "price": "40 / 1M", "amount": "0.00048"},
              {"meter": "max", "quantity": "1", "price": "0.4", "amount": "-0.5"}],
    "paid_from": [{"grant": "grant_1", "bucket": "daily", "amount": "0.5"}],
}  # fmt: skip


def test_objects() -> None:
    """The objects of the contract fit their schemas; one that lacks a member does not."""
    for name, example in (("Balance", BALANCE), ("Grant", GRANT), ("Bucket", BUCKET), ("Receipt", RECEIPT)):
        assert valid(name, example), name
        assert valid(name, {**example, "more": 1}), name
        for member in example:
            assert not valid(name, {key: value for key, value in example.items() if key != member}), member
    assert not valid("Receipt", {**RECEIPT, "status": "lost"})
    assert valid("Receipt", {**RECEIPT, "status": "held", "ended": None, "settled_at": None})
    row = {name: value for name, value in RECEIPT.items() if name not in ("lines", "paid_from")}
    assert valid("UsageRow", {**row, "object": "credits.usage", "usage": {"input_tokens": "12"}})


@pytest.mark.parametrize(
    ("amount", "good"),
    [("12.5", True), ("0", True), ("-0.5", True), ("10", True), ("0.000000001", True), ("1.50", False), ("01", False),
     ("1e3", False), ("1.", False), ("0.0000000001", False), (12.5, False), (".5", False)],
)  # fmt: skip
def test_amounts(amount: object, good: bool) -> None:
    """Amounts are decimal strings of credits, without exponent or trailing zero."""
    assert valid("PaidFrom", {"grant": "grant_1", "bucket": "daily", "amount": amount}) is good


@pytest.mark.parametrize(
    ("name", "body", "good"),
    [
        ("GrantCreate", {"bucket": "bonus", "credits": "12.50"}, True),
        ("GrantCreate", {"bucket": "bonus", "credits": 100, "expires_at": None}, True),
        ("GrantCreate", {"bucket": "bonus", "credits": 1.5}, False),
        ("GrantCreate", {"credits": "1"}, False),
        ("GrantCreate", {"bucket": "bonus", "credits": "1", "colour": "red"}, False),
        ("AdjustCreate", {"credits": "-3", "reason": "mistake"}, True),
        ("AdjustCreate", {"credits": "-3"}, False),
        ("RefundCreate", {"reason": "bad answer", "as": "bonus"}, True),
        ("AccountCreate", {"name": "Ada", "kind": "robot"}, False),
        ("KeyCreate", {}, True),
        ("ChatRequest", {"model": "fast", "messages": [{"role": "user"}], "whatever": {"deep": 1}}, True),
        ("ChatRequest", {"model": "fast", "messages": []}, False),
    ],
)
def test_commands(name: str, body: dict[str, object], good: bool) -> None:
    """What is sent is described as strictly as it is read; a call's own members are the provider's to judge."""
    assert valid(name, body) is good
