"""The operator's routes: accounts, keys, grants."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.proxy.chats import BODY, answer
from tests.proxy.running import Caller, Server
from tests.proxy.upstream import Upstream

_ROUTES = [
    ("POST", "/accounts"),
    ("GET", "/accounts"),
    ("GET", "/accounts/{account}"),
    ("GET", "/accounts/{account}/credits"),
    ("GET", "/accounts/{account}/keys"),
    ("POST", "/accounts/{account}/keys"),
    ("GET", "/accounts/{account}/grants"),
    ("POST", "/accounts/{account}/grants"),
    ("DELETE", "/keys/key_x"),
    ("GET", "/receipts/req_x"),
]


@pytest.mark.parametrize(("method", "path"), _ROUTES)
def test_a_callers_key_administers_nothing(caller: Caller, method: str, path: str) -> None:
    """403 for a caller's key, 401 for none or an unknown one."""
    url = f"{caller.server.base}/admin/v1{path.format(account=caller.account)}"
    for headers, status, code in (
        (caller.headers, 403, "permission_denied"),
        ({"x-api-key": caller.key}, 403, "permission_denied"),
        ({}, 401, "invalid_api_key"),
        ({"authorization": "Bearer unknown"}, 401, "invalid_api_key"),
    ):
        answered = caller.server.http.request(method, url, headers=headers)
        assert (answered.status_code, answered.json()["error"]["code"]) == (status, code)


def test_the_admin_key_makes_no_calls(shared: Server, upstream: Upstream) -> None:
    """It belongs to no account, so it is unknown where calls are made."""
    headers = {"authorization": "Bearer admin-key-of-the-tests"}
    assert shared.http.post(shared.base + "/v1/chat/completions", content=BODY, headers=headers).status_code == 401


def test_an_account_is_made_found_and_listed(shared: Server) -> None:
    """It is found by its external id and by part of its name."""
    fields = {"name": "Ada Lovelace", "email": "ada@example.com", "external_id": "u-1", "timezone": "Europe/Rome"}
    account = shared.done("POST", "/accounts", {**fields, "overdraft_limit": "2.5"})
    assert re.fullmatch(r"acct_[0-9a-f]{16}", account["id"])
    assert account["created_at"].endswith("Z")
    expected = {
        "object": "account",
        "kind": "user",
        "plan": None,
        "status": "active",
        "overdraft_limit": "2.5",
        **fields,
    }
    assert {name: account[name] for name in expected} == expected
    assert shared.done("GET", f"/accounts/{account['id']}") == account
    assert shared.done("GET", "/accounts?external_id=u-1")["data"] == [account]
    assert shared.done("GET", "/accounts?query=Lovela")["data"] == [account]
    assert shared.admin("POST", "/accounts", {"name": "Other", "external_id": "u-1"}).status_code == 409
    assert shared.done("GET", f"/accounts/{account['id']}/credits")["timezone"] == "Europe/Rome"


def test_lists_come_newest_first_in_pages(shared: Server) -> None:
    """`next` is the last id seen, to be sent as `after`."""
    made = [shared.done("POST", "/accounts", {"name": f"Paged {number}"})["id"] for number in range(5)]
    seen: list[str] = []
    after = ""
    while True:
        page = shared.done("GET", f"/accounts?query=Paged&limit=2{after}")
        assert page["object"] == "list"
        seen += [account["id"] for account in page["data"]]
        if not page["has_more"]:
            assert page["next"] is None
            break
        after = f"&after={page['next']}"
    assert seen == made[::-1]
    for limit in ("0", "-1", "x", "1.5"):
        assert shared.admin("GET", f"/accounts?limit={limit}").json()["error"]["param"] == "limit"
    assert shared.admin("GET", "/accounts?limit=100000").status_code == 200


def test_a_key_is_shown_once(shared: Server, caller: Caller) -> None:
    """Its secret has 32 or more letters and digits; afterwards only its prefix is known."""
    key = shared.done("POST", f"/accounts/{caller.account}/keys", {"name": "laptop", "app": "editor"})
    assert re.fullmatch(r"fbx_[A-Za-z0-9]{32,}", key["key"])
    assert key["key"].startswith(key["prefix"]) and len(key["prefix"]) < 16
    assert (key["object"], key["name"], key["app"], key["status"]) == ("key", "laptop", "editor", "active")
    listed = shared.done("GET", f"/accounts/{caller.account}/keys")["data"]
    assert listed[0]["id"] == key["id"]
    assert key["key"] not in str(listed)


