"""Tokens, counted offline."""

from __future__ import annotations

import tiktoken
from hypothesis import given
from hypothesis import strategies as st

from proxy.counting import BYTES_PER_TOKEN, MOST_COUNTED_BYTES, TokenCounter
from tests.units.strategies import nasty, properties, texts

words = texts | nasty | st.text(max_size=200).filter(lambda text: text.isprintable())


def reference() -> tiktoken.Encoding:
    """OpenAI's own encoding; the counter has loaded its table already, so nothing is read or fetched here."""
    return tiktoken.get_encoding("o200k_base")


def test_known_counts(counter: TokenCounter) -> None:
    """Counts are those of OpenAI's tokenizer."""
    assert counter.count([]) == 0
    assert counter.count([""]) == 0
    assert counter.count(["hello world"]) == 2
    assert counter.count(["hello world", "hello world"]) == 4


@properties
@given(texts=st.lists(words, max_size=4))
def test_counts_are_exact(counter: TokenCounter, texts: list[str]) -> None:
    """Each text is encoded by itself, and what looks like a special token is only text."""
    assert counter.count(texts) == sum(len(reference().encode_ordinary(text)) for text in texts)


def test_special_tokens_are_text(counter: TokenCounter) -> None:
    """A text that spells a special token is counted, not obeyed or refused."""
    assert counter.count(["<|endoftext|>"]) > 1


@properties
@given(text=st.text(max_size=100).filter(lambda text: text.isprintable()))
def test_no_more_tokens_than_bytes(counter: TokenCounter, text: str) -> None:
    """No token is shorter than a byte of UTF-8."""
    assert counter.count([text]) <= len(text.encode())


def test_lone_surrogates(counter: TokenCounter) -> None:
    """Half a surrogate pair, which no UTF-8 can carry, is counted all the same."""
    assert counter.count(["a\ud83db"]) > 0
    assert counter.count(["\udc00" * (MOST_COUNTED_BYTES // 3 + 10)]) > 0


def test_beyond_the_limit_by_ratio(counter: TokenCounter) -> None:
    """What exceeds a million bytes is counted at four bytes a token, rounded up, in one text or in many."""
    text = "word " * (MOST_COUNTED_BYTES // 5)
    most = counter.count([text])
    assert counter.count([text, "x" * 4001]) == most + 1001
    assert counter.count([text, "x", "x"]) == most + 2
    longer = counter.count([text + "word " * 800])
    assert longer == most + 4000 // BYTES_PER_TOKEN


def test_beyond_the_limit_in_other_scripts(counter: TokenCounter) -> None:
    """The limit is one of bytes: a text of wide characters meets it sooner."""
    text = "界" * (MOST_COUNTED_BYTES // 3 + 2000)
    rest = len(text.encode()) - MOST_COUNTED_BYTES
    head = counter.count(["界" * (MOST_COUNTED_BYTES // 3)])
    assert abs(counter.count([text]) - head - rest // BYTES_PER_TOKEN) <= 2


def test_many_equal_characters(counter: TokenCounter) -> None:
    """A long run of one character is counted about as exactly as in one piece."""
    assert 0 < counter.count(["a" * 250_000]) <= 250_000


async def test_aside(counter: TokenCounter) -> None:
    """Counting in a thread finds the same as counting in place, for short and long texts."""
    for several in (["hello world"], ["hello world " * 5000], ["é" * 20_000, "x"], []):
        assert await counter.count_aside(several) == counter.count(several)


@properties
@given(text=words)
def test_split(counter: TokenCounter, text: str) -> None:
    """The pieces of a text put together are the text, and there are no more of them than tokens."""
    pieces = counter.split(text)
    assert "".join(pieces) == text
    assert len(pieces) <= counter.count([text])
    assert all(pieces)


@properties
@given(text=words, tokens=st.integers(0, 60))
def test_shorten(counter: TokenCounter, text: str, tokens: int) -> None:
    """A text cut to its first tokens begins it, and one that has no more is left whole."""
    short = counter.shorten(text, tokens)
    if counter.count([text]) <= tokens:
        assert short == text
    assert text.startswith(short.rstrip("\ufffd"))
    assert counter.shorten(text, 0) == ""
