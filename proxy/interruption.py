"""Lets others end one call's waiting: its client leaves, time runs out, the server stops."""

from __future__ import annotations

import asyncio
from types import TracebackType

from starlette.types import Receive

__all__ = ["CLIENT_LEFT", "DRAINED", "LAPSED", "TIMED_OUT", "Interrupted", "Interruptible"]

CLIENT_LEFT = "client_left"
TIMED_OUT = "timed_out"
DRAINED = "drained"
LAPSED = "lapsed"
_LOOK_SECONDS = 1.0


class Interrupted(Exception):
    """The waiting was ended from outside; `reason` is the first that was given."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Interruptible:
    """`with life:` round the waits that may be ended; everything outside runs on undisturbed.

    Works as asyncio.timeout does: the task is cancelled and, at the block's end, the cancellation becomes Interrupted.
    An interruption that comes outside a block is raised when the next one is entered. Deadlines are in seconds.
    """

    __slots__ = (
        "_armed", "_cancelled", "_deadline", "_ends", "_later", "_loop", "_task", "_timer", "left", "reason", "sending",
    )  # fmt: skip

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        # The loop is handed in: looking for the running one costs a system call each time.
        task = asyncio.current_task(loop)
        assert task is not None
        self._task = task
        self._loop = loop
        self._armed = False
        self._cancelled = False
        self._timer: asyncio.TimerHandle | None = None
        self._deadline = self._ends = float("inf")
        self.reason: str | None = None
        self._later: str | None = None
        self.sending = False
        self.left = False

    def interrupt(self, reason: str) -> None:
        """End the waiting, now or at the next block; the first reason stays."""
        if self.reason is None:
            self.reason = reason
            if self._armed:
                self._cancelled = True
                self._task.cancel()
        elif self._later is None and reason != TIMED_OUT:
            self._later = reason

    def resume(self) -> None:
        """Wait on after time ran out, for something that has a deadline of its own; another reason still ends that."""
        if self.reason == TIMED_OUT:
            self.reason, self._later = self._later, None

    async def watch(self, receive: Receive, *, interrupts: bool) -> None:
        """Note that the client left, and end the waiting then if it `interrupts`."""
        while (await receive())["type"] != "http.disconnect":
            pass
        self.left = True
        if interrupts:
            self.interrupt(CLIENT_LEFT)

    def within(self, seconds: float, total: float | None = None) -> None:
        """Set the deadline anew; `total` sets, once, one that later calls can't put off."""
        now = self._loop.time()
        if total is not None:
            self._ends = now + total
        self._deadline = min(now + seconds, self._ends)
        if self._timer is None or self._timer.when() > self._deadline:
            self._start_timer()

    def _start_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        # Looking after a second at the latest, so that putting off or bringing forward a far deadline costs no timer.
        self._timer = self._loop.call_at(min(self._deadline, self._loop.time() + _LOOK_SECONDS), self._expire)

    def _expire(self) -> None:
        # Moving the deadline on costs nothing; the timer looks for itself whether it came too early.
        self._timer = None
        if self._loop.time() < self._deadline:
            self._start_timer()
        else:
            # A client that stops reading holds the stream up as one that left does.
            self.interrupt(CLIENT_LEFT if self.sending else TIMED_OUT)

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def __enter__(self) -> None:
        if self.reason is not None:
            raise Interrupted(self.reason)
        self._armed = True

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._armed = False
        if self._cancelled and self.reason is not None:
            self._cancelled = False
            if self._task.uncancel() == 0 and (kind is None or issubclass(kind, asyncio.CancelledError)):
                raise Interrupted(self.reason) from None
