"""What a price may ask of a call: where and when it is answered, its tier, how much of the web it searches.

An answer is 20 and 7 tokens, at 1 and 3 / 1k 0.041.
"""

from __future__ import annotations

from typing import Any

import pytest

from tests.proxy.chats import DONE, answer, body_of, finish, usage_chunk, words
from tests.proxy.running import Caller, Server, farebox
from tests.proxy.upstream import Received, Script, Upstream, response, streamed

_CONFIG = """
upstreams:
  main:  {{kind: openai, base_url: "{url}"}}
  eu:    {{kind: openai, base_url: "{url}", attributes: {{region: eu}}}}
  batch: {{kind: openai, base_url: "{url}", attributes: {{region: eu, service_tier: batch}}}}
models:
  here:  {{upstream: main/m, max_output_tokens: 100, price: &price {{input_tokens: 1 / 1k, output_tokens: 3 / 1k,
          factors: &factors [{{when: {{region: eu}}, multiply: 2}}, {{when: {{service_tier: batch}}, multiply: 0.5}},
          {{when: {{service_tier: flex}}, multiply: 0.1}}]}}}}
  eu:    {{upstream: eu/m, max_output_tokens: 100, price: *price}}
  batch: {{upstream: batch/m, max_output_tokens: 100, price: *price}}
  moved: {{upstream: [main/broken, eu/m], max_output_tokens: 100, price: *price}}
  quick:
    upstream: [main/m, main/n]
    max_output_tokens: 100
    price: {{input_tokens: 1 / 1k, output_tokens: 3 / 1k, factors: [{{when: {{service_tier: priority}}, multiply: 3}}]}}
  n: {{upstream: main/n, max_output_tokens: 100, price: {{input_tokens: 1 / 1k, output_tokens: 3 / 1k}}}}
  night:
    upstream: main/m
    max_output_tokens: 100
    price:
      input_tokens: [{{when: {{utc: "22:00-06:00"}}, price: 0.5 / 1k}}, {{price: 1 / 1k}}]
      output_tokens: [{{when: {{days: "sat, sun"}}, price: 2 / 1k}}, {{price: 3 / 1k}}]
surcharges:
  web_search: [{{when: {{search_context_size: high}}, price: 3}}, {{when: {{search_context_size: low}}, price: 1}},
    {{price: 2}}]
"""


@pytest.fixture(scope="module")
def config_text(running_upstream: Upstream) -> str:
    return _CONFIG.format(url=running_upstream.url)


@pytest.fixture(autouse=True)
def _answers(upstream: Upstream) -> None:
    def choose(received: Received) -> Script:
        if received.document["model"] == "broken":
            return [response(b"", 500)]
        streams = received.document.get("stream")
        return streamed(words("one"), finish(), usage_chunk(), DONE) if streams else [answer()]

    upstream.chooses(choose)


def _most(caller: Caller, body: bytes) -> str:
    content = b'{"endpoint":"/v1/chat/completions","body":' + body + b"}"
    headers = {"content-type": "application/json", **caller.headers}
    quoted = caller.server.http.post(f"{caller.server.base}/v1/credits/quote", content=content, headers=headers)
    assert quoted.status_code == 200, quoted.text
    return str(quoted.json()["most"])


@pytest.mark.parametrize(
    ("model", "tier", "total"),
    [
        ("here", None, "0.041"),
        ("eu", None, "0.082"),
        ("batch", None, "0.041"),
        ("moved", None, "0.082"),
        ("here", "flex", "0.0041"),
        ("eu", "flex", "0.0082"),
        # A tier that the request names is passed on, so it is what the provider charges.
        ("batch", "flex", "0.0082"),
        ("batch", "auto", "0.041"),
    ],
)
def test_an_upstream_has_a_region_and_a_tier(caller: Caller, model: str, tier: str | None, total: str) -> None:
    """Twice the price in the eu, half of it in batches; of who answered, where that is not who was asked first."""
    receipt = caller.receipt(caller.chat(model, service_tier=tier))
    assert (receipt["total"], receipt["estimated"]) == (total, False)
    held = caller.chat(model, service_tier=tier, stream=True, max_tokens=10).headers["x-credits-held"]
    assert held == _most(caller, body_of(model=model, service_tier=tier, stream=True, max_tokens=10))


