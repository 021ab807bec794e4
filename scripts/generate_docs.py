"""Writes docs/generated/ from the code: settings, errors, metrics, command line.

    python scripts/generate_docs.py            writes the pages
    python scripts/generate_docs.py --check    writes nothing; exit 1 naming the pages that are stale

Run it after adding a config key, an error code, a metric or a command. A config key also needs a line in
scripts/settings.yaml, and an error code one in proxy/errors_catalogue.py; tests name what is missing.
"""

from __future__ import annotations

import ast
import importlib
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import click
import yaml

from pricing.meters import METERS

ROOT = Path(__file__).parent.parent
GENERATED = ROOT / "docs" / "generated"
_COMMAND = "python scripts/generate_docs.py"
_WIDTH = 100

# The sections that a function's calls of `Node.fields` read, in their order; one for all where there is only one.
# A function that is not listed gives its section its own name, so that its keys are on the page in any case.
_SECTIONS: Mapping[str, tuple[str, ...]] = {
    "parse_config": ("",),
    "_credit": ("credit",),
    "parse_upstream": ("upstreams.<name>",),
    "_timeouts": ("upstreams.<name>.timeouts",),
    "_attributes": ("upstreams.<name>.attributes",),
    "_model": ("models.<name>",),
    "parse_targets": ("models.<name>.upstream[]",),
    "_part_tokens": ("models.<name>.part_tokens",),
    "_typical": ("models.<name>.typical",),
    "parse_model_price": ("models.<name>.price",),
    "_rule": ("models.<name>.price.<meter>[]",),
    "parse_when": ("models.<name>.price.<meter>[].when",),
    "parse_factors": ("models.<name>.price.factors[]",),
    "parse_surcharges": ("surcharges",),
    "parse_sold": ("price_changes[]",),
    "_changed": ("price_changes[].operations.<name>",),
    "parse_operations": ("operations.<name>",),
    "parse_operation_price": ("operations.<name>.price",),
    "parse_buckets": ("buckets.<name>",),
    "parse_plans": ("plans.<name>",),
    "_plan": ("plans.<name>",),
    "_plans": ("plans.<name>",),
    "parse_signup": ("signup",),
    "parse_packs": ("packs.<name>",),
    "_pack": ("packs.<name>",),
    "_packs": ("packs.<name>",),
    "parse_custom_pack": ("custom_pack",),
    "parse_limits": ("limits",),
    "_per_key": ("limits.per_key",),
    "_per_account": ("limits.per_account",),
    "_creators": ("creators",),
}


@dataclass(slots=True)
class Section:
    """The keys of one mapping of the config; later: those that this release refuses by name."""

    path: str
    known: list[str] = field(default_factory=list)
    later: list[str] = field(default_factory=list)

    @property
    def root(self) -> str:
        return self.path.split(".")[0]


def sections() -> dict[str, Section]:
    """Read every mapping of the config, with its keys, from the calls of `Node.fields` in the code."""
    found: dict[str, Section] = {}
    for path in sorted((*ROOT.glob("pricing/*.py"), *ROOT.glob("proxy/**/*.py"))):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        module: ModuleType | None = None
        for function in (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)):
            for index, call in enumerate(_fields_calls(function)):
                if module is None:
                    module = importlib.import_module(".".join(path.relative_to(ROOT).with_suffix("").parts))
                keys = [_keys(argument, function, module) for argument in call.args[:2]]
                if not keys or keys[0] is None:
                    continue
                names = _SECTIONS.get(function.name, (function.name.removeprefix("parse_").strip("_"),))
                name = names[min(index, len(names) - 1)]
                section = found.setdefault(name, Section(name))
                section.known += [key for key in keys[0] if key not in section.known]
                later = keys[1] if len(keys) > 1 else None
                section.later += [key for key in later or () if key not in section.later]
    return found


