"""Who may answer a call, and at what price each would: what a price asks of a call comes together here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ledger.ledger import Ledger
from pricing.conditions import TIME, Attributes, moment
from pricing.table import PriceTable, RateCard
from proxy.config import ModelConfig
from proxy.errors import ApiError, bad_request
from proxy.operations.chat import TIERS, ChatCall, unpriced_tier
from proxy.targets import Target

__all__ = ["Offer", "offers_of"]

_NO_TIER = "auto"


@dataclass(frozen=True, slots=True)
class Offer:
    """One who may answer a call; attributes: what the price of its answer depends on. card: that price."""

    target: Target
    attributes: Attributes
    card: RateCard

    def priced_as(self, model: str) -> str | None:
        """The entry of the price table that prices it, None where that is the model's."""
        name = self.target.price.model
        return None if name == model else name


async def offers_of(
    table: PriceTable, ledger: Ledger, account: int, call: ChatCall, model: ModelConfig, operation: str | None
) -> tuple[Offer, ...]:
    """Find who may answer a call, in the order in which they are asked; at least one.

    What an upstream is counts before what the request says, but for a tier that the request names. Where a price
    depends on the time, it is the account's own. Who has no price is left out, as is who has none for what the call
    asks for: a tier above the usual ones, or a web search. Raises ApiError 400 naming it where that leaves nobody, and
    LedgerError where the time is not to be had.
    """
    found: list[Offer] = []
    problem: ApiError | None = None
    time: Mapping[str, str] = {}
    tier = call.attributes.get("service_tier", "")
    for target in model.targets:
        name, upstream = target.price.model, target.upstream
        # The prices in force may be others than those of the file that names who answers.
        if not upstream.on or name not in table.models:
            continue
        if tier and tier not in TIERS and not table.asks_for(name, operation, "service_tier", tier):
            problem = problem or unpriced_tier()
            continue
        attributes = call.attributes
        if upstream.attributes:
            attributes = {**attributes, **upstream.attributes}
            if tier and tier != _NO_TIER:
                # It is passed on, so it is what the provider charges.
                attributes["service_tier"] = tier
        if table.asks_time(name, operation):
            time = time or {TIME: moment(await ledger.time_of(account))}
            attributes = {**attributes, **time}
        card = table.card(name, operation, attributes)
        missing = next((meter for meter in call.needs if not card.covers(meter)), None) if call.needs else None
        if missing is None:
            found.append(Offer(target, attributes, card))
        else:
            param = call.needs[missing]
            problem = problem or bad_request(
                f"{missing} is not priced for `{model.name}`; remove `{param}`", param, code="not_supported"
            )
    if not found and problem is not None:
        raise problem
    return tuple(found)
