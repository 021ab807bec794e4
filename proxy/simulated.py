"""What a simulation found, as JSON and as text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any

from pricing.amounts import format_credits
from pricing.simulating import Sum
from proxy.config import Config
from proxy.ids import account_id
from proxy.jsonapi import timestamp
from proxy.simulate import Simulation

__all__ = ["simulation_lines", "simulation_object"]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MOST_DRY = 1000
_BY = ("model", "app", "operation", "day")


def simulation_object(found: Simulation, draft: Config, since: int, until: int) -> dict[str, Any]:
    """Show a simulation; amounts are decimal strings, of credits but where their name says dollars."""
    usd, sums = draft.credit.usd, found.sums
    dry = sorted(found.dry, key=lambda each: (-each.short, each.account_id))
    days = {_day(day): each for day, each in sums.by_day().items()}
    return {
        "object": "prices.simulation",
        "since": timestamp(since),
        "until": timestamp(until),
        "version": draft.schedule.steps[-1][1].version,
        "total": _sum(sums.total(), usd),
        "by_model": _sums("model", sums.by_model(), usd),
        "by_app": _sums("app", sums.by_app(), usd),
        "by_operation": _sums("operation", sums.by_operation(), usd),
        "by_day": _sums("day", days, usd),
        "left_out": [
            {"reason": reason, "calls": each.calls, "charged": format_credits(each.before)}
            for reason, each in sums.left_out.items()
        ],
        "dry": {
            "accounts": len(dry),
            "data": [
                {"account": account_id(each.account_id), "at": timestamp(each.at), "short": format_credits(each.short)}
                for each in dry[:_MOST_DRY]
            ],
        },
        "most_affected": [
            {
                "account": account_id(account),
                "before": format_credits(before),
                "after": format_credits(after),
                "change": format_credits(after - before),
            }
            for account, before, after in sums.most_affected()
        ],
    }


def _sums(by: str, sums: Mapping[Any, Sum], usd: Decimal) -> list[dict[str, Any]]:
    return [{by: key, **_sum(each, usd)} for key, each in sums.items()]


def _sum(each: Sum, usd: Decimal) -> dict[str, Any]:
    """Show a sum; margins: what its credits sell for less its cost, null where that is not known of every call."""
    known = not each.without_cost
    before = sum(amount * Fraction(Decimal(then) if then else usd) for then, amount in each.sold_at.items())
    return {
        "calls": each.calls,
        "before": format_credits(each.before),
        "after": format_credits(each.after),
        "change": format_credits(each.after - each.before),
        "cost_usd": _dollars(Fraction(each.cost)),
        "calls_without_cost": each.without_cost,
        "margin_before_usd": _dollars(before - each.cost) if known else None,
        "margin_after_usd": _dollars(each.after * Fraction(usd) - each.cost) if known else None,
    }


def _dollars(nano: Fraction | int) -> str:
    return format_credits(round(nano))


def _day(day: int) -> str:
    return (_EPOCH + timedelta(days=day)).date().isoformat()


def simulation_lines(shown: Mapping[str, Any], plural: str) -> Iterator[str]:
    """Write what `simulation_object` shows for people."""
    yield f"{shown['total']['calls']} calls since {shown['since']}, under {shown['version']}, in {plural}"
    rows = [("", shown["total"])]
    for by in _BY:
        rows += [(f"{by} {each[by] or 'none'}", each) for each in shown[f"by_{by}"]]
    heads = ("", "calls", "before", "after", "change", "cost $", "margin before $", "margin after $")
    cells = [heads, *((name or "all", *_cells(each)) for name, each in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(heads))]
    for row in cells:
        yield "  ".join(
            cell.ljust(width) if not column else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
    if shown["total"]["calls_without_cost"]:
        yield f"of {shown['total']['calls_without_cost']} calls it is not known what the provider took"
    for each in shown["left_out"]:
        yield f"left out: {each['calls']} calls of {each['charged']} {plural}: {each['reason']}"
    yield from _accounts(shown, plural)


def _cells(each: Mapping[str, Any]) -> Iterable[str]:
    margins = (each["margin_before_usd"] or "?", each["margin_after_usd"] or "?")
    return (str(each["calls"]), each["before"], each["after"], _signed(each["change"]), each["cost_usd"], *margins)


def _accounts(shown: Mapping[str, Any], plural: str) -> Iterator[str]:
    dry = shown["dry"]
    yield f"{dry['accounts']} accounts would have run dry that did not" + (":" if dry["data"] else "")
    for each in dry["data"][:10]:
        yield f"  {each['account']} at {each['at']}, short by {each['short']} {plural}"
    if shown["most_affected"]:
        yield "most affected:"
    for each in shown["most_affected"]:
        yield f"  {each['account']} {each['before']} → {each['after']} {plural}, {_signed(each['change'])}"


def _signed(text: str) -> str:
    return text if text.startswith("-") or text == "0" else f"+{text}"
