"""One call's money from hold to end: the only place where prices and the ledger meet on the paid path."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace

from ledger.commands import RunShare, Settle, Void
from ledger.errors import Conflict, LedgerError, Overloaded
from ledger.ledger import Ledger
from ledger.model import Limit, Run
from ledger.outcomes import Ended, Held, Refused
from pricing.amounts import MAX_CREDITS, NANO, format_credits
from pricing.rating import in_run, of_surcharges, rate
from pricing.receipt import Rating
from pricing.table import RateCard
from pricing.usage import Usage
from proxy.errors import ApiError
from proxy.jsonapi import timestamp
from proxy.pending import Pending
from proxy.receipts import UPSTREAM_ERROR, CallMemo

__all__ = ["Charge", "ledger_refusal", "refused", "run_share"]

_log = logging.getLogger("farebox.charge")
_NOTHING = Rating((), 0)
_MOST = MAX_CREDITS * NANO
_MOST_WRITTEN = 2**63 - 1


class Charge:
    """A held call; it ends once, by settling or voiding, and whoever ends it again gets the same answer.

    run: whose calls the card's bounds are for together.
    """

    def __init__(
        self,
        ledger: Ledger,
        pending: Pending,
        account_id: int,
        held: Held,
        card: RateCard,
        memo: CallMemo,
        run: str | None = None,
    ) -> None:
        self._ledger = ledger
        self._pending = pending
        self._account_id = account_id
        self._card = card
        self._memo = memo
        self._run = run
        self.held = held
        self.ending = False

    def sold_at(self, card: RateCard, memo: CallMemo) -> None:
        """Say who is to be paid for: of all whose price the hold covers, whoever answers."""
        self._card, self._memo = card, memo

    def can_charge(self, usage: Usage) -> bool:
        """Whether the usage's price is an amount that can be charged at all, at most 10⁹ credits, and written down."""
        rating = rate(self._card, usage)
        return rating.total <= _MOST and all(abs(line.amount) <= _MOST_WRITTEN for line in rating.lines)

    async def settle(
        self,
        usage: Usage,
        ended: str,
        *,
        estimated: bool = False,
        answered: bool = True,
        or_void: bool = False,
        performed: Mapping[str, object] | None = None,
        answer: bytes | None = None,
    ) -> Ended:
        """Charge what was used; durable when this returns. answer: is kept with it for the call's idempotency key.

        Raises Conflict, after voiding, above 10⁹ credits: ask `can_charge` first. Raises LedgerError when the store
        can't commit; the end is then tried again until it can, and voids instead
        of charging where `or_void` says that nothing is delivered without this settlement.
        """
        # Between the bounds of its run a call comes only in the ledger, under the account's lock.
        card = self._card if self._run is None else self._card.bounded(None, None)
        rating = rate(card, usage, answered=answered)
        if rating.unpriced:
            _log.error("model %s used what its price does not cover: %s", self._card.model, ", ".join(rating.unpriced))
        if rating.total > _MOST:
            await self.void(UPSTREAM_ERROR)
            raise Conflict(f"a charge of {format_credits(rating.total)} credits can't be posted")

        def memo(rating: Rating, before: Run | None = None) -> bytes:
            return self._memo.ended(
                ended,
                rating,
                usage,
                estimated=estimated,
                answered=answered,
                run_before=None if before is None else before._asdict(),
                performed=performed,
            )

        hold_id, rest, share = self.held.hold.hold_id, rating.total, None
        if self._run is not None:
            rest = of_surcharges(card, rating)
            raw = rating.total - rest
            share = run_share(self._card, self._run, self._memo.operation, raw, floor=answered)
            share = replace(share, close=lambda run, charged: memo(in_run(self._card, rating, raw, charged), run))
        command = Settle(self._account_id, hold_id, rest, memo(rating), share, answer)
        return await self._end(command, self._void(UPSTREAM_ERROR) if or_void else command)

    async def void(self, ended: str, performed: Mapping[str, object] | None = None) -> Ended:
        """End without a charge."""
        command = self._void(ended, performed)
        return await self._end(command, command)

    def _void(self, ended: str, performed: Mapping[str, object] | None = None) -> Void:
        memo = self._memo.ended(ended, _NOTHING, {}, estimated=False, answered=False, performed=performed)
        return Void(self._account_id, self.held.hold.hold_id, memo)

    async def _end(self, command: Settle | Void, later: Settle | Void) -> Ended:
        self.ending = True
        outcome = await self._pending.see_through(self._ledger, command, later)
        assert isinstance(outcome, Ended)
        return outcome


