"""`farebox recompute`: every receipt is what its price table makes of its usage, and whatever was altered is named."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from proxy.ids import parse_account, parse_object
from tests.postgres import own_database, postgres_server
from tests.proxy.chats import DONE, answer, body_of, finish, usage_chunk, words
from tests.proxy.leavers import Leaver
from tests.proxy.priced import edited
from tests.proxy.running import Caller, Server, farebox
from tests.proxy.upstream import CUT, Gate, Upstream, response, streamed

_CONFIG = """
upstreams:
  main: {{kind: openai, base_url: "{url}", api_key: operators-secret}}
models:
  words: {{upstream: main/words-1, max_output_tokens: 1000, price: {{{prices}, min: 0.03, max: 0.2}}}}
  parts:
    upstream: main/parts-1
    max_output_tokens: 1000
    price: {{{prices}, cached_input_tokens: $0.0000007 / 3, reasoning_tokens: 5 / 1k, request: 1}}
  tiers:
    upstream: main/tiers-1
    max_output_tokens: 1000
    price:
      input_tokens: [{{when: {{service_tier: flex}}, price: 0.5 / 1k}}, {{price: 1 / 1k}}]
      output_tokens: 3 / 1k
surcharges: {{web_search: 15, web_page: 8}}
operations:
  least:   {{min: 0.05}}
  most:    {{max: 0.03}}
  cheaper: {{multiply: 0.6, price: {{output_tokens: 7 / 1k}}}}
  run:     {{min: {least}, max: 70, per: run}}
"""
_PRICES = "input_tokens: 1 / 1k, output_tokens: 3 / 1k"
_REPORTED = {
    "prompt_tokens": 2000,
    "completion_tokens": 700,
    "prompt_tokens_details": {"cached_tokens": 501},
    "completion_tokens_details": {"reasoning_tokens": 37},
}
_SEARCHED = {"prompt_tokens": 20, "completion_tokens": 7, "server_tool_use": {"web_search_requests": 2}}


def _config(upstream: Upstream, prices: str = _PRICES, least: str = "40") -> str:
    return _CONFIG.format(url=upstream.url, prices=prices, least=least)


class Books:
    """A server on a database of its own, and a way to alter what nothing should."""

    def __init__(self, server: Server, url: str | None) -> None:
        self.server = server
        self.url = url

    def recompute(self, *arguments: str, code: int = 0) -> dict[str, Any]:
        variables = {} if self.url is None else {"FAREBOX_DATABASE_URL": self.url}
        ran = farebox(self.server.folder, "recompute", "--json", *arguments, **variables)
        assert ran.returncode == code, ran.stdout + ran.stderr
        document: dict[str, Any] = json.loads(ran.stdout)
        assert document["object"] == "recompute"
        return document

    def alter(self, statement: str, *values: object) -> None:
        """Run SQL as somebody who has the database does, past its triggers."""
        if self.url is not None:
            with psycopg.connect(self.url) as server:
                server.execute("ALTER TABLE ledger_receipt DISABLE TRIGGER USER")
                server.execute(statement.replace("?", "%s").encode(), values)
                server.execute("ALTER TABLE ledger_receipt ENABLE TRIGGER USER")
            return
        with sqlite3.connect(self.server.folder / "farebox.db") as file:
            (trigger,) = file.execute(
                "SELECT sql FROM sqlite_master WHERE name = 'ledger_receipt_no_update'"
            ).fetchone()
            file.execute("DROP TRIGGER ledger_receipt_no_update")
            file.execute(statement, values)
            file.execute(trigger)

    def read(self, statement: str, *values: object) -> Any:
        if self.url is not None:
            with psycopg.connect(self.url) as server:
                row = server.execute(statement.replace("?", "%s").encode(), values).fetchone()
        else:
            with sqlite3.connect(self.server.folder / "farebox.db") as file:
                row = file.execute(statement, values).fetchone()
        assert row is not None
        return row[0]

    def change_memo(self, request: str, change: Callable[[dict[str, Any]], object]) -> None:
        """Write a call's memo as `change` leaves it."""
        ids = parse_object("req", request)
        assert ids is not None
        call = "hold_id = ? AND account_id = ?"
        memo = json.loads(bytes(self.read(f"SELECT memo FROM ledger_receipt WHERE {call}", *ids)))
        change(memo)
        self.alter(f"UPDATE ledger_receipt SET memo = ? WHERE {call}", json.dumps(memo).encode(), *ids)

    def close(self) -> None:
        self.server.close()


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def books(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, running_upstream: Upstream
) -> Iterator[Books]:
    folder = tmp_path_factory.mktemp("recompute")
    (folder / "config.yaml").write_text(_config(running_upstream))
    if request.param == "sqlite":
        yield from _served(Books(Server(folder), None))
        return
    with postgres_server() as server:
        url = own_database(server, str(folder))
        yield from _served(Books(Server(folder, FAREBOX_DATABASE_URL=url), url))


