"""Every example loads as it stands, and says what it keeps for later."""

from __future__ import annotations

import re
import sys

import pytest
from click.testing import CliRunner

from pricing.errors import ConfigError
from proxy.cli import main
from proxy.config import Config, parse_config
from tests.examples.lists import EXAMPLES, LATER, load, of_later, uncommented

NAMES = sorted(path.parent.name for path in EXAMPLES.glob("*/config.yaml"))
DISCOUNTS = {
    "daily-subscription-bonus": [*["operation prototype"] * 6, "plan yearly", "pack large"],
    "monthly-packs": ["plan team", "pack crate"],
}
"""What sells below its cost, or below what a credit sells for, on purpose; `check` says so, of each meter."""


@pytest.fixture
def no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment that sets nothing that an example reads."""
    for name in NAMES:
        for variable in re.findall(r"\$\{(\w+)", (EXAMPLES / name / "config.yaml").read_text(encoding="utf-8")):
            monkeypatch.delenv(variable, raising=False)


def test_there_are_five() -> None:
    """There is one example for each of the five kinds of platforms, and the page about them names each."""
    page = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    assert NAMES == ["daily-subscription-bonus", "dollars", "monthly-packs", "operations", "request-units"]
    assert all(f"({name}/config.yaml)" in page for name in NAMES)


@pytest.mark.usefixtures("no_keys")
@pytest.mark.parametrize("name", NAMES)
def test_check_passes_without_keys(name: str) -> None:
    """`farebox check` prints every model and operation of an example, and exits with 0, where no key is set."""
    ran = CliRunner().invoke(main, ["check", str(EXAMPLES / name / "config.yaml")])
    assert ran.exit_code == 0, ran.output
    config = load(name)
    assert ran.stdout.startswith(f"Prices {config.table.version}, in {config.credit.plural} (1 {config.credit.name} = ")
    assert all(f"{model.title} ({model.name})" in ran.stdout for model in config.models.values())
    assert all(f"{operation.title} ({operation.name})" in ran.stdout for operation in config.operations.values())


@pytest.mark.usefixtures("no_keys")
@pytest.mark.parametrize("name", NAMES)
def test_check_as_a_module(name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """`python -m proxy check --json FILE` passes too, and its version is the table's."""
    import runpy

    monkeypatch.setattr(sys, "argv", ["farebox", "check", "--json", str(EXAMPLES / name / "config.yaml")])
    with pytest.raises(SystemExit) as ended:
        runpy.run_module("proxy", run_name="__main__", alter_sys=False)
    assert ended.value.code in (None, 0)
    assert load(name).table.version in capsys.readouterr().out


@pytest.mark.parametrize("name", NAMES)
def test_without_keys_the_demo_answers(name: str) -> None:
    """Without keys only what needs none is on, the demo among it, in every plan; nothing else is warned of."""
    config = load(name)
    assert config.models["demo"].upstream.kind == "demo"
    assert config.models["demo"].upstream.on
    assert all(plan.has("demo") for plan in config.plans.values())
    off = [f"upstream {upstream.name}" for upstream in config.upstreams.values() if not upstream.on]
    assert "upstream openai" in off
    assert _warned_of(config) == [*DISCOUNTS.get(name, []), *off]


@pytest.mark.parametrize("name", NAMES)
def test_with_keys_everything_is_on(name: str) -> None:
    """With keys every model is offered at the same prices, and nothing is warned of but a discount."""
    text = (EXAMPLES / name / "config.yaml").read_text(encoding="utf-8")
    config = parse_config(text, "config.yaml", {"OPENAI_API_KEY": "sk-1", "OTHER_API_KEY": "sk-2"})
    assert _warned_of(config) == DISCOUNTS.get(name, [])
    assert all(model.upstream.on for model in config.models.values())
    assert config.table.version == load(name).table.version


def _warned_of(config: Config) -> list[str]:
    """What is warned of, each by its kind and name."""
    return [" ".join(warning.replace(":", "").split()[:2]) for warning in config.warnings]


@pytest.mark.parametrize("name", NAMES)
def test_packs_go_into_its_buckets(name: str) -> None:
    """Every example sells packs, into buckets of its own that burn last."""
    config = load(name)
    assert config.packs
    assert {pack.bucket for pack in config.packs.values()} == {list(config.buckets)[-1]}


WITH_LATER = [name for name in NAMES if LATER in (EXAMPLES / name / "config.yaml").read_text(encoding="utf-8")]


@pytest.mark.parametrize("name", WITH_LATER)
def test_what_is_of_a_later_release(name: str) -> None:
    """What an example keeps for later is sound YAML, and in force or refused by name."""
    later = of_later(name)
    assert later
    said = ""
    try:
        parse_config(uncommented(name), "config.yaml", {})
    except ConfigError as error:
        said = str(error)
    assert not said or re.search(rf"`({'|'.join(later)})` is not supported by this release", said)
