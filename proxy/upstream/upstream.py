"""What every kind of upstream offers the paid path."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping
from typing import Protocol

__all__ = ["Upstream", "UpstreamFailed", "UpstreamResponse"]


class UpstreamFailed(Exception):
    """The upstream gave no whole answer; kind: `unreachable`, `timeout` or `broken`."""

    def __init__(self, kind: str, detail: str) -> None:
        super().__init__(detail)
        self.kind = kind


class UpstreamResponse(Protocol):
    """An answer that has begun."""

    @property
    def status(self) -> int: ...

    @property
    def headers(self) -> Mapping[str, str]:
        """Headers; looked up without regard to case."""

    def chunks(self) -> AsyncGenerator[bytes, None]:
        """The body as it arrives; raises UpstreamFailed where it breaks off."""

    async def read(self, progress: Callable[[], None]) -> bytes:
        """The whole body; calls `progress` whenever some of it arrived. Raises UpstreamFailed where it breaks off."""

    def close(self) -> None:
        """Give the answer up; what has not arrived is cancelled at the upstream."""

    async def finish(self) -> None:
        """Let the connection be used again if the body's end is about to arrive."""


class Upstream(Protocol):
    """Somebody who answers calls."""

    async def open(self, path: str, body: bytes, headers: Mapping[str, str]) -> UpstreamResponse:
        """Send a call; returns when the answer begins. Raises UpstreamFailed."""

    async def close(self) -> None: ...
