"""The generated pages say what the code says; where one is stale or a description is missing, this says what to do."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path

import pytest

from pricing.meters import METERS
from proxy.errors_catalogue import ERRORS, ErrorCode, sdk_retries
from scripts import generate_docs

PROXY = Path(__file__).parents[2] / "proxy"


def test_up_to_date() -> None:
    """Every page is as the generator writes it now; if not: `python scripts/generate_docs.py`."""
    assert generate_docs.stale() == [], "run `python scripts/generate_docs.py`"


def test_settings_described() -> None:
    """Every config key and environment variable that the code reads has its line in scripts/settings.yaml."""
    texts = generate_docs.described()
    sections = generate_docs.sections().values()
    missing = [
        f"{section.path or 'top'}: {key}"
        for section in sections
        for key in (*section.known, *section.later)
        if key not in METERS and generate_docs.description(texts, section.path, key) is None
    ]
    missing += [f"section {section.path}" for section in sections if section.path not in texts["sections"]]
    read = {name for path in PROXY.rglob("*.py") for name in re.findall(r"\bFAREBOX_[A-Z_]+", path.read_text("utf-8"))}
    missing += [f"environment: {name}" for name in sorted(read - texts["environment"].keys())]
    assert not missing, "describe them in scripts/settings.yaml, then run `python scripts/generate_docs.py`"


def test_settings_found() -> None:
    """The generator finds the keys by reading the code: also those of nested mappings, and those refused by name."""
    found = generate_docs.sections()
    assert {"upstreams", "models", "buckets"} <= set(found[""].known)
    assert "base_url" in found["upstreams.<name>"].known
    assert found["upstreams.<name>.timeouts"].known == ["connect", "first_byte", "between_bytes", "total"]
    assert "max_output_tokens" in found["models.<name>"].known
    assert "image" in found["models.<name>.part_tokens"].known
    assert METERS.keys() <= set(found["models.<name>.price"].known)
    assert found["limits.per_key"].known == ["requests_per_minute", "concurrent"]


def _codes() -> Iterator[tuple[str, str, int | None]]:
    """Find the codes that refusals are made with: (where, code, its status where that is written beside it)."""
    for path in PROXY.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            where = f"{path.name}:{getattr(node, 'lineno', 0)}"
            if isinstance(node, ast.Call):
                name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
                values = [argument.value if isinstance(argument, ast.Constant) else None for argument in node.args]
                if name == "ApiError" and len(values) > 1 and isinstance(values[1], str):
                    yield where, values[1], values[0] if isinstance(values[0], int) else None
                for keyword in node.keywords:
                    if keyword.arg == "code" and name in ("ApiError", "bad_request"):
                        value = keyword.value
                        if isinstance(value, ast.Constant) and isinstance(value.value, str):
                            yield where, value.value, None
            elif isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant):
                target = node.targets[0]
                if isinstance(target, ast.Attribute) and target.attr == "code" and isinstance(node.value.value, str):
                    yield where, node.value.value, None


def test_errors_listed() -> None:
    """Every code that the proxy refuses with is in proxy/errors_catalogue.py, with its status."""
    known = {error.code for error in ERRORS}
    pairs = {(error.code, error.status) for error in ERRORS}
    found = list(_codes())
    assert len(found) > 15
    missing = sorted(
        f"{where}: {code} {status or ''}"
        for where, code, status in found
        if code not in known or (status is not None and (code, status) not in pairs)
    )
    assert not missing, "add them to proxy/errors_catalogue.py, then run `python scripts/generate_docs.py`"


def test_errors_sane() -> None:
    """Codes are listed once each, by status, and say when they come."""
    assert len({(error.code, error.status) for error in ERRORS}) == len(ERRORS)
    assert [error.status for error in ERRORS] == sorted(error.status for error in ERRORS)
    assert all(HTTPStatus(error.status) and error.when.endswith(".") for error in ERRORS)


@pytest.mark.parametrize(
    ("status", "header", "retried"),
    [(400, None, False), (402, None, False), (402, True, True), (409, None, True), (409, False, False),
     (429, None, True), (500, None, True), (503, False, False)],
)  # fmt: skip
def test_sdk_retries(status: int, header: bool | None, retried: bool) -> None:
    """The SDKs obey the header, and go by the status without it."""
    assert sdk_retries(ErrorCode("code", status, "When.", header)) is retried


def test_check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """`--check` names what is stale and writes nothing; without it the pages are written, and then none is stale."""
    monkeypatch.setattr(generate_docs, "GENERATED", tmp_path / "generated")
    assert generate_docs.main(["--check"]) == 1
    assert "docs/generated/errors.md is stale" in capsys.readouterr().err
    assert not (tmp_path / "generated").exists()
    assert generate_docs.main([]) == 0
    assert generate_docs.main(["--check"]) == 0
    (tmp_path / "generated" / "cli.md").write_text("# Command line\n")
    (tmp_path / "generated" / "gone.md").write_text("# Gone\n")
    assert generate_docs.stale() == ["cli.md", "gone.md"]
    assert generate_docs.main([]) == 0
    assert generate_docs.stale() == []
    assert generate_docs.main(["--chek"]) == 2


def test_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pages do not depend on the terminal that they are written in."""
    page = generate_docs.cli_page()
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("FAREBOX_CONFIG", "/elsewhere.yaml")
    assert generate_docs.cli_page() == page
