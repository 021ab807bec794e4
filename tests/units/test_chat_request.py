"""What a chat request asks for, how its input is bounded, and what the upstream is sent."""

from __future__ import annotations

import json
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.counting import TokenCounter
from proxy.errors import ApiError
from proxy.operations.chat import ChatCall, parse
from tests.units.strategies import json_literals, nasty, properties, space, texts

PARTS = {"image": 1600, "file": 20000, "audio_second": 50}
MESSAGES = [{"role": "user", "content": "Hi"}]
NO_BOOLEANS: list[object] = ["true", 1, 0, [], {}]
NO_OBJECTS: list[object] = ["x", [], 1, True]
NO_NUMBERS: list[object] = [0, -1, 1.0, 1.5, "10", True, False, [10], {}, 2**64, 10**30, -(2**63)]


def body(**members: object) -> bytes:
    return json.dumps({"model": "fast", "messages": MESSAGES, **members}).encode()


def call(**members: object) -> ChatCall:
    return parse(body(**members))


def _counted(counter: TokenCounter, parsed: ChatCall) -> int:
    parts = parsed.input_parts(PARTS)
    return counter.count(part.text for part in parts) + sum(part.tokens for part in parts)


def test_plain() -> None:
    """A plain request is one choice, not streamed, without a limit."""
    plain = call()
    assert (plain.model, plain.stream, plain.include_usage, plain.choices) == ("fast", False, False, 1)
    assert (plain.limit, plain.limit_names, plain.messages) == (None, (), MESSAGES)


def test_nulls() -> None:
    """A member that is null is as good as absent."""
    plain = call(stream=None, stream_options=None, n=None, max_tokens=None, max_completion_tokens=None,
                 service_tier=None, web_search_options=None, audio=None, modalities=None, tools=None)  # fmt: skip
    assert (plain.stream, plain.choices, plain.limit, plain.limit_names) == (False, 1, None, ())


def test_limits() -> None:
    """A limit is read under either name; of two the larger counts, because the upstream may obey either."""
    assert (call(max_tokens=5).limit, call(max_tokens=5).limit_names) == (5, ("max_tokens",))
    assert call(max_completion_tokens=7).limit_names == ("max_completion_tokens",)
    both = call(max_tokens=5, max_completion_tokens=7)
    assert both.limit == 7
    assert set(both.limit_names) == {"max_tokens", "max_completion_tokens"}


def test_usage_wanted() -> None:
    """Only a stream whose options say so wants a usage chunk."""
    assert call(stream=True, stream_options={"include_usage": True}).include_usage
    assert not call(stream=True, stream_options={"include_usage": False}).include_usage
    assert not call(stream=True, stream_options={}).include_usage
    assert not call(stream=True).include_usage
    assert not call(stream_options={"include_usage": True}).include_usage


@pytest.mark.parametrize(
    ("text", "param"),
    [
        (b"", None),
        (b"{", None),
        (b"[]", None),
        (b"null", None),
        (b'"x"', None),
        (b'{"model":"a","messages":[{}]} x', None),
        (b'{"model":"a","messages":[{"content":"\xff"}]}', None),
        (b'{"model":"a","messages":[{}],"n":NaN}', None),
        (b"[" * 5000 + b"]" * 5000, None),
        (b"{}", "model"),
        (b'{"model":null,"messages":[{}]}', "model"),
        (b'{"model":5,"messages":[{}]}', "model"),
        (b'{"model":"","messages":[{}]}', "model"),
        (b'{"model":["fast"],"messages":[{}]}', "model"),
        (b'{"model":"a"}', "messages"),
        (b'{"model":"a","messages":null}', "messages"),
        (b'{"model":"a","messages":"Hi"}', "messages"),
        (b'{"model":"a","messages":[]}', "messages"),
        (b'{"model":"a","messages":{"role":"user"}}', "messages"),
        (b'{"model":"a","messages":["Hi"]}', "messages"),
        (b'{"model":"a","messages":[{},null]}', "messages"),
    ],
)
def test_no_request(text: bytes, param: str | None) -> None:
    """A body that is no chat request is refused with 400 and the field at fault."""
    with pytest.raises(ApiError) as caught:
        parse(text)
    assert (caught.value.status, caught.value.param, caught.value.kind) == (400, param, "invalid_request_error")


