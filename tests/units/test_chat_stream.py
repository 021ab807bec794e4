"""A stream's bytes, usage and texts, wherever the network cuts it."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.operations.chat_stream import ChatStream, MalformedStream
from tests.units.strategies import nasty, properties, texts

HI = b'data: {"choices":[{"index":0,"delta":{"content":"Hi"},"finish_reason":null}]}\n\n'
STOP = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
USAGE = b'data: {"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":4}}\n\n'
ERROR = b'data: {"error":{"message":"overloaded","code":"x"}}\n\n'
DONE = b"data: [DONE]\n\n"
FOUND = {"input_tokens": 9, "output_tokens": 4}


def usage_event(prompt: int, completion: int, choices: str = "[]") -> bytes:
    return b'data: {"choices":%s,"usage":{"prompt_tokens":%d,"completion_tokens":%d}}\n\n' % (
        choices.encode(),
        prompt,
        completion,
    )


def fed(*chunks: bytes) -> tuple[ChatStream, bytes]:
    stream = ChatStream()
    return stream, b"".join(stream.feed(chunk) for chunk in chunks)


def seen(stream: ChatStream) -> dict[str, Any]:
    """Everything that the paid path asks of a stream."""
    return {
        "done": stream.done,
        "error": stream.error,
        "started": stream.started,
        "complete": stream.complete,
        "texts": stream.texts(),
        "reported": stream.reported,
        "usage": stream.usage(),
    }


@dataclass
class Script:
    """A stream as its writer means it, beside what should become of it."""

    sent: list[bytes] = field(default_factory=list)
    passed: list[bytes] = field(default_factory=list)
    texts: dict[int, str] = field(default_factory=dict)
    usage: tuple[int, int] | None = None


@st.composite
def events(draw: st.DrawFn) -> Script:
    """Draw a stream without its end: comments, text, reasoning, tools, usage early, late, twice or on choices."""
    script = Script()
    end = draw(st.sampled_from(["\n\n", "\r\n\r\n"]))
    for kind in draw(
        st.lists(st.sampled_from(["text", "text", "tool", "null", "comment", "usage", "both", "finish"]), max_size=8)
    ):
        index = draw(st.integers(0, 1))
        text = draw(texts | nasty)
        figures = (draw(st.integers(0, 99)), draw(st.integers(1, 99)))
        usage = f'{{"prompt_tokens": {figures[0]}, "completion_tokens":{figures[1]}}}'
        written = json.dumps(text, ensure_ascii=draw(st.booleans()))
        member = draw(st.sampled_from(["content", "reasoning_content", "refusal"]))
        delta_text = f'{{"{member}": {written}}}'
        if kind == "tool":
            delta_text = f'{{"tool_calls":[{{"index":0,"function":{{"arguments":{written}}}}}]}}'
        if kind == "finish":
            delta_text, text = "{}", ""
        reason = '"stop"' if kind == "finish" else "null"
        choices = f'"choices": [{{"index": {index}, "delta": {delta_text}, "finish_reason":{reason}}}]'
        if kind == "comment":
            event = passed = ": keep-alive"
        elif kind == "usage":
            event, passed = f'data: {{"choices": [], "usage": {usage}}}', ""
        elif kind == "both":
            event, passed = f'data: {{{choices}, "usage": {usage}}}', f'data: {{{choices}, "usage": null}}'
        elif kind == "null":
            event = passed = f'data: {{{choices}, "usage": null}}'
        else:
            event = passed = f"data:{{{choices}}}"
        if kind in ("usage", "both"):
            script.usage = figures
        if kind not in ("comment", "usage") and text:
            script.texts[index] = script.texts.get(index, "") + text
        script.sent.append((event + end).encode())
        if passed:
            script.passed.append((passed + end).encode())
    return script


def cut(sent: bytes, borders: Iterable[int]) -> list[bytes]:
    places = sorted({border % (len(sent) + 1) for border in borders})
    return [sent[start:stop] for start, stop in zip([0, *places], [*places, len(sent)], strict=True)]


borders = st.lists(st.integers(0, 10**6), max_size=12)
tails = st.sampled_from(
    [b"", DONE, b"data:[DONE]\r\n\r\n", ERROR, DONE + USAGE, DONE + HI + ERROR, ERROR + HI + DONE, USAGE + DONE]
)


@properties
@given(events(), borders)
def test_what_passes(script: Script, places: list[int]) -> None:
    """Events pass as they came but for their usage; texts and the last usage are found; cuts make no difference."""
    stream, passed = fed(*cut(b"".join(script.sent), places))
    assert passed.replace(b"\r\n", b"\n") == b"".join(script.passed).replace(b"\r\n", b"\n")
    if script.usage is None:
        assert passed == b"".join(script.passed)
    assert sorted(stream.texts()) == sorted(script.texts.values())
    assert stream.usage() == (script.usage and {"input_tokens": script.usage[0], "output_tokens": script.usage[1]})
    assert not stream.done


@properties
@given(events(), tails, borders, st.integers(0, 60))
def test_any_cut(script: Script, tail: bytes, places: list[int], missing: int) -> None:
    """A stream, whole or broken off anywhere, passes the same and says the same however the network cuts it."""
    sent = b"".join(script.sent) + tail
    sent = sent[: max(0, len(sent) - missing)]
    whole, at_once = fed(sent)
    at_once += whole.end()
    pieces, in_pieces = fed(*cut(sent, places))
    in_pieces += pieces.end()
    assert in_pieces == at_once
    assert seen(pieces) == seen(whole)


@pytest.mark.parametrize("end", [b"\n\n", b"\r\n\r\n"])
def test_byte_by_byte(end: bytes) -> None:
    """A stream that arrives byte by byte passes whole events and nothing before they are whole."""
    sent = (
        b": ping\n\n" + HI + STOP + usage_event(9, 4, '[{"index":0,"delta":{},"finish_reason":"stop"}]') + USAGE
    ).replace(b"\n\n", end)
    stream = ChatStream()
    for place in range(len(sent)):
        passed = stream.feed(sent[place : place + 1])
        assert passed == b"" or passed.endswith((b"\n\n", b"\r\n\r\n"))
    assert (stream.texts(), stream.usage(), stream.complete) == (["Hi"], FOUND, True)


@pytest.mark.parametrize(
    ("chunks", "passed"),
    [
        ([HI, STOP, USAGE, DONE], HI + STOP),
        ([USAGE, HI, STOP, DONE], HI + STOP),
        ([HI, usage_event(1, 1), STOP, USAGE, DONE], HI + STOP),
        ([HI, STOP, usage_event(99, 99), USAGE, DONE], HI + STOP),
        ([HI, STOP, DONE, USAGE], HI + STOP),
        ([HI, STOP + DONE + USAGE], HI + STOP),
        ([HI, STOP, usage_event(1, 1), DONE, USAGE], HI + STOP),
        ([HI, STOP, DONE, HI, USAGE], HI + STOP),
    ],
)
def test_last_usage_counts(chunks: list[bytes], passed: bytes) -> None:
    """The last figures count, early, late, twice or after `[DONE]`; they are never added, and never pass."""
    stream, out = fed(*chunks)
    assert (out, stream.usage(), stream.texts(), stream.done) == (passed, FOUND, ["Hi"], True)
    assert stream.reported


def test_usage_on_choices() -> None:
    """Where usage stands on an event with choices, the event passes with its usage set to null."""
    event = b'data: {"choices":[{"delta":{"content":"Hi"}}] , "usage": %s, "x": 1.50}\n\n'
    stream, passed = fed(event % b'{"prompt_tokens":9,"completion_tokens":4}')
    assert passed == event % b"null"
    assert (stream.usage(), stream.texts(), stream.awaits_usage) == (FOUND, ["Hi"], False)


@pytest.mark.parametrize(
    "text",
    [
        '"usage": {"prompt_tokens": 1}',
        '{"usage":{',
        "[DONE]",
        "data: [DONE]",
        '"error": {"message": 1}',
        "\n\ndata: [DONE]\n\n",
    ],
)
def test_text_is_text(text: str) -> None:
    """What a model says is never taken for usage, an error or the end."""
    event = b"data: " + json.dumps({"choices": [{"index": 0, "delta": {"content": text}}]}).encode() + b"\n\n"
    stream, passed = fed(event)
    assert (passed, stream.texts()) == (event, [text])
    assert (stream.done, stream.error, stream.reported) == (False, None, False)


def test_error_event() -> None:
    """An error event is kept and does not pass, and nothing after it does."""
    stream, passed = fed(HI, ERROR + HI, DONE)
    assert (passed, stream.error, stream.texts()) == (HI, {"message": "overloaded", "code": "x"}, ["Hi"])
    stream, passed = fed(b'data: {"error":"plain words"}\n\n')
    assert (passed, stream.started) == (b"", False)
    assert stream.error is not None
    assert "plain words" in str(stream.error)


def test_error_null() -> None:
    """An error that is null is none."""
    event = b'data: {"error":null,"choices":[{"index":0,"delta":{"content":"Hi"}}]}\n\n'
    stream, passed = fed(event)
    assert (passed, stream.error, stream.texts()) == (event, None, ["Hi"])


@pytest.mark.parametrize(
    ("tail", "passed", "done"),
    [
        (b"data: [DONE]", b"", True),
        (b"data: [DONE]\n", b"", True),
        (STOP.strip(), STOP, False),
        (STOP[:-1], STOP, False),
        (STOP[:-8], b"", False),
        (b'data: {"choi', b"", False),
        (b"", b"", False),
    ],
)
def test_end_without_blank_line(tail: bytes, passed: bytes, done: bool) -> None:
    """A last event that is whole but for its blank line counts; one that was cut off neither counts nor passes."""
    stream, out = fed(HI, tail)
    assert out == HI
    assert stream.end() == passed
    assert (stream.done, stream.complete) == (done, bool(passed))


def test_complete() -> None:
    """A stream is complete when every choice that began has its finish_reason."""
    second = HI.replace(b'"index":0', b'"index":1')
    assert not fed(HI)[0].complete
    assert fed(HI, STOP)[0].complete
    assert not fed(HI, second, STOP)[0].complete
    assert fed(HI, second, STOP, STOP.replace(b'"index":0', b'"index":1'))[0].complete
    assert not ChatStream().complete


@pytest.mark.parametrize(
    ("figures", "usage"),
    [((0, 0), None), ((9, 0), {"input_tokens": 9, "output_tokens": 0}), ((-9, 4), None), ((9, 4), FOUND)],
)
def test_usage_beside_an_answer(figures: tuple[int, int], usage: object) -> None:
    """Zero is believed, but not all zero beside an answer; negative figures never are."""
    assert fed(HI, usage_event(*figures), DONE)[0].usage() == usage


def test_all_zero_of_an_empty_stream() -> None:
    """All zero is believed where nothing was put out."""
    assert fed(STOP, usage_event(0, 0), DONE)[0].usage() == {"input_tokens": 0, "output_tokens": 0}


def test_awaits_usage() -> None:
    """Figures may still come until some have come after the last output."""
    assert ChatStream().awaits_usage
    assert fed(HI, STOP)[0].awaits_usage
    assert not fed(HI, STOP, USAGE)[0].awaits_usage
    assert fed(HI, USAGE, STOP)[0].awaits_usage
    assert not fed(HI, STOP, USAGE, DONE)[0].awaits_usage


def test_a_comment_is_no_output() -> None:
    """A keep-alive after the figures does not make the stream wait for others, in one chunk with them or not."""
    assert not fed(HI, USAGE + b": ping\n\n")[0].awaits_usage
    assert not fed(HI, USAGE, b": ping\n\n")[0].awaits_usage


def test_shortest_event() -> None:
    """Even an event of a single byte passes the same wherever the stream is cut."""
    whole, at_once = fed(b":\n\n: left open")
    pieces, in_pieces = fed(b":\n\n", b": left open")
    assert at_once + whole.end() == in_pieces + pieces.end()


def test_half_a_surrogate_pair() -> None:
    """An emoji that is split over two events passes in halves and is counted, with usage on its events or without."""
    halves = [
        rb'data: {"choices":[{"index":0,"delta":{"content":"%s"}}]}' % half + b"\n\n"
        for half in (rb"\ud83d", rb"\ude00")
    ]
    stream, passed = fed(*halves)
    assert passed == b"".join(halves)
    assert len("".join(stream.texts())) > 0
    stream, passed = fed(
        *(half.replace(b"}]}", b'}],"usage":{"prompt_tokens":9,"completion_tokens":4}}') for half in halves)
    )
    assert [json.loads(event[6:])["usage"] for event in passed.split(b"\n\n") if event] == [None, None]
    assert (stream.usage(), bool(stream.texts())) == (FOUND, True)


def test_long_streams() -> None:
    """Of a stream of many megabytes every piece is remembered and passed on."""
    piece = HI.replace(b"Hi", b"x" * 1000)
    stream = ChatStream()
    assert sum(len(stream.feed(piece * 10)) for _ in range(100)) == len(piece) * 1000
    assert stream.texts() == ["x" * 1_000_000]


def test_endless_event() -> None:
    """An event without end is refused before it fills the memory."""
    with pytest.raises(MalformedStream):
        fed(*[b"x" * 1_000_000] * 20)


def test_usage_event() -> None:
    """The closing usage event is the upstream's own, with what the call cost."""
    stream, _ = fed(
        HI,
        b'data: {"id":"c-1","model":"m","choices":[],"usage":{"prompt_tokens":9,"completion_tokens":4,"x":{}}}\n\n',
        DONE,
    )
    assert stream.usage_event("fast", "req_1", None) == {
        "id": "c-1",
        "model": "m",
        "choices": [],
        "usage": {"prompt_tokens": 9, "completion_tokens": 4, "x": {}},
    }


@pytest.mark.parametrize("chunks", [(HI, STOP), (HI, STOP, usage_event(-1, 4)), ()])
def test_usage_event_of_own_count(chunks: tuple[bytes, ...]) -> None:
    """Where Farebox counted itself the usage event says so with its own figures."""
    stream, _ = fed(*chunks)
    chunk = stream.usage_event("fast", "req_1", {"input_tokens": 7, "output_tokens": 2})
    assert chunk["choices"] == []
    assert chunk["usage"] == {"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9}
