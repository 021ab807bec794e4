"""Runs: calls that share an action of their user, with bounds on all of them together and a limit of their own."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal

import httpx
import pytest

from tests.proxy.chats import answer, body_of
from tests.proxy.running import Caller, Server
from tests.proxy.upstream import Upstream

# Each call costs 3, whatever it says.
_CONFIG = """
upstreams:
  main: {{kind: openai, base_url: "{url}", api_key: operators-secret}}
models:
  three: {{upstream: main/three-1, price: {{request: 3}}}}
operations:
  editor:    {{min: 40, max: 400, per: run}}
  cheap:     {{max: 10, per: run}}
  searching: {{min: 3, per: run}}
  each:      {{min: 40}}
"""


@pytest.fixture(scope="module")
def config_text(running_upstream: Upstream) -> str:
    return _CONFIG.format(url=running_upstream.url)


def _call(caller: Caller, run: str, operation: str = "editor", **headers: str) -> httpx.Response:
    return caller.post(body_of(model="three"), X_Farebox_Run=run, X_Farebox_Operation=operation, **headers)


def test_twelve_calls_of_3_with_a_minimum_of_40_cost_40(upstream: Upstream, caller: Caller) -> None:
    """The first is raised to the minimum, and those that it covers cost nothing more; each receipt adds up."""
    upstream.says(answer())
    charged = [_call(caller, "r").headers["x-credits-charged"] for _ in range(12)]
    assert charged == ["40"] + ["0"] * 11
    rows = caller.get("/v1/credits/usage?run=r").json()["data"]
    lines = [caller.receipt(row["id"])["lines"] for row in reversed(rows)]
    assert [(line["meter"], line["amount"]) for line in lines[0]] == [("request", "3"), ("min", "37")]
    assert [(line["meter"], line["amount"]) for line in lines[1]] == [("request", "3"), ("max", "-3")]
    (total,) = caller.get("/v1/credits/usage/summary?by=run").json()["data"]
    assert total == {"key": "r", "calls": 12, "total": "40"}
    assert caller.available == "960"


def test_what_passes_the_minimum_is_charged(upstream: Upstream, caller: Caller) -> None:
    """The fourteenth call of 3 brings the run to 42, and costs 2; another run begins anew."""
    upstream.says(answer())
    charged = [_call(caller, "r").headers["x-credits-charged"] for _ in range(15)]
    assert charged == ["40", *["0"] * 12, "2", "3"]
    assert _call(caller, "other").headers["x-credits-charged"] == "40"


def test_forty_calls_from_four_connections_are_exact(upstream: Upstream, caller: Caller) -> None:
    """At once, in any order: what they cost together is what the bounds make of their sum, here the maximum of 10."""
    upstream.says(answer())
    for operation, total in (("editor", 120), ("cheap", 10)):
        with ThreadPoolExecutor(4) as pool:
            answered = list(pool.map(lambda _, op=operation: _call(caller, op, op), range(40)))
        assert [response.status_code for response in answered] == [200] * 40
        assert sum(Decimal(response.headers["x-credits-charged"]) for response in answered) == total
    assert caller.balance()["held"] == "0"
    assert caller.available == "870"


def test_without_a_run_each_call_is_one_of_its_own(upstream: Upstream, caller: Caller) -> None:
    """And bounds that are not per run are each call's in a run too."""
    upstream.says(answer())
    for _ in range(2):
        lone = caller.post(body_of(model="three"), X_Farebox_Operation="editor")
        assert lone.headers["x-credits-charged"] == "40"
        assert _call(caller, "r", "each").headers["x-credits-charged"] == "40"


def test_what_a_run_was_charged_makes_room_for_its_other_calls(shared: Server, upstream: Upstream) -> None:
    """They hold what they could add and not the minimum again, so that 43 credits pay fourteen calls."""
    upstream.says(answer())
    caller = shared.caller("43")
    assert [_call(caller, "r").status_code for _ in range(15)] == [200] * 14 + [402]
    assert caller.available == "1"
    assert _call(caller, "r").json()["error"]["needed"] == "3"


def test_a_run_may_have_a_limit(upstream: Upstream, caller: Caller) -> None:
    """What does not fit is 402 naming the run; another run is not touched, and a higher limit lets it go on."""
    upstream.says(answer())
    plain = {"X_Farebox_Run_Limit": "7"}
    answered = [_call(caller, "r", "searching", **plain) for _ in range(4)]
    assert [response.status_code for response in answered] == [200, 200, 402, 402]
    error = answered[2].json()["error"]
    assert (error["code"], error["limit"]["of"], error["limit"]["id"]) == ("spend_limit_reached", "run", "r")
    assert (error["limit"]["credits"], error["limit"]["spent"], error["resets_at"]) == ("7", "6", None)
    assert answered[2].headers["x-should-retry"] == "false"
    # The limit stands without the header too.
    assert _call(caller, "r", "searching").status_code == 402
    assert _call(caller, "other", "searching", **plain).status_code == 200
    assert _call(caller, "r", "searching", X_Farebox_Run_Limit="9").status_code == 200


@pytest.mark.parametrize(("limit", "run"), [("x", "r"), ("-1", "r"), ("1e3", "r"), ("0.0000000001", "r"), ("5", None)])
def test_a_bad_limit_of_a_run_is_refused(upstream: Upstream, caller: Caller, limit: str, run: str | None) -> None:
    """400 naming the header, before anything is held."""
    headers = {"X_Farebox_Run_Limit": limit} | ({"X_Farebox_Run": run} if run else {})
    refused = caller.post(body_of(model="three"), **headers)
    assert refused.status_code == 400
    assert refused.json()["error"]["param"] == ("X-Farebox-Run-Limit" if run else "X-Farebox-Run")
    assert not upstream.received
