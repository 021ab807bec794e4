"""`/admin/v1`: what changes or shows money: void, refund, adjust, prices, usage over all accounts, actions, audit."""

from __future__ import annotations

import asyncio
import json
from dataclasses import asdict
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ledger.audit import audit
from ledger.errors import UnknownAccount, UnknownGrant, UnknownHold
from ledger.outcomes import RefundRefused
from pricing.amounts import format_credits
from pricing.versions import kept_table
from proxy.admin_commands import Admin
from proxy.credits import grant_object
from proxy.errors import ApiError, bad_request
from proxy.ids import account_id, object_id, parse_object
from proxy.journal import ActionRow, PriceChangeRow
from proxy.jsonapi import MOST_REASON, answer, page, read_fields, read_page, timestamp
from proxy.keeper import Keeper
from proxy.price_list import prices_object
from proxy.services import Services
from proxy.usage import statement_answer, usage_answer, usage_summary

__all__ = ["routes"]


def routes(services: Services, keeper: Keeper | None) -> list[Route]:
    """The operator's routes for money; keeper: where the config can be reloaded."""
    handlers = _Money(services, keeper)
    return [
        Route("/admin/v1/grants/{grant}/void", handlers.command(handlers.void_grant), methods=["POST"]),
        Route("/admin/v1/receipts/{id}/refund", handlers.command(handlers.refund), methods=["POST"]),
        Route("/admin/v1/accounts/{account}/adjust", handlers.command(handlers.adjust), methods=["POST"]),
        Route("/admin/v1/accounts/{account}/usage", handlers.account_usage, methods=["GET"]),
        Route("/admin/v1/accounts/{account}/usage/summary", handlers.account_summary, methods=["GET"]),
        Route("/admin/v1/accounts/{account}/statement", handlers.account_statement, methods=["GET"]),
        Route("/admin/v1/usage", handlers.usage, methods=["GET"]),
        Route("/admin/v1/usage/summary", handlers.summary, methods=["GET"]),
        Route("/admin/v1/orphans", handlers.orphans, methods=["GET"]),
        Route("/admin/v1/actions", handlers.actions, methods=["GET"]),
        Route("/admin/v1/audit", handlers.audit, methods=["GET"]),
        Route("/admin/v1/prices", handlers.prices, methods=["GET"]),
        Route("/admin/v1/prices/changes", handlers.price_changes, methods=["GET"]),
        Route("/admin/v1/prices/versions/{version}", handlers.price_version, methods=["GET"]),
        Route("/admin/v1/prices/reload", handlers.command(handlers.reload), methods=["POST"]),
    ]


