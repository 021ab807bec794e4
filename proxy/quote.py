"""`POST /v1/credits/quote`: what a call would hold now, without holding it."""

from __future__ import annotations

from dataclasses import replace

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ledger.book import Balance
from ledger.caps import free_of
from pricing.amounts import format_credits
from pricing.rating import rate
from pricing.table import RateCard
from proxy.admission import COUNT_BEYOND, count_input, terms_of
from proxy.caller import headers_of, identify, operation_of
from proxy.endpoints import CHAT, METERED
from proxy.errors import bad_request, not_supported
from proxy.jsonapi import answer, read_fields
from proxy.offers import offers_of
from proxy.operations import chat
from proxy.plans import not_in_plan
from proxy.serve import find_model
from proxy.services import Services

__all__ = ["routes"]


def routes(services: Services) -> list[Route]:
    """The quote's route; open at zero credits."""

    async def quote(request: Request) -> Response:
        headers = headers_of(request.scope)
        caller = await identify(services, headers)
        config = services.config
        fields = await read_fields(request, ("endpoint", "body"), most=config.max_body)
        endpoint = fields.text("endpoint") or CHAT
        if endpoint not in METERED:
            raise bad_request(f"`endpoint` must be one of {', '.join(METERED)}", "endpoint", status=422)
        if endpoint != CHAT:
            raise not_supported(f"the endpoint {endpoint}", "endpoint")
        fields.mapping("body")
        # As it is written, not written again: its bytes are what a hold is made of.
        call = chat.parse(fields.written("body"))
        model = find_model(config, call.model)
        operation = operation_of(config, caller, headers, endpoint, model)
        offers = await offers_of(config.table, services.ledger, caller.account_id, call, model, operation)
        terms = terms_of(call, model, offers, headers, None)
        balance = await services.ledger.balance(caller.account_id)
        if (plans := config.plans_with.get(model.name)) is not None and balance.plan not in plans:
            raise not_in_plan(model.name, balance.plan, config.plans)
        counted = (await count_input(services.counter, call, model)).total
        headroom, unheld = _headroom(balance)
        limits = await services.ledger.limits(caller.account_id)
        for limit in (limits[scope] for scope in caller.scopes if scope in limits):
            headroom, unheld = min(headroom, free_of(limit)), min(unheld, free_of(limit, reserved=False))
        if terms.cost() * COUNT_BEYOND > balance.available or terms.cost() > headroom:
            terms = replace(terms, input_tokens=min(terms.input_tokens, counted))
            if terms.cost() > unheld:
                terms = terms.shortened(unheld) or terms
        most = terms.cost()
        affordable = terms.affordable(max(0, unheld))
        return answer(
            {
                "object": "credits.quote",
                "model": model.name,
                "operation": operation,
                "least": format_credits(min(_least(card, counted) for card in terms.cards)),
                "most": format_credits(most),
                "available": format_credits(balance.available),
                "fits": most <= max(headroom, 0) and balance.status == "active" and not caller.barred,
                "shortened_to": terms.shortened_to,
                "max_tokens_affordable": None if affordable is None else max(0, affordable),
                "price_version": config.table.version,
            }
        )

    return [Route("/v1/credits/quote", quote, methods=["POST"])]


def _headroom(balance: Balance) -> tuple[int, int]:
    """What a hold may take now, and what it might with nothing held, in nanocredits; below 0 under debt."""
    left = sum(left for _, left, _ in balance.grants) - balance.debt + balance.overdraft_limit
    return left - balance.held, left


def _least(card: RateCard, input_tokens: int) -> int:
    """What an answered call costs at the least: hardly any output, and its input cached where that is cheaper."""
    plain = {"request": 1, "input_tokens": input_tokens}
    return min(rate(card, plain).total, rate(card, {**plain, "cached_input_tokens": input_tokens}).total)