@pytest.mark.parametrize(
    ("member", "value"),
    [
        *(("stream", value) for value in NO_BOOLEANS),
        *(("stream_options", value) for value in NO_OBJECTS),
        *(("n", value) for value in [*NO_NUMBERS, 129]),
        *(("max_tokens", value) for value in NO_NUMBERS),
        *(("max_completion_tokens", value) for value in NO_NUMBERS),
    ],
)
def test_wrong_member(member: str, value: object) -> None:
    """A member on which money depends is refused by name where it is not what it must be."""
    with pytest.raises(ApiError) as caught:
        call(**{member: value})
    assert (caught.value.status, caught.value.param) == (400, member)
    assert member in caught.value.message


@pytest.mark.parametrize(
    ("member", "value", "param"),
    [
        ("service_tier", 5, "service_tier"),
        ("service_tier", ["flex"], "service_tier"),
        ("audio", {"voice": "alloy", "format": "mp3"}, "audio"),
        ("modalities", ["text", "audio"], "modalities"),
        ("tools", [{"type": "function"}, {"type": "web_search"}], "tools[1].type"),
    ],
)
def test_unpriced(member: str, value: object, param: str) -> None:
    """What makes the provider charge more than the model's price covers is refused by name."""
    with pytest.raises(ApiError) as caught:
        call(**{member: value})
    assert (caught.value.status, caught.value.code, caught.value.param) == (400, "not_supported", param)


@pytest.mark.parametrize(
    ("member", "value"),
    [
        *(("service_tier", tier) for tier in ("auto", "default", "flex")),
        ("modalities", ["text"]),
        ("tools", [{"type": "function", "function": {"name": "f"}}, {"type": "custom"}]),
        ("tools", "for the upstream to judge"),
        ("n", 128),
        ("max_tokens", 1),
        ("temperature", "hot"),
        ("logit_bias", {"1": 5}),
        ("stream", True),
    ],
)
def test_passed(member: str, value: object) -> None:
    """What costs nothing extra passes; whether it is right is the upstream's to judge."""
    assert call(**{member: value}).model == "fast"


def test_rewritten_model() -> None:
    """Only the model's name differs in what the upstream is sent."""
    text = '{ "messages": [{"role":"user","content":"\\u00e9 1.0"}],\n  "temperature": 1.50, "model" : "fast" }'
    assert parse(text.encode()).rewritten("gpt-4.1", None, "max_tokens").decode() == text.replace('"fast"', '"gpt-4.1"')


def test_rewritten_limits() -> None:
    """A new limit goes under every name that the caller used, else under the upstream's."""
    for names in (["max_tokens"], ["max_completion_tokens"], ["max_tokens", "max_completion_tokens"]):
        sent = orjson.loads(call(**dict.fromkeys(names, 900)).rewritten("m", 64, "max_tokens"))
        assert {name: sent[name] for name in sent if name.startswith("max_")} == dict.fromkeys(names, 64)
    assert orjson.loads(call().rewritten("m", 64, "max_completion_tokens"))["max_completion_tokens"] == 64
    assert "max_tokens" not in orjson.loads(call().rewritten("m", 64, "max_completion_tokens"))
    assert orjson.loads(call(max_tokens=900).rewritten("m", None, "max_tokens"))["max_tokens"] == 900


@pytest.mark.parametrize(
    "options", [None, {}, {"include_usage": False}, {"include_usage": True}, {"include_usage": "no"}]
)
def test_rewritten_stream(options: dict[str, object] | None) -> None:
    """Of every stream usage is asked for, whatever the caller said."""
    given_options = {} if options is None else {"stream_options": options}
    sent = orjson.loads(call(stream=True, **given_options).rewritten("m", None, "max_tokens"))
    assert sent["stream_options"] == {"include_usage": True}
    assert "stream_options" not in orjson.loads(call().rewritten("m", None, "max_tokens"))


