"""Plans and their allowances, lived through on test clocks."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from typing import Any

import httpx
import pytest

from tests.proxy.chats import MESSAGES, answer, body_of
from tests.proxy.priced import edited
from tests.proxy.running import ADMIN_KEY, Caller, Server
from tests.proxy.upstream import Gate, Upstream

_CONFIG = """
top_up_url: https://example.com/credits
upstreams:
  main: {{kind: openai, base_url: "{url}", api_key: operators-secret}}
models:
  one:     {{class: standard, upstream: main/one-1, price: {{request: 1}}}}
  ten:     {{class: standard, upstream: main/ten-1, price: {{request: 10}}}}
  hundred: {{class: standard, upstream: main/hundred-1, price: {{request: 100}}}}
  deep:    {{class: advanced, upstream: main/deep-1, price: {{request: 1}}}}
  words:
    class: standard
    upstream: main/words-1
    max_output_tokens: 100
    price: {{input_tokens: 1 / 1k, output_tokens: 3 / 1k}}
plans:
  free:     {{allowances: {{daily: {daily}/day}}, models: [standard]}}
  starter:  {{price: $20/month, allowances: {{daily: 20/day, subscription: 2000/month}}}}
  super:    {{price: $180/month, allowances: {{daily: 20/day, subscription: 20000/month}}, overdraft_limit: 100}}
  calendar: {{allowances: {{subscription: 300/month}}, renews: calendar}}
