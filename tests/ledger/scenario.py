"""Scenarios that a bookkeeper can read, a step a line, each checked against every invariant after every step.

    buckets daily bonus paid                        the burn-down order
    account [plan NAME] [timezone Asia/Tokyo] [overdraft 100]     open the account; once more changes nothing
    at 2026-11-21 23:59                             the clock, UTC; it may not go back
    back to 2026-11-21 23:00                        the clock, put back
    grant NAME [BUCKET] 100 [paid] [from WHEN] [expires WHEN] [key KEY] [-> balance 60, repaid 40 | -> already NAME]
    hold CALL 180 [within 4] [scopes key:a,run:b] [runlimit 9] [plans a,b] [share 3 [min 40] [max 400]]
                                                    these go before the -> and, in refused, before the reason
    hold CALL 180 -> daily 100, overdraft 80           the legs, in their order
    refused CALL 180 REASON [fits 2026-11-22 00:00|never] [by SCOPE] [available 10] [held 0] [affordable 10] [debt 0]
    settle CALL 120 -> daily 100, debt 20 [late]    who paid, in order
    settle CALL 0 share 3 [min 40] [max 400] [unanswered] -> ...
                                                    its part of a run, which has a minimum and a maximum
    calls 12 share 3 [min 40] [max 400] [unanswered]              so many calls of a run, one after another
    void CALL, orphan CALL                          end without a charge; orphan: its process died
    again settle CALL 120, again void CALL          the recorded answer, and nothing moves
    raises Conflict: hold CALL 5                    any command; nothing moves
    raises UnknownAccount: stranger hold CALL 5     the command goes to an account that was never opened
    void grant NAME -> 60 | -> already              what went at once
    adjust 50 [NAME BUCKET] -> debt 20, NAME 30     up: debt is written off, the rest is a grant
    adjust -50 -> pack 30, debt 20                  down: what was taken, in order, then what is owed
    refund CALL 30|all [bonus|fault] [as NAME] [once KEY] -> debt 10, pack 15, NAME 5 | -> refused, left 20
                                                    where it went; NAME: the new grant; under one KEY it is made once
    plan NAME daily 50/day, subscription 2000/month calendar [overdraft 10] [paid] | plan NAME gone
                                                    the operator's config, from now on; "nothing": without allowances
    set plan NAME|none -> daily 50, subscription 25 | -> at 2026-12-01 00:00     what it gave at once, or when it comes
    limit SCOPE 7 per day, limit SCOPE lifted       a spend limit, per day, month or ever
    set [status suspended] [timezone Asia/Tokyo] [overdraft 50|plan]
    status suspended                                the same as set status suspended
    balance NAME 60 [held 40]                       what is left of a grant, and how much of it is pinned
    bucket daily 60                                 what no hold pins of a bucket's live grants
    on NAME|none [then NAME|none 2026-12-01 00:00]  the plan, and the one that comes
    spent SCOPE 5 [reserved 2]                      of a spend limit, as of now
    available 60, held 40, debt 0, breakage 0
    revenue 0, issued 100, sold 0, adjusted 0       net: what was refunded or voided is taken off
    alternative TITLE                               what came before is played again, then what follows

What a plan gives is named by bucket and label, as in daily@2026-11-21; the bucket alone stands for the latest, and
daily+2 for the second that upgrades gave. A grant's bucket is its name where none is given. "nothing" stands for an
empty list; # begins a comment.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path

import pytest

import ledger.errors
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
from ledger.model import ADJUSTMENT, BREAKAGE, ISSUE, NEVER, OVERDRAFT, REVENUE, SALE
from ledger.outcomes import (
    AccountSet,
    Adjusted,
    Ended,
    Held,
    Issued,
    LimitSet,
    Opened,
    Outcome,
    PlanSet,
    Refunded,
    RefundRefused,
    Refused,
    Voided,
)
from ledger.rules import Allowance, Plan, Rules
from tests.ledger.books import ACCOUNT, AnyLedger, Page, assert_lawful, periods_granted, receipt_memo
from tests.ledger.words import Words

STRANGER = 404
_FIRST_HOLD = 1001


@dataclass(frozen=True, slots=True)
class Scenario:
    """One tale of a file; steps: (line number, words)."""

    name: str
    steps: tuple[tuple[int, str], ...]


def read_scenarios(path: Path) -> list[Scenario]:
    """Read a file's scenario, or one for each of its alternatives."""
    stem: list[tuple[int, str]] = []
    tales: list[tuple[str, list[tuple[int, str]]]] = []
    for number, raw in enumerate(path.read_text("utf-8").splitlines(), 1):
        line = raw.partition("#")[0].strip()
        if line.startswith("alternative "):
            tales.append((line.removeprefix("alternative "), []))
        elif line:
            (tales[-1][1] if tales else stem).append((number, line))
    if not tales:
        return [Scenario(path.stem, tuple(stem))]
    return [Scenario(f"{path.stem}: {title}", (*stem, *steps)) for title, steps in tales]


