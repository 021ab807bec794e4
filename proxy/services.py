"""What the routes share: made once by `build_app`, handed down, never global."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from ledger.ledger import Ledger
from pricing.table import PriceTable
from proxy.config import Config, UpstreamConfig
from proxy.counting import TokenCounter
from proxy.interruption import LAPSED, Interruptible
from proxy.journal import Journal
from proxy.limits import Limits
from proxy.once import Commands
from proxy.pending import Pending
from proxy.people.people import People
from proxy.telemetry.calls import CallLog
from proxy.telemetry.metrics import Metrics
from proxy.upstream.upstream import Upstream

__all__ = ["Services"]


@dataclass(slots=True)
class Services:
    """One server's parts.

    upstreams: by name; replaced whole, with the config. running: calls that an upstream is answering.
    draining: the server is stopping and takes no new calls. kept_tables: by versions that were lately asked for.
    """

    config: Config
    ledger: Ledger
    people: People
    counter: TokenCounter
    upstreams: Mapping[str, Upstream]
    admin_digest: bytes
    loop: asyncio.AbstractEventLoop
    call_log: CallLog
    make_upstream: Callable[[UpstreamConfig], Upstream]
    journal: Journal
    commands: Commands
    limits: Limits
    metrics: Metrics
    pending: Pending = field(default_factory=Pending)
    running: set[Interruptible] = field(default_factory=set)
    draining: bool = False
    kept_tables: dict[str, PriceTable] = field(default_factory=dict)
    _watchers: dict[int, set[asyncio.Event]] = field(default_factory=dict)

    def lapse(self) -> None:
        """Cut running calls: this process could not say that it lives, so others may release what they hold."""
        for life in list(self.running):
            life.interrupt(LAPSED)

    def changed(self, account: int) -> None:
        """Tell those who watch an account that it changed."""
        for event in self._watchers.get(account, ()):
            event.set()

    def stop_watching(self) -> None:
        """Wake whoever watches, so that they see that the server is stopping."""
        for account in list(self._watchers):
            self.changed(account)

    @contextmanager
    def watching(self, account: int) -> Iterator[asyncio.Event]:
        """Watch an account: the event is set after each change."""
        event = asyncio.Event()
        self._watchers.setdefault(account, set()).add(event)
        try:
            yield event
        finally:
            watchers = self._watchers[account]
            watchers.discard(event)
            if not watchers:
                del self._watchers[account]
