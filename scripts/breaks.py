"""Breaks the rules of money on purpose, one at a time, and sees to it that a test fails each time.

    python scripts/breaks.py                 every break of scripts/breaks.yaml, two at a time; a few minutes
    python scripts/breaks.py --only 12       the twelfth
    python scripts/breaks.py --only refund   those with the word in their rule or file; may be repeated
    python scripts/breaks.py --check         runs nothing: are all entries still of this code?

Exit 1 if a break survived: then a rule has no test, and wants one. Exit 2 if an entry is stale, or if the tests fail
without any break. A change of the code that makes an entry stale has to bring it up to date; a new rule brings its own.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

import yaml

ROOT = Path(__file__).parent.parent
LIST = Path(__file__).with_suffix(".yaml")
_PARTS = ("ledger", "pricing", "proxy", "tests", "scripts", "examples", "pyproject.toml", "config.yaml")
# Minutes of random lives, and processes and servers that are killed: what those find, scenarios have to find too.
_SLOW = (
    *("test_properties.py", "test_properties_postgres.py", "test_crash.py", "test_crash_points.py"),
    *("test_outage.py", "test_shared_load.py"),
)
# The one that finds most comes first.
_FIRST = "tests/ledger/test_scenarios.py"
_SECONDS = 300
_FAILED = re.compile(r"^(?:FAILED|ERROR) (\S+?\.py(?:::.*?)?)(?: - .*)?$", re.MULTILINE)

CAUGHT, SURVIVED, FAULTY = "caught", "SURVIVED", "FAULTY"


@dataclass(frozen=True, slots=True)
class Break:
    """A rule and the edit that breaks it; tests: the files that are run, in order, until one fails."""

    number: int
    rule: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]

    def applied(self) -> str:
        """The file's text, broken; raises ValueError for an entry that is not of this code, or not of any."""
        text = (ROOT / self.file).read_text("utf-8")
        found = text.count(self.old)
        if found != 1:
            raise ValueError(f"it is stale: its old text occurs {found} times in {self.file}")
        broken = text.replace(self.old, self.new)
        if broken == text:
            raise ValueError("it changes nothing")
        try:
            compile(broken, self.file, "exec")
        except SyntaxError as error:
            raise ValueError(f"it is no Python: {error}") from error
        return broken


@dataclass(frozen=True, slots=True)
class Result:
    """What came of a break; by: the first test that failed, or what is wrong with the entry."""

    verdict: str
    by: str
    seconds: float


def ledger_tests() -> tuple[str, ...]:
    """The ledger's tests but the slow ones."""
    files = [f"tests/ledger/{path.name}" for path in (ROOT / "tests" / "ledger").glob("test_*.py")]
    return tuple(sorted((name for name in files if not name.endswith(_SLOW)), key=lambda name: (name != _FIRST, name)))


def read_breaks() -> list[Break]:
    """Read the list; a section's tests are run before the ledger's, or, where `only` says so, in place of them."""
    breaks: list[Break] = []
    for section in yaml.safe_load(LIST.read_text("utf-8")):
        named = tuple(section.get("tests", ()))
        others = () if section.get("only") else tuple(name for name in ledger_tests() if name not in named)
        for entry in section["breaks"]:
            number = len(breaks) + 1
            breaks.append(
                Break(number, entry["rule"], section["file"], entry["old"], entry["new"] or "", (*named, *others))
            )
    return breaks


def chosen(breaks: Sequence[Break], only: Sequence[str]) -> list[Break]:
    """Those that are asked for, by number or by a part of their rule or file."""
    if not only:
        return list(breaks)

    def asked(entry: Break) -> bool:
        text = f"{entry.rule}\n{entry.file}".casefold()
        return any(int(word) == entry.number if word.isdigit() else word.casefold() in text for word in only)

    return [entry for entry in breaks if asked(entry)]


