"""Stored calls priced under another table: what would have come in, and whose credits would not have lasted."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal

import msgspec

from ledger.backend import Reader
from ledger.model import Run
from ledger.past import PastCall, accounts_from, as_they_ended, calls_since, count_accounts, lots_since, short_by
from ledger.readers import reader_of
from ledger.runs import share_of
from pricing.conditions import TIME, Attributes, moment
from pricing.costs import cost_of
from pricing.errors import NotKept, PricingError
from pricing.recomputing import UsedCall, rerate
from pricing.simulating import Simulated
from pricing.table import RateCard
from pricing.usage import Quantity, impossible
from proxy.charge import run_share
from proxy.choice import OperationConfig, choose_operation, operations_of
from proxy.config import Config
from proxy.receipts import CLIENT_LEFT
from proxy.recompute import Books
from proxy.targets import Target, attributes_at

__all__ = ["Dry", "Simulation", "simulate"]

_ACCOUNTS = 100
_MOST_RUNS = 10_000
_DAY = 86_400_000_000


class _Memo(msgspec.Struct):
    """What of a call's memo its price depends on, and what it is added up by."""

    endpoint: str
    model: str
    price_version: str
    usage: dict[str, str]
    upstream_model: str | None = None
    operation: str | None = None
    app: str | None = None
    run: str | None = None
    member: str | None = None
    attributes: dict[str, str] | None = None
    answered: bool | None = None
    ended: str | None = None
    run_before: dict[str, int] | None = None
    cost: int | None = None
    usd: str | None = None


_READ = msgspec.json.Decoder(_Memo)


@dataclass(frozen=True, slots=True)
class Dry:
    """An account that would have run out of credits; at: when first, in microseconds; short: nanocredits in all."""

    account_id: int
    at: int
    short: int


@dataclass(slots=True)
class Simulation:
    """What came of it; dry: accounts that would have run dry, and did not."""

    sums: Simulated = field(default_factory=Simulated)
    dry: list[Dry] = field(default_factory=list)


def simulate(where: str, draft: Config, since: int, progress: Callable[[int, int], object]) -> Simulation:
    """Price the calls of a database since a time (microseconds) under a draft, the last of its tables.

    progress: is told how many accounts are done, and of how many. Raises LedgerUnavailable. Memory stays the same
    however many calls there are; it is read in pieces, beside whoever writes.
    """
    table = draft.schedule.steps[-1][1]
    books = Books(where)
    try:
        pricer = _Pricer(draft.under(table), books)
        found, done, last = Simulation(), 0, -1
        with books.reading() as connection:
            total = count_accounts(reader_of(connection))
        while True:
            with books.reading() as connection:
                reader = reader_of(connection)
                accounts = accounts_from(reader, draft.rules, last, _ACCOUNTS)
                for account, overdraft in accounts:
                    _account(reader, pricer, found, account, overdraft, since)
            done += len(accounts)
            progress(done, max(total, done))
            if len(accounts) < _ACCOUNTS:
                return found
            last = accounts[-1][0]
    finally:
        books.close()


def _account(reader: Reader, pricer: _Pricer, found: Simulation, account: int, overdraft: int, since: int) -> None:
    """Add one account's calls, and see whether its credits had lasted."""
    before, after = 0, 0
    times, were, would = array("q"), array("q"), array("q")
    pricer.runs.clear()
    # A run's bounds are on what had ended by then.
    for call in as_they_ended(calls_since(reader, account, since)):
        priced = pricer.price(call, found.sums)
        times.append(call.created_at)
        were.append(call.charged)
        would.append(priced)
        before += call.charged
        after += priced
    found.sums.add_account(account, before, after)
    if after <= before and all(new <= old for old, new in zip(were, would, strict=True)):
        return
    lots = lots_since(reader, account, since, pricer.ranks)
    short = short_by(lots, sorted(zip(times, would, strict=True)), overdraft)
    if short is not None:
        already = short_by(lots, sorted(zip(times, were, strict=True)), overdraft)
        if already is None or short[1] > already[1]:
            found.dry.append(Dry(account, *short))


