"""The command line: data to stdout, talk to stderr; exit 0 done, 1 refused or broken, 2 usage."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from ledger.audit import MOST_ROWS
from ledger.audit import audit as run_audit
from ledger.errors import LedgerError
from ledger.ids import microseconds
from ledger.opening import is_postgres
from pricing.amounts import format_credits
from proxy import cli_admin, cli_keys, cli_recompute, cli_simulate
from proxy.cli_options import config_option, database_url, fail, json_option, read_config, say, with_options
from proxy.config import Config, parse_config
from proxy.ids import object_id

__all__ = ["main"]

_SHIPPED = (Path(__file__).parent / "config.yaml", Path(__file__).parent.parent / "config.yaml")


def _shipped_config() -> Config:
    path = next((path for path in _SHIPPED if path.is_file()), None)
    if path is None:
        fail("the shipped config.yaml is missing; reinstall Farebox")
    return parse_config(path.read_text(encoding="utf-8"), str(path), os.environ)


def _run(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run a command on the event loop that the server uses."""
    import uvloop

    try:
        uvloop.run(work())
    except LedgerError as error:
        fail(str(error))


_serve_options = (
    click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on."),
    click.option(
        "--port", default=4000, show_default=True, type=click.IntRange(0, 65535), help="Port; 0 takes a free one."
    ),
    click.option(
        "--drain",
        default=10.0,
        show_default=True,
        type=click.FloatRange(0, 3600),
        help="Seconds that running calls get at a stop.",
    ),
    click.option("--log-json", is_flag=True, help="Write the log as JSON, a line each."),
)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="farebox")
def main() -> None:
    """Farebox: an OpenAI-compatible proxy that sells AI calls for credits."""


@main.command()
@with_options(config_option, *_serve_options)
@click.option(
    "--workers",
    default=1,
    show_default=True,
    type=click.IntRange(1, 256),
    help="Processes; more than 1 needs PostgreSQL.",
)
def serve(config: str | None, host: str, port: int, drain: float, log_json: bool, workers: int) -> None:
    """Run the proxy; creates the database first."""
    loaded = read_config(config)
    if workers > 1 and not is_postgres(loaded.database):
        fail("--workers above 1 needs PostgreSQL, a SQLite file has one owner; set database: postgresql://…")
    if workers == 1:
        _serve(loaded, _bind(host, port), drain, log_json, demo=False)
        return
    from proxy.workers import Workers

    listener = _bind(host, port)
    arguments = [*(("--config", loaded.file) if config or loaded.file else ()), *(("--log-json",) if log_json else ())]
    base = _base(listener)
    sys.exit(Workers(workers, listener, arguments, drain, lambda: say(f"Farebox listens on {base}")).run())


@main.command(hidden=True)
@with_options(config_option)
@click.option("--drain", type=float)
@click.option("--log-json", is_flag=True)
@click.option("--listener", type=int)
@click.option("--parent", type=int)
@click.option("--ready", type=int)
@click.option("--again", is_flag=True)
def worker(
    config: str | None, drain: float, log_json: bool, listener: int, parent: int, ready: int, again: bool
) -> None:
    """One process of `serve --workers`, which starts it; the numbers are of what it was given open."""
    bound = socket.socket(fileno=listener)
    bound.setblocking(False)
    _serve(read_config(config), bound, drain, log_json, demo=False, parent=parent, ready=ready, again=again)


@main.command()
@with_options(*_serve_options)
def demo(host: str, port: int, drain: float, log_json: bool) -> None:
    """Run the proxy with nothing to set up, and show how to call it."""
    _serve(_shipped_config(), _bind(host, port), drain, log_json, demo=True)


def _bind(host: str, port: int) -> socket.socket:
    from proxy import server

    try:
        return server.bind(host, port)
    except OSError as error:
        fail(f"cannot listen on {host}:{port}: {error.strerror or error}; choose another --port")


