"""Random lives of one account: the engine and the SQLite store against a model that keeps one item per credit."""

from __future__ import annotations

import os
import tempfile
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from ledger.commands import (
    Adjust,
    Command,
    IssueGrant,
    OpenAccount,
    PlaceHold,
    Refund,
    SetAccount,
    Settle,
    Void,
    VoidGrant,
)
from ledger.errors import Conflict
from ledger.model import NEVER, OVERDRAFT
from ledger.outcomes import AccountSet, Adjusted, Ended, Held, Issued, Outcome, Refunded, RefundRefused, Refused, Voided
from ledger.rules import Rules
from tests.ledger.books import ACCOUNT, EngineLedger, SqliteLedger, assert_lawful, receipt_memo
from tests.ledger.per_credit import ORDER, Model

_RULES = Rules(ORDER)
_BUCKETS = ("daily", "bonus", "paid", "unlisted")
_WAYS = st.sampled_from(("original", "original", "bonus", "fault"))
_HOUR = 3_600_000_000


class RandomLife(RuleBasedStateMachine):
    """The engine takes commands one by one, the store takes the same ones in batches; both answer as the model does."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = tempfile.TemporaryDirectory()
        self.engine = EngineLedger()
        self.sqlite = SqliteLedger(str(Path(self.directory.name) / "ledger.db"))
        self.batch: list[Command] = []
        self.answers: list[Outcome] = []
        self.receipts: dict[int, Ended] = {}
        self.refunds: list[tuple[Refund, Refunded]] = []
        self.next_id = 1

    @initialize(limit=st.sampled_from((0, 0, 15)), amounts=st.lists(st.integers(1, 30), min_size=1, max_size=5))
    def open(self, limit: int, amounts: list[int]) -> None:
        self.model = Model(limit)
        self.do(OpenAccount(ACCOUNT, overdraft_limit=limit))
        for place, amount in enumerate(amounts):
            self.issue(_BUCKETS[place % 4], amount, place % 2 == 1, None, (24, 48, None)[place % 3], None)

    def do(self, command: Command) -> Outcome:
        outcome = self.engine.do(command, _RULES, self.model.now)
        self.batch.append(command)
        self.answers.append(outcome)
        return outcome

    def new_id(self) -> int:
        self.next_id += 1
        return self.next_id

    @rule(hours=st.sampled_from((1, 5, 6, 18, 24)))
    def time_passes(self, hours: int) -> None:
        self.commit()
        self.model.pass_time(hours * _HOUR)

    @rule()
    def commit(self) -> None:
        assert self.sqlite.store.transact(self.batch, _RULES, self.model.now) == self.answers
        self.batch, self.answers = [], []

    @rule(status=st.sampled_from(("active",) * 12 + ("suspended",) * 3 + ("closed",)))
    def set_status(self, status: str) -> None:
        command = SetAccount(ACCOUNT, status)
        if self.model.status == "closed" != status:
            with pytest.raises(Conflict):
                self.do(command)
            return
        outcome = self.do(command)
        assert isinstance(outcome, AccountSet)
        assert outcome.status == status
        self.model.status = status

    @rule(limit=st.sampled_from((0, 15, 40)))
    def set_overdraft(self, limit: int) -> None:
        outcome = self.do(SetAccount(ACCOUNT, overdraft_limit=limit))
        assert isinstance(outcome, AccountSet)
        assert outcome.overdraft_limit == limit
        self.model.limit = limit

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

    @precondition(lambda self: self.receipts)
    @rule(data=st.data(), amount=st.none() | st.integers(1, 15), way=_WAYS, hours=st.sampled_from((6, None)))
    def refund(self, data: st.DataObject, amount: int | None, way: str, hours: int | None) -> None:
        hold_id = data.draw(st.sampled_from(list(self.receipts)[-6:]))
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
        self.refunds.append((command, outcome))

    @precondition(lambda self: self.refunds)
    @rule(data=st.data())
    def refund_again(self, data: st.DataObject) -> None:
        command, outcome = data.draw(st.sampled_from(self.refunds))
        assert self.do(command) == outcome

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

    @rule(amount=st.integers(0, 12) | st.integers(0, 60), within=st.sampled_from((0, 0, 0, 4)))
    def hold(self, amount: int, within: int) -> None:
        command = PlaceHold(ACCOUNT, self.new_id(), amount, receipt_memo(0), within)
        available = self.model.available()
        expected = self.model.hold(command)
        outcome = self.do(command)
        if isinstance(expected, str):
            assert isinstance(outcome, Refused)
            assert (outcome.reason, outcome.needed, outcome.available) == (expected, amount, available)
            assert outcome.held == sum(len(pinned) for pinned in self.model.holds.values())
            return
        assert isinstance(outcome, Held)
        pinned = Counter(OVERDRAFT if credit is None else credit.lot for credit in expected)
        assert [(leg.grant_id, leg.amount) for leg in outcome.hold.legs] == list(pinned.items())
        assert outcome.available == self.model.available()

    @precondition(lambda self: self.model.holds)
    @rule(data=st.data(), amount=st.integers(0, 12) | st.integers(0, 60))
    def settle(self, data: st.DataObject, amount: int) -> None:
        self.end(Settle(ACCOUNT, data.draw(st.sampled_from(list(self.model.holds))), amount, receipt_memo(amount)))

    @precondition(lambda self: self.model.holds)
    @rule(data=st.data(), orphaned=st.booleans())
    def void(self, data: st.DataObject, orphaned: bool) -> None:
        self.end(Void(ACCOUNT, data.draw(st.sampled_from(list(self.model.holds))), receipt_memo(0), orphaned))

    @precondition(lambda self: "orphaned" in self.model.ended.values())
    @rule(data=st.data(), amount=st.integers(0, 20))
    def settle_late(self, data: st.DataObject, amount: int) -> None:
        orphans = [hold_id for hold_id, status in self.model.ended.items() if status == "orphaned"]
        self.end(Settle(ACCOUNT, data.draw(st.sampled_from(orphans)), amount, receipt_memo(amount)), late=True)

    @precondition(lambda self: self.receipts)
    @rule(data=st.data(), amount=st.none() | st.integers(0, 20), orphaned=st.booleans())
    def end_again(self, data: st.DataObject, amount: int | None, orphaned: bool) -> None:
        recorded = data.draw(st.sampled_from(list(self.receipts.values())))
        if amount is None:
            outcome = self.do(Void(ACCOUNT, recorded.hold_id, receipt_memo(0), orphaned))
        elif recorded.status != "orphaned":
            outcome = self.do(Settle(ACCOUNT, recorded.hold_id, amount, receipt_memo(amount)))
        else:
            return
        assert outcome == replace(recorded, available=self.model.available())

    def end(self, command: Settle | Void, *, late: bool = False) -> None:
        charged = command.amount if isinstance(command, Settle) else 0
        status = "settled" if isinstance(command, Settle) else "orphaned" if command.orphaned else "voided"
        outcome = self.do(command)
        lots, owed = self.model.end(command.hold_id, charged, status)
        assert isinstance(outcome, Ended)
        assert (outcome.status, outcome.charged, outcome.debt, outcome.late) == (status, charged, owed, late)
        assert [(paid.grant_id, paid.amount) for paid in outcome.paid_from] == list(Counter(lots).items())
        assert (outcome.memo, outcome.ended_at) == (command.memo, self.model.now)
        assert outcome.available == self.model.available()
        self.receipts[outcome.hold_id] = outcome

    @invariant()
    def the_engine_agrees_with_the_model(self) -> None:
        seen = self.engine.balance(_RULES, self.model.now)
        assert (seen.available, seen.debt, seen.status) == (self.model.available(), self.model.debt, self.model.status)
        live: Counter[int] = Counter()
        held: Counter[int] = Counter()
        for credit in self.model.credits:
            if credit.effective_at <= self.model.now and credit.gone is None:
                live[credit.lot] += credit.place in ("free", "held")
                held[credit.lot] += credit.place == "held"
        assert {grant.grant_id: (left, pinned) for grant, left, pinned in seen.grants} == {
            lot: (left, held[lot]) for lot, left in live.items()
        }

    @invariant()
    def the_page_is_lawful(self) -> None:
        page = self.engine.page()
        assert_lawful(page)
        assert page.overdraft_held == self.model.overdrawn()
        assert {hold_id: sum(leg.amount for leg in legs) for hold_id, legs in page.holds.items()} == {
            hold_id: len(pinned) for hold_id, pinned in self.model.holds.items()
        }

    def teardown(self) -> None:
        try:
            self.commit()
            page = self.sqlite.page()
            assert_lawful(page)
            assert page == self.engine.page()
        finally:
            self.sqlite.close()
            self.directory.cleanup()


TestRandomLife = RandomLife.TestCase
TestRandomLife.settings = settings(
    max_examples=200 * (20 if os.environ.get("FAREBOX_SOAK") == "1" else 1),
    stateful_step_count=50,
    deadline=None,
    derandomize=True,
    database=None,
)
