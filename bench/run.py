"""What a call costs in Farebox, beside a relay that meters nothing: `python -m bench.run [--rules] [--rounds N]`.

Both servers take the same calls in turn, on one core; the upstream and the callers are on another. With --rules Farebox
takes them once more from a caller who comes under a plan's allowance, a key's spend limit and the bounds of a run.
"""

from __future__ import annotations

import sys

if __name__ == "__main__" and not __package__:
    sys.exit("run it from the repository as: python -m bench.run")

import argparse
import json
import subprocess
import tempfile
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from decimal import Decimal
from pathlib import Path
from statistics import median
from typing import Any

from bench.processes import (
    Cores,
    Load,
    Machine,
    Program,
    bounded,
    build,
    environment,
    first_answer,
    free_port,
    load,
    started,
)

_CONFIG = """
database: "sqlite:///bench.db"
upstreams:
  mock: {{kind: openai, base_url: "http://127.0.0.1:{port}/v1", api_key: sk-mock}}
models:
  mock-gpt:
    upstream: mock/gpt-4o-mini
    max_output_tokens: 4096
    price: {{input_tokens: 40 / 1M, cached_input_tokens: 10 / 1M, output_tokens: 160 / 1M}}
buckets:
  paid: {{title: Paid credits}}
"""
# Nothing of it refuses, shortens or bounds a call, so that the same calls cost the same.
_RULES_CONFIG = """
  daily: {title: Daily credits}
operations:
  step: {title: A step of a run, min: 0.001, max: 1000000, per: run}
plans:
  daily: {allowances: {daily: 1000000/day}}
"""
_QUESTION: dict[str, Any] = {
    "model": "mock-gpt",
    "messages": [
        {"role": "system", "content": "You are a helpful assistant that answers briefly, in plain English."},
        {
            "role": "user",
            "content": "Explain in one or two sentences what an OpenAI-compatible gateway does, and why somebody would"
            " put one in front of several model providers instead of calling each of them directly.",
        },
    ],
    "temperature": 0.2,
    "max_tokens": 128,
}
_CALLS_A_RUN = 12
_STARTS = 3
_IDLE_SECONDS = 1
_WARM_UP = 300
_MOST_SECONDS = 900


@dataclass(frozen=True, slots=True)
class Case:
    """One kind of load. price: what the mock's answer costs at the prices above, in credits."""

    name: str
    callers: int
    requests: int
    body: str
    needle: str
    price: Decimal
    target_us: int | None = None


_PLAIN = Decimal(57 * 40 + 31 * 160) / 1_000_000
_STREAM = Decimal(57 * 40 + 128 * 160) / 1_000_000
_CASES = (
    Case("plain, 16 callers", 16, 4000, "plain.json", '"total_tokens":88', _PLAIN, 350),
    Case("64-chunk stream, 16 callers", 16, 1000, "stream.json", "[DONE]", _STREAM, 750),
    Case("plain, 1 caller", 1, 500, "plain.json", '"total_tokens":88', _PLAIN),
)
_ALONE = _CASES[-1].name
_RULES = "rules"  # Farebox again, asked by the caller with rules


@dataclass(frozen=True, slots=True)
class Turn:
    """A program that takes its turn with every case; name: what its figures are under."""

    name: str
    program: Program


@dataclass
class Result:
    """Every figure that a run prints; loads by turn and case, medians over the rounds."""

    rounds: int
    machine: Machine
    start_seconds: float = 0
    rss_mb: float = 0
    pss_mb: float = 0
    rss_after_mb: float = 0
    added_p50_ms: float = 0
    litellm_imported: bool = False
    calls_charged: int = 0
    loads: dict[str, dict[str, Load]] = field(default_factory=dict)