def run_share(card: RateCard, run: str, operation: str | None, raw: int, *, floor: bool = True) -> RunShare:
    """A call's share of its run, which the card's bounds are for."""
    least, most = (None if bound is None else bound.nano for bound in (card.least, card.most))
    return RunShare(run, operation or "", raw, least, most, floor)


def refused(refusal: Refused, max_tokens: int | None, top_up_url: str | None, say: Callable[[int], str]) -> ApiError:
    """Say why a hold was refused, with the figures that a caller or its app can act on.

    max_tokens: the largest output limit that would fit with nothing held, None where output is free. say: writes an
    amount for people.
    """
    if refusal.reason in ("suspended", "closed"):
        return ApiError(403, "account_suspended", f"This account is {refusal.reason}; its calls are refused")
    if refusal.reason == "limit" and refusal.limit is not None:
        return _limit_reached(refusal, refusal.limit, max_tokens, say)
    most = None if max_tokens is None else max(0, max_tokens)
    needed, available = format_credits(refusal.needed), format_credits(refusal.available)
    extra: Mapping[str, object] = {
        "needed": needed,
        "available": available,
        "held": format_credits(refusal.held),
        "debt": format_credits(refusal.debt),
        "fits_at": timestamp(refusal.fits_at),
        "top_up_url": top_up_url,
        "max_tokens_affordable": most,
    }
    figures = f"it needs up to {say(refusal.needed)} and {say(refusal.available)} are available"
    if refusal.reason == "held":
        return ApiError(
            402,
            "credits_held",
            f"Running calls of this account hold {say(refusal.held)} for the moment: {figures}."
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


def _limit_reached(refusal: Refused, limit: Limit, max_tokens: int | None, say: Callable[[int], str]) -> ApiError:
    """Say which spend limit is in the way; it may be only for as long as own calls run."""
    kind, _, name = limit.scope.partition(":")
    left = max(0, limit.amount - limit.spent - limit.reserved)
    passing = refusal.needed <= limit.amount - limit.spent
    per = "" if limit.per == "ever" else f" a {limit.per}"
    resets = f"; it resets at {timestamp(limit.ends_at)}" if limit.per != "ever" else ""
    return ApiError(
        402,
        "spend_limit_reached",
        f"This {kind} may spend {say(limit.amount)}{per}: the call needs up to {say(refusal.needed)}"
        f" and {say(left)} are left{resets}",
        extra={
            "needed": format_credits(refusal.needed),
            "limit": {
                "of": kind,
                "id": name,
                "credits": format_credits(limit.amount),
                "per": limit.per,
                "spent": format_credits(limit.spent),
                "reserved": format_credits(limit.reserved),
            },
            "resets_at": timestamp(limit.ends_at),
            "max_tokens_affordable": None if max_tokens is None else max(0, max_tokens),
        },
        headers={"x-should-retry": "true", "retry-after": "2"} if passing else {"x-should-retry": "false"},
    )


def ledger_refusal(error: LedgerError) -> ApiError:
    """Say that the ledger could not take a call."""
    if isinstance(error, Overloaded):
        return ApiError(503, "overloaded", "The server has too many calls waiting; try again in a moment")
    return ApiError(503, "ledger_unavailable", "Credits cannot be debited at the moment, so no call is made; try again")
