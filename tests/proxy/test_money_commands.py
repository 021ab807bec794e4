"""What operators do to money and accounts: void, refund, adjust, suspend, close; and the journal of it."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from signal import SIGKILL
from typing import Any

import httpx
import pytest

from tests.proxy.chats import DONE, answer, body_of, finish, usage_chunk, words
from tests.proxy.running import Caller, Server
from tests.proxy.upstream import Gate, Upstream, streamed


def _refused(answered: httpx.Response) -> tuple[int, str | None, str | None]:
    error = answered.json()["error"]
    return answered.status_code, error["code"], error["param"]


def _charged(caller: Caller, upstream: Upstream, tokens: int = 1000) -> str:
    """Make a call of 0.02 + 0.003 a token of output; returns its id."""
    upstream.says(answer(usage={"prompt_tokens": 20, "completion_tokens": tokens}))
    return str(caller.chat().headers["x-request-id"])


def _refund(caller: Caller, request: str, **fields: Any) -> Any:
    return caller.server.done("POST", f"/receipts/{request}/refund", {"reason": "slow", **fields})


def _journal(server: Server, caller: Caller) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = server.done("GET", "/actions?limit=1000")["data"]
    return [row for row in rows if row["account"] == caller.account]


def test_a_grant_is_voided(shared: Server, caller: Caller) -> None:
    """What is neither spent nor held goes; doing it again takes nothing more."""
    grant = caller.balance()["grants"][0]["id"]
    voided = shared.done("POST", f"/grants/{grant}/void", {"reason": "chargeback"})
    assert (voided["id"], voided["voided"], voided["remaining"]) == (grant, "1000", "0")
    assert voided["voided_at"].endswith("Z")
    assert caller.available == "0"
    again = shared.done("POST", f"/grants/{grant}/void", {"reason": "again"})
    assert (again["voided"], again["voided_at"]) == ("0", voided["voided_at"])
    assert caller.chat().status_code == 402


def test_what_a_call_holds_of_a_void_grant_is_the_calls(shared: Server, upstream: Upstream, caller: Caller) -> None:
    """It is spent as far as the call costs, and the rest goes with the grant."""
    gate = Gate()
    upstream.says(streamed(words("one"), gate, finish(), usage_chunk(), DONE))
    grant = caller.balance()["grants"][0]["id"]
    with shared.http.stream("POST", caller.url, content=body_of(stream=True), headers=caller.headers) as stream:
        gate.reached()
        held = stream.headers["x-credits-held"]
        voided = shared.done("POST", f"/grants/{grant}/void", {"reason": "chargeback"})
        assert voided["remaining"] == voided["held"] == held
        assert caller.available == "0"
        gate.open()
        stream.read()
    receipt = caller.receipt(stream)
    assert (receipt["total"], receipt["debt"]) == ("0.041", "0")
    assert (caller.available, caller.balance()["held"]) == ("0", "0")


def test_a_charge_is_refunded_whole(upstream: Upstream, caller: Caller) -> None:
    """Without an amount all of it goes back to what paid it, and its receipt says so."""
    request = _charged(caller, upstream)
    paid = caller.receipt(request)["paid_from"]
    refund = _refund(caller, request)
    assert refund["object"] == "credits.refund" and refund["id"].startswith("refund_")
    assert (refund["request"], refund["credits"], refund["debt_reduced"]) == (request, "3.02", "0")
    assert refund["to"] == paid
    assert caller.available == "1000"
    receipt = caller.receipt(request)
    assert (receipt["refunded"], receipt["total"], receipt["status"]) == ("3.02", "3.02", "settled")
    (row,) = caller.get("/v1/credits/usage").json()["data"]
    assert row["refunded"] == "3.02"


def test_a_charge_is_refunded_in_parts_but_never_exceeded(upstream: Upstream, caller: Caller) -> None:
    """More than is left is 409 and changes nothing; what is left can be refunded."""
    request = _charged(caller, upstream)
    assert _refund(caller, request, credits="1")["credits"] == "1"
    assert _refund(caller, request, credits="1.5")["credits"] == "1.5"
    refused = caller.server.admin("POST", f"/receipts/{request}/refund", {"credits": "0.520000001", "reason": "x"})
    assert _refused(refused) == (409, "refund_exceeds_charge", "credits")
    assert refused.json()["error"]["left"] == "0.52"
    assert (caller.receipt(request)["refunded"], caller.available) == ("2.5", "999.48")
    assert _refund(caller, request, credits="0.52")["credits"] == "0.52"
    for fields in ({}, {"credits": "0.000000001"}):
        refused = caller.server.admin("POST", f"/receipts/{request}/refund", {"reason": "x", **fields})
        assert _refused(refused)[:2] == (409, "refund_exceeds_charge")
    assert (caller.receipt(request)["refunded"], caller.available) == ("3.02", "1000")


def test_the_last_grant_that_paid_is_refunded_first(shared: Server, upstream: Upstream) -> None:
    """A part of a refund reaches the grant that burned before it only when the last is whole."""
    caller = shared.caller("1")
    shared.done("POST", f"/accounts/{caller.account}/grants", {"bucket": "bonus", "credits": "2"})
    shared.done("POST", f"/accounts/{caller.account}/grants", {"bucket": "daily", "credits": "2"})
    request = _charged(caller, upstream, 1000)
    receipt = caller.receipt(request)
    assert [(paid["bucket"], paid["amount"]) for paid in receipt["paid_from"]] == [("daily", "2"), ("bonus", "1.02")]
    back = _refund(caller, request, credits="1.5")
    assert [(to["bucket"], to["amount"]) for to in back["to"]] == [("bonus", "1.02"), ("daily", "0.48")]
    back = _refund(caller, request)
    assert [(to["bucket"], to["amount"]) for to in back["to"]] == [("daily", "1.52")]
    assert {bucket["bucket"]: bucket["remaining"] for bucket in caller.balance()["buckets"]} == {
        "daily": "2", "subscription": "0", "free": "0", "bonus": "2", "paid": "1",
    }  # fmt: skip


def test_a_calls_debt_is_refunded_first(shared: Server, upstream: Upstream) -> None:
    """Then its grants."""
    caller = shared.caller("2")
    upstream.says(answer(usage={"prompt_tokens": 20, "completion_tokens": 1000}))
    request = caller.chat(max_tokens=10).headers["x-request-id"]
    assert caller.receipt(request)["debt"] == "1.02"
    refund = _refund(caller, request, credits="1")
    assert (refund["debt_reduced"], refund["to"], caller.balance()["debt"]) == ("1", [], "0.02")
    refund = _refund(caller, request)
    assert (refund["debt_reduced"], refund["to"][0]["amount"], caller.available) == ("0.02", "2", "2")


@pytest.mark.parametrize(
    ("fields", "available"), [({}, "0"), ({"fault": "operator"}, "3.02"), ({"as": "bonus"}, "3.02")]
)
def test_a_refund_to_what_is_gone(
    shared: Server, upstream: Upstream, caller: Caller, fields: dict[str, str], available: str
) -> None:
    """It is lost with the void grant, unless the operator was at fault or says bonus: then it is a new grant."""
    request = _charged(caller, upstream)
    grant = caller.balance()["grants"][0]["id"]
    shared.done("POST", f"/grants/{grant}/void", {"reason": "chargeback"})
    refund = _refund(caller, request, **fields)
    assert caller.available == available
    assert refund["to"][0]["bucket"] == ("bonus" if fields else "paid")
    assert (refund["to"][0]["grant"] == grant) is (not fields)


def test_a_live_grant_is_refunded_itself(upstream: Upstream, caller: Caller) -> None:
    """Also as bonus, and where the operator was at fault: only what is gone needs a new grant."""
    request = _charged(caller, upstream)
    grant = caller.balance()["grants"][0]["id"]
    for fields in ({"as": "bonus"}, {"fault": "operator"}):
        refund = _refund(caller, request, credits="1", **fields)
        assert refund["to"] == [{"grant": grant, "bucket": "paid", "amount": "1"}]
    assert [entry["remaining"] for entry in caller.balance()["grants"]] == ["998.98"]


def test_corrections_expire_as_their_bucket_says(shared: Server, upstream: Upstream) -> None:
    """Refunds as bonus and adjustments get the bucket's lifetime, as any grant into it."""
    file = shared.folder / "config.yaml"
    text = file.read_text()
    file.write_text(text + "buckets: {bonus: {expires: 90d}, paid: {}}\n")
    try:
        shared.done("POST", "/prices/reload")
        caller = shared.caller()
        given = shared.done("POST", f"/accounts/{caller.account}/grants", {"bucket": "bonus", "credits": "1"})
        assert _lifetime(given) == timedelta(days=90)
        adjusted = shared.done("POST", f"/accounts/{caller.account}/adjust", {"credits": "1", "reason": "x"})
        assert _lifetime(adjusted["grant"]) == timedelta(days=90)
        request = _charged(caller, upstream, 2000)
        for paid in caller.receipt(request)["paid_from"]:
            shared.done("POST", f"/grants/{paid['grant']}/void", {"reason": "gone"})
        refund = _refund(caller, request, **{"as": "bonus"})
        grants = {grant["id"]: grant for grant in caller.balance()["grants"]}
        assert _lifetime(grants[refund["to"][0]["grant"]]) == timedelta(days=90)
    finally:
        file.write_text(text)
        shared.done("POST", "/prices/reload")


