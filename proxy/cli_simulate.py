"""`farebox simulate`: stored usage priced under another table."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from ledger.errors import LedgerError
from ledger.ids import microseconds
from pricing.errors import ConfigError
from proxy.cli_options import config_option, database_url, fail, json_option, say, since_of, with_options
from proxy.config import Config, parse_config

__all__ = ["simulate"]

_SCALE = 1000


@click.command()
@with_options(config_option, json_option)
@click.argument("file", metavar="NEW.yaml")
@click.option(
    "--since",
    metavar="TIME",
    default="30d",
    show_default=True,
    callback=since_of,
    help="30d, 12h, or an RFC 3339 time.",
)
def simulate(config: str | None, as_json: bool, file: str, since: int) -> None:
    """Price stored usage under NEW.yaml: what would have come in, and whose credits would not have lasted.

    The usage is that of the config's database; NEW.yaml may be `-` for standard input. Nothing is written.
    """
    from proxy.app import sqlite_path
    from proxy.simulate import simulate as price
    from proxy.simulated import simulation_lines, simulation_object

    draft = _draft(file)
    until = microseconds()
    try:
        where = sqlite_path(_database(config, draft))
        with _progress(quiet=as_json) as progress:
            found = price(where, draft, since, progress)
    except LedgerError as error:
        fail(str(error))
    shown = simulation_object(found, draft, since, until)
    if as_json:
        click.echo(json.dumps(shown))
    else:
        for line in simulation_lines(shown, draft.credit.plural):
            click.echo(line)


def _draft(file: str) -> Config:
    try:
        text = sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8")
        draft = parse_config(text, "the draft" if file == "-" else file, os.environ, strict=False)
    except ConfigError as error:
        say(str(error))
        sys.exit(1)
    except (OSError, UnicodeDecodeError) as error:
        fail(f"{file} can't be read as UTF-8 text: {error}")
    for warning in draft.warnings:
        say(f"warning: {warning}")
    return draft


def _database(config: str | None, draft: Config) -> str:
    """The database whose usage is meant: that of the config in use, or where there is none, the draft's."""
    if url := os.environ.get("FAREBOX_DATABASE_URL"):
        return url
    if config is None and "FAREBOX_CONFIG" not in os.environ and not Path("config.yaml").exists():
        return draft.database
    return database_url(config)


@contextmanager
def _progress(*, quiet: bool) -> Iterator[Callable[[int, int], object]]:
    """Show a bar on standard error, if people look at it."""
    if quiet or not sys.stderr.isatty():
        yield lambda done, total: None
        return
    with click.progressbar(length=_SCALE, file=sys.stderr, label="accounts") as bar:
        yield lambda done, total: bar.update(done * _SCALE // max(total, 1) - bar.pos)
