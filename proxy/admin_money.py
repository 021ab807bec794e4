"""`/admin/v1`: what changes or shows money: void, refund, adjust, usage over all accounts, actions, audit."""

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
from proxy.admin_commands import Admin
from proxy.credits import grant_object
from proxy.errors import ApiError
from proxy.ids import account_id, object_id, parse_object
from proxy.journal import ActionRow
from proxy.jsonapi import MOST_REASON, answer, page, read_fields, read_page, timestamp
from proxy.services import Services
from proxy.usage import statement_answer, usage_answer, usage_summary

__all__ = ["routes"]


def routes(services: Services) -> list[Route]:
    """The operator's routes for money."""
    handlers = _Money(services)
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
    ]


class _Money(Admin):
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
