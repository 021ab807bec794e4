"""`/v1/chat/completions`: what a request asks for, what it can use at most, and what its answer used."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import msgspec
import orjson

from pricing.usage import Usage
from proxy.errors import ApiError, bad_request, not_supported
from proxy.operations.chat_usage import read_usage
from proxy.operations.splice import members_of, splice

__all__ = ["TIERS", "Answer", "ChatCall", "InputPart", "parse", "read_answer", "read_usage", "unpriced_tier"]

_MESSAGES = msgspec.json.Decoder(list[dict[str, msgspec.Raw]])
_ITEMS = msgspec.json.Decoder(list[msgspec.Raw])
_LIMITS = ("max_tokens", "max_completion_tokens")
_MOST_LIMIT = 2**53
TIERS = ("auto", "default", "flex")
"""Tiers that cost no more than what a price is made for; the others are sold only where a price is for them."""

_SEARCH_CONTEXTS = ("low", "medium", "high")
_SEARCH_CONTEXT = "medium"
# Members that make a provider, or a router behind the upstream, charge what the model's price does not cover, or
# answer with another model than the one that is priced.
_UNPRICED = {
    "search_parameters": "web search",
    "plugins": "the `plugins` member",
    "models": "choosing models at the upstream",
    "fallbacks": "choosing models at the upstream",
}
_GUARDED = frozenset(
    {"model", "messages", "stream", "stream_options", "n", *_LIMITS, "service_tier", "modalities", "audio", "tools"}
    | _UNPRICED.keys()
    | {"web_search_options"}
)
_PER_MESSAGE = 3
_PRIMING = 3
# Compressed speech is rarely below 1,000 bytes a second, so this bounds its length.
_AUDIO_BYTES_PER_SECOND = 1_000


_ROLES = ("system", "developer", "user", "assistant", "tool", "function")
_CALLS = ("tool_calls", "function_call")


class InputPart(NamedTuple):
    """A part of the input: its text is to be counted, `tokens` come on top.

    role: of its message, or what it is beside messages: tools, functions, response_format, chat.
    """

    role: str
    kind: str
    text: str
    tokens: int = 0


@dataclass(frozen=True, slots=True)
class ChatCall:
    """A request, checked as far as money depends on it; the rest is the upstream's to judge.

    members: the request's members as the caller wrote them.
    limit: output tokens a choice that the caller allows, under the members `limit_names`; None where it named none.
    needs: meters that the call will use beside tokens, by the member that asks for them; a price must cover each.
    attributes: what a price may depend on. include_usage: the caller wants a usage chunk at a stream's end.
    """

    body: bytes
    document: Mapping[str, Any]
    members: Mapping[str, msgspec.Raw]
    model: str
    stream: bool
    include_usage: bool
    choices: int
    limit: int | None
    limit_names: tuple[str, ...]
    needs: Mapping[str, str]
    attributes: Mapping[str, str]

    @property
    def messages(self) -> list[dict[str, Any]]:
        messages: list[dict[str, Any]] = self.document["messages"]
        return messages

    def input_bound(self, part_tokens: Mapping[str, int]) -> int:
        """Bound the input tokens without counting: no token is shorter than a byte of the body.

        Payloads of images, files and audio are taken out and put at `part_tokens` each.
        """
        payload, tokens = _parts(self.messages, part_tokens)
        return len(self.body) - payload + tokens

    def input_parts(self, part_tokens: Mapping[str, int]) -> list[InputPart]:
        """Take the input apart for counting, whose work each part is and of what kind.

        Text is counted as text; everything else, such as tools, as the JSON that the caller wrote. What can't be
        counted is put at `part_tokens`, and the chat format has tokens that no text shows.
        """
        members = self.members
        parts = [InputPart("chat", "format", "", _PRIMING + _PER_MESSAGE * len(self.messages))]
        for message, written in zip(self.messages, _MESSAGES.decode(members["messages"]), strict=True):
            role = message.get("role")
            role = role if role in _ROLES else "other"
            for key, value in message.items():
                if key == "content" and isinstance(value, list):
                    for part, raw in zip(value, _ITEMS.decode(written[key]), strict=True):
                        kind, _, tokens = _payload_cost(part, part_tokens)
                        parts.append(InputPart(role, kind, _part_text(part, bytes(raw)), tokens))
                elif value is not None:
                    text = value if isinstance(value, str) else bytes(written[key]).decode()
                    parts.append(
                        InputPart(role, "text" if key == "content" else key if key in _CALLS else "format", text)
                    )
        return parts + [
            InputPart(key, "definition", bytes(members[key]).decode())
            for key in ("tools", "functions", "response_format")
            if self.document.get(key)
        ]

    def rewritten(self, upstream_model: str, limit: int | None, limit_name: str) -> bytes:
        """Make the upstream's body: only the model, the usage option of streams and the output limit differ.

        limit: the output limit to set, under the caller's own name for it, else `limit_name`; None leaves it as it is.
        """
        changes = {"model": orjson.dumps(upstream_model)}
        if limit is not None:
            for name in self.limit_names or (limit_name,):
                changes[name] = b"%d" % limit
        if self.stream:
            written = b"{}"
            if self.document.get("stream_options") is not None:
                written = bytes(self.members["stream_options"])
            changes["stream_options"] = splice(written, {"include_usage": b"true"})
        return splice(self.body, changes, self.members)


def parse(body: bytes) -> ChatCall:
    """Read a request; raises ApiError 400 naming the field that is wrong."""
    try:
        document = orjson.loads(body)
        members = members_of(body) if isinstance(document, dict) else {}
    except ValueError as error:
        raise bad_request(f"The body is not valid JSON: {error}") from None
    if not isinstance(document, dict):
        raise bad_request("The body must be a JSON object")
    for name in document:
        if not name.islower() and name.lower() in _GUARDED:
            # Some servers read member names in any case; what they obey must be what is billed.
            raise bad_request(f"`{name}` must be written `{name.lower()}`", name)
    model = document.get("model")
    if not isinstance(model, str) or not model:
        raise bad_request("`model` must be a string; GET /v1/models lists the models", "model")
    messages = document.get("messages")
    if not isinstance(messages, list) or not messages or not all(isinstance(message, dict) for message in messages):
        raise bad_request("`messages` must be a non-empty list of objects", "messages")
    stream = document.get("stream")
    if stream is not None and not isinstance(stream, bool):
        raise bad_request("`stream` must be true or false", "stream")
    options = document.get("stream_options")
    if options is not None and not isinstance(options, dict):
        raise bad_request("`stream_options` must be an object", "stream_options")
    choices = _whole_number(document, "n", 128)
    limits = {name: limit for name in _LIMITS if (limit := _whole_number(document, name, _MOST_LIMIT)) is not None}
    _refuse_unpriced(document)
    return ChatCall(
        body=body,
        document=document,
        members=members,
        model=model,
        stream=stream is True,
        include_usage=stream is True and isinstance(options, dict) and options.get("include_usage") is True,
        choices=choices or 1,
        # Which of two limits an upstream obeys is not known here, so the larger one counts.
        limit=max(limits.values(), default=None),
        limit_names=tuple(limits),
        needs={"web_search": "web_search_options"} if document.get("web_search_options") is not None else {},
        attributes=_attributes(document),
    )


def _attributes(document: Mapping[str, Any]) -> Mapping[str, str]:
    """Read what a price may depend on; only words that are known, as it is kept with the call."""
    tier, search = document.get("service_tier"), document.get("web_search_options")
    attributes = {} if tier is None else {"service_tier": tier}
    if search is not None:
        size = search.get("search_context_size") if isinstance(search, dict) else None
        attributes["search_context_size"] = _SEARCH_CONTEXT if size is None else size
        if attributes["search_context_size"] not in _SEARCH_CONTEXTS:
            raise bad_request(
                f"`search_context_size` must be one of {', '.join(_SEARCH_CONTEXTS)}",
                "web_search_options.search_context_size",
            )
    return attributes


def _whole_number(document: Mapping[str, Any], name: str, most: int) -> int | None:
    value = document.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
        # Integers beyond 64 bits arrive as floats; none of them is a sane limit.
        raise bad_request(f"`{name}` must be a whole number from 1 to {most}", name)
    return value


def _refuse_unpriced(document: Mapping[str, Any]) -> None:
    if not isinstance(document.get("service_tier"), str | None):
        raise unpriced_tier()
    for name, what in _UNPRICED.items():
        if document.get(name) is not None:
            raise _unpriced(name, f"{what} is not priced here; remove `{name}`")
    modalities = document.get("modalities")
    if document.get("audio") is not None or (isinstance(modalities, list) and "audio" in modalities):
        raise _unpriced(
            "audio" if document.get("audio") is not None else "modalities", "audio output is not priced here"
        )
    tools = document.get("tools")
    for index, tool in enumerate(tools if isinstance(tools, list) else ()):
        kind = tool.get("type") if isinstance(tool, dict) else None
        if isinstance(kind, str) and kind not in ("function", "custom"):
            raise _unpriced(f"tools[{index}].type", f"the provider's own tool `{kind[:40]}` is not priced here")


def unpriced_tier() -> ApiError:
    """Refuse a tier that the price is not made for."""
    return _unpriced("service_tier", f"`service_tier` must be one of {', '.join(TIERS)}: the others are not priced")


def _unpriced(param: str, message: str) -> ApiError:
    error = not_supported(message, param)
    error.message = message
    return error


def _parts(messages: list[dict[str, Any]], part_tokens: Mapping[str, int]) -> tuple[int, int]:
    """Sum the bytes of payloads that are not text, and the tokens that they are put at."""
    payload = tokens = 0
    for message in messages:
        content = message.get("content")
        if isinstance(content, list):
            for part in content:
                _, size, cost = _payload_cost(part, part_tokens)
                payload, tokens = payload + size, tokens + cost
    return payload, tokens


def _payload_cost(part: object, part_tokens: Mapping[str, int]) -> tuple[str, int, int]:
    """Name a content part's kind, the bytes of a payload that is not text, and the tokens that it is put at."""
    kind, data = _payload(part)
    if kind == "audio":
        seconds = len(data) * 3 // 4 // _AUDIO_BYTES_PER_SECOND + 1
        return kind, len(data), part_tokens["audio_second"] * seconds
    return kind, len(data), 0 if kind == "text" else part_tokens[kind]


