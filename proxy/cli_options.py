"""What the command line's parts share: options, talk, the config."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import click

from pricing.errors import ConfigError
from proxy.config import Config, load_config

__all__ = ["config_option", "fail", "json_option", "read_config", "say", "with_options"]

config_option = click.option(
    "--config", metavar="FILE", help="The config file [default: $FAREBOX_CONFIG or config.yaml]."
)
json_option = click.option("--json", "as_json", is_flag=True, help="Write JSON.")


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


def with_options(*options: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def decorate(command: Any) -> Any:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate
