"""Calls that are made shorter because their credits would not pay for the longest answer."""

from __future__ import annotations

import json

import pytest

from tests.proxy.chats import DONE, EXACT, answer, finish, usage_chunk, words
from tests.proxy.running import Server
from tests.proxy.upstream import Gate, Upstream, streamed


def test_a_call_without_a_limit_is_shortened_to_what_the_credits_pay(upstream: Upstream, shared: Server) -> None:
    """The provider gets the largest limit that fits, and the caller is told it."""
    caller = shared.caller("0.5")
    upstream.says(answer())
    answered = caller.chat()
    # (0.5 - 9 x 0.001) / 0.003 = 163.7
    assert answered.headers["x-credits-max-tokens"] == "163"
    assert upstream.last.document["max_completion_tokens"] == 163
    assert "max_tokens" not in upstream.last.document
    assert answered.headers["x-credits-charged"] == EXACT
    assert caller.receipt(answered)["shortened_to"] == 163


def test_a_shortened_stream_says_so(upstream: Upstream, shared: Server) -> None:
    """What is held for it is what the account has, down to what no token fits in."""
    caller = shared.caller("0.5")
    upstream.says(streamed(words("one"), finish(), usage_chunk(), DONE))
    answered = caller.chat(stream=True)
    assert answered.headers["x-credits-max-tokens"] == "163"
    # 0.009 + 163 x 0.003
    assert answered.headers["x-credits-held"] == "0.498"


def test_the_limit_goes_to_an_elder_provider_under_its_own_name(upstream: Upstream, shared: Server) -> None:
    """`output_limit` names the member of an upstream that knows no other."""
    caller = shared.caller("0.5")
    upstream.says(answer())
    assert caller.chat("elder").headers["x-credits-max-tokens"] == "163"
    assert upstream.last.document["max_tokens"] == 163
    assert "max_completion_tokens" not in upstream.last.document


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
def test_clamping_keeps_the_callers_name_for_the_limit(upstream: Upstream, shared: Server, name: str) -> None:
    """With `X-Farebox-Fit: clamp` an explicit limit is shortened in its place."""
    caller = shared.caller("0.5")
    upstream.says(answer())
    body = b'{"%s" : 900 ,"model":"words","messages":[{"role":"user","content":"Hello world"}]}' % name.encode()
    assert caller.post(body).status_code == 402
    assert upstream.received == []
    answered = caller.post(body, x_farebox_fit="clamp")
    assert answered.headers["x-credits-max-tokens"] == "163"
    assert upstream.last.body == body.replace(b"900", b"163").replace(b'"words"', b'"words-1"')


def test_clamping_leaves_what_fits(upstream: Upstream, shared: Server) -> None:
    """A limit that the credits can pay is not touched, and no header says otherwise."""
    caller = shared.caller("0.5")
    upstream.says(answer())
    answered = caller.chat(max_tokens=100)
    assert "x-credits-max-tokens" not in answered.headers
    answered = caller.post(json.dumps({"model": "words", "messages": [{"role": "user"}], "max_tokens": 99}).encode(),
                           x_farebox_fit="clamp")  # fmt: skip
    assert answered.status_code == 200
    assert "x-credits-max-tokens" not in answered.headers
    assert upstream.last.document["max_tokens"] == 99


def test_shortening_shares_what_there_is_among_the_choices(upstream: Upstream, shared: Server) -> None:
    """The limit is each choice's: 163.7 / 2 = 81.8."""
    caller = shared.caller("0.5")
    upstream.says(answer())
    assert caller.chat(n=2).headers["x-credits-max-tokens"] == "81"


def test_nothing_is_shortened_below_the_least(upstream: Upstream, shared: Server) -> None:
    """An answer of fewer than 16 tokens is no answer: the call is refused instead."""
    # 0.009 + 16 x 0.003 = 0.057
    caller = shared.caller("0.056999999")
    refused = caller.chat()
    assert refused.status_code == 402
    assert refused.json()["error"]["max_tokens_affordable"] == 15
    assert upstream.received == []
    upstream.says(answer())
    assert shared.caller("0.057").chat().headers["x-credits-max-tokens"] == "16"


def test_nothing_is_shortened_for_ones_own_running_calls(upstream: Upstream, shared: Server) -> None:
    """What a running call holds comes back, so the call waits for it rather than being cut short."""
    caller = shared.caller("4")
    gate = Gate()
    upstream.says(streamed(words("one"), gate, finish(), usage_chunk(), DONE))
    stream = caller.openai.chat.completions.create(
        model="words", messages=[{"role": "user", "content": "x"}], stream=True
    )
    gate.reached()
    refused = caller.chat()
    assert (refused.status_code, refused.json()["error"]["code"]) == (402, "credits_held")
    gate.open()
    assert len(list(stream)) == 2


def test_an_unknown_fit_is_refused(upstream: Upstream, shared: Server) -> None:
    """`clamp` is the only word that X-Farebox-Fit knows."""
    caller = shared.caller("0.5")
    refused = caller.post(b'{"model":"words","messages":[{"role":"user"}]}', x_farebox_fit="shrink")
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "X-Farebox-Fit")