def _payload(part: object) -> tuple[str, str]:
    """Name a content part's kind (image, audio, file, or text) and its payload."""
    if not isinstance(part, dict):
        return "text", ""
    image, audio, file = part.get("image_url"), part.get("input_audio"), part.get("file")
    if image is not None:
        url = image.get("url") if isinstance(image, dict) else image
        return "image", url if isinstance(url, str) else ""
    if isinstance(audio, dict):
        data = audio.get("data")
        return "audio", data if isinstance(data, str) else ""
    if isinstance(file, dict):
        data = file.get("file_data")
        return "file", data if isinstance(data, str) else ""
    return "text", ""


def _part_text(part: object, written: bytes) -> str:
    if isinstance(part, dict):
        if isinstance(part.get("text"), str):
            return str(part["text"])
        if _payload(part)[0] != "text":
            return ""
    return written.decode()


@dataclass(frozen=True, slots=True)
class Answer:
    """What a complete answer says of itself.

    usage: None where the provider's figures are missing or impossible; then `texts` are to be counted.
    texts: output by choice, read only when asked for.
    """

    usage: Usage | None
    body: bytes

    def texts(self) -> list[str]:
        # Not orjson: an answer may hold half a surrogate pair, which is legal JSON and no legal Unicode.
        document = json.loads(self.body)
        return [text for choice in document["choices"] if isinstance(choice, dict) for text in output_texts(choice)]


