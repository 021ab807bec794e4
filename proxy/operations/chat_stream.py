"""A chat stream as it passes: whole events go on untouched, usage is taken out, what was received is remembered.

Only events that may carry usage, an error or the end are looked into, and a few substring searches find them. What was
put out is parsed only when it has to be counted.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import orjson

from pricing.usage import Usage
from proxy.operations.chat import output_texts
from proxy.operations.chat_usage import read_usage
from proxy.operations.splice import splice

__all__ = ["ChatStream", "MalformedStream"]

_EVENT = re.compile(rb".*?(?:\n\n|\r\n\r\n)", re.DOTALL)
_DIGEST_BYTES = 64_000
_MOST_EVENT_BYTES = 16_000_000


class MalformedStream(Exception):
    """The upstream sends something that is no event stream."""


class ChatStream:
    """Meters one stream of `choices` choices.

    done: `[DONE]` came. error: the upstream's error object. started: an event was passed on.
    """

    def __init__(self, choices: int = 1) -> None:
        self._choices = choices
        self.done = False
        self.error: Mapping[str, Any] | None = None
        self.started = False
        self.template: dict[str, Any] | None = None
        self._tail = b""
        self._raw: list[bytes] = []
        self._raw_bytes = 0
        self._texts: dict[int, list[str]] = {}
        self._seen: dict[str, Any] = {}
        self._finished: dict[int, bool] = {}
        self._usage: object = None
        self._usage_is_last = False

    def feed(self, chunk: bytes) -> bytes:
        """Take bytes from the upstream; returns the bytes to pass on, whole events only. Raises MalformedStream."""
        if self._tail:
            chunk = self._tail + chunk
            self._tail = b""
        if not chunk.endswith((b"\n\n", b"\r\n\r\n")):
            cut = max(_end_of(chunk, b"\n\n"), _end_of(chunk, b"\r\n\r\n"))
            self._tail = chunk[cut:]
            if len(self._tail) > _MOST_EVENT_BYTES:
                raise MalformedStream("an event is too large")
            chunk = chunk[:cut]
            if not chunk:
                return b""
        if b"\r" in chunk or self.done or self.error is not None:
            return b"".join([self._examine(event) for event in _EVENT.findall(chunk)])
        if not _is_special(chunk):
            return self._pass(chunk)
        passed: list[bytes] = []
        plain: list[bytes] = []
        for event in chunk.split(b"\n\n")[:-1]:
            if not _is_special(event) and not self.done and self.error is None:
                plain.append(event)
                continue
            if plain:
                passed.append(self._pass(b"\n\n".join(plain) + b"\n\n"))
                plain = []
            passed.append(self._examine(event + b"\n\n"))
        if plain:
            passed.append(self._pass(b"\n\n".join(plain) + b"\n\n"))
        return b"".join(passed)

    def _pass(self, events: bytes) -> bytes:
        self._remember(events)
        self.started = True
        return events

    def end(self) -> bytes:
        """The upstream closed; returns what its last event, if it lacked its blank line, still passes on."""
        tail, self._tail = self._tail.strip(), b""
        if not tail or not (_data(tail) == b"[DONE]" or _loads(_data(tail)) is not None):
            return b""
        return self.feed(tail + b"\n\n")

    def _examine(self, event: bytes) -> bytes:
        data = _data(event)
        if data == b"[DONE]":
            self.done = True
            return b""
        document = _loads(data)
        if document is None:
            # A comment, an empty event or no JSON: not ours to judge, unless it comes after the end.
            if not self.done:
                self.started = True
            return b"" if self.done else event
        choices = document.get("choices")
        if document.get("error") is not None:
            # Some routers send what came last along with it.
            if choices and not self.done:
                self._remember(event)
            error = document["error"]
            self.error = error if isinstance(error, dict) else {"message": str(error)}
            return b""
        reported = document.get("usage")
        if choices and not self.done and self.error is None:
            self._remember(event)
        if reported is not None:
            self._usage = reported
            self._usage_is_last = True
            self.template = document
            if not choices:
                return b""
            # A line break between JSON's tokens would end the event's line.
            others = [line for line in event.splitlines() if line and not line.startswith(b"data:")]
            line = b"data: " + _without_usage(data, document).replace(b"\n", b" ")
            event = b"\n".join([*others, line]) + b"\n\n"
        if self.done or self.error is not None:
            return b""
        self.started = True
        return event

    def _remember(self, events: bytes) -> None:
        if self._usage_is_last and b'"choices"' in events:
            self._usage_is_last = False
        self._raw.append(events)
        self._raw_bytes += len(events)
        if self._raw_bytes > _DIGEST_BYTES:
            self._digest()

    def _digest(self) -> None:
        raw, self._raw, self._raw_bytes = b"".join(self._raw), [], 0
        for event in _EVENT.findall(raw):
            document = _loads(_data(event))
            if document:
                self._seen = document
            choices = document.get("choices") if document else None
            for choice in choices if isinstance(choices, list) else ():
                if not isinstance(choice, dict):
                    continue
                index = choice.get("index")
                index = index if isinstance(index, int) else 0
                self._finished[index] = self._finished.get(index, False) or choice.get("finish_reason") is not None
                for text in output_texts(choice):
                    self._texts.setdefault(index, []).append(text)

    @property
    def awaits_usage(self) -> bool:
        """Whether the last figures may still be to come: none has been seen since the last output."""
        return not self._usage_is_last

    @property
    def complete(self) -> bool:
        """Whether every choice that was asked for was finished."""
        self._digest()
        return len(self._finished) >= self._choices and all(self._finished.values())

    @property
    def has_choices(self) -> bool:
        """Whether any choice came."""
        self._digest()
        return bool(self._finished)

    def texts(self) -> list[str]:
        """What was received, a text a choice."""
        self._digest()
        return ["".join(pieces) for pieces in self._texts.values()]

    @property
    def reported(self) -> bool:
        """Whether the upstream sent any usage."""
        return self._usage is not None

    def usage(self) -> Usage | None:
        """The last usage reported, or None where there was none or it is impossible or all zero beside an answer."""
        usage = read_usage(self._usage)
        if usage is not None and not any(usage.values()) and any(self.texts()):
            return None
        return usage

    def usage_event(self, model: str, request_id: str, usage: Usage | None) -> dict[str, Any]:
        """Make the one usage event of the stream; usage: Farebox's own count where it was used."""
        if self.template is None:
            self._digest()
        blank = {"id": request_id, "object": "chat.completion.chunk", "created": 0, "model": model}
        template = self.template or self._seen or blank
        reported = template.get("usage") if usage is None else None
        if reported is None and usage is not None:
            tokens = {
                name: int(usage.get(meter, 0))
                for name, meter in (("prompt_tokens", "input_tokens"), ("completion_tokens", "output_tokens"))
            }
            reported = {**tokens, "total_tokens": sum(tokens.values())}
        return {**template, "choices": [], "usage": reported}


