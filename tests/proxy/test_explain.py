"""`?explain=1`: a receipt in words, what its input was made of, and the same call on the other models."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.proxy.chats import DONE, answer, finish, usage_chunk, words
from tests.proxy.leavers import Leaver
from tests.proxy.priced import edited, priced
from tests.proxy.running import Caller, Server
from tests.proxy.upstream import Gate, Upstream, streamed

_PLANS = """
plans:
  some: {models: [words, least, plain]}
  all:  {}
"""


@pytest.fixture(scope="module")
def config_text(running_upstream: Upstream) -> str:
    return priced(running_upstream.url, more=_PLANS)


def _explained(caller: Caller, answered: Any) -> dict[str, Any]:
    receipt = caller.get(f"/v1/credits/receipts/{answered.headers['x-request-id']}?explain=1")
    assert receipt.status_code == 200, receipt.text
    found: dict[str, Any] = receipt.json()
    explanation: dict[str, Any] = found.pop("explanation")
    assert found == caller.receipt(answered)
    return explanation


def test_each_line_is_said_in_words(upstream: Upstream, caller: Caller) -> None:
    """What was used, at which price, what it came to; what a bound added; and what paid for it."""
    upstream.says(answer())
    explained = _explained(caller, caller.chat("words"))
    assert explained["object"] == "credits.explanation"
    assert [line["words"] for line in explained["lines"]] == [
        "20 input tokens at 1 / 1k: 0.02 credits",
        "7 output tokens at 3 / 1k: 0.021 credits",
        "raised to the least that such a call costs, 0.05: 0.009 credits more",
    ]
    assert explained["summary"] == [
        "0.05 credits for a call of words.",
        "It was answered by words-1.",
        "Paid: 0.05 from Paid.",
    ]


def test_the_same_call_on_the_other_models_of_the_plan(shared: Server, upstream: Upstream) -> None:
    """From the receipt's own prices, cheapest first; models that the plan does not have are left out."""
    edited(shared, priced(upstream.url, more=_PLANS))
    upstream.says(answer())
    caller = shared.caller("100")
    answered = caller.chat("plain")
    every = [("other", "0.03"), ("deep", "0.041"), ("words", "0.05"), ("least", "0.05")]
    assert sorted((each["model"], each["total"]) for each in _explained(caller, answered)["others"]) == sorted(every)
    shared.done("PATCH", f"/accounts/{caller.account}", {"plan": "some"})
    some = [(each["model"], each["total"]) for each in _explained(caller, answered)["others"]]
    assert sorted(some) == [("least", "0.05"), ("words", "0.05")]
    before = _explained(caller, answered)
    edited(shared, priced(upstream.url, "{input_tokens: 9 / 1k, output_tokens: 9 / 1k}", _PLANS))
    assert _explained(caller, answered) == before
    # What it would cost now is what such a call is charged now.
    for each in _explained(caller, caller.chat("plain"))["others"]:
        assert caller.receipt(caller.chat(each["model"]))["total"] == each["total"]
    edited(shared, priced(upstream.url, more=_PLANS))


def test_what_the_input_was_made_of(upstream: Upstream, caller: Caller) -> None:
    """By role and kind, in tokens that add up to the input; by the length of the texts where nothing was counted."""
    upstream.says(answer(usage={"prompt_tokens": 1000, "completion_tokens": 1}))
    messages = [
        {"role": "system", "content": "s" * 400},
        {"role": "user", "content": [{"type": "text", "text": "u" * 400}]},
        {"role": "assistant", "content": "a" * 100},
        {"role": "user", "content": "u" * 100},
    ]
    body = {"model": "plain", "messages": messages, "max_tokens": 10}
    explained = _explained(caller, caller.post(json.dumps(body).encode()))
    assert explained["input_counted"] is False
    assert [(part["role"], part["kind"], part["tokens"]) for part in explained["input"]] == [
        ("user", "text", "500"),
        ("system", "text", "400"),
        ("assistant", "text", "100"),
    ]


async def test_what_was_cut_short_is_said(upstream: Upstream, caller: Caller) -> None:
    """Who left pays for what had arrived, counted here; a call that is still running has no price yet."""
    gate = Gate()
    upstream.says(streamed(words("one"), gate, finish(), usage_chunk(), DONE))
    async with Leaver(
        caller, json.dumps({"model": "plain", "stream": True, "messages": [{"role": "user", "content": "Hi"}]}).encode()
    ) as leaver:
        await leaver.until(b"one")
        row = caller.get("/v1/credits/usage").json()["data"][0]
        running = caller.get(f"/v1/credits/receipts/{row['id']}?explain=1").json()["explanation"]
        assert running["summary"] == ["This call is still running."]
    assert caller.nothing_held()
    summary = caller.get(f"/v1/credits/receipts/{row['id']}?explain=1").json()["explanation"]["summary"]
    assert "Whoever asked left before the end: what had arrived by then is charged." in summary
    assert "The provider did not say what was used, so it was counted here." in summary


def test_only_whose_receipt_it_is_gets_it_explained(shared: Server, upstream: Upstream, caller: Caller) -> None:
    """Another's looks like none; operators get it with what only they are shown; other values are refused."""
    upstream.says(answer())
    request = caller.chat("plain").headers["x-request-id"]
    assert shared.caller().get(f"/v1/credits/receipts/{request}?explain=1").status_code == 404
    shown = shared.done("GET", f"/receipts/{request}?explain=1")
    assert shown["explanation"]["lines"] and shown["attempts"]
    assert caller.get(f"/v1/credits/receipts/{request}?explain=yes").status_code == 422
    assert "explanation" not in caller.get(f"/v1/credits/receipts/{request}?explain=0").json()
