"""From a parsed call to a durable hold: what it can cost, whether it fits, and what would."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from ledger.commands import PlaceHold, RunShare, Void
from ledger.errors import LedgerError, LedgerUnavailable
from ledger.model import Claim, Run
from ledger.outcomes import Held, Refused
from pricing.rating import affordable_output, quote, quote_apart
from pricing.table import RateCard
from proxy.charge import ledger_refusal, refused, run_share
from proxy.config import Config, ModelConfig
from proxy.counting import TokenCounter
from proxy.errors import bad_request
from proxy.idempotency import in_progress, key_conflict
from proxy.offers import Offer
from proxy.operations.chat import ChatCall
from proxy.people.callers import Caller
from proxy.plans import not_in_plan
from proxy.receipts import CallMemo, died
from proxy.services import Services

__all__ = ["COUNT_BEYOND", "Admitted", "InputCount", "Terms", "admit", "count_input", "in_payer", "terms_of"]

COUNT_BEYOND = 4
"""The input is counted where a hold exceeds this fraction (a quarter) of what is available."""


@dataclass(frozen=True, slots=True)
class Terms:
    """What a call may use at most, output tokens a choice.

    cards: of all who may answer; it is held for the dearest, and shortened to what fits each. limit: output tokens that
    are held for. least: the limit is never shortened below this. shortened_to: the limit where the balance shortened
    it. run: whose calls the bounds are for together.
    """

    cards: tuple[RateCard, ...]
    needs: Mapping[str, str]
    input_tokens: int
    limit: int
    least: int
    choices: int
    may_shorten: bool
    shortened_to: int | None = None
    run: str | None = None

    def bound(self) -> dict[str, int]:
        """State the upper bound as usage."""
        bound = {"request": 1, "input_tokens": self.input_tokens, "output_tokens": self.limit * self.choices}
        return {**bound, **dict.fromkeys(self.needs, 1)} if self.needs else bound

    def cost(self) -> int:
        """The most that the call can cost, in nanocredits."""
        bound = self.bound()
        return max(quote(card, bound).total for card in self.cards)

    def share(self, operation: str | None) -> tuple[int, RunShare | None]:
        """What the call can cost at most apart from its share of a run, in nanocredits, and that share."""
        if self.run is None:
            return self.cost(), None
        found = [self._share(card, self.run, operation) for card in self.cards]
        rest, share = found[0]
        for other, another in found[1:]:
            rest, share = max(rest, other), _covering(share, another)
        return rest, share

    def _share(self, card: RateCard, run: str, operation: str | None) -> tuple[int, RunShare]:
        raw, rest = quote_apart(card, self.bound())
        return rest, run_share(card, run, operation, raw)

    def later_in(self, run: Run | None) -> Terms:
        """The same call as its run has it: what was charged for the run counts towards its bounds."""
        if run is None:
            return self
        return replace(self, cards=tuple(_later(card, run) for card in self.cards))

    def affordable(self, budget: int) -> int | None:
        """The largest output limit that a budget pays for; None where output is free, negative where nothing fits."""
        bound = self.bound()
        found = [affordable_output(card, bound, budget) for card in self.cards]
        output = min((output for output in found if output is not None), default=None)
        return None if output is None else output // self.choices

    def shortened(self, budget: int) -> Terms | None:
        """The same call with the largest limit that a budget pays for, or None where that is not below its own."""
        limit = self.affordable(budget)
        if not self.may_shorten or limit is None or not self.least <= limit < self.limit:
            return None
        return replace(self, limit=limit, shortened_to=limit)


def _later(card: RateCard, run: Run) -> RateCard:
    least, most = (
        None if bound is None else replace(bound, nano=max(0, bound.nano - run.charged))
        for bound in (card.least, card.most)
    )
    return card.bounded(least, most)


def _covering(share: RunShare, other: RunShare) -> RunShare:
    """A share of which either of two is part, whatever its run has come to."""
    least = max((each.least for each in (share, other) if each.least is not None), default=None)
    most = None if share.most is None or other.most is None else max(share.most, other.most)
    return replace(share, raw=max(share.raw, other.raw), least=least, most=most)


@dataclass(frozen=True, slots=True)
class Admitted:
    """A call whose upper bound is held, durably; offers: who may answer it, in the order in which they are asked."""

    offers: tuple[Offer, ...]
    terms: Terms
    held: Held
    memo: CallMemo


def in_payer(caller: Caller, run: str | None) -> str | None:
    """What a run is called in the account that pays: members of a team choose names without knowing the others'."""
    return run if run is None or caller.member is None else f"{caller.member}:{run}"