default_plan: free
signup: {{bucket: free, credits: 25}}
"""


def _text(url: str, daily: str = "50") -> str:
    return _CONFIG.format(url=url, daily=daily)


@pytest.fixture(scope="module")
def config_text(running_upstream: Upstream) -> str:
    return _text(running_upstream.url)


@pytest.fixture(autouse=True)
def _answers(upstream: Upstream) -> None:
    upstream.says(answer())


class _Life:
    """An account on a test clock of its own."""

    def __init__(self, server: Server, now: str, **fields: Any) -> None:
        self.server = server
        self.clock = server.done("POST", "/clocks", {"now": now})["id"]
        self.opened = server.done("POST", "/accounts", {"name": "Ada", "clock": self.clock, **fields})
        self.account = self.opened["id"]
        self.caller = Caller(server, self.account, server.done("POST", f"/accounts/{self.account}/keys", {})["key"])

    def at(self, now: str) -> None:
        shown = self.server.done("POST", f"/clocks/{self.clock}/advance", {"to": now})
        assert shown == {"object": "clock", "id": self.clock, "now": now}

    def calls(self, model: str, times: int = 1) -> None:
        for _ in range(times):
            answered = self.caller.chat(model)
            assert answered.status_code == 200, answered.text

    def plan(self, name: str | None) -> dict[str, Any]:
        changed: dict[str, Any] = self.server.done("PATCH", f"/accounts/{self.account}", {"plan": name})
        return changed

    def preview(self, name: str | None) -> dict[str, Any]:
        shown: dict[str, Any] = self.server.done("POST", f"/accounts/{self.account}/plan/preview", {"plan": name})
        return shown

    def shows(self, **members: str | None) -> None:
        """Assert these members of the balance."""
        balance = self.caller.balance()
        assert {name: balance[name] for name in members} == members

    def bucket(self, name: str) -> dict[str, Any]:
        return next(bucket for bucket in self.caller.balance()["buckets"] if bucket["bucket"] == name)

    def allowances(self, bucket: str) -> list[dict[str, Any]]:
        """What was written of an allowance, oldest first."""
        listed = self.server.done("GET", f"/accounts/{self.account}/grants?limit=1000")["data"]
        found = [grant for grant in listed if grant["source"] == "allowance" and grant["bucket"] == bucket]
        return sorted(found, key=lambda grant: str(grant["effective_at"]))


def test_a_year(upstream: Upstream, shared: Server) -> None:
    """Thirteen months in Rome: month ends, both changes of the clocks, up and down, debt and its repayment.

    The plan gives 20 a day and 2000 a month; the daily credits burn first, then the month's, the 25 of the signup last.
    """
    # 31 January, 10:00 in Rome. 20 + 2000 + 25. The month ends on 28 February, as there is no 31st.
    life = _Life(shared, "2027-01-31T09:00:00Z", timezone="Europe/Rome", plan="starter")
    assert (life.opened["plan"], life.opened["next_plan"]) == ("starter", None)
    life.shows(available="2045", monthly_limit="2000", used="0", resets_at="2027-02-27T23:00:00Z")
    assert life.bucket("daily")["resets_at"] == "2027-01-31T23:00:00Z"
    # 30 are spent: 20 of the day, 10 of the month.
    life.calls("ten", 3)
    life.shows(available="2015", used="10")
    assert (life.bucket("daily")["remaining"], life.bucket("daily")["exhausted"]) == ("0", 1)

    # Midnight: 20 + 1990 + 25.
    life.at("2027-01-31T22:59:59Z")
    life.shows(available="2015")
    life.at("2027-01-31T23:00:00Z")
    life.shows(available="2035", monthly_limit="2000", used="10")

    # A second before the month's end 10 are spent of the day: 10 + 1990 + 25; then 20 + 2000 + 25.
    life.at("2027-02-27T22:59:59Z")
    life.calls("ten")
    life.shows(available="2025", used="10", resets_at="2027-02-27T23:00:00Z")
    life.at("2027-02-27T23:00:00Z")
    # From 28 February to 31 March: the anchor stays the 31st. Summer time has come by then: midnight is at 22:00 UTC.
    life.shows(available="2045", used="0", resets_at="2027-03-30T22:00:00Z")

    # 28 March has 23 hours. 100 are spent: 20 of the day, 80 of the month.
    life.at("2027-03-27T23:00:00Z")
    assert life.bucket("daily")["resets_at"] == "2027-03-28T22:00:00Z"
    life.calls("hundred")
    life.shows(available="1945", used="80")
    life.at("2027-03-28T21:59:59Z")
    life.shows(available="1945", used="80")
    life.at("2027-03-28T22:00:00Z")
    life.shows(available="1965", used="80")

    # 31 March to 30 April. On 10 April 500 are spent: 20 of the day, 480 of the month, 1520 + 25 are left.
    life.at("2027-04-10T12:00:00Z")
    life.shows(available="2045", used="0", resets_at="2027-04-29T22:00:00Z")
    life.calls("hundred", 5)
    life.shows(available="1545", used="480")

    # Up when 15 of the 30 days are left: (20000 - 2000) x 15 / 30 = 9000 more; 20 + 1520 + 9000 + 25.
    life.at("2027-04-14T22:00:00Z")
    previewed = life.preview("super")
    assert previewed == {
        "object": "plan_change",
        "account": life.account,
        "from": "starter",
        "to": "super",
        "effective_at": "2027-04-14T22:00:00Z",
        "immediate": True,
        "grants": [{"bucket": "subscription", "credits": "9000", "expires_at": "2027-04-29T22:00:00Z"}],
    }
    life.shows(plan="starter", available="1565")
    assert life.plan("super")["plan"] == "super"
    year = {"monthly_limit": "11000", "used": "480", "resets_at": "2027-04-29T22:00:00Z"}
    life.shows(plan="super", available="10565", overdraft_limit="100", **year)

    # Down waits for the month's end; up and down again gives nothing.
    life.at("2027-04-20T08:00:00Z")
    waits = {"plan": "starter", "at": "2027-04-29T22:00:00Z"}
    assert life.preview("starter")["immediate"] is False
    for _ in range(3):
        changed = life.plan("starter")
        assert (changed["plan"], changed["next_plan"]) == ("super", waits)
        assert life.plan("super")["next_plan"] is None
    assert life.plan("starter")["next_plan"] == waits
    life.shows(plan="super", available="10565", overdraft_limit="100", **year)
    # 200: 20 of the day, 180 of the month.
    life.calls("hundred", 2)
    life.shows(available="10365", used="660")
    life.at("2027-04-29T21:59:59Z")
    life.shows(plan="super", available="10385", used="660")
    life.at("2027-04-29T22:00:00Z")
    life.shows(plan="starter", available="2045", overdraft_limit="0", monthly_limit="2000", used="0",
               resets_at="2027-05-30T22:00:00Z")  # fmt: skip
    assert shared.done("GET", f"/accounts/{life.account}")["next_plan"] is None

    # A gift of 500: 20 + 2000 + 25 + 500 = 2545. A call that comes to 3000.02 takes it all and leaves 455.02 of debt.
    life.at("2027-05-10T12:00:00Z")
    shared.done("POST", f"/accounts/{life.account}/grants", {"bucket": "paid", "credits": "500"})
    life.shows(available="2545")
    upstream.says(answer(usage={"prompt_tokens": 20, "completion_tokens": 1_000_000, "total_tokens": 1_000_020}))
    life.calls("words")
    upstream.says(answer())
    life.shows(available="0", debt="455.02", used="2000")
    refused = life.caller.chat("hundred")
    assert (refused.status_code, refused.json()["error"]["code"]) == (402, "insufficient_credits")

    # The month's end: the day's 20 and 435.02 of the month's 2000 repay it; 1564.98 are left.
    life.at("2027-05-30T22:00:00Z")
    life.shows(available="1564.98", debt="0", monthly_limit="2000", used="435.02", resets_at="2027-06-29T22:00:00Z")
    # 0.98 more than a call costs, and no more.
    life.calls("hundred", 15)
    life.shows(available="64.98", used="1935.02")
    assert life.caller.chat("hundred").json()["error"]["fits_at"] == "2027-06-29T22:00:00Z"

    # Nobody calls until 31 October, a day of 25 hours on which a month begins too: nothing is made up for. 20 + 2000.
    life.at("2027-10-30T22:00:00Z")
    life.shows(available="2020", used="0", resets_at="2027-11-29T23:00:00Z")
    assert life.bucket("daily")["resets_at"] == "2027-10-31T23:00:00Z"
    life.calls("ten")
    life.at("2027-10-31T22:59:59Z")
    life.calls("one")
    assert life.bucket("daily")["remaining"] == "9"
    life.shows(available="2009", used="0")
    life.at("2027-10-31T23:00:00Z")
    life.shows(available="2020", used="0")

    # 31 January 2028 to 29 February, a leap year's.
    life.at("2028-01-30T23:00:00Z")
    life.shows(available="2020", used="0", resets_at="2028-02-28T23:00:00Z")
    life.calls("one")
    life.shows(available="2019")

    # What was written is one grant for each month in which anything happened, and the upgrade's share.
    months = life.allowances("subscription")
    assert [(month["granted"], month["effective_at"], month["expires_at"]) for month in months] == [
        ("2000", "2027-01-31T09:00:00Z", "2027-02-27T23:00:00Z"),
        ("2000", "2027-02-27T23:00:00Z", "2027-03-30T22:00:00Z"),
        ("2000", "2027-03-30T22:00:00Z", "2027-04-29T22:00:00Z"),
        ("9000", "2027-04-14T22:00:00Z", "2027-04-29T22:00:00Z"),
        ("2000", "2027-04-29T22:00:00Z", "2027-05-30T22:00:00Z"),
        ("2000", "2027-05-30T22:00:00Z", "2027-06-29T22:00:00Z"),
        ("2000", "2027-10-30T22:00:00Z", "2027-11-29T23:00:00Z"),
        ("2000", "2028-01-30T23:00:00Z", "2028-02-28T23:00:00Z"),
    ]  # fmt: skip
    shared.audit()


async def test_a_hundred_first_calls_after_midnight_get_one_allowance(upstream: Upstream, shared: Server) -> None:
    """However many calls find a new day at once, it is given once: of 50 credits 50 calls are paid, the 25 of the
    signup pay 25 more, and 25 calls are refused."""
    life = _Life(shared, "2027-06-01T12:00:00Z", timezone="Europe/Rome")
    life.at("2027-06-01T22:00:01Z")
    limits = httpx.Limits(max_connections=100)
    async with httpx.AsyncClient(timeout=20, limits=limits) as client:
        answers = await asyncio.gather(
            *(
                client.post(life.caller.url, content=body_of(model="one"), headers=life.caller.headers)
                for _ in range(100)
            )
        )
    assert sorted(answered.status_code for answered in answers) == [200] * 75 + [402] * 25
    life.shows(available="0", held="0", debt="0")
    assert [grant["effective_at"] for grant in life.allowances("daily")] == [
        "2027-06-01T12:00:00Z",
        "2027-06-01T22:00:00Z",
    ]
    rows = life.caller.get("/v1/credits/statement?limit=1000").json()["data"]
    granted = [(row["bucket"], row["amount"]) for row in rows if row["type"] == "grant"]
    assert sorted(granted) == [("daily", "50"), ("daily", "50"), ("free", "25")]
    assert sum(Decimal(row["amount"]) for row in rows if row["type"] == "charge") == -75
    assert [row["amount"] for row in rows if row["type"] == "expiry"] == ["-50"]
    shared.audit()


def test_a_model_outside_the_plan(upstream: Upstream, shared: Server) -> None:
    """Is refused with the plans that have it, by the call and by the quote, and reaches no provider."""
    caller = shared.caller("5")
    refused = caller.chat("deep")
    assert refused.status_code == 403
    error = refused.json()["error"]
    assert (error["code"], error["param"], error["plan"]) == ("model_not_in_plan", "model", "free")
    assert error["plans"] == ["starter", "super", "calendar"]
    assert "starter" in error["message"].lower()
    body = {"endpoint": "/v1/chat/completions", "body": {"model": "deep", "messages": MESSAGES}}
    quoted = shared.http.post(f"{shared.base}/v1/credits/quote", json=body, headers=caller.headers)
    assert quoted.status_code == 403
    same = quoted.json()["error"]
    assert {k: v for k, v in same.items() if k != "request_id"} == {k: v for k, v in error.items() if k != "request_id"}
    assert upstream.received == []
    shared.done("PATCH", f"/accounts/{caller.account}", {"plan": "starter"})
    assert caller.chat("deep").status_code == 200


def test_without_a_plan(shared: Server) -> None:
    """`plan: null` is no plan, also where there is a default; it renews nothing and leaves out no model."""
    life = _Life(shared, "2027-06-01T12:00:00Z", plan=None)
    assert life.opened["plan"] is None
    life.shows(plan=None, available="25", monthly_limit=None, used=None, resets_at=None)
    assert {bucket["resets_at"] for bucket in life.caller.balance()["buckets"]} == {None}
    life.calls("deep")
    life.at("2027-08-01T12:00:00Z")
    life.shows(available="24")
    refused = life.caller.chat("hundred").json()["error"]
    assert (refused["code"], refused["fits_at"]) == ("insufficient_credits", None)


def test_leaving_a_plan_waits_for_its_end(shared: Server) -> None:
    """No plan is less than any: what was paid for is kept to the month's end, and nothing comes after."""
    life = _Life(shared, "2027-06-10T12:00:00Z", plan="starter")
    left = life.plan(None)
    assert (left["plan"], left["next_plan"]) == ("starter", {"plan": None, "at": "2027-07-10T00:00:00Z"})
    life.at("2027-07-09T23:59:59Z")
    life.shows(plan="starter", available="2045")
    life.at("2027-07-10T00:00:00Z")
    life.shows(plan=None, available="25", monthly_limit=None, resets_at=None)
    assert shared.done("GET", f"/accounts/{life.account}")["plan"] is None