class _Outline(msgspec.Struct):
    choices: msgspec.Raw = msgspec.Raw()
    usage: Any = None
    error: Any = None


_OUTLINE = msgspec.json.Decoder(_Outline)


def read_answer(body: bytes) -> Answer | None:
    """Read a whole answer, or return None if it is none: malformed, cut off, or an error in disguise."""
    try:
        body.decode()
        outline = _OUTLINE.decode(body)
        choices = bytes(outline.choices)
        reported, error = outline.usage, outline.error
    except msgspec.MsgspecError:
        # Half a surrogate pair is legal JSON to Python's reader only.
        try:
            document = json.loads(body)
        except (ValueError, RecursionError):
            return None
        if not isinstance(document, dict):
            return None
        choices = json.dumps(document.get("choices")).encode()
        reported, error = document.get("usage"), document.get("error")
    except (RecursionError, UnicodeDecodeError):
        return None
    if not choices.startswith(b"[") or (error is not None and not choices[1:-1].strip()):
        return None
    usage = read_usage(reported)
    answer = Answer(usage, body)
    if usage is not None and not any(usage.values()) and any(answer.texts()):
        return Answer(None, body)
    return answer


def output_texts(choice: Mapping[str, Any]) -> list[str]:
    """Collect what a choice, or a stream's delta in it, put out: text, refusal, reasoning, tool names and arguments."""
    source = choice.get("message") or choice.get("delta")
    if not isinstance(source, dict):
        return []
    texts = [
        value
        for key in ("content", "refusal", "reasoning_content", "reasoning")
        if isinstance(value := source.get(key), str)
    ]
    calls = source.get("tool_calls")
    calls = (
        [call.get("function") or call.get("custom") for call in calls if isinstance(call, dict)]
        if isinstance(calls, list)
        else []
    )
    for call in (*calls, source.get("function_call")):
        if isinstance(call, dict):
            texts += [value for key in ("name", "arguments", "input") if isinstance(value := call.get(key), str)]
    return [text for text in texts if text]