def _lifetime(grant: dict[str, Any]) -> timedelta | None:
    """A grant's lifetime to the day, None for ever."""
    if grant["expires_at"] is None:
        return None
    begun, ends = (datetime.fromisoformat(grant[name]) for name in ("created_at", "expires_at"))
    return timedelta(days=round((ends - begun) / timedelta(days=1)))


def test_what_cost_nothing_can_not_be_refunded(shared: Server, upstream: Upstream, caller: Caller) -> None:
    """A running call has no charge yet, and a call that there was not is not found."""
    gate = Gate()
    upstream.says(streamed(words("one"), gate, finish(), usage_chunk(), DONE))
    with shared.http.stream("POST", caller.url, content=body_of(stream=True), headers=caller.headers) as stream:
        gate.reached()
        path = f"/receipts/{stream.headers['x-request-id']}/refund"
        assert shared.admin("POST", path, {"reason": "x"}).status_code in (404, 409)
        gate.open()
        stream.read()
    for path in ("req_" + "0" * 32, "req_x", "req_" + "f" * 32, "req_" + "0" * 16 + caller.account[5:]):
        assert _refused(shared.admin("POST", f"/receipts/{path}/refund", {"reason": "x"}))[:2] == (404, "not_found")


def test_an_adjustment_up_is_a_grant(shared: Server, caller: Caller) -> None:
    """Of the bonus bucket unless another is named."""
    adjusted = shared.done("POST", f"/accounts/{caller.account}/adjust", {"credits": "2.5", "reason": "sorry"})
    assert adjusted["object"] == "credits.adjustment"
    assert (adjusted["credits"], adjusted["debt_reduced"], adjusted["debt_added"]) == ("2.5", "0", "0")
    assert (adjusted["grant"]["bucket"], adjusted["grant"]["granted"], adjusted["taken"]) == ("bonus", "2.5", [])
    other = {"credits": 3, "reason": "sorry", "bucket": "free"}
    assert shared.done("POST", f"/accounts/{caller.account}/adjust", other)["grant"]["bucket"] == "free"
    assert caller.available == "1005.5"