class _Pricer:
    """Prices calls under a draft; runs: what those of the account at hand have come to."""

    def __init__(self, draft: Config, books: Books) -> None:
        self._draft = draft
        self._table = draft.table
        self._books = books
        self._targets: dict[tuple[str, str | None], Target | None] = {}
        self._operations: dict[tuple[str, str, str, str | None], str | None] = {}
        self.runs: dict[tuple[str | None, str, str | None], Run] = {}
        self.ranks = draft.rules.order

    def price(self, call: PastCall, sums: Simulated) -> int:
        """What a call would be charged, in nanocredits; one that has no price is left out, and charged nothing."""
        try:
            memo = _READ.decode(call.memo)
        except msgspec.MsgspecError:
            sums.leave_out("what is kept of it can't be read; `farebox recompute` says more", call.charged, None)
            return 0
        day = call.created_at // _DAY
        target = self._target(memo)
        if target is None:
            sums.leave_out(f"there is no model {memo.model} any more", call.charged, memo.cost)
            return 0
        cost = memo.cost
        try:
            operation = self._operation(memo)
            used = self._used(memo, target, operation, call.created_at)
            after = self._rate(memo, used, operation)
            if target.model != memo.upstream_model:
                cost = None
            if cost is None and target.costs is not None:
                cost = cost_of(
                    target.costs,
                    used.usage,
                    used.attributes or {},
                    call.created_at,
                    answered=used.answered is not False,
                )
        except NotKept as error:
            sums.leave_out(f"it was made before {error}", call.charged, memo.cost)
            return call.charged
        except (PricingError, ValueError, TypeError, ArithmeticError) as error:
            sums.leave_out(str(error), call.charged, memo.cost)
            return call.charged
        sums.add((memo.model, memo.app, operation, day), call.charged, after, cost, memo.usd)
        return after

    def _target(self, memo: _Memo) -> Target | None:
        """Who answers such a call under the draft: whoever did, if they may, else who is asked first; or None."""
        key = (memo.model, memo.upstream_model)
        if key not in self._targets:
            model = self._draft.models.get(memo.model)
            found = [target for target in model.targets if target.model == memo.upstream_model] if model else []
            self._targets[key] = next(iter(found), model.targets[0] if model else None)
        return self._targets[key]

    def _used(self, memo: _Memo, target: Target, operation: str | None, at: int) -> UsedCall:
        """What of a call its price depends on, as it would be at whoever answers."""
        name = target.price.model
        attributes: Attributes | None = memo.attributes
        usage = {meter: _quantity(text) for meter, text in memo.usage.items()}
        if (problem := impossible(usage)) is not None:
            raise ValueError(f"its usage can't be: {problem}")
        if attributes is not None or target.upstream.attributes:
            attributes = attributes_at(target, attributes or {})
        if self._table.asks_time(name, operation) and TIME not in (attributes or {}):
            attributes = {**(attributes or {}), TIME: moment(at)}
        # Before this was kept, only calls whose client left were charged without any output.
        answered = memo.answered if memo.ended == CLIENT_LEFT or memo.answered is not None else True
        return UsedCall(name, operation, usage, attributes, answered)

    def _rate(self, memo: _Memo, call: UsedCall, operation: str | None) -> int:
        if memo.run is None:
            return rerate(self._table, call, None).total
        run, key = memo.run, (memo.member, memo.run, operation)
        before = self.runs.get(key)
        if before is None:
            # Begun before the first call that is looked at, or by it.
            before = Run(**memo.run_before) if memo.run_before else Run()
        following = before

        def share(card: RateCard, raw: int, answered: bool) -> int:
            nonlocal following
            charged = share_of(before, run_share(card, run, operation, raw, floor=answered))
            following = Run(before.raw + raw, before.charged + charged)
            return charged

        total = rerate(self._table, call, share).total
        if following is not before:
            # Runs are short; one that was forgotten after so many others goes on from what is kept with its call.
            self.runs.pop(key, None)
            self.runs[key] = following
            if len(self.runs) > _MOST_RUNS:
                del self.runs[next(iter(self.runs))]
        return total

    def _operation(self, memo: _Memo) -> str | None:
        """What the call is under the draft: what its header or key named, else the first that matches."""
        key = (memo.price_version, memo.endpoint, memo.model, memo.operation)
        if key not in self._operations:
            self._operations[key] = self._find_operation(memo)
        return self._operations[key]

    def _find_operation(self, memo: _Memo) -> str | None:
        matched = _first_match(self._draft.operations, memo)
        if memo.operation is None or memo.operation not in self._draft.operations:
            return matched
        try:
            before = operations_of(self._books.table(memo.price_version), {})
        except PricingError:
            return memo.operation
        named = _first_match(before, memo) != memo.operation
        return (
            memo.operation
            if named and self._draft.operations[memo.operation].fits(memo.endpoint, memo.model)
            else matched
        )


def _first_match(operations: Mapping[str, OperationConfig], memo: _Memo) -> str | None:
    return choose_operation(operations, None, None, None, memo.endpoint, memo.model)


def _quantity(text: str) -> Quantity:
    return int(text) if text.isdigit() else Decimal(text)
