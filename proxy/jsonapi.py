"""How Farebox's own routes speak: objects, lists, times, amounts on input."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response

from ledger.ids import microseconds
from ledger.model import NEVER
from pricing.amounts import parse_credits
from pricing.errors import InvalidAmount
from proxy.errors import ApiError, bad_request, not_supported
from proxy.operations.splice import members_of

__all__ = ["JSON", "MOST_REASON", "Fields", "answer", "page", "read_body", "read_fields", "read_page", "timestamp"]

_DEFAULT_PAGE = 50
_MOST_PAGE = 1000
_MOST_ADMIN_BODY = 1_000_000
MOST_REASON = 2000
_BODY = "farebox.body"
_AGO = re.compile(r"(\d{1,5})([hd])", re.ASCII)
_SECONDS = {"h": 3_600, "d": 86_400}
_LAST_DAY = (datetime(9999, 12, 31) - datetime(1970, 1, 1)).days


class JSON(Response):
    """A JSON answer."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        return orjson.dumps(content)


def answer(content: Mapping[str, Any], status: int = 200) -> JSON:
    return JSON(content, status)


def timestamp(at: int | None) -> str | None:
    """Write a time, in microseconds since 1970, as RFC 3339 in UTC; NEVER and None are null."""
    if at is None or at == NEVER:
        return None
    seconds, rest = divmod(at, 1_000_000)
    moment = datetime.fromtimestamp(seconds, UTC).replace(microsecond=rest)
    return moment.isoformat(timespec="microseconds" if rest else "seconds").replace("+00:00", "Z")


def parse_timestamp(text: object, name: str) -> int:
    """Read an RFC 3339 time with its offset, in microseconds since 1970."""
    try:
        moment = datetime.fromisoformat(text) if isinstance(text, str) else None
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise bad_request(f"`{name}` must be a time such as 2026-11-21T00:00:00Z", name, status=422)
    delta = moment - datetime(1970, 1, 1, tzinfo=UTC)
    if not 0 <= delta.days < _LAST_DAY:
        raise bad_request(f"`{name}` must lie between 1970 and 9999", name, status=422)
    return (delta.days * 86400 + delta.seconds) * 1_000_000 + delta.microseconds


def parse_since(text: str) -> int:
    """Read a time, or how long ago it is, such as `30d` or `12h`, in microseconds since 1970."""
    match = _AGO.fullmatch(text)
    if match is not None:
        return max(0, microseconds() - int(match[1]) * _SECONDS[match[2]] * 1_000_000)
    try:
        return parse_timestamp(text, "since")
    except ApiError:
        raise bad_request("`since` must be such as 30d or 12h, or an RFC 3339 time", "since", status=422) from None


def read_page(request: Request) -> tuple[int, str | None]:
    """Read `limit` (1–1000, default 50, larger is cut) and `after`."""
    text = request.query_params.get("limit", str(_DEFAULT_PAGE))
    if not text.isascii() or not text.isdigit() or not int(text[:9]):
        raise bad_request("`limit` must be a whole number from 1 to 1000", "limit", status=422)
    return min(int(text[:9]), _MOST_PAGE), request.query_params.get("after")


def page(items: Sequence[Mapping[str, Any]], limit: int) -> JSON:
    """Answer a list; `items` holds one more than `limit` where there are more."""
    shown = items[:limit]
    more = len(items) > limit
    return JSON({"object": "list", "data": shown, "has_more": more, "next": shown[-1]["id"] if more else None})


class Fields:
    """The members of a request's JSON object; whoever reads one names it in the refusal (422)."""

    def __init__(self, members: dict[str, Any], text: bytes = b"{}") -> None:
        self._members = members
        self._text = text

    def written(self, name: str) -> bytes:
        """A member's JSON text as it came."""
        return bytes(members_of(self._text)[name])

    def text(self, name: str, *, most: int = 200, required: bool = False) -> str | None:
        value = self._members.get(name)
        if value is None:
            if required:
                raise bad_request(f"`{name}` is missing", name, status=422)
            return None
        if not isinstance(value, str) or not value.strip() or len(value) > most or not value.isprintable():
            raise bad_request(f"`{name}` must be a text of 1 to {most} printable characters", name, status=422)
        return value

    def flag(self, name: str) -> bool:
        """Read true or false; absent is false."""
        value = self._members.get(name)
        if value is not None and not isinstance(value, bool):
            raise bad_request(f"`{name}` must be true or false", name, status=422)
        return bool(value)

    def choice(self, name: str, options: Sequence[str], default: str) -> str:
        value = self._members.get(name)
        if value is None:
            return default
        if value not in options:
            raise bad_request(f"`{name}` must be one of {', '.join(options)}", name, status=422)
        return str(value)

    def credits(self, name: str, *, default: int | None = None, zero: bool = False, signed: bool = False) -> int:
        """Read an amount of credits, in nanocredits."""
        value = self._members.get(name)
        if value is None and default is not None:
            return default
        try:
            return parse_credits(value, zero=zero, signed=signed)
        except InvalidAmount as error:
            raise bad_request(f"`{name}` {error}", name, status=422) from None

    @property
    def everything(self) -> dict[str, Any]:
        """All members, as they came."""
        return self._members

    def mapping(self, name: str) -> dict[str, Any]:
        """Read a JSON object."""
        value = self._members.get(name)
        if not isinstance(value, dict):
            raise bad_request(f"`{name}` must be an object", name, status=422)
        return value

    def texts(self, name: str, *, most: int = 100) -> list[str] | None:
        """Read a list of texts."""
        value = self._members.get(name)
        if value is None:
            return None
        if not isinstance(value, list) or not 0 < len(value) <= most or not all(isinstance(v, str) for v in value):
            raise bad_request(f"`{name}` must be a list of 1 to {most} texts", name, status=422)
        return value

    def time(self, name: str) -> int | None:
        value = self._members.get(name)
        return None if value is None else parse_timestamp(value, name)


async def read_body(request: Request, most: int = _MOST_ADMIN_BODY) -> bytes:
    """Read a request's body, once; raises ApiError 413 above `most` bytes."""
    body: bytes | None = request.scope.get(_BODY)
    if body is None:
        body = b""
        async for chunk in request.stream():
            body += chunk
            if len(body) > most:
                raise ApiError(413, "request_too_large", f"The body is larger than {most} bytes")
        request.scope[_BODY] = body
    return body


async def read_fields(
    request: Request, known: Sequence[str], later: Sequence[str] = (), *, most: int = _MOST_ADMIN_BODY
) -> Fields:
    """Read a request's JSON object; unknown members and those of later releases are refused by name."""
    body = await read_body(request, most)
    try:
        members = orjson.loads(body) if body.strip() else {}
        if isinstance(members, dict) and members:
            members_of(body)
    except ValueError as error:
        raise bad_request(f"The body is not valid JSON: {error}") from None
    if not isinstance(members, dict):
        raise bad_request("The body must be a JSON object")
    for name in members:
        if name in later and members[name] is not None:
            raise not_supported(f"`{name}`", name)
        if name not in known and name not in later:
            raise bad_request(f"`{name[:60]}` is unknown here; known: {', '.join(known)}", name[:60], status=422)
    fields = Fields(members, body)
    if "reason" in known:
        # Before anything is done: a command is journaled with it.
        fields.text("reason", most=MOST_REASON)
    return fields
