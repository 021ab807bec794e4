"""Clients that leave: raw sockets, closed at an exact point."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from types import TracebackType
from urllib.parse import urlsplit

from tests.proxy.running import Caller

__all__ = ["Leaver"]


class Leaver:
    """One call on a socket of its own.

    rude: it is reset rather than closed, as when a process dies. short: bytes at the request's end that are not sent.
    key: its idempotency key. narrow: hardly anything that is not read waits on its side.
    """

    def __init__(
        self,
        caller: Caller,
        body: bytes,
        *,
        rude: bool = False,
        short: int = 0,
        key: str | None = None,
        narrow: bool = False,
    ) -> None:
        parts = urlsplit(caller.server.base)
        self._host, self._port = parts.hostname or "", parts.port or 0
        self._rude = rude
        self._narrow = narrow
        request = (
            b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
            b"authorization: Bearer %s\r\ncontent-length: %d\r\n%s\r\n%s"
            % (caller.key.encode(), len(body), b"" if key is None else b"idempotency-key: %s\r\n" % key.encode(), body)
        )
        self._request = request[: len(request) - short]
        self.seen = b""

    async def __aenter__(self) -> Leaver:
        client = socket.socket()
        if self._narrow:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.setblocking(False)
        await asyncio.get_running_loop().sock_connect(client, (self._host, self._port))
        self._reader, self._writer = await asyncio.open_connection(sock=client, limit=4096 if self._narrow else 65536)
        self._writer.write(self._request)
        await self._writer.drain()
        return self

    def send(self, data: bytes) -> None:
        """Send what was left out."""
        self._writer.write(data)

    async def until(self, mark: bytes) -> None:
        """Read until these bytes have been seen."""
        while mark not in self.seen:
            data = await self._reader.read(65536)
            assert data, self.seen
            self.seen += data

    async def to_the_end(self) -> None:
        """Read until the server closes the connection or the answer is whole."""
        while data := await self._reader.read(65536):
            self.seen += data

    @property
    def request_id(self) -> str:
        return self.seen.partition(b"x-request-id: ")[2][:36].decode()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._rude:
            self._writer.get_extra_info("socket").setsockopt(
                socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
            )
        self._writer.transport.abort()
        # The socket is closed by the loop's next turn; after this it is.
        with contextlib.suppress(ConnectionError):
            await self._writer.wait_closed()
