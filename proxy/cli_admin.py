"""The admin API from the shell: accounts, receipts, grants, test clocks."""

from __future__ import annotations

from typing import Any

import click

from proxy.cli_client import admin
from proxy.cli_options import asking, changing, listing, plan_options, reason_option, with_options

__all__ = ["account", "clock", "grant", "receipt"]


@click.group()
def account() -> None:
    """Make and show accounts."""


@account.command("create")
@with_options(*changing)
@click.argument("name")
@click.option("--kind", type=click.Choice(["user", "team"]), help="A team has members [default: user].")
@click.option("--email", help="Its owner's address.")
@click.option("--external-id", help="Your own id for it.")
@with_options(*plan_options)
@click.option("--timezone", help="Its zone, such as Europe/Rome [default: UTC].")
@click.option("--overdraft-limit", metavar="CREDITS", help="How far it may go below zero [default: its plan's].")
@click.option("--clock", help="The test clock that tells its time.")
@with_options(reason_option)
def account_create(**given: Any) -> None:
    """Make an account, on the default plan unless one is named."""
    admin("POST", "/accounts", given)


@account.command("list")
@with_options(*listing)
@click.option("--query", help="Part of a name or address.")
@click.option("--plan", metavar="NAME", help="Those on this plan.")
@click.option("--external-id", help="The one with this id of yours.")
def account_list(**given: Any) -> None:
    """List accounts, newest first."""
    admin("GET", "/accounts", given)


@account.command("show")
@with_options(*asking)
@click.argument("account")
def account_show(account: str, **given: Any) -> None:
    """Show an account."""
    admin("GET", f"/accounts/{account}", given)


@account.command("credits")
@with_options(*asking)
@click.argument("account")
def account_credits(account: str, **given: Any) -> None:
    """Show what an account has."""
    admin("GET", f"/accounts/{account}/credits", given)


@account.command("change")
@with_options(*changing)
@click.argument("account")
@click.option(
    "--status",
    type=click.Choice(["active", "suspended", "closed"]),
    help="Suspended refuses new calls; closed is final.",
)
@click.option("--name", help="What it is called.")
@click.option("--email", help="Its owner's address.")
@with_options(*plan_options)
@click.option("--timezone", help="Its zone, such as Europe/Rome.")
@click.option("--overdraft-limit", metavar="CREDITS", help="How far it may go below zero.")
@with_options(reason_option)
def account_change(account: str, **given: Any) -> None:
    """Change an account."""
    admin("PATCH", f"/accounts/{account}", given)


@account.command("preview-plan")
@with_options(*asking)
@click.argument("account")
@with_options(*plan_options)
def account_preview_plan(account: str, **given: Any) -> None:
    """Show what a change of plan would give, and when."""
    # A plan that is absent is none to the API, which is what a forgotten option must not become.
    if given["plan"] is None and not given["no_plan"]:
        raise click.UsageError("Name a plan with --plan, or say --no-plan.")
    admin("POST", f"/accounts/{account}/plan/preview", given)


@account.command("adjust")
@with_options(*changing)
@click.argument("account")
@click.argument("credits")
@click.option("--bucket", help="Where more goes [default: bonus].")
@click.option("--reason", required=True, help="Why; its owner sees it.")
def account_adjust(account: str, **given: Any) -> None:
    """Correct an account by a signed amount (`-- ACCOUNT -5` for less)."""
    admin("POST", f"/accounts/{account}/adjust", given)


@click.group()
def receipt() -> None:
    """Show and refund calls."""


@receipt.command("show")
@with_options(*asking)
@click.argument("receipt")
def receipt_show(receipt: str, **given: Any) -> None:
    """Show a call's receipt."""
    admin("GET", f"/receipts/{receipt}", given)


@receipt.command("refund")
@with_options(*changing)
@click.argument("receipt")
@click.option("--credits", help="How much [default: all that is left].")
@click.option("--as", "as", type=click.Choice(["original", "bonus"]), help="Where it goes [default: original].")
@click.option("--fault", type=click.Choice(["operator"]), help="Expired credits come back too.")
@click.option("--reason", required=True, help="Why; its owner sees it.")
def receipt_refund(receipt: str, **given: Any) -> None:
    """Give back a call's charge, or part of it."""
    admin("POST", f"/receipts/{receipt}/refund", given)


@click.group()
def grant() -> None:
    """Issue and list grants."""


@grant.command("create")
@with_options(*changing)
@click.argument("account")
@click.argument("bucket")
@click.argument("credits")
@click.option("--source", help="admin, campaign, reward or compensation [default: admin].")
@click.option("--expires-at", metavar="TIME", help="Such as 2027-01-01T00:00:00Z.")
@click.option("--note", help="What it is for; its owner sees this.")
@with_options(reason_option)
def grant_create(account: str, **given: Any) -> None:
    """Grant credits to an account."""
    admin("POST", f"/accounts/{account}/grants", given)


@grant.command("void")
@with_options(*changing)
@click.argument("grant")
@click.option("--reason", required=True, help="Why; its owner sees it.")
def grant_void(grant: str, **given: Any) -> None:
    """Take back what of a grant is neither spent nor held."""
    admin("POST", f"/grants/{grant}/void", given)


@grant.command("list")
@with_options(*listing)
@click.argument("account")
def grant_list(account: str, **given: Any) -> None:
    """List an account's grants, newest first."""
    admin("GET", f"/accounts/{account}/grants", given)


@click.group()
def clock() -> None:
    """Make test clocks and move them on."""


@clock.command("create")
@with_options(*changing)
@click.argument("now", metavar="TIME")
@with_options(reason_option)
def clock_create(**given: Any) -> None:
    """Make a clock that stands at a time, such as 2027-01-31T12:00:00Z."""
    admin("POST", "/clocks", given)


@clock.command("show")
@with_options(*asking)
@click.argument("clock")
def clock_show(clock: str, **given: Any) -> None:
    """Show what a clock shows."""
    admin("GET", f"/clocks/{clock}", given)


@clock.command("advance")
@with_options(*changing)
@click.argument("clock")
@click.argument("to", metavar="TIME")
@with_options(reason_option)
def clock_advance(clock: str, **given: Any) -> None:
    """Move a clock on, never back; its accounts renew and expire by it."""
    admin("POST", f"/clocks/{clock}/advance", given)
