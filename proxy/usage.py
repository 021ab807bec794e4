"""What calls cost, listed: usage with filters and exports, sums, and the account's statement."""

from __future__ import annotations

import csv
import io
from collections.abc import AsyncIterator, Mapping
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from ledger.book import Balance
from ledger.calendar import local_date, midnight
from ledger.ids import microseconds
from ledger.ledger import Ledger
from ledger.plans import main_allowances
from ledger.usage import MEMBERS, Recorded, Which
from pricing.amounts import format_credits
from proxy.caller import headers_of, identify
from proxy.config import Config
from proxy.credits import receipt_object
from proxy.errors import ApiError, bad_request
from proxy.ids import account_id, object_id, parse_object
from proxy.jsonapi import JSON, page, parse_timestamp, read_page, timestamp
from proxy.services import Services

__all__ = ["routes", "statement_answer", "usage_answer", "usage_summary"]

_COLUMNS = (
    "id",
    "account",
    "created_at",
    "settled_at",
    "status",
    "ended",
    "endpoint",
    "model",
    "operation",
    "app",
    "thread",
    "run",
    "key",
    "member",
    "price_version",
    "estimated",
    "total",
    "debt",
    "refunded",
    "usage",
)
_BY = (*MEMBERS, "day")


def routes(services: Services) -> list[Route]:
    """The caller's own usage; open at zero credits."""

    async def usage(request: Request) -> Response:
        caller = await identify(services, headers_of(request.scope))
        return await usage_answer(services, request, caller.account_id, caller.member)

    async def summary(request: Request) -> Response:
        caller = await identify(services, headers_of(request.scope))
        return await usage_summary(services, request, caller.account_id, caller.member)

    async def statement(request: Request) -> Response:
        caller = await identify(services, headers_of(request.scope))
        if caller.member is not None:
            raise ApiError(403, "permission_denied", "A team's statement is for its operators; see your own usage")
        return await statement_answer(services, request, caller.account_id)

    return [
        Route("/v1/credits/usage", usage),
        Route("/v1/credits/usage/summary", summary),
        Route("/v1/credits/statement", statement),
    ]


def _which(request: Request, account: int | None, member: str | None, *others: str) -> Which:
    """Read the filters; raises ApiError 422 naming the one that is wrong. others: what else may be asked here.

    member: who may see its own calls only.
    """
    query = request.query_params
    known = {*MEMBERS, "since", "until", "limit", "after", *others}
    for name in query:
        if name not in known:
            shown = ", ".join(sorted(known))
            raise bad_request(f"`{name[:40]}` is no filter; known: {shown}", name[:40], status=422)
    times = {name: parse_timestamp(query[name], name) if name in query else None for name in ("since", "until")}
    wanted = {name: query[name] for name in MEMBERS if name in query}
    if member is not None:
        # Of another member's calls there are none.
        wanted["member"] = member if wanted.get("member", member) == member else ""
    return Which(account, wanted, times["since"], times["until"])


def _row(recorded: Recorded, *, account: bool) -> dict[str, Any]:
    """Show a call: its receipt without lines and what paid for it, but with what it used."""
    receipt = receipt_object(recorded.account_id, recorded)
    del receipt["lines"], receipt["paid_from"]
    usage: Mapping[str, str] = orjson.loads(recorded.memo)["usage"]
    shown = {**receipt, "object": "credits.usage", "usage": usage}
    return {**shown, "account": account_id(recorded.account_id)} if account else shown


async def usage_answer(
    services: Services, request: Request, account: int | None, member: str | None = None
) -> Response:
    """List calls, or export all of them as CSV or JSONL; account: whose, None for everybody's; member: its own only."""
    which = _which(request, account, member)
    accept = request.headers.get("accept", "")
    if "text/csv" in accept:
        return StreamingResponse(_csv(services.ledger, which), media_type="text/csv; charset=utf-8")
    if "application/jsonl" in accept:
        return StreamingResponse(_jsonl(services.ledger, which), media_type="application/jsonl")
    limit, after = read_page(request)
    calls = await services.ledger.usage(which, limit + 1, parse_object("req", after) or (0, 0) if after else None)
    return page([_row(call, account=account is None) for call in calls], limit)


