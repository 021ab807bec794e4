"""What is charged when a provider's figures are missing, late, repeated or cannot be true."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.proxy.chats import (
    DONE,
    EXACT,
    MESSAGES,
    OWN_COUNT,
    USAGE,
    answer,
    chunk,
    documents,
    finish,
    usage_chunk,
    words,
)
from tests.proxy.running import Caller, Server
from tests.proxy.upstream import Gate, Pause, Step, Upstream, piece, response, streamed

_TEXT = [words("one"), words(" two"), words(" three"), finish()]

_IMPOSSIBLE: dict[str, Any] = {
    "missing": ...,
    "null": None,
    "a list": [20, 7],
    "empty": {},
    "negative input": {"prompt_tokens": -1, "completion_tokens": 7},
    "negative output": {"prompt_tokens": 20, "completion_tokens": -7},
    "fraction": {"prompt_tokens": 20.5, "completion_tokens": 7},
    "float": {"prompt_tokens": 20, "completion_tokens": 7.0},
    "exponent": {"prompt_tokens": 2e1, "completion_tokens": 7},
    "text": {"prompt_tokens": "20", "completion_tokens": "7"},
    "truth": {"prompt_tokens": True, "completion_tokens": 7},
    "null figure": {"prompt_tokens": None, "completion_tokens": 7},
    "no input": {"completion_tokens": 7},
    "no output": {"prompt_tokens": 20},
    "cached above input": {**USAGE, "prompt_tokens_details": {"cached_tokens": 21}},
    "cached negative": {**USAGE, "prompt_tokens_details": {"cached_tokens": -1}},
    "cached text": {**USAGE, "prompt_tokens_details": {"cached_tokens": "8"}},
    "reasoning above output": {**USAGE, "completion_tokens_details": {"reasoning_tokens": 8}},
    "reasoning negative": {**USAGE, "completion_tokens_details": {"reasoning_tokens": -8}},
    "all zero beside an answer": {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0},
}

_BELIEVED: dict[str, tuple[Any, str]] = {
    # 20 x 0.001 + 7 x 0.003
    "plain": (USAGE, "0.041"),
    # The sum is not a figure of its own.
    "wrong total": ({**USAGE, "total_tokens": 1}, "0.041"),
    "null details": ({**USAGE, "prompt_tokens_details": None, "completion_tokens_details": None}, "0.041"),
    "null cached": ({**USAGE, "prompt_tokens_details": {"cached_tokens": None}}, "0.041"),
    # 12 x 0.001 + 8 x 0.00025 + 7 x 0.003
    "cached": ({**USAGE, "prompt_tokens_details": {"cached_tokens": 8}}, "0.035"),
    # 20 x 0.00025 + 7 x 0.003
    "all cached": ({**USAGE, "prompt_tokens_details": {"cached_tokens": 20}}, "0.026"),
    # 20 x 0.001 + 5 x 0.003 + 2 x 0.005
    "reasoning": ({**USAGE, "completion_tokens_details": {"reasoning_tokens": 2}}, "0.045"),
    "zero parts": (
        {**USAGE, "prompt_tokens_details": {"cached_tokens": 0}, "completion_tokens_details": {"reasoning_tokens": 0}},
        "0.041",
    ),
    "zero input": ({"prompt_tokens": 0, "completion_tokens": 7}, "0.021"),
    "zero output": ({"prompt_tokens": 20, "completion_tokens": 0}, "0.02"),
    # 20 x 0.001 + 200,000 x 0.003: above the hold, far above the limit
    "large": ({"prompt_tokens": 20, "completion_tokens": 200_000}, "600.02"),
}


def _stream_of(usage: Any) -> list[Step]:
    return list(streamed(*_TEXT, *([] if usage is ... else [usage_chunk(usage)]), DONE))


@pytest.mark.parametrize("case", _IMPOSSIBLE)
@pytest.mark.parametrize("stream", [False, True])
def test_usage_that_cannot_be_is_replaced_by_an_own_count(
    upstream: Upstream, caller: Caller, case: str, stream: bool
) -> None:
    """All of it is replaced, so 9 input tokens and 3 of output are charged, marked as estimated."""
    upstream.says(_stream_of(_IMPOSSIBLE[case]) if stream else [answer(usage=_IMPOSSIBLE[case])])
    answered = caller.chat("parts", stream=stream)
    receipt = caller.receipt(answered)
    assert (receipt["status"], receipt["ended"], receipt["estimated"]) == ("settled", "answered", True)
    assert {line["meter"]: line["quantity"] for line in receipt["lines"]} == {
        "input_tokens": "9",
        "output_tokens": "3",
    }
    assert receipt["total"] == OWN_COUNT
    assert (caller.available, caller.balance()["held"]) == ("999.982", "0")


@pytest.mark.parametrize("case", _BELIEVED)
@pytest.mark.parametrize("stream", [False, True])
def test_usage_that_can_be_is_believed(upstream: Upstream, caller: Caller, case: str, stream: bool) -> None:
    """Each token is billed once: a part at its own price, the rest at its whole's."""
    usage, charge = _BELIEVED[case]
    upstream.says(_stream_of(usage) if stream else [answer(usage=usage)])
    receipt = caller.receipt(caller.chat("parts", stream=stream))
    assert (receipt["total"], receipt["estimated"], receipt["debt"]) == (charge, False, "0")


