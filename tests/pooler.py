"""A pooler in transaction mode, in front of the tests' own server: a client has a server's connection for one
transaction and then gets another, so that nothing of a session can be relied on.

It listens on a socket in a folder of its own. Beside this one, which is always there, PgBouncer can be run.
"""

from __future__ import annotations

import asyncio
import shutil
import struct
import subprocess
import tempfile
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psycopg
from psycopg.conninfo import conninfo_to_dict

__all__ = ["pgbouncer", "pooler"]

_PORT = 5432
_SSL, _GSS = 80877103, 80877104
_CANCEL = 80877102
_READY, _IDLE = b"Z", b"I"
_Wires = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class _Connection:
    """A server's connection, between two transactions; greeting: what it said before it was ready."""

    def __init__(self, wires: _Wires) -> None:
        self.reader, self.writer = wires
        self.greeting = b""


class _Pooler:
    """Hands out a few server's connections to any number of clients, the one that has rested longest first."""

    def __init__(self, socket: str, size: int) -> None:
        self._socket = socket
        self._free: dict[bytes, deque[_Connection]] = {}
        self._left = asyncio.Semaphore(size)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One client, until it leaves or the server does."""
        with suppress(OSError, EOFError):
            await self._serve(reader, writer)
        writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while (asked := await _startup(reader))[4:8] in (struct.pack("!I", _SSL), struct.pack("!I", _GSS)):
            writer.write(b"N")
        if asked[4:8] == struct.pack("!I", _CANCEL):
            return
        first: bytes | None = None
        while True:
            if first is not None and not (first := await _message(reader)):
                return
            async with self._left:
                connection = await self._take(asked)
                if first is None:
                    writer.write(connection.greeting + _READY + struct.pack("!I", 5) + _IDLE)
                elif not await _transaction(first, reader, writer, connection):
                    connection.writer.close()
                    return
                self._free[asked].append(connection)
                first = b""

    async def _take(self, asked: bytes) -> _Connection:
        free = self._free.setdefault(asked, deque())
        while free:
            connection = free.popleft()
            if not connection.reader.at_eof():
                return connection
        connection = _Connection(await asyncio.open_unix_connection(self._socket))
        connection.writer.write(asked)
        while (message := await _message(connection.reader))[:1] != _READY:
            if not message or message[:1] == b"E":
                raise EOFError
            connection.greeting += message
        return connection