def test_an_adjustment_down_goes_into_debt_which_another_writes_off(shared: Server) -> None:
    """What there is is taken, the rest is owed; up again the debt is reduced before anything is granted."""
    caller = shared.caller("2")
    path = f"/accounts/{caller.account}/adjust"
    down = shared.done("POST", path, {"credits": "-5", "reason": "mistake"})
    assert (down["credits"], down["debt_added"], down["grant"]) == ("-5", "3", None)
    assert [taken["amount"] for taken in down["taken"]] == ["2"]
    balance = caller.balance()
    assert (balance["available"], balance["debt"]) == ("0", "3")
    refused = caller.chat(max_tokens=1).json()["error"]
    assert (refused["code"], refused["debt"]) == ("insufficient_credits", "3")
    written_off = shared.done("POST", path, {"credits": "3", "reason": "write-off"})
    assert (written_off["debt_reduced"], written_off["grant"]) == ("3", None)
    assert (caller.available, caller.balance()["debt"]) == ("0", "0")
    more = shared.done("POST", path, {"credits": "1", "reason": "sorry"})
    assert (more["debt_reduced"], more["grant"]["granted"], caller.available) == ("0", "1", "1")


_BAD: dict[str, tuple[str, dict[str, Any], str]] = {
    "void without reason": ("/grants/{grant}/void", {}, "reason"),
    "void with a blank reason": ("/grants/{grant}/void", {"reason": "  "}, "reason"),
    "refund without reason": ("/receipts/{request}/refund", {}, "reason"),
    "refund of a float": ("/receipts/{request}/refund", {"reason": "x", "credits": 1.5}, "credits"),
    "refund of nothing": ("/receipts/{request}/refund", {"reason": "x", "credits": "0"}, "credits"),
    "negative refund": ("/receipts/{request}/refund", {"reason": "x", "credits": "-1"}, "credits"),
    "refund as what": ("/receipts/{request}/refund", {"reason": "x", "as": "money"}, "as"),
    "whose fault": ("/receipts/{request}/refund", {"reason": "x", "fault": "mine"}, "fault"),
    "adjust without reason": ("/accounts/{account}/adjust", {"credits": "1"}, "reason"),
    "adjust with null": ("/accounts/{account}/adjust", {"credits": "1", "reason": None}, "reason"),
    "adjust by nothing": ("/accounts/{account}/adjust", {"credits": "0", "reason": "x"}, "credits"),
    "adjust by minus nothing": ("/accounts/{account}/adjust", {"credits": "-0", "reason": "x"}, "credits"),
    "adjust without credits": ("/accounts/{account}/adjust", {"reason": "x"}, "credits"),
    "adjust by a float": ("/accounts/{account}/adjust", {"credits": -1.0, "reason": "x"}, "credits"),
    "adjust by ten decimals": ("/accounts/{account}/adjust", {"credits": "-0.0000000001", "reason": "x"}, "credits"),
    "adjust by too much": ("/accounts/{account}/adjust", {"credits": "-1000000001", "reason": "x"}, "credits"),
    "adjust no bucket": ("/accounts/{account}/adjust", {"credits": "1", "reason": "x", "bucket": "gold"}, "bucket"),
    "unknown field": ("/accounts/{account}/adjust", {"credits": "1", "reason": "x", "why": "y"}, "why"),
}


