"""Keeps the running config that of the file: edits take effect whole or not at all, within two seconds."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
from collections.abc import Mapping
from pathlib import Path

from ledger.errors import LedgerError
from ledger.ids import microseconds
from pricing.errors import ConfigError, PricingError
from pricing.table import PriceTable
from pricing.versions import kept_table
from proxy.config import Config, load_config
from proxy.journal import Journal, PriceChangeRow
from proxy.jsonapi import timestamp
from proxy.schedule import Schedule
from proxy.services import Services
from proxy.upstream.upstream import Upstream

__all__ = ["Keeper"]

_log = logging.getLogger("farebox.config")
_LOOK_SECONDS = 0.5
_MOST_WORDS = 200


class Keeper:
    """Reloads one server's config; calls that run keep the one under which they were admitted.

    Which prices are in force the database says, so that it is the same on all servers: an edit of any server's file is
    announced there, with who and when, and what all others find there counts for them too. A server that joins running
    ones takes theirs, unless its file says what has never been in force.

    last_error: why the file as it is now is not in force, or None. effective_at: when the table in force became so.
    """

    def __init__(self, services: Services, journal: Journal, environment: Mapping[str, str]) -> None:
        self._services = services
        self._journal = journal
        self._environment = environment
        self._path = Path(services.config.file)
        self._file = services.config
        self._schedule = services.config.schedule
        self._change = self._unreadable = 0
        self._unannounced = False
        self._announced_at = 0
        self._seen = self._look()
        self._lock = asyncio.Lock()
        self._retired: list[Upstream] = []
        self._watcher: asyncio.Task[None] | None = None
        self.last_error: str | None = None
        self.effective_at = microseconds()

    async def start(self, *, again: bool = False) -> None:
        """Find out which prices are in force, and watch the file from now on.

        again: in place of a process of this server that ended; otherwise those that start with it are no company.
        """
        found = await self._journal.last_change()
        steps = self._file.schedule.versions()
        if (
            found is not None
            and await self._services.ledger.minder.has_company(siblings=again)
            and await self._journal.was_announced(steps)
            and await self._adopt(found)
        ):
            if not self._schedule.same_from(microseconds(), self._file.schedule):
                _log.warning(
                    "the prices of %s were in force before; other servers have had newer ones since %s, from %s,"
                    " and so has this one now. POST /admin/v1/prices/reload puts this file's in force everywhere",
                    self._path,
                    timestamp(found.at),
                    found.actor,
                )
        else:
            await self._announce(self._file, self._here())
        self._enforce()
        self._watcher = self._services.loop.create_task(self._watch())

    async def close(self) -> None:
        if self._watcher is not None:
            self._watcher.cancel()
        for upstream in self._retired:
            await upstream.close()

    def _here(self) -> str:
        return f"{self._path.name} of {socket.gethostname()}"

    def _look(self) -> tuple[int, int, int] | None:
        try:
            found = os.stat(self._path)
        except OSError:
            return None
        return found.st_mtime_ns, found.st_size, found.st_ino

    async def _watch(self) -> None:
        unanswered = False
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            try:
                # A look each half second is cheaper than a watcher, and sees replaced files as well as edited ones.
                if self._look() != self._seen:
                    await self.reload()
                elif self._services.journal.shared:
                    await self._follow()
                self._enforce()
                unanswered = False
            except LedgerError as error:
                # It is tried again at the next look; an outage has one line here.
                if not unanswered:
                    _log.error("the prices in force could not be looked at again: %s", error)
                unanswered = True
            except Exception as error:  # a watcher that ends would leave every later edit unseen
                self.last_error = f"{self._path}: could not be reloaded: {error!r}"
                _log.exception("the edited config could not be reloaded, the one before it is still in force")

    async def reload(self, actor: str | None = None) -> str | None:
        """Read the file again; returns why it is not in force, or None where it is.

        actor: who asks for it; without, its prices are announced only if the file is another than before.
        """
        async with self._lock:
            self._seen = self._look()
            before = self._file
            try:
                config = await asyncio.to_thread(load_config, self._path, self._environment)
                if config.database != before.database:
                    raise ConfigError(config.file, 1, "database: can't change while the server runs; restart it")
            except ConfigError as error:
                self.last_error = str(error)
                _log.error("the edited config is not in force, the one before it still is: %s", error)
                return self.last_error
            if config == before and actor is None and not self._unannounced:
                self.last_error = None
                return None
            # An edit of something else leaves the prices that are in force, whoever announced them.
            changed = config.schedule.versions() != before.schedule.versions()
            try:
                if changed or actor is not None or self._unannounced:
                    await self._announce(config, actor or self._here())
            except LedgerError as error:
                self._seen, self._unannounced = None, True
                self.last_error = f"{self._path}: not in force yet: {error}"
                raise
            self._file, self.last_error, self._unannounced = config, None, False
            self._replace(self._services.config, config.under(self._schedule.at(microseconds())))
            self._enforce()
            _log.info("config reloaded; prices are %s", self._services.config.table.version)
            for warning in config.warnings:
                _log.warning(warning)
            return None

    async def _announce(self, config: Config, actor: str) -> None:
        """Put a config's prices in force everywhere, if they are not."""
        while True:
            found = await self._journal.last_change()
            readable = found is not None and await self._adopt(found)
            now, mine = microseconds(), config.schedule
            if readable and self._schedule.same_from(now, mine):
                self._schedule = mine
                return
            words = mine.changes(now, self._schedule.at(now) if readable else None, config.credit.plural)
            number = await self._journal.change_prices(
                found.change_id if found is not None else 0,
                now,
                actor,
                mine.versions(),
                {table.version: table.content for _, table in mine.steps},
                [(begins, said[:_MOST_WORDS]) for begins, said in words],
            )
            if number is not None:
                self._schedule, self._change, self._announced_at = mine, number, now
                for begins, said in words:
                    when = f"from {timestamp(begins)} on" if begins else "now"
                    _log.info("prices change %s: %s", when, "; ".join(said) or "nothing")
                return

    async def _follow(self) -> None:
        """Take over what another server has announced."""
        async with self._lock:
            found = await self._journal.last_change()
            if found is None or found.change_id in (self._change, self._unreadable):
                return
            if await self._adopt(found):
                _log.info("prices changed by %s", found.actor)

    async def _adopt(self, found: PriceChangeRow) -> bool:
        """Let announced prices count here; returns whether they can be read, which newer releases' may not be."""
        try:
            steps: list[tuple[int, str]] = [(begins, version) for begins, version in json.loads(found.steps)]
            own = {table.version: table for _, table in (*self._schedule.steps, *self._file.schedule.steps)}
            contents = await self._journal.price_contents([version for _, version in steps if version not in own])
            tables = own | {version: kept_table(version, content) for version, content in contents.items()}
            schedule = Schedule(tuple((begins, tables[version]) for begins, version in steps))
            schedule.at(microseconds())
        except (PricingError, ValueError, LookupError, TypeError) as error:
            self._unreadable = found.change_id
            _log.error("prices announced by %s can't be read, those before them stay: %r", found.actor, error)
            return False
        self._schedule, self._change, self._announced_at = schedule, found.change_id, found.at
        return True

    def _enforce(self) -> None:
        """Let the table of now be the one in force."""
        now, config = microseconds(), self._services.config
        table = self._schedule.at(now)
        self.effective_at = max(self._announced_at, self._schedule.since(now))
        if table.version == config.table.version:
            return
        self._services.config = config.under(table)
        _log.info("prices are %s", table.version)
        unpriced = [name for name in config.models if name not in table.models]
        if unpriced:
            _log.error("not offered here, as the prices in force have none for them: %s", ", ".join(unpriced))

    @property
    def upcoming(self) -> list[tuple[int, PriceTable]]:
        """What comes into force later."""
        return self._schedule.upcoming(microseconds())

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
