"""Requests made of the server's own description: for each route what fits it, and what almost does."""

from __future__ import annotations

import json
from functools import partial
from typing import Any

from hypothesis import strategies as st

__all__ = ["Request", "json_values", "mutated_chats", "operations", "requests"]

_Schema = dict[str, Any]
Request = tuple[str, str, dict[str, str], Any]
"""Method, path, query parameters, body."""

_texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12) | st.sampled_from(
    ["", "0", "-1", "1e3", "null", "\x00", "é" * 70, "a" * 3000, "%", "'", '"', "../..", "acct_", "req_" + "0" * 32]
)
_numbers = st.sampled_from([0, 1, -1, 128, 129, 2**31, 2**53, 2**63, 2**64, 10**30, 0.5, 1.0, -0.0, 1e300])

json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | _numbers | _texts,
    lambda of: st.lists(of, max_size=3) | st.dictionaries(_texts, of, max_size=3),
    max_leaves=6,
)
"""Anything that JSON can say."""

_TIMES = st.sampled_from(
    ["2026-11-21T00:00:00Z", "2099-01-01T00:00:00+14:00", "1969-12-31T23:59:59Z", "9999-12-31T23:59:59Z", "0001-01-01"]
)
_AMOUNTS = st.sampled_from(["1", "0.000000001", "12.5", "1000000000", "0", "-1", "-0.5", "0.0000000001", "1e3", 3, 1.5])


def operations(document: _Schema) -> list[tuple[str, str, _Schema]]:
    """List every (method, path, operation) of the description."""
    return [
        (method, path, operation)
        for path, methods in sorted(document["paths"].items())
        for method, operation in sorted(methods.items())
    ]


def _of(schema: _Schema, document: _Schema, name: str = "") -> st.SearchStrategy[Any]:
    """Draw what a schema admits; free texts and numbers are drawn beyond what it admits, too."""
    if "$ref" in schema:
        of = schema["$ref"].rpartition("/")[2]
        return _of(document["components"]["schemas"][of], document, of)
    if name.endswith("AmountSent"):
        return _AMOUNTS
    if "anyOf" in schema:
        return st.one_of([_of(one, document) for one in schema["anyOf"]])
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    kind = schema.get("type")
    if isinstance(kind, list):
        return st.none() | _of({**schema, "type": kind[0]}, document)
    if kind == "array":
        return st.lists(_of(schema.get("items", {}), document), max_size=3)
    if kind == "object":
        members = {name: _of(member, document) for name, member in schema.get("properties", {}).items()}
        needed = {name: members.pop(name) for name in schema.get("required", ()) if name in members}
        return st.fixed_dictionaries(needed, optional=members)
    if kind == "boolean":
        return st.booleans()
    if kind == "integer":
        return _numbers
    return _TIMES if schema.get("format") == "date-time" else _texts


def _bodies(operation: _Schema, document: _Schema) -> st.SearchStrategy[Any]:
    """Draw a body for an operation: as described, with a member replaced or added, or anything."""
    if "requestBody" not in operation:
        return st.none()
    fitting = _of(operation["requestBody"]["content"]["application/json"]["schema"], document)
    names = st.sampled_from(["reason", "credits", "bucket", "name", "status", "body", "endpoint", "x"])
    spoilt = st.builds(lambda body, name, value: {**body, name: value}, fitting, names, json_values)
    return st.one_of(fitting, fitting, spoilt, json_values)


def requests(document: _Schema, ids: dict[str, list[str]]) -> st.SearchStrategy[Request]:
    """Draw a method, a path, query parameters and a body; ids: what path parameters may be, by name."""
    return st.one_of([_request(*operation, document, ids) for operation in operations(document)])


def _request(
    method: str, path: str, operation: _Schema, document: _Schema, ids: dict[str, list[str]]
) -> st.SearchStrategy[Request]:
    paths: st.SearchStrategy[str] = st.just(path)
    query: dict[str, st.SearchStrategy[str]] = {}
    for parameter in operation.get("parameters", ()):
        name = parameter["name"]
        if parameter["in"] == "path":
            values = st.sampled_from(ids[name]) | _texts.filter(lambda text: text not in ("", "../.."))
            paths = values.map(partial(path.replace, f"{{{name}}}"))
        elif parameter["in"] == "query":
            query[name] = (_of(parameter["schema"], document) | _texts).map(str)
    return st.tuples(
        st.just(method.upper()), paths, st.fixed_dictionaries({}, optional=query), _bodies(operation, document)
    )


_BODY: dict[str, Any] = {
    "model": "words",
    "messages": [{"role": "user", "content": "Hello world"}],
    "max_tokens": 40,
    "n": 1,
    "stream": False,
    "stream_options": {"include_usage": True},
    "tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}],
    "service_tier": "auto",
    "response_format": {"type": "json_object"},
    "web_search_options": {},
}
_CONTENTS = st.sampled_from(
    [
        [{"type": "text", "text": "Hello"}],
        [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}],
        [{"type": "image_url", "image_url": "x"}, {"type": "input_audio", "input_audio": {"data": "AAAA"}}],
        [{"type": "file", "file": {"file_data": 5}}],
        [{"text": None}, {"image_url": {}}, 7, None, "text"],
    ]
)


@st.composite
def mutated_chats(draw: st.DrawFn) -> bytes:
    """Draw a chat's body with members left out, replaced and added, and now and then bytes that are no JSON."""
    body = {name: value for name, value in _BODY.items() if name in ("model", "messages") or draw(st.booleans())}
    body["model"] = draw(st.sampled_from(["words", "plain", "other", "least"]))
    body["stream"] = draw(st.booleans())
    for name in draw(st.lists(st.sampled_from([*_BODY, "audio", "Model", "usage", "metadata"]), max_size=2)):
        body[name] = draw(json_values | _numbers)
    if draw(st.booleans()):
        body["messages"] = [{"role": "user", "content": draw(_CONTENTS | json_values)}]
    text = json.dumps(body, ensure_ascii=draw(st.booleans())).encode()
    damage = draw(st.integers(0, 20))
    if damage == 0:
        text = text[: draw(st.integers(0, len(text)))]
    elif damage == 1:
        at = draw(st.integers(0, len(text) - 1))
        text = text[:at] + draw(st.binary(max_size=3)) + text[at + 1 :]
    return text
