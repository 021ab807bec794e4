"""A real HTTP provider on 127.0.0.1 that answers what a test scripts, byte for byte, and remembers what it was sent."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

__all__ = [
    "CUT", "END", "Cut", "Gate", "Pause", "Received", "Script", "Step", "Upstream", "head", "piece", "response",
    "streamed",
]  # fmt: skip

_PATIENCE_SECONDS = 20.0


class Gate:
    """A place in a script where the upstream waits until the test opens it; never opened, it hangs."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._arrived = 0
        self._open = False
        self._waiting: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []

    async def walk_through(self) -> None:
        event = asyncio.Event()
        with self._condition:
            self._arrived += 1
            self._condition.notify_all()
            if self._open:
                return
            self._waiting.append((asyncio.get_running_loop(), event))
        await event.wait()

    def reached(self, times: int = 1) -> None:
        """Wait until so many answers have come this far."""
        with self._condition:
            assert self._condition.wait_for(lambda: self._arrived >= times, _PATIENCE_SECONDS), (
                f"{self._arrived} of {times} came to the gate"
            )

    async def reached_by(self, times: int) -> None:
        """As `reached`, for tests with an event loop."""
        await asyncio.to_thread(self.reached, times)

    def open(self) -> None:
        with self._condition:
            self._open = True
            waiting, self._waiting = self._waiting, []
        for loop, event in waiting:
            loop.call_soon_threadsafe(event.set)


@dataclass(frozen=True, slots=True)
class Pause:
    """The upstream is slow here, for so many seconds."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Cut:
    """The upstream's connection breaks here."""


CUT = Cut()
Step = bytes | Gate | Pause | Cut
Script = Sequence[Step]


@dataclass(slots=True)
class Received:
    """One request as it arrived.

    cut: set when its sender closed the connection before the answer's end. told: set when the whole script was told.
    """

    path: str
    headers: dict[str, str]
    body: bytes
    cut: threading.Event = field(default_factory=threading.Event)
    told: threading.Event = field(default_factory=threading.Event)

    @property
    def document(self) -> dict[str, Any]:
        document = json.loads(self.body)
        assert isinstance(document, dict)
        return document

    def was_cut(self, seconds: float = 1.0) -> bool:
        return self.cut.wait(seconds)


def response(
    body: bytes, status: int = 200, headers: Mapping[str, str] | None = None, kind: str = "application/json"
) -> bytes:
    """A whole HTTP answer; `kind` is its content type."""
    lines = {"content-type": kind, "content-length": str(len(body)), **(headers or {})}
    return _head(status, lines) + body


def head(kind: str = "text/event-stream", headers: Mapping[str, str] | None = None) -> bytes:
    """The beginning of an answer that is sent in chunks."""
    return _head(200, {"content-type": kind, "transfer-encoding": "chunked", **(headers or {})})


def _head(status: int, headers: Mapping[str, str]) -> bytes:
    text = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"HTTP/1.1 {status} Scripted\r\n{text}\r\n".encode("latin-1")


def piece(data: bytes) -> bytes:
    """One chunk of an answer that `head` began."""
    return b"%x\r\n%s\r\n" % (len(data), data)


END = b"0\r\n\r\n"
"""The end of an answer that is sent in chunks."""


def streamed(*parts: Step, ends: bool = True, headers: Mapping[str, str] | None = None) -> Script:
    """An event stream, a chunk a part; ends: it is closed properly."""
    steps: list[Step] = [head(headers=headers)]
    steps += [piece(part) if isinstance(part, bytes) else part for part in parts]
    return [*steps, END] if ends else steps


class Upstream:
    """Listens in a thread of its own with its own event loop."""

    def __init__(self) -> None:
        self.received: list[Received] = []
        self._script: Callable[[Received], Script] = lambda _: [response(b"{}", 500)]
        self._loop = asyncio.new_event_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        ready = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(ready,), name="upstream")
        self._thread.start()
        assert ready.wait(_PATIENCE_SECONDS)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}/v1"

    @property
    def last(self) -> Received:
        return self.received[-1]

    def says(self, *steps: Step | Iterable[Step]) -> None:
        """Answer every request from now on with this script."""
        script: list[Step] = []
        for step in steps:
            script += [step] if isinstance(step, bytes | Gate | Pause | Cut) else list(step)
        self._script = lambda _: script

    def chooses(self, script: Callable[[Received], Script]) -> None:
        """Answer each request from now on with the script that `script` makes for it."""
        self._script = script

    def forget(self) -> None:
        self.received.clear()

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(_PATIENCE_SECONDS)
        assert not self._thread.is_alive()

    # -- in the thread

    def _run(self, ready: threading.Event) -> None:
        try:
            self._loop.run_until_complete(self._listen(ready))
        finally:
            self._loop.close()

    async def _listen(self, ready: threading.Event) -> None:
        self._stop = asyncio.Event()
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0, backlog=1024)
        self._port = server.sockets[0].getsockname()[1]
        ready.set()
        await self._stop.wait()
        server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await self._converse(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            writer.transport.abort()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        begun = b""
        while True:
            received = await _read_request(reader, begun)
            self.received.append(received)
            telling = asyncio.create_task(_tell(self._script(received), writer))
            listening = asyncio.create_task(reader.read(1))
            try:
                await asyncio.wait({telling, listening}, return_when=asyncio.FIRST_COMPLETED)
                if not telling.done() or telling.exception() is not None:
                    received.cut.set()
                    return
                received.told.set()
                begun = await listening
                if not begun:
                    return
            finally:
                telling.cancel()
                listening.cancel()
                await asyncio.gather(telling, listening, return_exceptions=True)


async def _read_request(reader: asyncio.StreamReader, begun: bytes) -> Received:
    lines = (begun + await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    headers = {}
    for line in lines[1:-2]:
        name, _, value = line.partition(":")
        headers[name.lower()] = value.strip()
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Received(lines[0].split(" ")[1], headers, body)


async def _tell(script: Script, writer: asyncio.StreamWriter) -> None:
    for step in script:
        if isinstance(step, Gate):
            await step.walk_through()
        elif isinstance(step, Pause):
            await asyncio.sleep(step.seconds)
        elif isinstance(step, Cut):
            # What was written before the break has left by then.
            await writer.drain()
            writer.close()
            await writer.wait_closed()
        else:
            writer.write(step)
            await writer.drain()