class Bench:
    """A temporary folder with everything in it; adds up what Farebox's calls cost, and of them those with rules."""

    def __init__(self, folder: Path, cores: Cores, *, rules: bool) -> None:
        self.folder = folder
        self._charged = Decimal(0)
        self.calls = 0
        self._ruled = Decimal(0)
        self._rules_account = ""
        self._rules = rules
        self._cores = cores
        self._ports: dict[str, int] = {}
        self._headers: Mapping[str, str] = {}
        self._rules_headers: Mapping[str, str] = {}
        self._loads = 0

    def prepare(self, stack: ExitStack) -> Program:
        """Build the C programs, start the upstream, and make an account with a key and credits; with rules another."""
        build(self.folder)
        for name, extra in (("plain", {}), ("stream", {"stream": True, "stream_options": {"include_usage": True}})):
            (self.folder / f"{name}.json").write_text(json.dumps(_QUESTION | extra, separators=(",", ":")))
        port = free_port()
        (self.folder / "config.yaml").write_text(_CONFIG.format(port=port) + (_RULES_CONFIG if self._rules else ""))
        mock = stack.enter_context(
            started("mock", [str(self.folder / "mock"), str(port)], self.folder, self._cores.others)
        )
        self._ports["mock"] = port
        first_answer(mock, port, b"{}", {})
        account = self._farebox("account", "create", "bench")["id"]
        self._headers = {"authorization": f"Bearer {self._farebox('key', 'create', account)['key']}"}
        self._farebox("grant", "create", account, "paid", "1000000")
        if self._rules:
            self._rules_account = self._farebox("account", "create", "bench with rules", "--plan", "daily")["id"]
            limits = ("--limit", "1000000/month", "--operation", "step")
            key = self._farebox("key", "create", self._rules_account, *limits)["key"]
            self._rules_headers = {"authorization": f"Bearer {key}"}
        return mock

    def start_farebox(self, stack: ExitStack, *python_options: str) -> tuple[Program, float]:
        """Start Farebox; returns it with the seconds to its first answer."""
        port = free_port()
        command = [
            sys.executable,
            *python_options,
            "-m",
            "proxy",
            "serve",
            "--config",
            "config.yaml",
            "--port",
            str(port),
        ]
        farebox = stack.enter_context(started("farebox", command, self.folder, self._cores.server))
        seconds = first_answer(farebox, port, (self.folder / "plain.json").read_bytes(), self._headers)
        self._ports["farebox"] = port
        self._count(_CASES[0], 1)
        return farebox, seconds

    def start_floor(self, stack: ExitStack) -> Program:
        port = free_port()
        command = [sys.executable, "-m", "bench.floor", str(port), f"http://127.0.0.1:{self._ports['mock']}"]
        floor = stack.enter_context(started("floor", command, self.folder, self._cores.server))
        first_answer(floor, port, b"{}", {})
        self._ports["floor"] = port
        return floor

    def load(self, program: Program, case: Case, requests: int | None = None, *, rules: bool = False) -> Load:
        """Let a case's callers ask a program; every answer is checked. rules: as the caller with rules, in new runs."""
        count = requests or case.requests
        headers = self._headers
        if rules:
            self._loads += 1
            headers = {**self._rules_headers, "x-farebox-run": f"{self._loads}-########"}
        seen = load(
            program,
            self._ports[program.name],
            self.folder / case.body,
            callers=case.callers,
            requests=count,
            needle=case.needle,
            headers=headers,
            core=self._cores.others,
            every=_CALLS_A_RUN if rules else None,
        )
        if program.name == "farebox":
            self._count(case, count)
            self._ruled += count * case.price if rules else 0
        return seen

    def _count(self, case: Case, calls: int) -> None:
        self.calls += calls
        self._charged += calls * case.price

    def check_books(self) -> None:
        """Raise unless the audit is clean and the calls were charged to the last nanocredit, and limits count them."""
        audit = self._farebox("audit")
        revenue = Decimal(audit["totals"]["revenue"].replace(",", ""))
        if not audit["clean"] or revenue != self._charged:
            raise RuntimeError(f"the books are wrong: {revenue} charged for {self._charged}; {audit['findings']}")
        if self._rules:
            limit = self._farebox("key", "list", self._rules_account)["data"][0]["limit"]
            if Decimal(limit["spent"]) != self._ruled:
                raise RuntimeError(f"the limit counts {limit['spent']} for {self._ruled}")

    def imports_litellm(self) -> bool:
        """Serve a plain and a streamed call in a process that lists its imports, and look for litellm in the list."""
        with ExitStack() as stack:
            farebox, _ = self.start_farebox(stack, "-X", "importtime")
            for case in _CASES:
                self.load(farebox, case, 20)
        imported = {line.rpartition("|")[2].strip() for line in farebox.log.read_text().splitlines()}
        if "proxy.serve" not in imported:
            raise farebox.failure("no list of imports")
        return "litellm" in imported

    def _farebox(self, *command: str) -> dict[str, Any]:
        result = subprocess.run(
            [sys.executable, "-m", "proxy", *command, "--config", "config.yaml", "--json"],
            cwd=self.folder,
            env=environment(),
            capture_output=True,
            text=True,
            timeout=120,
        )
        if result.returncode:
            raise RuntimeError(f"farebox {command[0]} failed: {result.stderr}{result.stdout}")
        document: dict[str, Any] = json.loads(result.stdout)
        return document


def measure(folder: Path, rounds: int, cores: Cores, *, rules: bool) -> Result:
    """Run everything; bounded by the number of requests in a round, each of which has a time limit."""
    result = Result(rounds, Machine.now(folder))
    bench = Bench(folder, cores, rules=rules)
    with ExitStack() as mocks:
        mock = bench.prepare(mocks)
        starts = []
        for _ in range(_STARTS - 1):
            with ExitStack() as stack:
                starts.append(bench.start_farebox(stack)[1])
        with ExitStack() as stack:
            farebox, seconds = bench.start_farebox(stack)
            result.start_seconds = median([*starts, seconds])
            time.sleep(_IDLE_SECONDS)
            result.rss_mb, result.pss_mb = farebox.memory_mb()
            turns = [Turn("floor", bench.start_floor(stack)), Turn("farebox", farebox)]
            if rules:
                turns.append(Turn(_RULES, farebox))
            for turn in turns:
                for case in _CASES:
                    bench.load(turn.program, case, _WARM_UP, rules=turn.name == _RULES)
            _take_turns(bench, result, [Turn("mock", mock), *turns])
            result.rss_after_mb, _ = farebox.memory_mb()
        bench.check_books()
        result.litellm_imported = bench.imports_litellm()
        bench.check_books()
    result.calls_charged = bench.calls
    return result


