"""`GET /v1/prices`: what everything costs, for people who have no key yet."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ledger.ids import microseconds
from pricing.amounts import format_credits
from pricing.conditions import moment
from pricing.receipt import format_quantity
from pricing.table import Bound, OperationPrice
from proxy.choice import OperationConfig
from proxy.config import Config, ModelConfig
from proxy.jsonapi import timestamp
from proxy.keeper import Keeper
from proxy.plans import PlanConfig
from proxy.price_list import model_object, rules_object
from proxy.services import Services
from proxy.typical import typical_cost, usual

__all__ = ["Offered", "Published", "offered", "published", "public_prices", "routes"]

_CACHED_SECONDS = 5


@dataclass(frozen=True, slots=True)
class Offered:
    """What is offered now: config: with the prices in force, since `effective_at`; upcoming: later versions, from when.

    now: to the minute, in microseconds, as prices may depend on the time of day.
    """

    config: Config
    now: int
    effective_at: int | None
    upcoming: tuple[tuple[int, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Published:
    """A page's or document's bytes, and the tag that changes when they do."""

    body: bytes
    tag: str
    media_type: str
    headers: Mapping[str, str]

    def answer(self, request: Request) -> Response:
        """Answer it, or 304 to who has it already."""
        known = request.headers.get("if-none-match", "")
        headers = {"etag": self.tag, "cache-control": f"public, max-age={_CACHED_SECONDS}", **self.headers}
        if known.strip() == "*" or self.tag in (part.strip().removeprefix("W/") for part in known.split(",")):
            return Response(status_code=304, headers=headers)
        return Response(self.body, headers=headers, media_type=self.media_type)


def published(body: bytes, media_type: str, headers: Mapping[str, str] | None = None) -> Published:
    """Tag what is published by its content."""
    return Published(body, f'"{hashlib.sha256(body).hexdigest()[:32]}"', media_type, headers or {})


def offered(
    services: Services, keeper: Keeper | None, publish: Callable[[Offered], Published]
) -> Callable[[], Published]:
    """Make what publishes the prices of now; it is made anew only when something of it changed.

    Anybody may ask, as often as they like, and a thousand models take their time.
    """
    last: tuple[Offered, Published] | None = None

    def current() -> Published:
        nonlocal last
        now = microseconds()
        upcoming = () if keeper is None else keeper.upcoming
        effective_at = None if keeper is None else keeper.effective_at
        offer = Offered(
            services.config,
            now - now % 60_000_000,
            effective_at,
            tuple((begins, table.version) for begins, table in upcoming),
        )
        if last is None or not _alike(last[0], offer):
            last = (offer, publish(offer))
        return last[1]

    return current


def _alike(before: Offered, after: Offered) -> bool:
    # The config is swapped whole; to compare all of it would take longer than to publish it.
    return (
        before.config is after.config
        and (before.effective_at, before.upcoming) == (after.effective_at, after.upcoming)
        and moment(before.now) == moment(after.now)
    )


def routes(services: Services, keeper: Keeper | None) -> list[Route]:
    """The public price list; it takes no key."""
    current = offered(services, keeper, lambda offer: published(orjson.dumps(public_prices(offer)), "application/json"))

    async def prices(request: Request) -> Response:
        return current().answer(request)

    return [Route("/v1/prices", prices, methods=["GET"])]


def public_prices(offer: Offered) -> dict[str, Any]:
    """Show what is offered and what it costs: never who answers, what that costs the operator, or anybody's account.

    A typical call is put at the model's own price, as a call without an operation is charged, by the prices of now.
    Raises UnpricedModel.
    """
    config, table = offer.config, offer.config.table
    models = [model for model in config.models.values() if config.offers(model)]
    names = [model.name for model in models]
    custom = config.custom_pack
    return {
        "object": "prices",
        "version": table.version,
        "effective_at": timestamp(offer.effective_at),
        "credit": {
            "name": config.credit.name,
            "plural": config.credit.plural,
            "usd": format(config.credit.usd, "f"),
            "show": config.credit.show,
        },
        "models": [_model(config, model, offer.now) for model in models],
        "operations": [
            _operation(operation, table.operations[name])
            for name, operation in config.operations.items()
            if any(operation.fits(operation.endpoint or "", model) for model in names)
        ],
        "surcharges": rules_object(table.surcharges, None, None),
        "plans": [_plan(plan, names) for plan in config.plans.values()],
        "packs": [
            {
                "id": pack.name,
                "title": pack.title,
                "price": pack.price,
                "credits": format_credits(pack.amount),
                "bonus": format_credits(bonus) if (bonus := pack.bonus(config.credit.usd)) else None,
            }
            for pack in config.packs.values()
        ],
        "custom_pack": None if custom is None else {"min": custom.least, "max": custom.most},
        "top_up_url": config.top_up_url,
        "upcoming": [{"effective_from": timestamp(begins), "version": version} for begins, version in offer.upcoming],
    }


def _model(config: Config, model: ModelConfig, now: int) -> dict[str, Any]:
    price = config.table.models[model.name]
    usage = config.typical.get(model.name) or usual(price)
    cost = typical_cost(config.table, model.name, usage, model.upstream.attributes, now)
    return {
        **model_object(model, price),
        "typical": {
            "usage": {meter: format_quantity(quantity) for meter, quantity in usage.items()},
            "cost": None if cost is None else format_credits(cost),
        },
        "plans": [plan.name for plan in config.plans.values() if plan.has(model.name)],
    }


def _operation(operation: OperationConfig, price: OperationPrice) -> dict[str, Any]:
    low, high = operation.typical or (price.least, price.most)
    return {
        "id": operation.name,
        "title": operation.title,
        "class": operation.klass,
        "endpoint": operation.endpoint,
        "model": operation.model,
        "low": _amount(low),
        "high": _amount(high),
        "per": "run" if price.per_run else "call",
        "multiply": price.multiply_text or None,
        "price": rules_object(price.rules, None, None) or None,
    }


def _amount(bound: Bound | None) -> str | None:
    return None if bound is None else format_credits(bound.nano)


def _plan(plan: PlanConfig, models: list[str]) -> dict[str, Any]:
    given = plan.given
    return {
        "id": plan.name,
        "title": plan.title,
        "price": plan.price,
        "allowances": [
            {"bucket": each.bucket, "credits": format_credits(each.amount), "per": each.every}
            for each in given.allowances
        ],
        "models": None if plan.models is None else [name for name in models if plan.has(name)],
        "renews": "calendar" if any(each.calendar for each in given.allowances) else "anniversary",
        "overdraft_limit": format_credits(given.overdraft_limit),
    }