def test_the_balance_is_as_documented(shared: Server) -> None:
    """Every member of the contract's example, and the figures of its kind."""
    life = _Life(shared, "2026-12-01T00:00:00Z", timezone="Europe/Rome", plan="starter")
    life.calls("hundred", 4)
    balance = life.caller.balance()
    grants = balance.pop("grants")
    buckets = {bucket["bucket"]: bucket for bucket in balance.pop("buckets")}
    assert balance == {
        "object": "credits.balance",
        "account": life.account,
        "plan": "starter",
        "timezone": "Europe/Rome",
        "usd_per_credit": "0.01",
        "available": "1645",
        "held": "0",
        "debt": "0",
        "overdraft_limit": "0",
        "low": False,
        "monthly_limit": "2000",
        "used": "380",
        "resets_at": "2026-12-31T23:00:00Z",
        "limits": [],
    }
    assert buckets["daily"] == {
        "bucket": "daily",
        "title": "Daily",
        "remaining": "0",
        "held": "0",
        "granted": "20",
        "grants": 1,
        "exhausted": 1,
        "resets_at": "2026-12-01T23:00:00Z",
    }
    assert buckets["subscription"] == {
        "bucket": "subscription",
        "title": "Subscription",
        "remaining": "1620",
        "held": "0",
        "granted": "2000",
        "grants": 1,
        "exhausted": 0,
        "resets_at": "2026-12-31T23:00:00Z",
    }
    assert (buckets["free"]["remaining"], buckets["free"]["resets_at"]) == ("25", None)
    month = next(grant for grant in grants if grant["bucket"] == "subscription")
    assert month["id"].startswith("grant_")
    assert {name: value for name, value in month.items() if name != "id"} == {
        "object": "credits.grant",
        "bucket": "subscription",
        "source": "allowance",
        "note": None,
        "paid": True,
        "granted": "2000",
        "remaining": "1620",
        "held": "0",
        "burns": 1,
        "effective_at": "2026-12-01T00:00:00Z",
        "expires_at": "2026-12-31T23:00:00Z",
        "created_at": "2026-12-01T00:00:00Z",
    }
    signup = next(grant for grant in grants if grant["bucket"] == "free")
    assert (signup["source"], signup["paid"], signup["burns"]) == ("signup", False, 2)


