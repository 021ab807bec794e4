"""What the command line's parts share: options, talk, the config."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, NoReturn

import click

from pricing.errors import ConfigError
from proxy.config import Config, load_config
from proxy.errors import ApiError

__all__ = [
    "asking",
    "changing",
    "config_option",
    "database_url",
    "fail",
    "json_option",
    "listing",
    "members",
    "plan_options",
    "read_config",
    "reason_option",
    "say",
    "since_of",
    "spend_limit",
    "with_options",
]

_NULL: Final = object()  # said on purpose, where an option that is absent says nothing
_LIMIT = re.compile(r"(\S+?)\s*/\s*(day|month|ever)")


def spend_limit(*, required: bool = False, or_none: bool = False) -> Callable[[Any], Any]:
    """The option `--limit`: credits by the day or month or for ever, as the admin API has them; or_none: or none."""

    def read(ctx: click.Context, param: click.Parameter, value: str | None) -> object:
        if value is None:
            return None
        if or_none and value == "none":
            return _NULL
        match = _LIMIT.fullmatch(value.strip())
        if match is None:
            choices = "100/day, 100/month, 100/ever" + (" or none" if or_none else "")
            raise click.BadParameter(f"{value!r} is no spend limit; write such as {choices}.", ctx, param)
        return {"credits": match[1], "per": match[2]}

    text = "The most that may be spent, such as 100/month" + ("; none lifts it." if or_none else ".")
    return click.option("--limit", metavar="CREDITS/PER", required=required, callback=read, help=text)


def _header(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    if value is not None and not (value and value.isascii() and value.isprintable()):
        raise click.BadParameter("must be printable ASCII, as it becomes a header.", ctx, param)
    return value


def since_of(ctx: click.Context, param: click.Parameter, value: str | None) -> int | None:
    """Read a time or how long ago it is, such as `30d`, as microseconds."""
    from proxy.jsonapi import parse_since

    try:
        return None if value is None else parse_since(value)
    except ApiError:
        raise click.BadParameter(f"{value!r} is neither such as 30d or 12h nor a time.", ctx, param) from None


config_option = click.option(
    "--config", metavar="FILE", help="The config file [default: $FAREBOX_CONFIG or config.yaml]."
)
json_option = click.option("--json", "as_json", is_flag=True, help="Write JSON.")
reason_option = click.option("--reason", help="Why; it is journaled.")
plan_options = (
    click.option("--plan", metavar="NAME", help="Its plan."),
    click.option("--no-plan", is_flag=True, help="No plan."),
)

asking = (config_option, json_option)
listing = (
    *asking,
    click.option("--limit", metavar="N", help="How many, at most 1000 [default: 50]."),
    click.option("--after", metavar="ID", help="What comes after this one."),
)
changing = (
    *asking,
    click.option("--idempotency-key", metavar="KEY", callback=_header, help="Done once, however often it is sent."),
)


def say(text: str) -> None:
    click.echo(text, err=True)


def fail(text: str) -> NoReturn:
    say(f"farebox: {text}")
    sys.exit(1)


def read_config(path: str | None) -> Config:
    chosen = path or os.environ.get("FAREBOX_CONFIG") or "config.yaml"
    try:
        config = load_config(Path(chosen), os.environ)
    except ConfigError as error:
        say(str(error))
        sys.exit(1)
    for warning in config.warnings:
        say(f"warning: {warning}")
    return config


def database_url(config: str | None) -> str:
    """The database's URL; what only reads it needs no more of the config, so a broken one does not stop it."""
    chosen = config or os.environ.get("FAREBOX_CONFIG")
    if chosen is None and not Path("config.yaml").exists():
        return os.environ.get("FAREBOX_DATABASE_URL") or "sqlite:///farebox.db"
    return read_config(chosen).database


def with_options(*options: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def decorate(command: Any) -> Any:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


def members(given: Mapping[str, Any]) -> dict[str, Any]:
    """Make a request's members of a command's options; what was not given is left out, `--no-plan` is null."""
    fields = dict(given)
    if fields.pop("no_plan", False):
        if fields["plan"] is not None:
            raise click.UsageError("--plan and --no-plan exclude each other.")
        fields["plan"] = _NULL
    return {name: None if value is _NULL else value for name, value in fields.items() if value is not None}
