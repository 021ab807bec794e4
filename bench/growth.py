"""What a long past costs: `python -m bench.growth [--calls N] [--accounts N] [--postgres] [--json]`.

Fills an empty ledger (a temporary file, or a PostgreSQL server of its own) with a year of settled calls, seals it, and
measures the latency of holds, in turn with those of a ledger that has no past, the audit, and the bytes of a call; then
packs it and measures again.
"""

from __future__ import annotations

import sys

if __name__ == "__main__" and not __package__:
    sys.exit("run it from the repository as: python -m bench.growth")

import argparse
import asyncio
import json
import random
import shutil
import sqlite3
import subprocess
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import psycopg

from ledger.audit import MOST_ROWS, audit
from ledger.commands import PlaceHold, Settle
from ledger.ids import first_id, microseconds
from ledger.ledger import Ledger
from ledger.loading import RECEIPT_COLUMNS
from ledger.model import NEVER, REVENUE, SALE
from ledger.opening import is_postgres
from ledger.outcomes import Held
from ledger.rules import Rules
from tests.postgres import own_database, postgres_server

_CHARGE = 700
_GRANTED = 10**15
_YEAR = 365 * 86_400_000_000
_GRANT = 1
# As a call's own record is: a digest of its own, the rest much alike.
_MEMO = (
    b'{"endpoint":"/v1/chat/completions","model":"fast","upstream_model":"gpt-4.1-mini","operation":"editor_fast",'
    b'"app":"app_notes","thread":"%s","run":null,"key":"key_0c5c4e16cc72af130c5c4e16c90d5f13","member":null,'
    b'"price_version":"prices_726602538cfdb65b","shortened_to":null,"body_sha256":"%s","retry_count":0,"messages":%d,'
    b'"input_by_role":null,"ended":"answered","estimated":false,"lines":[{"meter":"input_tokens","quantity":"%d",'
    b'"price":"40 / 1M","amount":200},{"meter":"output_tokens","quantity":"%d","price":"160 / 1M","amount":500}],'
    b'"usage":{"request":"1","input_tokens":"%d","output_tokens":"%d"},"attempts":[{"upstream":"openai","status":200}],'
    b'"first_byte_ms":%d.5,"ended_ms":%d.5}'
)
_TRANSFERS = ("account_id", "transfer_id", "kind", "source", "target", "amount", "at", "request")
_RECEIPTS = tuple(RECEIPT_COLUMNS.split(", "))


def _memo(chance: random.Random) -> bytes:
    used = [chance.randrange(20, 9000) for _ in range(2)]
    digest = chance.randbytes(32).hex().encode()
    took = chance.randrange(100, 900)
    return _MEMO % (digest[:12], digest, chance.randrange(1, 30), *used, *used, took, took * 9)


def _past(accounts: int, calls: int, ends: int) -> Iterator[tuple[str, tuple[Any, ...]]]:
    """Make the rows of a year, account by account, in the order of their keys: as (table, row)."""
    chance = random.Random(7)
    for account in range(1, accounts + 1):
        own = calls // accounts + (account <= calls % accounts)
        began = ends - _YEAR
        yield "ledger_transfer", (account, first_id(began), "grant", SALE, _GRANT, _GRANTED, began, None)
        for call in range(own):
            at = began + (call + 1) * (_YEAR - 3_600_000_000) // (own + 1)
            hold = first_id(at - 2_000_000) | (account & 63)
            yield "ledger_transfer", (account, first_id(at) | 99, "charge", _GRANT, REVENUE, _CHARGE, at, hold)
            paid = f'[[{_GRANT},"paid",{_CHARGE}]]'
            made = (account, hold, "settled", _CHARGE, paid, 0, _memo(chance), at - 2_000_000, at, 0, None)
            yield "ledger_receipt", made


