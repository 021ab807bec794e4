"""Admin requests from the shell: to a running server, or in this process on the file itself, by the same routes."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
from collections.abc import Callable, Mapping
from typing import Any

import click
import httpx

from ledger.errors import LedgerLocked
from proxy.cli_options import fail, members, read_config, say
from proxy.config import Config

__all__ = ["admin", "request"]


def admin(method: str, path: str, given: dict[str, Any]) -> None:
    """Carry out a command's request and print what it answers; given: its options, shared ones among them.

    It goes to the running server that FAREBOX_URL names, or to the file itself. Ends the process where it is refused.
    """
    config, as_json, key = given.pop("config"), given.pop("as_json"), given.pop("idempotency_key", None)
    fields = members(given)
    status, document = asyncio.run(request(lambda: read_config(config), os.environ, method, path, fields, key))
    if status >= 400:
        error = document.get("error", {})
        fail(str(error.get("message", f"the server answered {status}")))
    if as_json:
        click.echo(json.dumps(document, ensure_ascii=False))
        return
    for item in document["data"] if document.get("object") == "list" else [document]:
        click.echo("\n".join(f"{name}: {_plain(value)}" for name, value in item.items() if value is not None) + "\n")
    if document.get("has_more"):
        say(f"There are more: --after {document['next']}")


def _plain(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


async def request(
    config: Callable[[], Config],
    environment: Mapping[str, str],
    method: str,
    path: str,
    fields: Mapping[str, Any],
    idempotency_key: str | None = None,
) -> tuple[int, dict[str, Any]]:
    """Carry out one admin request; returns the status and the JSON answered, also for refusals."""
    url = environment.get("FAREBOX_URL")
    headers = {} if idempotency_key is None else {"idempotency-key": idempotency_key}
    if url:
        headers["authorization"] = f"Bearer {environment.get('FAREBOX_ADMIN_KEY', '')}"
        async with httpx.AsyncClient(base_url=url, timeout=30) as client:
            try:
                return await _send(client, headers, method, path, fields)
            except httpx.HTTPError as error:
                return 503, _problem(f"{url} does not answer: {error}")
    from proxy.app import build_app, open_services

    # The operator's own where it is set, so that what is made of it is the same in both ways.
    key = environment.get("FAREBOX_ADMIN_KEY") or secrets.token_urlsafe(32)
    headers["authorization"] = f"Bearer {key}"
    try:
        async with open_services(config(), {"FAREBOX_ADMIN_KEY": key}, f"farebox {method} {path}") as (services, _):
            transport = httpx.ASGITransport(build_app(services))
            async with httpx.AsyncClient(transport=transport, base_url="http://farebox") as client:
                return await _send(client, headers, method, path, fields)
    except LedgerLocked as error:
        return 503, _problem(f"{error}; set FAREBOX_URL and FAREBOX_ADMIN_KEY to go through that server")


async def _send(
    client: httpx.AsyncClient, headers: Mapping[str, str], method: str, path: str, fields: Mapping[str, Any]
) -> tuple[int, dict[str, Any]]:
    response = await client.request(
        method,
        f"/admin/v1{path}",
        headers=headers,
        params=fields if method == "GET" else None,
        json=None if method == "GET" or (method == "DELETE" and not fields) else dict(fields),
    )
    try:
        document = response.json()
    except ValueError:
        document = None
    if not isinstance(document, dict):
        return 502, _problem(f"the answer is not Farebox's (status {response.status_code}); check FAREBOX_URL")
    return response.status_code, document


def _problem(message: str) -> dict[str, Any]:
    return {"error": {"message": message}}
