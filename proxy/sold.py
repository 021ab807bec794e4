"""What is sold and at what prices, now and from the times of `price_changes:` on."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from itertools import islice

from pricing.conditions import TIME, first_moment
from pricing.costs import cost_card
from pricing.document import Node
from pricing.doubts import compared
from pricing.parsing import price_table
from pricing.table import ModelPrice, PriceTable, Rules
from proxy.choice import OperationConfig, named, parse_operations, parse_surcharges
from proxy.models import ModelConfig, ModelsRead, parse_models
from proxy.targets import Remarks
from proxy.upstream.config import UpstreamConfig

__all__ = ["Sold", "parse_sold"]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LATEST = datetime(9000, 1, 1, tzinfo=UTC)
_DATE = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)
_MOST_WARNINGS = 20
_OF_OPERATIONS = ("min", "max", "multiply", "price", "per")


@dataclass(frozen=True, slots=True)
class Sold:
    """Models, operations and surcharges, and the table that they make; prices: by model."""

    models: Mapping[str, ModelConfig]
    operations: Mapping[str, OperationConfig]
    prices: Mapping[str, ModelPrice]
    surcharges: Rules
    table: PriceTable


def parse_sold(
    top: Mapping[str, Node], upstreams: Mapping[str, UpstreamConfig], usd: Decimal, remarks: Remarks
) -> list[tuple[int, Sold]]:
    """Read `models:`, `operations:` and `surcharges:`, and after them what each of `price_changes:` makes of them.

    Returns each with the time from which it is so, in microseconds, 0 for the first. Raises ConfigError.
    """
    parts = {name: top.get(name) for name in ("models", "operations", "surcharges")}
    read: ModelsRead = {}
    found = [(0, _sold(parts, upstreams, usd, remarks, read))]
    for item in top["price_changes"].items() if "price_changes" in top else ():
        fields = item.fields(("effective_from", "models", "operations", "surcharges"))
        if "effective_from" not in fields:
            raise item.error("`effective_from:` is missing; write from when on, such as 2026-12-01T00:00:00Z")
        begins = _moment(fields["effective_from"])
        if begins <= found[-1][0]:
            raise fields["effective_from"].error("is not after the change before it; write them in the order of time")
        if len(fields) == 1:
            raise item.error("changes nothing; name `models`, `operations` or `surcharges`")
        parts = _changed(parts, fields)
        # What is remarkable of what stays as it is was said of the first.
        found.append((begins, _sold(parts, upstreams, usd, Remarks([], remarks.doubts), read)))
    return found


def _sold(
    parts: Mapping[str, Node | None],
    upstreams: Mapping[str, UpstreamConfig],
    usd: Decimal,
    remarks: Remarks,
    read: ModelsRead,
) -> Sold:
    """Make one of them; read: models that were read for another, by what is written of them."""
    written, surcharged = parts["models"], parts["surcharges"]
    assert written is not None
    models = parse_models(named(written), upstreams, usd, remarks, read)
    surcharges = parse_surcharges(surcharged, usd) if surcharged is not None else {}
    offered = {name: (model.price, *(target.price for target in model.targets)) for name, model in models.items()}
    prices = {price.model: price for each in offered.values() for price in each}
    classes = {name: model.klass for name, model in models.items()}
    operations, operation_prices = parse_operations(parts["operations"], usd, offered, classes)
    matching = {name: operation.matching() for name, operation in operations.items()}
    table = price_table(prices, operation_prices, surcharges, matching)
    sold = Sold(models, operations, prices, surcharges, table)
    remarks.warnings.extend(islice(_below_cost(sold, usd), _MOST_WARNINGS))
    return sold


def _below_cost(sold: Sold, usd: Decimal) -> Iterator[str]:
    """Say which operations sell a model at a price that is doubtful beside what its provider takes."""
    at = {TIME: first_moment(())}
    for name, price in sold.table.operations.items():
        if price.multiply is None and not price.rules:
            continue
        operation = sold.operations[name]
        for model in sold.models.values():
            costs = model.targets[0].costs
            if costs is not None and operation.fits(operation.endpoint or "", model.name):
                card, taken = sold.table.card(model.name, name, at), cost_card(costs, at)
                for meter, said in compared(card, taken, usd):
                    yield f"operation {name}: of {model.name}, {meter}: {said}"


def _changed(parts: Mapping[str, Node | None], fields: Mapping[str, Node]) -> dict[str, Node | None]:
    """Put what a change says in place of what was there, member by member; what is null there is taken away."""
    changed = dict(parts)
    for part in ("models", "operations"):
        for name, change in fields[part].members().items() if part in fields else ():
            whole = changed[part]
            own = whole.members().get(name) if whole is not None else None
            if whole is None or own is None:
                raise change.key_error(f"there is no `{name[:40]}` among the {part} to change; add it there first")
            if part == "models":
                new = own.replacing("price", own.members()["price"].overlaid(change))
            else:
                change.fields(_OF_OPERATIONS)
                new = own.overlaid(change)
            changed[part] = whole.replacing(name, new)
    if "surcharges" in fields:
        before = changed["surcharges"]
        changed["surcharges"] = fields["surcharges"] if before is None else before.overlaid(fields["surcharges"])
    return changed


def _moment(node: Node) -> int:
    """Read a time with its offset, or a date, which begins at midnight in UTC; in microseconds since 1970."""
    text = node.text()
    at: datetime | None
    try:
        if _DATE.fullmatch(text):
            at = datetime.combine(date.fromisoformat(text), datetime.min.time(), UTC)
        else:
            at = datetime.fromisoformat(text)
        at = at.astimezone(UTC) if at.tzinfo is not None else None
    except (ValueError, OverflowError):
        at = None
    if at is None or not _EPOCH < at < _LATEST:
        raise node.error(f"must be a time such as 2026-12-01T00:00:00Z or a date such as 2026-12-01, not `{text[:40]}`")
    return (at - _EPOCH) // timedelta(microseconds=1)