@pytest.mark.parametrize("stream", [False, True])
def test_a_part_without_a_price_takes_its_wholes(upstream: Upstream, caller: Caller, stream: bool) -> None:
    """Cached and reasoning tokens of a model that does not price them are billed once, as input and output."""
    usage = {**USAGE, "prompt_tokens_details": {"cached_tokens": 8}}
    usage["completion_tokens_details"] = {"reasoning_tokens": 2}
    upstream.says(_stream_of(usage) if stream else [answer(usage=usage)])
    assert caller.receipt(caller.chat(stream=stream))["total"] == EXACT


@pytest.mark.parametrize("stream", [False, True])
def test_zero_beside_an_empty_answer_is_believed(upstream: Upstream, caller: Caller, stream: bool) -> None:
    """Nothing was put out and nothing was used, so nothing is charged."""
    nothing = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
    upstream.says(streamed(finish(), usage_chunk(nothing), DONE) if stream else [answer("", nothing)])
    answered = caller.chat(stream=stream)
    assert answered.status_code == 200
    receipt = caller.receipt(answered)
    assert (receipt["total"], receipt["estimated"]) == ("0", False)


@pytest.mark.parametrize("stream", [False, True])
def test_usage_above_the_balance_becomes_debt_that_the_next_grant_repays(
    upstream: Upstream, shared: Server, stream: bool
) -> None:
    """Settling is never refused: 5 credits pay what they can of 30,000.02."""
    caller = shared.caller("5")
    usage = {"prompt_tokens": 20, "completion_tokens": 10_000_000}
    upstream.says(_stream_of(usage) if stream else [answer(usage=usage)])
    receipt = caller.receipt(caller.chat(stream=stream))
    assert (receipt["total"], receipt["debt"]) == ("30000.02", "29995.02")
    assert [paid["amount"] for paid in receipt["paid_from"]] == ["5"]
    balance = caller.balance()
    assert (balance["available"], balance["debt"], balance["held"]) == ("0", "29995.02", "0")
    refused = caller.chat()
    assert refused.status_code == 402
    assert refused.json()["error"]["debt"] == "29995.02"
    shared.done("POST", f"/accounts/{caller.account}/grants", {"bucket": "paid", "credits": "29996"})
    balance = caller.balance()
    assert (balance["available"], balance["debt"]) == ("0.98", "0")


@pytest.mark.parametrize("tokens", [10**15, 2**63, 10**40])
@pytest.mark.parametrize("stream", [False, True])
def test_absurd_usage_stops_nobody(upstream: Upstream, caller: Caller, stream: bool, tokens: int) -> None:
    """Figures beyond what any amount can hold are as impossible as negative ones, and the answer is delivered."""
    document = b'{"prompt_tokens": 20, "completion_tokens": %d}' % tokens
    if stream:
        event = b'data: {"choices":[],"usage":' + document + b"}\n\n"
        upstream.says(streamed(*_TEXT, event, DONE))
    else:
        message = b'{"index":0,"message":{"role":"assistant","content":"one two three"},"finish_reason":"stop"}'
        upstream.says(response(b'{"choices":[' + message + b'],"usage":' + document + b"}"))
    answered = caller.chat(stream=stream)
    assert answered.status_code == 200, answered.text
    assert caller.nothing_held()
    receipt = caller.receipt(answered)
    assert (receipt["total"], receipt["estimated"], receipt["ended"]) == (OWN_COUNT, True, "answered")
    upstream.says(answer())
    assert caller.chat().status_code == 200


