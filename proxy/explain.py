"""A receipt explained: each line in words, what the input was made of, and what other models would have cost."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any

from pricing.amounts import format_credits
from pricing.conditions import TIME, moment
from pricing.errors import PricingError
from pricing.rating import rate
from pricing.recomputing import UsedCall
from pricing.table import PriceTable
from pricing.versions import kept_table
from pricing.words import line_in_words, shares
from proxy.choice import choose_operation, operations_of
from proxy.config import Config, ModelConfig
from proxy.credit import Credit
from proxy.errors import ApiError
from proxy.recompute import Unreadable, used_call
from proxy.services import Services
from proxy.targets import attributes_at

__all__ = ["explained"]

_MOST_KEPT = 8


async def explained(
    services: Services, receipt: Mapping[str, Any], memo: Mapping[str, Any], plan: str | None, created_at: int
) -> dict[str, Any]:
    """Explain a receipt; plan: whose models are compared. All amounts are decimal strings of credits.

    receipt: as callers see it. memo: what is kept of its call; created_at: when it was made, in microseconds.
    """
    config, version = services.config, str(memo["price_version"])
    table = await _table(services, version)
    # Of a table of a thousand models this takes its time.
    others = (
        []
        if table is None or receipt["status"] != "settled"
        else await asyncio.to_thread(_others, config, table, memo, plan, created_at)
    )
    return {
        "object": "credits.explanation",
        "summary": list(_summary(receipt, config)),
        "lines": [
            {"meter": line["meter"], "words": _line(line, config.credit), "amount": line["amount"]}
            for line in receipt["lines"]
        ],
        "input": _input(memo),
        "input_counted": memo.get("input_by_role") is not None,
        "others": others,
    }


async def _table(services: Services, version: str) -> PriceTable | None:
    """Find the table of a version: that in force, one read lately, or what is kept; None where nothing is."""
    if version == services.config.table.version:
        return services.config.table
    if version not in services.kept_tables:
        content = (await services.journal.price_contents([version])).get(version)
        if content is None:
            return None
        try:
            table = await asyncio.to_thread(kept_table, version, content)
        except PricingError as error:
            raise ApiError(500, "internal_error", f"The receipt's prices can't be read: {error}") from error
        if len(services.kept_tables) >= _MOST_KEPT:
            services.kept_tables.clear()
        services.kept_tables[version] = table
    return services.kept_tables[version]


def _line(line: Mapping[str, Any], credit: Credit) -> str:
    text = str(line["quantity"])
    quantity = int(text) if text.isdigit() else Decimal(text)
    amount = int(Decimal(line["amount"]).scaleb(9))
    return line_in_words(line["meter"], quantity, line["price"], amount, credit.plural)


def _summary(receipt: Mapping[str, Any], config: Config) -> Iterator[str]:
    plural = config.credit.plural
    if receipt["status"] != "settled":
        yield "This call is not charged." if receipt["status"] != "held" else "This call is still running."
        return
    yield f"{receipt['total']} {plural} for a call of {receipt['model']}."
    if receipt["upstream_model"] not in (None, receipt["model"]):
        yield f"It was answered by {receipt['upstream_model']}."
    if receipt["ended"] == "client_left":
        yield "Whoever asked left before the end: what had arrived by then is charged."
    if receipt["ended"] == "upstream_broke":
        yield "The answer broke off: what had arrived by then is charged."
    if receipt["estimated"]:
        yield "The provider did not say what was used, so it was counted here."
    if receipt["shortened_to"] is not None:
        yield f"The answer was limited to {receipt['shortened_to']} tokens, which is what the balance could pay."
    paid: dict[str, Decimal] = {}
    for leg in receipt["paid_from"]:
        paid[leg["bucket"]] = paid.get(leg["bucket"], Decimal(0)) + Decimal(leg["amount"])
    if paid:
        parts = (f"{amount.normalize():f} from {_title(config, bucket)}" for bucket, amount in paid.items())
        yield f"Paid: {', '.join(parts)}."
    if receipt["debt"] != "0":
        yield f"{receipt['debt']} {plural} became debt."
    if receipt["refunded"] != "0":
        yield f"{receipt['refunded']} {plural} were given back since."


def _title(config: Config, bucket: str) -> str:
    found = config.buckets.get(bucket)
    return found.title if found else bucket


def _input(memo: Mapping[str, Any]) -> list[dict[str, Any]] | None:
    """Split the input by role and kind, largest first: as counted, or by the length of the texts; None if unknown."""
    parts = memo.get("input_by_role") or memo.get("input_lengths")
    text = memo.get("usage", {}).get("input_tokens")
    if not isinstance(parts, dict) or text is None:
        return None
    weights = {f"{role} {kind}": size for role, kinds in parts.items() for kind, size in kinds.items()}
    tokens = shares(int(text), weights)
    return [
        {"role": name.split(" ")[0], "kind": name.split(" ")[1], "tokens": str(count)}
        for name, count in sorted(tokens.items(), key=lambda item: (-item[1], item[0]))
    ]


def _others(
    config: Config, table: PriceTable, memo: Mapping[str, Any], plan: str | None, created_at: int
) -> list[dict[str, Any]]:
    """What the same usage costs on the other models of a plan, cheapest first; a run's bounds are left aside."""
    try:
        call = used_call(memo)
    except Unreadable:
        return []
    operations = operations_of(table, config.operations)
    found = []
    for name in table.models:
        model = config.models.get(name)
        if model is None or not config.offers(model) or name == call.model:
            continue
        if plan not in config.plans_with.get(name, {plan}):
            continue
        named = operations.get(call.operation or "")
        operation = (
            call.operation
            if named is not None and named.fits(str(memo["endpoint"]), name)
            else choose_operation(operations, None, None, None, str(memo["endpoint"]), name)
        )
        total = _on(table, call, model, operation, created_at)
        if total is not None:
            found.append((total, {"model": name, "title": model.title, "total": format_credits(total)}))
    return [shown for _, shown in sorted(found, key=lambda each: (each[0], each[1]["model"]))]


def _on(table: PriceTable, call: UsedCall, model: ModelConfig, operation: str | None, at: int) -> int | None:
    """What a call's usage costs on a model, in nanocredits, or None where that can't be said."""
    first = next((target for target in model.targets if target.upstream.on), model.targets[0])
    try:
        card = table.card(model.name, operation, {TIME: moment(at), **attributes_at(first, call.attributes or {})})
    except PricingError:
        return None
    rating = rate(card.bounded(None, None) if card.per_run else card, call.usage, answered=call.answered is not False)
    return None if rating.unpriced else rating.total
