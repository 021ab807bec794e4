"""Admin requests from the shell: to a running server, or in this process on the file itself, by the same routes."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from typing import Any

import httpx

from ledger.errors import LedgerLocked
from proxy.config import Config

__all__ = ["request"]


async def request(
    config: Callable[[], Config], environment: Mapping[str, str], method: str, path: str, fields: Mapping[str, str]
) -> tuple[int, dict[str, Any]]:
    """Carry out one admin request; returns the status and the JSON answered, also for refusals."""
    url = environment.get("FAREBOX_URL")
    if url:
        key = environment.get("FAREBOX_ADMIN_KEY", "")
        async with httpx.AsyncClient(base_url=url, timeout=30) as client:
            try:
                return await _send(client, key, method, path, fields)
            except httpx.HTTPError as error:
                return 503, _problem(f"{url} does not answer: {error}")
    from proxy.app import build_app, open_services

    key = secrets.token_urlsafe(32)
    try:
        async with open_services(config(), {"FAREBOX_ADMIN_KEY": key}, f"farebox {method} {path}") as (services, _):
            transport = httpx.ASGITransport(build_app(services))
            async with httpx.AsyncClient(transport=transport, base_url="http://farebox") as client:
                return await _send(client, key, method, path, fields)
    except LedgerLocked as error:
        return 503, _problem(f"{error}; set FAREBOX_URL and FAREBOX_ADMIN_KEY to go through that server")


async def _send(
    client: httpx.AsyncClient, key: str, method: str, path: str, fields: Mapping[str, str]
) -> tuple[int, dict[str, Any]]:
    response = await client.request(
        method,
        f"/admin/v1{path}",
        headers={"authorization": f"Bearer {key}"},
        params=fields if method == "GET" else None,
        json=dict(fields) if method in ("POST", "PATCH") else None,
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