def test_a_receipt_names_the_app_of_its_key(shared: Server, upstream: Upstream, caller: Caller) -> None:
    """Calls are told apart by key and app."""
    key = shared.done("POST", f"/accounts/{caller.account}/keys", {"app": "editor"})
    upstream.says(answer())
    receipt = caller.receipt(Caller(shared, caller.account, key["key"]).chat())
    assert (receipt["app"], receipt["key"]) == ("editor", key["id"])


def test_a_revoked_key_is_refused_at_once(shared: Server, upstream: Upstream, caller: Caller) -> None:
    """The next call fails, also where the key was used before; other keys go on."""
    key = shared.done("POST", f"/accounts/{caller.account}/keys", {})
    other = Caller(shared, caller.account, key["key"])
    upstream.says(answer())
    assert other.chat().status_code == 200
    revoked = shared.done("DELETE", f"/keys/{key['id']}")
    assert revoked["status"] == "revoked" and revoked["revoked_at"].endswith("Z")
    assert other.chat().status_code == 401
    assert other.get("/v1/credits").status_code == 401
    assert caller.chat().status_code == 200
    assert shared.done("DELETE", f"/keys/{key['id']}") == revoked
    assert shared.admin("DELETE", "/keys/key_" + "0" * 32).status_code == 404


_BAD_GRANTS: dict[str, tuple[dict[str, Any], str]] = {
    "no credits": ({"bucket": "paid"}, "credits"),
    "a float": ({"bucket": "paid", "credits": 1.5}, "credits"),
    "a whole float": ({"bucket": "paid", "credits": 1.0}, "credits"),
    "ten decimals": ({"bucket": "paid", "credits": "0.0000000001"}, "credits"),
    "zero": ({"bucket": "paid", "credits": "0"}, "credits"),
    "zero as a number": ({"bucket": "paid", "credits": 0}, "credits"),
    "negative": ({"bucket": "paid", "credits": "-1"}, "credits"),
    "negative number": ({"bucket": "paid", "credits": -1}, "credits"),
    "more than 10^9": ({"bucket": "paid", "credits": "1000000000.000000001"}, "credits"),
    "much more": ({"bucket": "paid", "credits": 10**30}, "credits"),
    "exponent": ({"bucket": "paid", "credits": "1e3"}, "credits"),
    "not a number": ({"bucket": "paid", "credits": "NaN"}, "credits"),
    "infinite": ({"bucket": "paid", "credits": "Infinity"}, "credits"),
    "true": ({"bucket": "paid", "credits": True}, "credits"),
    "null": ({"bucket": "paid", "credits": None}, "credits"),
    "empty": ({"bucket": "paid", "credits": ""}, "credits"),
    "spaces": ({"bucket": "paid", "credits": " 1 "}, "credits"),
    "other digits": ({"bucket": "paid", "credits": "१"}, "credits"),
    "underscore": ({"bucket": "paid", "credits": "1_000"}, "credits"),
    "unknown bucket": ({"bucket": "gold", "credits": "1"}, "bucket"),
    "no bucket": ({"credits": "1"}, "bucket"),
    "unknown source": ({"bucket": "paid", "credits": "1", "source": "theft"}, "source"),
    "source a list": ({"bucket": "paid", "credits": "1", "source": ["admin"]}, "source"),
    "past": ({"bucket": "paid", "credits": "1", "expires_at": "2020-01-01T00:00:00Z"}, "expires_at"),
    "no offset": ({"bucket": "paid", "credits": "1", "expires_at": "2090-01-01T00:00:00"}, "expires_at"),
    "no time": ({"bucket": "paid", "credits": "1", "expires_at": "tomorrow"}, "expires_at"),
    "unknown field": ({"bucket": "paid", "credits": "1", "amount": "1"}, "amount"),
}


@pytest.mark.parametrize("case", _BAD_GRANTS)
def test_a_bad_grant_is_refused_by_field(shared: Server, caller: Caller, case: str) -> None:
    """422 naming the field, and nothing is granted."""
    fields, param = _BAD_GRANTS[case]
    refused = shared.admin("POST", f"/accounts/{caller.account}/grants", fields)
    assert (refused.status_code, refused.json()["error"]["param"]) == (422, param), refused.text
    assert caller.available == "1000"


