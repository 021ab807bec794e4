"""Changing members of a JSON object in its text."""

from __future__ import annotations

import json
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.operations.splice import splice
from tests.units.strategies import json_literals, properties, space, string_literals

NAMES = ["model", "max_tokens", "stream", "a", "", "mo", "usage", "é", 'q"', "\\"]


@dataclass(frozen=True)
class Member:
    before: str
    name: str
    value: str
    after: str


@st.composite
def members(draw: st.DrawFn, *, unique: bool) -> list[Member]:
    names = draw(st.lists(st.sampled_from(NAMES), max_size=5, unique=unique))
    drawn = []
    for name in names:
        key = draw(string_literals(st.just(name)))
        before = draw(space) + key + draw(space) + ":" + draw(space)
        drawn.append(Member(before, name, draw(json_literals), draw(space)))
    return drawn


def write(drawn: list[Member], values: dict[str, str]) -> str:
    return "{" + ",".join(m.before + values.get(m.name, m.value) + m.after for m in drawn)


changes = st.dictionaries(st.sampled_from(NAMES), json_literals, max_size=3)


@properties
@given(members(unique=True), changes, space, space, space)
def test_everything_else_keeps_its_text(
    drawn: list[Member], new: dict[str, str], inner: str, before: str, after: str
) -> None:
    """Changed values are replaced where they stand, new ones come last, and every other byte is the sender's."""
    inner = "" if drawn else inner
    text = before + write(drawn, {}) + inner + "}" + after
    spliced = splice(text.encode(), {name: value.encode() for name, value in new.items()}).decode()
    head = before + write(drawn, new) + inner
    assert spliced.startswith(head)
    assert spliced.endswith("}" + after)
    missing = [name for name in new if name not in {m.name for m in drawn}]
    if not missing:
        assert spliced == head + "}" + after
    added = spliced[len(head) : len(spliced) - len("}" + after)].removeprefix("," if drawn else "")
    assert json.loads("{" + added + "}") == {name: json.loads(new[name]) for name in missing}


@properties
@given(members(unique=False), changes, space)
def test_means_what_was_asked(drawn: list[Member], new: dict[str, str], around: str) -> None:
    """The result reads as the object with the changes, the last of two equal keys counting, and no key stands twice."""
    text = around + write(drawn, {}) + "}" + around
    expected = json.loads(text) | {name: json.loads(value) for name, value in new.items()}
    spliced = splice(text.encode(), {name: value.encode() for name, value in new.items()}).decode()
    pairs = json.loads(spliced, object_pairs_hook=list)
    assert json.loads(spliced) == expected
    assert sorted(name for name, _ in pairs) == sorted(expected)
    last = {m.name: m.value for m in drawn}
    for name, value in last.items():
        if name not in new:
            assert value in spliced


@properties
@given(members(unique=True), space)
def test_no_change(drawn: list[Member], around: str) -> None:
    """Nothing to change leaves every byte as it is."""
    text = (around + write(drawn, {}) + "}" + around).encode()
    assert splice(text, {}) == text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"model":"a"}', '{"model":"b"}'),
        ('{ "model" : "a" }', '{ "model" : "b" }'),
        ('{"x":{"model":"a"},"model":"a"}', '{"x":{"model":"a"},"model":"b"}'),
        ('{"x":"\\"model\\":\\"a\\"","model":null}', '{"x":"\\"model\\":\\"a\\"","model":"b"}'),
        ('{"\\u006dodel":"a"}', '{"\\u006dodel":"b"}'),
        ("{}", '{"model":"b"}'),
        ("{ }\n", '{ "model":"b"}\n'),
        ('{"x":1.50}', '{"x":1.50,"model":"b"}'),
        ('{"model":"a","model":"a"}', '{"model":"b"}'),
        ('{"model":12,"x":1E5,"model":1}', '{"model":"b","x":1E5}'),
        ('{"x":1,"x":1,"model":"a"}', '{"x":1,"model":"b"}'),
    ],
)
def test_cases(text: str, expected: str) -> None:
    """Setting `model` touches the object's own member and no other."""
    assert splice(text.encode(), {"model": b'"b"'}).decode() == expected


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b" ",
        b"[]",
        b"1",
        b'"{}"',
        b"null",
        b"{",
        b"}",
        b'{"a":1',
        b'{"a":1}}',
        b'{"a":1} x',
        b"{'a':1}",
        b'{"a":}',
        b'{"a":NaN}',
    ],
)
def test_no_object(text: bytes) -> None:
    """What is no JSON object is refused as a value."""
    with pytest.raises(ValueError, match=r".+"):
        splice(text, {"a": b"1"})