async def _jsonl(ledger: Ledger, which: Which) -> AsyncIterator[bytes]:
    async for calls in ledger.usage_pages(which):
        yield b"".join(orjson.dumps(_row(call, account=which.account_id is None)) + b"\n" for call in calls)


async def _csv(ledger: Ledger, which: Which) -> AsyncIterator[bytes]:
    yield (",".join(_COLUMNS) + "\r\n").encode()
    async for calls in ledger.usage_pages(which):
        text = io.StringIO()
        writer = csv.writer(text)
        for call in calls:
            row = _row(call, account=True)
            row["usage"] = " ".join(f"{meter}={quantity}" for meter, quantity in row["usage"].items())
            writer.writerow([_cell(row[column]) for column in _COLUMNS])
        yield text.getvalue().encode()


def _cell(value: object) -> str:
    """Write a cell; a text that a spreadsheet would run as a formula is quoted, it may come from a caller's header."""
    if value is None:
        return ""
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return "'" + text if text[:1] in ("=", "+", "-", "@", "\t", "\r") else text


async def usage_summary(
    services: Services, request: Request, account: int | None, member: str | None = None
) -> Response:
    """Sum calls up; by default those of the current period, which without a plan is the month in the account's zone.

    `after` is the key of the last row seen, empty for the row without one (`next` says it).
    """
    which = _which(request, account, member, "by", "period")
    limit, after = read_page(request)
    by = request.query_params.get("by", "operation")
    if by not in _BY:
        raise bad_request(f"`by` must be one of {', '.join(_BY)}", "by", status=422)
    period = request.query_params.get("period", "current")
    if period not in ("current", "all"):
        raise bad_request("`period` must be current or all", "period", status=422)
    balance = await services.ledger.balance(account) if account is not None else None
    zone = balance.timezone if balance is not None else "UTC"
    if which.since is None and which.until is None and period == "current":
        which = Which(account, which.members, _period_start(services.config, balance), None)
    totals = await services.ledger.summary(which, by, timezone=zone)
    keys = [total.key or "" for total in totals]
    first = 0 if after is None else keys.index(after) + 1 if after in keys else len(keys)
    rows = [
        {"key": total.key, "calls": total.calls, "total": format_credits(total.total)}
        for total in totals[first : first + limit]
    ]
    more = first + limit < len(totals)
    return JSON({"object": "list", "data": rows, "has_more": more, "next": keys[first + limit - 1] if more else None})


def _period_start(config: Config, balance: Balance | None) -> int:
    """When the current period began: that of the plan's longest allowance, else the month in the account's zone."""
    if balance is None:
        return midnight("UTC", local_date("UTC", microseconds(), day=1))
    plan = config.rules.plans.get(balance.plan or "")
    starts = [balance.periods[a.bucket].starts_at for a in main_allowances(plan) if a.bucket in balance.periods]
    return min(starts, default=midnight(balance.timezone, local_date(balance.timezone, balance.at, day=1)))


async def statement_answer(services: Services, request: Request, account: int) -> Response:
    """List what changed an account's balance, newest first."""
    limit, after = read_page(request)
    ids = parse_object("entry", after) if after else None
    entries = await services.ledger.statement(account, limit + 1, ids[0] if ids else 0 if after else None)
    rows = [
        {
            "object": "credits.entry",
            "id": object_id("entry", entry.entry_id, account),
            "at": timestamp(entry.at),
            "type": entry.kind,
            "bucket": entry.bucket,
            "amount": format_credits(entry.amount),
            "balance": format_credits(entry.balance),
            "request": None if entry.request is None else object_id("req", entry.request, account),
            "note": entry.note,
        }
        for entry in entries
    ]
    return page(rows, limit)
