"""What the provider takes is kept with every receipt, for operators alone."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.proxy.chats import DONE, answer, finish, usage_chunk, words
from tests.proxy.running import Caller, Server, farebox
from tests.proxy.upstream import Upstream, response, streamed

_CONFIG = """
credit: {{usd: 0.02}}
upstreams:
  main:  {{kind: openai, base_url: "{url}", provider: openai}}
  other: {{kind: openai, base_url: "{url}/other"}}
models:
  listed:  {{upstream: main/gpt-4.1-mini, max_output_tokens: 1000, price: {{cost_plus: 25%}}}}
  written:
    upstream: other/mine
    max_output_tokens: 1000
    cost: {{input_tokens: $1 / 1M, output_tokens: $3 / 1M}}
    price: {{input_tokens: 100 / 1M, output_tokens: 200 / 1M}}
  bounded:
    upstream: other/mine
    max_output_tokens: 1000
    cost: {{input_tokens: $100 / 1M, output_tokens: $3 / 1M}}
    price: {{input_tokens: 10000 / 1M, output_tokens: 10000 / 1M, min: 1, max: 1}}
  unknown: {{upstream: other/theirs, max_output_tokens: 1000, price: {{request: 1}}}}
  falls:   {{upstream: [other/broken, main/gpt-4.1-nano], max_output_tokens: 1000, price: {{request: 1}}}}
  marked:
    upstream: [{{upstream: other/broken, cost: {{request: $1}}}}, main/gpt-4.1-nano]
    max_output_tokens: 1000
    price: {{cost_plus: 100%}}