def first_failure(tree: Path, tests: Sequence[str]) -> tuple[int, str]:
    """Run tests in a copy of the source until one fails; returns pytest's exit code, and which test it was."""
    # The one plugin that takes long to load and that none of these tests needs.
    options = ("-x", "-q", "--tb=no", "-rfE", "-p", "no:cacheprovider", "-p", "no:schemathesis")
    command = [sys.executable, "-m", "pytest", *options, *tests]
    # An installed package must not win over the copy.
    environment = {**os.environ, "PYTHONPATH": str(tree), "COLUMNS": "1000"}
    try:
        done = subprocess.run(
            command, cwd=tree, env=environment, capture_output=True, text=True, timeout=_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return -1, f"the tests did not end within {_SECONDS} s"
    failed = _FAILED.search(done.stdout)
    return done.returncode, failed[1] if failed else (done.stdout + done.stderr)[-2000:]


def copy_source(tree: Path) -> None:
    for name in _PARTS:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(ROOT / name, tree / name)


def tried(entry: Break, text: str, source: Path) -> Result:
    """Break a copy of the source, its file now of this text, and run the tests in it."""
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="farebox-break-") as directory:
        # Byte code comes along; the one file that is not of its byte code's time is compiled anew.
        tree = shutil.copytree(source, Path(directory) / "tree")
        (tree / entry.file).write_text(text, "utf-8")
        code, by = first_failure(tree, entry.tests)
    seconds = time.monotonic() - begun
    if code == 0:
        return Result(SURVIVED, "", seconds)
    # A file that can't even be loaded says nothing about the rule.
    if code != 1 or "::" not in by:
        return Result(FAULTY, by, seconds)
    return Result(CAUGHT, by.removeprefix("tests/").replace(".py::", "::"), seconds)


def unbroken(breaks: Sequence[Break], source: Path) -> str | None:
    """Run all tests that the breaks are tried with on an unbroken copy; returns what fails."""
    tests = list(dict.fromkeys(test for entry in breaks for test in entry.tests))
    code, by = first_failure(source, tests)
    return by if code else None


def table(results: Sequence[tuple[Break, Result]]) -> str:
    """The results as a table in Markdown."""
    lines = ["| # | rule | broken in | |", "|--:|---|---|---|"]
    for entry, result in results:
        what = f"caught by `{result.by}`" if result.verdict == CAUGHT else f"**{result.verdict}** {result.by}".rstrip()
        lines.append(f"| {entry.number} | {entry.rule} | `{entry.file}` | {what.replace('|', chr(92) + '|')} |")
    return "\n".join(lines)


def try_all(breaks: Mapping[Break, str], jobs: int) -> int:
    """Try breaks, given with their files' broken texts; returns the exit code."""
    begun = time.monotonic()
    results: dict[Break, Result] = {}
    # A copy of its own, so that the source may be edited meanwhile.
    with tempfile.TemporaryDirectory(prefix="farebox-breaks-") as directory, ThreadPoolExecutor(jobs) as pool:
        source = Path(directory)
        copy_source(source)
        if (failing := unbroken(list(breaks), source)) is not None:
            print(f"without any break the tests fail: {failing}", file=sys.stderr)
            return 2
        running = {pool.submit(tried, entry, text, source): entry for entry, text in breaks.items()}
        for future in as_completed(running):
            entry, result = running[future], future.result()
            results[entry] = result
            print(f"[{len(results)}/{len(breaks)}] {result.seconds:5.1f} s  {entry.number} {entry.rule}", flush=True)
            print(f"        {result.verdict} {result.by}", flush=True)
    print(f"\n{table([(entry, results[entry]) for entry in breaks])}\n")
    verdicts = Counter(result.verdict for result in results.values())
    counts = ", ".join(f"{verdicts[verdict]} {verdict.lower()}" for verdict in (CAUGHT, SURVIVED, FAULTY))
    print(f"{len(results)} breaks in {time.monotonic() - begun:.0f} s: {counts}")
    return 1 if verdicts[SURVIVED] else 2 if verdicts[FAULTY] else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--only", action="append", default=[], metavar="N|WORDS", help="a number, or a part of the text"
    )
    parser.add_argument("--jobs", type=int, default=2, metavar="N", help="how many breaks are tried at a time")
    parser.add_argument("--check", action="store_true", help="only see whether the entries are of this code")
    options = parser.parse_args()
    asked = chosen(read_breaks(), options.only)
    breaks: dict[Break, str] = {}
    for entry in asked:
        try:
            breaks[entry] = entry.applied()
        except ValueError as error:
            print(f"{entry.number} ({entry.rule}): {error}", file=sys.stderr)
    if len(breaks) < len(asked) or not asked:
        return 2
    if options.check:
        print(f"{len(breaks)} breaks: ok")
        return 0
    return try_all(breaks, options.jobs)


if __name__ == "__main__":
    sys.exit(main())
