"""What an answered call looks like to OpenAI's own client, and what it costs."""

from __future__ import annotations

import json

import pytest

from tests.proxy.chats import (
    DONE,
    EXACT,
    MESSAGES,
    USAGE,
    answer,
    body_of,
    chunk,
    documents,
    finish,
    usage_chunk,
    words,
)
from tests.proxy.running import Caller, Server
from tests.proxy.upstream import Upstream, response, streamed

_TEXT = [words("one"), words(" two"), words(" three"), finish()]


def test_a_plain_answer_is_charged_exactly_and_says_so(upstream: Upstream, caller: Caller) -> None:
    """OpenAI's client gets the text, what it cost, and what is left."""
    upstream.says(answer())
    raw = caller.openai.chat.completions.with_raw_response.create(model="words", messages=MESSAGES)
    assert raw.parse().choices[0].message.content == "one two three"
    assert raw.headers["x-credits-charged"] == EXACT
    assert raw.headers["x-credits-available"] == "999.959"
    assert caller.available == "999.959"
    assert "x-credits-held" not in raw.headers
    assert "x-credits-max-tokens" not in raw.headers
    assert raw.headers["x-request-id"].startswith("req_")


def test_a_receipt_says_what_was_charged_and_from_what(upstream: Upstream, caller: Caller) -> None:
    """The receipt's lines add up to its total and to the grants that paid."""
    upstream.says(answer())
    receipt = caller.receipt(caller.post(body_of(), x_farebox_thread="t-1", x_farebox_run="r-1"))
    grant = caller.balance()["grants"][0]["id"]
    assert receipt.pop("id").startswith("req_")
    assert receipt.pop("key").startswith("key_")
    assert receipt.pop("price_version")
    assert receipt.pop("created_at") <= receipt.pop("settled_at")
    assert receipt == {
        "object": "credits.receipt",
        "status": "settled",
        "ended": "answered",
        "endpoint": "/v1/chat/completions",
        "model": "words",
        "upstream_model": "words-1",
        "operation": None,
        "app": None,
        "thread": "t-1",
        "run": "r-1",
        "member": None,
        "estimated": False,
        "shortened_to": None,
        "lines": [
            {"meter": "input_tokens", "quantity": "20", "price": "1 / 1k", "amount": "0.02"},
            {"meter": "output_tokens", "quantity": "7", "price": "3 / 1k", "amount": "0.021"},
        ],
        "total": EXACT,
        "paid_from": [{"grant": grant, "bucket": "paid", "amount": EXACT}],
        "debt": "0",
        "refunded": "0",
        "reward": "0",
    }


def test_a_stream_is_charged_exactly(upstream: Upstream, caller: Caller) -> None:
    """A stream's status goes out with what is held; its charge is settled when its last byte has come."""
    upstream.says(streamed(*_TEXT, usage_chunk(), DONE))
    with caller.openai.chat.completions.with_streaming_response.create(
        model="words", messages=MESSAGES, stream=True
    ) as raw:
        request = raw.headers["x-request-id"]
        held = raw.headers["x-credits-held"]
        text = "".join(part.choices[0].delta.content or "" for part in raw.parse() if part.choices)
    assert text == "one two three"
    assert caller.receipt(request)["total"] == EXACT
    assert caller.available == "999.959"
    assert held.startswith("3.")
    assert "x-credits-charged" not in raw.headers


def test_a_hold_is_the_bodys_bytes_and_the_output_limit(upstream: Upstream, caller: Caller) -> None:
    """Held is 0.001 a byte of the body, and 0.003 for each of the 1000 output tokens; `n` multiplies them."""
    upstream.says(streamed(*_TEXT, words("one", index=1), finish(1), usage_chunk(), DONE))
    body = b'{"model":"words","messages":[{"role":"user","content":"Hello world"}],"stream":true}'
    assert len(body) == 84
    assert caller.post(body).headers["x-credits-held"] == "3.084"
    body = b'{"model":"words","messages":[{"role":"user","content":"Hello world"}],"stream":true,"max_tokens":5,"n":2}'
    assert len(body) == 105
    assert caller.post(body).headers["x-credits-held"] == "0.135"
    assert caller.nothing_held()


def test_a_picture_is_held_for_by_its_part_not_by_its_bytes(upstream: Upstream, caller: Caller) -> None:
    """500,000 bytes of an image are 1600 tokens: 3 + 1.6 + 0.001 for each of the 171 other bytes."""
    upstream.says(streamed(*_TEXT, usage_chunk(), DONE))
    body = (
        b'{"model":"words","messages":[{"role":"user","content":[{"type":"text","text":"What is this?"},'
        b'{"type":"image_url","image_url":{"url":"%s"}}]}],"stream":true,"temperature":1}'
    )
    assert len(body % b"") == 171
    assert caller.post(body % (b"x" * 500_000)).headers["x-credits-held"] == "4.771"