def play(scenario: Scenario, book: AnyLedger) -> None:
    """Play a scenario; what is not as written fails with its line."""
    player = _Player(book)
    for number, line in scenario.steps:
        try:
            player.step(line)
            assert_lawful(book.page())
        except BaseException as error:
            error.add_note(f"line {number} of {scenario.name}: {line}")
            raise


@dataclass(slots=True)
class _Player:
    """Plays steps on one account and remembers what the scenario's names stand for."""

    book: AnyLedger
    now: int = 0
    rules: Rules = field(default_factory=Rules)
    grants: dict[str, int] = field(default_factory=dict)
    calls: dict[str, int] = field(default_factory=dict)
    answers: dict[str, Ended] = field(default_factory=dict)

    def step(self, line: str) -> None:
        left, _, expected = (part.strip() for part in line.partition("->"))
        verb, _, rest = left.partition(" ")
        words = Words(rest)
        plain: dict[str, Callable[[Words], None]] = {
            "buckets": self._buckets,
            "plan": self._plan,
            "at": self._at,
            "back": self._back,
            "balance": self._balance,
            "bucket": self._bucket,
            "on": self._on,
            "spent": self._spent,
            "calls": self._calls,
            "refused": self._refused,
            "again": self._again,
        }
        if verb in plain:
            plain[verb](words)
            words.end()
        elif verb == "raises":
            self._raises(rest)
        elif verb in _FIGURES:
            for name, amount in Words(line.replace(",", " ")).pairs().items():
                self._figure(name, amount)
        else:
            outcome = self._do(self._command(verb, words))
            words.end()
            self._expect(outcome, expected)

    def _command(self, verb: str, words: Words) -> Command:
        if verb == "stranger":
            return replace(self._command(words.take(), words), account_id=STRANGER)
        if verb == "account":
            plan = words.take() if words.skip("plan") else None
            timezone = words.take() if words.skip("timezone") else "UTC"
            limit = words.amount() if words.skip("overdraft") else None
            return OpenAccount(ACCOUNT, timezone, limit, plan)
        if verb == "limit":
            scope = words.take()
            if words.skip("lifted"):
                return SetLimit(ACCOUNT, scope, None)
            amount = words.amount()
            return SetLimit(ACCOUNT, scope, amount, words.take() if words.skip("per") else "ever")
        if verb == "set" or verb == "status":
            return self._set(verb, words)
        if verb == "adjust":
            return self._adjust(words)
        name = words.take()
        if verb == "grant":
            return self._grant(name, words)
        if verb == "void" and name == "grant":
            return VoidGrant(ACCOUNT, self.grants.get(words.take(), STRANGER), "void")
        hold_id = self.calls.setdefault(name, _FIRST_HOLD + len(self.calls))
        if verb == "void" or verb == "orphan":
            return Void(ACCOUNT, hold_id, receipt_memo(0), orphaned=verb == "orphan")
        if verb == "refund":
            return self._refund(hold_id, words)
        amount = words.amount()
        if verb == "settle":
            return Settle(ACCOUNT, hold_id, amount, receipt_memo(amount), self._share(amount, words))
        assert verb in ("hold", "refused"), f"no such step: {verb}"
        within = words.amount() if words.skip("within") else 0
        scopes = words.listed() if words.skip("scopes") else ()
        run_limit = words.amount() if words.skip("runlimit") else None
        plans = frozenset(words.listed()) if words.skip("plans") else None
        return PlaceHold(
            ACCOUNT,
            hold_id,
            amount,
            receipt_memo(0),
            within,
            scopes=scopes,
            run_limit=run_limit,
            plans=plans,
            share=self._share(amount, words),
        )

    def _share(self, amount: int, words: Words) -> RunShare | None:
        if not words.skip("share"):
            return None
        raw = words.amount()
        least = words.amount() if words.skip("min") else None
        most = words.amount() if words.skip("max") else None
        answered = not words.skip("unanswered")
        return RunShare("run", "answer", raw, least, most, answered, lambda _, share: receipt_memo(amount + share))

    def _grant(self, name: str, words: Words) -> IssueGrant:
        bucket = name if words.at_number() else words.take()
        return IssueGrant(
            ACCOUNT,
            self._new_grant(name),
            bucket,
            words.amount(),
            paid=words.skip("paid"),
            effective_at=words.when() if words.skip("from") else None,
            expires_at=words.when() if words.skip("expires") else NEVER,
            source_key=words.take() if words.skip("key") else None,
        )

    def _set(self, verb: str, words: Words) -> SetAccount | SetPlan:
        if verb == "set" and words.skip("plan"):
            name = words.take()
            found = self.rules.plans.get(name)
            count = len(found.allowances) if found is not None else 0
            grants = tuple(self._new_grant(f"upgrade {len(self.grants)}") for _ in range(count))
            return SetPlan(ACCOUNT, None if name == "none" else name, grants)
        status = words.take() if verb == "status" or words.skip("status") else None
        timezone = words.take() if words.skip("timezone") else None
        if words.skip("overdraft"):
            if words.skip("plan"):
                return SetAccount(ACCOUNT, status, timezone, plans_overdraft=True)
            return SetAccount(ACCOUNT, status, timezone, words.amount())
        return SetAccount(ACCOUNT, status, timezone)

    def _adjust(self, words: Words) -> Adjust:
        amount = words.amount()
        name, bucket = words.rest() or (f"adjustment {len(self.grants)}", "bonus")
        return Adjust(ACCOUNT, amount, self._new_grant(name), bucket, "adjust")

    def _refund(self, hold_id: int, words: Words) -> Refund:
        amount = None if words.skip("all") else words.amount()
        bonus, fault = words.skip("bonus"), words.skip("fault")
        name = words.take() if words.skip("as") else f"refund {len(self.grants)}"
        if words.skip("once"):
            name = words.take()
        return Refund(ACCOUNT, hold_id, self._new_grant(name), amount, "bonus", "refund", bonus, fault)

    def _new_grant(self, name: str) -> int:
        return self.grants.setdefault(name, len(self.grants) + 1)

    def _do(self, command: Command) -> Outcome:
        outcome = self.book.do(command, self.rules, self.now)
        if not isinstance(command, OpenAccount):
            assert self.book.page().next_due_at > self.now, "what was due is still due"
        return outcome

    def _expect(self, outcome: Outcome, expected: str) -> None:
        if isinstance(outcome, Opened):
            assert outcome.new is (expected != "already")
        elif isinstance(outcome, Issued):
            self._expect_grant(outcome, expected)
        elif isinstance(outcome, Held):
            legs = [(leg.grant_id, leg.amount) for leg in outcome.hold.legs]
            assert legs == self._list(expected)
            assert sum(amount for _, amount in legs) == outcome.hold.amount
            assert outcome.available == self._available()
        elif isinstance(outcome, Ended):
            self._expect_end(outcome, expected)
        elif isinstance(outcome, PlanSet):
            self._expect_plan(outcome, expected)
        elif isinstance(outcome, LimitSet):
            assert not expected
        elif isinstance(outcome, AccountSet):
            assert not expected
            assert outcome.status == self.book.page().status
        elif isinstance(outcome, Voided):
            self._expect_voided(outcome, expected)
        elif isinstance(outcome, Adjusted):
            self._expect_adjusted(outcome, expected)
        elif isinstance(outcome, Refunded):
            debt = [(OVERDRAFT, outcome.debt_reduced)] if outcome.debt_reduced else []
            assert debt + [(part.grant_id, part.amount) for part in outcome.to] == self._list(expected)
        elif isinstance(outcome, RefundRefused):
            assert expected == f"refused, left {outcome.left}"
        else:
            raise AssertionError(f"it was refused: {outcome}")

    def _expect_grant(self, outcome: Issued, expected: str) -> None:
        if expected.startswith("already"):
            assert not outcome.new
            assert outcome.repaid == 0
            assert outcome.grant.grant_id == self.grants[expected.removeprefix("already ")]
            return
        figures = Words(expected.replace(",", " ")).pairs()
        assert outcome.new
        assert outcome.repaid == figures.get("repaid", 0)
        assert outcome.balance == figures.get("balance", outcome.grant.granted)

    def _expect_end(self, outcome: Ended, expected: str) -> None:
        name = next(name for name, hold_id in self.calls.items() if hold_id == outcome.hold_id)
        assert outcome.available == self._available()
        assert outcome.ended_at == self._seen()
        assert outcome.memo == receipt_memo(outcome.charged)
        self.answers[name] = outcome
        if outcome.status != "settled":
            assert (outcome.charged, outcome.paid_from, outcome.debt) == (0, (), 0)
            assert not expected
            return
        paid = [(paid.grant_id, paid.amount) for paid in outcome.paid_from]
        if outcome.debt:
            paid.append((OVERDRAFT, outcome.debt))
        assert outcome.late is expected.endswith(" late")
        assert paid == self._list(expected.removesuffix(" late"))

    def _expect_voided(self, outcome: Voided, expected: str) -> None:
        lot = self.book.page().lots[outcome.grant.grant_id]
        assert (outcome.held, outcome.voided_at) == (lot.held, lot.voided_at)
        if expected == "already":
            assert (outcome.amount, outcome.new) == (0, False)
        else:
            assert (outcome.amount, outcome.new) == (int(expected), True)
            assert outcome.voided_at == self._seen()

    def _expect_adjusted(self, outcome: Adjusted, expected: str) -> None:
        entries = [(OVERDRAFT, outcome.debt_reduced)] if outcome.debt_reduced else []
        if outcome.grant is not None:
            entries.append((outcome.grant.grant_id, outcome.grant.granted))
        entries += [(taken.grant_id, taken.amount) for taken in outcome.taken]
        if outcome.debt_added:
            entries.append((OVERDRAFT, outcome.debt_added))
        assert entries == self._list(expected)

    def _list(self, expected: str) -> list[tuple[int, int]]:
        expected = expected.replace("debt", "overdraft")
        if expected == "nothing":
            return []
        assert expected, "say after -> what is expected, if only: nothing"
        entries = [entry.split() for entry in expected.split(",")]
        return [(OVERDRAFT if name == "overdraft" else self._id_of(name), int(amount)) for name, amount in entries]

    def _id_of(self, name: str) -> int:
        """What a name stands for: a grant of the scenario's, or one that a plan gave."""
        if name in self.grants:
            return self.grants[name]
        page = self.book.page()
        bucket, _, number = name.partition("+")
        if number:
            lots = [lot.grant for lot in page.lots.values() if lot.grant.bucket == bucket]
            ups = [grant.grant_id for grant in lots if (grant.source_key or "").count("/") == 3]
            return sorted(ups)[int(number) - 1]
        bucket, _, day = name.partition("@")
        granted = periods_granted(page, bucket)
        if not day:
            return granted[-1][1].grant_id
        return dict(granted)[date.fromisoformat(day).toordinal()].grant_id

    def _expect_plan(self, outcome: PlanSet, expected: str) -> None:
        page = self.book.page()
        if expected.startswith("at "):
            assert outcome.at == Words(expected.removeprefix("at ")).when() == page.next_plan_at
            assert (outcome.grants, outcome.plan) == ((), page.next_plan)
            return
        assert (outcome.plan, outcome.at, page.next_plan_at) == (page.plan, self._seen(), NEVER)
        given = [f"{grant.bucket} {grant.granted}" for grant in outcome.grants]
        assert (", ".join(given) or "nothing") == expected

    def _buckets(self, words: Words) -> None:
        self.rules = replace(self.rules, order={bucket: rank for rank, bucket in enumerate(words.rest())})

    def _plan(self, words: Words) -> None:
        name = words.take()
        plans = {**self.rules.plans}
        if words.skip("gone"):
            del plans[name]
        else:
            plans[name] = _read_plan(name, " ".join(words.rest()))
        self.rules = replace(self.rules, plans=plans)

    def _back(self, words: Words) -> None:
        assert words.skip("to")
        now = words.when()
        assert now < self.now, "that is not back"
        self.now = now

    def _seen(self) -> int:
        """The account's own time, which never goes back behind what was done in it."""
        return self.book.balance(self.rules, self.now).at

    def _bucket(self, words: Words) -> None:
        name = words.take()
        grants = self.book.balance(self.rules, self.now).grants
        found = sum(left - held for grant, left, held in grants if grant.bucket == name)
        assert found == words.amount(), f"{name} is {found}"

    def _on(self, words: Words) -> None:
        balance = self.book.balance(self.rules, self.now)
        assert (balance.plan or "none") == words.take(), f"it is on {balance.plan}"
        if not words.skip("then"):
            assert balance.next_plan is None
            return
        assert balance.next_plan is not None
        name, at = balance.next_plan
        assert ((name or "none"), at) == (words.take(), words.when())

    def _spent(self, words: Words) -> None:
        limit = self.book.page().limits[words.take()]
        spent, reserved = (limit.spent, limit.reserved) if self.now < limit.ends_at else (0, 0)
        assert spent == words.amount(), f"{spent} is spent"
        if words.skip("reserved"):
            assert reserved == words.amount(), f"{reserved} is reserved"

    def _calls(self, words: Words) -> None:
        count, share = words.amount(), " ".join(words.rest())
        for _ in range(count):
            name = f"call {len(self.calls)}"
            self.calls[name] = _FIRST_HOLD + len(self.calls)
            hold = PlaceHold(ACCOUNT, self.calls[name], 0, receipt_memo(0), share=self._share(0, Words(share)))
            assert isinstance(self._do(hold), Held)
            settled = self._do(Settle(ACCOUNT, self.calls[name], 0, b"", self._share(0, Words(share))))
            assert isinstance(settled, Ended)
            assert settled.memo == receipt_memo(settled.charged)

    def _at(self, words: Words) -> None:
        now = words.when()
        assert now >= self.now, "time does not go back"
        self.now = now

    def _balance(self, words: Words) -> None:
        lot = self.book.page().lots[self._id_of(words.take())]
        assert lot.balance == words.amount()
        if words.skip("held"):
            assert lot.held == words.amount()

    def _refused(self, words: Words) -> None:
        before = self.book.page()
        command = self._command("refused", words)
        outcome = self._do(command)
        assert isinstance(outcome, Refused), "it was not refused"
        assert outcome.reason == words.take()
        assert isinstance(command, PlaceHold)
        assert outcome.needed == command.amount or command.share is not None
        assert outcome.available == self._available()
        if words.skip("fits"):
            assert outcome.fits_at == (None if words.skip("never") else words.when()), f"it fits at {outcome.fits_at}"
        if words.skip("by"):
            assert outcome.limit is not None
            assert outcome.limit.scope == words.take()
        for name, amount in words.pairs().items():
            assert getattr(outcome, name) == amount, f"{name} is {getattr(outcome, name)}"
        _assert_only_time_passed(before, self.book.page())

    def _again(self, words: Words) -> None:
        before = self.book.page()
        command = self._command(words.take(), words)
        outcome = self._do(command)
        assert isinstance(outcome, Ended)
        name = next(name for name, hold_id in self.calls.items() if hold_id == outcome.hold_id)
        assert replace(outcome, available=0) == replace(self.answers[name], available=0)
        assert outcome.available == self._available()
        _assert_only_time_passed(before, self.book.page())

    def _raises(self, text: str) -> None:
        error, _, line = text.partition(": ")
        verb, _, rest = line.partition(" ")
        before = self.book.page()
        words = Words(rest)
        with pytest.raises(getattr(ledger.errors, error)):
            self._do(self._command(verb, words))
        words.end()
        assert self.book.page() == before

    def _available(self) -> int:
        return self.book.balance(self.rules, self.now).available

    def _figure(self, name: str, amount: int) -> None:
        found = self._available() if name == "available" else _FIGURES[name](self.book.page())
        assert found == amount, f"{name} is {found}"