def _base(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def _serve(
    config: Config,
    listener: socket.socket,
    drain: float,
    log_json: bool,
    *,
    demo: bool,
    parent: int | None = None,
    ready: int | None = None,
    again: bool = False,
) -> None:
    """Serve until a signal says stop, or until `parent` is closed; ready: the pipe that is told of it.

    again: in place of a process of this server that ended.
    """
    from proxy import server
    from proxy.app import open_services
    from proxy.demo_account import show_demo
    from proxy.keeper import Keeper
    from proxy.telemetry import logs

    logs.set_up(json=log_json)
    base = _base(listener)

    def on_ready() -> None:
        if ready is None:
            say(f"Farebox listens on {base}")
        else:
            with suppress(OSError):
                os.write(ready, b"1")
            os.close(ready)

    async def work() -> None:
        async with open_services(config, os.environ, f"farebox serve on {base}", log_json=log_json) as (
            services,
            made_key,
        ):
            if made_key is not None:
                say(f"Admin key, shown this once: {made_key}")
            if demo:
                await show_demo(services, base)
            keeper = Keeper(services, services.journal, os.environ)
            await keeper.start(again=again)
            if parent is not None:
                # Nobody writes to it: it can be read when whoever started this process is gone.
                services.loop.add_reader(parent, _stop_alone, services.loop, parent)
            try:
                await server.run(services, keeper, listener, drain, on_ready)
            finally:
                await keeper.close()

    _run(work)


def _stop_alone(loop: asyncio.AbstractEventLoop, parent: int) -> None:
    loop.remove_reader(parent)
    os.kill(os.getpid(), signal.SIGTERM)


@main.command()
@click.argument("file", required=False)
@json_option
def check(file: str | None, as_json: bool) -> None:
    """Validate a config, and print its prices as users will see them."""
    from proxy.jsonapi import timestamp
    from proxy.price_list import price_list, prices_object

    config, now = read_config(file), microseconds()
    config = config.under(config.schedule.at(now))
    if not as_json:
        click.echo(price_list(config, now))
        return
    changes = dict(config.schedule.changes(now, None, config.credit.plural))
    upcoming = [
        {"effective_from": timestamp(begins), "version": table.version, "changes": changes.get(begins, [])}
        for begins, table in config.schedule.upcoming(now)
    ]
    shown = prices_object(config.table, config.operations)
    click.echo(json.dumps({"object": "prices", "version": config.table.version, "upcoming": upcoming, **shown}))


@main.command()
@with_options(config_option)
@click.argument("file")
def backup(config: str | None, file: str) -> None:
    """Copy a SQLite ledger consistently, also beside a running server."""
    from proxy.app import sqlite_path
    from proxy.backup import BackupFailed
    from proxy.backup import backup as copy

    database = database_url(config)
    if is_postgres(database):
        fail("backup copies SQLite ledgers; copy PostgreSQL with its own tools, such as pg_dump")
    try:
        copy(sqlite_path(database), file)
    except BackupFailed as error:
        fail(str(error))
    say(f"copied to {file}")


@main.command()
@click.argument("file")
@click.argument("url")
@json_option
def move(file: str, url: str, as_json: bool) -> None:
    """Copy the SQLite ledger FILE, that no server has, into the empty PostgreSQL database URL: all of it or nothing."""
    from proxy.app import sqlite_path
    from proxy.move import MoveFailed
    from proxy.move import move as copy

    if not is_postgres(url):
        fail("move copies to PostgreSQL: name the database as postgresql://…")
    try:
        moved = copy(sqlite_path(file), url)
    except (LedgerError, MoveFailed) as error:
        fail(str(error))
    if as_json:
        totals = {name: format_credits(amount) for name, amount in moved.totals.items()}
        click.echo(json.dumps({"object": "move", "rows": moved.rows, "totals": totals}))
    else:
        for table, rows in moved.rows.items():
            click.echo(f"{table:<24} {rows}")
    say("moved; set FAREBOX_DATABASE_URL to that database, start there, and start no server on the file again")


@main.command()
@with_options(config_option, json_option)
@click.option("--all", "everything", is_flag=True, help="Read all that is sealed again, not the newest million rows.")
def audit(config: str | None, everything: bool, as_json: bool) -> None:
    """Prove the ledger's invariants, beside a running server if there is one."""
    from proxy.app import sqlite_path

    try:
        result = run_audit(sqlite_path(database_url(config)), most_rows=None if everything else MOST_ROWS)
    except LedgerError as error:
        fail(str(error))
    totals = {name: format_credits(amount) for name, amount in result.totals.items()}
    if as_json:
        findings = [{"invariant": finding.invariant, "rows": finding.rows} for finding in result.findings]
        document = {"object": "audit", "clean": result.clean, "findings": findings, "totals": totals}
        orphans = [_orphan(row) for row in result.orphans]
        click.echo(json.dumps({**document, "orphans": orphans, "sealed": asdict(result.sealed)}))
    else:
        broken = {finding.invariant: finding for finding in result.findings}
        for invariant in result.checked:
            click.echo(f"{'BROKEN' if invariant in broken else 'ok    '} {invariant}")
            for row in broken[invariant].rows if invariant in broken else ():
                click.echo("       " + ", ".join(f"{name}={value}" for name, value in row.items()))
        click.echo(", ".join(f"{name} {amount}" for name, amount in totals.items()))
        for row in result.orphans:
            click.echo(f"orphan {_orphan(row)['id']} (released in full)")
        sealed = result.sealed
        if sealed.ranges:
            click.echo(f"sealed: {sealed.ranges} ranges of {sealed.rows} rows, {sealed.read} of them read again")
            click.echo(f"head {sealed.head}")
        click.echo("clean" if result.clean else "NOT CLEAN")
    sys.exit(0 if result.clean else 1)


def _orphan(row: dict[str, object]) -> dict[str, object]:
    own, account = row["hold_id"], row["account_id"]
    assert isinstance(own, int)
    assert isinstance(account, int)
    return {"id": object_id("req", own, account)}


for group in (
    *(cli_admin.account, cli_admin.receipt, cli_admin.grant, cli_admin.clock),
    *(cli_keys.key, cli_keys.member, cli_keys.limit, cli_recompute.recompute, cli_simulate.simulate),
):
    main.add_command(group)
