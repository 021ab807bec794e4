"""The admin API from the shell: accounts, receipts, keys, grants."""

from __future__ import annotations

import asyncio
import json
import os

import click

from proxy.cli_options import config_option, fail, json_option, read_config, with_options

__all__ = ["account", "grant", "key", "receipt"]


@click.group()
def account() -> None:
    """Make and show accounts."""


@account.command("create")
@with_options(config_option, json_option)
@click.argument("name")
@click.option("--email", help="Its owner's address.")
@click.option("--external-id", help="Your own id for it.")
@click.option("--timezone", help="Its zone, such as Europe/Rome [default: UTC].")
@click.option("--overdraft-limit", metavar="CREDITS", help="How far it may go below zero.")
def account_create(config: str | None, as_json: bool, **fields: str | None) -> None:
    """Make an account."""
    _admin(config, as_json, "POST", "/accounts", _given(fields))


@account.command("list")
@with_options(config_option, json_option)
@click.option("--query", help="Part of a name or address.")
def account_list(config: str | None, as_json: bool, query: str | None) -> None:
    """List accounts, newest first."""
    _admin(config, as_json, "GET", "/accounts", {"query": query} if query else {})


@account.command("show")
@with_options(config_option, json_option)
@click.argument("account")
def account_show(config: str | None, as_json: bool, account: str) -> None:
    """Show an account."""
    _admin(config, as_json, "GET", f"/accounts/{account}", {})


@account.command("credits")
@with_options(config_option, json_option)
@click.argument("account")
def account_credits(config: str | None, as_json: bool, account: str) -> None:
    """Show what an account has."""
    _admin(config, as_json, "GET", f"/accounts/{account}/credits", {})


@account.command("change")
@with_options(config_option, json_option)
@click.argument("account")
@click.option(
    "--status",
    type=click.Choice(["active", "suspended", "closed"]),
    help="Suspended refuses new calls; closed is final.",
)
@click.option("--timezone", help="Its zone, such as Europe/Rome.")
@click.option("--overdraft-limit", metavar="CREDITS", help="How far it may go below zero.")
@click.option("--reason", help="Why; it is journaled.")
def account_change(config: str | None, as_json: bool, account: str, **fields: str | None) -> None:
    """Change an account."""
    _admin(config, as_json, "PATCH", f"/accounts/{account}", _given(fields))


@account.command("adjust")
@with_options(config_option, json_option)
@click.argument("account")
@click.argument("credits")
@click.option("--reason", required=True, help="Why; its owner sees it.")
def account_adjust(config: str | None, as_json: bool, account: str, **fields: str | None) -> None:
    """Correct an account by a signed amount (`-- ACCOUNT -5` for less)."""
    _admin(config, as_json, "POST", f"/accounts/{account}/adjust", _given(fields))


@click.group()
def receipt() -> None:
    """Show and refund calls."""


@receipt.command("show")
@with_options(config_option, json_option)
@click.argument("receipt")
def receipt_show(config: str | None, as_json: bool, receipt: str) -> None:
    """Show a call's receipt."""
    _admin(config, as_json, "GET", f"/receipts/{receipt}", {})


@receipt.command("refund")
@with_options(config_option, json_option)
@click.argument("receipt")
@click.option("--credits", help="How much [default: all that is left].")
@click.option("--as", "as", type=click.Choice(["original", "bonus"]), help="Where it goes [default: original].")
@click.option("--fault", type=click.Choice(["operator"]), help="Expired credits come back too.")
@click.option("--reason", required=True, help="Why; its owner sees it.")
def receipt_refund(config: str | None, as_json: bool, receipt: str, **fields: str | None) -> None:
    """Give back a call's charge, or part of it."""
    _admin(config, as_json, "POST", f"/receipts/{receipt}/refund", _given(fields))


@click.group()
def key() -> None:
    """Make, list and revoke keys."""


@key.command("create")
@with_options(config_option, json_option)
@click.argument("account")
@click.option("--name", help="What it is for.")
@click.option("--app", help="The app that uses it.")
def key_create(config: str | None, as_json: bool, account: str, **fields: str | None) -> None:
    """Make a key; its secret is shown this once."""
    _admin(config, as_json, "POST", f"/accounts/{account}/keys", _given(fields))


@key.command("list")
@with_options(config_option, json_option)
@click.argument("account")
def key_list(config: str | None, as_json: bool, account: str) -> None:
    """List an account's keys."""
    _admin(config, as_json, "GET", f"/accounts/{account}/keys", {})


@key.command("revoke")
@with_options(config_option, json_option)
@click.argument("key")
def key_revoke(config: str | None, as_json: bool, key: str) -> None:
    """Revoke a key at once."""
    _admin(config, as_json, "DELETE", f"/keys/{key}", {})


@click.group()
def grant() -> None:
    """Issue and list grants."""


@grant.command("create")
@with_options(config_option, json_option)
@click.argument("account")
@click.argument("bucket")
@click.argument("credits")
@click.option("--source", help="admin, campaign, reward or compensation [default: admin].")
@click.option("--expires-at", metavar="TIME", help="Such as 2027-01-01T00:00:00Z.")
@click.option("--note", help="What it is for; its owner sees this.")
def grant_create(config: str | None, as_json: bool, account: str, **fields: str | None) -> None:
    """Grant credits to an account."""
    _admin(config, as_json, "POST", f"/accounts/{account}/grants", _given(fields))


@grant.command("void")
@with_options(config_option, json_option)
@click.argument("grant")
@click.option("--reason", required=True, help="Why; its owner sees it.")
def grant_void(config: str | None, as_json: bool, grant: str, **fields: str | None) -> None:
    """Take back what of a grant is neither spent nor held."""
    _admin(config, as_json, "POST", f"/grants/{grant}/void", _given(fields))


@grant.command("list")
@with_options(config_option, json_option)
@click.argument("account")
def grant_list(config: str | None, as_json: bool, account: str) -> None:
    """List an account's grants, newest first."""
    _admin(config, as_json, "GET", f"/accounts/{account}/grants", {})


def _given(fields: dict[str, str | None]) -> dict[str, str]:
    return {name: value for name, value in fields.items() if value is not None}


def _admin(config: str | None, as_json: bool, method: str, path: str, fields: dict[str, str]) -> None:
    """Carry out an admin request, on the running server that FAREBOX_URL names or on the file itself."""
    from proxy.admin_client import request

    status, document = asyncio.run(request(lambda: read_config(config), os.environ, method, path, fields))
    if status >= 400:
        error = document.get("error", {})
        fail(str(error.get("message", f"the server answered {status}")))
    if as_json:
        click.echo(json.dumps(document, ensure_ascii=False))
        return
    for item in document["data"] if document.get("object") == "list" else [document]:
        click.echo("\n".join(f"{name}: {_plain(value)}" for name, value in item.items() if value is not None) + "\n")


def _plain(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
