"""What the ledger can carry by itself: `python -m bench.ledger [--rules] [--rounds N] [--seconds S] [--json]`.

Beside it, on the same disk and in turn: the standard library's sqlite3 with a durable transaction for each hold and
each settlement, which is what a ledger without group commit would do. With --rules also the ledger where holds come
under a spend limit and the bounds of a run, and where an allowance has to be renewed first.
"""

from __future__ import annotations

import sys

if __name__ == "__main__" and not __package__:
    sys.exit("run it from the repository as: python -m bench.ledger")

import argparse
import asyncio
import json
import sqlite3
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import uvloop

from bench.processes import Machine, bounded
from ledger.audit import audit
from ledger.commands import PlaceHold, RunShare, Settle
from ledger.ids import microseconds
from ledger.ledger import Ledger
from ledger.outcomes import Held
from ledger.rules import Allowance, Plan, Rules
from proxy.server import quieten_collector

_CALLERS = 64
_ACCOUNTS = (10_000, 1)
_GRANTED = 10**13
_HOLD = 1000
_CHARGE = 700
_STRIDE = 7919  # prime: callers that follow one another land on accounts far apart
_OPENED_AT_ONCE = 500
_CALLS_A_RUN = 12
_DAY = 86_400_000_000
_LEAST_HOLDS_A_DAY = 64  # ids carry times until 2091: one account alone must not get there
_SCOPE = "key:bench"
_LEDGER, _REFERENCE, _LIMITS, _RENEWALS = "ledger", "reference", "limits_and_runs", "renewals_due"
_MOST_SECONDS = 900
_TARGET_RATE = 10_000
_TARGET_P99_MS = 10
# About as long as a call's own record; its one line adds up to the charge, as the audit demands.
_MEMO = json.dumps({"lines": [{"meter": "output_tokens", "amount": _CHARGE}], "rest": "x" * 240}).encode()


@dataclass(frozen=True, slots=True)
class Figures:
    """One round: pairs of a hold and its settlement; CPU of the whole process, callers included."""

    pairs_per_second: float
    cpu_us_per_pair: float
    hold_p50_ms: float
    hold_p99_ms: float