@pytest.mark.parametrize("tier", ["priority", "scale", "batch"])
def test_a_tier_without_a_price_is_refused(upstream: Upstream, caller: Caller, tier: str) -> None:
    """400 naming it, in a quote too; nothing is held and nothing reaches the provider."""
    content = b'{"endpoint":"/v1/chat/completions","body":' + body_of(model="n", service_tier=tier) + b"}"
    headers = {"content-type": "application/json", **caller.headers}
    quoted = caller.server.http.post(f"{caller.server.base}/v1/credits/quote", content=content, headers=headers)
    for refused in (caller.chat("n", service_tier=tier), quoted):
        error = refused.json()["error"]
        assert (refused.status_code, error["code"], error["param"]) == (400, "not_supported", "service_tier")
    assert upstream.received == []
    assert caller.get("/v1/credits/usage").json()["data"] == []


def test_a_tier_is_sold_where_there_is_a_price_for_it(upstream: Upstream, caller: Caller) -> None:
    """At three times the price; who has none for it is not asked, not even when others fail."""
    assert caller.receipt(caller.chat("quick", service_tier="priority"))["total"] == "0.123"
    assert upstream.last.document["service_tier"] == "priority"
    upstream.says(response(b"", 500))
    upstream.forget()
    assert caller.chat("quick", service_tier="priority").status_code == 502
    assert len(upstream.received) == 1
    assert caller.chat("quick").status_code == 502
    assert len(upstream.received) == 3


@pytest.mark.parametrize(
    ("options", "size", "total"),
    [({}, "medium", "2"), ({"search_context_size": None}, "medium", "2"), ({"search_context_size": "low"}, "low", "1"),
     ({"search_context_size": "high"}, "high", "3")],
)  # fmt: skip
def test_a_search_is_priced_by_its_context(
    upstream: Upstream, caller: Caller, options: dict[str, Any], size: str, total: str
) -> None:
    """Medium where the request does not say; the model's own 0.041 come on top."""
    receipt = caller.receipt(caller.chat("n", web_search_options=options))
    assert receipt["total"] == f"{total}.041", size


@pytest.mark.parametrize("size", ["huge", 5, ["low"], "x" * 10_000])
def test_a_search_context_that_is_none_is_refused(upstream: Upstream, caller: Caller, size: object) -> None:
    """By name, before any hold: it is kept with the call, where nothing of a caller's own text may be."""
    refused = caller.chat("n", web_search_options={"search_context_size": size})
    assert refused.status_code == 400
    assert refused.json()["error"]["param"] == "web_search_options.search_context_size"
    assert upstream.received == []


@pytest.mark.parametrize(
    ("now", "total"),
    [
        ("2026-01-05T21:59:59Z", "0.041"),
        ("2026-01-05T22:00:00Z", "0.031"),
        ("2026-01-06T05:59:00Z", "0.031"),
        ("2026-01-06T06:00:00Z", "0.041"),
        ("2026-01-10T12:00:00Z", "0.034"),
        ("2026-01-11T23:00:00Z", "0.024"),
    ],
)
def test_the_time_is_that_of_the_account(shared: Server, now: str, total: str) -> None:
    """Half the price of input at night and two thirds of that of output on weekends, by its test clock; a quote too."""
    clock = shared.done("POST", "/clocks", {"now": now})["id"]
    account = shared.done("POST", "/accounts", {"name": "Somebody", "clock": clock})["id"]
    shared.done("POST", f"/accounts/{account}/grants", {"bucket": "paid", "credits": "1000"})
    caller = Caller(shared, account, shared.done("POST", f"/accounts/{account}/keys", {})["key"])
    answered = caller.chat("night")
    assert caller.receipt(answered)["total"] == total
    held = caller.chat("night", stream=True, max_tokens=10).headers["x-credits-held"]
    assert held == _most(caller, body_of(model="night", stream=True, max_tokens=10))
    shared.done("POST", f"/clocks/{clock}/advance", {"to": "2026-02-02T12:00:00Z"})
    # What it cost stays what it cost.
    assert farebox(shared.folder, "recompute", answered.headers["x-request-id"]).returncode == 0


def test_without_a_test_clock_the_time_is_the_servers(caller: Caller) -> None:
    """Whatever it is, the receipt recomputes."""
    answered = caller.chat("night")
    assert caller.receipt(answered)["total"] in ("0.041", "0.031", "0.034", "0.024")
    assert farebox(caller.server.folder, "recompute", answered.headers["x-request-id"]).returncode == 0
