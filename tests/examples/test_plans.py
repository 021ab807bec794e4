"""What new accounts of the platforms have, as their published lists say, asked for over HTTP."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.examples.lists import EXAMPLES
from tests.proxy.running import Caller, Server

OPENED = "2027-01-15T12:00:00Z"


@dataclass(frozen=True)
class Offer:
    """A line of a platform's list. plan: None for whom nobody puts on one; on: the plan that it then is.

    buckets: what each that is not empty has; monthly, resets_at: of the plan's longest period.
    """

    platform: str
    plan: str | None
    on: str | None
    available: str
    buckets: Mapping[str, str] = field(default_factory=dict)
    overdraft_limit: str = "0"
    monthly: str | None = None
    resets_at: str | None = None


TOMORROW, THE_FIRST, ANNIVERSARY = "2027-01-16T00:00:00Z", "2027-02-01T00:00:00Z", "2027-02-15T00:00:00Z"
BUILDER = {"daily": "5", "subscription": "2500", "bonus": "20"}
PUBLISHED = [
    Offer("daily-subscription-bonus", None, "free", "25", {"daily": "5", "bonus": "20"}, "0", "5", TOMORROW),
    Offer("daily-subscription-bonus", "pro", "pro", "2525", BUILDER, "0", "2500", ANNIVERSARY),
    Offer("daily-subscription-bonus", "yearly", "yearly", "2525", BUILDER, "0", "2500", ANNIVERSARY),
    Offer("dollars", None, "metered", "5", {"free": "5"}, overdraft_limit="5"),
    Offer("monthly-packs", None, "hobby", "50", {"monthly": "50"}, "0", "50", ANNIVERSARY),
    Offer("monthly-packs", "pro", "pro", "1000", {"monthly": "1000"}, "0", "1000", ANNIVERSARY),
    Offer("monthly-packs", "team", "team", "2200", {"monthly": "2200"}, "0", "2200", THE_FIRST),
    Offer("operations", None, None, "0"),
    Offer("operations", "creator", "creator", "30000", {"subscription": "30000"}, "0", "30000", ANNIVERSARY),
    Offer("request-units", None, None, "20", {"free": "20"}),
]


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Server]]:
    """Finds the running server of a platform, which has no provider's key."""
    servers: dict[str, Server] = {}

    def serve(platform: str) -> Server:
        if platform not in servers:
            folder = tmp_path_factory.mktemp(platform)
            shutil.copy(EXAMPLES / platform / "config.yaml", folder)
            servers[platform] = Server(folder, OTHER_API_KEY="")
            servers[platform].start()
        return servers[platform]

    yield serve
    try:
        for server in servers.values():
            assert server.stop() == 0
            server.audit()
    finally:
        for server in servers.values():
            server.close()


class _Life:
    """A new account on a test clock of its own."""

    def __init__(self, server: Server, plan: str | None) -> None:
        self._server = server
        self._clock = server.done("POST", "/clocks", {"now": OPENED})["id"]
        named = {} if plan is None else {"plan": plan}
        self.account = server.done("POST", "/accounts", {"name": "Ada", "clock": self._clock, **named})["id"]
        self.caller = Caller(server, self.account, server.done("POST", f"/accounts/{self.account}/keys", {})["key"])

    def at(self, now: str) -> None:
        self._server.done("POST", f"/clocks/{self._clock}/advance", {"to": now})

    def asks(self, times: int) -> None:
        """Make calls of the model that needs no key."""
        for _ in range(times):
            answered = self.caller.chat("demo")
            assert answered.status_code == 200, answered.text

    def has(self, available: str, **buckets: str) -> None:
        """Assert what is available, and what remains in each bucket that is not empty."""
        balance = self.caller.balance()
        assert (balance["available"], _remaining(balance)) == (available, buckets)


def _remaining(balance: Mapping[str, Any]) -> dict[str, str]:
    return {row["bucket"]: row["remaining"] for row in balance["buckets"] if row["remaining"] != "0"}


@pytest.mark.parametrize("offer", PUBLISHED, ids=lambda offer: f"{offer.platform}-{offer.on}")
def test_a_new_account_has_what_is_published(serving: Callable[[str], Server], offer: Offer) -> None:
    """Plan, credits by bucket, what comes by the period and when anew, and how far it may go below zero."""
    balance = _Life(serving(offer.platform), offer.plan).caller.balance()
    assert (balance["plan"], balance["available"], _remaining(balance)) == (offer.on, offer.available, offer.buckets)
    assert (balance["monthly_limit"], balance["resets_at"]) == (offer.monthly, offer.resets_at)
    assert (balance["overdraft_limit"], balance["debt"], balance["held"]) == (offer.overdraft_limit, "0", "0")


def test_the_builders_days_and_months(serving: Callable[[str], Server]) -> None:
    """Daily credits burn first and come anew at midnight, the subscription's by the month; 20 more are for 90 days."""
    life = _Life(serving("daily-subscription-bonus"), "pro")
    life.asks(7)
    life.has("2518", subscription="2498", bonus="20")
    life.at("2027-01-15T23:59:59Z")
    life.has("2518", subscription="2498", bonus="20")
    life.at("2027-01-16T00:00:00Z")
    life.has("2523", daily="5", subscription="2498", bonus="20")
    life.asks(1)
    life.has("2522", daily="4", subscription="2498", bonus="20")
    # What is left of a day is not added to the next one's.
    life.at("2027-01-17T00:00:00Z")
    life.has("2523", daily="5", subscription="2498", bonus="20")
    life.at("2027-02-15T00:00:00Z")
    life.has("2525", daily="5", subscription="2500", bonus="20")
    # 90 days from 15 January at noon.
    life.at("2027-04-15T11:59:59Z")
    life.has("2525", daily="5", subscription="2500", bonus="20")
    life.at("2027-04-15T12:00:00Z")
    life.has("2505", daily="5", subscription="2500")


def test_the_teams_month_begins_on_the_first(serving: Callable[[str], Server]) -> None:
    """A first month that is not whole is given in full, and the next begins with the calendar's."""
    server = serving("monthly-packs")
    life = _Life(server, "team")
    server.done("POST", f"/accounts/{life.account}/adjust", {"credits": "-1200", "reason": "used"})
    life.has("1000", monthly="1000")
    life.at("2027-01-31T23:59:59Z")
    life.has("1000", monthly="1000")
    life.at("2027-02-01T00:00:00Z")
    life.has("2200", monthly="2200")


def test_an_owner_of_dollars_may_owe(serving: Callable[[str], Server]) -> None:
    """The limit of the plan holds unless the account has one of its own."""
    server = serving("dollars")
    own = server.done("POST", "/accounts", {"name": "Bea", "overdraft_limit": "20"})
    assert (own["plan"], own["overdraft_limit"]) == ("metered", "20")
    life = _Life(server, None)
    server.done("POST", f"/accounts/{life.account}/adjust", {"credits": "-8", "reason": "used"})
    balance = life.caller.balance()
    assert (balance["available"], balance["debt"], balance["overdraft_limit"]) == ("0", "3", "5")