_ON_CHOICES = [
    chunk({"content": "one"}, usage={"prompt_tokens": 20, "completion_tokens": 1}),
    chunk({"content": " two"}, usage={"prompt_tokens": 20, "completion_tokens": 4}),
    chunk({"content": " three"}, "stop", usage=USAGE),
]
_LESS = usage_chunk({"prompt_tokens": 1, "completion_tokens": 1})
_MORE = usage_chunk({"prompt_tokens": 999, "completion_tokens": 99})
_EXACT_STREAMS: dict[str, list[Step]] = {
    "twice, less first": [*_TEXT, _LESS, usage_chunk(), DONE],
    "twice, more first": [*_TEXT, _MORE, usage_chunk(), DONE],
    "twice in one chunk": [b"".join([*_TEXT, _MORE, usage_chunk(), DONE])],
    "the same twice": [*_TEXT, usage_chunk(), usage_chunk(), DONE],
    "early": [usage_chunk(), *_TEXT, DONE],
    "early and last": [_MORE, *_TEXT, usage_chunk(), DONE],
    "growing on choices": [*_ON_CHOICES, DONE],
    "on choices and last": [*_ON_CHOICES[:2], chunk({"content": " three"}, "stop"), usage_chunk(), DONE],
    "after the end": [*_TEXT, DONE, usage_chunk()],
    "a moment after the end": [*_TEXT, DONE, Pause(0.05), usage_chunk()],
    "null on every event": [chunk({"content": "one"}, usage=None), finish(usage=None), usage_chunk(), DONE],
    "choices null beside it": [*_TEXT, b'data: {"choices":null,"usage":' + json.dumps(USAGE).encode() + b"}\n\n", DONE],
    "no choices beside it": [*_TEXT, b'data: {"usage":' + json.dumps(USAGE).encode() + b"}\n\n", DONE],
    "no end": [*_TEXT, usage_chunk()],
    "no blank line at the end": [*_TEXT, usage_chunk(), DONE.strip()],
    "no space after the colon": [b"".join([*_TEXT, usage_chunk(), DONE]).replace(b"data: ", b"data:")],
    "lines end in CR LF": [b"".join([*_TEXT, usage_chunk(), DONE]).replace(b"\n", b"\r\n")],
}


@pytest.mark.parametrize("torn", ["whole", "byte by byte"])
@pytest.mark.parametrize("case", _EXACT_STREAMS)
def test_a_streams_last_usage_counts_wherever_it_stands(
    upstream: Upstream, caller: Caller, case: str, torn: str
) -> None:
    """Figures are never added, and not lost where chunks are torn."""
    steps = _EXACT_STREAMS[case]
    if torn != "whole":
        steps = [
            part for step in steps for part in ([b"%c" % byte for byte in step] if isinstance(step, bytes) else [step])
        ]
    upstream.says(streamed(*steps))
    answered = caller.chat(stream=True)
    assert documents(answered.content)[-1] == "[DONE]"
    assert not [event for event in documents(answered.content)[:-1] if event.get("usage")]
    receipt = caller.receipt(answered)
    assert (receipt["total"], receipt["estimated"], receipt["ended"]) == (EXACT, False, "answered")


def test_usage_on_an_event_with_choices_becomes_null(upstream: Upstream, caller: Caller) -> None:
    """The event keeps its text and its usage member becomes null; the caller that asked gets the figures once, last."""
    upstream.says(streamed(*_ON_CHOICES, DONE))
    first, second, third, last, done = documents(
        caller.chat(stream=True, stream_options={"include_usage": True}).content
    )
    assert [event["usage"] for event in (first, second, third)] == [None, None, None]
    assert "".join(event["choices"][0]["delta"]["content"] for event in (first, second, third)) == "one two three"
    assert (last["usage"], last["choices"], done) == (USAGE, [], "[DONE]")


