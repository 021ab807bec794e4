"""The operator's file as nodes: what is wrong is refused with its line and the fix."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pricing.document import Document, Node
from pricing.errors import ConfigError
from tests.pricing.cards import properties


def root(text: str, environment: Mapping[str, str] | None = None) -> Node:
    return Document("config.yaml", text, environment or {}).root()


def value(text: str, environment: Mapping[str, str] | None = None) -> Node:
    return root(f"a:\n  b: {text}\n", environment).members()["a"].members()["b"]


def refusal(read: Callable[[], object]) -> str:
    with pytest.raises(ConfigError) as caught:
        read()
    assert str(caught.value).startswith(f"config.yaml:{caught.value.line}: ")
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "environment", "expected"),
    [
        ('"${KEY}"', {"KEY": "abc"}, "abc"),
        ("${KEY}", {"KEY": "abc"}, "abc"),
        ('"a-${KEY}-${KEY}/${OTHER:-x}"', {"KEY": "1"}, "a-1-1/x"),
        ('"${KEY:-d}"', {}, "d"),
        ('"${KEY:-d}"', {"KEY": ""}, "d"),
        ('"${KEY:-d}"', {"KEY": "v"}, "v"),
        ('"${KEY:-sqlite:///a.db}"', {}, "sqlite:///a.db"),
        ('"${KEY}"', {"KEY": "${OTHER}"}, "${OTHER}"),
        ('"${KEY}"', {"KEY": "a: [b"}, "a: [b"),
        ('"$KEY {KEY}"', {"KEY": "v"}, "$KEY {KEY}"),
    ],
)
def test_environment(text: str, environment: Mapping[str, str], expected: str) -> None:
    """`${NAME}` is the environment's text and nothing else; `:-` gives what stands for a missing or empty one."""
    assert value(text, environment).text() == expected


def test_missing_variable() -> None:
    """A variable that is missing and has no default is named, at its line."""
    message = refusal(value('"x-${MY_KEY}"', {"OTHER": "1"}).text)
    assert message.startswith("config.yaml:2: a.b: ")
    assert "MY_KEY" in message


def test_empty_values() -> None:
    """An empty value is refused unless it means something there, as an empty api_key does."""
    assert value('"${KEY:-}"').text(empty=True) == ""
    assert value('""').text(empty=True) == ""
    assert "is empty" in refusal(value('"${KEY:-}"').text)
    assert "has no value" in refusal(value("").text)


@pytest.mark.parametrize(
    ("text", "line", "fix"),
    [
        ("a: 1\nb: 2\na: 3\n", 3, "`a` stands here twice (first on line 1); remove one"),
        ("a: 1\n\nc: 2\n", 3, "unknown key `c`"),
        ("a: 1\nalpah: 2\n", 2, "did you mean `alpha`?"),
        ("a: 1\nplans: {}\n", 2, "`plans` is not supported by this release"),
        ("a: 1\n<<: {b: 2}\n", 2, "merge keys"),
        ("a: 1\n? [x, y]\n: 2\n", 2, "a key must be a plain name"),
        ("a: 1\n? {x: y}\n: 2\n", 2, "a key must be a plain name"),
    ],
)
def test_keys(text: str, line: int, fix: str) -> None:
    """Duplicate, unknown, later, merged and composite keys are refused at their line."""
    message = refusal(lambda: root(text).fields(("a", "b", "alpha"), ("plans",)))
    assert message.startswith(f"config.yaml:{line}: ")
    assert fix in message


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", 1),
        ("# nothing\n", 1),
        ("- a\n- b\n", 1),
        ("just text\n", 1),
        ("a: 1\nb: \0\n", 2),
        ("a: 1\nb: [1, 2\n", 3),
        ("a: 1\nb: {c: 1\nd: 2\n", 3),
        ("a: 1\n\tb: 2\n", 2),
        ("a: 1\nb: *nowhere\n", 2),
        ("a: 'open\n\n", 3),
        ("a: 1\n--- \nb: 2\n", 2),
        ("a: 1\nb: %x\n", 2),
        ("a: 1\nb: @x\n", 2),
        ("a: b: c\n", 1),
        ("a: 1\n  b: 2\n", 2),
    ],
)
def test_no_yaml_mapping(text: str, line: int) -> None:
    """What is not one well-formed YAML mapping is refused at the line where it stops being one."""
    assert refusal(lambda: root(text)).startswith(f"config.yaml:{line}: ")