def _figures(holds: list[float], seconds: float, cpu_seconds: float) -> Figures:
    holds.sort()
    pairs = len(holds)
    p50, p99 = holds[pairs // 2], holds[int(pairs * 0.99)]
    return Figures(pairs / seconds, cpu_seconds / pairs * 1e6, p50 * 1e3, p99 * 1e3)


class _Kind:
    """How the ledger is asked in one round: plainly, under limits and in runs, or with renewals due."""

    def __init__(self, name: str, accounts: int) -> None:
        self.renews = name == _RENEWALS
        self._name = name
        self._accounts = accounts
        self._turn = 0
        self._days = 0
        self._calls: dict[int, int] = {}
        plans = {"daily": Plan("daily", (Allowance("daily", _GRANTED, "day"),))} if self.renews else {}
        self._rules = Rules({"daily": 0, "paid": 1}, plans=plans)

    def rules(self) -> Rules:
        return self._rules

    def clock(self) -> int:
        """What time it is, in microseconds since 1970."""
        return microseconds() + self._days * _DAY

    async def prepare(self, ledger: Ledger, account: int) -> None:
        """Open an account, with credits and what else it needs."""
        if self.renews:
            await ledger.open_account(account, plan="daily")
            return
        await ledger.open_account(account)
        await ledger.issue(account, "paid", _GRANTED)
        if self._name == _LIMITS:
            await ledger.set_limit(account, _SCOPE, _GRANTED, "month")

    def next_pair(self, ledger: Ledger) -> tuple[PlaceHold, Settle]:
        """Choose the account that comes next, and what it holds and is charged."""
        self._turn += 1
        account, hold = self._turn * _STRIDE % self._accounts + 1, ledger.next_id()
        if self.renews:
            # Another day whenever each account has had its turn, so that the next turn of each finds its day over.
            self._days = 1 + self._turn // max(self._accounts, _LEAST_HOLDS_A_DAY)
        if self._name != _LIMITS:
            return PlaceHold(account, hold, _HOLD, _MEMO), Settle(account, hold, _CHARGE, _MEMO)
        calls = self._calls[account] = self._calls.get(account, -1) + 1
        run = str(calls // _CALLS_A_RUN)
        held = RunShare(run, "step", _HOLD, 1, _GRANTED)
        charged = RunShare(run, "step", _CHARGE, 1, _GRANTED, close=lambda *_: _MEMO)
        return (
            PlaceHold(account, hold, 0, _MEMO, scopes=(_SCOPE, f"run:{run}"), share=held),
            Settle(account, hold, 0, b"", share=charged),
        )


async def _ours(folder: Path, accounts: int, seconds: float, name: str) -> Figures:
    """Let 64 callers hold and settle through the ledger; raises RuntimeError if the audit then finds anything."""
    path = str(folder / "ledger.db")
    kind = _Kind(name, accounts)
    ledger = await Ledger.open(path, kind.rules, clock=kind.clock)
    for first in range(1, accounts + 1, _OPENED_AT_ONCE):
        some = range(first, min(first + _OPENED_AT_ONCE, accounts + 1))
        await asyncio.gather(*(kind.prepare(ledger, account) for account in some))
    holds: list[float] = []
    began, cpu = time.perf_counter(), time.process_time()

    async def caller() -> None:
        while time.perf_counter() - began < seconds:
            hold, settle = kind.next_pair(ledger)
            asked = time.perf_counter()
            held = await ledger.hold(hold)
            holds.append(time.perf_counter() - asked)
            assert isinstance(held, Held)
            await ledger.end(settle)

    await asyncio.gather(*(caller() for _ in range(_CALLERS)))
    figures = _figures(holds, time.perf_counter() - began, time.process_time() - cpu)
    await ledger.close()
    books = audit(path)
    if not books.clean or books.totals["revenue"] != len(holds) * _CHARGE:
        raise RuntimeError(f"the books are wrong: {books.findings} {books.totals}")
    return figures


_TABLES = """
    PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA cache_size=-65536; PRAGMA wal_autocheckpoint=4000;
    CREATE TABLE "grant" (account INTEGER PRIMARY KEY, balance INTEGER NOT NULL, held INTEGER NOT NULL);
    CREATE TABLE hold (account INTEGER, hold INTEGER, amount INTEGER, memo BLOB, PRIMARY KEY (account, hold));
    CREATE TABLE transfer (account INTEGER, hold INTEGER, amount INTEGER, PRIMARY KEY (account, hold));
    CREATE TABLE receipt (account INTEGER, hold INTEGER, charged INTEGER, memo BLOB, PRIMARY KEY (account, hold));
"""


def _reference(folder: Path, accounts: int, seconds: float) -> Figures:
    """Hold and settle one after another, a durable transaction each; one caller, as SQLite has one writer."""
    connection = sqlite3.connect(folder / "reference.db", isolation_level=None)
    connection.executescript(_TABLES)
    connection.execute("BEGIN")
    rows = ((account, _GRANTED) for account in range(1, accounts + 1))
    connection.executemany('INSERT INTO "grant" VALUES (?, ?, 0)', rows)
    connection.execute("COMMIT")
    run = connection.execute
    holds: list[float] = []
    began, cpu = time.perf_counter(), time.process_time()
    while (asked := time.perf_counter()) - began < seconds:
        hold = len(holds)
        account = hold * _STRIDE % accounts + 1
        run("BEGIN IMMEDIATE")
        taken = run('UPDATE "grant" SET held = held + ?1 WHERE account = ?2 AND balance - held >= ?1', (_HOLD, account))
        assert taken.rowcount == 1
        run("INSERT INTO hold VALUES (?, ?, ?, ?)", (account, hold, _HOLD, _MEMO))
        run("COMMIT")
        holds.append(time.perf_counter() - asked)
        run("BEGIN IMMEDIATE")
        ((amount,),) = run(
            "DELETE FROM hold WHERE account = ? AND hold = ? RETURNING amount", (account, hold)
        ).fetchall()
        run('UPDATE "grant" SET held = held - ?, balance = balance - ? WHERE account = ?', (amount, _CHARGE, account))
        run("INSERT INTO transfer VALUES (?, ?, ?)", (account, hold, _CHARGE))
        run("INSERT INTO receipt VALUES (?, ?, ?, ?)", (account, hold, _CHARGE, _MEMO))
        run("COMMIT")
    figures = _figures(holds, time.perf_counter() - began, time.process_time() - cpu)
    connection.close()
    return figures


def _median(rounds: list[Figures]) -> Figures:
    plain = [asdict(one) for one in rounds]
    return Figures(**{name: median(one[name] for one in plain) for name in plain[0]})


def measure(root: Path | None, rounds: int, seconds: float, *, rules: bool) -> dict[int, dict[str, Figures]]:
    """Run all in turn over many accounts and over one; returns medians by number of accounts."""
    results: dict[int, dict[str, Figures]] = {}
    kinds = (_LEDGER, _LIMITS, _RENEWALS) if rules else (_LEDGER,)
    for accounts in _ACCOUNTS:
        seen: dict[str, list[Figures]] = {name: [] for name in (*kinds, _REFERENCE)}
        for number in range(rounds):
            # A file of its own for each turn, so that none pays for the size of the last one's.
            with tempfile.TemporaryDirectory(prefix="farebox-bench-", dir=root) as folder:
                seen[_REFERENCE].append(_reference(Path(folder), accounts, seconds))
            for name in kinds:
                with tempfile.TemporaryDirectory(prefix="farebox-bench-", dir=root) as folder:
                    # As in the server: pages that stay in memory would else be collected with everything.
                    quieten_collector()
                    seen[name].append(uvloop.run(_ours(Path(folder), accounts, seconds, name)))
            print(f"{accounts} accounts: round {number + 1} of {rounds}", file=sys.stderr)
        results[accounts] = {name: _median(figures) for name, figures in seen.items()}
    return results


def _print(results: dict[int, dict[str, Figures]], machine: Machine) -> None:
    print(f"{_CALLERS} callers of the ledger; {machine}\n")
    print(f"{'':32}{'a transaction each':>20}{'ledger':>12}{'ratio':>8}   target")
    for accounts, figures in results.items():
        reference, ledger = figures["reference"], figures["ledger"]
        print(f"{accounts:,} accounts" if accounts > 1 else "1 account")
        for name, theirs, ours, digits, target in (
            ("pairs a second", reference.pairs_per_second, ledger.pairs_per_second, 0, f">= {_TARGET_RATE:,}"),
            ("CPU µs a pair", reference.cpu_us_per_pair, ledger.cpu_us_per_pair, 0, ""),
            ("hold p50 ms", reference.hold_p50_ms, ledger.hold_p50_ms, 2, ""),
            ("hold p99 ms", reference.hold_p99_ms, ledger.hold_p99_ms, 2, f"<= {_TARGET_P99_MS}"),
        ):
            # The reference has one caller, who never waits for others: only what is per pair compares.
            ratio = "" if name.startswith("hold") else f"{ours / theirs:.2f}"
            row = f"  {name:30}{theirs:>20,.{digits}f}{ours:>12,.{digits}f}{ratio:>8}   {target}"
            print(row.rstrip())
    print("books: clean after every turn")
    if _LIMITS in next(iter(results.values())):
        _print_rules(results)


def _print_rules(results: dict[int, dict[str, Figures]]) -> None:
    print(f"\n{'':32}{'ledger':>12}{'limits, runs':>14}{'ratio':>8}{'renewals due':>14}{'ratio':>8}")
    for accounts, figures in results.items():
        print(f"{accounts:,} accounts" if accounts > 1 else "1 account")
        plain, limits, renewals = (asdict(figures[name]) for name in (_LEDGER, _LIMITS, _RENEWALS))
        for name, label, digits in (
            ("pairs_per_second", "pairs a second", 0),
            ("cpu_us_per_pair", "CPU µs a pair", 0),
            ("hold_p50_ms", "hold p50 ms", 2),
            ("hold_p99_ms", "hold p99 ms", 2),
        ):
            row = f"  {label:30}{plain[name]:>12,.{digits}f}"
            for other in (limits[name], renewals[name]):
                row += f"{other:>14,.{digits}f}{other / plain[name]:>8.2f}"
            print(row)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.ledger", description="Measure the ledger by itself.")
    parser.add_argument("--rounds", type=int, default=3, help="turns that each gets [default: 3]")
    parser.add_argument("--seconds", type=float, default=3, help="length of a turn [default: 3]")
    parser.add_argument("--folder", type=Path, help="a folder on the disk to measure [default: the temporary folder]")
    parser.add_argument("--rules", action="store_true", help="measure limits, runs and renewals too")
    parser.add_argument("--json", action="store_true", help="write JSON")
    options = parser.parse_args()
    if not 1 <= options.rounds <= 20 or not 0.1 <= options.seconds <= 20:
        parser.error("--rounds is from 1 to 20, --seconds from 0.1 to 20")
    with bounded(_MOST_SECONDS):
        with tempfile.TemporaryDirectory(prefix="farebox-bench-", dir=options.folder) as folder:
            machine = Machine.now(Path(folder))
        results = measure(options.folder, options.rounds, options.seconds, rules=options.rules)
    if options.json:
        named = {
            f"{accounts}_accounts": {k: asdict(v) for k, v in figures.items()} for accounts, figures in results.items()
        }
        print(json.dumps({"callers": _CALLERS, "rounds": options.rounds, "machine": asdict(machine), **named}))
    else:
        _print(results, machine)


if __name__ == "__main__":
    main()