def test_what_is_read_is_what_will_be_written(shared: Server) -> None:
    """A renewal that nobody has written yet is shown with the id that the next call writes."""
    life = _Life(shared, "2027-06-10T12:00:00Z", plan="starter")
    life.at("2027-07-12T05:00:00Z")
    shown = {grant["id"]: grant for grant in life.caller.balance()["grants"]}
    assert len(life.allowances("subscription")) == 1
    assert [g["effective_at"] for g in shown.values() if g["bucket"] == "subscription"] == ["2027-07-10T00:00:00Z"]
    assert [g["effective_at"] for g in shown.values() if g["bucket"] == "daily"] == ["2027-07-12T00:00:00Z"]
    answered = life.caller.chat("hundred")
    receipt = life.caller.receipt(answered)
    assert {(paid["bucket"], paid["amount"]) for paid in receipt["paid_from"]} == {
        ("daily", "20"),
        ("subscription", "80"),
    }
    assert {paid["grant"] for paid in receipt["paid_from"]} <= shown.keys()
    assert life.allowances("subscription")[-1]["id"] in shown
    assert life.allowances("daily")[-1]["id"] in shown


def test_a_change_of_zone_waits_for_the_boundary(shared: Server) -> None:
    """However often the zone changes, the day that is on ends when it would have, and no day is given twice."""
    life = _Life(shared, "2027-06-01T12:00:00Z", timezone="Europe/Rome")
    life.calls("ten")
    path = f"/accounts/{life.account}"
    for zone in ("Pacific/Kiritimati", "Pacific/Pago_Pago", "Asia/Tokyo"):
        assert shared.done("PATCH", path, {"timezone": zone})["timezone"] == zone
        # 40 + 25; Rome's midnight is at 22:00 UTC.
        life.shows(available="65", timezone=zone)
        assert life.bucket("daily")["resets_at"] == "2027-06-01T22:00:00Z"
    # Tokyo's 2 June began at 15:00 UTC; the day of Rome is still on.
    life.at("2027-06-01T21:00:00Z")
    life.shows(available="65")
    # It is 07:00 of 2 June in Tokyo when Rome's day ends: this is 2 June, until 15:00 UTC.
    life.at("2027-06-01T22:00:00Z")
    life.shows(available="75")
    life.calls("ten")
    assert life.bucket("daily")["resets_at"] == "2027-06-02T15:00:00Z"
    # Back to where it is 1 June yet: the day of 2 June is not given again.
    shared.done("PATCH", path, {"timezone": "Pacific/Pago_Pago"})
    life.at("2027-06-02T14:59:59Z")
    life.shows(available="65")
    # In Pago Pago it is 04:00 of 2 June, which was given: 3 June it is, to its end at 11:00 UTC of the 4th.
    life.at("2027-06-02T15:00:00Z")
    life.shows(available="75")
    assert life.bucket("daily")["resets_at"] == "2027-06-04T11:00:00Z"
    life.calls("one")
    assert len(life.allowances("daily")) == 3


