"""`/admin/v1/prices`: the table in force, its changes, and drafts tried on stored usage."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from pricing.document import without_variables
from pricing.errors import ConfigError
from pricing.versions import kept_table
from proxy.admin_commands import Admin
from proxy.config import parse_config
from proxy.errors import ApiError, bad_request
from proxy.journal import PriceChangeRow
from proxy.jsonapi import JSON, answer, page, parse_since, read_fields, read_page, timestamp
from proxy.keeper import Keeper
from proxy.price_list import prices_object
from proxy.services import Services

__all__ = ["routes"]

_DRAFT = "config"
_MOST_SECONDS = 900
_KEPT = ("PATH", "PYTHONPATH", "HOME", "LANG", "TMPDIR", "VIRTUAL_ENV", "SYSTEMROOT")


def routes(services: Services, keeper: Keeper | None) -> list[Route]:
    """The operator's routes for prices; keeper: where the config can be reloaded."""
    handlers = _Prices(services, keeper)
    return [
        Route("/admin/v1/prices", handlers.prices, methods=["GET"]),
        Route("/admin/v1/prices/changes", handlers.changes, methods=["GET"]),
        Route("/admin/v1/prices/versions/{version}", handlers.version, methods=["GET"]),
        Route("/admin/v1/prices/simulate", handlers.simulate, methods=["POST"]),
        Route("/admin/v1/prices/reload", handlers.command(handlers.reload), methods=["POST"]),
    ]


class _Prices(Admin):
    def __init__(self, services: Services, keeper: Keeper | None) -> None:
        super().__init__(services)
        self._keeper = keeper
        self._simulating = asyncio.Lock()

    async def prices(self, request: Request) -> Response:
        await self._allow(request)
        config, keeper = self._services.config, self._keeper
        upcoming = [] if keeper is None else keeper.upcoming
        shown: dict[str, Any] = {
            "object": "prices",
            "version": config.table.version,
            "effective_at": timestamp(keeper.effective_at) if keeper else None,
            "last_error": keeper.last_error if keeper else None,
            "upcoming": [{"effective_from": timestamp(begins), "version": table.version} for begins, table in upcoming],
        }
        return answer({**shown, **prices_object(config.table, config.operations)})

    async def changes(self, request: Request) -> Response:
        await self._allow(request)
        limit, after = read_page(request)
        rows = await self._services.journal.price_changes(limit + 1, _number(after) if after else None)
        return page([_change(row) for row in rows], limit)

    async def version(self, request: Request) -> Response:
        await self._allow(request)
        version = request.path_params["version"]
        content = (await self._services.journal.price_contents([version])).get(version)
        if content is None:
            raise ApiError(404, "not_found", "No such version of the prices was ever in force")
        shown = prices_object(kept_table(version, content), self._services.config.operations)
        return answer({"object": "prices.version", "version": version, **shown})

    async def reload(self, request: Request) -> Response:
        await self._allow(request)
        if self._keeper is None:
            raise ApiError(409, "not_serving", "There is no running server whose config could be reloaded")
        problem = await self._keeper.reload("admin, by POST /admin/v1/prices/reload")
        if problem is not None:
            raise bad_request(f"The config is not in force, the one before it still is: {problem}", status=422)
        await self._note(request, "prices.reload", None, None)
        return await self.prices(request)

    async def simulate(self, request: Request) -> Response:
        await self._allow(request)
        fields = await read_fields(request, (_DRAFT, "since"))
        draft = fields.everything.get(_DRAFT)
        if not isinstance(draft, str) or not draft:
            raise bad_request("`config` must be the text of a config file", _DRAFT, status=422)
        draft = without_variables(draft)
        since = parse_since(fields.text("since", most=40) or "30d")
        try:
            await asyncio.to_thread(parse_config, draft, "the draft", {}, strict=False)
        except ConfigError as error:
            raise bad_request(str(error), _DRAFT, status=422) from None
        # One at a time: each takes a core for as long as it goes on.
        async with self._simulating:
            return JSON(await _simulated(draft, since, self._services.config.database))


async def _simulated(draft: str, since: int, database: str) -> Any:
    """Simulate in a process of its own, which holds up no call here; raises ApiError."""
    kept = {name: value for name, value in os.environ.items() if name in _KEPT or name.startswith(("LC_", "PG"))}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "proxy", "simulate", "-", "--json", "--since", timestamp(since) or ""),
        env={**kept, "FAREBOX_DATABASE_URL": database},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(_MOST_SECONDS):
            output, complaints = await process.communicate(draft.encode())
    except TimeoutError:
        raise ApiError(503, "overloaded", "The simulation took too long; ask for a later `since`") from None
    finally:
        if process.returncode is None:
            process.kill()
    if process.returncode != 0:
        said = complaints.decode(errors="replace").strip().splitlines()
        raise ApiError(503, "ledger_unavailable", f"The simulation failed: {said[-1] if said else 'it was ended'}")
    return json.loads(output)


def _number(after: str) -> int:
    if not after.removeprefix("change_").isdigit():
        raise bad_request("`after` is the id of the last change seen, such as change_7", "after", status=422)
    return min(int(after.removeprefix("change_")), 2**62)


def _change(row: PriceChangeRow) -> dict[str, Any]:
    said = dict(json.loads(row.words))
    return {
        "object": "prices.change",
        "id": f"change_{row.change_id}",
        "at": timestamp(row.at),
        "actor": row.actor,
        "steps": [
            {
                "effective_from": timestamp(begins) if begins else None,
                "version": version,
                "changes": said.get(begins, []),
            }
            for begins, version in json.loads(row.steps)
        ],
    }