@pytest.mark.parametrize(
    ("credits", "written"),
    [("12.50", "12.5"), (10, "10"), ("0.000000001", "0.000000001"), ("1000000000", "1000000000"), ("007", "7")],
)
def test_a_grant_is_added_exactly(shared: Server, credits: object, written: str) -> None:
    """Amounts come back as decimal strings without trailing zeros."""
    caller = shared.caller(None)
    fields = {"bucket": "bonus", "credits": credits, "note": "welcome", "source": "campaign"}
    grant = shared.done("POST", f"/accounts/{caller.account}/grants", fields)
    assert (grant["object"], grant["bucket"], grant["source"]) == ("credits.grant", "bonus", "campaign")
    assert (grant["granted"], grant["remaining"], grant["held"]) == (written, written, "0")
    assert (grant["note"], grant["paid"]) == ("welcome", False)
    assert caller.available == written
    assert [entry["id"] for entry in caller.balance()["grants"]] == [grant["id"]]


_BAD_ACCOUNTS: dict[str, tuple[dict[str, Any], str]] = {
    "no name": ({}, "name"),
    "empty name": ({"name": " "}, "name"),
    "name a number": ({"name": 7}, "name"),
    "unknown zone": ({"name": "A", "timezone": "Mars/Olympus"}, "timezone"),
    "zone a path": ({"name": "A", "timezone": "../../etc/passwd"}, "timezone"),
    "float overdraft": ({"name": "A", "overdraft_limit": 1.5}, "overdraft_limit"),
    "negative overdraft": ({"name": "A", "overdraft_limit": "-1"}, "overdraft_limit"),
    "unknown kind": ({"name": "A", "kind": "robot"}, "kind"),
    "unknown field": ({"name": "A", "credits": "7"}, "credits"),
}


@pytest.mark.parametrize("case", _BAD_ACCOUNTS)
def test_a_bad_account_is_refused_by_field(shared: Server, case: str) -> None:
    """422 naming the field."""
    fields, param = _BAD_ACCOUNTS[case]
    refused = shared.admin("POST", "/accounts", fields)
    assert (refused.status_code, refused.json()["error"]["param"]) == (422, param), refused.text


@pytest.mark.parametrize("path", ["/grants", "/keys", "/credits", ""])
@pytest.mark.parametrize("account", ["acct_" + "0" * 16, "acct_1", "nonsense", "acct_" + "f" * 16])
def test_an_unknown_account_is_404(shared: Server, account: str, path: str) -> None:
    """So is an id that could not be one."""
    assert shared.admin("GET", f"/accounts/{account}{path}").status_code == 404


def test_what_comes_later_is_refused_by_name(shared: Server, caller: Caller) -> None:
    """Another external id is not ignored."""
    refused = shared.admin("PATCH", f"/accounts/{caller.account}", {"external_id": "e"})
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "not_supported")
    assert refused.json()["error"]["param"] == "external_id"


def test_buckets_burn_in_order(shared: Server, upstream: Upstream) -> None:
    """A call is paid from the first bucket that has something, and its rest from the next."""
    caller = shared.caller("1000")
    daily = shared.done("POST", f"/accounts/{caller.account}/grants", {"bucket": "daily", "credits": "0.02"})["id"]
    upstream.says(answer())
    receipt = caller.receipt(caller.chat())
    paid = [(entry["bucket"], entry["amount"]) for entry in receipt["paid_from"]]
    assert paid == [("daily", "0.02"), ("paid", "0.021")]
    assert receipt["paid_from"][0]["grant"] == daily
    buckets = {bucket["bucket"]: bucket for bucket in caller.balance()["buckets"]}
    assert list(buckets) == ["daily", "subscription", "free", "bonus", "paid"]
    assert (buckets["daily"]["remaining"], buckets["daily"]["exhausted"], buckets["daily"]["grants"]) == ("0", 1, 1)
    assert (buckets["paid"]["remaining"], buckets["paid"]["exhausted"]) == ("999.979", 0)


def test_an_overdraft_is_spent_after_every_grant(shared: Server, upstream: Upstream) -> None:
    """With a limit of 5 and nothing granted a call passes and becomes debt."""
    account = shared.done("POST", "/accounts", {"name": "A", "overdraft_limit": "5"})["id"]
    caller = Caller(shared, account, shared.done("POST", f"/accounts/{account}/keys", {})["key"])
    upstream.says(answer())
    receipt = caller.receipt(caller.chat())
    assert (receipt["total"], receipt["debt"], receipt["paid_from"]) == ("0.041", "0.041", [])
    balance = caller.balance()
    assert (balance["available"], balance["debt"], balance["overdraft_limit"]) == ("0", "0.041", "5")
