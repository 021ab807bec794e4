"""`farebox recompute`: receipts proven from their price tables."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from ledger.errors import LedgerError
from ledger.usage import Which
from proxy.cli_options import config_option, database_url, fail, json_option, since_of, with_options
from proxy.ids import parse_account, parse_object

if TYPE_CHECKING:
    from proxy.recompute import Recomputed

__all__ = ["recompute"]


def _requests(ctx: click.Context, param: click.Parameter, value: tuple[str, ...]) -> tuple[str, ...]:
    for text in value:
        if parse_object("req", text) is None:
            raise click.BadParameter(f"{text!r} is no id of a call.", ctx, param)
    return value


def _account(ctx: click.Context, param: click.Parameter, value: str | None) -> int | None:
    account = None if value is None else parse_account(value)
    if value is not None and account is None:
        raise click.BadParameter(f"{value!r} is no account's id.", ctx, param)
    return account


@click.command()
@with_options(config_option, json_option)
@click.argument("requests", nargs=-1, metavar="[REQUEST]...", callback=_requests)
@click.option(
    "--since", metavar="TIME", callback=since_of, help="Calls made since then: 30d, 12h, or an RFC 3339 time."
)
@click.option("--account", metavar="ACCOUNT", callback=_account, help="Calls of this account.")
def recompute(
    config: str | None, as_json: bool, requests: tuple[str, ...], since: int | None, account: int | None
) -> None:
    """Prove receipts, all by default: rate calls again under the price tables that they name."""
    from proxy.app import sqlite_path
    from proxy.recompute import BROKEN, DIFFERS, EQUAL, OLD, RUNNING, Books

    if requests and (since is not None or account is not None):
        raise click.UsageError("calls are named either by their ids or by --since and --account.")
    counts = Counter(dict.fromkeys((EQUAL, DIFFERS, BROKEN, OLD, RUNNING), 0))

    def told(results: Iterable[Recomputed]) -> Iterator[Recomputed]:
        for result in results:
            counts[result.outcome] += 1
            if result.outcome not in (EQUAL, RUNNING):
                yield result

    try:
        books = Books(sqlite_path(database_url(config)))
        try:
            results = books.recompute_each(requests) if requests else books.recompute(Which(account, since=since))
            (_write_json if as_json else _write)(told(results), counts)
        finally:
            books.close()
    except LedgerError as error:
        fail(str(error))
    sys.exit(1 if counts[DIFFERS] or counts[BROKEN] else 0)


def _write(results: Iterable[Recomputed], counts: Counter[str]) -> None:
    for result in results:
        click.echo(f"{result.request} {result.outcome}" + (f": {result.reason}" if result.reason else ""))
        for each in result.differences:
            click.echo(f"    {each.line}: the receipt has {each.receipt}, recomputed {each.recomputed}")
    click.echo(", ".join(f"{count} {outcome}" for outcome, count in counts.items()))


def _write_json(results: Iterable[Recomputed], counts: Counter[str]) -> None:
    """Write one object, whose findings are written as they are found."""
    click.echo('{"object": "recompute", "findings": [', nl=False)
    for number, result in enumerate(results):
        click.echo((",\n" if number else "\n") + json.dumps(asdict(result)), nl=False)
    click.echo(f'], "counts": {json.dumps(counts)}}}')
