"""Random lives of one account: the engine and the SQLite store against a model that keeps one item per credit."""

from __future__ import annotations

import os
import tempfile
from collections import Counter
from copy import copy
from dataclasses import fields, replace
from functools import lru_cache
from itertools import takewhile
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from ledger.book import Balance, Book
from ledger.commands import (
    Adjust,
    Command,
    IssueGrant,
    OpenAccount,
    PlaceHold,
    Refund,
    RunShare,
    SetAccount,
    SetLimit,
    SetPlan,
    Settle,
    Void,
    VoidGrant,
)
from ledger.engine import apply, balance
from ledger.errors import Conflict
from ledger.model import NEVER, OVERDRAFT, UNLIMITED, Limit, Period
from ledger.outcomes import (
    AccountSet,
    Adjusted,
    Ended,
    Held,
    Issued,
    LimitSet,
    Outcome,
    PlanSet,
    Refunded,
    RefundRefused,
    Refused,
    Voided,
)
from ledger.queries import Queries
from ledger.rules import Allowance, Plan, Rules
from tests.ledger.books import ACCOUNT, EngineLedger, Page, SqliteLedger, assert_lawful, receipt_memo
from tests.ledger.naive_plans import Row
from tests.ledger.per_credit import ORDER, Cap, Given, Lot, Model, Pinned, Refusal
from tests.ledger.words import microseconds_at

_SOAKING = os.environ.get("FAREBOX_SOAK") == "1"
_BUCKETS = ("daily", "bonus", "paid", "unlisted")
_WAYS = st.sampled_from(("original", "original", "bonus", "fault"))
_HOUR = 3_600_000_000

_PLANS = {
    plan.name: plan
    for plan in (
        Plan("free", (Allowance("daily", 10, "day"),)),
        Plan("pro", (Allowance("daily", 10, "day"), Allowance("subscription", 30, "month")), 12),
        Plan("swap", (Allowance("subscription", 23, "month"), Allowance("daily", 13, "day")), paid=True),
        Plan("even", (Allowance("subscription", 30, "month", calendar=True), Allowance("daily", 10, "day")), 3),
        Plan("team", (Allowance("daily", 17, "day"), Allowance("subscription", 41, "month")), 25, paid=True),
        Plan("calendar", (Allowance("subscription", 35, "month", calendar=True), Allowance("bonus", 9, "week"))),
        Plan("weeks", (Allowance("bonus", 12, "week", calendar=True), Allowance("subscription", 9, "week"))),
        Plan("days", (Allowance("subscription", 5, "day"),), 7),
        Plan("years", (Allowance("subscription", 60, "year"), Allowance("paid", 20, "year", calendar=True))),
        Plan("empty", (), 5),
    )
}
_PLAN_NAMES = st.sampled_from((*_PLANS, None, "pro", "swap", "team", "team"))
# The evening before a midnight that does not come or comes twice, and ends of months that others are too short for.
_STARTS = tuple(
    map(microseconds_at, ("2026-04-23 12:00", "2026-10-31 23:00", "2027-01-31 12:00", "2028-01-30 23:30:00.000001"))
)
_ZONES = ("UTC", "Africa/Cairo", "America/Havana", "Asia/Kathmandu", "Pacific/Kiritimati", "Pacific/Pago_Pago")
_STATUSES = st.sampled_from(("active",) * 6 + ("suspended",) * 3 + ("closed",))
_SCOPES = ("key:a", "app:b")
_PER = ("day", "month", "ever")
_RUNS = st.sampled_from((("r", "answer"), ("r", "answer"), ("r", "edit"), ("s", "answer")))
# On what the calls of an operation in a run cost together; where it has none of its own, its models have theirs.
_BOUNDS = st.sampled_from(((8, None), (8, None), (15, None), (5, 12), (None, 10), (None, None), (20, 40)))
_UNDER = st.sampled_from(((), _SCOPES[:1], _SCOPES, _SCOPES))


def twin(book: Book) -> Book:
    """A page of its own; its records never change, only what they are kept in."""
    page = copy(book)
    for place in fields(Book):
        value = getattr(page, place.name)
        if isinstance(value, (dict, list, set)):
            setattr(page, place.name, copy(value))
    return page


