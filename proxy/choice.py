"""What a call is: the operation that its header, its key or its kind names."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal

from pricing.document import Node
from pricing.meters import INPUT, METERS, OUTPUT
from pricing.parsing import parse_bound, parse_operation_price, parse_rules
from pricing.table import Bound, ModelPrice, OperationPrice, PriceTable, Rules
from proxy.endpoints import METERED
from proxy.errors import ApiError

__all__ = [
    "OperationConfig",
    "choose_operation",
    "named",
    "operations_of",
    "parse_operations",
    "parse_surcharges",
    "title_of",
    "unreachable",
]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,63}", re.ASCII)
_OPERATION = ("title", "class", "endpoint", "model", "min", "max", "multiply", "price", "typical", "per")


@dataclass(frozen=True, slots=True)
class OperationConfig:
    """What callers do, as the operator names it. A criterion that is None matches everything.

    members: the models of its class. typical: low and high of a usual charge; for display only.
    """

    name: str
    title: str
    klass: str | None = None
    endpoint: str | None = None
    model: str | None = None
    typical: tuple[Bound, Bound] | None = None
    members: frozenset[str] | None = None

    @property
    def matches_by_itself(self) -> bool:
        """Without any criterion an operation is reached by its name only: it would be every call's otherwise."""
        return any((self.members is not None, self.endpoint, self.model))

    def matching(self) -> list[object]:
        """Everything that decides which calls match: it belongs to the price table's version."""
        return [self.endpoint, self.model, None if self.members is None else sorted(self.members)]

    def fits(self, endpoint: str, model: str) -> bool:
        return (
            self.endpoint in (None, endpoint)
            and self.model in (None, model)
            and (self.members is None or model in self.members)
        )


def choose_operation(
    operations: Mapping[str, OperationConfig],
    named: str | None,
    allowed: tuple[str, ...] | None,
    default: str | None,
    endpoint: str,
    model: str,
) -> str | None:
    """Find a call's operation: the header's, else the key's default, else the first that matches.

    allowed: the key's operations, None for all; then the first of these that fits, in the key's order, even without
    any criterion. Raises ApiError 400 for an unknown one, 403 for one that the key or the
    operation's own criteria do not allow.
    """
    if named is not None and named not in operations:
        known = ", ".join(operations) or "none"
        message = f"There is no operation `{named[:80]}`; known: {known}"
        raise ApiError(400, "unknown_operation", message, param="X-Farebox-Operation")
    chosen = named
    if chosen is None and default in operations:
        chosen = default
    if chosen is None:
        for name in operations if allowed is None else allowed:
            operation = operations.get(name)
            if operation is None or not operation.fits(endpoint, model):
                continue
            if allowed is not None or operation.matches_by_itself:
                chosen = name
                break
    if allowed is not None and chosen not in allowed:
        raise ApiError(
            403,
            "operation_not_allowed",
            f"This key may be used for {', '.join(allowed)} only, and this call is {chosen or 'none of them'}",
        )
    if chosen is not None and not operations[chosen].fits(endpoint, model):
        raise ApiError(403, "operation_not_allowed", f"The operation `{chosen}` is not for the model `{model}` here")
    return chosen


def named(node: Node) -> dict[str, Node]:
    """Read a mapping whose keys are names that the operator chose."""
    members = node.members()
    if not members:
        raise node.error("is empty; name at least one")
    for name, child in members.items():
        if not _NAME.fullmatch(name):
            raise child.key_error(f"`{name[:40]}` is no name; use up to 64 letters, digits and . _ : -")
    return members


def parse_surcharges(node: Node, usd: Decimal) -> Rules:
    """Read `surcharges:`, prices of meters that any call may add."""
    fields = node.fields(METERS)
    for name, child in fields.items():
        if METERS[name].token or METERS[name].flat:
            raise child.error(f"`{name}` is what every call has; price it at the models")
    return {name: parse_rules(child, name, usd) for name, child in fields.items()}


def parse_operations(
    node: Node | None, usd: Decimal, models: Mapping[str, Sequence[ModelPrice]], classes: Mapping[str, str | None]
) -> tuple[dict[str, OperationConfig], dict[str, OperationPrice]]:
    """Read `operations:`: what calls are, and what each does to prices; models: all prices that each may be sold at."""
    operations: dict[str, OperationConfig] = {}
    prices: dict[str, OperationPrice] = {}
    for name, child in (named(node) if node else {}).items():
        fields = child.fields(_OPERATION)
        klass = fields["class"].text() if "class" in fields else None
        if klass is not None and klass not in classes.values():
            raise fields["class"].error(f"no model has the class `{klass[:40]}`; give one `class: {klass[:40]}`")
        endpoint = fields["endpoint"].choice(METERED) if "endpoint" in fields else None
        model = fields["model"].choice(models) if "model" in fields else None
        operation = OperationConfig(
            name=name,
            title=fields["title"].text() if "title" in fields else title_of(name),
            klass=klass,
            endpoint=endpoint,
            model=model,
            typical=_typical(fields["typical"], usd) if "typical" in fields else None,
            members=None if klass is None else frozenset(each for each, other in classes.items() if other == klass),
        )
        price = parse_operation_price(name, fields, usd)
        for sold, other in ((sold, other) for sold, prices_of in models.items() for other in prices_of):
            least, most = price.least or other.least, price.most or other.most
            fits = operation.fits(endpoint or "", sold)
            merged = other.rules.keys() | price.rules.keys()
            if fits and any(METERS[meter].token for meter in merged) and not {INPUT, OUTPUT} <= merged:
                raise child.error(
                    f"for the model `{other.model}` it prices tokens but not both {INPUT} and {OUTPUT}; add the other"
                )
            if fits and least is not None and most is not None and least.nano > most.nano:
                raise child.error(
                    f"for the model `{other.model}` `min` would be {least.text} and `max` {most.text}; write both here"
                )
        operations[name], prices[name] = operation, price
    return operations, prices


def _typical(node: Node, usd: Decimal) -> tuple[Bound, Bound]:
    items = node.items()
    if len(items) != 2:
        raise node.error("must be a low and a high charge, such as [40, 400]")
    low, high = (parse_bound(item, usd) for item in items)
    if high.nano < low.nano:
        raise node.error("the low charge comes first; turn them round")
    return low, high


def unreachable(operations: Mapping[str, OperationConfig], classes: Mapping[str, str | None]) -> list[str]:
    """Say which operations no call can match by itself because an earlier one takes them all."""
    said = []
    earlier: list[OperationConfig] = []
    for operation in operations.values():
        if not operation.matches_by_itself:
            continue
        for other in earlier:
            if (
                other.klass in (None, operation.klass, classes.get(operation.model or ""))
                and other.endpoint in (None, operation.endpoint)
                and other.model in (None, operation.model)
            ):
                said.append(
                    f"operation {operation.name}: {other.name} comes first and matches all its calls;"
                    " it is reached by the header X-Farebox-Operation only"
                )
                break
        earlier.append(operation)
    return said


def operations_of(table: PriceTable, known: Mapping[str, OperationConfig]) -> dict[str, OperationConfig]:
    """The operations of a table, in its order, as it matches them; known: for their titles."""
    found = {}
    for name in table.operations:
        endpoint, model, members = table.matching.get(name) or (None, None, None)
        shown = known.get(name) or OperationConfig(name, title_of(name))
        found[name] = replace(
            shown, endpoint=endpoint, model=model, members=None if members is None else frozenset(members)
        )
    return found


def title_of(name: str) -> str:
    """Make a title of a name."""
    return name.replace("_", " ").capitalize()
