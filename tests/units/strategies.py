"""JSON as clients and upstreams write it: any spacing, any escapes, any depth that is sane."""

from __future__ import annotations

import json

from hypothesis import settings
from hypothesis import strategies as st

properties = settings(deadline=None, derandomize=True, max_examples=150)

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
"""Text without lone surrogates."""

# What a careless search for a member's name, the end of an object or the end of a stream would stumble over.
nasty = st.sampled_from([
    '"usage": {', '"usage":{"prompt_tokens":1}', "[DONE]", "data: [DONE]", '"error": {', '{"model": "x"}',
    "}", "{", '"', "\\", '\\"', ",", "\n\n", "\r\n\r\n", "data: ", "😀", "é", "\u2028", "\x00", "", "stop", "null",
])  # fmt: skip

space = st.text(" \t\r\n", max_size=2)


@st.composite
def string_literals(draw: st.DrawFn, of: st.SearchStrategy[str] = texts | nasty) -> str:
    """Draw a JSON string with characters escaped or not, as its writer pleased."""
    text = draw(of)
    written = json.dumps(text, ensure_ascii=draw(st.booleans()))
    if text and draw(st.booleans()) and ord(text[0]) < 0x10000:
        written = f'"\\u{ord(text[0]):04x}' + json.dumps(text[1:])[1:]
    return written.replace("/", "\\/") if draw(st.booleans()) else written


number_literals = st.sampled_from(
    [
        "0",
        "-0",
        "1",
        "12",
        "-7",
        "1.50",
        "0.1",
        "1e5",
        "1E+5",
        "-2.5e-3",
        "9007199254740993",
        "123456789012345678901234567890",
    ]
)
scalar_literals = st.sampled_from(["null", "true", "false"]) | number_literals | string_literals()


@st.composite
def _lists(draw: st.DrawFn, of: st.SearchStrategy[str]) -> str:
    items = draw(st.lists(of, max_size=3))
    return "[" + ",".join(draw(space) + item + draw(space) for item in items) + draw(space) + "]"


@st.composite
def _objects(draw: st.DrawFn, of: st.SearchStrategy[str]) -> str:
    items = [(draw(string_literals()), draw(of)) for _ in range(draw(st.integers(0, 3)))]
    members = (draw(space) + key + draw(space) + ":" + draw(space) + item + draw(space) for key, item in items)
    return "{" + ",".join(members) + draw(space) + "}"


json_literals: st.SearchStrategy[str] = st.recursive(
    scalar_literals, lambda inner: _lists(inner) | _objects(inner), max_leaves=6
)
"""The text of any JSON value."""
