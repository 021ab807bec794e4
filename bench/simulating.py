"""What trying prices on stored usage costs: `python -m bench.simulating [--calls N] [--accounts N] [--postgres]`.

Fills an empty ledger with a year of settled calls, and rates all of them again under a draft with conditions, bounds
and costs: seconds, CPU and the most memory of a process that does nothing else.
"""

from __future__ import annotations

import sys

if __name__ == "__main__" and not __package__:
    sys.exit("run it from the repository as: python -m bench.simulating")

import argparse
import asyncio
import json
import os
import resource
import subprocess
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from bench.growth import fill, opened
from ledger.ids import microseconds
from proxy.database import Database
from tests.postgres import own_database, postgres_server

_DAY = 86_400_000_000
_DRAFT = """
upstreams: {demo: {kind: demo}}
models:
  fast:
    upstream: demo/demo
    cost: {input_tokens: $0.40 / 1M, output_tokens: $1.60 / 1M}
    price:
      input_tokens: [{when: {input_tokens: "> 4k"}, price: 60 / 1M}, {price: 50 / 1M}]
      output_tokens: 200 / 1M
operations: {editor_fast: {endpoint: /v1/chat/completions, min: 0.1, max: 2}}
"""


def measure(url: str, accounts: int, calls: int, folder: Path) -> dict[str, float]:
    """Fill a ledger, and simulate in a process of its own."""
    asyncio.run(_opened_and_closed(url, accounts))
    fill(url, accounts, calls, microseconds() - _DAY)
    Database(url).close()
    (folder / "new.yaml").write_text(_DRAFT)
    where = url if "://" in url else f"sqlite:///{url}"
    began = time.perf_counter()
    ran = subprocess.run(
        [sys.executable, "-m", "proxy", "simulate", str(folder / "new.yaml"), "--since", "400d", "--json"],
        cwd=folder,
        env={**os.environ, "FAREBOX_DATABASE_URL": where, "PYTHONPATH": str(Path(__file__).parents[1])},
        capture_output=True,
        check=True,
    )
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    found = json.loads(ran.stdout)
    assert found["total"]["calls"] == calls
    assert found["left_out"] == []
    return {
        "calls": calls,
        "seconds": round(time.perf_counter() - began, 1),
        "cpu_us_a_call": round((used.ru_utime + used.ru_stime) * 1e6 / calls, 1),
        "most_memory_mb": round(used.ru_maxrss / 1024),
    }


async def _opened_and_closed(url: str, accounts: int) -> None:
    await (await opened(url, accounts, credits=False)).close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=1_000_000)
    parser.add_argument("--accounts", type=int, default=10_000)
    parser.add_argument("--postgres", action="store_true", help="a PostgreSQL server of its own, not a file")
    options = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        url = str(folder / "calls.db")
        if options.postgres:
            url = own_database(stack.enter_context(postgres_server()), "calls")
        print(json.dumps(measure(url, options.accounts, options.calls, folder)))


if __name__ == "__main__":
    main()
