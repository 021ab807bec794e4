"""Scenarios that a bookkeeper can read, a step a line, each checked against every invariant after every step.

    buckets daily bonus paid                        the burn-down order
    account [overdraft 100]                         open the account; once more changes nothing
    at 2026-11-21 23:59                             the clock, UTC; it may not go back
    grant NAME [BUCKET] 100 [paid] [from WHEN] [expires WHEN] [key KEY] [-> balance 60, repaid 40 | -> already NAME]
    hold CALL 180 [within 4] -> daily 100, overdraft 80           the legs, in their order
    refused CALL 180 [within 4] REASON [available 10] [held 0] [affordable 10] [debt 0]
    settle CALL 120 -> daily 100, debt 20 [late]    who paid, in order
    void CALL, orphan CALL                          end without a charge; orphan: its process died
    again settle CALL 120, again void CALL          the recorded answer, and nothing moves
    raises Conflict: hold CALL 5                    any command; nothing moves
    raises UnknownAccount: stranger hold CALL 5     the command goes to an account that was never opened
    void grant NAME -> 60 | -> already              what went at once
    adjust 50 [NAME BUCKET] -> debt 20, NAME 30     up: debt is written off, the rest is a grant
    adjust -50 -> pack 30, debt 20                  down: what was taken, in order, then what is owed
    refund CALL 30|all [bonus|fault] [as NAME] [once KEY] -> debt 10, pack 15, NAME 5 | -> refused, left 20
                                                    where it went; NAME: the new grant; under one KEY it is made once
    set [status suspended] [timezone Asia/Tokyo] [overdraft 50]
    status suspended                                the same as set status suspended
    balance NAME 60 [held 40]                       what is left of a grant, and how much of it is pinned
    available 60, held 40, debt 0, breakage 0
    revenue 0, issued 100, sold 0, adjusted 0       net: what was refunded or voided is taken off
    alternative TITLE                               what came before is played again, then what follows

A grant's bucket is its name where none is given; "nothing" stands for an empty list; # begins a comment.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
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
    SetAccount,
    Settle,
    Void,
    VoidGrant,
)
from ledger.model import (
    ADJUSTMENT,
    BREAKAGE,
    ISSUE,
    NEVER,
    OVERDRAFT,
    REVENUE,
    SALE,
    AccountSet,
    Adjusted,
    Ended,
    Held,
    Issued,
    Opened,
    Outcome,
    Refunded,
    RefundRefused,
    Refused,
    Voided,
)
from tests.ledger.books import ACCOUNT, AnyLedger, Page, assert_lawful, receipt_memo
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
    order: dict[str, int] = field(default_factory=dict)
    grants: dict[str, int] = field(default_factory=dict)
    calls: dict[str, int] = field(default_factory=dict)
    answers: dict[str, Ended] = field(default_factory=dict)

    def step(self, line: str) -> None:
        left, _, expected = (part.strip() for part in line.partition("->"))
        verb, _, rest = left.partition(" ")
        words = Words(rest)
        plain: dict[str, Callable[[Words], None]] = {
            "buckets": self._buckets,
            "at": self._at,
            "balance": self._balance,
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
            limit = words.amount() if words.skip("overdraft") else 0
            return OpenAccount(ACCOUNT, overdraft_limit=limit)
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
            return Settle(ACCOUNT, hold_id, amount, receipt_memo(amount))
        assert verb in ("hold", "refused"), f"no such step: {verb}"
        within = words.amount() if words.skip("within") else 0
        return PlaceHold(ACCOUNT, hold_id, amount, receipt_memo(0), within)

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

    def _set(self, verb: str, words: Words) -> SetAccount:
        return SetAccount(
            ACCOUNT,
            words.take() if verb == "status" or words.skip("status") else None,
            words.take() if words.skip("timezone") else None,
            words.amount() if words.skip("overdraft") else None,
        )

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
        outcome = self.book.do(command, self.order, self.now)
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
        assert outcome.ended_at == self.now
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
            assert outcome.voided_at == self.now

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
        return [(OVERDRAFT if name == "overdraft" else self.grants[name], int(amount)) for name, amount in entries]

    def _buckets(self, words: Words) -> None:
        self.order = {bucket: rank for rank, bucket in enumerate(words.rest())}

    def _at(self, words: Words) -> None:
        now = words.when()
        assert now >= self.now, "time does not go back"
        self.now = now

    def _balance(self, words: Words) -> None:
        lot = self.book.page().lots[self.grants[words.take()]]
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
        assert outcome.needed == command.amount
        assert outcome.available == self._available()
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
        return self.book.balance(self.order, self.now).available

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
    """Assert that nothing but expiry happened between two readings."""
    new = after.transfers[len(before.transfers) :]
    assert after.transfers[: len(before.transfers)] == before.transfers
    assert all(transfer.kind == "expiry" for transfer in new)
    assert (after.holds, after.receipts, after.debt) == (before.holds, before.receipts, before.debt)