def _fields_calls(function: ast.FunctionDef) -> Iterator[ast.Call]:
    """Find the calls of `Node.fields` by their shape, in the order of the lines."""
    calls = [
        node
        for node in ast.walk(function)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "fields"
    ]
    return iter(sorted(calls, key=lambda call: (call.lineno, call.col_offset)))


def _keys(argument: ast.expr, function: ast.FunctionDef, module: ModuleType) -> list[str] | None:
    """Work out the names that an argument gives: a tuple, a constant of the module or a variable of the function."""
    if isinstance(argument, ast.Name) and not hasattr(module, argument.id):
        values = [
            node.value
            for node in ast.walk(function)
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == argument.id
        ]
        if not values:
            return None
        argument = values[0]
    try:
        value = eval(compile(ast.Expression(argument), "<config keys>", "eval"), dict(vars(module)))
        return [str(key) for key in value]
    except (NameError, TypeError):
        return None


def described() -> dict[str, Any]:
    """Read the descriptions of settings."""
    document = yaml.safe_load((ROOT / "scripts" / "settings.yaml").read_text(encoding="utf-8"))
    assert isinstance(document, dict)
    return document


def description(texts: Mapping[str, Any], section: str, key: str) -> str | None:
    """Find what a key means: in its section, else wherever it stands."""
    own = texts["descriptions"].get(section, {})
    text = own.get(key, texts["descriptions"]["any"].get(key))
    return None if text is None else str(text)


def _head(title: str, *lines: str) -> list[str]:
    return [f"# {title}", "", f"<!-- Written by `{_COMMAND}`; changes made here are lost. -->", "", *lines, ""]


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> list[str]:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return [*lines, *("| " + " | ".join(map(_cell, row)) + " |" for row in rows), ""]


def settings_page() -> str:
    """Write the page of config keys and environment variables."""
    texts = described()
    found = sections()
    refused = set(found[""].later) if "" in found else set()
    order = {name: index for index, name in enumerate(texts["sections"])}
    lines = _head(
        "Settings",
        "Every key of `config.yaml`. One that is wrong is refused by file and line, and so are unknown keys and those",
        "that this release does not read yet. Durations are written as `5s`, `500ms` or `10m`; `${NAME}` and",
        "`${NAME:-default}` read the environment.",
    )
    for section in sorted(found.values(), key=lambda one: (order.get(one.path, len(order)), one.path)):
        if section.root in refused:
            continue
        title = texts["sections"].get(section.path)
        name = f"`{section.path}`" if section.path else ""
        lines += ["## " + ": ".join(part for part in (name, title) if part), ""]
        lines += _table(("key", "what it is"), _setting_rows(texts, section))
        later = [key for key in section.later if key not in section.known]
        if later:
            lines += [f"Not in this release: {', '.join(f'`{key}`' for key in later)}.", ""]
    lines += ["## Meters", "", "What can be counted and priced; a part is never billed twice with its whole.", ""]
    lines += _table(
        ("meter", "what it counts"), [(f"`{name}`", description(texts, "meters", name) or "–") for name in METERS]
    )
    lines += ["## Environment", ""]
    lines += _table(("variable", "what it is"), [(f"`{key}`", text) for key, text in texts["environment"].items()])
    return _text(lines)


def _setting_rows(texts: Mapping[str, Any], section: Section) -> Iterator[tuple[str, str]]:
    every_meter = METERS.keys() <= set(section.known)
    if every_meter:
        of_it = description(texts, section.path, "any meter") or "Its price, such as `40 / 1M`, `$1.60 / 1M` or `15`"
        yield "any meter", f"{of_it}; see [Meters](#meters)."
    for key in section.known:
        if not (every_meter and key in METERS):
            yield f"`{key}`", description(texts, section.path, key) or "–"