surcharges: {{web_search: 15}}
"""
_USED = {
    "prompt_tokens": 1_000_000,
    "completion_tokens": 10_000,
    "prompt_tokens_details": {"cached_tokens": 400_000},
}


@pytest.fixture(scope="module")
def config_text(running_upstream: Upstream) -> str:
    return _CONFIG.format(url=running_upstream.url)


def _shown(caller: Caller, model: str, **members: Any) -> dict[str, Any]:
    """The operator's view of a call's receipt."""
    answered = caller.chat(model, **members)
    assert answered.status_code == 200, answered.text
    shown: dict[str, Any] = caller.server.done("GET", f"/receipts/{answered.headers['x-request-id']}")
    return shown


def test_a_published_cost_and_the_margin_on_it(shared: Server, upstream: Upstream) -> None:
    """What gpt-4.1-mini takes, $0.40 of input, $0.10 where it is cached, $1.60 of output a million, and a quarter."""
    upstream.says(answer(usage=_USED))
    shown = _shown(shared.caller("1000"), "listed")
    assert shown["cost_usd"] == "0.296"
    assert shown["total"] == "18.5"
    assert shown["margin_usd"] == "0.074"
    assert [attempt["cost"] for attempt in shown["attempts"]] == ["0.296"]


def test_a_cost_that_the_operator_wrote(shared: Server, upstream: Upstream) -> None:
    """It counts in place of any list; a refund takes from the margin, not from the cost."""
    upstream.says(answer(usage=_USED))
    caller = shared.caller("1000")
    shown = _shown(caller, "written")
    assert (shown["cost_usd"], shown["total"], shown["margin_usd"]) == ("1.03", "102", "1.01")
    shared.done("POST", f"/receipts/{shown['id']}/refund", {"credits": "100", "reason": "slow"})
    again = shared.done("GET", f"/receipts/{shown['id']}")
    assert (again["cost_usd"], again["margin_usd"]) == ("1.03", "-0.99")


def test_what_nobody_knows_is_not_said(shared: Server, upstream: Upstream) -> None:
    """Of an upstream whose provider is not known; and where a search was made that the list has no price for."""
    upstream.says(answer())
    shown = _shown(shared.caller(), "unknown")
    assert (shown["cost_usd"], shown["margin_usd"]) == (None, None)
    upstream.says(answer(usage={**_USED, "server_tool_use": {"web_search_requests": 1}}))
    searched = _shown(shared.caller("1000"), "written")
    assert (searched["cost_usd"], searched["margin_usd"]) == (None, None)


def test_who_answers_takes_the_cost_and_sets_the_price(shared: Server, upstream: Upstream) -> None:
    """Whoever failed took nothing; with a margin, it is on the cost of who answered."""
    broken = response(b"{}", 500)
    usage = answer(usage={"prompt_tokens": 1_000_000, "completion_tokens": 0})
    upstream.chooses(lambda received: [broken if b'"broken"' in received.body else usage])
    shown = _shown(shared.caller("1000"), "falls")
    assert (shown["upstream_model"], shown["cost_usd"], shown["total"]) == ("gpt-4.1-nano", "0.1", "1")
    assert [attempt.get("cost") for attempt in shown["attempts"]] == [None, "0.1"]
    margin = _shown(shared.caller("1000"), "marked")
    assert (margin["cost_usd"], margin["total"], margin["margin_usd"]) == ("0.1", "10", "0.1")
    assert margin["priced_as"] == "marked@main/gpt-4.1-nano"


def test_no_caller_sees_a_cost(shared: Server, upstream: Upstream) -> None:
    """Nor a margin, nor a price that shows one: not on receipts, lists, explanations, or the list of models."""
    upstream.says(answer(usage=_USED))
    caller = shared.caller("1000")
    request = caller.chat("listed").headers["x-request-id"]
    paths = ("/v1/credits", "/v1/credits/usage", "/v1/credits/statement", "/v1/models", "/v1/credits/usage/summary")
    seen = [caller.get(path).text for path in (*paths, f"/v1/credits/receipts/{request}?explain=1")]
    for text in seen:
        assert "cost" not in text and "margin" not in text and "0.296" not in text and "25%" not in text
    shown = json.loads(seen[-1])
    assert [line["price"] for line in shown["lines"]] == ["25 / 1M", "6.25 / 1M", "100 / 1M"]


def test_margins_are_facts_of_a_simulation(server: Callable[..., Server], upstream: Upstream) -> None:
    """By model, before and after; where a cost was not kept and the draft knows it, the draft's counts."""
    running = server().start()
    upstream.says(answer(usage={"prompt_tokens": 1_000_000, "completion_tokens": 0}))
    caller = running.caller("1000")
    for model in ("listed", "written", "unknown"):
        assert caller.chat(model).status_code == 200
    draft = (
        (running.folder / "config.yaml").read_text().replace("other/theirs,", "other/theirs, cost: {request: $0.01},")
    )
    (running.folder / "new.yaml").write_text(draft.replace("input_tokens: 100 / 1M", "input_tokens: 120 / 1M"))
    ran = farebox(running.folder, "simulate", "new.yaml", "--json")
    found = json.loads(ran.stdout)
    rows = {
        row["model"]: (row["cost_usd"], row["margin_before_usd"], row["margin_after_usd"]) for row in found["by_model"]
    }
    assert rows == {"listed": ("0.4", "0.1", "0.1"), "written": ("1", "1", "1.4"), "unknown": ("0.01", "0.01", "0.01")}
    assert found["total"]["calls_without_cost"] == 0
    assert found["total"]["margin_after_usd"] == "1.51"


@pytest.mark.parametrize("tokens", [10**15, 10**18, 10**30])
def test_no_usage_is_too_large_to_be_settled(shared: Server, upstream: Upstream, tokens: int) -> None:
    """What nobody could write down is not believed, and the call is charged by Farebox's own count."""
    upstream.says(answer(usage={"prompt_tokens": tokens, "completion_tokens": 1}))
    caller = shared.caller("1000")
    for stream in (False, True):
        if stream:
            upstream.says(
                streamed(words("one"), finish(), usage_chunk({"prompt_tokens": tokens, "completion_tokens": 1}), DONE)
            )
        answered = caller.chat("bounded", stream=stream)
        assert answered.status_code == 200
        assert caller.nothing_held()
        receipt = caller.receipt(answered)
        assert receipt["status"] == "settled"
        assert receipt["total"] == "1"