def test_an_edited_plan_changes_the_next_period_only(server: Any, config_text: str, upstream: Upstream) -> None:
    """What was given stays as it was given; the next day gives what the plan gives by then."""
    running = server().start()
    life = _Life(running, "2027-06-01T12:00:00Z")
    life.calls("ten")
    edited(running, _text(upstream.url, daily="70"))
    # 40 + 25; then 70 + 25.
    life.shows(available="65", monthly_limit="50", used="10")
    life.calls("one")
    life.shows(available="64", monthly_limit="50", used="11")
    life.at("2027-06-02T00:00:00Z")
    life.shows(available="95", monthly_limit="70", used="0")
    edited(running, _text(upstream.url, daily="5"))
    # Nobody has touched this day yet, so nothing was given: it gives what the plan gives when it is touched.
    life.shows(available="30", monthly_limit="5")
    life.calls("one")
    life.shows(available="29", used="1")
    running.audit()


def test_calendar_months(shared: Server) -> None:
    """`renews: calendar` begins months on the 1st, whenever the account came."""
    life = _Life(shared, "2027-06-20T12:00:00Z", timezone="Europe/Rome", plan="calendar")
    life.shows(available="325", monthly_limit="300", resets_at="2027-06-30T22:00:00Z")
    life.calls("hundred")
    life.at("2027-06-30T22:00:00Z")
    life.shows(available="325", used="0", resets_at="2027-07-31T22:00:00Z")


def test_fits_at_is_a_promise(shared: Server) -> None:
    """A call that renewals will make fit says when: not a second before, and then it fits."""
    life = _Life(shared, "2027-06-10T12:00:00Z", timezone="Europe/Rome")
    life.calls("one", 70)
    # 5 are left of the signup's, and 50 come at midnight.
    refused = life.caller.chat("ten")
    assert refused.headers["x-should-retry"] == "false"
    assert refused.json()["error"]["fits_at"] == "2027-06-10T22:00:00Z"
    assert life.caller.chat("hundred").json()["error"]["fits_at"] is None
    life.at("2027-06-10T21:59:59Z")
    assert life.caller.chat("ten").status_code == 402
    life.at("2027-06-10T22:00:00Z")
    life.calls("ten")


