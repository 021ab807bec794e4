"""What the ledger can carry by itself: `python -m bench.ledger [--rounds N] [--seconds S] [--json]`.

Beside it, on the same disk and in turn: the standard library's sqlite3 with a durable transaction for each hold and
each settlement, which is what a ledger without group commit would do.
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
from ledger.commands import PlaceHold
from ledger.ledger import Ledger
from ledger.outcomes import Held
from ledger.rules import Rules
from proxy.server import quieten_collector

_CALLERS = 64
_ACCOUNTS = (10_000, 1)
_GRANTED = 10**13
_HOLD = 1000
_CHARGE = 700
_STRIDE = 7919  # prime: callers that follow one another land on accounts far apart
_OPENED_AT_ONCE = 500
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


async def _ours(folder: Path, accounts: int, seconds: float) -> Figures:
    """Let 64 callers hold and settle through the ledger; raises RuntimeError if the audit then finds anything."""
    path = str(folder / "ledger.db")
    ledger = await Ledger.open(path, lambda: Rules({"paid": 0}))
    for first in range(1, accounts + 1, _OPENED_AT_ONCE):
        some = range(first, min(first + _OPENED_AT_ONCE, accounts + 1))
        await asyncio.gather(*(ledger.open_account(account) for account in some))
        await asyncio.gather(*(ledger.issue(account, "paid", _GRANTED) for account in some))
    holds: list[float] = []
    turn = 0
    began, cpu = time.perf_counter(), time.process_time()

    async def caller() -> None:
        nonlocal turn
        while time.perf_counter() - began < seconds:
            turn += 1
            account, hold = turn * _STRIDE % accounts + 1, ledger.next_id()
            asked = time.perf_counter()
            held = await ledger.hold(PlaceHold(account, hold, _HOLD, _MEMO))
            holds.append(time.perf_counter() - asked)
            assert isinstance(held, Held)
            await ledger.settle(account, hold, _CHARGE, _MEMO)

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


def measure(root: Path | None, rounds: int, seconds: float) -> dict[int, dict[str, Figures]]:
    """Run both in turn over many accounts and over one; returns medians by number of accounts."""
    results: dict[int, dict[str, Figures]] = {}
    for accounts in _ACCOUNTS:
        ours: list[Figures] = []
        reference: list[Figures] = []
        for number in range(rounds):
            # A file of its own for each round, so that none pays for the size of the last one's.
            with tempfile.TemporaryDirectory(prefix="farebox-bench-", dir=root) as folder:
                reference.append(_reference(Path(folder), accounts, seconds))
                # As in the server: pages that stay in memory would else be collected with everything.
                quieten_collector()
                ours.append(uvloop.run(_ours(Path(folder), accounts, seconds)))
            print(f"{accounts} accounts: round {number + 1} of {rounds}", file=sys.stderr)
        results[accounts] = {"ledger": _median(ours), "reference": _median(reference)}
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
    print("books: clean after every round")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.ledger", description="Measure the ledger by itself.")
    parser.add_argument("--rounds", type=int, default=3, help="turns that each gets [default: 3]")
    parser.add_argument("--seconds", type=float, default=3, help="length of a turn [default: 3]")
    parser.add_argument("--folder", type=Path, help="a folder on the disk to measure [default: the temporary folder]")
    parser.add_argument("--json", action="store_true", help="write JSON")
    options = parser.parse_args()
    if not 1 <= options.rounds <= 20 or not 0.1 <= options.seconds <= 20:
        parser.error("--rounds is from 1 to 20, --seconds from 0.1 to 20")
    with bounded(_MOST_SECONDS):
        with tempfile.TemporaryDirectory(prefix="farebox-bench-", dir=options.folder) as folder:
            machine = Machine.now(Path(folder))
        results = measure(options.folder, options.rounds, options.seconds)
    if options.json:
        named = {
            f"{accounts}_accounts": {k: asdict(v) for k, v in figures.items()} for accounts, figures in results.items()
        }
        print(json.dumps({"callers": _CALLERS, "rounds": options.rounds, "machine": asdict(machine), **named}))
    else:
        _print(results, machine)


if __name__ == "__main__":
    main()
