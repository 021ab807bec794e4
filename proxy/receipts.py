"""The memo that the ledger keeps with every call: what was asked, what was used, what each line cost. Never content."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import orjson

from pricing.receipt import Rating, format_quantity
from pricing.usage import Usage
from proxy.offers import Offer

__all__ = ["ANSWERED", "CLIENT_LEFT", "DIED", "UPSTREAM_BROKE", "UPSTREAM_ERROR", "CallMemo", "died"]

ANSWERED = "answered"
CLIENT_LEFT = "client_left"
UPSTREAM_BROKE = "upstream_broke"
UPSTREAM_ERROR = "upstream_error"
DIED = "died"


@dataclass(frozen=True, slots=True)
class CallMemo:
    """What is known of a call when it is admitted; body_sha256 and what follows it are for reviews of usage.

    input_by_role: tokens by role and kind, where they were counted. member: who spends a team's credits by it.
    attributes: on which its price may depend. priced_as: the entry of the price table that prices it, None where that
    is the model's.
    """

    endpoint: str
    model: str
    upstream_model: str
    operation: str | None
    app: str | None
    thread: str | None
    run: str | None
    key: str
    price_version: str
    shortened_to: int | None
    body_sha256: str = ""
    retry_count: int | None = None
    messages: int = 0
    input_by_role: Mapping[str, Mapping[str, int]] | None = None
    member: str | None = None
    attributes: Mapping[str, str] = field(default_factory=dict)
    priced_as: str | None = None

    def _common(self) -> dict[str, Any]:
        return {
            "endpoint": self.endpoint,
            "model": self.model,
            "upstream_model": self.upstream_model,
            "operation": self.operation,
            "app": self.app,
            "thread": self.thread,
            "run": self.run,
            "key": self.key,
            "member": self.member,
            "price_version": self.price_version,
            "attributes": self.attributes,
            "shortened_to": self.shortened_to,
            "body_sha256": self.body_sha256,
            "retry_count": self.retry_count,
            "messages": self.messages,
            "input_by_role": self.input_by_role,
        } | ({} if self.priced_as is None else {"priced_as": self.priced_as})

    def answered_by(self, offer: Offer) -> CallMemo:
        """The memo of the same call, answered by this one."""
        model, priced_as = offer.target.model, offer.priced_as(self.model)
        return replace(self, upstream_model=model, priced_as=priced_as, attributes=offer.attributes)

    def held(self) -> bytes:
        """Write the memo of a call that is running."""
        return orjson.dumps({**self._common(), "ended": None, "estimated": False, "lines": [], "usage": {}})

    def ended(
        self,
        ended: str,
        rating: Rating,
        usage: Usage,
        *,
        estimated: bool,
        answered: bool,
        run_before: Mapping[str, int] | None = None,
        performed: Mapping[str, Any] | None = None,
    ) -> bytes:
        """Write the memo of a call that has ended; its amounts are nanocredits, so that SQL can add them up.

        answered: whether any output was received. run_before: what its run had come to, where its bounds are for all of
        that. performed: how the upstream did it, for the operator and for reviews.
        """
        lines = [
            {
                "meter": line.meter,
                "quantity": format_quantity(line.quantity),
                "price": line.price,
                "amount": line.amount,
            }
            for line in rating.lines
        ]
        quantities = {meter: format_quantity(quantity) for meter, quantity in usage.items()}
        return orjson.dumps(
            {
                **self._common(),
                "ended": ended,
                "estimated": estimated,
                "answered": answered,
                "lines": lines,
                "usage": quantities,
            }
            | ({} if run_before is None else {"run_before": run_before})
            | dict(performed or {})
        )


def died(memo: bytes) -> bytes:
    """Turn a held call's memo into that of a call whose process died."""
    document: Mapping[str, Any] = orjson.loads(memo)
    return orjson.dumps({**document, "ended": DIED})
