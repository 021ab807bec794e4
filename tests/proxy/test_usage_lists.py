"""Usage, its filters, pages, exports and sums, and the statement whose balance is that of the credits."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from tests.proxy.chats import BODY, DONE, answer, body_of, finish, usage_chunk, words
from tests.proxy.priced import priced
from tests.proxy.running import Caller, Server
from tests.proxy.upstream import Gate, Upstream, response, streamed


@pytest.fixture(scope="module")
def config_text(running_upstream: Upstream) -> str:
    return priced(running_upstream.url)


@dataclass(frozen=True)
class _History:
    """An account's calls, oldest first: their receipts."""

    caller: Caller
    calls: list[dict[str, Any]]

    def ids(self, *numbers: int) -> list[str]:
        """The ids of these calls, newest first."""
        return [self.calls[number]["id"] for number in sorted(numbers, reverse=True)]


@pytest.fixture(scope="module")
def history(shared: Server, running_upstream: Upstream) -> _History:
    """Six calls that differ in everything that can be asked for, the last of them voided."""
    caller = shared.caller()
    key = shared.done("POST", f"/accounts/{caller.account}/keys", {"app": "editor"})
    app = Caller(shared, caller.account, key["key"])
    running_upstream.says(answer())
    made = [
        caller.post(body_of(model="plain"), X_Farebox_Thread="t1", X_Farebox_Run="r1"),
        caller.post(body_of(model="plain"), X_Farebox_Thread="t1", X_Farebox_Run="r2"),
        caller.post(body_of(model="words"), X_Farebox_Thread="t2"),
        app.post(body_of(model="deep"), X_Farebox_Run="r1"),
        app.post(body_of(model="plain"), X_Farebox_Operation="prototype"),
    ]
    running_upstream.says(response(b"{}", 500))
    made.append(caller.post(body_of(model="other")))
    return _History(caller, [caller.receipt(answered) for answered in made])


def _listed(caller: Caller, query: str = "") -> list[dict[str, Any]]:
    answered = caller.get(f"/v1/credits/usage?{query}")
    assert answered.status_code == 200, answered.text
    rows: list[dict[str, Any]] = answered.json()["data"]
    return rows


def test_a_row_is_its_receipt_with_usage(history: _History) -> None:
    """Without lines and what paid, but with the quantity of each meter."""
    rows = _listed(history.caller)
    assert [row["id"] for row in rows] == history.ids(*range(6))
    for row, receipt in zip(rows, reversed(history.calls), strict=True):
        left_out = {"lines", "paid_from", "object"}
        assert {k: v for k, v in row.items() if k not in ("usage", "object")} == {
            k: v for k, v in receipt.items() if k not in left_out
        }
        assert row["object"] == "credits.usage"
    assert rows[0]["status"] == "voided" and rows[0]["total"] == "0" and rows[0]["usage"] == {}
    assert rows[1]["usage"] == {"request": "1", "input_tokens": "20", "output_tokens": "7"}


_FILTERS: dict[str, tuple[int, ...]] = {
    "thread=t1": (0, 1),
    "thread=t3": (),
    "run=r1": (0, 3),
    "run=r1&thread=t1": (0,),
    "model=plain": (0, 1, 4),
    "model=PLAIN": (),
    "operation=prototype": (4,),
    "operation=words_chat": (2,),
    "operation=": (),
    "app=editor": (3, 4),
    "app=editor&model=deep": (3,),
    "model=other": (5,),
    "thread=t1'%20OR%20'1'='1": (),
}


@pytest.mark.parametrize("query", _FILTERS)
def test_filters_are_exact_and_all_hold(history: _History, query: str) -> None:
    """A row is listed where every filter fits it; so it is for the operator, and in exports."""
    expected = history.ids(*_FILTERS[query])
    assert [row["id"] for row in _listed(history.caller, query)] == expected
    server, account = history.caller.server, history.caller.account
    assert [row["id"] for row in server.done("GET", f"/accounts/{account}/usage?{query}")["data"]] == expected
    headers = {**history.caller.headers, "accept": "application/jsonl"}
    exported = server.http.get(f"{server.base}/v1/credits/usage?{query}", headers=headers)
    assert [json.loads(line)["id"] for line in exported.text.splitlines()] == expected


def test_keys_are_told_apart(history: _History) -> None:
    """By the id that receipts name."""
    first, second = history.calls[0]["key"], history.calls[3]["key"]
    assert first != second
    assert [row["id"] for row in _listed(history.caller, f"key={first}")] == history.ids(0, 1, 2, 5)
    assert [row["id"] for row in _listed(history.caller, f"key={second}")] == history.ids(3, 4)