@pytest.mark.parametrize("case", _BAD)
def test_a_bad_command_is_refused_by_field(shared: Server, upstream: Upstream, caller: Caller, case: str) -> None:
    """422 naming it; nothing is changed or journaled."""
    path, fields, param = _BAD[case]
    request = _charged(caller, upstream)
    before, journal = caller.balance(), _journal(shared, caller)
    ids = {"grant": before["grants"][0]["id"], "request": request, "account": caller.account}
    refused = shared.admin("POST", path.format(**ids), fields)
    assert (refused.status_code, refused.json()["error"]["param"]) == (422, param)
    assert caller.balance() == before and _journal(shared, caller) == journal


def test_a_suspended_account_makes_no_calls_but_ends_its_own(
    shared: Server, upstream: Upstream, caller: Caller
) -> None:
    """New calls are 403, running ones end and are charged; its credits can be seen; active again it goes on."""
    gate = Gate()
    upstream.says(streamed(words("one"), gate, finish(), usage_chunk(), DONE))
    with shared.http.stream("POST", caller.url, content=body_of(stream=True), headers=caller.headers) as stream:
        gate.reached()
        fields = {"status": "suspended", "reason": "abuse"}
        changed = shared.done("PATCH", f"/accounts/{caller.account}", fields)
        assert changed["status"] == "suspended"
        assert _refused(caller.chat())[:2] == (403, "account_suspended")
        assert len(upstream.received) == 1
        gate.open()
        assert stream.read().endswith(DONE)
    assert caller.receipt(stream)["total"] == "0.041"
    assert caller.available == "999.959"
    shared.done("PATCH", f"/accounts/{caller.account}", {"status": "active"})
    upstream.says(answer())
    assert caller.chat().status_code == 200


