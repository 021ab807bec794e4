"""One account's eventful life, step by step, on a store whose every point between two writes has a name.

Run as `python -m tests.ledger.crash_points URL`: for each line `ACCOUNT POINT` it forks a process that lives the life
on the ledger at that URL and kills itself at the point of that name. It prints the steps that were acknowledged, a
line each, and `died` with the exit status.
"""

from __future__ import annotations

import os
import signal
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar, cast
from unittest.mock import patch

from ledger import wire
from ledger.backend import Backend, Changes, Pairs, Row, Write
from ledger.commands import (
    Adjust,
    Command,
    IssueGrant,
    OpenAccount,
    PlaceHold,
    Refund,
    RunShare,
    SetLimit,
    SetPlan,
    Settle,
    Void,
    VoidGrant,
)
from ledger.model import Claim
from ledger.opening import open_stores
from ledger.rules import Allowance, Plan
from ledger.store import Store
from tests.ledger.books import receipt_memo
from tests.ledger.running import DAY, NOON
from tests.ledger.running import RULES as _RULES

_Kind = TypeVar("_Kind")
_DAILY = Allowance("daily", 50, "day")
RULES = replace(
    _RULES, plans={"free": Plan("free", (_DAILY,)), "pro": Plan("pro", (_DAILY, Allowance("bonus", 90, "month")))}
)


@dataclass(frozen=True, slots=True)
class Step:
    """Commands that go in one batch, and when."""

    name: str
    now: int
    commands: tuple[Command, ...]


def steps(account: int) -> list[Step]:
    """The life of an account; together its steps write to every table in every way."""
    share = RunShare("run", "answer", 5, 8, None)
    claim = Claim(b"k" * 32, b"b" * 32)
    closing = replace(share, close=lambda run, charged: receipt_memo(40 + charged))
    kept = PlaceHold(account, 11, 60, receipt_memo(0), scopes=("key:a",), share=share, claim=claim)

    def held(hold_id: int, amount: int) -> PlaceHold:
        return PlaceHold(account, hold_id, amount, receipt_memo(0))

    def settled(hold_id: int, amount: int) -> Settle:
        return Settle(account, hold_id, amount, receipt_memo(amount))

    said: list[tuple[str, int, tuple[Command, ...]]] = [
        ("open", 0, (OpenAccount(account, overdraft_limit=20, plan="free"),)),
        ("issue", 1, (IssueGrant(account, 5, "paid", 500, paid=True, source_key="payment", note="thanks"),)),
        ("limit", 2, (SetLimit(account, "key:a", 1000, "month"),)),
        ("hold", 3, (kept,)),
        ("batch", 4, (held(12, 30), held(13, 40), settled(12, 20), held(14, 50), Void(account, 13, receipt_memo(0)))),
        ("settle", 5, (Settle(account, 11, 40, b"", closing, answer=b"said"),)),
        ("freeing batch", 6, (replace(held(15, 10), claim=Claim(b"l" * 32, b"b" * 32)), held(16, 70))),
        ("void", 7, (Void(account, 15, receipt_memo(0)),)),
        ("orphan", 8, (Void(account, 16, receipt_memo(0), orphaned=True),)),
        ("late settlement", 9, (settled(16, 60),)),
        ("renewal", DAY, (held(17, 30),)),
        ("settlement above the hold", DAY + 1, (settled(14, 600),)),
        ("payment of debt", DAY + 2, (IssueGrant(account, 6, "paid", 400, paid=True, source_key="another"),)),
        ("refund", DAY + 3, (Refund(account, 11, 21, 30, "bonus", "sorry"),)),
        ("refund of debt", DAY + 4, (Refund(account, 14, 22, None, "bonus", "sorry"),)),
        ("void of a grant", DAY + 5, (VoidGrant(account, 6, "charged back"),)),
        ("adjustment down", DAY + 6, (Adjust(account, -45, 31, "bonus", "a correction"),)),
        ("adjustment up", DAY + 7, (Adjust(account, 300, 32, "bonus", "a correction"),)),
        ("plan", DAY + 8, (SetPlan(account, "pro", (41, 42)),)),
        ("last batch", DAY + 9, (settled(17, 25), held(18, 33), Adjust(account, 7, 33, "bonus", "a gift"))),
    ]
    return [Step(name, NOON + after, commands) for name, after, commands in said]


class _Marked:
    """A backend that tells `at` before and after it begins, writes and commits, by the name of that point."""

    def __init__(self, backend: Backend, at: Callable[[str], object], *, at_once: bool) -> None:
        self._backend, self._at, self._at_once = backend, at, at_once
        self.step = ""
        self._seen = Counter[str]()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)

    def _around(self, what: str, do: Callable[..., _Kind], *values: object) -> _Kind:
        what = f"{self.step}: {what}"
        self._seen[what] += 1
        point = f"{what} {self._seen[what]}" if self._seen[what] > 1 else what
        self._at(f"{point}, before")
        done = do(*values)
        self._at(f"{point}, after")
        return done

    def begin(self, accounts: Sequence[int], holds: Pairs = ()) -> None:
        self._around("begin", self._backend.begin, accounts, holds)

    def write(self, write: Write, rows: Sequence[Row]) -> int:
        return self._around(f"{write.how} {write.table}", self._backend.write, write, rows)

    def commit(self, changes: Changes = ()) -> None:
        if self._at_once:
            self._around("commit", self._send, changes)
            return
        for write, rows in changes:
            assert self.write(write, rows) == len(rows)
        self._around("commit", self._backend.commit)

    def _send(self, changes: Changes) -> None:
        """Commit as to PostgreSQL, where everything goes in one go, with a point between sending and being answered."""
        answers, point = wire._answers, f"{self.step}: commit, sent"

        def sent(server: Any) -> Any:
            self._at(point)
            return answers(server)

        if self._backend.exclusive:
            self._at(point)
        with patch.object(wire, "_answers", sent):
            self._backend.commit(changes)


def live(store: Store, account: int, at: Callable[[str], object], *, at_once: bool) -> Iterator[str]:
    """Live an account's life, telling `at` the name of every point; yields each step's name once it is acknowledged.

    at_once: the points are those of PostgreSQL, to which a batch's changes and its commit go together.
    """
    marked = _Marked(store.backend, at, at_once=at_once)
    store.backend = cast(Backend, marked)
    for step in steps(account):
        marked.step = step.name
        store.transact(step.commands, RULES, step.now)
        yield step.name


def _live_until(url: str, account: int, point: str) -> None:
    def at(reached: str) -> None:
        if reached == point:
            os.kill(os.getpid(), signal.SIGKILL)

    stores, _ = open_stores(url, "the one that dies")
    for step in live(stores[0], account, at, at_once=not stores[0].backend.exclusive):
        os.write(1, f"{step}\n".encode())


def main(url: str) -> None:
    for line in iter(sys.stdin.readline, ""):
        account, _, point = line.strip().partition(" ")
        process = os.fork()
        if process == 0:
            _live_until(url, int(account), point)
            os._exit(0)
        _, status = os.waitpid(process, 0)
        os.write(1, f"died {os.waitstatus_to_exitcode(status)}\n".encode())


if __name__ == "__main__":
    main(sys.argv[1])
