"""Runs the server and stops it in order: no new calls, time for the running ones, then a settlement for each."""

from __future__ import annotations

import asyncio
import gc
import signal
import socket
from collections.abc import Callable
from types import FrameType
from typing import cast

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from proxy.app import build_app
from proxy.interruption import DRAINED
from proxy.keeper import Keeper
from proxy.services import Services

__all__ = ["bind", "quieten_collector", "run"]

_SETTLE_SECONDS = 2.0
_CLOSE_SECONDS = 1
_TICK_SECONDS = 0.02
_BACKLOG = 2048
_GC_THRESHOLD = 20_000


def bind(host: str, port: int) -> socket.socket:
    """Open the listening socket; raises OSError if the address is taken."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.create_server((host, port), family=family, backlog=_BACKLOG)
    listener.setblocking(False)
    return listener


async def run(
    services: Services, keeper: Keeper, listener: socket.socket, drain: float, on_ready: Callable[[], None]
) -> None:
    """Serve until SIGTERM or SIGINT; drain: seconds that running calls get to end by themselves."""
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGHUP, lambda: services.pending.start(_reload(keeper)))
    config = uvicorn.Config(
        build_app(services, keeper),
        http=_Protocol,
        ws="none",
        lifespan="off",
        access_log=False,
        log_config=None,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=_CLOSE_SECONDS,
        backlog=_BACKLOG,
    )
    quieten_collector()
    server = _Server(config, services, drain)
    loop.call_soon(on_ready)
    await server.serve([listener])


def quieten_collector() -> None:
    """Have garbage looked for seldom, and not in what start-up made; it would cost calls a twentieth of their time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_GC_THRESHOLD, 20, 20)


async def _reload(keeper: Keeper) -> None:
    await keeper.reload()


class _Protocol(HttpToolsProtocol):
    """uvicorn's protocol; an answer's head and the first of its body leave in one system call."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # uvicorn's own type
        super().connection_made(cast(asyncio.Transport, _Corked(transport, self.loop)))


class _Corked:
    """A transport that keeps an answer's head until what follows it, or until the loop's next turn."""

    __slots__ = ("_head", "_loop", "_transport", "write_inner")

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._head = b""
        self.write_inner = transport.write

    def write(self, data: bytes) -> None:
        if self._head:
            data, self._head = self._head + data, b""
        elif data.startswith(b"HTTP/1.1 "):
            self._head = data
            self._loop.call_soon(self._flush)
            return
        self.write_inner(data)

    def _flush(self) -> None:
        if self._head:
            self.write(b"")

    def close(self) -> None:
        self._flush()
        self._transport.close()

    def __getattr__(self, name: str) -> object:
        return getattr(self._transport, name)


class _Server(uvicorn.Server):
    """uvicorn's server, stopped our way: it goes on listening while calls drain, so that `/readyz` can say so."""

    def __init__(self, config: uvicorn.Config, services: Services, drain: float) -> None:
        super().__init__(config)
        self._services = services
        self._drain_seconds = drain
        self._loop = asyncio.get_running_loop()
        self._hurry = False
        self._draining: asyncio.Task[None] | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """First signal: drain. Second: don't wait for running calls any longer. They are settled either way."""
        if self._services.draining:
            self._hurry = sig in (signal.SIGINT, signal.SIGTERM)
            return
        self._services.draining = True
        self._loop.call_soon_threadsafe(self._start_draining)

    def _start_draining(self) -> None:
        self._services.stop_watching()
        self._draining = self._loop.create_task(self._drain())

    async def _drain(self) -> None:
        running = self._services.running
        await self._until_idle(self._drain_seconds)
        for life in list(running):
            life.interrupt(DRAINED)
        self._hurry = False
        await self._until_idle(_SETTLE_SECONDS)
        self.should_exit = True

    async def _until_idle(self, seconds: float) -> None:
        ends = self._loop.time() + seconds
        # Three things end this wait; a look now and then is simpler than an event that all of them set.
        while self._services.running and self._loop.time() < ends and not self._hurry:  # noqa: ASYNC110  # see above
            await asyncio.sleep(_TICK_SECONDS)
