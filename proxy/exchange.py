"""One answer on its way out: status and headers once, bytes, or an error in whichever form is still possible."""

from __future__ import annotations

import re
from collections.abc import Mapping

from starlette.types import Send

from proxy.errors import ApiError

__all__ = ["Exchange"]

_SOUND = re.compile(r"[\t\x20-\x7e]*")
_RETURNED = ("content-type", "retry-after", "openai-processing-ms", "openai-version")


class Exchange:
    """The answering side of one request; request_id may be set until the answer begins."""

    __slots__ = ("_send", "begun", "credit_headers", "request_id", "status")

    def __init__(self, send: Send, request_id: str) -> None:
        self._send = send
        self.request_id = request_id
        self.status = 0
        self.begun = False
        self.credit_headers: list[tuple[bytes, bytes]] = []

    async def start(self, status: int, upstream: Mapping[str, str], own: Mapping[str, str]) -> None:
        """Send status and headers, once: ours, and of the upstream's those that callers may see."""
        if self.begun:
            return
        headers = [(b"x-request-id", self.request_id.encode()), *self.credit_headers]
        for name in _RETURNED:
            value = upstream.get(name)
            # What no header can carry must not spoil an answer that is paid for.
            if value is not None and _SOUND.fullmatch(value):
                headers.append((name.encode(), value.encode()))
        headers += [(name.encode(), value.encode()) for name, value in own.items()]
        self.begun = True
        self.status = status
        await self._send({"type": "http.response.start", "status": status, "headers": headers})

    async def write(self, body: bytes, *, more: bool = False) -> None:
        await self._send({"type": "http.response.body", "body": body, "more_body": more})

    async def refuse(self, error: ApiError) -> None:
        """Answer with an error: as the whole answer, or as a last event where the answer has begun."""
        if self.begun:
            broken = ApiError(502, "upstream_error", error.message, extra=error.extra)
            await self.write(b"data: " + broken.envelope(self.request_id) + b"\n\n")
            return
        body = error.envelope(self.request_id)
        self.begun = True
        self.status = error.status
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(body)),
            (b"x-request-id", self.request_id.encode()),
            *((name.encode(), value.encode("latin-1")) for name, value in error.headers.items()),
        ]
        await self._send({"type": "http.response.start", "status": error.status, "headers": headers})
        await self.write(body)