def test_fits_at_with_debt_is_a_promise(upstream: Upstream, shared: Server) -> None:
    """It counts what will have been given by then to who comes back at that time and not before."""
    life = _Life(shared, "2027-06-10T12:00:00Z")
    # 50 + 25 are taken, and 125.02 are owed: a day's 50 repays 50.
    upstream.says(answer(usage={"prompt_tokens": 20, "completion_tokens": 66_668, "total_tokens": 66_688}))
    life.calls("words")
    upstream.says(answer())
    assert life.caller.balance()["debt"] == "125.024"
    fits_at = life.caller.chat("one").json()["error"]["fits_at"]
    # Days that nobody touches are not made up for, so one day's 50 never repays it and there is no such time.
    assert fits_at is None


def test_an_overdraft_of_the_account_goes_before_the_plans(shared: Server) -> None:
    """Without one of its own an account has its plan's."""
    life = _Life(shared, "2027-06-10T12:00:00Z", plan="super")
    life.shows(overdraft_limit="100", available="20045")
    own = _Life(shared, "2027-06-10T12:00:00Z", plan="super", overdraft_limit="0")
    own.shows(overdraft_limit="0")
    # Null gives the plan's back.
    shared.done("PATCH", f"/accounts/{own.account}", {"overdraft_limit": None})
    own.shows(overdraft_limit="100")
    shared.done("PATCH", f"/accounts/{own.account}", {"overdraft_limit": "0"})
    own.shows(overdraft_limit="0")
    free = _Life(shared, "2027-06-10T12:00:00Z", overdraft_limit="30")
    free.shows(overdraft_limit="30", available="75")
    # 75 + 30 pay for one call of 100; 25 are owed then, and of 30 5 are left.
    free.calls("hundred")
    free.shows(available="0", debt="25")
    assert free.caller.chat("ten").status_code == 402
    free.calls("one", 5)
    free.shows(debt="30")
    assert free.caller.chat("one").status_code == 402
    # The next day's 50 repays it.
    free.at("2027-06-11T00:00:00Z")
    free.shows(available="20", debt="0")


def test_clocks_do_not_touch_each_other(shared: Server) -> None:
    """Nor anybody who is on none."""
    one = _Life(shared, "2027-06-10T12:00:00Z")
    two = _Life(shared, "2030-06-10T12:00:00Z")
    real = shared.caller(None)
    for each in (one.caller, two.caller, real):
        assert each.chat("ten").status_code == 200
    one.at("2027-06-11T00:00:00Z")
    one.shows(available="75")
    two.shows(available="65")
    assert shared.done("GET", f"/clocks/{two.clock}")["now"] == "2030-06-10T12:00:00Z"
    assert one.caller.balance()["grants"][0]["effective_at"] == "2027-06-11T00:00:00Z"
    assert two.caller.balance()["grants"][0]["effective_at"] == "2030-06-10T12:00:00Z"
    assert not real.balance()["grants"][0]["effective_at"].startswith(("2027-06", "2030"))


def test_a_clock_goes_forward_only(shared: Server) -> None:
    """Back is refused and changes nothing; to where it stands is no change."""
    clock = shared.done("POST", "/clocks", {"now": "2027-06-10T12:00:00Z"})
    path = f"/clocks/{clock['id']}"
    back = shared.admin("POST", f"{path}/advance", {"to": "2027-06-10T11:59:59Z"})
    assert (back.status_code, back.json()["error"]["param"]) == (422, "to")
    assert shared.done("GET", path) == clock
    assert shared.done("POST", f"{path}/advance", {"to": "2027-06-10T12:00:00Z"}) == clock
    assert shared.admin("GET", "/clocks/clock_nothing").status_code == 404
    assert shared.admin("POST", "/clocks/clock_nothing/advance", {"to": "2027-06-10T12:00:00Z"}).status_code == 404


