"""The command line: data to stdout, talk to stderr; exit 0 done, 1 refused or broken, 2 usage."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, NoReturn

import click

from ledger.audit import audit as run_audit
from ledger.errors import LedgerError
from pricing.amounts import format_credits
from pricing.errors import ConfigError
from proxy.config import Config, load_config, parse_config
from proxy.ids import object_id

__all__ = ["main"]

_SHIPPED = (Path(__file__).parent / "config.yaml", Path(__file__).parent.parent / "config.yaml")


def _say(text: str) -> None:
    click.echo(text, err=True)


def _fail(text: str) -> NoReturn:
    _say(f"farebox: {text}")
    sys.exit(1)


def _config(path: str | None) -> Config:
    chosen = path or os.environ.get("FAREBOX_CONFIG") or "config.yaml"
    try:
        config = load_config(Path(chosen), os.environ)
    except ConfigError as error:
        _say(str(error))
        sys.exit(1)
    for warning in config.warnings:
        _say(f"warning: {warning}")
    return config


def _shipped_config() -> Config:
    path = next((path for path in _SHIPPED if path.is_file()), None)
    if path is None:
        _fail("the shipped config.yaml is missing; reinstall Farebox")
    return parse_config(path.read_text(encoding="utf-8"), str(path), os.environ)


def _run(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run a command on the event loop that the server uses."""
    import uvloop

    try:
        uvloop.run(work())
    except LedgerError as error:
        _fail(str(error))


_config_option = click.option(
    "--config", metavar="FILE", help="The config file [default: $FAREBOX_CONFIG or config.yaml]."
)
_json_option = click.option("--json", "as_json", is_flag=True, help="Write JSON.")
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


def _with(*options: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def decorate(command: Any) -> Any:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="farebox")
def main() -> None:
    """Farebox: an OpenAI-compatible proxy that sells AI calls for credits."""


@main.command()
@_with(_config_option, *_serve_options)
@click.option(
    "--workers",
    default=1,
    show_default=True,
    type=click.IntRange(1, 256),
    help="Processes; more than 1 needs PostgreSQL.",
)
def serve(config: str | None, host: str, port: int, drain: float, log_json: bool, workers: int) -> None:
    """Run the proxy; creates the database first."""
    if workers > 1:
        _fail("--workers above 1 needs PostgreSQL, and this release stores in SQLite; run one worker")
    loaded = _config(config)
    _serve(loaded, host, port, drain, log_json, demo=False)


@main.command()
@_with(*_serve_options)
def demo(host: str, port: int, drain: float, log_json: bool) -> None:
    """Run the proxy with nothing to set up, and show how to call it."""
    _serve(_shipped_config(), host, port, drain, log_json, demo=True)


def _serve(config: Config, host: str, port: int, drain: float, log_json: bool, *, demo: bool) -> None:
    from proxy import server
    from proxy.app import open_services
    from proxy.demo_account import show_demo
    from proxy.keeper import Keeper
    from proxy.telemetry import logs

    logs.set_up(json=log_json)
    try:
        listener = server.bind(host, port)
    except OSError as error:
        _fail(f"cannot listen on {host}:{port}: {error.strerror or error}; choose another --port")
    shown_port = listener.getsockname()[1]
    base = f"http://{f'[{host}]' if ':' in host else host}:{shown_port}"

    async def work() -> None:
        async with open_services(config, os.environ, f"farebox serve on {base}", log_json=log_json) as (
            services,
            made_key,
        ):
            if made_key is not None:
                _say(f"Admin key, shown this once: {made_key}")
            if demo:
                await show_demo(services, base)
            keeper = Keeper(services, services.journal, os.environ)
            await keeper.start()
            try:
                await server.run(services, keeper, listener, drain, lambda: _say(f"Farebox listens on {base}"))
            finally:
                await keeper.close()

    _run(work)


@main.command()
@click.argument("file", required=False)
@_json_option
def check(file: str | None, as_json: bool) -> None:
    """Validate a config, and print its prices as users will see them."""
    from proxy.price_list import price_list, prices_object

    config = _config(file)
    if as_json:
        click.echo(json.dumps({"object": "prices", "version": config.table.version, **prices_object(config)}))
    else:
        click.echo(price_list(config))


@main.command()
@_with(_config_option)
@click.argument("file")
def backup(config: str | None, file: str) -> None:
    """Copy a SQLite ledger consistently, also beside a running server."""
    from proxy.app import sqlite_path
    from proxy.backup import BackupFailed
    from proxy.backup import backup as copy

    try:
        copy(sqlite_path(_database(config)), file)
    except BackupFailed as error:
        _fail(str(error))
    _say(f"copied to {file}")


@main.command()
@_with(_config_option, _json_option)
def audit(config: str | None, as_json: bool) -> None:
    """Prove the ledger's invariants, beside a running server if there is one."""
    from proxy.app import sqlite_path

    try:
        result = run_audit(sqlite_path(_database(config)))
    except LedgerError as error:
        _fail(str(error))
    totals = {name: format_credits(amount) for name, amount in result.totals.items()}
    if as_json:
        findings = [{"invariant": finding.invariant, "rows": finding.rows} for finding in result.findings]
        document = {"object": "audit", "clean": result.clean, "findings": findings, "totals": totals}
        click.echo(json.dumps({**document, "orphans": [_orphan(row) for row in result.orphans]}))
    else:
        broken = {finding.invariant: finding for finding in result.findings}
        for invariant in result.checked:
            click.echo(f"{'BROKEN' if invariant in broken else 'ok    '} {invariant}")
            for row in broken[invariant].rows if invariant in broken else ():
                click.echo("       " + ", ".join(f"{name}={value}" for name, value in row.items()))
        click.echo(", ".join(f"{name} {amount}" for name, amount in totals.items()))
        for row in result.orphans:
            click.echo(f"orphan {_orphan(row)['id']} (released in full)")
        click.echo("clean" if result.clean else "NOT CLEAN")
    sys.exit(0 if result.clean else 1)