def test_a_closed_account_stays_closed(shared: Server, upstream: Upstream, caller: Caller) -> None:
    """It can't be opened or suspended again: 409."""
    path = f"/accounts/{caller.account}"
    assert shared.done("PATCH", path, {"status": "closed", "reason": "left"})["status"] == "closed"
    assert _refused(caller.chat())[:2] == (403, "account_suspended")
    for status in ("active", "suspended"):
        assert _refused(shared.admin("PATCH", path, {"status": status}))[:2] == (409, "account_closed")
    assert shared.done("GET", path)["status"] == "closed"
    assert not upstream.received


def test_an_account_is_changed(shared: Server, caller: Caller) -> None:
    """What is named changes, all else stays."""
    path = f"/accounts/{caller.account}"
    before = shared.done("GET", path)
    fields = {"name": "Ada", "email": "ada@example.com", "timezone": "Asia/Tokyo", "overdraft_limit": "3"}
    assert shared.done("PATCH", path, fields) == {**before, **fields}
    assert shared.done("PATCH", path, {"name": "Eve"}) == {**before, **fields, "name": "Eve"}
    assert shared.done("PATCH", path, {}) == {**before, **fields, "name": "Eve"}
    assert caller.balance()["timezone"] == "Asia/Tokyo"
    for field, value in (("timezone", "Mars/Base"), ("status", "gone"), ("overdraft_limit", -1), ("colour", "red")):
        refused = shared.admin("PATCH", path, {field: value})
        assert (refused.status_code, refused.json()["error"]["param"]) == (422, field)


def test_every_command_is_journaled_with_its_reason(shared: Server, upstream: Upstream) -> None:
    """Newest first: actor, command, what it was done to, why, and what was asked."""
    account = shared.done("POST", "/accounts", {"name": "Ada", "reason": "signed up"})["id"]
    grant = shared.done("POST", f"/accounts/{account}/grants", {"bucket": "paid", "credits": "9", "reason": "bought"})
    key = shared.done("POST", f"/accounts/{account}/keys", {"name": "laptop", "reason": "asked for"})
    caller = Caller(shared, account, key["key"])
    request = _charged(caller, upstream)
    _refund(caller, request, credits="1")
    shared.done("POST", f"/accounts/{account}/adjust", {"credits": "-1", "reason": "mistake"})
    shared.done("POST", f"/grants/{grant['id']}/void", {"reason": "chargeback"})
    shared.done("PATCH", f"/accounts/{account}", {"status": "suspended", "reason": "abuse"})
    shared.done("DELETE", f"/keys/{key['id']}")
    journal = _journal(shared, caller)
    assert [(row["command"], row["target"], row["reason"]) for row in reversed(journal)] == [
        ("account.create", account, "signed up"),
        ("grant.create", grant["id"], "bought"),
        ("key.create", key["id"], "asked for"),
        ("receipt.refund", request, "slow"),
        ("account.adjust", account, "mistake"),
        ("grant.void", grant["id"], "chargeback"),
        ("account.change", account, "abuse"),
        ("key.revoke", key["id"], None),
    ]
    assert {row["actor"] for row in journal} == {"admin"}
    assert journal[4]["details"] == {"reason": "slow", "credits": "1"}
    assert key["key"] not in str(journal)
    assert [row["at"] for row in journal] == sorted((row["at"] for row in journal), reverse=True)
    page = shared.done("GET", "/actions?limit=1")
    assert page["has_more"] and page["next"] == page["data"][0]["id"]
    assert shared.done("GET", f"/actions?limit=1&after={page['next']}")["data"][0]["id"] < page["next"]