def test_rewritten_stream_options_keep_their_text() -> None:
    """Other stream options go on as they were written."""
    options = '{ "x": 1.50, "include_usage":false, "y": 12345678901234567890123}'
    text = '{"model":"a","messages":[{}],"stream":true,"stream_options":' + options + "}"
    assert parse(text.encode()).rewritten("a", None, "max_tokens").decode() == text.replace("false", "true")


def test_rewritten_last_of_two_keys() -> None:
    """Of a key written twice the upstream gets the one that was checked and is billed."""
    text = b'{"model":"a","n":100,"messages":[{}],"n":1}'
    assert parse(text).choices == 1
    sent = json.loads(parse(text).rewritten("b", None, "max_tokens"), object_pairs_hook=list)
    assert [value for name, value in sent if name == "n"] == [1]


@properties
@given(st.dictionaries(st.text("abc", min_size=1, max_size=3), json_literals, max_size=4), space)
def test_rewritten_keeps_the_rest(extra: dict[str, str], gap: str) -> None:
    """Members that Farebox does not know reach the upstream byte for byte."""
    rest = "".join(f',{gap}"{name}"{gap}:{value}' for name, value in extra.items())
    tail = ',"messages":[{"role":"user"}]' + rest + gap + "}"
    assert parse(f'{{"model":"a"{tail}'.encode()).rewritten("b", None, "max_tokens").decode() == f'{{"model":"b"{tail}'


@pytest.mark.parametrize("depth", [100, 300, 900, 1010])
def test_deep_nesting(depth: int) -> None:
    """A body nested as deeply as JSON readers allow is refused, or it can be counted and sent."""
    nested = b'{"model":"a","messages":[{"role":"user"}],"tools":' + b"[" * depth + b"]" * depth + b"}"
    try:
        deep = parse(nested)
    except ApiError:
        return
    assert deep.input_parts(PARTS)
    assert deep.rewritten("b", None, "max_tokens") == nested.replace(b'"a"', b'"b"')


def test_bound_takes_payloads_out() -> None:
    """An image, a file and a second of speech are put at their part's tokens, not at the bytes of their payload."""
    payload = "A" * 400_000
    parts = [
        {"type": "text", "text": "What is this?"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64," + payload}},
        {"type": "file", "file": {"file_data": payload, "filename": "a.pdf"}},
        {"type": "input_audio", "input_audio": {"data": payload, "format": "mp3"}},
    ]
    bound = call(messages=[{"role": "user", "content": parts}]).input_bound(PARTS)
    least = 1600 + 20_000 + 300 * 50
    assert least < bound < least + 1000


words = (
    texts
    | nasty
    | st.text(max_size=40).filter(lambda text: text.isprintable())
    | st.text("0123456789 \n.", max_size=30)
)
free: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(-1e6, 1e6) | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=6,
)
parts = st.one_of(
    st.builds(lambda text: {"type": "text", "text": text}, words),
    st.builds(lambda url: {"type": "image_url", "image_url": {"url": url, "detail": "low"}}, words),
    st.builds(lambda url: {"type": "image_url", "image_url": url}, words),
    st.builds(lambda data: {"type": "input_audio", "input_audio": {"data": data, "format": "wav"}}, words),
    st.builds(lambda data: {"type": "file", "file": {"file_data": data}}, words),
    st.builds(lambda key: {"type": "file", "file": {"file_id": key}}, words),
    st.builds(lambda text: {"type": "refusal", "refusal": text}, words),
    free,
)
messages = st.fixed_dictionaries(
    {
        "role": st.sampled_from(["system", "user", "assistant", "tool"]),
        "content": words | st.none() | st.lists(parts, max_size=3),
    },
    optional={
        "name": words,
        "refusal": words,
        "tool_calls": st.lists(
            st.builds(
                lambda name, text: {"id": "c1", "type": "function", "function": {"name": name, "arguments": text}},
                words,
                words,
            ),
            max_size=2,
        ),
    },
)
tools = st.builds(
    lambda name, schema: {"type": "function", "function": {"name": name, "parameters": schema}}, words, free
)
requests = st.fixed_dictionaries(
    {"model": st.just("fast"), "messages": st.lists(messages, min_size=1, max_size=4)},
    optional={
        "tools": st.lists(tools, max_size=2),
        "response_format": st.dictionaries(words, free, max_size=2),
        "user": words,
    },
)


