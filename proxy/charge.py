"""One call's money from hold to end: the only place where prices and the ledger meet on the paid path."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

from ledger.commands import Settle, Void
from ledger.errors import Conflict, LedgerError, Overloaded
from ledger.ledger import Ledger
from ledger.model import Ended, Held, Refused
from pricing.amounts import MAX_CREDITS, NANO, format_credits
from pricing.rating import rate
from pricing.receipt import Rating
from pricing.table import RateCard
from pricing.usage import Usage
from proxy.errors import ApiError
from proxy.pending import Pending
from proxy.receipts import UPSTREAM_ERROR, CallMemo

__all__ = ["Charge", "ledger_refusal", "refused"]

_log = logging.getLogger("farebox.charge")
_NOTHING = Rating((), 0)
_MOST = MAX_CREDITS * NANO


class Charge:
    """A held call; it ends once, by settling or voiding, and whoever ends it again gets the same answer."""

    def __init__(
        self, ledger: Ledger, pending: Pending, account_id: int, held: Held, card: RateCard, memo: CallMemo
    ) -> None:
        self._ledger = ledger
        self._pending = pending
        self._account_id = account_id
        self._card = card
        self._memo = memo
        self.held = held
        self.ending = False

    def can_charge(self, usage: Usage) -> bool:
        """Whether the usage's price is an amount that can be charged at all, at most 10⁹ credits."""
        return rate(self._card, usage).total <= _MOST

    async def settle(
        self,
        usage: Usage,
        ended: str,
        *,
        estimated: bool = False,
        answered: bool = True,
        or_void: bool = False,
        performed: Mapping[str, object] | None = None,
    ) -> Ended:
        """Charge what was used; durable when this returns.

        Raises Conflict, after voiding, above 10⁹ credits: ask `can_charge` first. Raises LedgerError when the store
        can't commit; the end is then tried again until it can, and voids instead
        of charging where `or_void` says that nothing is delivered without this settlement.
        """
        rating = rate(self._card, usage, answered=answered)
        if rating.unpriced:
            _log.error("model %s used what its price does not cover: %s", self._card.model, ", ".join(rating.unpriced))
        if rating.total > _MOST:
            await self.void(UPSTREAM_ERROR)
            raise Conflict(f"a charge of {format_credits(rating.total)} credits can't be posted")
        memo = self._memo.ended(ended, rating, usage, estimated=estimated, performed=performed)
        command = Settle(self._account_id, self.held.hold.hold_id, rating.total, memo)
        return await self._end(command, self._void(UPSTREAM_ERROR) if or_void else command)

    async def void(self, ended: str, performed: Mapping[str, object] | None = None) -> Ended:
        """End without a charge."""
        command = self._void(ended, performed)
        return await self._end(command, command)

    def _void(self, ended: str, performed: Mapping[str, object] | None = None) -> Void:
        memo = self._memo.ended(ended, _NOTHING, {}, estimated=False, performed=performed)
        return Void(self._account_id, self.held.hold.hold_id, memo)

    async def _end(self, command: Settle | Void, later: Settle | Void) -> Ended:
        self.ending = True
        outcome = await self._pending.see_through(self._ledger, command, later)
        assert isinstance(outcome, Ended)
        return outcome


def refused(refusal: Refused, max_tokens: int | None, top_up_url: str | None, say: Callable[[int], str]) -> ApiError:
    """Say why a hold was refused, with the figures that a caller or its app can act on.

    max_tokens: the largest output limit that would fit with nothing held, None where output is free. say: writes an
    amount for people.
    """
    if refusal.reason in ("suspended", "closed"):
        return ApiError(403, "account_suspended", f"This account is {refusal.reason}; its calls are refused")
    most = None if max_tokens is None else max(0, max_tokens)
    needed, available = format_credits(refusal.needed), format_credits(refusal.available)
    extra: Mapping[str, object] = {
        "needed": needed,
        "available": available,
        "held": format_credits(refusal.held),
        "debt": format_credits(refusal.debt),
        "fits_at": None,
        "top_up_url": top_up_url,
        "max_tokens_affordable": most,
    }
    figures = f"it needs up to {say(refusal.needed)} and {say(refusal.available)} are available"
    if refusal.reason == "held":
        return ApiError(
            402,
            "credits_held",
            f"Your own running calls hold {say(refusal.held)} for the moment: {figures}."
            " Try again when one of them has ended",
            extra=extra,
            headers={"x-should-retry": "true", "retry-after": "2"},
        )
    hint = f" With max_tokens {most} it would fit." if most else ""
    top_up = f" Top up at {top_up_url}" if top_up_url else ""
    return ApiError(
        402,
        "insufficient_credits",
        f"Not enough credit for this call: {figures}.{hint}{top_up}",
        extra=extra,
        headers={"x-should-retry": "false"},
    )


def ledger_refusal(error: LedgerError) -> ApiError:
    """Say that the ledger could not take a call."""
    if isinstance(error, Overloaded):
        return ApiError(503, "overloaded", "The server has too many calls waiting; try again in a moment")
    return ApiError(503, "ledger_unavailable", "Credits cannot be debited at the moment, so no call is made; try again")
