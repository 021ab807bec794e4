"""`GET /v1/credits/events`: the balance, sent again after each change."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping

import orjson
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from proxy.caller import headers_of, identify
from proxy.credits import balance_object
from proxy.errors import ApiError
from proxy.people.callers import Caller
from proxy.services import Services

__all__ = ["routes"]

_LOOK_SECONDS = 15.0
_SHARED_LOOK_SECONDS = 1.0
"""Where other processes change balances too, they are looked at more often."""
_SETTLING_SECONDS = 0.05


def routes(services: Services) -> list[Route]:
    """The events' route; open at zero credits."""

    async def events(request: Request) -> Response:
        caller = await identify(services, headers_of(request.scope))
        if request.method == "HEAD":
            # It has no body to end it by.
            return Response(media_type="text/event-stream")
        return StreamingResponse(
            _balances(services, headers_of(request.scope), caller),
            media_type="text/event-stream",
            headers={"cache-control": "no-cache", "x-accel-buffering": "no"},
        )

    return [Route("/v1/credits/events", events)]


async def _balances(services: Services, headers: Mapping[bytes, bytes], caller: Caller) -> AsyncIterator[bytes]:
    account, scopes = caller.account_id, caller.scopes
    with services.watching(account) as changed:
        last = b""
        while not services.draining:
            # Cleared before the look, so that a change during it is looked at again.
            changed.clear()
            try:
                await identify(services, headers)
            except ApiError:
                # The key was revoked since.
                return
            balance = orjson.dumps(await balance_object(services.ledger, services.config, account, scopes))
            if balance != last:
                last = balance
                yield b"event: balance\ndata: " + balance + b"\n\n"
            else:
                yield b": nothing new\n\n"
            try:
                # Time changes balances too: what expires is seen at the next look at the latest.
                async with asyncio.timeout(_SHARED_LOOK_SECONDS if services.people.shared else _LOOK_SECONDS):
                    await changed.wait()
                # A call's hold and settlement, or many calls at once, are one event.
                await asyncio.sleep(_SETTLING_SECONDS)
            except TimeoutError:
                continue
