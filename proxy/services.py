"""What the routes share: made once by `build_app`, handed down, never global."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field

from ledger.ledger import Ledger
from proxy.config import Config
from proxy.counting import TokenCounter
from proxy.interruption import Interruptible
from proxy.pending import Pending
from proxy.people.people import People
from proxy.telemetry.calls import CallLog
from proxy.upstream.upstream import Upstream

__all__ = ["Services"]


@dataclass(slots=True)
class Services:
    """One server's parts.

    running: calls that an upstream is answering. draining: the server is stopping and takes no new calls.
    """

    config: Config
    ledger: Ledger
    people: People
    counter: TokenCounter
    upstreams: Mapping[str, Upstream]
    admin_digest: bytes
    loop: asyncio.AbstractEventLoop
    call_log: CallLog
    pending: Pending = field(default_factory=Pending)
    running: set[Interruptible] = field(default_factory=set)
    draining: bool = False