_FIGURES: dict[str, Callable[[Page], int]] = {
    "available": lambda page: -1,  # not on the page: it is projected at the scenario's time
    "held": lambda page: page.held,
    "debt": lambda page: page.debt,
    "breakage": lambda page: page.moved(target=BREAKAGE),
    "revenue": lambda page: -page.net(REVENUE),
    "issued": lambda page: page.net(ISSUE),
    "sold": lambda page: page.net(SALE),
    "adjusted": lambda page: page.net(ADJUSTMENT),
}


def _assert_only_time_passed(before: Page, after: Page) -> None:
    """Assert that nothing but expiry and renewal happened between two readings."""
    new = after.transfers[len(before.transfers) :]
    assert after.transfers[: len(before.transfers)] == before.transfers
    assert {transfer.kind for transfer in new} <= {"expiry", "grant", "repayment"}
    assert all(lot.grant.source == "allowance" for lot_id, lot in after.lots.items() if lot_id not in before.lots)
    repaid = sum(transfer.amount for transfer in new if transfer.kind == "repayment")
    assert (after.holds, after.receipts, after.debt) == (before.holds, before.receipts, before.debt - repaid)
    assert (after.limits, after.runs) == (before.limits, before.runs)


def _read_plan(name: str, text: str) -> Plan:
    """Read a plan as scenarios write it."""
    allowances: list[Allowance] = []
    overdraft, paid = 0, False
    for part in text.split(","):
        words = Words(part)
        if not words.skip("nothing"):
            bucket = words.take()
            amount, _, every = words.take().partition("/")
            allowances.append(Allowance(bucket, int(amount), every, words.skip("calendar")))
        overdraft = words.amount() if words.skip("overdraft") else overdraft
        paid = words.skip("paid") or paid
        words.end()
    return Plan(name, tuple(allowances), overdraft, paid)
