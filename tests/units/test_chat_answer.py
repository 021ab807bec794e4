"""What a whole answer says of itself, and which usage is believed."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pricing.usage import Usage, impossible
from proxy.operations.chat import output_texts, read_answer, read_usage
from tests.units.strategies import properties

CHOICES = [{"index": 0, "message": {"role": "assistant", "content": "Hi"}, "finish_reason": "stop"}]


GOOD: dict[str, Any] = {"prompt_tokens": 9, "completion_tokens": 4}
NO_TOTALS: list[object] = [-1, 4.0, 4.5, "4", True, False, None, [4], {}]
NO_DETAILS: list[object] = [-1, 10, 1.5, "1", True]


def answer(**members: object) -> bytes:
    return json.dumps({"id": "c", "choices": CHOICES, **members}).encode()


@pytest.mark.parametrize(
    ("reported", "usage"),
    [
        ({"prompt_tokens": 9, "completion_tokens": 4, "total_tokens": 13}, {"input_tokens": 9, "output_tokens": 4}),
        ({"prompt_tokens": 9, "completion_tokens": 0}, {"input_tokens": 9, "output_tokens": 0}),
        ({"prompt_tokens": 0, "completion_tokens": 4}, {"input_tokens": 0, "output_tokens": 4}),
        ({"prompt_tokens": 9, "completion_tokens": 4, "total_tokens": -1}, {"input_tokens": 9, "output_tokens": 4}),
        ({"prompt_tokens": 10**12, "completion_tokens": 4}, {"input_tokens": 10**12, "output_tokens": 4}),
        (
            {
                "prompt_tokens": 90,
                "completion_tokens": 40,
                "prompt_tokens_details": {
                    "cached_tokens": 50, "audio_tokens": 5, "image_tokens": 6, "cache_write_tokens": 7,
                },
                "completion_tokens_details": {"reasoning_tokens": 30, "audio_tokens": 2, "image_tokens": 3},
            },
            {
                "input_tokens": 90, "cached_input_tokens": 50, "input_audio_tokens": 5, "input_image_tokens": 6,
                "cache_write_tokens": 7, "output_tokens": 40, "reasoning_tokens": 30, "output_audio_tokens": 2,
                "output_image_tokens": 3,
            },
        ),
        (
            {
                "prompt_tokens": 9,
                "completion_tokens": 4,
                "prompt_tokens_details": {"cached_tokens": 9},
                "completion_tokens_details": {"reasoning_tokens": 4, "accepted_prediction_tokens": 99},
            },
            {"input_tokens": 9, "cached_input_tokens": 9, "output_tokens": 4, "reasoning_tokens": 4},
        ),
        (
            {
                "prompt_tokens": 90,
                "completion_tokens": 4,
                "prompt_tokens_details": {
                    "cached_tokens": 50, "cached_tokens_details": {"audio_tokens": 5, "image_tokens": 6},
                    "cache_creation_tokens": 30, "cache_creation_token_details": {"ephemeral_1h_input_tokens": 20},
                    "video_tokens": 7,
                },
            },
            {
                "input_tokens": 90, "cached_input_tokens": 50, "cached_audio_tokens": 5, "cached_image_tokens": 6,
                "cache_write_tokens": 30, "cache_write_1h_tokens": 20, "input_video_tokens": 7, "output_tokens": 4,
            },
        ),
        # A whole that is not said is what its parts come to.
        (
            {
                "prompt_tokens": 90,
                "completion_tokens": 4,
                "prompt_tokens_details": {
                    "cached_tokens_details": {"audio_tokens": 5, "text_tokens": 40},
                    "cache_creation_tokens": 0,
                    "cache_creation_token_details": {"ephemeral_1h_input_tokens": 20, "ephemeral_5m_input_tokens": 3},
                },
            },
            {
                "input_tokens": 90, "cached_input_tokens": 45, "cached_audio_tokens": 5, "cache_write_tokens": 23,
                "cache_write_1h_tokens": 20, "output_tokens": 4,
            },
        ),
        (
            {**GOOD, "prompt_tokens_details": {"cache_write_tokens": 5, "cache_creation_tokens": 6}},
            {"input_tokens": 9, "output_tokens": 4, "cache_write_tokens": 5},
        ),
        (
            {**GOOD, "prompt_tokens_details": None, "completion_tokens_details": {}},
            {"input_tokens": 9, "output_tokens": 4},
        ),
    ],
)  # fmt: skip
def test_believed(reported: object, usage: Usage) -> None:
    """Possible figures are taken as they are, details as parts of their wholes."""
    found = read_usage(reported)
    assert found is not None
    assert {name: quantity for name, quantity in found.items() if quantity or name in usage} == usage


@pytest.mark.parametrize(
    "reported",
    [
        None,
        [],
        "x",
        5,
        True,
        {},
        {"prompt_tokens": 9},
        {"completion_tokens": 4},
        {"input_tokens": 9, "output_tokens": 4},
        {"prompt_tokens": None, "completion_tokens": 4},
        *({**GOOD, "prompt_tokens": value} for value in NO_TOTALS),
        *({**GOOD, "completion_tokens": value} for value in NO_TOTALS),
        *({**GOOD, "prompt_tokens_details": {"cached_tokens": value}} for value in NO_DETAILS),
        *({**GOOD, "completion_tokens_details": {"reasoning_tokens": value}} for value in NO_DETAILS),
        {**GOOD, "prompt_tokens_details": {"cached_tokens": 5, "audio_tokens": 10}},
        {**GOOD, "prompt_tokens_details": {"cached_tokens": 5, "cached_tokens_details": {"audio_tokens": 6}}},
        *(
            {**GOOD, "prompt_tokens_details": {"cache_creation_token_details": {"ephemeral_1h_input_tokens": value}}}
            for value in NO_DETAILS
        ),
    ],
)
def test_not_believed(reported: object) -> None:
    """Figures that are missing, negative, no integers, or parts above their wholes make all of the usage worthless."""
    assert read_usage(reported) is None


anything: st.SearchStrategy[Any] = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3)
NAMES = ["cached_tokens", "audio_tokens", "reasoning_tokens", "image_tokens", "cache_write_tokens"]
NESTED = ["cached_tokens_details", "cache_creation_token_details"]
nested = st.dictionaries(
    st.sampled_from(["audio_tokens", "text_tokens", "ephemeral_1h_input_tokens", "ephemeral_5m_input_tokens"]),
    st.integers(-1, 12) | anything,
)
details = st.dictionaries(
    st.sampled_from([*NAMES, *NESTED, "cache_creation_tokens"]), st.integers(-1, 12) | nested | anything
)


@properties
@given(
    st.fixed_dictionaries(
        {},
        optional={
            "prompt_tokens": st.integers(-1, 12) | anything,
            "completion_tokens": st.integers(-1, 12) | anything,
            "prompt_tokens_details": details | anything,
            "completion_tokens_details": details | anything,
        },
    )
)
def test_never_impossible(reported: dict[str, Any]) -> None:
    """Whatever a provider reports, the usage that comes of it is possible, or there is none."""
    usage = read_usage(reported)
    assert usage is None or impossible(usage) is None


def test_answer() -> None:
    """A whole answer carries its usage and its bytes."""
    body = answer(usage={"prompt_tokens": 9, "completion_tokens": 4})
    read = read_answer(body)
    assert read is not None
    assert (read.usage, read.body, read.texts()) == ({"input_tokens": 9, "output_tokens": 4}, body, ["Hi"])


@pytest.mark.parametrize(
    "usage",
    [
        None,
        {},
        {"prompt_tokens": 9},
        {"prompt_tokens": -1, "completion_tokens": 4},
        {"prompt_tokens": 0, "completion_tokens": 0},
    ],
)
def test_answer_without_usage(usage: object) -> None:
    """Missing or impossible figures, or all zero beside an answer, are no usage; its texts are there to be counted."""
    read = read_answer(answer(usage=usage))
    assert read is not None
    assert (read.usage, read.texts()) == (None, ["Hi"])


@pytest.mark.parametrize(
    "choices", [[], [{"index": 0, "message": {"content": ""}}], [{"index": 0, "message": {"content": None}}]]
)
def test_all_zero_of_an_empty_answer(choices: object) -> None:
    """All-zero usage beside an empty answer is believed."""
    read = read_answer(answer(choices=choices, usage={"prompt_tokens": 0, "completion_tokens": 0}))
    assert read is not None
    assert read.usage == {"input_tokens": 0, "output_tokens": 0}


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" ",
        b"OK",
        b"<html>502</html>",
        b"null",
        b"[]",
        b"{}",
        b'{"choices":null}',
        b'{"choices":{}}',
        b'{"choices":"x"}',
        b'{"error":{"message":"overloaded"}}',
        b'{"error":{"message":"overloaded"},"choices":null}',
        b'{"error":{"message":"overloaded"},"choices":[]}',
        b'{"detail":"not found"}',
        b'{"choices":[{"message":{"content":"Hi"}}],"usage":{"prompt_tok',
        b'{"choices":[{"message":{"content":"Hi"}}]',
        b'{"choices":[{"message":{"content":"Hi"}}]}}',
        b'data: {"choices":[]}\n\n',
        b"\xff\xfe",
    ],
)
def test_no_answer(body: bytes) -> None:
    """What is malformed, cut off or an error in disguise is no answer."""
    assert read_answer(body) is None


def test_answer_of_no_utf8() -> None:
    """An answer that is no UTF-8 is either refused as malformed or can be counted."""
    read = read_answer(b'{"choices":[{"message":{"content":"\xff\xfe"}}]}')
    assert read is None or read.texts() is not None


def test_half_a_surrogate_pair() -> None:
    """An answer that was cut in the middle of an emoji, as a limit may cut it, is an answer and can be counted."""
    read = read_answer(
        rb'{"choices":[{"message":{"content":"Hi \ud83d"}}],"usage":{"prompt_tokens":9,"completion_tokens":4}}'
    )
    assert read is not None
    assert read.usage == {"input_tokens": 9, "output_tokens": 4}
    assert [text[:3] for text in read.texts()] == ["Hi "]


@pytest.mark.parametrize(("cut", "whole"), [(0, True), (1, False), (20, False)])
def test_cut_off(cut: int, whole: bool) -> None:
    """An answer is read only if its last byte is there."""
    body = answer(usage=GOOD)
    assert (read_answer(body[: len(body) - cut]) is not None) == whole


@pytest.mark.parametrize(
    ("source", "texts"),
    [
        ({"content": "Hi"}, ["Hi"]),
        ({"content": None, "refusal": "No"}, ["No"]),
        ({"content": "A", "reasoning_content": "B"}, ["A", "B"]),
        ({"content": "", "reasoning": "B"}, ["B"]),
        ({"tool_calls": [{"function": {"name": "f", "arguments": '{"a":1}'}}]}, ["f", '{"a":1}']),
        ({"tool_calls": [{"custom": {"name": "g", "input": "x"}}, {"function": {"arguments": "y"}}]}, ["g", "x", "y"]),
        ({"function_call": {"name": "f", "arguments": "{}"}}, ["f", "{}"]),
        ({"tool_calls": "x", "function_call": 5, "content": 7}, []),
        ({"tool_calls": [None, {"function": None}, {"function": "x"}, {}]}, []),
        ({"role": "assistant"}, []),
        ("x", []),
        (None, []),
    ],
)
@pytest.mark.parametrize("member", ["message", "delta"])
def test_output_texts(member: str, source: object, texts: list[str]) -> None:
    """Text, refusal, reasoning, tool names and arguments were put out; nothing else was."""
    assert sorted(output_texts({"index": 0, member: source})) == sorted(texts)


def test_every_choice_is_counted() -> None:
    """All choices of an answer are counted, odd ones among them passed over."""
    choices = [{"message": {"content": "A"}}, None, "x", {"message": {"content": "B", "refusal": "C"}}]
    read = read_answer(answer(choices=choices))
    assert read is not None
    assert sorted(read.texts()) == ["A", "B", "C"]
