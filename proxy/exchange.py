"""One answer on its way out: status and headers once, bytes, or an error in whichever form is still possible."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence

from starlette.types import Message, Send

from proxy.errors import ApiError
from proxy.idempotency import MOST_KEPT

__all__ = ["Exchange"]

_PIECE = 65_536
_PATIENCE_SECONDS = 30.0
_SOUND = re.compile(r"[\t\x20-\x7e]*")
_RETURNED = ("content-type", "retry-after", "openai-processing-ms", "openai-version")


class Exchange:
    """The answering side of one request; request_id may be set until the answer begins."""

    __slots__ = (
        "_gone",
        "_patience",
        "_pieces",
        "_send",
        "_size",
        "begun",
        "credit_headers",
        "headers",
        "keeps",
        "request_id",
        "status",
    )

    def __init__(self, send: Send, request_id: str) -> None:
        self._send = send
        self.request_id = request_id
        self.status = 0
        self.begun = False
        self.credit_headers: list[tuple[bytes, bytes]] = []
        self.headers: list[tuple[bytes, bytes]] = []
        self._pieces: list[bytes] | None = None
        self._size = 0
        self._patience: float | None = None
        self._gone = False
        self.keeps = False

    def keep(self, patience: float, *, pieces: bool) -> None:
        """Keep what is written, in `pieces`, and write on without a client that does not read for so many seconds."""
        self.keeps = True
        self._pieces = [] if pieces else None
        self._patience = patience

    @property
    def kept(self) -> bytes:
        """What was written so far, and perhaps a byte more than can be kept."""
        return b"".join(self._pieces or ())

    async def start(self, status: int, upstream: Mapping[str, str], own: Sequence[tuple[bytes, bytes]]) -> None:
        """Send status and headers, once: ours, and of the upstream's those that callers may see."""
        if self.begun:
            return
        self.headers = self.composed(upstream)
        headers = [*self.headers, *own]
        self.begun = True
        self.status = status
        await self._pass({"type": "http.response.start", "status": status, "headers": headers})

    async def again(self, headers: Sequence[tuple[bytes, bytes]], body: bytes) -> None:
        """Give a kept answer again, in pieces, so that whoever does not read keeps no more of it in memory."""
        self.begun = True
        self.status = 200
        self._patience = _PATIENCE_SECONDS
        await self._pass({"type": "http.response.start", "status": 200, "headers": headers})
        for at in range(0, len(body), _PIECE):
            piece, more = body[at : at + _PIECE], at + _PIECE < len(body)
            await self._pass({"type": "http.response.body", "body": piece, "more_body": more})

    def composed(self, upstream: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
        """The headers that are known before the call is settled."""
        headers = [(b"x-request-id", self.request_id.encode()), *self.credit_headers]
        for name in _RETURNED:
            value = upstream.get(name)
            # What no header can carry must not spoil an answer that is paid for.
            if value is not None and _SOUND.fullmatch(value):
                headers.append((name.encode(), value.encode()))
        return headers

    async def write(self, body: bytes, *, more: bool = False) -> None:
        if self._pieces is not None and self._size <= MOST_KEPT:
            self._pieces.append(body)
            self._size += len(body)
        await self._pass({"type": "http.response.body", "body": body, "more_body": more})

    async def _pass(self, message: Message) -> None:
        if self._patience is None:
            await self._send(message)
        elif not self._gone:
            try:
                async with asyncio.timeout(self._patience):
                    await self._send(message)
            except TimeoutError:
                self._gone = True

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