def test_since_is_inclusive_and_until_exclusive(history: _History) -> None:
    """Both filter on the time of creation, to the microsecond, in any zone."""
    at = history.calls[2]["created_at"]
    assert [row["id"] for row in _listed(history.caller, f"since={at}")] == history.ids(2, 3, 4, 5)
    assert [row["id"] for row in _listed(history.caller, f"until={at}")] == history.ids(0, 1)
    later = history.calls[4]["created_at"]
    assert [row["id"] for row in _listed(history.caller, f"since={at}&until={later}")] == history.ids(2, 3)
    assert _listed(history.caller, f"since={later}&until={at}") == []
    moment = datetime.fromisoformat(at).astimezone(ZoneInfo("America/New_York"))
    local = moment.isoformat().replace("+", "%2B")
    assert [row["id"] for row in _listed(history.caller, f"until={local}")] == history.ids(0, 1)


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("since=yesterday", "since"),
        ("until=2026-01-01", "until"),
        ("since=2026-01-01T00:00:00", "since"),
        ("since=99999", "since"),
        ("limit=0", "limit"),
        ("limit=x", "limit"),
        ("colour=red", "colour"),
        ("user=me", "user"),
    ],
)
def test_a_filter_that_is_none_is_refused(history: _History, query: str, param: str) -> None:
    """422 naming it, for lists, exports and sums alike; nothing is ignored."""
    for path in ("/v1/credits/usage", "/v1/credits/usage/summary"):
        refused = history.caller.get(f"{path}?{query}")
        assert (refused.status_code, refused.json()["error"]["param"]) == (422, param)


@pytest.mark.parametrize("path", ["/v1/credits/usage", "/v1/credits/statement"])
def test_pages_follow_each_other(history: _History, path: str) -> None:
    """`next` is the last id of a page, to be sent as `after`; together they are the whole list, each row once."""
    whole = history.caller.get(path).json()
    assert (whole["has_more"], whole["next"]) == (False, None)
    for limit in (1, 2, 3, len(whole["data"])):
        seen: list[Any] = []
        for page in _pages(history.caller, f"{path}?limit={limit}"):
            assert len(page["data"]) <= limit
            assert page["next"] == (page["data"][-1]["id"] if page["has_more"] else None)
            seen += page["data"]
        assert seen == whole["data"]
    assert history.caller.get(f"{path}?limit=100000").json() == whole
    assert history.caller.get(f"{path}?after={whole['data'][-1]['id']}").json()["data"] == []


def _pages(caller: Caller, path: str) -> Iterator[dict[str, Any]]:
    after = ""
    for _ in range(50):
        page: dict[str, Any] = caller.get(path + after).json()
        yield page
        if not page["has_more"]:
            return
        after = f"&after={page['next']}"
    raise AssertionError("the pages have no end")


def test_a_call_that_runs_is_listed_once(shared: Server, upstream: Upstream) -> None:
    """As held while it runs, as settled afterwards; a refused one is never listed."""
    caller = shared.caller("1.5")
    gate = Gate()
    upstream.says(streamed(words("one"), gate, finish(), usage_chunk(), DONE))
    with shared.http.stream(
        "POST", caller.url, content=body_of(model="plain", stream=True, max_tokens=400), headers=caller.headers
    ) as stream:
        gate.reached()
        (row,) = _listed(caller)
        assert (row["status"], row["total"], row["settled_at"]) == ("held", "0", None)
        assert row["id"] == stream.headers["x-request-id"]
        (summed,) = caller.get("/v1/credits/usage/summary?by=model").json()["data"]
        assert summed == {"key": "plain", "calls": 1, "total": "0"}
        assert caller.chat("plain", max_tokens=400).status_code == 402
        assert len(_listed(caller)) == 1
        gate.open()
        stream.read()
    (row,) = _listed(caller)
    assert (row["status"], row["total"]) == ("settled", "0.041")


def test_usage_is_exported_as_csv(history: _History) -> None:
    """Every call a line, however short the pages of the list are; a column a member, empty where it is null."""
    server = history.caller.server
    headers = {**history.caller.headers, "accept": "text/csv"}
    exported = server.http.get(f"{server.base}/v1/credits/usage?limit=1", headers=headers)
    assert exported.status_code == 200 and exported.headers["content-type"].startswith("text/csv")
    rows = list(csv.DictReader(io.StringIO(exported.text)))
    assert [row["id"] for row in rows] == history.ids(*range(6))
    for row, receipt in zip(rows, reversed(history.calls), strict=True):
        for name in ("status", "ended", "model", "total", "debt", "refunded", "created_at", "key", "price_version"):
            assert row[name] == receipt[name]
        for name in ("thread", "run", "app", "operation"):
            assert row[name] == (receipt[name] or "")
    assert rows[1]["usage"] == "request=1 input_tokens=20 output_tokens=7"