def _database(config: str | None) -> str:
    """The database's URL; the audit needs no more of the config, so a broken one does not stop it."""
    chosen = config or os.environ.get("FAREBOX_CONFIG")
    if chosen is None and not Path("config.yaml").exists():
        return os.environ.get("FAREBOX_DATABASE_URL") or "sqlite:///farebox.db"
    return _config(chosen).database


def _orphan(row: dict[str, object]) -> dict[str, object]:
    own, account = row["hold_id"], row["account_id"]
    assert isinstance(own, int)
    assert isinstance(account, int)
    return {"id": object_id("req", own, account)}


@main.group()
def account() -> None:
    """Make and show accounts."""


@account.command("create")
@_with(_config_option, _json_option)
@click.argument("name")
@click.option("--email", help="Its owner's address.")
@click.option("--external-id", help="Your own id for it.")
@click.option("--timezone", help="Its zone, such as Europe/Rome [default: UTC].")
@click.option("--overdraft-limit", metavar="CREDITS", help="How far it may go below zero.")
def account_create(config: str | None, as_json: bool, **fields: str | None) -> None:
    """Make an account."""
    _admin(config, as_json, "POST", "/accounts", {k: v for k, v in fields.items() if v is not None})


@account.command("list")
@_with(_config_option, _json_option)
@click.option("--query", help="Part of a name or address.")
def account_list(config: str | None, as_json: bool, query: str | None) -> None:
    """List accounts, newest first."""
    _admin(config, as_json, "GET", "/accounts", {"query": query} if query else {})


@account.command("show")
@_with(_config_option, _json_option)
@click.argument("account")
def account_show(config: str | None, as_json: bool, account: str) -> None:
    """Show an account."""
    _admin(config, as_json, "GET", f"/accounts/{account}", {})


@account.command("credits")
@_with(_config_option, _json_option)
@click.argument("account")
def account_credits(config: str | None, as_json: bool, account: str) -> None:
    """Show what an account has."""
    _admin(config, as_json, "GET", f"/accounts/{account}/credits", {})


@main.group()
def key() -> None:
    """Make, list and revoke keys."""


@key.command("create")
@_with(_config_option, _json_option)
@click.argument("account")
@click.option("--name", help="What it is for.")
@click.option("--app", help="The app that uses it.")
def key_create(config: str | None, as_json: bool, account: str, **fields: str | None) -> None:
    """Make a key; its secret is shown this once."""
    _admin(config, as_json, "POST", f"/accounts/{account}/keys", {k: v for k, v in fields.items() if v is not None})


@key.command("list")
@_with(_config_option, _json_option)
@click.argument("account")
def key_list(config: str | None, as_json: bool, account: str) -> None:
    """List an account's keys."""
    _admin(config, as_json, "GET", f"/accounts/{account}/keys", {})


@key.command("revoke")
@_with(_config_option, _json_option)
@click.argument("key")
def key_revoke(config: str | None, as_json: bool, key: str) -> None:
    """Revoke a key at once."""
    _admin(config, as_json, "DELETE", f"/keys/{key}", {})


@main.group()
def grant() -> None:
    """Issue and list grants."""


@grant.command("create")
@_with(_config_option, _json_option)
@click.argument("account")
@click.argument("bucket")
@click.argument("credits")
@click.option("--source", help="admin, campaign, reward or compensation [default: admin].")
@click.option("--expires-at", metavar="TIME", help="Such as 2027-01-01T00:00:00Z.")
@click.option("--note", help="What it is for; its owner sees this.")
def grant_create(config: str | None, as_json: bool, account: str, **fields: str | None) -> None:
    """Grant credits to an account."""
    _admin(config, as_json, "POST", f"/accounts/{account}/grants", {k: v for k, v in fields.items() if v is not None})


@grant.command("list")
@_with(_config_option, _json_option)
@click.argument("account")
def grant_list(config: str | None, as_json: bool, account: str) -> None:
    """List an account's grants, newest first."""
    _admin(config, as_json, "GET", f"/accounts/{account}/grants", {})


def _admin(config: str | None, as_json: bool, method: str, path: str, fields: dict[str, str]) -> None:
    """Carry out an admin request, on the running server that FAREBOX_URL names or on the file itself."""
    from proxy.admin_client import request

    status, document = asyncio.run(request(lambda: _config(config), os.environ, method, path, fields))
    if status >= 400:
        error = document.get("error", {})
        _fail(str(error.get("message", f"the server answered {status}")))
    if as_json:
        click.echo(json.dumps(document, ensure_ascii=False))
        return
    for item in document["data"] if document.get("object") == "list" else [document]:
        click.echo("\n".join(f"{name}: {_plain(value)}" for name, value in item.items() if value is not None) + "\n")


def _plain(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