def test_usage_on_an_event_of_several_lines_leaves_it_whole(upstream: Upstream, caller: Caller) -> None:
    """An event may spread its JSON over `data:` lines; with its usage nulled a client still reads it."""
    event = (
        b'data: {"choices":[{"index":0,"delta":{"content":"one two three"},"finish_reason":"stop"}],\n'
        b'data: "usage":{"prompt_tokens":20,"completion_tokens":7}}\n\n'
    )
    upstream.says(streamed(event, DONE))
    (part,) = list(caller.openai.chat.completions.create(model="words", messages=MESSAGES, stream=True))
    assert part.choices[0].delta.content == "one two three"
    assert part.usage is None
    assert caller.available == "999.959"


def test_usage_that_comes_too_late_is_not_awaited(upstream: Upstream, caller: Caller) -> None:
    """An upstream that keeps its connection open after `[DONE]` keeps nobody waiting; the own count is charged."""
    never = Gate()
    upstream.says(streamed(*_TEXT, DONE, never))
    answered = caller.chat(stream=True, stream_options={"include_usage": True})
    *_, last, done = documents(answered.content)
    assert done == "[DONE]"
    assert last["usage"] == {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12}
    assert last["credits"] == {"charged": OWN_COUNT, "available": "999.982", "estimated": True}
    assert caller.receipt(answered)["total"] == OWN_COUNT


def test_an_own_count_covers_everything_that_was_put_out(upstream: Upstream, caller: Caller) -> None:
    """Text, refusal, reasoning, tool names and arguments of every choice are counted."""
    call = {"id": "c", "type": "function", "function": {"name": "one", "arguments": "one two"}}
    message = {"content": "one", "refusal": "one two", "reasoning_content": "one two three", "tool_calls": [call]}
    choices = [{"index": 0, "message": message}, {"index": 1, "message": {"content": "one two"}}]
    upstream.says(response(json.dumps({"choices": choices}).encode()))
    lines = caller.receipt(caller.chat(n=2))["lines"]
    # 1 + 2 + 3 + 1 + 2 and 2
    assert [line["quantity"] for line in lines] == ["9", "11"]
    events = [
        chunk({"content": "one"}),
        chunk({"content": " two"}),
        chunk({"refusal": " three"}),
        chunk({"tool_calls": [{"index": 0, "function": {"name": " one"}}]}),
        chunk({"tool_calls": [{"index": 0, "function": {"arguments": " two"}}]}),
        chunk({"reasoning_content": "one"}, index=1),
        finish(),
        finish(1),
    ]
    upstream.says(streamed(*events, DONE))
    lines = caller.receipt(caller.chat(n=2, stream=True))["lines"]
    assert [line["quantity"] for line in lines] == ["9", "6"]


def test_an_answer_with_half_a_character_is_an_answer(upstream: Upstream, caller: Caller) -> None:
    """A lone surrogate escape is legal JSON: the answer passes, or is refused without a charge."""
    body = b'{"choices":[{"index":0,"message":{"role":"assistant","content":"one \\ud83d"},"finish_reason":"stop"}]}'
    upstream.says(response(body))
    answered = caller.post(b'{"model":"words","messages":[{"role":"user","content":"Hello world"}],"max_tokens":9}')
    assert caller.nothing_held()
    if answered.status_code == 200:
        assert caller.receipt(answered)["estimated"] is True
    else:
        assert answered.status_code == 502
        assert caller.available == "1000"


def test_a_call_sold_by_the_request_costs_that_whatever_it_used(upstream: Upstream, caller: Caller) -> None:
    """Without token prices tokens are recorded and not billed."""
    upstream.says(answer())
    assert caller.chat("each").headers["x-credits-charged"] == "1"
    upstream.says(streamed(*_TEXT, DONE))
    receipt = caller.receipt(caller.chat("each", stream=True))
    assert receipt["lines"] == [{"meter": "request", "quantity": "1", "price": "1", "amount": "1"}]


def test_an_answer_in_pieces_is_one_answer(upstream: Upstream, caller: Caller) -> None:
    """A whole answer that arrives in chunks is charged as one that arrives at once."""
    head, _, body = answer().partition(b"\r\n\r\n")
    lines = [line for line in head.split(b"\r\n") if not line.startswith(b"content-length")]
    begun = b"\r\n".join([*lines, b"transfer-encoding: chunked"]) + b"\r\n\r\n"
    upstream.says(begun, piece(body[:9]), piece(body[9:]), b"0\r\n\r\n")
    answered = caller.chat()
    assert (answered.content, answered.headers["x-credits-charged"]) == (body, EXACT)
