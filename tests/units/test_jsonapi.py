"""How Farebox's own routes write times and lists and read what they are sent."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from starlette.requests import Request
from starlette.types import Message

from ledger.model import NEVER
from proxy.errors import ApiError
from proxy.jsonapi import Fields, page, parse_timestamp, read_fields, read_page, timestamp
from tests.units.strategies import properties


@pytest.mark.parametrize(
    ("microseconds", "text"),
    [
        (None, None),
        (NEVER, None),
        (0, "1970-01-01T00:00:00Z"),
        (1_795_302_000_000_000, "2026-11-21T23:00:00Z"),
        (1_795_302_000_500_000, "2026-11-21T23:00:00.500000Z"),
        (1_795_302_000_000_001, "2026-11-21T23:00:00.000001Z"),
        (-1, "1969-12-31T23:59:59.999999Z"),
    ],
)
def test_timestamp(microseconds: int | None, text: str | None) -> None:
    """Times are RFC 3339 in UTC, exact to the microsecond; never and none are null."""
    assert timestamp(microseconds) == text


moments = st.datetimes(timezones=st.builds(lambda m: timezone(timedelta(minutes=m)), st.integers(-14 * 60, 14 * 60)))


@properties
@given(moments)
@example(datetime(9999, 12, 31, 23, 59, 59, tzinfo=timezone(timedelta(hours=-12))))
@example(datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=12))))
def test_a_time_that_is_read_can_be_written(moment: datetime) -> None:
    """A time in any offset is refused, or it is read and written again as the same moment."""
    try:
        microseconds = parse_timestamp(moment.isoformat(), "since")
    except ApiError:
        return
    text = timestamp(microseconds)
    assert text is not None
    assert text.endswith("Z")
    assert datetime.fromisoformat(text) == moment
    assert parse_timestamp(text, "since") == microseconds


def test_offsets() -> None:
    """The same moment in two offsets is one time."""
    assert parse_timestamp("2026-11-22T00:00:00+01:00", "t") == parse_timestamp("2026-11-21T23:00:00Z", "t")


@pytest.mark.parametrize(
    "text",
    [
        None,
        5,
        1.5,
        True,
        "",
        "now",
        "2026-11-21",
        "2026-11-21T23:00:00",
        "2026-13-01T00:00:00Z",
        "2026-11-21T24:01:00Z",
        "1795302000",
        [],
    ],
)
def test_no_time(text: object) -> None:
    """A time without its offset, or none at all, is refused with its field."""
    with pytest.raises(ApiError) as caught:
        parse_timestamp(text, "until")
    assert (caught.value.status, caught.value.param) == (422, "until")


def request(query: str = "", body: bytes = b"") -> Request:
    async def receive() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    return Request({"type": "http", "method": "POST", "headers": [], "query_string": query.encode()}, receive)


@pytest.mark.parametrize(
    ("query", "limit", "after"),
    [
        ("", 50, None),
        ("limit=1", 1, None),
        ("limit=1000", 1000, None),
        ("limit=1001", 1000, None),
        ("limit=99999999999999999999", 1000, None),
        ("limit=7&after=req_1", 7, "req_1"),
    ],
)
def test_page_size(query: str, limit: int, after: str | None) -> None:
    """A list has 50 rows unless told otherwise, and never more than 1,000."""
    assert read_page(request(query)) == (limit, after)


@pytest.mark.parametrize("limit", ["0", "-1", "", "x", "1.5", "%D9%A3", "000", "1e3"])
def test_no_page_size(limit: str) -> None:
    """A limit that is no whole number above 0 is refused by name."""
    with pytest.raises(ApiError) as caught:
        read_page(request(f"limit={limit}"))
    assert (caught.value.status, caught.value.param) == (422, "limit")


@pytest.mark.parametrize(("count", "limit", "more"), [(0, 2, False), (1, 2, False), (2, 2, False), (3, 2, True)])
def test_page(count: int, limit: int, more: bool) -> None:
    """A list says whether there is more, and where it goes on."""
    items = [{"id": f"req_{number}"} for number in range(count)]
    listed = json.loads(bytes(page(items, limit).body))
    shown = items[:limit]
    assert listed == {"object": "list", "data": shown, "has_more": more, "next": shown[-1]["id"] if more else None}


async def test_fields() -> None:
    """A body's members are read by name; an empty body has none."""
    fields = await read_fields(request(body=b'{"name": "Ann", "credits": "12.5"}'), ("name", "credits", "kind"))
    assert fields.text("name") == "Ann"
    assert fields.credits("credits") == 12_500_000_000
    assert fields.choice("kind", ("user", "team"), "user") == "user"
    assert (await read_fields(request(), ("name",))).text("name") is None
    assert (await read_fields(request(body=b'{"later": null}'), (), ("later",))).text("later") is None


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        (b"{", 400, None),
        (b"[]", 400, None),
        (b"\xff", 400, None),
        (b'"x"', 400, None),
        (b'{"nmae": "x"}', 422, "nmae"),
        (b'{"plan": "x"}', 400, "plan"),
        (b'{"name": "' + b"x" * 1_000_001 + b'"}', 413, None),
    ],
)
async def test_no_fields(body: bytes, status: int, param: str | None) -> None:
    """A body that is none, too large, or has members that are unknown or of a later release is refused by name."""
    with pytest.raises(ApiError) as caught:
        await read_fields(request(body=body), ("name",), ("plan",))
    assert (caught.value.status, caught.value.param) == (status, param)


READERS: list[tuple[Callable[[Fields], object], list[Any]]] = [
    (lambda fields: fields.text("x"), ["", " ", 5, True, [], "a\nb", "a\0b", "x" * 201]),
    (lambda fields: fields.text("x", required=True), [None]),
    (lambda fields: fields.choice("x", ("a", "b"), "a"), ["c", 1, ["a"], ""]),
    (lambda fields: fields.credits("x"), [None, 1.5, "1e3", "0", 0, -1, "NaN", True, "1.0000000001", 10**9 + 1]),
    (lambda fields: fields.credits("x", zero=True), [-1, "-0.5", 0.0]),
    (lambda fields: fields.time("x"), ["now", 5, "2026-11-21"]),
]


@pytest.mark.parametrize(("read", "value"), [(read, value) for read, values in READERS for value in values])
def test_wrong_field(read: Callable[[Fields], object], value: object) -> None:
    """A member that is not what it must be is refused with 422 and its name."""
    with pytest.raises(ApiError) as caught:
        read(Fields({"x": value}))
    assert (caught.value.status, caught.value.param) == (422, "x")
    assert "`x`" in caught.value.message


def test_optional_fields() -> None:
    """What is absent or null has its default."""
    for members in ({}, {"x": None}):
        fields = Fields(dict(members))
        assert (fields.text("x"), fields.time("x")) == (None, None)
        assert fields.choice("x", ("a", "b"), "b") == "b"
        assert fields.credits("x", default=0) == 0
    assert Fields({"x": 0}).credits("x", zero=True) == 0
    assert (
        Fields({"x": "2026-11-21T23:00:00Z"}).time("x")
        == int(datetime(2026, 11, 21, 23, tzinfo=UTC).timestamp()) * 10**6
    )