async def test_the_asynchronous_client_works_unchanged(upstream: Upstream, caller: Caller) -> None:
    """OpenAI's asynchronous client gets plain answers and streams."""
    async with caller.openai_async() as client:
        upstream.says(answer())
        whole = await client.chat.completions.create(model="words", messages=MESSAGES)
        assert whole.choices[0].message.content == "one two three"
        assert whole.usage is not None and whole.usage.total_tokens == 27
        upstream.says(streamed(*_TEXT, usage_chunk(), DONE))
        stream = await client.chat.completions.create(model="words", messages=MESSAGES, stream=True)
        parts = [part.choices[0].delta.content async for part in stream]
    assert parts == ["one", " two", " three", None]
    # 1000 - 2 x 0.041
    assert caller.available == "999.918"


@pytest.mark.parametrize("options", [None, {}, {"include_usage": False}, {"include_usage": None}])
def test_a_caller_that_asks_for_no_usage_gets_none_and_is_charged(
    upstream: Upstream, caller: Caller, options: object
) -> None:
    """Streaming without usage, or against it, is not streaming for free."""
    upstream.says(streamed(*_TEXT, usage_chunk(), DONE))
    answered = caller.chat(stream=True, stream_options=options)
    assert answered.content == b"".join(_TEXT) + DONE
    assert caller.available == "999.959"
    assert upstream.last.document["stream_options"]["include_usage"] is True


def test_a_caller_that_asks_for_usage_gets_one_chunk_with_its_credits(upstream: Upstream, caller: Caller) -> None:
    """The usage chunk comes once, last, with what was charged and what is left."""
    upstream.says(streamed(*_TEXT, usage_chunk(), DONE))
    answered = caller.chat(stream=True, stream_options={"include_usage": True})
    head, tail = b"".join(_TEXT), answered.content[len(b"".join(_TEXT)) :]
    assert answered.content.startswith(head)
    chunk, done = documents(tail)
    assert done == "[DONE]"
    assert chunk["choices"] == []
    assert chunk["id"] == "chatcmpl-1" and chunk["object"] == "chat.completion.chunk"
    assert chunk["usage"] == USAGE
    assert chunk["credits"] == {"charged": EXACT, "available": "999.959", "estimated": False}


def test_the_client_reads_the_usage_chunk(upstream: Upstream, caller: Caller) -> None:
    """OpenAI's client finds usage and credits in the last chunk."""
    upstream.says(streamed(*_TEXT, usage_chunk(), DONE))
    stream = caller.openai.chat.completions.create(
        model="words", messages=MESSAGES, stream=True, stream_options={"include_usage": True}
    )
    *_, last = list(stream)
    assert last.usage is not None and last.usage.total_tokens == 27
    assert last.model_extra is not None and last.model_extra["credits"]["charged"] == EXACT


def test_an_answers_bytes_are_the_upstreams(upstream: Upstream, caller: Caller) -> None:
    """Whitespace, escapes, unknown members and the upstream's model name arrive as they were sent."""
    body = (
        b'{ "model":"words-1-2026",\r\n "choices" : [{"index":0,'
        b'"message":{"role":"assistant","content":"\\u00e9\\ud83d\\ude00 '
        + "é😀".encode()
        + b'"},"finish_reason":"stop"}],\t"big": 123456789012345678901234567890, "f": 1.50,'
        b' "usage" : {"prompt_tokens":20,"completion_tokens":7,"queue_time":0.70}, "model" : "twice" }\n\n'
    )
    upstream.says(response(body))
    answered = caller.post(body_of())
    assert answered.content == body
    assert answered.headers["x-credits-charged"] == EXACT


def test_a_streams_bytes_are_the_upstreams(upstream: Upstream, caller: Caller) -> None:
    """Comments, other fields, odd spacing and null usage pass; only usage and the end are Farebox's."""
    events = [
        b": keep-alive\n\n",
        b"event: x\nid: 7\n"
        b'data: {"choices":[{"index":0,"delta":{"content":"\\"usage\\": 1 [DONE]"}}],"usage":null}\n\n',
        b'data:{"choices":[{"index":0,"delta":{"content":"\xc3\xa9"}}], "f": 1.50}\r\n\r\n',
        b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}],"x":123456789012345678901234567890}\n\n',
    ]
    upstream.says(streamed(*events, usage_chunk(), DONE))
    assert caller.chat(stream=True).content == b"".join(events) + DONE
    assert caller.available == "999.959"