def _served(books: Books) -> Iterator[Books]:
    books.server.start()
    yield books
    books.close()


@pytest.fixture
def caller(books: Books, upstream: Upstream) -> Caller:
    """A new account, and the first table in force."""
    upstream.says(answer())
    edited(books.server, _config(upstream))
    return books.server.caller()


def _all_equal(books: Books, caller: Caller, calls: int, running: int = 0) -> None:
    found = books.recompute("--account", caller.account)
    assert found["findings"] == []
    assert found["counts"] == {"equal": calls, "differs": 0, "broken": 0, "old": 0, "running": running}


async def test_calls_of_every_kind_recompute(books: Books, upstream: Upstream, caller: Caller) -> None:
    """Whole and streamed, counted by us, cut, left, failed, shortened, searched, refunded; and one that runs."""
    caller.chat("words")
    upstream.says(streamed(words("one"), finish(), usage_chunk(_REPORTED), DONE))
    refunded = caller.chat("parts", stream=True).headers["x-request-id"]
    books.server.done("POST", f"/receipts/{refunded}/refund", {"reason": "sorry"})
    upstream.says(answer(usage=...))
    caller.chat("parts")
    upstream.says(streamed(words("one", "two"), CUT))
    caller.chat("parts", stream=True)
    upstream.says(response(b"{}", 500))
    caller.chat("words")
    upstream.says(answer(usage=_SEARCHED))
    caller.chat("words", web_search_options={})
    upstream.says(answer())
    for operation in ("least", "most", "cheaper", "run"):
        caller.post(body_of(model="parts"), X_Farebox_Operation=operation)
    for tier in ("flex", "default"):
        caller.chat("tiers", service_tier=tier)
    poor = books.server.caller("0.5")
    assert poor.receipt(poor.chat("tiers"))["shortened_to"]
    for sent in ([], [words("one")]):
        gate = Gate()
        upstream.says(streamed(*sent, gate))
        body = body_of(model="parts", stream=True)
        async with Leaver(caller, body) as leaver:
            await gate.reached_by(1)
            await leaver.until(b"one" if sent else b"")
        assert caller.nothing_held(5)
    gate = Gate()
    upstream.says(gate)
    async with Leaver(caller, body):
        await gate.reached_by(1)
        _all_equal(books, caller, 14, running=1)
    _all_equal(books, poor, 1)
    assert caller.nothing_held(5)


def test_calls_of_a_run_recompute(books: Books, upstream: Upstream, caller: Caller) -> None:
    """Below, at and above the bounds of their run, searches beside them, and with bounds that change amid it."""
    for usage in (_SEARCHED, _REPORTED, _REPORTED):
        upstream.says(answer(usage=usage))
        for _ in range(8):
            caller.post(body_of(model="parts", web_search_options={}), X_Farebox_Run="r", X_Farebox_Operation="run")
        edited(books.server, _config(upstream, least="66"))
    upstream.says(streamed(words("one"), CUT))
    caller.post(body_of(model="parts", stream=True), X_Farebox_Run="r", X_Farebox_Operation="run")
    rows = caller.get("/v1/credits/usage?limit=100").json()["data"]
    lines = {line["meter"] for row in rows for line in caller.receipt(row["id"])["lines"]}
    assert {"min", "max", "web_search", "cached_input_tokens"} <= lines
    _all_equal(books, caller, 25)


def test_each_call_recomputes_under_its_own_table(books: Books, upstream: Upstream, caller: Caller) -> None:
    """Tables that were edited away, and models that went with them, stay known."""
    versions = set()
    for number in range(1, 6):
        text = _config(upstream, f"input_tokens: {number} / 1k, output_tokens: {number}.5 / 7k")
        edited(books.server, text.replace("  words:", f"  words-{number}:"))
        versions.add(caller.receipt(caller.chat(f"words-{number}"))["price_version"])
    assert len(versions) == 5
    _all_equal(books, caller, 5)