def errors_page() -> str:
    """Write the page of error codes."""
    from proxy.errors_catalogue import ERRORS, sdk_retries

    lines = _head(
        "Errors",
        "Errors have OpenAI's envelope: `message` for people, `code` for programs, `param` for the field at fault, and",
        "the `request_id` that `x-request-id` says too. *Tried again* says what OpenAI's and Anthropic's SDKs do: they",
        "obey `x-should-retry`, else repeat 408, 409, 429 and 5xx, twice by default, after `Retry-After` where there",
        "is one. A call that is refused, or fails before its answer began, is not charged: trying it again is safe.",
    )
    rows = []
    for error in ERRORS:
        header = "" if error.should_retry is None else f" (`x-should-retry: {str(error.should_retry).lower()}`)"
        retried = ("yes" if sdk_retries(error) else "no") + header
        rows.append(
            (str(error.status), f"`{error.code}`" if error.code else "null, or the provider's", error.when, retried)
        )
    return _text([*lines, *_table(("status", "code", "when", "tried again"), rows)])


def metrics_page() -> str:
    """Write the page of metrics."""
    from proxy.telemetry.metrics import METRICS, OTHER

    lines = _head(
        "Metrics",
        "`GET /metrics` answers in Prometheus's text format. A metric keeps a bounded number of label sets apart; what",
        f"comes after them is counted with `{OTHER}` in every label.",
    )
    rows = [
        (
            f"`{metric.name}`",
            metric.kind,
            ", ".join(f"`{label}`" for label in metric.labels) or "–",
            metric.help + (f" Buckets: {', '.join(f'{bound:g}' for bound in metric.bounds)}." if metric.bounds else ""),
        )
        for metric in METRICS
    ]
    return _text([*lines, *_table(("metric", "kind", "labels", "what it is"), rows)])


def cli_page() -> str:
    """Write the page of commands, as `--help` shows them."""
    from proxy.cli import main

    lines = _head(
        "Command line",
        "Data goes to stdout and talk to stderr. Exit 0: done, 1: refused or broken, 2: used wrongly.",
    )
    for name, text in _helps(main, "farebox", None):
        lines += [f"## `{name}`", "", "```", text, "```", ""]
    return _text(lines)


def _helps(command: click.Command, name: str, parent: click.Context | None) -> Iterator[tuple[str, str]]:
    context = click.Context(command, parent, info_name=name, terminal_width=_WIDTH, **command.context_settings)
    yield context.command_path, "\n".join(line.rstrip() for line in command.get_help(context).splitlines())
    if isinstance(command, click.Group):
        for child_name in command.list_commands(context):
            child = command.get_command(context, child_name)
            if child is not None and not child.hidden:
                yield from _helps(child, child_name, context)


def _text(lines: list[str]) -> str:
    return "\n".join(lines).rstrip("\n") + "\n"


def pages() -> dict[str, str]:
    """Write all pages, by file name."""
    return {
        "cli.md": cli_page(),
        "errors.md": errors_page(),
        "metrics.md": metrics_page(),
        "settings.md": settings_page(),
    }


def stale() -> list[str]:
    """Name the pages that do not say what the code says now, and those that nothing writes any more."""
    wanted = pages()
    there = {page.name: page.read_text(encoding="utf-8") for page in GENERATED.glob("*.md")}
    return sorted(name for name in wanted.keys() | there.keys() if wanted.get(name) != there.get(name))


def main(arguments: list[str]) -> int:
    """Write the pages, or check them; returns the exit status."""
    if arguments not in ([], ["--check"]):
        print(f"usage: {_COMMAND} [--check]", file=sys.stderr)
        return 2
    names = stale()
    if arguments:
        for name in names:
            print(f"docs/generated/{name} is stale; run `{_COMMAND}`", file=sys.stderr)
        return 1 if names else 0
    GENERATED.mkdir(parents=True, exist_ok=True)
    wanted = pages()
    for name in names:
        if name in wanted:
            (GENERATED / name).write_text(wanted[name], encoding="utf-8")
        else:
            (GENERATED / name).unlink()
        print(f"{'wrote' if name in wanted else 'removed'} docs/generated/{name}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