_SENT = {
    "whitespace and numbers": (
        b'{ "messages" : [ {"role":"user" , "content":"H\\u00e9 \\ud83d\\ude00"} ],\n\t"temperature":0.70,'
        b' "model" : "words", "seed": 123456789012345678901234567890 }',
        b'{ "messages" : [ {"role":"user" , "content":"H\\u00e9 \\ud83d\\ude00"} ],\n\t"temperature":0.70,'
        b' "model" : "words-1", "seed": 123456789012345678901234567890 ,"max_completion_tokens":1000}',
    ),
    "escaped key, inner duplicates": (
        b'{"mod\\u0065l":"words","max_tokens": 10,"messages":[{"content":"x","content":"y"}],"top_p":1.0e0}',
        b'{"mod\\u0065l":"words-1","max_tokens": 10,"messages":[{"content":"x","content":"y"}],"top_p":1.0e0}',
    ),
    "limit above the model's": (
        b'{"model":"words","max_completion_tokens":1001,"messages":[{"a":"model"}],"metadata":{"model":"words"}}\n',
        b'{"model":"words-1","max_completion_tokens":1000,"messages":[{"a":"model"}],"metadata":{"model":"words"}}\n',
    ),
    "limit under both names": (
        b'{"model":"words","max_completion_tokens":2000,"max_tokens":3000,"messages":[{"a":1}]}',
        b'{"model":"words-1","max_completion_tokens":1000,"max_tokens":1000,"messages":[{"a":1}]}',
    ),
}


@pytest.mark.parametrize("case", _SENT)
def test_a_request_keeps_its_text(upstream: Upstream, caller: Caller, case: str) -> None:
    """Only the model and the output limit are changed, each in its place."""
    sent, arrives = _SENT[case]
    upstream.says(answer())
    answered = caller.post(sent)
    assert answered.status_code == 200, answered.text
    assert upstream.last.body == arrives
    assert upstream.last.path == "/v1/chat/completions"


def test_a_deeply_nested_request_is_relayed_or_refused(upstream: Upstream, caller: Caller) -> None:
    """Depth is nothing that the server breaks at."""
    upstream.says(answer())
    for depth in (100, 900, 1020, 5000):
        nested = b"[" * depth + b"]" * depth
        sent = b'{"model":"words","messages":[{"role":"user","content":"x"}],"max_tokens":9,"metadata":' + nested + b"}"
        answered = caller.post(sent)
        assert answered.status_code == 400 or (answered.status_code == 200 and nested in upstream.last.body), depth
    assert caller.balance()["held"] == "0"


def test_a_streams_options_keep_their_text(upstream: Upstream, caller: Caller) -> None:
    """Of `stream_options` only `include_usage` is changed."""
    upstream.says(streamed(*_TEXT, usage_chunk(), DONE))
    sent = (
        b'{"model":"words","messages":[{"role":"user","content":"x"}],"stream":true,"max_tokens":9,'
        b'"stream_options":{ "x": 0.70, "include_usage": false, "y" : 123456789012345678901234567890 }}'
    )
    assert caller.post(sent).status_code == 200
    assert upstream.last.body == sent.replace(b'"words"', b'"words-1"').replace(b"false", b"true")


def test_a_key_written_twice_counts_as_the_upstream_reads_it(upstream: Upstream, caller: Caller) -> None:
    """Whichever of two `model` members an upstream reads, it is the one that was priced."""
    upstream.says(answer())
    sent = b'{"model":"gift","temperature":0.70,"model":"words","max_tokens":9,"messages":[{"role":"user"}]}'
    assert caller.post(sent).headers["x-credits-charged"] == EXACT
    pairs = json.loads(upstream.last.body, object_pairs_hook=lambda found: found)
    assert [value for name, value in pairs if name == "model"] in (["words-1"], ["words-1", "words-1"])
    assert b'"temperature":0.70' in upstream.last.body


def test_headers_go_to_the_upstream_by_list(upstream: Upstream, caller: Caller) -> None:
    """The caller's key, cookies and own headers stay; tracing and what the operator lists goes on."""
    upstream.says(answer())
    caller.post(
        body_of(),
        cookie="a=b",
        accept="application/json",
        traceparent="00-1-2-3",
        openai_beta="x=1",
        x_trace="yes",
        x_other="no",
        x_farebox_thread="t",
        x_api_key="k",
        user_agent="agent",
        openai_organization="o",
    )
    headers = upstream.last.headers
    assert headers["authorization"] == "Bearer operators-secret"
    assert headers["content-type"] == "application/json"
    assert (headers["accept"], headers["traceparent"]) == ("application/json", "00-1-2-3")
    assert (headers["openai-beta"], headers["x-trace"]) == ("x=1", "yes")
    kept = {"cookie", "x-other", "x-farebox-thread", "x-api-key", "user-agent", "openai-organization"}
    assert not headers.keys() & kept
    assert caller.key not in str(headers)