@pytest.mark.parametrize("character", ["\x01", "\x7f", "\ufffe"])
def test_unprintable_character(character: str) -> None:
    """A character that YAML does not allow is refused at the line on which it stands."""
    assert refusal(lambda: root(f"a: 1\nb: 2\nc: x{character}y\n")).startswith("config.yaml:3: ")


def test_aliases() -> None:
    """An alias reads as what it stands for."""
    members = root("a: &a {b: 5}\nc: *a\n").members()
    assert members["c"].members()["b"].text() == "5"


def walk(node: Node) -> None:
    if node.is_mapping:
        for child in node.members().values():
            walk(child)
    elif node.is_list:
        for child in node.items():
            walk(child)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a: &a {b: *a}\n", 1),
        ("a: &a [*a]\n", 1),
        ("b: 1\nc: &c {d: {e: *c}}\n", 2),
        ("b: 1\na: " + "[" * 200 + "]" * 200 + "\n", 2),
        ("a: " + "{b: " * 200 + "1" + "}" * 200 + "\n", 1),
    ],
)
def test_depth(text: str, line: int) -> None:
    """A value that contains itself, or is nested beyond all use, ends in a refusal."""
    assert refusal(lambda: walk(root(text))).startswith(f"config.yaml:{line}: ")


def test_nesting_that_would_exhaust_the_stack() -> None:
    """Even 100,000 brackets are refused; they don't take the process down."""
    program = (
        "from pricing.document import Document\n"
        "from pricing.errors import ConfigError\n"
        "try: Document('c', 'a: ' + '[' * 100_000 + ']' * 100_000, {}).root().members()['a'].text()\n"
        "except ConfigError: print('refused')\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, "refused")


def test_shapes() -> None:
    """Scalars, lists and mappings are not taken for one another."""
    assert "must be a list" in refusal(value("5").items)
    assert "must be a mapping" in refusal(value("5").members)
    assert "must be a mapping" in refusal(value("[5]").members)
    assert "single value" in refusal(value("[5]").text)
    assert "single value" in refusal(value("{c: 5}").text)
    assert [item.text() for item in value("[x, y]").items()] == ["x", "y"]
    assert value("~").is_null
    assert not value('"~"').is_null


@pytest.mark.parametrize("text", ["0", "11", "1.0", "1e1", "0x5", "ten", "true", "''", "5 5", "\u0665", "9" * 30])
def test_integer_refused(text: str) -> None:
    """A whole number within bounds is wanted: nothing else will do."""
    refusal(lambda: value(text).integer(1, 10))


def test_numbers() -> None:
    """Whole numbers and decimals are read exactly; `_` may group digits."""
    assert value("10").integer(1, 10) == 10
    assert value("-3").integer(-5, 10) == -3
    assert value("16_384").integer(1, 10**6) == 16384
    assert value("0.01").decimal() == Decimal("0.01")
    assert value("0.1").decimal() + value("0.2").decimal() == Decimal("0.3")


@pytest.mark.parametrize(
    ("text", "fix"),
    [
        ("-1", "negative"),
        ("1e-2", "such as"),
        (".inf", "such as"),
        ("nan", "such as"),
        ("1,5", "such as"),
        ("5.", "such as"),
    ],
)
def test_decimal_refused(text: str, fix: str) -> None:
    """A decimal is plain and not negative."""
    assert fix in refusal(lambda: value(text).decimal())


@pytest.mark.parametrize(
    ("text", "seconds"), [("5s", 5.0), ("500ms", 0.5), ("10m", 600.0), ("1h", 3600.0), ("2.5s", 2.5)]
)
def test_durations(text: str, seconds: float) -> None:
    """A duration carries its unit."""
    assert value(text).seconds() == seconds


@pytest.mark.parametrize("text", ["5", "0s", "-1s", "5 s", "1d", "s", "1e3s", "infs", "0.0ms"])
def test_durations_refused(text: str) -> None:
    """A duration without unit, or of nothing, is refused."""
    assert "such as 5s" in refusal(value(text).seconds)


def test_choices() -> None:
    """One of a few words, or a refusal that lists them; true and false in any case of letters."""
    assert value("cancel").choice(("cancel", "finish")) == "cancel"
    assert "cancel, finish" in refusal(lambda: value("stop").choice(("cancel", "finish")))
    assert value("True").boolean() is True
    assert value("false").boolean() is False
    for text in ("yes", "1", "on"):
        refusal(value(text).boolean)


@properties
@given(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=60) | st.text("ab: -[]{}&*!|>'\"%@`#?,\n\t", max_size=40)
)
def test_any_text(text: str) -> None:
    """Whatever the file contains, reading it gives values or a config error, never another exception."""
    with suppress(ConfigError):
        walk(root(text))