def terms_of(
    call: ChatCall, model: ModelConfig, offers: tuple[Offer, ...], headers: Mapping[bytes, bytes], run: str | None
) -> Terms:
    """Work out a call's bounds without counting its input; raises ApiError where X-Farebox-Fit is none.

    run: whose calls the cards' bounds are for together, where they are not for each.
    """
    fit = headers.get(b"x-farebox-fit")
    if fit not in (None, b"clamp"):
        raise bad_request("the header X-Farebox-Fit must be `clamp`", "X-Farebox-Fit")
    bound = call.input_bound(model.part_tokens)
    return Terms(
        cards=tuple(offer.card for offer in offers),
        needs=call.needs,
        input_tokens=bound if model.max_input_tokens is None else min(bound, model.max_input_tokens),
        limit=model.hold_output_tokens if call.limit is None else min(call.limit, model.max_output_tokens),
        least=model.min_output_tokens,
        choices=call.choices,
        may_shorten=call.limit is None or fit is not None,
        # An operation's bounds are a run's whoever answers.
        run=run if offers[0].card.per_run else None,
    )


@dataclass(frozen=True, slots=True)
class InputCount:
    """A call's input tokens, as exactly as can be known before its provider says; by_role: {role: {kind: tokens}}."""

    total: int
    by_role: Mapping[str, Mapping[str, int]]


async def count_input(counter: TokenCounter, call: ChatCall, model: ModelConfig) -> InputCount:
    """Count a call's input tokens."""
    parts = call.input_parts(model.part_tokens)
    by_role: dict[str, dict[str, int]] = {}
    total = 0
    for part, counted in zip(parts, await counter.count_each_aside([part.text for part in parts]), strict=True):
        tokens = counted + part.tokens
        total += tokens
        kinds = by_role.setdefault(part.role, {})
        kinds[part.kind] = kinds.get(part.kind, 0) + tokens
    return InputCount(total, by_role)


async def admit(
    services: Services,
    config: Config,
    caller: Caller,
    hold_id: int,
    offers: tuple[Offer, ...],
    terms: Terms,
    memo: CallMemo,
    call: ChatCall,
    model: ModelConfig,
    run_limit: int | None,
    claim: Claim | None = None,
) -> Admitted:
    """Hold what a call can cost; raises ApiError where it does not fit or the ledger can't answer.

    The first try holds the cheap bound. Where that is a large part of what is available, or does not fit, the input
    is counted; where even that does not fit and may be shortened, the output limit is.
    """

    run = in_payer(caller, memo.run)
    scopes = caller.scopes if run is None else (*caller.scopes, f"run:{run}")

    async def place(terms: Terms, within: int = 0) -> Held | Refused:
        nonlocal memo
        if terms.shortened_to is not None:
            memo = replace(memo, shortened_to=terms.shortened_to)
        cost, share = terms.share(memo.operation)
        return await services.ledger.hold(
            PlaceHold(
                caller.account_id,
                hold_id,
                cost,
                memo.held(),
                within,
                scopes=scopes,
                run_limit=run_limit,
                plans=config.plans_with.get(model.name),
                share=share,
                claim=claim,
            )
        )

    try:
        outcome = await place(terms, COUNT_BEYOND)
        if isinstance(outcome, Refused) and outcome.reason in ("large", "held", "insufficient", "limit"):
            counted = await count_input(services.counter, call, model)
            memo = replace(memo, input_by_role=counted.by_role)
            terms = replace(terms, input_tokens=min(terms.input_tokens, counted.total))
            outcome = await place(terms)
            if isinstance(outcome, Refused) and outcome.reason in ("insufficient", "limit"):
                fitting = terms.later_in(outcome.run).shortened(outcome.affordable)
                if fitting is not None:
                    terms = replace(fitting, cards=terms.cards)
                    outcome = await place(terms)
    except LedgerUnavailable as error:
        # Perhaps only the commit's answer was lost: whatever was held for this call is let go as soon as may be.
        if error.perhaps_done:
            services.pending.let_go(services.ledger, Void(caller.account_id, hold_id, died(memo.held())))
        raise ledger_refusal(error) from error
    except LedgerError as error:
        raise ledger_refusal(error) from error
    if isinstance(outcome, Refused):
        if run is not None and outcome.limit is not None and outcome.limit.scope == scopes[-1]:
            outcome = replace(outcome, limit=outcome.limit._replace(scope=f"run:{memo.run}"))
        if outcome.claimed is not None and claim is not None:
            # Even if it has been answered since this call looked for it: trying again brings the answer.
            raise in_progress() if outcome.claimed.claim.body == claim.body else key_conflict()
        if outcome.reason == "plan":
            raise not_in_plan(model.name, outcome.plan, config.plans)
        raise refused(
            outcome, terms.later_in(outcome.run).affordable(outcome.affordable), config.top_up_url, config.credit.say
        )
    return Admitted(offers, terms, outcome, memo)
