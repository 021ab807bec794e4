"""The admin API from the shell: keys, members of teams, spend limits."""

from __future__ import annotations

from typing import Any

import click

from proxy.cli_client import admin
from proxy.cli_options import changing, listing, reason_option, spend_limit, with_options

__all__ = ["key", "limit", "member"]


@click.group()
def key() -> None:
    """Make, list and revoke keys."""


def _names(ctx: click.Context, param: click.Parameter, value: str | None) -> list[str] | None:
    return None if value is None else [name.strip() for name in value.split(",")]


@key.command("create")
@with_options(*changing)
@click.argument("account")
@click.option("--name", help="What it is for.")
@click.option("--app", help="The app that uses it.")
@click.option("--operations", metavar="NAME,…", callback=_names, help="The only operations it may call.")
@click.option("--operation", metavar="NAME", help="What its calls are unless they say otherwise.")
@with_options(spend_limit())
@click.option("--pays", metavar="TEAM", help="The team whose credits it spends.")
@click.option("--platform", is_flag=True, default=None, help="It names each call's user, who pays.")
@with_options(reason_option)
def key_create(account: str, **given: Any) -> None:
    """Make a key; its secret is shown this once."""
    admin("POST", f"/accounts/{account}/keys", given)


@key.command("list")
@with_options(*listing)
@click.argument("account")
def key_list(account: str, **given: Any) -> None:
    """List an account's keys."""
    admin("GET", f"/accounts/{account}/keys", given)


@key.command("revoke")
@with_options(*changing)
@click.argument("key")
@with_options(reason_option)
def key_revoke(key: str, **given: Any) -> None:
    """Revoke a key at once."""
    admin("DELETE", f"/keys/{key}", given)


@click.group()
def member() -> None:
    """Say who belongs to a team."""


@member.command("add")
@with_options(*changing)
@click.argument("team")
@click.argument("account")
@with_options(spend_limit(or_none=True), reason_option)
def member_add(team: str, **given: Any) -> None:
    """Let an account's keys spend a team's credits, or change its limit."""
    admin("POST", f"/accounts/{team}/members", given)


@member.command("list")
@with_options(*listing)
@click.argument("team")
def member_list(team: str, **given: Any) -> None:
    """List a team's members."""
    admin("GET", f"/accounts/{team}/members", given)


@member.command("remove")
@with_options(*changing)
@click.argument("team")
@click.argument("account")
@with_options(reason_option)
def member_remove(team: str, account: str, **given: Any) -> None:
    """Take an account out of a team."""
    admin("DELETE", f"/accounts/{team}/members/{account}", given)


@click.group()
def limit() -> None:
    """Limit what may be spent of an account's credits."""


@limit.command("set")
@with_options(*changing)
@click.argument("account")
@click.option("--of", required=True, type=click.Choice(["key", "app", "member"]), help="Whose spending is limited.")
@click.option("--id", "id", required=True, help="Which key, app or member.")
@with_options(spend_limit(required=True, or_none=True), reason_option)
def limit_set(account: str, **given: Any) -> None:
    """Set, change or lift a spend limit."""
    admin("POST", f"/accounts/{account}/limits", given)


@limit.command("list")
@with_options(*listing)
@click.argument("account")
def limit_list(account: str, **given: Any) -> None:
    """List an account's spend limits."""
    admin("GET", f"/accounts/{account}/limits", given)