def test_the_operator_sees_how_a_call_went_upstream(shared: Server, upstream: Upstream, caller: Caller) -> None:
    """A receipt for the operator is the caller's, and has the attempts."""
    request = _charged(caller, upstream)
    mine, theirs = caller.receipt(request), shared.done("GET", f"/receipts/{request}")
    assert "attempts" not in mine and theirs.items() >= mine.items()
    assert [(attempt["upstream"], attempt["status"]) for attempt in theirs["attempts"]] == [("main", 200)]


def test_the_operator_sees_where_counted_input_came_from(shared: Server, upstream: Upstream, caller: Caller) -> None:
    """Where a call's input was counted, its tokens are kept by role and kind; they add up to what was charged for."""
    upstream.says(answer(usage=...))
    messages = [{"role": "system", "content": "Be brief"}, {"role": "user", "content": "What is a farebox?"}]
    request = caller.receipt(caller.post(body_of(messages=messages)))["id"]
    (line,) = (line for line in caller.receipt(request)["lines"] if line["meter"] == "input_tokens")
    counted = shared.done("GET", f"/receipts/{request}")["input_by_role"]
    assert counted == {"chat": {"format": 9}, "system": {"format": 1, "text": 2}, "user": {"format": 1, "text": 6}}
    assert line["quantity"] == "19"
    believed = _charged(caller, upstream)
    assert shared.done("GET", f"/receipts/{believed}")["input_by_role"] is None


def test_the_books_are_proved_on_request(shared: Server, upstream: Upstream, caller: Caller) -> None:
    """While a call runs too; what is held is among the totals."""
    _charged(caller, upstream)
    found = shared.done("GET", "/audit")
    assert (found["object"], found["clean"], found["findings"]) == ("audit", True, [])
    assert found["checked"] and found["totals"]["held"] == "0"
    gate = Gate()
    upstream.says(streamed(words("one"), gate, finish(), usage_chunk(), DONE))
    with shared.http.stream("POST", caller.url, content=body_of(stream=True), headers=caller.headers) as stream:
        gate.reached()
        found = shared.done("GET", "/audit")
        assert (found["clean"], found["totals"]["held"]) == (True, stream.headers["x-credits-held"])
        gate.open()
        stream.read()


def test_orphans_are_listed(upstream: Upstream, tmp_path: Path, config_text: str) -> None:
    """Calls of a process that was killed: released, listed in pages, newest first, and found among usage."""
    (tmp_path / "config.yaml").write_text(config_text)
    running = Server(tmp_path).start()
    try:
        caller = running.caller()
        assert running.done("GET", "/orphans")["data"] == []
        gate = Gate()
        upstream.says(streamed(words("one"), gate, finish(), usage_chunk(), DONE))
        body = body_of(stream=True)
        with (
            running.http.stream("POST", caller.url, content=body, headers=caller.headers) as first,
            running.http.stream("POST", caller.url, content=body, headers=caller.headers) as second,
        ):
            gate.reached(2)
            ids = sorted((stream.headers["x-request-id"] for stream in (first, second)), reverse=True)
            running.signal(SIGKILL)
            running.wait()
        running.start()
        rows = running.done("GET", "/orphans")["data"]
        assert [row["id"] for row in rows] == ids
        assert {(row["account"], row["status"]) for row in rows} == {(caller.account, "orphaned")}
        page = running.done("GET", "/orphans?limit=1")
        assert (page["has_more"], page["next"]) == (True, ids[0])
        assert running.done("GET", f"/orphans?after={ids[0]}")["data"] == rows[1:]
        assert caller.available == "1000"
        listed = caller.get("/v1/credits/usage").json()["data"]
        assert [(row["id"], row["status"], row["ended"]) for row in listed] == [
            (request, "orphaned", "died") for request in ids
        ]
        refused = running.admin("POST", f"/receipts/{ids[0]}/refund", {"reason": "x", "credits": "1"})
        assert _refused(refused)[:2] == (409, "refund_exceeds_charge")
        running.audit()
    finally:
        running.close()