def _grants(accounts: int, calls: int) -> Iterator[tuple[int, int]]:
    for account in range(1, accounts + 1):
        yield account, _GRANTED - _CHARGE * (calls // accounts + (account <= calls % accounts))


def fill(url: str, accounts: int, calls: int, ends: int) -> None:
    """Write a year of calls into a ledger whose accounts are open, each with one grant."""
    rows = _past(accounts, calls, ends)
    grants = [(account, left, account, ends - _YEAR) for account, left in _grants(accounts, calls)]
    if is_postgres(url):
        with psycopg.connect(url) as target:
            target.cursor().executemany(
                "INSERT INTO ledger_grant (account_id, grant_id, bucket, source, paid, granted, balance, held, lost,"
                f" open, effective_at, expires_at, created_at) VALUES (%s, {_GRANT}, 'paid', 'pack', 1, {_GRANTED}, %s,"
                f" 0, 0, 1, 0, {NEVER} + 0 * %s, %s)",
                grants,
            )
            for table, columns in (("ledger_transfer", _TRANSFERS), ("ledger_receipt", _RECEIPTS)):
                with target.cursor().copy(f"COPY {table} ({', '.join(columns)}) FROM STDIN".encode()) as copy:
                    for name, row in _past(accounts, calls, ends):
                        if name == table:
                            copy.write_row(row)
        with psycopg.connect(url, autocommit=True) as target:
            target.execute("VACUUM ANALYZE")
        return
    with sqlite3.connect(url) as file:
        file.execute("PRAGMA synchronous = OFF")
        file.executemany(
            "INSERT INTO ledger_grant (account_id, grant_id, bucket, source, paid, granted, balance, held, lost, open,"
            f" effective_at, expires_at, created_at) VALUES (?, {_GRANT}, 'paid', 'pack', 1, {_GRANTED}, ?, 0, 0, 1, 0,"
            f" {NEVER} + 0 * ?, ?)",
            grants,
        )
        statements = {
            "ledger_transfer": f"INSERT INTO ledger_transfer ({', '.join(_TRANSFERS)}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            "ledger_receipt": f"INSERT INTO ledger_receipt ({', '.join(_RECEIPTS)}) VALUES ({', '.join('?' * 11)})",
        }
        for name, some in _chunks(rows, 20_000):
            file.executemany(statements[name], some)
    file.close()


def _chunks(rows: Iterable[tuple[str, tuple[Any, ...]]], size: int) -> Iterator[tuple[str, list[tuple[Any, ...]]]]:
    waiting: dict[str, list[tuple[Any, ...]]] = {}
    for name, row in rows:
        some = waiting.setdefault(name, [])
        some.append(row)
        if len(some) == size:
            yield name, some
            waiting[name] = []
    yield from waiting.items()


async def _latency(ledger: Ledger, fresh: Ledger, accounts: int, calls: int = 3000) -> dict[str, float]:
    """Hold and settle one after the other, on accounts far apart, in turn with a ledger that has no past.

    Each account is called once before, as none whose pages nobody has asked for in a year is the usual one.
    """
    took: dict[Ledger, list[float]] = {ledger: [], fresh: []}
    memo = json.dumps({"lines": [{"meter": "output_tokens", "amount": _CHARGE}]}).encode()
    for one in took:
        for first in range(1, accounts + 1, 64):
            some = [(account, one.next_id()) for account in range(first, min(first + 64, accounts + 1))]
            await asyncio.gather(*(one.hold(PlaceHold(*each, 1000, b"{}")) for each in some))
            await asyncio.gather(*(one.settle(*each, _CHARGE, memo) for each in some))
    for number in range(calls):
        for one, seen in took.items():
            account, call = 1 + number * 7919 % accounts, one.next_id()
            began = time.perf_counter()
            assert isinstance(await one.hold(PlaceHold(account, call, 1000, b"{}")), Held)
            seen.append((time.perf_counter() - began) * 1000)
            await one.end(Settle(account, call, _CHARGE, memo))
    ours, theirs = took[ledger], took[fresh]
    return {
        "median_ms": round(median(ours), 3),
        "p99_ms": round(quantiles(ours, n=100)[-1], 3),
        "fresh_median_ms": round(median(theirs), 3),
        "fresh_p99_ms": round(quantiles(theirs, n=100)[-1], 3),
        "ratio": round(median(ours) / median(theirs), 3),
    }


async def opened(url: str, accounts: int, *, credits: bool) -> Ledger:
    """Open a ledger with accounts from 1 on; credits: with something to spend."""
    ledger = await Ledger.open(url, Rules)
    for first in range(1, accounts + 1, 500):
        some = range(first, min(first + 500, accounts + 1))
        await asyncio.gather(*map(ledger.open_account, some))
        if credits:
            await asyncio.gather(*(ledger.issue(account, "paid", _GRANTED) for account in some))
    return ledger


def _bytes(url: str) -> dict[str, int]:
    """By table, what it takes with its indexes."""
    tables = ("ledger_transfer", "ledger_receipt", "ledger_seal", "ledger_grant", "ledger_account")
    if is_postgres(url):
        with psycopg.connect(url) as target:
            found = [target.execute("SELECT pg_total_relation_size(%s)", (name,)).fetchone() for name in tables]
            return {name: row[0] if row else 0 for name, row in zip(tables, found, strict=True)}
    # Python's SQLite can't tell what a table takes; its shell can.
    statement = "SELECT tbl_name, SUM(pgsize) FROM dbstat s JOIN sqlite_schema m ON m.name = s.name GROUP BY 1"
    if (shell := shutil.which("sqlite3")) is None:
        return dict.fromkeys(tables, 0)
    said = subprocess.run([shell, "-separator", " ", url, statement], capture_output=True, text=True, check=True).stdout
    sizes = {name: int(size) for name, size in (line.split() for line in said.splitlines())}
    return {name: sizes.get(name, 0) for name in tables}


async def measure(url: str, other: str, accounts: int, calls: int) -> dict[str, Any]:
    """Fill, seal, pack and measure; other: where there is room for a ledger without a past."""
    figures: dict[str, Any] = {"calls": calls, "accounts": accounts}

    def timed(name: str, began: float) -> None:
        figures[name] = round(time.perf_counter() - began, 1)
        print(f"{name}: {figures[name]}", file=sys.stderr)

    await (await opened(url, accounts, credits=False)).close()
    began = time.perf_counter()
    await asyncio.to_thread(fill, url, accounts, calls, microseconds() - 86_400_000_000)
    timed("fill_s", began)
    ledger, fresh = await Ledger.open(url, Rules), await opened(other, accounts, credits=True)
    figures["hold when full"] = await _latency(ledger, fresh, accounts)
    began = time.perf_counter()
    figures["ranges"] = await ledger.seal()
    timed("seal_s", began)
    figures["hold when sealed"] = await _latency(ledger, fresh, accounts)
    for name, most in (("audit_s", MOST_ROWS), ("audit_of_what_is_open_s", 0)):
        began = time.perf_counter()
        found = await asyncio.to_thread(audit, url, most_rows=most)
        timed(name, began)
        assert found.clean, found.findings
    sizes = await asyncio.to_thread(_bytes, url)
    figures["bytes"] = sizes
    figures["bytes_a_call_without_receipt"] = round(
        sum(size for name, size in sizes.items() if name != "ledger_receipt") / calls
    )
    figures["bytes_a_receipt"] = round(sizes["ledger_receipt"] / calls)
    began = time.perf_counter()
    await ledger.pack(microseconds() - 30 * 86_400_000_000)
    timed("pack_s", began)
    figures["bytes_packed"] = await asyncio.to_thread(_bytes, url)
    figures["hold when packed"] = await _latency(ledger, fresh, accounts)
    began = time.perf_counter()
    assert (await asyncio.to_thread(audit, url)).clean
    timed("audit_packed_s", began)
    await ledger.close()
    await fresh.close()
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=1_000_000)
    parser.add_argument("--accounts", type=int, default=10_000)
    parser.add_argument("--postgres", action="store_true", help="a PostgreSQL server of its own, not a file")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        url, other = str(folder / "growth.db"), str(folder / "fresh.db")
        if options.postgres:
            server = stack.enter_context(postgres_server())
            url, other = own_database(server, "growth"), own_database(server, "fresh")
        figures = asyncio.run(measure(url, other, options.accounts, options.calls))
    print(json.dumps(figures, indent=None if options.json else 1))


if __name__ == "__main__":
    main()