@pytest.mark.parametrize("thread", ["=1+1", "+1", "-1+1", "@SUM(A1)"])
def test_a_thread_is_no_formula_in_a_spreadsheet(upstream: Upstream, caller: Caller, thread: str) -> None:
    """A text of a caller's header that a spreadsheet would run is quoted in CSV, and as it was in JSON."""
    upstream.says(answer())
    caller.post(BODY, X_Farebox_Thread=thread)
    assert _listed(caller)[0]["thread"] == thread
    headers = {**caller.headers, "accept": "text/csv"}
    exported = caller.server.http.get(f"{caller.server.base}/v1/credits/usage", headers=headers)
    (row,) = csv.DictReader(io.StringIO(exported.text))
    assert row["thread"] == "'" + thread


def test_usage_is_exported_as_json_lines(history: _History) -> None:
    """The rows of the list, a line each."""
    server = history.caller.server
    headers = {**history.caller.headers, "accept": "application/jsonl"}
    exported = server.http.get(f"{server.base}/v1/credits/usage?limit=1", headers=headers)
    assert exported.headers["content-type"].startswith("application/jsonl")
    assert [json.loads(line) for line in exported.text.splitlines()] == _listed(history.caller)


_SUMS: dict[str, dict[str | None, tuple[int, str]]] = {
    "operation": {
        None: (2, "0.082"),
        "words_chat": (1, "0.05"),
        "advanced_ai": (1, "0.041"),
        "prototype": (1, "0.0246"),
        "standard_ai": (1, "0"),
    },
    "model": {"plain": (3, "0.1066"), "words": (1, "0.05"), "deep": (1, "0.041"), "other": (1, "0")},
    "app": {None: (4, "0.132"), "editor": (2, "0.0656")},
    "thread": {"t1": (2, "0.082"), None: (3, "0.0656"), "t2": (1, "0.05")},
    "run": {"r1": (2, "0.082"), None: (3, "0.0746"), "r2": (1, "0.041")},
}


@pytest.mark.parametrize("by", _SUMS)
def test_usage_is_summed_up(history: _History, by: str) -> None:
    """By each key, in the current period and in all of time, for the caller and the operator."""
    path = f"/accounts/{history.caller.account}/usage/summary?by={by}"
    expected = [{"key": key, "calls": calls, "total": total} for key, (calls, total) in _SUMS[by].items()]
    for period in ("", "&period=current", "&period=all"):
        summed = history.caller.get(f"/v1/credits/usage/summary?by={by}{period}").json()
        assert sorted(summed["data"], key=str) == sorted(expected, key=str)
        assert (summed["object"], summed["has_more"], summed["next"]) == ("list", False, None)
        assert history.caller.server.done("GET", path + period) == summed


def test_sums_take_the_filters_of_lists(history: _History) -> None:
    """Also since and until, and by key."""
    summary = "/v1/credits/usage/summary"
    by_model = history.caller.get(f"{summary}?by=model&app=editor").json()["data"]
    assert {row["key"]: row["total"] for row in by_model} == {"deep": "0.041", "plain": "0.0246"}
    by_key = history.caller.get(f"{summary}?by=key").json()["data"]
    assert {row["key"]: row["calls"] for row in by_key} == {history.calls[0]["key"]: 4, history.calls[3]["key"]: 2}
    at = history.calls[4]["created_at"]
    assert [row["calls"] for row in history.caller.get(f"{summary}?by=app&since={at}&run=").json()["data"]] == []
    (row,) = history.caller.get(f"{summary}?by=app&since={at}&app=editor").json()["data"]
    assert row == {"key": "editor", "calls": 1, "total": "0.0246"}
    for query, param in (("by=colour", "by"), ("period=last", "period")):
        refused = history.caller.get(f"{summary}?{query}")
        assert (refused.status_code, refused.json()["error"]["param"]) == (422, param)


@pytest.mark.parametrize("by", _SUMS)
def test_sums_have_pages(history: _History, by: str) -> None:
    """One row a page, each after the last one's key, also where that is null, gives what one page gives."""
    summary = f"/v1/credits/usage/summary?by={by}"
    rows: list[dict[str, object]] = []
    answered = history.caller.get(f"{summary}&limit=1").json()
    while answered["has_more"]:
        rows += answered["data"]
        answered = history.caller.get(f"{summary}&limit=1&after={answered['next']}").json()
    assert rows + answered["data"] == history.caller.get(summary).json()["data"]
    assert answered["next"] is None