def test_an_altered_receipt_is_named_with_its_line(books: Books, caller: Caller) -> None:
    """One nanocredit, a price's text, a usage, a line more, or the total alone: exit 1, and what it should be."""
    first, second, third, fourth, fifth, untouched = (caller.chat("tiers").headers["x-request-id"] for _ in range(6))
    books.change_memo(first, lambda memo: memo["lines"][0].update(amount=20_000_001))
    books.change_memo(second, lambda memo: memo["lines"][1].update(price="4 / 1k"))
    books.change_memo(third, lambda memo: memo["usage"].update(input_tokens="21"))
    books.change_memo(fourth, lambda memo: memo["lines"].append(memo["lines"][0]))
    ids = parse_object("req", fifth)
    assert ids is not None
    books.alter("UPDATE ledger_receipt SET charged = charged - 1 WHERE hold_id = ? AND account_id = ?", *ids)
    found = books.recompute("--account", caller.account, code=1)
    assert found["counts"] == {"equal": 1, "differs": 5, "broken": 0, "old": 0, "running": 0}
    assert {
        finding["request"]: [tuple(each.values()) for each in finding["differences"]] for finding in found["findings"]
    } == {
        first: [("input_tokens", "20 at 1 / 1k: 0.020000001", "20 at 1 / 1k: 0.02")],
        second: [("output_tokens", "7 at 4 / 1k: 0.021", "7 at 3 / 1k: 0.021")],
        third: [("input_tokens", "20 at 1 / 1k: 0.02", "21 at 1 / 1k: 0.021"), ("total", "0.041", "0.042")],
        fourth: [("input_tokens", "20 at 1 / 1k: 0.02 and 20 at 1 / 1k: 0.02", "20 at 1 / 1k: 0.02")],
        fifth: [("total", "0.040999999", "0.041")],
    }
    books.recompute(untouched)
    assert [finding["request"] for finding in books.recompute(untouched, second, code=1)["findings"]] == [second]


_SPOILT: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "model": (lambda memo: memo.update(model="gone"), "no model 'gone'"),
    "operation": (lambda memo: memo.update(operation="gone"), "no operation 'gone'"),
    "usage": (lambda memo: memo.pop("usage"), "what it used"),
    "quantity": (lambda memo: memo["usage"].update(input_tokens="-3"), "'-3' is no quantity"),
    "fraction": (lambda memo: memo["usage"].update(input_tokens="1.5"), "not an integer"),
    "meter": (lambda memo: memo["usage"].update(dreams="1"), "dreams is no meter"),
    "lines": (lambda memo: memo.pop("lines"), "lines"),
    "meter of a line": (lambda memo: memo["lines"][0].update(meter=[]), "no amount or price"),
    "attributes": (lambda memo: memo.update(attributes={"service_tier": ["flex"]}), "what it used"),
    "memo": (lambda memo: memo.clear(), "lines"),
    "amount": (lambda memo: memo["lines"][0].update(amount="1"), "no amount"),
    "answered": (lambda memo: memo.update(answered="yes"), "what it used"),
    "version": (lambda memo: memo.pop("price_version"), "nothing is kept of the price table None"),
}


def test_what_cannot_be_read_is_named_and_not_guessed(books: Books, caller: Caller) -> None:
    """A memo that lacks, or spoils, what its price depends on is a finding, not a 0."""
    requests = {case: caller.chat("tiers").headers["x-request-id"] for case in _SPOILT}
    for case, (change, _) in _SPOILT.items():
        books.change_memo(requests[case], change)
    findings = {finding["request"]: finding for finding in books.recompute(*requests.values(), code=1)["findings"]}
    for case, (_, said) in _SPOILT.items():
        finding = findings[requests[case]]
        assert (finding["outcome"], said in finding["reason"]) == ("broken", True), finding


def test_an_altered_or_lost_table_is_named(books: Books, upstream: Upstream, caller: Caller) -> None:
    """Every receipt of it is, with the reason; those of other tables are not."""
    first = edited(books.server, _config(upstream, "input_tokens: 11 / 1k, output_tokens: 3 / 1k"))
    spoilt = caller.chat("words").headers["x-request-id"]
    second = edited(books.server, _config(upstream, "input_tokens: 12 / 1k, output_tokens: 3 / 1k"))
    lost = caller.chat("words").headers["x-request-id"]
    edited(books.server, _config(upstream))
    caller.chat("words")
    books.alter("UPDATE price_version SET content = replace(content, '11 / 1k', '10 / 1k') WHERE version = ?", first)
    books.alter("DELETE FROM price_version WHERE version = ?", second)
    found = books.recompute("--account", caller.account, code=1)
    assert {finding["request"]: finding["reason"] for finding in found["findings"]} == {
        spoilt: f"what is kept of {first} has another digest: it was altered",
        lost: f"nothing is kept of the price table {second}",
    }
    assert found["counts"] == {"equal": 1, "differs": 0, "broken": 2, "old": 0, "running": 0}


