"""`/admin/v1`: what a change of plan would do, and test clocks."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ledger.errors import Conflict
from ledger.ids import EARLIEST, LATEST
from pricing.amounts import format_credits
from proxy.admin import account_closed, read_plan
from proxy.admin_commands import Admin
from proxy.errors import ApiError, bad_request
from proxy.ids import account_id, object_id, parse_object
from proxy.jsonapi import Fields, answer, read_fields, timestamp
from proxy.services import Services

__all__ = ["routes"]


def routes(services: Services) -> list[Route]:
    """The operator's routes for plans and test clocks."""
    handlers = _Plans(services)
    return [
        Route("/admin/v1/accounts/{account}/plan/preview", handlers.preview, methods=["POST"]),
        Route("/admin/v1/clocks", handlers.command(handlers.create_clock), methods=["POST"]),
        Route("/admin/v1/clocks/{clock}", handlers.show_clock, methods=["GET"]),
        Route("/admin/v1/clocks/{clock}/advance", handlers.command(handlers.advance_clock), methods=["POST"]),
    ]


class _Plans(Admin):
    async def preview(self, request: Request) -> Response:
        account = await self._account(request)
        fields = await read_fields(request, ("plan",))
        plan = read_plan(fields, self._services.config)
        services = self._services
        before = await services.ledger.balance(account)
        try:
            change = await services.ledger.preview_plan(account, plan)
        except Conflict:
            raise account_closed() from None
        return answer(
            {
                "object": "plan_change",
                "account": account_id(account),
                "from": before.plan,
                "to": plan,
                "effective_at": timestamp(change.at),
                # What is at once has its time from after the look at the account.
                "immediate": change.at <= (await services.ledger.balance(account)).at,
                "grants": [
                    {
                        "bucket": grant.bucket,
                        "credits": format_credits(grant.granted),
                        "expires_at": timestamp(grant.expires_at),
                    }
                    for grant in change.grants
                ],
            }
        )

    async def create_clock(self, request: Request) -> Response:
        await self._allow(request)
        fields = await read_fields(request, ("now", "reason"))
        now = _clock_time(fields, "now")
        clock = await self._services.ledger.create_clock(now, self._own_id(request))
        shown = _clock_object(clock, now)
        await self._note(request, "clock.create", None, fields, shown["id"])
        return answer(shown, 201)

    async def show_clock(self, request: Request) -> Response:
        clock, now = await self._clock(request)
        return answer(_clock_object(clock, now))

    async def advance_clock(self, request: Request) -> Response:
        clock, _ = await self._clock(request)
        fields = await read_fields(request, ("to", "reason"))
        now = _clock_time(fields, "to")
        try:
            await self._services.ledger.advance_clock(clock, now)
        except Conflict:
            raise bad_request("`to` must not be before what the clock shows", "to", status=422) from None
        shown = _clock_object(clock, now)
        await self._note(request, "clock.advance", None, fields, shown["id"])
        return answer(shown)

    async def _clock(self, request: Request) -> tuple[int, int]:
        """Read the clock of the path and what it shows; raises ApiError 404 where there is none."""
        await self._allow(request)
        ids = parse_object("clock", request.path_params["clock"])
        now = await self._services.ledger.clock(ids[0]) if ids and not ids[1] else None
        if ids is None or now is None:
            raise ApiError(404, "not_found", "There is no such clock")
        return ids[0], now


def _clock_time(fields: Fields, name: str) -> int:
    now = fields.time(name)
    if now is None:
        raise bad_request(f"`{name}` is missing; write a time such as 2026-11-21T00:00:00Z", name, status=422)
    # Ids carry times, so they bound what a clock can show; a year is left for what renews.
    if not EARLIEST <= now <= LATEST - 366 * 86_400_000_000:
        raise bad_request(f"`{name}` must lie between 2020 and 2090", name, status=422)
    return now


def _clock_object(clock: int, now: int) -> dict[str, Any]:
    return {"object": "clock", "id": object_id("clock", clock, 0), "now": timestamp(now)}