class _Money(Admin):
    def __init__(self, services: Services, keeper: Keeper | None) -> None:
        super().__init__(services)
        self._keeper = keeper

    def _bonus_bucket(self) -> str:
        buckets = self._services.config.buckets
        return "bonus" if "bonus" in buckets else next(iter(buckets))

    async def void_grant(self, request: Request) -> Response:
        await self._allow(request)
        fields = await read_fields(request, ("reason",))
        reason = fields.text("reason", most=MOST_REASON, required=True)
        ids = parse_object("grant", request.path_params["grant"])
        if ids is None:
            raise ApiError(404, "not_found", "There is no such grant")
        grant, account = ids
        try:
            voided = await self._services.ledger.void_grant(account, grant, reason)
        except (UnknownAccount, UnknownGrant):
            raise ApiError(404, "not_found", "There is no such grant") from None
        await self._note(request, "grant.void", account, fields, request.path_params["grant"])
        shown = grant_object(account, voided.grant, voided.held, voided.held, None)
        return answer({**shown, "voided": format_credits(voided.amount), "voided_at": timestamp(voided.voided_at)})

    async def refund(self, request: Request) -> Response:
        await self._allow(request)
        fields = await read_fields(request, ("credits", "reason", "as", "fault"))
        reason = fields.text("reason", most=MOST_REASON, required=True) or ""
        as_bonus = fields.choice("as", ("original", "bonus"), "original") == "bonus"
        fault = fields.choice("fault", ("operator",), "") == "operator"
        amount = fields.credits("credits") if fields.everything.get("credits") is not None else None
        ids = parse_object("req", request.path_params["id"])
        if ids is None:
            raise ApiError(404, "not_found", "There is no such receipt")
        hold, account = ids
        services, bonus = self._services, self._bonus_bucket()
        try:
            refunded = await services.ledger.refund(
                account,
                hold,
                amount,
                reason,
                bonus_bucket=bonus,
                as_bonus=as_bonus,
                operator_fault=fault,
                bonus_expires_at=None,
                refund_id=self._own_id(request),
            )
        except (UnknownAccount, UnknownHold):
            raise ApiError(404, "not_found", "There is no such receipt") from None
        if isinstance(refunded, RefundRefused):
            message = f"Only {format_credits(refunded.left)} of this charge is left to refund"
            extra = {"left": format_credits(refunded.left)}
            raise ApiError(409, "refund_exceeds_charge", message, param="credits", extra=extra)
        refund = object_id("refund", refunded.refund_id, account)
        await self._note(request, "receipt.refund", account, fields, request.path_params["id"])
        return answer(
            {
                "object": "credits.refund",
                "id": refund,
                "request": request.path_params["id"],
                "credits": format_credits(refunded.amount),
                "to": [
                    {
                        "grant": object_id("grant", back.grant_id, account),
                        "bucket": back.bucket,
                        "amount": format_credits(back.amount),
                    }
                    for back in refunded.to
                ],
                "debt_reduced": format_credits(refunded.debt_reduced),
                "reason": refunded.reason,
                "created_at": timestamp(refunded.created_at),
            },
            201,
        )

    async def adjust(self, request: Request) -> Response:
        account = await self._account(request)
        fields = await read_fields(request, ("credits", "reason", "bucket"))
        reason = fields.text("reason", most=MOST_REASON, required=True) or ""
        amount = fields.credits("credits", signed=True)
        buckets = self._services.config.buckets
        bucket = fields.choice("bucket", list(buckets), self._bonus_bucket())
        own_id = self._own_id(request)
        adjusted = await self._services.ledger.adjust(
            account, amount, bucket, reason, expires_at=None, adjustment_id=own_id
        )
        await self._note(request, "account.adjust", account, fields, account_id(account))
        return answer(
            {
                "object": "credits.adjustment",
                "account": account_id(account),
                "credits": format_credits(amount),
                "debt_reduced": format_credits(adjusted.debt_reduced),
                "debt_added": format_credits(adjusted.debt_added),
                "grant": None
                if adjusted.grant is None
                else grant_object(account, adjusted.grant, adjusted.grant.granted, 0, None),
                "taken": [
                    {
                        "grant": object_id("grant", paid.grant_id, account),
                        "bucket": paid.bucket,
                        "amount": format_credits(paid.amount),
                    }
                    for paid in adjusted.taken
                ],
                "reason": reason,
            },
            201,
        )

    async def account_usage(self, request: Request) -> Response:
        return await usage_answer(self._services, request, await self._account(request))

    async def account_summary(self, request: Request) -> Response:
        return await usage_summary(self._services, request, await self._account(request))

    async def account_statement(self, request: Request) -> Response:
        return await statement_answer(self._services, request, await self._account(request))

    async def usage(self, request: Request) -> Response:
        await self._allow(request)
        return await usage_answer(self._services, request, None)

    async def summary(self, request: Request) -> Response:
        await self._allow(request)
        return await usage_summary(self._services, request, None)

    async def orphans(self, request: Request) -> Response:
        await self._allow(request)
        limit, after = read_page(request)
        ids = parse_object("req", after) if after else None
        found = await self._services.ledger.orphans(limit + 1, ids or (0, 0) if after else None)
        rows = [
            {
                "object": "orphan",
                "id": object_id("req", row.hold_id, row.account_id),
                "account": account_id(row.account_id),
                "status": row.status,
                "created_at": timestamp(row.created_at),
                "released_at": timestamp(row.ended_at),
            }
            for row in found
        ]
        return page(rows, limit)

    async def actions(self, request: Request) -> Response:
        await self._allow(request)
        limit, after = read_page(request)
        ids = parse_object("act", after) if after else None
        rows = await self._services.journal.actions(limit + 1, ids[0] if ids else 0 if after else None)
        return page([_action_object(row) for row in rows], limit)

    async def audit(self, request: Request) -> Response:
        await self._allow(request)
        result = await asyncio.to_thread(audit, self._services.ledger.path)
        return answer(
            {
                "object": "audit",
                "clean": result.clean,
                "findings": [{"invariant": f.invariant, "rows": f.rows} for f in result.findings],
                "totals": {name: format_credits(amount) for name, amount in result.totals.items()},
                "checked": result.checked,
                "sealed": asdict(result.sealed),
            }
        )

    async def prices(self, request: Request) -> Response:
        await self._allow(request)
        config, keeper = self._services.config, self._keeper
        shown: dict[str, Any] = {
            "object": "prices",
            "version": config.table.version,
            "effective_at": timestamp(keeper.effective_at) if keeper else None,
            "last_error": keeper.last_error if keeper else None,
        }
        upcoming = [] if keeper is None else keeper.upcoming
        shown["upcoming"] = [
            {"effective_from": timestamp(begins), "version": table.version} for begins, table in upcoming
        ]
        return answer({**shown, **prices_object(config.table, config.operations)})

    async def price_changes(self, request: Request) -> Response:
        await self._allow(request)
        limit, after = read_page(request)
        rows = await self._services.journal.price_changes(limit + 1, _number(after) if after else None)
        return page([_price_change(row) for row in rows], limit)

    async def price_version(self, request: Request) -> Response:
        await self._allow(request)
        version = request.path_params["version"]
        content = (await self._services.journal.price_contents([version])).get(version)
        if content is None:
            raise ApiError(404, "not_found", "No such version of the prices was ever in force")
        shown = prices_object(kept_table(version, content), self._services.config.operations)
        return answer({"object": "prices.version", "version": version, **shown})

    async def reload(self, request: Request) -> Response:
        await self._allow(request)
        if self._keeper is None:
            raise ApiError(409, "not_serving", "There is no running server whose config could be reloaded")
        problem = await self._keeper.reload("admin, by POST /admin/v1/prices/reload")
        if problem is not None:
            raise bad_request(f"The config is not in force, the one before it still is: {problem}", status=422)
        await self._note(request, "prices.reload", None, None)
        return await self.prices(request)


def _number(after: str) -> int:
    if not after.removeprefix("change_").isdigit():
        raise bad_request("`after` is the id of the last change seen, such as change_7", "after", status=422)
    return min(int(after.removeprefix("change_")), 2**62)


def _price_change(row: PriceChangeRow) -> dict[str, Any]:
    said = dict(json.loads(row.words))
    return {
        "object": "prices.change",
        "id": f"change_{row.change_id}",
        "at": timestamp(row.at),
        "actor": row.actor,
        "steps": [
            {
                "effective_from": timestamp(begins) if begins else None,
                "version": version,
                "changes": said.get(begins, []),
            }
            for begins, version in json.loads(row.steps)
        ],
    }


def _action_object(row: ActionRow) -> dict[str, Any]:
    return {
        "object": "action",
        "id": object_id("act", row.action_id, row.account_id or 0),
        "at": timestamp(row.at),
        "actor": row.actor,
        "command": row.command,
        "account": None if row.account_id is None else account_id(row.account_id),
        "target": row.object,
        "reason": row.reason,
        "details": json.loads(row.details),
    }