@pytest.mark.parametrize("zone", ["Pacific/Kiritimati", "Pacific/Pago_Pago", "Asia/Kathmandu", "UTC"])
def test_a_day_is_one_of_the_accounts_zone(shared: Server, upstream: Upstream, zone: str) -> None:
    """Where it is tomorrow already, or still yesterday, the call counts there."""
    account = shared.done("POST", "/accounts", {"name": "Far away", "timezone": zone})["id"]
    shared.done("POST", f"/accounts/{account}/grants", {"bucket": "paid", "credits": "1"})
    caller = Caller(shared, account, shared.done("POST", f"/accounts/{account}/keys", {})["key"])
    upstream.says(answer())
    receipts = [caller.receipt(caller.chat("plain")) for _ in range(2)]
    days = [datetime.fromisoformat(r["created_at"]).astimezone(ZoneInfo(zone)).date().isoformat() for r in receipts]
    summed = caller.get("/v1/credits/usage/summary?by=day").json()["data"]
    assert {row["key"] for row in summed} == set(days)
    assert sum(row["calls"] for row in summed) == 2
    assert sum(Decimal(row["total"]) for row in summed) == Decimal("0.082")
    assert shared.done("GET", f"/accounts/{account}/usage/summary?by=day")["data"] == summed


def test_the_statement_ends_at_the_balance(shared: Server, upstream: Upstream, caller: Caller) -> None:
    """Each line's balance is the one below it and its amount; the first is what `GET /v1/credits` says."""
    upstream.says(answer())
    first = caller.chat("plain")
    caller.chat("words")
    grant = shared.done("POST", f"/accounts/{caller.account}/grants", {"bucket": "bonus", "credits": "5", "note": "hi"})
    shared.done("POST", f"/receipts/{first.headers['x-request-id']}/refund", {"credits": "0.02", "reason": "slow"})
    shared.done("POST", f"/accounts/{caller.account}/adjust", {"credits": "-2", "reason": "a mistake"})
    shared.done("POST", f"/grants/{grant['id']}/void", {"reason": "not meant"})
    lines = caller.get("/v1/credits/statement").json()["data"]
    assert lines[0]["balance"] == caller.available
    for line, before in zip(lines, [*lines[1:], None], strict=True):
        assert Decimal(line["balance"]) == Decimal(line["amount"]) + Decimal(before["balance"] if before else 0)
    kinds = [line["type"] for line in reversed(lines)]
    assert kinds[:5] == ["grant", "charge", "charge", "grant", "refund"]
    assert set(kinds[5:]) == {"adjustment", "void"}
    charge = lines[-2]
    assert (charge["amount"], charge["bucket"]) == ("-0.041", "paid")
    assert charge["request"] == first.headers["x-request-id"]
    assert {line["note"] for line in lines} >= {"hi", "slow", "a mistake", "not meant"}
    assert shared.done("GET", f"/accounts/{caller.account}/statement")["data"] == lines


def test_a_statement_shows_debt_and_its_repayment(shared: Server, upstream: Upstream) -> None:
    """Its balance is negative while there is debt, and a new grant repays it first."""
    caller = shared.caller("2")
    upstream.says(answer(usage={"prompt_tokens": 20, "completion_tokens": 1000}))
    assert caller.receipt(caller.chat("plain", max_tokens=10))["debt"] == "1.02"
    assert caller.get("/v1/credits/statement").json()["data"][0]["balance"] == "-1.02"
    shared.done("POST", f"/accounts/{caller.account}/grants", {"bucket": "paid", "credits": "3"})
    lines = caller.get("/v1/credits/statement").json()["data"]
    assert lines[0]["balance"] == caller.available == "1.98"
    repaid = next(line for line in lines if line["type"] == "repayment")
    assert (repaid["amount"], repaid["balance"]) == ("1.02", "1.98")
    assert "debt" in [line["type"] for line in lines]


def test_the_operator_lists_everybodys_calls(history: _History, shared: Server) -> None:
    """With the account of each; filters, sums and exports are those of callers."""
    rows = shared.done("GET", "/usage?run=r1&thread=t1")["data"]
    assert [row["id"] for row in rows] == history.ids(0)
    assert rows[0]["account"] == history.caller.account
    whole = shared.done("GET", "/usage?limit=1000")["data"]
    ids = [row["id"] for row in whole]
    assert len(ids) == len(set(ids)) and ids[0] > ids[-1]
    by_app = {row["key"]: row for row in shared.done("GET", "/usage/summary?by=app")["data"]}
    assert by_app["editor"] == {"key": "editor", "calls": 2, "total": "0.0656"}
    headers = {"authorization": "Bearer admin-key-of-the-tests", "accept": "text/csv"}
    exported = shared.http.get(f"{shared.base}/admin/v1/usage", headers=headers)
    assert sorted(row["id"] for row in csv.DictReader(io.StringIO(exported.text))) == sorted(ids)