def test_headers_come_back_by_list(upstream: Upstream, caller: Caller) -> None:
    """The upstream's timing and version come back; its cookies and its account do not."""
    told = {
        "openai-processing-ms": "12",
        "openai-version": "2020-10-01",
        "openai-organization": "org-secret",
        "set-cookie": "a=b",
        "x-request-id": "theirs",
        "x-ratelimit-remaining": "1",
    }
    whole = answer().partition(b"\r\n\r\n")[2]
    for script in ([response(whole, headers=told)], streamed(*_TEXT, usage_chunk(), DONE, headers=told)):
        upstream.says(script)
        answered = caller.chat(stream=len(script) > 1)
        assert answered.status_code == 200
        assert answered.headers["openai-processing-ms"] == "12"
        assert answered.headers["openai-version"] == "2020-10-01"
        assert answered.headers["x-request-id"].startswith("req_")
        assert not answered.headers.keys() & {"openai-organization", "set-cookie", "x-ratelimit-remaining"}


@pytest.mark.parametrize("value", ["Zürich", "50 €", "\x01"])
def test_an_odd_header_of_the_upstreams_spoils_no_answer(upstream: Upstream, caller: Caller, value: str) -> None:
    """What is charged is delivered, whatever a header beside it holds."""
    told = b"openai-version: " + value.encode() + b"\r\ncontent-type:"
    upstream.says(answer().replace(b"content-type:", told, 1))
    answered = caller.chat()
    if value.isprintable():
        assert answered.status_code == 200
        assert answered.json()["choices"][0]["message"]["content"] == "one two three"
        assert caller.available == "999.959"
    else:
        assert (answered.status_code, caller.available) in ((200, "999.959"), (502, "1000"))


def test_models_are_listed_with_what_a_picker_needs(caller: Caller) -> None:
    """The list is OpenAI's plus title, class, speed, quality, limit and price; a model that is off is not in it."""
    listed = {model.id: model for model in caller.openai.models.list()}
    assert {"words", "both", "gone"} <= listed.keys() and "off" not in listed
    extra = listed["words"].model_extra or {}
    assert (extra["title"], extra["class"], extra["speed"], extra["quality"]) == ("Words", "standard", 4, 2)
    assert extra["max_output_tokens"] == 1000
    assert extra["price"] == {"input_tokens": "1 / 1k", "output_tokens": "3 / 1k"}
    assert caller.openai.models.retrieve("both").id == "both"


def test_a_call_that_can_cost_nothing_needs_no_credits(upstream: Upstream, shared: Server) -> None:
    """A model priced at 0 answers an account that never had credits."""
    poor = shared.caller(None)
    upstream.says(answer())
    answered = poor.chat("gift")
    assert answered.status_code == 200, answered.text
    assert answered.headers["x-credits-charged"] == "0"
    assert poor.receipt(answered)["status"] == "settled"
    assert poor.get("/v1/models").status_code == 200


def test_several_choices_are_one_answer(upstream: Upstream, caller: Caller) -> None:
    """A stream of two choices passes interleaved and ends when both have ended."""
    events = [words("a"), words("b", index=1), finish(1), words(" c"), finish()]
    upstream.says(streamed(*events, usage_chunk(), DONE))
    assert caller.chat(stream=True, n=2).content == b"".join(events) + DONE
    assert caller.available == "999.959"


def test_a_missing_done_is_supplied_after_the_finish(upstream: Upstream, caller: Caller) -> None:
    """An upstream that closes after every `finish_reason` has answered."""
    upstream.says(streamed(*_TEXT, usage_chunk()))
    answered = caller.chat(stream=True)
    assert answered.content == b"".join(_TEXT) + DONE
    receipt = caller.receipt(answered)
    assert (receipt["ended"], receipt["total"], receipt["estimated"]) == ("answered", EXACT, False)


def test_tool_calls_pass(upstream: Upstream, caller: Caller) -> None:
    """OpenAI's client reads tool calls as the upstream made them."""
    call = {"index": 0, "id": "call_1", "type": "function", "function": {"name": "look", "arguments": '{"a":1}'}}
    upstream.says(streamed(chunk({"tool_calls": [call]}), chunk({}, "tool_calls"), usage_chunk(), DONE))
    stream = caller.openai.chat.completions.create(model="words", messages=MESSAGES, stream=True)
    (first, _) = list(stream)
    tools = first.choices[0].delta.tool_calls
    assert tools is not None and tools[0].function is not None and tools[0].function.arguments == '{"a":1}'
    assert caller.available == "999.959"
