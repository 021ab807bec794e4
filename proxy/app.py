"""The one composition root: parts are made here and nowhere else, and here every route has its place."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from importlib.metadata import version

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ledger.errors import LedgerError
from ledger.ledger import Ledger
from ledger.rules import Rules
from proxy import (
    admin,
    admin_keys,
    admin_money,
    admin_plans,
    admin_prices,
    credits,
    events,
    openapi,
    public_prices,
    quote,
    usage,
)
from proxy.caller import headers_of, identify
from proxy.charge import ledger_refusal
from proxy.config import Config, UpstreamConfig
from proxy.counting import TokenCounter
from proxy.database import Database
from proxy.endpoints import CHAT, METERED
from proxy.errors import ApiError, not_supported
from proxy.ids import object_id
from proxy.journal import Journal
from proxy.jsonapi import answer
from proxy.keeper import Keeper
from proxy.limits import Limits
from proxy.once import Commands
from proxy.people.people import People
from proxy.receipts import died
from proxy.serve import PaidEndpoint
from proxy.services import Services
from proxy.telemetry.calls import CallLog
from proxy.telemetry.metrics import CONTENT_TYPE, Metrics
from proxy.upstream.demo import DemoUpstream
from proxy.upstream.openai import OpenAIUpstream
from proxy.upstream.upstream import Upstream
from proxy.web import pages

__all__ = ["build_app", "open_services", "sqlite_path"]

_log = logging.getLogger("farebox")
_PENDING_SECONDS = 3.0
_LOOK_SECONDS = 1.0


def sqlite_path(url: str) -> str:
    """The file of a `sqlite:///FILE` URL; another URL is left as it is."""
    return url.removeprefix("sqlite:///")


@asynccontextmanager
async def open_services(
    config: Config, environment: Mapping[str, str], owner: str, *, log_json: bool = False
) -> AsyncIterator[tuple[Services, str | None]]:
    """Open everything a server needs, and close it again, in order.

    Yields the services, and the admin key where it was made just now. Raises LedgerLocked if another process has the
    database.
    """
    # Loading the tokenizer stalls every thread, so it is over before anybody is listening.
    counter = TokenCounter()
    path = sqlite_path(config.database)
    metrics = Metrics(version("farebox"))
    services: Services | None = None

    def rules() -> Rules:
        # Orphans are released before there are services to ask.
        return (services.config if services else config).rules

    ledger = await Ledger.open(path, rules, owner=owner, orphan_memo=died)
    try:
        database = Database(path)
    except BaseException:
        await ledger.close()
        raise
    ledger.watch_batches(metrics.batch)
    metrics.watch_queue(lambda: ledger.waiting)
    people, journal = People(database), Journal(database)

    def make_upstream(wanted: UpstreamConfig) -> Upstream:
        return DemoUpstream(counter) if wanted.kind == "demo" else OpenAIUpstream(wanted)

    admin_digest, made_key = await people.admin_digest(environment.get("FAREBOX_ADMIN_KEY"))
    loop = asyncio.get_running_loop()
    services = Services(
        config=config,
        ledger=ledger,
        people=people,
        counter=counter,
        upstreams={name: make_upstream(upstream) for name, upstream in config.upstreams.items()},
        admin_digest=admin_digest,
        loop=loop,
        call_log=CallLog(loop, sys.stderr.write, json=log_json),
        make_upstream=make_upstream,
        journal=journal,
        commands=Commands(database),
        limits=Limits(config.limits),
        metrics=metrics,
    )
    ledger.minder.on_lapse = services.lapse
    looking = loop.create_task(_look(people)) if database.shared else None
    try:
        yield services, made_key
    finally:
        if looking is not None:
            looking.cancel()
        await services.pending.drain(_PENDING_SECONDS)
        for upstream in services.upstreams.values():
            await upstream.close()
        database.close()
        await ledger.close()
        services.call_log.flush()


async def _look(people: People) -> None:
    """Hear of keys that other processes revoke."""
    while True:
        await asyncio.sleep(_LOOK_SECONDS)
        try:
            await people.look()
        except LedgerError as error:
            _log.error("the keys could not be looked at again: %s", error)


def build_app(services: Services, keeper: Keeper | None = None) -> ASGIApp:
    """Put every route in its place; keeper: where the config can be reloaded."""

    async def healthy(request: Request) -> Response:
        return answer({"status": "ok"})

    async def ready(request: Request) -> Response:
        return answer({"status": "stopping" if services.draining else "ready"}, 503 if services.draining else 200)

    async def metrics(request: Request) -> Response:
        return Response(services.metrics.render(), media_type=CONTENT_TYPE)

    async def described(request: Request) -> Response:
        return answer(openapi.openapi_document())

    async def later(request: Request) -> Response:
        await identify(services, headers_of(request.scope))
        raise not_supported(f"the endpoint {request.url.path}")

    cold = Starlette(
        routes=[
            Route("/healthz", healthy),
            Route("/readyz", ready),
            *credits.routes(services),
            *quote.routes(services),
            *usage.routes(services),
            *events.routes(services),
            *public_prices.routes(services, keeper),
            *pages.routes(services, keeper),
            *admin.routes(services),
            *admin_keys.routes(services),
            *admin_money.routes(services),
            *admin_prices.routes(services, keeper),
            *admin_plans.routes(services),
            Route("/metrics", metrics),
            Route("/openapi.json", described),
            # The paid path never comes here; listed, it answers other methods with 405.
            *(Route(path, later, methods=["POST"]) for path in METERED),
        ],
        exception_handlers={
            ApiError: _api_error,
            LedgerError: _ledger_error,
            HTTPException: _http_error,
            Exception: _internal_error,
        },
    )
    return _Front(services, {CHAT: PaidEndpoint(services)}, cold)


class _Front:
    """Sends paid calls past the router, and gives every other answer its request id."""

    def __init__(self, services: Services, paid: Mapping[str, ASGIApp], cold: ASGIApp) -> None:
        self._services = services
        self._paid = paid
        self._cold = cold

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        if scope["method"] == "POST":
            paid = self._paid.get(scope["path"])
            if paid is not None:
                await paid(scope, receive, send)
                return
        request_id = object_id("req", self._services.ledger.next_id(), 0)
        scope["request_id"] = request_id

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"x-request-id", request_id.encode())]
            await send(message)

        await self._cold(scope, receive, send_with_id)


def _error_answer(request: Request, error: ApiError) -> Response:
    body = error.envelope(request.scope.get("request_id", ""))
    return Response(body, error.status, error.headers, "application/json")


async def _api_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    return _error_answer(request, error)


async def _ledger_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, LedgerError)
    _log.error("the ledger did not answer: %s", error)
    return _error_answer(request, ledger_refusal(error))


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    refused = ApiError(error.status_code, "not_found", f"There is no {request.method} {request.url.path[:100]} here")
    if error.status_code == 405:
        refused.code = "method_not_allowed"
        # Every method has a route of its own, and the router names the first one's only.
        there = [route for route in request.app.routes if route.matches(request.scope)[0] is not Match.NONE]
        refused.headers["allow"] = ", ".join(sorted({method for route in there for method in route.methods}))
    return _error_answer(request, refused)


async def _internal_error(request: Request, error: Exception) -> Response:
    return _error_answer(request, ApiError(500, "internal_error", "Something failed inside the server"))
