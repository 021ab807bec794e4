"""Idempotency keys of calls: who calls again gets the answer that was kept, headers and all, and is charged once."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from ledger.model import Claim, Claimed
from pricing.amounts import format_credits
from proxy.errors import ApiError, bad_request
from proxy.people.callers import Caller

__all__ = [
    "MOST_KEPT",
    "Answer",
    "claim_of",
    "figures",
    "in_progress",
    "key_conflict",
    "key_of",
    "last_events",
    "refused_again",
    "replayed",
]

MOST_KEPT = 4_000_000
"""Longer answers are charged once all the same, and not kept."""

_MOST_KEY = 255
_NAME = "Idempotency-Key"
_DONE = b"data: [DONE]\n\n"
_Headers = Sequence[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True)
class Answer:
    """What a call was answered, but for the figures that only its settlement knows.

    last: the usage event that a stream ends with, if one was asked for; None where it is no stream. estimated: the
    usage was Farebox's own count.
    """

    headers: _Headers
    body: bytes
    streamed: bool = False
    last: Mapping[str, Any] | None = None
    estimated: bool = False

    def packed(self) -> bytes:
        """Write it to be kept, made small; empty where it is too long for that. Takes long for a long one."""
        if len(self.body) > MOST_KEPT:
            return b""
        headers = [[name.decode("latin-1"), value.decode("latin-1")] for name, value in self.headers]
        about = orjson.dumps([headers, self.streamed, self.last, self.estimated])
        return zlib.compress(about + b"\n" + self.body, 1)


def key_of(headers: Mapping[bytes, bytes]) -> bytes | None:
    """Read the request's idempotency key; raises ApiError 400."""
    key = headers.get(b"idempotency-key")
    if key is None:
        return None
    if not 0 < len(key) <= _MOST_KEY or not all(0x20 < byte < 0x7F for byte in key):
        message = f"the header {_NAME} must be 1 to {_MOST_KEY} printable ASCII characters without spaces"
        raise bad_request(message, _NAME)
    return key


def claim_of(headers: Mapping[bytes, bytes], caller: Caller, route: str, body: bytes) -> Claim | None:
    """Say which call this is, if it says so itself; raises ApiError 400.

    It is the payer's, and of its members one does not answer for another.
    """
    key = key_of(headers)
    if key is None:
        return None
    scope = "\n".join((caller.member or "", route)).encode()
    return Claim(hashlib.sha256(scope + b"\n" + key).digest(), hashlib.sha256(body).digest())


def refused_again(found: Claimed, claim: Claim) -> ApiError:
    """Say why a call that has another's key is not made; it may be made later where the other one runs."""
    if found.claim.body != claim.body:
        return key_conflict()
    if found.answered:
        return key_conflict(f"What this {_NAME} is of was answered and charged once; its answer is not kept")
    return in_progress()


def key_conflict(message: str = f"This {_NAME} was used for another body; use a new key for a new request") -> ApiError:
    """Say that a key can't be used again."""
    return ApiError(409, "idempotency_conflict", message, param=_NAME, headers={"x-should-retry": "false"})


def in_progress() -> ApiError:
    """Say that trying again in a moment brings the answer."""
    return ApiError(
        409,
        "idempotency_in_progress",
        f"What this {_NAME} is of is running; try again in a moment to get its answer",
        param=_NAME,
        headers={"x-should-retry": "true", "retry-after": "1"},
    )


def figures(charged: int, available: int) -> list[tuple[bytes, bytes]]:
    """The headers that say what a call came to, of an answer that is no stream; in nanocredits."""
    return [
        (b"x-credits-charged", format_credits(charged).encode()),
        (b"x-credits-available", format_credits(available).encode()),
    ]


def last_events(last: Mapping[str, Any] | None, charged: int, available: int, *, estimated: bool) -> bytes:
    """Write a stream's end: the usage event with what the call came to, if one was asked for, and [DONE]."""
    if last is None:
        return _DONE
    credits = {"charged": format_credits(charged), "available": format_credits(available), "estimated": estimated}
    return b"data: " + orjson.dumps({**last, "credits": credits}) + b"\n\n" + _DONE


def replayed(found: Claimed, packed: bytes) -> tuple[_Headers, bytes]:
    """Read an answer that was kept; returns its headers and body as they were, and that they are given again.

    Takes long for a long one.
    """
    about, _, body = zlib.decompress(packed).partition(b"\n")
    headers, streamed, last, estimated = orjson.loads(about)
    given = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]
    if streamed:
        body += last_events(last, found.charged, found.available, estimated=estimated)
    else:
        given += figures(found.charged, found.available)
    return [*given, (b"x-idempotent-replayed", b"true")], body