async def test_older_receipts_recompute_where_nothing_is_in_doubt(
    books: Books, upstream: Upstream, caller: Caller
) -> None:
    """Their memos lack attributes, `answered`, and what a run had come to; nothing of it is guessed."""

    def old(memo: dict[str, Any]) -> None:
        for member in ("attributes", "answered", "run_before"):
            memo.pop(member, None)

    plain = caller.chat("words").headers["x-request-id"]
    tiers = caller.chat("tiers").headers["x-request-id"]
    run = caller.post(body_of(model="parts"), X_Farebox_Run="r", X_Farebox_Operation="run").headers["x-request-id"]
    lone = caller.post(body_of(model="parts"), X_Farebox_Operation="run").headers["x-request-id"]
    left = []
    for model in ("tiers", "parts"):
        gate = Gate()
        upstream.says(streamed(gate))
        async with Leaver(caller, body_of(model=model, stream=True)):
            await gate.reached_by(1)
        assert caller.nothing_held(5)
        left.append(caller.get("/v1/credits/usage?limit=1").json()["data"][0]["id"])
    for request in (plain, tiers, run, lone, *left):
        books.change_memo(request, old)
    found = books.recompute("--account", caller.account)
    assert found["counts"] == {"equal": 2, "differs": 0, "broken": 0, "old": 4, "running": 0}
    reasons = {finding["request"]: finding["reason"] for finding in found["findings"]}
    assert reasons == {
        tiers: "written before what its price asks of the request was kept",
        run: "written before it was kept what its run had come to",
        left[0]: "written before what its price asks of the request was kept",
        left[1]: "written before it was kept whether any output was received",
    }


def test_the_command_says_what_it_did(books: Books, caller: Caller) -> None:
    """In words: what differs on lines of its own, then the counts; calls may be chosen by time."""
    request = caller.chat("tiers").headers["x-request-id"]
    variables = {} if books.url is None else {"FAREBOX_DATABASE_URL": books.url}
    ran = farebox(books.server.folder, "recompute", request, **variables)
    assert (ran.returncode, ran.stdout) == (0, "1 equal, 0 differs, 0 broken, 0 old, 0 running\n")
    books.change_memo(request, lambda memo: memo["lines"].clear())
    ran = farebox(books.server.folder, "recompute", request, **variables)
    assert ran.returncode == 1
    assert ran.stdout.splitlines() == [
        f"{request} differs",
        "    input_tokens: the receipt has no line, recomputed 20 at 1 / 1k: 0.02",
        "    output_tokens: the receipt has no line, recomputed 7 at 3 / 1k: 0.021",
        "0 equal, 1 differs, 0 broken, 0 old, 0 running",
    ]
    for since, calls in (("30d", 1), ("1h", 1), ("2091-01-01T00:00:00Z", 0), ("2020-01-01T00:00:00+02:00", 1)):
        found = books.recompute("--account", caller.account, "--since", since, code=calls)
        assert found["counts"]["differs"] == calls
    nobody = f"req_{1:016x}{parse_account(caller.account) or 0:016x}"
    (finding,) = books.recompute(nobody, code=1)["findings"]
    assert finding["reason"] == "there is no such call"


@pytest.mark.parametrize(
    "arguments", [["req_1"], ["--since", "yesterday"], ["--account", "x"], [f"req_{0:032x}", "--since", "1d"]]
)
def test_bad_arguments_are_refused(tmp_path: Path, arguments: list[str]) -> None:
    """Exit 2, before anything is read."""
    assert farebox(tmp_path, "recompute", *arguments).returncode == 2


def test_without_books_it_says_so(tmp_path: Path) -> None:
    """Exit 1, and no file is made."""
    ran = farebox(tmp_path, "recompute", FAREBOX_DATABASE_URL="sqlite:///none.db")
    assert ran.returncode == 1 and "there is no ledger" in ran.stderr
    assert not list(tmp_path.iterdir())