@pytest.mark.parametrize(
    ("path", "fields", "param"),
    [
        ("/accounts", {"name": "A", "plan": "gold"}, "plan"),
        ("/accounts", {"name": "A", "plan": 5}, "plan"),
        ("/accounts", {"name": "A", "clock": "clock_nothing"}, "clock"),
        ("/accounts/{id}/plan/preview", {"plan": "gold"}, "plan"),
        ("/clocks", {}, "now"),
        ("/clocks", {"now": "tomorrow"}, "now"),
        ("/clocks", {"now": "1999-01-01T00:00:00Z"}, "now"),
        ("/accounts/{id}/keys", {"limit": {"credits": "5", "per": "week"}}, "limit"),
        ("/accounts/{id}/keys", {"limit": {"credits": "5"}}, "limit"),
        ("/accounts/{id}/keys", {"limit": {"per": "day"}}, "limit"),
        ("/accounts/{id}/keys", {"limit": {"credits": "-5", "per": "day"}}, "limit"),
        ("/accounts/{id}/keys", {"limit": {"credits": 1.5, "per": "day"}}, "limit"),
        ("/accounts/{id}/keys", {"limit": {"credits": "5", "per": "day", "of": "me"}}, "limit"),
        ("/accounts/{id}/keys", {"limit": {"credits": "5", "per": ["day"]}}, "limit"),
        ("/accounts/{id}/keys", {"limit": "5"}, "limit"),
    ],
)
def test_what_is_not_understood_is_refused(shared: Server, path: str, fields: dict[str, Any], param: str) -> None:
    """With 422 and the field's name."""
    account = shared.done("POST", "/accounts", {"name": "A"})["id"]
    refused = shared.admin("POST", path.format(id=account), fields)
    assert (refused.status_code, refused.json()["error"]["param"]) == (422, param), refused.text


def test_an_unknown_plan_changes_nothing(shared: Server) -> None:
    """The whole command is refused, and the known plans are listed."""
    account = shared.done("POST", "/accounts", {"name": "A"})
    path = f"/accounts/{account['id']}"
    refused = shared.admin("PATCH", path, {"plan": "gold", "timezone": "Europe/Rome", "name": "B"})
    assert (refused.status_code, refused.json()["error"]["param"]) == (422, "plan")
    assert "free, starter, super, calendar" in refused.json()["error"]["message"]
    assert shared.done("GET", path) == account


@pytest.mark.parametrize(("broken", "available"), [(False, "1965"), (True, "2045")])
def test_a_call_over_midnight(upstream: Upstream, shared: Server, broken: bool, available: str) -> None:
    """Is paid by the day on which it began, and what it does not need of that day is gone with the day.

    It holds 20 of the day and 80 of the month. Charged it leaves the new day's 20, 1920 and the signup's 25; where it
    fails, the new day's 20, 2000 and 25.
    """
    life = _Life(shared, "2027-06-10T21:59:00Z", timezone="Europe/Rome", plan="starter")
    gate = Gate()
    failure = b"HTTP/1.1 500 Broken\r\ncontent-length: 0\r\n\r\n"
    upstream.says(gate, failure if broken else answer())
    with ThreadPoolExecutor(1) as thread:
        call = thread.submit(life.caller.chat, "hundred")
        try:
            gate.reached()
            life.shows(available="1945", held="100")
            life.at("2027-06-10T22:05:00Z")
            # What it holds of the day that is gone comes back to nobody, so it is not shown as held.
            life.shows(available="1965", held="80")
        finally:
            gate.open()
        answered = call.result()
    assert answered.status_code == (502 if broken else 200)
    life.shows(available=available, held="0")
    if not broken:
        assert answered.headers["x-credits-available"] == available
        paid = [(leg["bucket"], leg["amount"]) for leg in life.caller.receipt(answered)["paid_from"]]
        assert paid == [("daily", "20"), ("subscription", "80")]
    assert life.bucket("daily")["remaining"] == "20"


async def test_an_upgrade_asked_for_often_is_given_once(shared: Server) -> None:
    """Twenty at once, and up again after each change of mind: 15 of 30 days are left, so 9000 come, once."""
    life = _Life(shared, "2027-04-01T00:00:00Z", plan="starter")
    life.at("2027-04-16T00:00:00Z")
    headers = {"authorization": f"Bearer {ADMIN_KEY}"}
    url = f"{shared.base}/admin/v1/accounts/{life.account}"
    async with httpx.AsyncClient(timeout=20, headers=headers) as client:
        plans = ["super", "starter", "super", "free", "super"] * 4
        answers = await asyncio.gather(*(client.patch(url, json={"plan": plan}) for plan in plans))
    assert {answered.status_code for answered in answers} == {200}
    assert life.plan("super")["next_plan"] is None
    assert [grant["granted"] for grant in life.allowances("subscription")] == ["2000", "9000"]
    life.shows(available="11045", monthly_limit="11000", used="0")
    life.at("2027-05-01T00:00:00Z")
    life.shows(available="20045", monthly_limit="20000")


