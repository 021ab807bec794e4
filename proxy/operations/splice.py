"""Changes members of a JSON object in its text, so that everything else stays byte for byte what the sender wrote."""

from __future__ import annotations

import re
from collections.abc import Mapping

import msgspec
import orjson

__all__ = ["members_of", "splice"]

_SPACE = re.compile(rb"[ \t\r\n]*")
_KEY = re.compile(rb'"([^"\\]*(?:\\.[^"\\]*)*)"[ \t\r\n]*:[ \t\r\n]*', re.DOTALL)
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
    follows = b"}"
    at = _skip_space(text, text.index(b"{") + 1)
    for name, raw in members.items():
        start = _after_key(text, at, name)
        value = bytes(raw)
        end = start + len(value)
        if start < 0 or text[start:end] != value:
            return None
        spans.append((name, start, end))
        at = _skip_space(text, end)
        follows = text[at : at + 1]
        if follows not in (b",", b"}"):
            return None
        at = _skip_space(text, at + 1)
    return spans if follows == b"}" else None


def _after_key(text: bytes, at: int, name: str) -> int:
    """The place of the value of the member that begins at `at`, or -1 if that is not `name`."""
    plain = b'"%b":' % name.encode()
    if text.startswith(plain, at):
        return _skip_space(text, at + len(plain))
    match = _KEY.match(text, at)
    if match is None:
        return -1
    written = match[1].decode() if b"\\" not in match[1] else orjson.loads(b'"' + match[1] + b'"')
    return match.end() if written == name else -1


def _skip_space(text: bytes, at: int) -> int:
    if text[at : at + 1] in (b" ", b"\n", b"\r", b"\t"):
        match = _SPACE.match(text, at)
        assert match is not None
        return match.end()
    return at