@properties
@given(request=requests, ascii_only=st.booleans(), compact=st.booleans())
def test_bound_is_never_below_the_count(
    counter: TokenCounter, request: dict[str, Any], ascii_only: bool, compact: bool
) -> None:
    """The bound that decides a hold without counting is at least what counting finds, in any script and shape."""
    text = json.dumps(request, ensure_ascii=ascii_only, separators=(",", ":") if compact else None)
    parsed = parse(text.encode())
    assert parsed.input_bound(PARTS) >= _counted(counter, parsed)


@pytest.mark.parametrize(
    "text",
    [
        b'{"model":"a","messages":[{"role":"user"}],"tools":[' + b",".join([b"1e15"] * 1000) + b"]}",
        b'{"model":"a","messages":[' + b",".join([b"{}"] * 1000) + b"]}",
    ],
    ids=["numbers with exponents", "messages without members"],
)
def test_bound_of_short_spellings(counter: TokenCounter, text: bytes) -> None:
    """The bound holds also where a body spells in a few bytes what is counted as more."""
    parsed = parse(text)
    assert parsed.input_bound(PARTS) >= _counted(counter, parsed)


def test_counted_texts() -> None:
    """Everything that the model reads is counted: contents, names, tool calls, tools and formats."""
    parsed = call(
        messages=[
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "PART"},
                    {"type": "image_url", "image_url": {"url": "data:PIXELS"}},
                ],
            },
            {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "NAME", "arguments": "ARGS"}}]},
            {"role": "tool", "content": "RESULT"},
        ],
        tools=[{"type": "function", "function": {"name": "TOOL"}}],
        functions=[{"name": "OLD"}],
        response_format={"type": "FORMAT"},
    )
    joined = "\n".join(part.text for part in parsed.input_parts(PARTS))
    for word in ("user", "PART", "NAME", "ARGS", "RESULT", "TOOL", "OLD", "FORMAT"):
        assert word in joined
    assert "PIXELS" not in joined


def test_input_by_role_and_kind(counter: TokenCounter) -> None:
    """Each part is known by whose it is and what kind, and what can't be counted is put at its configured tokens."""
    parsed = call(
        messages=[
            {"role": "system", "content": "Be brief"},
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "What is this?"},
                    {"type": "image_url", "image_url": {"url": "data:PIXELS"}},
                    {"type": "input_audio", "input_audio": {"data": "A" * 4000}},
                    {"type": "file", "file": {"file_data": "F"}},
                ],
            },
            {"role": "assistant", "tool_calls": [{"function": {"name": "NAME"}}]},
            {"role": "somebody", "content": "x"},
        ],
        tools=[{"type": "function"}],
    )
    parts = [(part.role, part.kind, part.tokens) for part in parsed.input_parts(PARTS)]
    assert parts == [
        ("chat", "format", 3 + 3 * 4),
        ("system", "format", 0),
        ("system", "text", 0),
        ("user", "format", 0),
        ("user", "text", 0),
        ("user", "image", 1600),
        ("user", "audio", 50 * 4),
        ("user", "file", 20000),
        ("assistant", "format", 0),
        ("assistant", "tool_calls", 0),
        ("other", "format", 0),
        ("other", "text", 0),
        ("tools", "definition", 0),
    ]


@pytest.mark.parametrize("name", ["Max_Tokens", "MODEL", "Stream", "N"])
def test_other_spellings_of_what_is_billed(name: str) -> None:
    """A member that a careless upstream would read as the model or a limit is refused: it would escape the meter."""
    with pytest.raises(ApiError) as refused:
        parse(f'{{"model":"a","messages":[{{"role":"user"}}],"max_tokens":1,"{name}":100000}}'.encode())
    assert (refused.value.status, refused.value.param) == (400, name)
