"""Keeps the running config that of the file: edits take effect whole or not at all, within two seconds."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Mapping
from pathlib import Path

from ledger.ids import microseconds
from pricing.errors import ConfigError
from proxy.config import Config, load_config
from proxy.journal import Journal
from proxy.services import Services
from proxy.upstream.upstream import Upstream

__all__ = ["Keeper"]

_log = logging.getLogger("farebox.config")
_LOOK_SECONDS = 0.5


class Keeper:
    """Reloads one server's config; calls that run keep the one under which they were admitted.

    last_error: why the file as it is now is not in force, or None. effective_at: when the table in force became so.
    """

    def __init__(self, services: Services, journal: Journal, environment: Mapping[str, str]) -> None:
        self._services = services
        self._journal = journal
        self._environment = environment
        self._path = Path(services.config.file)
        self._seen = self._look()
        self._lock = asyncio.Lock()
        self._retired: list[Upstream] = []
        self._watcher: asyncio.Task[None] | None = None
        self.last_error: str | None = None
        self.effective_at = microseconds()

    async def start(self) -> None:
        """Note the table in force, and watch the file from now on."""
        table = self._services.config.table
        self.effective_at = await self._journal.keep_prices(table.version, table.content, microseconds())
        self._watcher = self._services.loop.create_task(self._watch())

    async def close(self) -> None:
        if self._watcher is not None:
            self._watcher.cancel()
        for upstream in self._retired:
            await upstream.close()

    def _look(self) -> tuple[int, int, int] | None:
        try:
            found = os.stat(self._path)
        except OSError:
            return None
        return found.st_mtime_ns, found.st_size, found.st_ino

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            # A look each half second is cheaper than a watcher, and sees replaced files as well as edited ones.
            if self._look() != self._seen:
                try:
                    await self.reload()
                except Exception as error:  # a watcher that ends would leave every later edit unseen
                    self.last_error = f"{self._path}: could not be reloaded: {error!r}"
                    _log.exception("the edited config could not be reloaded, the one before it is still in force")

    async def reload(self) -> str | None:
        """Read the file again; returns why it is not in force, or None where it is."""
        async with self._lock:
            self._seen = self._look()
            before = self._services.config
            try:
                config = await asyncio.to_thread(load_config, self._path, self._environment)
                if config.database != before.database:
                    raise ConfigError(config.file, 1, "database: can't change while the server runs; restart it")
            except ConfigError as error:
                self.last_error = str(error)
                _log.error("the edited config is not in force, the one before it still is: %s", error)
                return self.last_error
            self.last_error = None
            if config == before:
                return None
            if config.table.version != before.table.version:
                table = config.table
                await self._journal.keep_prices(table.version, table.content, microseconds())
                self.effective_at = microseconds()
            self._replace(before, config)
            _log.info("config reloaded; prices are %s", config.table.version)
            for warning in config.warnings:
                _log.warning(warning)
            return None

    def _replace(self, before: Config, config: Config) -> None:
        services = self._services
        upstreams = dict(services.upstreams)
        for name, wanted in config.upstreams.items():
            if before.upstreams.get(name) != wanted:
                self._retire(upstreams.pop(name, None))
                upstreams[name] = services.make_upstream(wanted)
        for name in upstreams.keys() - config.upstreams.keys():
            self._retire(upstreams.pop(name))
        services.upstreams, services.config = upstreams, config
        services.limits.change(config.limits)

    def _retire(self, upstream: Upstream | None) -> None:
        # Running calls still use it; it is closed with the server.
        if upstream is not None:
            self._retired.append(upstream)
