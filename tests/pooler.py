"""Poolers in transaction mode: a client has a server's connection for one transaction, and then another one.

Each listens on a socket in a folder of its own and nowhere else. `pooler` is a small one that is always there,
`bouncer` is PgBouncer, where that is installed.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import struct
import subprocess
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import psycopg
from psycopg.conninfo import conninfo_to_dict

__all__ = ["bouncer", "pooler"]

_SOCKET = ".s.PGSQL.5432"
_SIZE = 6
_PATIENCE_SECONDS = 10
_LEAVING = b"X"
_ENDS = (b"Q", b"S")
"""What a client says and the server then answers with being ready: a query, or the end of a few messages."""
_CANCEL, _NO_ENCRYPTION = 80877102, (80877103, 80877104)
_COMMITTED = struct.pack("!cI", b"C", 11) + b"COMMIT\0"
_READY = struct.pack("!cI", b"Z", 5) + b"I"


class _Pooler:
    """Hands a few server's connections to any number of clients, first the one that has rested longest."""

    def __init__(self, socket: str, losing: Callable[[], bool]) -> None:
        self._socket, self._losing = socket, losing
        self._left = asyncio.Semaphore(_SIZE)
        self._free: dict[bytes, deque[_Connection]] = {}

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one client until it leaves, or a server's connection breaks that it has."""
        with suppress(OSError, EOFError), closing(writer):
            while (code := struct.unpack("!I", (asked := await _message(reader, 0))[4:8])[0]) in _NO_ENCRYPTION:
                writer.write(b"N")
            if code != _CANCEL:
                await self._serve(asked, reader, writer)
        with suppress(OSError):
            await writer.wait_closed()

    async def close(self) -> None:
        for free in self._free.values():
            for connection in free:
                connection.writer.close()
                with suppress(OSError):
                    await connection.writer.wait_closed()

    async def _serve(self, asked: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with self._left:
            connection = await self._take(asked)
        writer.write(connection.greeting + _READY)
        self._free[asked].append(connection)
        asking: asyncio.Future[bytes] = asyncio.create_task(_message(reader))
        while (message := await asking)[:1] != _LEAVING:
            async with self._left:
                connection = await self._take(asked)
                try:
                    asking = await connection.relay(message, reader, writer)
                except BaseException:
                    connection.writer.close()
                    raise
                self._free[asked].append(connection)

    async def _take(self, asked: bytes) -> _Connection:
        free = self._free.setdefault(asked, deque())
        while free:
            connection = free.popleft()
            if not connection.reader.at_eof() and connection.reader.exception() is None:
                return connection
        connection = _Connection(self._losing, *await asyncio.open_unix_connection(self._socket))
        connection.writer.write(asked)
        while (message := await _message(connection.reader)) != _READY:
            if message.startswith(b"E"):
                raise EOFError
            connection.greeting += message
        return connection


class _Connection:
    """One with the server; greeting: what it said before it was ready."""

    def __init__(self, losing: Callable[[], bool], reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._losing, self.reader, self.writer = losing, reader, writer
        self.greeting = b""

    async def relay(
        self, message: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> asyncio.Future[bytes]:
        """Pass on what both sides say, from a client's message to the end of its transaction; returns its next one."""
        asking, telling, unanswered = _said(message), asyncio.create_task(_message(self.reader)), 0
        try:
            while True:
                if asking.done():
                    message = asking.result()
                    self.writer.write(message)
                    if message[:1] == _LEAVING:
                        raise EOFError
                    unanswered += message[:1] in _ENDS
                    asking = asyncio.create_task(_message(reader))
                await asyncio.wait((asking, telling), return_when=asyncio.FIRST_COMPLETED)
                if telling.done():
                    said = telling.result()
                    if said == _COMMITTED and self._losing():
                        raise EOFError
                    writer.write(said)
                    unanswered -= said[:1] == _READY[:1]
                    # What does not end in one of these waits for more, though the server be ready.
                    if said == _READY and not unanswered and message[:1] in _ENDS:
                        return asking
                    telling = asyncio.create_task(_message(self.reader))
        except BaseException:
            asking.cancel()
            raise
        finally:
            telling.cancel()


def _said(message: bytes) -> asyncio.Future[bytes]:
    said = asyncio.get_running_loop().create_future()
    said.set_result(message)
    return said


async def _message(reader: asyncio.StreamReader, kind: int = 1) -> bytes:
    """Read a message; kind: how many bytes say what it is. Raises EOFError."""
    head = await reader.readexactly(kind + 4)
    return head + await reader.readexactly(int.from_bytes(head[kind:], "big") - 4)


@contextmanager
def pooler(url: str, losing: Callable[[], bool] = lambda: False) -> Iterator[str]:
    """Pool a server's connections as long as the block; yields the URL to use instead.

    losing: asked for each commit whether its answer is lost, and the connection with it.
    """
    with tempfile.TemporaryDirectory(prefix="farebox-pool-") as folder:
        listening = Future[asyncio.AbstractEventLoop]()
        ending = asyncio.Event()

        async def run() -> None:
            pool = _Pooler(f"{_folder(url)}/{_SOCKET}", losing)
            async with await asyncio.start_unix_server(pool.serve, f"{folder}/{_SOCKET}"):
                listening.set_result(asyncio.get_running_loop())
                await ending.wait()
            await pool.close()

        thread = threading.Thread(target=asyncio.run, args=(run(),), name="pooler")
        thread.start()
        loop = listening.result(_PATIENCE_SECONDS)
        try:
            yield url.replace(_folder(url), folder)
        finally:
            loop.call_soon_threadsafe(ending.set)
            thread.join()


@contextmanager
def bouncer(url: str) -> Iterator[str]:
    """Run PgBouncer before a server as long as the block; yields the URL to use instead."""
    program = shutil.which("pgbouncer")
    assert program is not None
    with tempfile.TemporaryDirectory(prefix="farebox-pool-") as folder:
        users, config = Path(folder, "users.txt"), Path(folder, "pgbouncer.ini")
        users.write_text('"postgres" ""\n')
        config.write_text(
            f"[databases]\n* = host={_folder(url)} port=5432\n[pgbouncer]\nlisten_port = 5432\n"
            f"unix_socket_dir = {folder}\nauth_type = trust\nauth_file = {users}\npool_mode = transaction\n"
            f"default_pool_size = {_SIZE}\nmax_client_conn = 500\n"
        )
        # It does not run as root, and the server's socket is its owner's alone.
        owner = os.stat(_folder(url)).st_uid if os.geteuid() == 0 else None
        if owner is not None:
            for place in (folder, users, config):
                os.chown(place, owner, -1)
        process = subprocess.Popen([program, "-q", str(config)], user=owner)
        try:
            instead = url.replace(_folder(url), folder)
            deadline = time.monotonic() + _PATIENCE_SECONDS
            while not _answers(instead):
                assert process.poll() is None and time.monotonic() < deadline
            yield instead
        finally:
            process.terminate()
            process.wait()


def _answers(url: str) -> bool:
    try:
        psycopg.connect(url).close()
    except psycopg.OperationalError:
        return False
    return True


def _folder(url: str) -> str:
    """Where a server's socket is."""
    return str(conninfo_to_dict(url)["host"])