@lru_cache(maxsize=1)
def empty_ledger() -> bytes:
    """A ledger's file before anything has happened; to make one takes a disk longer than a life."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "ledger.db"
        SqliteLedger(str(path)).close()
        return path.read_bytes()


class QuickEngine(EngineLedger):
    """The pure engine, on pages that are copied no deeper than they change."""

    def do(self, command: Command, rules: Rules, now: int) -> Outcome:
        book = twin(self.book)
        outcome = apply(book, command, rules, now)
        self.book = book
        return outcome

    def balance(self, rules: Rules, now: int) -> Balance:
        return balance(twin(self.book), rules, now)


class RandomLife(RuleBasedStateMachine):
    """The engine takes commands one by one, the store takes the same ones in batches; both answer as the model does."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = tempfile.TemporaryDirectory()
        self.engine = QuickEngine()
        path = Path(self.directory.name) / "ledger.db"
        path.write_bytes(empty_ledger())
        self.sqlite = SqliteLedger(str(path))
        self.queries = Queries(str(path))
        self.config = Rules(ORDER, plans=_PLANS)
        self.batch: list[Command] = []
        self.answers: list[Outcome] = []
        self.receipts: dict[int, Ended] = {}
        self.corrections: list[tuple[Refund | Adjust, Outcome]] = []
        # Of calls in a run: what each said of its part, and what it may cost beside that.
        self.parts: dict[int, tuple[int, RunShare]] = {}
        self.lawful: Page | None = None
        self.next_id = 1

    @initialize(
        start=st.sampled_from(_STARTS),
        zone=st.sampled_from(("UTC", "UTC", *_ZONES)),
        plan=_PLAN_NAMES,
        limit=st.sampled_from((None, None, 0, 15)),
        amounts=st.lists(st.integers(1, 30), max_size=4),
        welcome=st.sampled_from((None, ("bonus", 25, 1))),
        limits=st.tuples(st.sampled_from((None, "day", "day")), st.sampled_from((None, "day", "month", "ever"))),
        at_once=st.booleans(),
    )
    def open(
        self,
        start: int,
        zone: str,
        plan: str | None,
        limit: int | None,
        amounts: list[int],
        welcome: tuple[str, int, int] | None,
        limits: tuple[str | None, ...],
        at_once: bool,
    ) -> None:
        """at_once: the store gets its commands one by one."""
        self.at_once = at_once
        self.model = Model(_PLANS, limit, zone, start)
        self.model.set_plan(plan, ())
        if welcome is not None:
            bucket, amount, grant_id = welcome
            self.model.issue(IssueGrant(ACCOUNT, grant_id, bucket, amount, source_key="signup"))
        self.do(OpenAccount(ACCOUNT, zone, limit, plan, welcome=welcome))
        for place, amount in enumerate(amounts):
            self.issue(_BUCKETS[place % 4], amount, place % 2 == 1, None, (24, 48, None)[place % 3], None)
        for scope, per in zip(_SCOPES, limits, strict=True):
            if per is not None:
                self.set_limit(scope, 60, per)

    def do(self, command: Command) -> Outcome:
        outcome = self.engine.do(command, self.config, self.model.now)
        self.batch.append(command)
        self.answers.append(outcome)
        if self.at_once:
            self.commit()
        return outcome

    def new_id(self) -> int:
        self.next_id += 1
        return self.next_id

    # -- time

    @rule(hours=st.sampled_from((1, 5, 6, 18, 24, 24, 24 * 3, 24 * 9, 24 * 33, 24 * 400)))
    def time_passes(self, hours: int) -> None:
        self.wait_until(self.model.now + hours * _HOUR)

    def wait_until(self, at: int) -> None:
        self.commit()
        self.model.pass_time(at - self.model.now)

    @rule(before=st.sampled_from((0, 0, 1)), which=st.integers(0, 3))
    def a_period_ends(self, before: int, which: int) -> None:
        """Time passes until the very moment at which an allowance's or a limit's period ends, or the one before."""
        model = self.model
        ends = [row.ends for row in model.rows.values()] + [cap.window.ends for cap in model.caps.values()]
        coming = sorted({end - before for end in ends if model.now < end - before < NEVER - 1})
        if coming:
            self.wait_until(coming[which % len(coming)])

    def commit(self) -> None:
        """The store answers as the engine did, and a reader of its file sees the same account."""
        if not self.batch:
            return
        assert self.sqlite.store.transact(self.batch, self.config, self.model.now) == self.answers
        self.batch, self.answers = [], []
        seen = self.engine.balance(self.config, self.model.now)
        # A reader of the file sees no grants of which nothing is left.
        seen = replace(seen, grants=[entry for entry in seen.grants if entry[1]])
        assert self.sqlite.balance(self.config, self.model.now) == seen

    @rule(name=_PLAN_NAMES)
    def somebody_reads(self, name: str | None) -> None:
        """Reading shows the balance, the limits and what a plan would do as they will be found, and writes nothing."""
        self.commit()
        before, config, now = self.sqlite.page(), self.config, self.model.now
        seen = self.queries.balance(ACCOUNT, config, now)
        assert sorted(map(tuple, seen.used_up)) == sorted(self.model.used_up())
        assert replace(seen, used_up=()) == self.sqlite.balance(config, now)
        model = self.model.later(now)
        assert self.queries.limits(ACCOUNT, now) == {
            scope: as_limit(model, scope, model.cap_as_of_now(scope))
            for scope, cap in model.caps.items()
            if cap.amount is not None and not scope.startswith("run:")
        }
        if model.status != "closed":
            command = SetPlan(ACCOUNT, name, (self.new_id(), self.new_id()))
            at, given = model.set_plan(name, command.grant_ids)
            preview = self.queries.preview_plan(command, config, now)
            assert (preview.at, as_given(preview)) == (at, given)
        assert self.sqlite.page() == before

    # -- the account

    @rule(
        what=st.sampled_from(("status", "status", "overdraft", "zone", "zone")),
        status=_STATUSES,
        limit=st.sampled_from((0, 15, 40, None)),
        zone=st.sampled_from(_ZONES),
    )
    def change_account(self, what: str, status: str, limit: int | None, zone: str) -> None:
        """The account is suspended, or closed for good, gets another overdraft limit, its plan's again, or moves."""
        model = self.model
        if what == "status" and model.status == "closed" != status:
            with pytest.raises(Conflict):
                self.engine.do(SetAccount(ACCOUNT, status), self.config, model.now)
            return
        model.look()
        command = SetAccount(ACCOUNT, timezone=zone)
        if what == "status":
            model.status = status
            command = SetAccount(ACCOUNT, status)
        elif what == "overdraft":
            model.own_limit = limit
            command = SetAccount(ACCOUNT, overdraft_limit=limit, plans_overdraft=limit is None)
        else:
            model.zone = zone
        assert self.do(command) == AccountSet(ACCOUNT, model.status, model.zone, model.limit())

    @rule(names=st.lists(_PLAN_NAMES, min_size=1, max_size=3), hours=st.sampled_from((0, 0, 1, 5)))
    def change_plans(self, names: list[str | None], hours: int) -> None:
        """One plan after another, up and down."""
        for number, name in enumerate(names):
            if number and hours:
                self.time_passes(hours)
            self.set_plan(name)

    def set_plan(self, name: str | None) -> None:
        command = SetPlan(ACCOUNT, name, (self.new_id(), self.new_id()))
        if self.model.status == "closed":
            with pytest.raises(Conflict):
                self.engine.do(command, self.config, self.model.now)
            return
        at, given = self.model.set_plan(name, command.grant_ids)
        outcome = self.do(command)
        assert isinstance(outcome, PlanSet)
        assert (outcome.plan, outcome.at, as_given(outcome)) == (name, at, given)

    @rule(
        name=st.sampled_from([name for name, plan in _PLANS.items() if plan.allowances]),
        amount=st.integers(1, 30),
        every=st.sampled_from(("day", "week", "month", "year")),
        calendar=st.booleans(),
    )
    def edit_plan(self, name: str, amount: int, every: str, calendar: bool) -> None:
        """The operator changes what a plan gives."""
        self.commit()
        plan = self.config.plans[name]
        first, *others = plan.allowances
        allowances = (Allowance(first.bucket, amount, every, calendar), *others)
        self.model.plans = {**self.config.plans, name: replace(plan, allowances=allowances)}
        self.config = Rules(ORDER, plans=self.model.plans)

    @rule(
        scope=st.sampled_from(_SCOPES), amount=st.sampled_from((None, 0, 8, 25, 25, 60, 60)), per=st.sampled_from(_PER)
    )
    def set_limit(self, scope: str, amount: int | None, per: str) -> None:
        # Periods of limits are told apart by their dates alone: whether a call of a day counts in a month that began on
        # that day, or in the same day that is begun anew, is left open.
        before, label = self.model.caps.get(scope), self.model.window(per).label
        names = [under[scope].label for under in self.model.under.values() if scope in under]
        if before is not None and any(name == label or (name and label and name > label) for name in names):
            per = before.per
        outcome = self.do(SetLimit(ACCOUNT, scope, amount, per))
        self.model.set_limit(scope, amount, per)
        expected = None if amount is None else as_limit(self.model, scope, self.model.caps[scope])
        assert outcome == LimitSet(expected)

    # -- grants and corrections

    @precondition(lambda self: self.model.credits)
    @rule(data=st.data())
    def void_grant(self, data: st.DataObject) -> None:
        grant_id = data.draw(st.sampled_from(sorted({credit.lot for credit in self.model.credits})[-6:]))
        new = grant_id not in self.model.voided
        outcome = self.do(VoidGrant(ACCOUNT, grant_id, "a mistake"))
        assert isinstance(outcome, Voided)
        assert (outcome.grant.grant_id, outcome.amount, outcome.new) == (grant_id, self.model.void_grant(grant_id), new)

    @rule(
        amount=st.integers(-40, -1) | st.integers(1, 40),
        bucket=st.sampled_from(_BUCKETS),
        hours=st.sampled_from((6, None)),
    )
    def adjust(self, amount: int, bucket: str, hours: int | None) -> None:
        expires = NEVER if hours is None else self.model.now + hours * _HOUR
        command = Adjust(ACCOUNT, amount, self.new_id(), bucket, "a correction", expires)
        outcome = self.do(command)
        change, granted, lots = self.model.adjust(command)
        assert isinstance(outcome, Adjusted)
        assert outcome.debt_added - outcome.debt_reduced == change
        assert (outcome.grant.granted if outcome.grant else 0) == granted
        assert [(taken.grant_id, taken.amount) for taken in outcome.taken] == list(Counter(lots).items())
        self.corrections.append((command, outcome))

    @precondition(lambda self: self.receipts)
    @rule(data=st.data(), amount=st.none() | st.integers(1, 15), way=_WAYS, hours=st.sampled_from((6, None)))
    def refund(self, data: st.DataObject, amount: int | None, way: str, hours: int | None) -> None:
        charged = [hold_id for hold_id, paid in self.model.paid.items() if paid] or list(self.receipts)
        self.give_back(data.draw(st.sampled_from(charged[-6:])), amount, way, hours)

    def give_back(self, hold_id: int, amount: int | None, way: str, hours: int | None) -> None:
        expires = NEVER if hours is None else self.model.now + hours * _HOUR
        refund_id, bonus, fault = self.new_id(), way == "bonus", way == "fault"
        command = Refund(ACCOUNT, hold_id, refund_id, amount, "bonus", "sorry", bonus, fault, expires)
        left = len(self.model.paid[hold_id])
        outcome = self.do(command)
        expected = self.model.refund(command)
        if expected is None:
            assert outcome == RefundRefused(left)
            return
        assert isinstance(outcome, Refunded)
        reduced, lots = expected
        assert (outcome.debt_reduced, outcome.amount) == (reduced, left if amount is None else amount)
        assert [(part.grant_id, part.amount) for part in outcome.to] == list(Counter(lots).items())
        self.corrections.append((command, outcome))

    @rule(
        bucket=st.sampled_from(_BUCKETS),
        amount=st.integers(1, 40),
        paid=st.booleans(),
        start=st.sampled_from((None, None, None, 0, 5)),
        hours=st.sampled_from((None, 6, 24, 24, 48)),
        key=st.sampled_from((None, None, "payment-1", "payment-2", "payment-3")),
    )
    def issue(
        self, bucket: str, amount: int, paid: bool, start: int | None, hours: int | None, key: str | None
    ) -> None:
        now = self.model.now
        starts = None if start is None else now + start * _HOUR
        expires = NEVER if hours is None else now + hours * _HOUR
        command = IssueGrant(ACCOUNT, self.new_id(), bucket, amount, "test", paid, starts, expires, key)
        outcome = self.do(command)
        assert isinstance(outcome, Issued)
        assert (outcome.grant.grant_id, outcome.repaid, outcome.new) == self.model.issue(command)

    # -- calls

    @rule(
        amount=st.integers(0, 12) | st.integers(0, 60),
        within=st.sampled_from((0, 0, 0, 4)),
        scopes=_UNDER,
        plans=st.sampled_from((None,) * 12 + (frozenset(("pro", "team", "years")), frozenset(("free", None)))),
    )
    def hold(self, amount: int, within: int, scopes: tuple[str, ...], plans: frozenset[str | None] | None) -> None:
        self.place(PlaceHold(ACCOUNT, self.new_id(), amount, receipt_memo(0), within, scopes=scopes, plans=plans))

    @rule(
        run=_RUNS,
        bounds=_BOUNDS,
        raw=st.integers(0, 9),
        amount=st.sampled_from((0, 0, 0, 1, 5)),
        scopes=_UNDER,
        limit=st.sampled_from((None, None, 9, 25)),
    )
    def hold_in_a_run(
        self,
        run: tuple[str, str],
        bounds: tuple[int | None, int | None],
        raw: int,
        amount: int,
        scopes: tuple[str, ...],
        limit: int | None,
    ) -> None:
        """A call of a run may cost something beside its part of it."""
        share = RunShare(*run, raw, *bounds)
        command = PlaceHold(ACCOUNT, self.new_id(), amount, receipt_memo(0), scopes=(*scopes, f"run:{run[0]}"))
        command = replace(command, run_limit=limit, share=share)
        if self.place(command):
            self.parts[command.hold_id] = (amount, share)

    @rule(
        amounts=st.lists(st.integers(0, 25), min_size=1, max_size=3),
        scopes=_UNDER,
        back=st.sampled_from((None, None, "first", "last")),
    )
    def calls(self, amounts: list[int], scopes: tuple[str, ...], back: str | None = None) -> None:
        """Calls one after another, each settled as it was held or at half of it; a part of one may be refunded."""
        for amount in amounts:
            command = PlaceHold(ACCOUNT, self.new_id(), amount, receipt_memo(0), scopes=scopes)
            if self.place(command):
                self.end(self.settlement(command.hold_id, amount // (1 + amount % 2), None, True))
        charged = [hold_id for hold_id, paid in self.model.paid.items() if paid]
        if charged and back is not None:
            self.give_back(charged[0 if back == "first" else -1], 2, "original", None)

    @rule(
        run=_RUNS,
        bounds=_BOUNDS,
        raws=st.lists(st.integers(0, 7), min_size=1, max_size=4),
        answered=st.sampled_from((True, True, False)),
    )
    def calls_of_a_run(
        self, run: tuple[str, str], bounds: tuple[int | None, int | None], raws: list[int], answered: bool
    ) -> None:
        """Calls of one run, one after another."""
        for raw in raws:
            share = RunShare(*run, raw, *bounds)
            command = PlaceHold(ACCOUNT, self.new_id(), 0, receipt_memo(0), scopes=(f"run:{run[0]}",), share=share)
            if self.place(command):
                self.parts[command.hold_id] = (0, share)
                self.end(self.settlement(command.hold_id, 0, None, answered))

    @rule(
        count=st.integers(2, 4),
        which=st.integers(0, 3),
        amount=st.integers(0, 8),
        scopes=_UNDER,
        zone=st.sampled_from((None, None, *_ZONES)),
    )
    def periods_go_by(self, count: int, which: int, amount: int, scopes: tuple[str, ...], zone: str | None) -> None:
        """A call in each of several periods, at home or after a journey."""
        self.calls([amount], scopes)
        if zone is not None:
            self.change_account("zone", "", None, zone)
        for _ in range(count):
            self.a_period_ends(0, which)
            self.calls([amount], scopes)

    def place(self, command: PlaceHold) -> bool:
        expected = self.model.hold(command)
        outcome = self.do(command)
        if isinstance(expected, Refusal):
            assert isinstance(outcome, Refused)
            self.assert_refused(outcome, expected)
            return False
        assert isinstance(outcome, Held)
        self.assert_held(outcome, expected)
        return True

    def assert_held(self, outcome: Held, expected: Pinned) -> None:
        pinned = Counter(OVERDRAFT if credit is None else credit.lot for credit in expected)
        assert [(leg.grant_id, leg.amount) for leg in outcome.hold.legs] == list(pinned.items())
        assert outcome.hold.amount == len(expected)
        assert outcome.available == self.model.available()

    def assert_refused(self, outcome: Refused, expected: Refusal) -> None:
        assert (outcome.reason, outcome.needed, outcome.available) == (
            expected.reason,
            expected.needed,
            expected.available,
        )
        assert (outcome.held, outcome.debt, outcome.affordable) == (expected.held, expected.debt, expected.affordable)
        assert outcome.plan == expected.plan
        assert (None if outcome.run is None else tuple(outcome.run)) == expected.run
        if outcome.reason == "limit":
            assert expected.tightest is not None
            assert outcome.limit == as_limit(self.model, *expected.tightest)
        if outcome.reason != "insufficient":
            assert outcome.fits_at is None
            return
        self.assert_fits(outcome.fits_at, outcome.needed)

    def assert_fits(self, fits_at: int | None, amount: int) -> None:
        """A refusal says when the next period of some allowance makes the call fit, and no earlier one does."""
        model = self.model
        if fits_at is not None:
            assert fits_at > model.now
            assert model.later(fits_at).affordable() >= amount
            if all(credit.effective_at <= model.now for credit in model.credits):
                assert model.later(fits_at - 1).affordable() < amount
        for at in takewhile(lambda at: fits_at is None or at < fits_at, model.renewals()):
            assert model.later(at).affordable() < amount

    @precondition(lambda self: self.model.holds)
    @rule(
        data=st.data(),
        amount=st.integers(0, 12) | st.integers(0, 60),
        raw=st.none() | st.integers(0, 12),
        answered=st.sampled_from((True, True, False)),
    )
    def settle(self, data: st.DataObject, amount: int, raw: int | None, answered: bool) -> None:
        """A call costs what it costs; its part in a run is what was held, or more or less."""
        self.end(self.settlement(data.draw(st.sampled_from(list(self.model.holds))), amount, raw, answered))

    def settlement(self, hold_id: int, amount: int, raw: int | None, answered: bool) -> Settle:
        if hold_id not in self.parts:
            return Settle(ACCOUNT, hold_id, amount, receipt_memo(amount))
        rest, (_, share) = amount // 8, self.parts[hold_id]
        share = replace(
            share,
            raw=share.raw if raw is None else raw,
            floor=answered,
            close=lambda _, charged: receipt_memo(rest + charged),
        )
        return Settle(ACCOUNT, hold_id, rest, b"", share)

    @precondition(lambda self: self.model.holds)
    @rule(data=st.data(), orphaned=st.booleans())
    def void(self, data: st.DataObject, orphaned: bool) -> None:
        self.end(Void(ACCOUNT, data.draw(st.sampled_from(list(self.model.holds))), receipt_memo(0), orphaned))

    @precondition(lambda self: "orphaned" in self.model.ended.values())
    @rule(data=st.data(), amount=st.integers(0, 20), raw=st.none() | st.integers(0, 12))
    def settle_late(self, data: st.DataObject, amount: int, raw: int | None) -> None:
        orphans = [hold_id for hold_id, status in self.model.ended.items() if status == "orphaned"]
        self.end(self.settlement(data.draw(st.sampled_from(orphans)), amount, raw, True), late=True)

    @precondition(lambda self: self.receipts or self.corrections)
    @rule(data=st.data(), amount=st.integers(0, 20), how=st.sampled_from(("settle", "void", "orphan", "correct")))
    def again(self, data: st.DataObject, amount: int, how: str) -> None:
        """Who ends a call again, or corrects something again, gets the recorded answer."""
        self.model.look()
        if self.corrections and (how == "correct" or not self.receipts):
            correction, made = data.draw(st.sampled_from(self.corrections))
            assert self.do(correction) == made
            return
        recorded = data.draw(st.sampled_from(list(self.receipts.values())))
        command: Settle | Void = Void(ACCOUNT, recorded.hold_id, receipt_memo(0), how == "orphan")
        if how == "settle" and recorded.status != "orphaned":
            command = self.settlement(recorded.hold_id, amount, None, True)
        assert self.do(command) == replace(recorded, available=self.model.available())

    def end(self, command: Settle | Void, *, late: bool = False) -> None:
        status = "settled" if isinstance(command, Settle) else "orphaned" if command.orphaned else "voided"
        share = command.share if isinstance(command, Settle) else None
        amount = command.amount if isinstance(command, Settle) else 0
        held = len(self.model.holds.get(command.hold_id, []))
        outcome = self.do(command)
        lots, owed = self.model.end(command.hold_id, amount, status, share)
        charged = len(lots) + owed
        if share is not None and not late:
            most_rest, most = self.parts[command.hold_id]
            assert charged <= held or amount > most_rest or share.raw > most.raw, "it cost more than it could"
        assert isinstance(outcome, Ended)
        assert (outcome.status, outcome.charged, outcome.debt, outcome.late) == (status, charged, owed, late)
        assert [(paid.grant_id, paid.amount) for paid in outcome.paid_from] == list(Counter(lots).items())
        assert outcome.memo == (command.memo if share is None else receipt_memo(charged))
        assert outcome.ended_at == self.model.now
        assert outcome.available == self.model.available()
        self.receipts[outcome.hold_id] = outcome

    # -- what must hold after every step

    @invariant()
    def the_engine_agrees_with_the_model(self) -> None:
        model, now = self.model.as_seen(), self.model.now
        book = twin(self.engine.book)
        seen = balance(book, self.config, now)
        assert (seen.available, seen.debt, seen.status) == (model.available(), model.debt, model.status)
        assert (seen.timezone, seen.overdraft_limit, seen.at) == (model.zone, model.limit(), now)
        assert (seen.plan, seen.next_plan) == (model.plan, model.next_plan)
        lots = model.lots()
        assert {
            lot: Lot(
                grant.bucket,
                grant.paid,
                grant.effective_at,
                grant.expires_at,
                grant.granted,
                book.balance[lot],
                book.held[lot],
                book.lost[lot],
            )
            for lot, grant in book.grants.items()
        } == lots
        shown = [(grant.grant_id, left, held) for grant, left, held in seen.grants]
        assert shown == [(lot, lots[lot].left, lots[lot].held) for lot in model.live()]
        assert seen.held == sum(held for _, _, held in shown) + model.overdrawn()
        assert book.periods == {bucket: as_period(row) for bucket, row in model.rows.items()}
        assert seen.periods.keys() == {bucket for bucket, row in model.rows.items() if now < row.ends}

    @invariant()
    def limits_and_runs_agree_with_the_model(self) -> None:
        book, model = self.engine.book, self.model
        assert book.limits == {scope: as_limit(model, scope, cap) for scope, cap in model.caps.items()}
        runs = {key: (len(run.raw), len(run.charged)) for key, run in model.runs.items()}
        assert {key: tuple(run) for key, run in book.runs.items() if any(run)} == {
            key: run for key, run in runs.items() if any(run)
        }

    @invariant()
    def the_page_is_lawful(self) -> None:
        page = self.engine.page()
        assert page.overdraft_held == self.model.overdrawn()
        assert {hold_id: sum(leg.amount for leg in legs) for hold_id, legs in page.holds.items()} == {
            hold_id: len(pinned) for hold_id, pinned in self.model.holds.items()
        }
        if page == self.lawful:
            return
        assert_lawful(page)
        self.lawful = page
        if self.at_once:
            assert in_no_order(self.sqlite.page()) == in_no_order(page)

    def teardown(self) -> None:
        try:
            self.commit()
            page = self.sqlite.page()
            assert_lawful(page)
            assert in_no_order(page) == in_no_order(self.engine.page())
        finally:
            self.queries.close()
            self.sqlite.close()
            self.directory.cleanup()


def as_limit(model: Model, scope: str, cap: Cap) -> Limit:
    """What the engine should say of one of the model's limits."""
    return Limit(
        scope,
        UNLIMITED if cap.amount is None else cap.amount,
        cap.per,
        0 if cap.window.label is None else cap.window.label.toordinal(),
        cap.window.ends,
        model.spent(cap.window),
        model.reserved(cap.window),
    )


def as_period(row: Row) -> Period:
    """What the engine should say of the last period of one of the model's allowances."""
    since = None if row.since is None else row.since.toordinal()
    label = row.label.toordinal()
    return Period(row.place, row.every, since, label, row.starts, row.ends, row.entitled, row.granted)


def as_given(outcome: PlanSet) -> list[Given]:
    """What the model should say of what a plan gave."""
    return [Given(g.grant_id, g.bucket, g.granted, g.paid, g.effective_at, g.expires_at) for g in outcome.grants]


def in_no_order(page: Page) -> Page:
    """What expires at once is posted in no order."""
    return replace(page, transfers=sorted(page.transfers, key=repr))


TestRandomLife = RandomLife.TestCase
# The same lives every time, or, with FAREBOX_SOAK=1, others for every --hypothesis-seed.
TestRandomLife.settings = settings(
    max_examples=500 if _SOAKING else 130,
    stateful_step_count=50,
    deadline=None,
    derandomize=not _SOAKING,
    database=None,
)
