"""Several server processes on one listening socket: started, told to stop, started again when one dies."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from types import FrameType

__all__ = ["Workers"]

_AGAIN_SECONDS = 1.0
_READY_SECONDS = 60.0
_TICK_SECONDS = 0.1
_GRACE_SECONDS = 5.0


class Workers:
    """The processes of `farebox serve --workers N`; arguments: those of each worker's own `serve`.

    They end when this process does, however it ends: each holds a pipe that only this one can close.
    """

    def __init__(
        self,
        count: int,
        listener: socket.socket,
        arguments: Sequence[str],
        drain: float,
        on_ready: Callable[[], object],
    ) -> None:
        self._count = count
        self._listener = listener
        self._arguments = arguments
        self._drain = drain
        self._on_ready = on_ready
        self._alive, self._end = os.pipe()
        self._running: list[subprocess.Popen[bytes]] = []
        self._stopping = threading.Event()

    def run(self) -> int:
        """Run them until SIGTERM or SIGINT; returns the exit code."""
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._pass_on)
        ready = [self._start() for _ in range(self._count)]
        if not all(self._is_ready(pipe) for pipe in ready):
            self._signal(signal.SIGTERM)
            self._wait()
            # Told to stop before all could serve: they did not fail.
            return 0 if self._stopping.is_set() else 1
        self._on_ready()
        while not self._stopping.wait(_TICK_SECONDS):
            self._replace()
        return self._wait()

    def _pass_on(self, number: int, frame: FrameType | None) -> None:
        if number != signal.SIGHUP:
            self._stopping.set()
        self._signal(number)

    def _signal(self, number: int) -> None:
        for worker in self._running:
            if worker.poll() is None:
                worker.send_signal(number)

    def _start(self, *, again: bool = False) -> int:
        """Start one; returns the pipe that says when it is ready. again: in place of one that ended."""
        ready, tell = os.pipe()
        given = (self._listener.fileno(), self._alive, tell)
        self._running.append(
            subprocess.Popen(
                [
                    *(sys.executable, "-m", "proxy", "worker", *self._arguments, "--drain", str(self._drain)),
                    *("--listener", str(given[0]), "--parent", str(given[1]), "--ready", str(given[2])),
                    *(["--again"] * again),
                ],
                pass_fds=given,
                stdin=subprocess.DEVNULL,
                # Ctrl-C goes to this process, which tells the others once.
                start_new_session=True,
            )
        )
        os.close(tell)
        return ready

    def _is_ready(self, pipe: int) -> bool:
        try:
            return bool(select.select([pipe], [], [], _READY_SECONDS)[0]) and os.read(pipe, 1) == b"1"
        finally:
            os.close(pipe)

    def _replace(self) -> None:
        for worker in list(self._running):
            if worker.poll() is not None and not self._stopping.is_set():
                sys.stderr.write(f"worker {worker.pid} ended with {worker.returncode}; another one is started\n")
                self._running.remove(worker)
                if not self._stopping.wait(_AGAIN_SECONDS):
                    os.close(self._start(again=True))

    def _wait(self) -> int:
        ends = time.monotonic() + self._drain + _GRACE_SECONDS
        codes = []
        for worker in self._running:
            try:
                codes.append(worker.wait(max(0.1, ends - time.monotonic())))
            except subprocess.TimeoutExpired:
                worker.kill()
                codes.append(worker.wait())
        # Who is told to stop before it listens to signals holds nothing yet, and just ends.
        return int(any(code not in (0, -signal.SIGTERM, -signal.SIGINT) for code in codes))
