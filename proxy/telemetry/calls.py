"""One log line a call, cheap enough for the paid path: written in lots, a twentieth of a second late at most."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass

import orjson

__all__ = ["CallLine", "CallLog"]

_FLUSH_SECONDS = 0.05


@dataclass(slots=True)
class CallLine:
    """What is logged of a call; never its content."""

    request: str
    status: int
    model: str
    input_tokens: object
    output_tokens: object
    credits: str
    milliseconds: float


class CallLog:
    """Collects lines and writes them out together; write: takes text, such as `sys.stderr.write`."""

    def __init__(self, loop: asyncio.AbstractEventLoop, write: Callable[[str], object], *, json: bool) -> None:
        self._loop = loop
        self._write = write
        self._json = json
        self._lines: list[str] = []
        self._second = 0
        self._time = ""

    def add(self, line: CallLine) -> None:
        now = time.time()
        second = int(now)
        if second != self._second:
            self._second = second
            self._time = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
        moment = f"{self._time}.{int((now - second) * 1000):03d}Z"
        if not self._lines:
            self._loop.call_later(_FLUSH_SECONDS, self.flush)
        if self._json:
            document = {"time": moment, "level": "info", "logger": "farebox.call", **_members(line)}
            self._lines.append(orjson.dumps(document).decode() + "\n")
        else:
            self._lines.append(
                f"{moment} INFO {line.status} {line.model} {line.input_tokens}→{line.output_tokens} tokens,"
                f" {line.credits} credits, {line.milliseconds:.1f} ms, {line.request}\n"
            )

    def flush(self) -> None:
        """Write out what was collected."""
        lines, self._lines = self._lines, []
        if lines:
            self._write("".join(lines))


def _members(line: CallLine) -> dict[str, object]:
    return {name: getattr(line, name) for name in CallLine.__slots__}
