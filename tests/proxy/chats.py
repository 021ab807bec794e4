"""Chat completions as a provider writes them, and the figures that tests expect of them.

Prices of the tests' models: an input token 0.001, an output token 0.003 credits. The provider reports `USAGE`: 20 and 7
tokens, 0.02 + 0.021 = 0.041 credits. Farebox's own count of `MESSAGES` is 9 (3 for the answer's start, 3 for the
message, 1 for `user`, 2 for `Hello world`) and 1 for each of the words `one two three`, so the same answer without
usage costs 0.009 + 0.009 = 0.018. The provider's figures differ on purpose: a test sees which of the two was charged.
"""

from __future__ import annotations

import json
from typing import Any

from tests.proxy.upstream import response

__all__ = [
    "BODY", "DONE", "EXACT", "MESSAGES", "OWN_COUNT", "STREAM_BODY", "USAGE", "answer", "body_of", "chunk",
    "documents", "finish", "usage_chunk", "words",
]  # fmt: skip

MESSAGES: list[Any] = [{"role": "user", "content": "Hello world"}]
USAGE = {"prompt_tokens": 20, "completion_tokens": 7, "total_tokens": 27}
EXACT = "0.041"
OWN_COUNT = "0.018"
DONE = b"data: [DONE]\n\n"


def body_of(**members: Any) -> bytes:
    """A request for `words` with `MESSAGES`, and other members."""
    return json.dumps({"model": "words", "messages": MESSAGES, **members}).encode()


BODY = body_of()
STREAM_BODY = body_of(stream=True)


def answer(text: str = "one two three", usage: Any = USAGE, **message: Any) -> bytes:
    """A whole HTTP answer; usage: `...` leaves the member out."""
    document: dict[str, Any] = {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "words-1-2026",
        "choices": [
            {"index": 0, "message": {"role": "assistant", "content": text, **message}, "finish_reason": "stop"}
        ],
    }
    if usage is not ...:
        document["usage"] = usage
    return response(json.dumps(document).encode())


def chunk(delta: dict[str, Any] | None = None, finish: str | None = None, index: int = 0, **members: Any) -> bytes:
    """One event of a stream with one choice in it."""
    choices = [{"index": index, "delta": delta or {}, "finish_reason": finish}]
    return _event({"choices": choices, **members})


def words(*pieces: str, index: int = 0) -> bytes:
    """Events that put out these pieces of text."""
    return b"".join(chunk({"content": text}, index=index) for text in pieces)


def finish(index: int = 0, **members: Any) -> bytes:
    return chunk({}, "stop", index, **members)


def usage_chunk(usage: Any = USAGE) -> bytes:
    return _event({"choices": [], "usage": usage})


def _event(members: dict[str, Any]) -> bytes:
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "words-1-2026"}
    return b"data: " + json.dumps({**head, **members}).encode() + b"\n\n"


def documents(stream: bytes) -> list[Any]:
    """The JSON of every event; `[DONE]` as that text."""
    found: list[Any] = []
    for event in stream.replace(b"\r\n", b"\n").split(b"\n\n"):
        for line in event.split(b"\n"):
            if line.startswith(b"data: "):
                found.append("[DONE]" if line == b"data: [DONE]" else json.loads(line[6:]))
    return found
