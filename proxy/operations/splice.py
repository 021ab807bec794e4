"""Changes members of a JSON object in its text, so that everything else stays byte for byte what the sender wrote."""

from __future__ import annotations

import re
from collections.abc import Mapping

import msgspec
import orjson

__all__ = ["members_of", "splice"]

_KEY = re.compile(rb'[ \t\r\n]*"((?:[^"\\]|\\.)*)"[ \t\r\n]*:[ \t\r\n]*', re.DOTALL)
_SPACE = re.compile(rb"[ \t\r\n]*")
_MEMBERS = msgspec.json.Decoder(dict[str, msgspec.Raw])


def members_of(text: bytes) -> dict[str, msgspec.Raw]:
    """Read a JSON object's members as the texts that their writer wrote; raises ValueError if it is none."""
    try:
        return _MEMBERS.decode(text)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise ValueError(f"not a JSON object: {error}") from None


def splice(text: bytes, changes: Mapping[str, bytes], members: Mapping[str, msgspec.Raw] | None = None) -> bytes:
    """Set top-level members of the JSON object `text` to the given JSON texts; absent ones are added at the end.

    Of a key written twice the last value is kept and the earlier ones go: parsers disagree about which counts,
    and what is billed must be what the upstream reads. members: as `members_of` read them, where that was done before.
    Raises ValueError if `text` is no JSON object.
    """
    if members is None:
        members = members_of(text)
    spans = _spans(text, members)
    if spans is None:
        texts = {name: bytes(raw) for name, raw in members.items()} | dict(changes)
        return b"{" + b",".join(orjson.dumps(name) + b":" + value for name, value in texts.items()) + b"}"
    pieces: list[bytes] = []
    at = 0
    for name, start, end in spans:
        change = changes.get(name)
        if change is not None:
            pieces += (text[at:start], change)
            at = end
    close = text.rindex(b"}")
    pieces.append(text[at:close])
    added = [orjson.dumps(name) + b":" + value for name, value in changes.items() if name not in members]
    if added:
        pieces.append((b"," if members else b"") + b",".join(added))
    pieces.append(text[close:])
    return b"".join(pieces)


def _spans(text: bytes, members: Mapping[str, msgspec.Raw]) -> list[tuple[str, int, int]] | None:
    """Find where each member's value stands, or None where a key is written twice."""
    spans = []
    at = text.index(b"{") + 1
    for name, raw in members.items():
        match = _KEY.match(text, at)
        if match is None:
            return None
        start = match.end()
        value = bytes(raw)
        written = match[1].decode() if b"\\" not in match[1] else orjson.loads(b'"' + match[1] + b'"')
        if written != name or not text.startswith(value, start):
            return None
        spans.append((name, start, start + len(value)))
        at = _after(text, start + len(value))
        if at < 0:
            return None
    return spans if text[at - 1 : at] == b"}" or not members else None


def _after(text: bytes, at: int) -> int:
    """The place behind the `,` or `}` that follows a value, or -1."""
    match = _SPACE.match(text, at)
    end = match.end() if match else at
    return end + 1 if text[end : end + 1] in (b",", b"}") else -1