def _take_turns(bench: Bench, result: Result, turns: list[Turn]) -> None:
    seen: dict[str, dict[str, list[Load]]] = {}
    for number in range(result.rounds):
        for case in _CASES:
            for turn in turns:
                # A direct call is only asked for its latency: what the proxy adds is measured against it.
                if turn.name != "mock" or case.name == _ALONE:
                    loaded = bench.load(turn.program, case, rules=turn.name == _RULES)
                    seen.setdefault(turn.name, {}).setdefault(case.name, []).append(loaded)
        print(f"round {number + 1} of {result.rounds}", file=sys.stderr)
    result.loads = {name: {case: _median(loads) for case, loads in cases.items()} for name, cases in seen.items()}
    result.added_p50_ms = result.loads["farebox"][_ALONE].p50_ms - result.loads["mock"][_ALONE].p50_ms


def _median(loads: list[Load]) -> Load:
    rounds = [asdict(load) for load in loads]
    return Load(**{name: median(one[name] for one in rounds) for name in rounds[0]})


def _print(result: Result) -> None:
    print(f"medians of {result.rounds} rounds; {result.machine}\n")
    print(f"{'':40}{'floor':>12}{'Farebox':>12}{'ratio':>8}   target")
    for case in _CASES:
        floor, farebox = result.loads["floor"][case.name], result.loads["farebox"][case.name]
        target = "" if case.target_us is None else f"<= {case.target_us}"
        print(case.name)
        _rows(floor, farebox, target)
    direct = result.loads["mock"][_ALONE].p50_ms
    _row("  added p50 ms", result.loads["floor"][_ALONE].p50_ms - direct, result.added_p50_ms, "<= 1.5")
    print("Farebox")
    for name, figure, target in (
        ("start to first answer, s", result.start_seconds, "<= 1.5"),
        ("idle memory, RSS MB", result.rss_mb, "<= 200"),
        ("idle memory, PSS MB", result.pss_mb, ""),
        ("RSS MB after the rounds", result.rss_after_mb, ""),
    ):
        print(f"  {name:38}{'':12}{figure:>12,.2f}{'':8}   {target}".rstrip())
    print(f"  {'litellm imported':50}{'yes' if result.litellm_imported else 'no':>12}{'':8}   no")
    print(f"  books: clean, {result.calls_charged:,} calls charged to the last nanocredit")
    if _RULES in result.loads:
        _print_rules(result.loads["farebox"], result.loads[_RULES])


def _print_rules(plain: Mapping[str, Load], ruled: Mapping[str, Load]) -> None:
    print(f"\n{'':40}{'Farebox':>12}{'with rules':>12}{'ratio':>8}")
    for case in _CASES:
        print(case.name)
        _rows(plain[case.name], ruled[case.name])


def _rows(one: Load, other: Load, target: str = "") -> None:
    _row("  CPU µs a request", one.cpu_us, other.cpu_us, target)
    _row("  requests a second", one.rate, other.rate)
    _row("  p50 ms", one.p50_ms, other.p50_ms)
    _row("  p99 ms", one.p99_ms, other.p99_ms)


def _row(name: str, one: float, other: float, target: str = "") -> None:
    digits = 3 if "ms" in name else 0
    ratio = f"{other / one:.2f}" if one > 0 else "-"
    print(f"{name:40}{one:>12,.{digits}f}{other:>12,.{digits}f}{ratio:>8}   {target}".rstrip())


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.run", description="Measure what a call costs in Farebox.")
    parser.add_argument("--rounds", type=int, default=5, help="turns that each server gets [default: 5]")
    parser.add_argument(
        "--folder", type=Path, help="where to put the database: on the disk to measure [default: the temporary folder]"
    )
    parser.add_argument(
        "--rules", action="store_true", help="measure calls under a plan, a spend limit and bounds of a run too"
    )
    parser.add_argument("--json", action="store_true", help="write JSON")
    options = parser.parse_args()
    if not 1 <= options.rounds <= 100:
        parser.error("--rounds is from 1 to 100")
    with bounded(_MOST_SECONDS), tempfile.TemporaryDirectory(prefix="farebox-bench-", dir=options.folder) as folder:
        result = measure(Path(folder), options.rounds, Cores.of_this_machine(), rules=options.rules)
    if options.json:
        print(json.dumps(asdict(result)))
    else:
        _print(result)


if __name__ == "__main__":
    main()