def _is_special(events: bytes) -> bool:
    """Whether usage, an error or the end may be in these events.

    Inside JSON strings quotes are escaped, so text never looks like a member; that it may say [DONE] costs only time.
    """
    return b"[DONE]" in events or b'"error"' in events or events.count(b'"usage"') != events.count(b'"usage":null')


def _without_usage(data: bytes, document: dict[str, Any]) -> bytes:
    try:
        return splice(data, {"usage": b"null"})
    except ValueError:
        # Half a surrogate pair: Python's reader alone takes it, so Python's writer must write it.
        return json.dumps({**document, "usage": None}, separators=(",", ":")).encode()


def _end_of(chunk: bytes, boundary: bytes) -> int:
    at = chunk.rfind(boundary)
    return at + len(boundary) if at >= 0 else 0


def _data(event: bytes) -> bytes:
    return b"\n".join(line[5:].removeprefix(b" ") for line in event.splitlines() if line.startswith(b"data:")).strip()


def _loads(data: bytes) -> dict[str, Any] | None:
    try:
        document = orjson.loads(data)
    except orjson.JSONDecodeError:
        # Half a surrogate pair is legal JSON: an emoji may be split over two events.
        try:
            document = json.loads(data)
        except (ValueError, RecursionError):
            return None
    return document if isinstance(document, dict) else None
