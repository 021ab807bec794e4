"""What callers see of their credits: balance, receipts, models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ledger.book import Balance
from ledger.ledger import Ledger
from ledger.model import ALLOWANCE, Grant, Limit
from ledger.plans import main_allowances
from ledger.rules import Plan
from ledger.usage import Recorded
from pricing.amounts import format_credits
from pricing.table import PriceTable
from proxy.caller import headers_of, identify
from proxy.config import Config, ModelConfig
from proxy.errors import ApiError, bad_request
from proxy.explain import explained
from proxy.ids import account_id, object_id, parse_object
from proxy.jsonapi import JSON, answer, timestamp
from proxy.price_list import model_object
from proxy.services import Services

__all__ = ["balance_object", "grant_object", "limit_object", "receipt_object", "routes"]


def routes(services: Services) -> list[Route]:
    """The caller's routes; all of them are open at zero credits."""

    async def credits(request: Request) -> Response:
        caller = await identify(services, headers_of(request.scope))
        return answer(await balance_object(services.ledger, services.config, caller.account_id, caller.scopes))

    async def receipt(request: Request) -> Response:
        caller = await identify(services, headers_of(request.scope))
        return answer(await find_receipt(services, request, caller.account_id, member=caller.member))

    async def models(request: Request) -> Response:
        await identify(services, headers_of(request.scope))
        config = services.config
        data = [_model_object(model, config.table) for model in config.models.values() if config.offers(model)]
        return JSON({"object": "list", "data": data})

    async def model(request: Request) -> Response:
        await identify(services, headers_of(request.scope))
        name = request.path_params["name"]
        config = services.config
        found = config.models.get(name)
        if found is None or not config.offers(found):
            raise ApiError(404, "model_not_found", f"There is no model `{name[:80]}` here", param="model")
        return answer(_model_object(found, config.table))

    return [
        Route("/v1/credits", credits),
        Route("/v1/credits/receipts/{id}", receipt),
        Route("/v1/models", models),
        Route("/v1/models/{name:path}", model),
    ]


def _model_object(model: ModelConfig, table: PriceTable) -> dict[str, Any]:
    return {
        "object": "model",
        "created": 0,
        "owned_by": model.upstream.name,
        **model_object(model, table.models[model.name]),
    }


_FOR_OPERATORS = (
    *("attempts", "first_byte_ms", "ended_ms", "body_sha256", "retry_count", "messages"),
    *("input_by_role", "input_lengths", "attributes", "priced_as"),
)


async def find_receipt(
    services: Services, request: Request, account: int | None, *, member: str | None = None, operator: bool = False
) -> dict[str, Any]:
    """Find the receipt of a path's id; account, member: whose it must be, None for anybody's. Raises ApiError 404.

    With `?explain=1` it is explained. operator: with what callers are not shown, such as how the upstream did it.
    """
    explain = request.query_params.get("explain", "0")
    if explain not in ("0", "1"):
        raise bad_request("`explain` must be 0 or 1", "explain", status=422)
    ids = parse_object("req", request.path_params["id"])
    recorded = None
    if ids is not None and account in (None, ids[1]):
        recorded = await services.ledger.receipt(ids[1], ids[0])
    memo: Mapping[str, Any] = {} if recorded is None else orjson.loads(recorded.memo)
    if ids is None or recorded is None or member not in (None, memo.get("member")):
        raise ApiError(404, "not_found", "There is no such receipt")
    shown = receipt_object(ids[1], recorded)
    if explain == "1":
        balance = await services.ledger.balance(ids[1])
        shown["explanation"] = await explained(services, shown, memo, balance.plan, recorded.created_at)
    if operator:
        shown |= {name: memo.get(name) for name in _FOR_OPERATORS} | _margin(services.config, recorded, memo)
        shown["account"] = account_id(ids[1])
    return shown


def _margin(config: Config, recorded: Recorded, memo: Mapping[str, Any]) -> dict[str, Any]:
    """What the provider took and what is left, in dollars: of what was charged and not given back; null if unknown."""
    attempts = [
        {**attempt, "cost": _dollars(attempt.get("cost"))} if isinstance(attempt, dict) else attempt
        for attempt in memo.get("attempts") or ()
    ]
    cost = memo.get("cost")
    if not isinstance(cost, int):
        return {"cost_usd": None, "margin_usd": None, "attempts": attempts}
    usd = Fraction(str(memo.get("usd", config.credit.usd)))
    sold = round((recorded.charged - recorded.refunded) * usd)
    return {"cost_usd": _dollars(cost), "margin_usd": _dollars(sold - cost), "attempts": attempts}


def _dollars(nanodollars: object) -> str | None:
    return format_credits(nanodollars) if isinstance(nanodollars, int) else None


