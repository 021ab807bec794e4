"""An upstream that answers by itself: deterministic, with real token counts, without keys or network."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncGenerator, Callable, Mapping

import orjson

from proxy.counting import TokenCounter
from proxy.operations import chat

__all__ = ["DemoUpstream"]

_ANSWER = (
    "This is Farebox's demo model. It read your {words} words{topic} and answers without any network, the same way"
    " every time. What you see is metered like the real thing: tokens are counted, priced from the table and debited."
)
_PAUSE_SECONDS = 0.002


class DemoUpstream:
    """Answers chat completions; a request's text decides the answer, so a repeated request repeats it."""

    def __init__(self, counter: TokenCounter) -> None:
        self._counter = counter

    async def open(self, path: str, body: bytes, headers: Mapping[str, str]) -> DemoResponse:
        call = chat.parse(body)
        # Parts other than text are counted as the shipped config holds for them.
        parts = call.input_parts({"image": 1600, "file": 20000, "audio_second": 50})
        texts = [part.text for part in parts]
        prompt_tokens = await self._counter.count_aside(texts) + sum(part.tokens for part in parts)
        last = next((m["content"] for m in reversed(call.messages) if isinstance(m.get("content"), str)), "")
        topic = f" (“{' '.join(last.split()[:6])[:60]}…”)" if last.strip() else ""
        answer = _ANSWER.format(words=sum(len(text.split()) for text in texts), topic=topic)
        pieces = self._counter.split(answer)
        finish_reason = "stop"
        if call.limit is not None and call.limit < len(pieces):
            pieces, finish_reason = pieces[: call.limit], "length"
        completion_tokens = self._counter.count(["".join(pieces)])
        usage = {
            "prompt_tokens": prompt_tokens,
            "completion_tokens": completion_tokens * call.choices,
            "total_tokens": prompt_tokens + completion_tokens * call.choices,
        }
        head = {"id": "chatcmpl-" + hashlib.sha256(body).hexdigest()[:24], "created": 0, "model": call.model}
        if call.stream:
            return DemoResponse(_events(head, pieces, call.choices, finish_reason, usage), "text/event-stream")
        message = {"role": "assistant", "content": "".join(pieces)}
        choices = [{"index": i, "message": message, "finish_reason": finish_reason} for i in range(call.choices)]
        whole = {**head, "object": "chat.completion", "choices": choices, "usage": usage}
        return DemoResponse([orjson.dumps(whole)], "application/json")

    async def close(self) -> None:
        return None


def _events(
    head: Mapping[str, object], pieces: list[str], choices: int, finish_reason: str, usage: Mapping[str, int]
) -> list[bytes]:
    chunks: list[dict[str, object]] = []
    for piece in pieces:
        for index in range(choices):
            chunks.append({"choices": [{"index": index, "delta": {"content": piece}, "finish_reason": None}]})
    for index in range(choices):
        chunks.append({"choices": [{"index": index, "delta": {}, "finish_reason": finish_reason}]})
    chunks.append({"choices": [], "usage": usage})
    events = [
        b"data: " + orjson.dumps({**head, "object": "chat.completion.chunk", **chunk}) + b"\n\n" for chunk in chunks
    ]
    return [*events, b"data: [DONE]\n\n"]


class DemoResponse:
    """An answer that is already known; a stream's events keep a readable pace."""

    def __init__(self, parts: list[bytes], content_type: str) -> None:
        self._parts = parts
        self.status = 200
        self.headers = {"content-type": content_type}

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        while self._parts:
            yield self._parts.pop(0)
            await asyncio.sleep(_PAUSE_SECONDS)

    async def read(self, progress: Callable[[], None]) -> bytes:
        progress()
        return b"".join(self._parts)

    def close(self) -> None:
        self._parts = []

    async def finish(self) -> None:
        return None
