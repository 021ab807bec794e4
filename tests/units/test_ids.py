"""Ids as people see them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.ids import IdSource
from proxy.ids import account_id, object_id, parse_account, parse_object
from tests.units.strategies import properties

numbers = st.integers(0, 2**63 - 1)
prefixes = st.sampled_from(["key", "grant", "hold", "req", "app", "team", "pay", "rev"])


@properties
@given(numbers)
def test_account_round_trip(account: int) -> None:
    """An account's id reads back as the account."""
    assert account_id(account).startswith("acct_")
    assert parse_account(account_id(account)) == account


@properties
@given(prefixes, numbers, numbers)
def test_object_round_trip(prefix: str, own: int, account: int) -> None:
    """An object's id reads back as its own number and its account, so that it routes without an index."""
    text = object_id(prefix, own, account)
    assert text.startswith(prefix + "_")
    assert parse_object(prefix, text) == (own, account)
    assert parse_account(text) is None


@properties
@given(numbers, numbers, numbers, numbers)
def test_ids_sort_by_time(one: int, other: int, account: int, another: int) -> None:
    """As texts, objects sort like their numbers, which grow with time, whoever owns them."""
    if one != other:
        assert (object_id("req", one, account) < object_id("req", other, another)) == (one < other)
    assert (account_id(one) < account_id(other)) == (one < other)


def test_ids_of_a_source_sort() -> None:
    """Ids made one after the other sort in that order, even where the clock stands still or goes back."""
    clock = iter([1_800_000_000_000_000, 1_800_000_000_000_000, 1_700_000_000_000_000, 1_900_000_000_000_000])
    source = IdSource(lambda: next(clock))
    ids = [object_id("req", source.next(), 7) for _ in range(4)]
    assert ids == sorted(ids)
    assert len(set(ids)) == 4


@properties
@given(
    st.text(max_size=50)
    | st.builds(str.__add__, st.sampled_from(["acct_", "req_", "key_"]), st.text("0123456789abcdefAF _", max_size=34))
)
def test_other_texts_are_no_ids(text: str) -> None:
    """Whatever reads as an id is the one spelling of it; everything else is none."""
    account = parse_account(text)
    assert account is None or account_id(account) == text
    parsed = parse_object("req", text)
    assert parsed is None or object_id("req", *parsed) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "acct_",
        "acct",
        "acct_1",
        "acct_000000000000000g",
        "acct_00000000000000ab\n",
        "acct_00000000000000AB",
        "acct_ffffffffffffffff",
        "key_00000000000000ab",
        "00000000000000ab",
        "acct_" + "0" * 32,
        "acct_" + "\u0660" * 16,
    ],
)
def test_no_account(text: str) -> None:
    """What is not exactly an account's id is none."""
    assert parse_account(text) is None


@pytest.mark.parametrize(
    ("prefix", "text"),
    [
        ("req", "req_" + "0" * 16),
        ("req", "key_" + "0" * 32),
        ("req", "req_" + "0" * 31),
        ("req", "req_" + "0" * 33),
        ("req", "req_" + "f" * 16 + "0" * 16),
        ("req", "req_" + "0" * 16 + "f" * 16),
        ("req", "req__" + "0" * 31),
        ("req", "REQ_" + "0" * 32),
    ],
)
def test_no_object(prefix: str, text: str) -> None:
    """What is not exactly an id with this prefix is none."""
    assert parse_object(prefix, text) is None