def test_what_is_written_carries_the_clocks_time(shared: Server) -> None:
    """Receipts, statements and lists by time follow the account's clock, and so does what expires."""
    life = _Life(shared, "2027-06-10T12:00:00Z")
    path = f"/accounts/{life.account}/grants"
    refused = shared.admin("POST", path, {"bucket": "paid", "credits": 5, "expires_at": "2027-06-10T12:00:00Z"})
    assert (refused.status_code, refused.json()["error"]["param"]) == (422, "expires_at")
    shared.done("POST", path, {"bucket": "paid", "credits": 5, "expires_at": "2027-06-11T12:00:00Z"})
    first = life.caller.chat("one")
    assert life.caller.receipt(first)["created_at"] == "2027-06-10T12:00:00Z"
    life.at("2027-06-11T12:00:00Z")
    # 50 + 25: the 5 have just expired.
    life.shows(available="75")
    second = life.caller.chat("one")
    assert life.caller.receipt(second)["settled_at"] == "2027-06-11T12:00:00Z"
    listed = life.caller.get("/v1/credits/usage?since=2027-06-11T00:00:00Z&until=2027-06-12T00:00:00Z").json()["data"]
    assert [row["id"] for row in listed] == [second.headers["x-request-id"]]
    days = life.caller.get("/v1/credits/usage/summary?by=day").json()["data"]
    assert ("2027-06-11", "1") in [(day["key"], day["total"]) for day in days]
    rows = life.caller.get("/v1/credits/statement").json()["data"]
    assert {row["at"] for row in rows if row["type"] == "charge"} == {"2027-06-10T12:00:00Z", "2027-06-11T12:00:00Z"}
    assert sorted(row["amount"] for row in rows if row["type"] == "expiry") == ["-49", "-5"]


def test_suspension_and_closing(shared: Server) -> None:
    """A suspended account is renewed, it may not call; a closed one is not renewed."""
    life = _Life(shared, "2027-06-10T12:00:00Z")
    path = f"/accounts/{life.account}"
    life.calls("ten")
    shared.done("PATCH", path, {"status": "suspended"})
    life.at("2027-06-11T00:00:00Z")
    assert life.caller.chat("one").json()["error"]["code"] == "account_suspended"
    shared.done("PATCH", path, {"status": "active"})
    life.shows(available="75")
    shared.done("PATCH", path, {"status": "closed"})
    life.at("2027-06-12T00:00:00Z")
    assert shared.done("GET", f"{path}/credits")["available"] == "25"
    assert len(life.allowances("daily")) == 2


def test_a_closed_account_keeps_its_plan(shared: Server) -> None:
    """Changing or previewing it is 409, and gives nothing; closing and changing in one command is carried out."""
    account = shared.done("POST", "/accounts", {"name": "Gone", "plan": "free"})["id"]
    closed = shared.done("PATCH", f"/accounts/{account}", {"status": "closed", "plan": "starter"})
    assert (closed["status"], closed["plan"]) == ("closed", "starter")
    before = shared.done("GET", f"/accounts/{account}/grants")["data"]
    for method, path in (("PATCH", f"/accounts/{account}"), ("POST", f"/accounts/{account}/plan/preview")):
        refused = shared.admin(method, path, {"plan": "super"})
        assert (refused.status_code, refused.json()["error"]["code"]) == (409, "account_closed")
    assert shared.done("GET", f"/accounts/{account}/grants")["data"] == before


def test_accounts_are_found_by_plan(shared: Server) -> None:
    """As of their own time: one whose change has come due is on its new plan, though nothing happened in it since."""
    lives = [_Life(shared, "2026-03-01T00:00:00Z", plan="super", email=f"{n}@plan.example") for n in range(3)]
    shared.done("PATCH", f"/accounts/{lives[1].account}", {"plan": "starter"})

    def on(plan: str, more: str = "") -> list[str]:
        rows: list[dict[str, Any]] = []
        after = ""
        while True:
            listed = shared.done("GET", f"/accounts?plan={plan}&query=plan.example&limit=2{more}{after}")
            rows += listed["data"]
            assert {row["plan"] for row in rows} <= {plan}
            if not listed["has_more"]:
                return [row["id"] for row in rows]
            after = f"&after={listed['next']}"

    assert on("super") == [life.account for life in reversed(lives)]
    assert on("starter") == []
    lives[1].at("2026-04-01T00:00:00Z")
    assert on("super") == [lives[2].account, lives[0].account]
    assert on("starter") == [lives[1].account]
    assert on("nothing") == []