def receipt_object(account: int, recorded: Recorded) -> dict[str, Any]:
    """Show a call's receipt."""
    memo: Mapping[str, Any] = orjson.loads(recorded.memo)
    return {
        "object": "credits.receipt",
        "id": object_id("req", recorded.hold_id, account),
        "status": recorded.status,
        "ended": memo["ended"],
        "endpoint": memo["endpoint"],
        "model": memo["model"],
        "upstream_model": memo["upstream_model"],
        "operation": memo["operation"],
        "app": memo["app"],
        "thread": memo["thread"],
        "run": memo["run"],
        "key": memo["key"],
        "member": memo.get("member"),
        "price_version": memo["price_version"],
        "estimated": memo["estimated"],
        "shortened_to": memo["shortened_to"],
        "lines": [{**line, "amount": format_credits(line["amount"])} for line in memo["lines"]],
        "total": format_credits(recorded.charged),
        "paid_from": [
            {
                "grant": object_id("grant", paid.grant_id, account),
                "bucket": paid.bucket,
                "amount": format_credits(paid.amount),
            }
            for paid in recorded.paid_from
        ],
        "debt": format_credits(recorded.debt),
        "refunded": format_credits(recorded.refunded),
        "reward": "0",
        "created_at": timestamp(recorded.created_at),
        "settled_at": timestamp(recorded.ended_at),
    }


async def balance_object(ledger: Ledger, config: Config, account: int, scopes: Sequence[str] = ()) -> dict[str, Any]:
    """Show what an account has; scopes: of whom the spend limits are shown too."""
    balance = await ledger.balance(account)
    limits = await ledger.limits(account) if scopes else {}
    counts = {count.bucket: count for count in await ledger.bucket_counts(account)}
    plan = config.rules.plans.get(balance.plan or "")
    # What a plan no longer gives does not reset, though its last period may still be on.
    renewed = [allowance.bucket for allowance in plan.allowances] if plan else []
    periods = {bucket: balance.periods[bucket] for bucket in renewed if bucket in balance.periods}
    buckets = []
    for name in [*config.buckets, *sorted(counts.keys() - config.buckets.keys())]:
        within = [entry for entry in balance.grants if entry[0].bucket == name]
        count = counts.get(name)
        period = periods.get(name)
        used_up = [spent for bucket, spent in balance.used_up if bucket == name]
        allowed = len(used_up) + sum(entry[0].source == ALLOWANCE for entry in within)
        configured = config.buckets.get(name)
        buckets.append(
            {
                "bucket": name,
                "title": configured.title if configured else name,
                "remaining": format_credits(sum(left for _, left, _ in within)),
                "held": format_credits(sum(held for _, _, held in within)),
                "granted": format_credits(sum(grant.granted for grant, _, _ in within) + sum(used_up)),
                "grants": (count.grants if count else 0) + allowed,
                "exhausted": (count.exhausted if count else 0) + len(used_up),
                "resets_at": timestamp(period.ends_at) if period else None,
            }
        )
    return {
        "object": "credits.balance",
        "account": account_id(account),
        "plan": balance.plan,
        "timezone": balance.timezone,
        "usd_per_credit": format(config.credit.usd, "f"),
        "available": format_credits(balance.available),
        "held": format_credits(balance.held),
        "debt": format_credits(balance.debt),
        "overdraft_limit": format_credits(balance.overdraft_limit),
        "low": _is_low(balance),
        **_period_members(balance, plan),
        "limits": [
            {**dict(zip(("of", "id"), scope.split(":", 1), strict=True)), **limit_object(limits[scope])}
            for scope in scopes
            if scope in limits
        ],
        "buckets": buckets,
        "grants": [
            grant_object(account, grant, left, held, burns)
            for burns, (grant, left, held) in enumerate(balance.grants, start=1)
        ],
    }


def _period_members(balance: Balance, plan: Plan | None) -> dict[str, str | None]:
    """What the plan gives in its longest period, what was spent of it, and when the next begins."""
    main = [a.bucket for a in main_allowances(plan) if a.bucket in balance.periods]
    if not main:
        return {"monthly_limit": None, "used": None, "resets_at": None}
    given = [entry for entry in balance.grants if entry[0].bucket in main and entry[0].source == ALLOWANCE]
    used_up = sum(spent for bucket, spent in balance.used_up if bucket in main)
    return {
        "monthly_limit": format_credits(sum(balance.periods[bucket].granted for bucket in main)),
        "used": format_credits(sum(grant.granted - left for grant, left, _ in given) + used_up),
        "resets_at": timestamp(min(balance.periods[bucket].ends_at for bucket in main)),
    }


def limit_object(limit: Limit) -> dict[str, Any]:
    """Show a spend limit as of now."""
    return {
        "credits": format_credits(limit.amount),
        "per": limit.per,
        "spent": format_credits(limit.spent),
        "reserved": format_credits(limit.reserved),
        "resets_at": timestamp(limit.ends_at),
    }


def _is_low(balance: Balance) -> bool:
    """A tenth or less of what was granted is left."""
    return balance.available * 10 <= sum(grant.granted for grant, _, _ in balance.grants)


def grant_object(account: int, grant: Grant, left: int, held: int, burns: int | None) -> dict[str, Any]:
    """Show one grant; burns: its place in the burn-down order, None where that was not asked."""
    return {
        "object": "credits.grant",
        "id": object_id("grant", grant.grant_id, account),
        "bucket": grant.bucket,
        "source": grant.source,
        "note": grant.note,
        "paid": bool(grant.paid),
        "granted": format_credits(grant.granted),
        "remaining": format_credits(left),
        "held": format_credits(held),
        "burns": burns,
        "effective_at": timestamp(grant.effective_at),
        "expires_at": timestamp(grant.expires_at),
        "created_at": timestamp(grant.created_at),
    }
