"""A thousand slips in the shipped config and the examples: prices stay what they were, or the file is refused.

Every slip is one that people make while they edit: a key misspelt or swapped, a unit forgotten, a sign or a digit too
many, a line lost, doubled or moved in, a name that nothing has.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from pricing.errors import ConfigError
from pricing.meters import METERS
from pricing.rating import quote, rate
from pricing.usage import Quantity
from proxy.choice import choose_operation
from proxy.config import Config, parse_config
from proxy.endpoints import METERED

ROOT = Path(__file__).parents[2]
FILES = [ROOT / "config.yaml", *sorted((ROOT / "examples").glob("*/config.yaml"))]
NUMBER = re.compile(r"\$?\d+(\.\d+)?( / .*)?")
FREE = ("upstreams", "models", "buckets", "operations")
"""Mappings whose keys are the operator's own names."""

HINTS = re.compile(
    r"did you mean `|\bknown(?: here)?: \S|\bmust be \S|\bneeds \S|\b0 or more\b|\bsuch as \S|\bfix the syntax\b"
    r"|\b(?:write|add|remove|use|lower|put|give|turn|set|check|price it|name one|name at least) \S"
)
"""What a fix sounds like."""


@dataclass(frozen=True)
class Scalar:
    """A key or value of a file: where it stands, and whether a charge can depend on it."""

    path: tuple[str, ...]
    is_key: bool
    start: int
    stop: int
    line: int
    prices: bool

    @property
    def is_free(self) -> bool:
        """Whether the operator chose this key."""
        return len(self.path) == 2 and self.path[0] in FREE


class Base:
    """A file that loads, taken apart once."""

    def __init__(self, path: Path) -> None:
        self.name = path.parent.name
        self.text = path.read_text(encoding="utf-8")
        self.lines = self.text.splitlines()
        self.scalars: list[Scalar] = []
        root = yaml.compose(self.text, Loader=yaml.SafeLoader)
        assert root is not None
        self._walk(root, ())
        self.keys = [scalar for scalar in self.scalars if scalar.is_key]
        self.known_keys = [key for key in self.keys if not key.is_free]
        self.values = [scalar for scalar in self.scalars if not scalar.is_key]
        self.numbers = [scalar for scalar in self.values if NUMBER.fullmatch(self.of(scalar))]
        self.token_prices = [s for s in self.numbers if "/" in self.of(s) and METERS[_meter(s)].token]
        self.references = [s for s in self.values if _refers(s)]
        self.priced_lines = {scalar.line for scalar in self.scalars if scalar.prices}
        self.config = parse_config(self.text, "config.yaml", {})
        self.bills = bills(self.config, self.config)

    def _walk(self, node: yaml.Node, path: tuple[str, ...]) -> None:
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                inner = (*path, str(key.value))
                self._add(key, inner, is_key=True)
                self._walk(value, inner)
        elif isinstance(node, yaml.SequenceNode):
            for item in node.value:
                self._walk(item, path)
        else:
            self._add(node, path, is_key=False)

    def _add(self, node: yaml.Node, path: tuple[str, ...], *, is_key: bool) -> None:
        start, stop = node.start_mark, node.end_mark
        found = Scalar(path, is_key, start.index, stop.index, start.line, _prices(path))
        self.scalars.append(found)

    def of(self, scalar: Scalar) -> str:
        """The scalar as written."""
        return self.text[scalar.start : scalar.stop]

    def with_(self, *changes: tuple[Scalar, str]) -> str:
        """The file's text with scalars written differently."""
        text = self.text
        for scalar, written in sorted(changes, key=lambda change: change[0].start, reverse=True):
            text = text[: scalar.start] + written + text[scalar.stop :]
        return text


def _prices(path: tuple[str, ...]) -> bool:
    """Whether what stands at a path can change a charge; of models and operations their names do too."""
    match path:
        case ("credit",) | ("credit", "usd") | ("upstreams" | "models" | "operations",) | ("models" | "operations", _):
            return True
        case ("models", _, key, *_):
            return key in ("price", "class")
        case ("operations", _, key, *_):
            return key not in ("title", "typical")
        case _:
            return path[0] == "surcharges"


def _meter(scalar: Scalar) -> str:
    return next(name for name in reversed(scalar.path) if name in METERS)


def _refers(scalar: Scalar) -> bool:
    match scalar.path:
        case ("models", _, "upstream") | ("operations", _, "model" | "endpoint" | "class") | ("upstreams", _, "kind"):
            return True
        case _:
            return False


USAGE: dict[str, Quantity] = {
    name: 100_003 if name in ("input_tokens", "output_tokens") else 7_001 if meter.token else 3
    for name, meter in METERS.items()
}


def bills(config: Config, calls: Config) -> dict[tuple[str, str, str], tuple[object, ...]]:
    """What every kind of call that `calls` has is charged, and held for, under a config."""
    found: dict[tuple[str, str, str], tuple[object, ...]] = {}
    given = {name: 1 if name == "request" else quantity for name, quantity in USAGE.items()}
    for model in calls.models:
        for endpoint in METERED[:1] if not calls.operations else METERED:
            for header in (None, *calls.operations):
                operations = config.operations
                if header is not None and not operations[header].fits(endpoint, model):
                    found[model, endpoint, header] = ("refused",)
                    continue
                chosen = choose_operation(operations, header, None, None, endpoint, model)
                for tier in ("default", "flex"):
                    card = config.card(model, chosen, {"service_tier": tier, "quality": "high", "resolution": "1080p"})
                    charged, held = rate(card, given), quote(card, given)
                    found[model, endpoint, f"{header} {tier}"] = (chosen, charged.lines, charged.total, held.total)
    return found


BASES = [Base(path) for path in FILES]
ODD_VALUES = ("[a]", "{a: b}", "true", '""', "", "~", "word", "1.5", "0", "2026-01-01", "'1'", "|", "[]", "- a")
HUGE = ("9" * 13, "9" * 30, "1" + "0" * 4000, "1e400", "99999999999 / 1", "9" * 12 + " / 1M")


@dataclass(frozen=True)
class Slip:
    """A file after one slip. prices: whether it was at a price. refused: whether it can only be refused."""

    base: Base
    kind: str
    text: str
    prices: bool
    refused: bool = False


def misspelt(draw: st.DrawFn, word: str) -> str:
    """Draw a slip of the finger: a letter lost, doubled, swapped with the next, or another's."""
    at = draw(st.integers(0, len(word) - 1))
    match draw(st.sampled_from(["lose", "double", "swap", "other"])):
        case "lose":
            return word[:at] + word[at + 1 :]
        case "double":
            return word[:at] + word[at] + word[at:]
        case "swap":
            return word[:at] + word[at : at + 2][::-1] + word[at + 2 :]
        case _:
            return word[:at] + draw(st.sampled_from("abeilnorstxyz_")) + word[at + 1 :]


@st.composite
def slips(draw: st.DrawFn) -> Slip:
    """Draw a slip in one of the files."""
    base = draw(st.sampled_from(BASES))
    kind = draw(
        st.sampled_from([
            "swap keys", "misspell", "no unit", "negative", "huge", "double", "delete", "type", "indent", "reference",
            "move", "cut",
        ])
    )  # fmt: skip
    at = draw(st.integers(0, len(base.lines) - 1))
    lines = list(base.lines)
    near_prices = any(line in base.priced_lines for line in (at - 1, at, at + 1))
    on_price = at in base.priced_lines
    match kind:
        case "swap keys":
            one = draw(st.sampled_from(base.keys))
            other = draw(st.sampled_from([key for key in base.keys if key.path[:-1] == one.path[:-1]]))
            text = base.with_((one, base.of(other)), (other, base.of(one))) if one != other else base.text
            return Slip(base, kind, text, one.prices or other.prices)
        case "misspell":
            key = draw(st.sampled_from(base.keys))
            return Slip(base, kind, base.with_((key, misspelt(draw, base.of(key)))), key.prices)
        case "no unit" if base.token_prices:
            price = draw(st.sampled_from(base.token_prices))
            return Slip(base, kind, base.with_((price, base.of(price).split(" /")[0])), True, refused=True)
        case "negative":
            number = draw(st.sampled_from(base.numbers))
            sign = draw(st.sampled_from(["-", "- ", "-$"]))
            return Slip(base, kind, base.with_((number, sign + base.of(number))), number.prices, refused=True)
        case "huge":
            number = draw(st.sampled_from(base.numbers))
            return Slip(base, kind, base.with_((number, draw(st.sampled_from(HUGE)))), number.prices)
        case "type":
            value = draw(st.sampled_from(base.values))
            return Slip(base, kind, base.with_((value, draw(st.sampled_from(ODD_VALUES)))), value.prices)
        case "reference" if base.references:
            value = draw(st.sampled_from(base.references))
            nobody = "nobody/model" if value.path[-1] == "upstream" else "nobody"
            return Slip(base, kind, base.with_((value, nobody)), value.prices, refused=True)
        case "double":
            lines.insert(at, lines[at])
        case "delete":
            del lines[at]
        case "indent":
            lines[at] = " " * draw(st.integers(0, 8)) + lines[at].lstrip()
        case "move":
            # A line that lands among prices may become one of them, so all of it counts as touched.
            lines.insert(draw(st.integers(0, len(lines) - 1)), lines.pop(at))
            on_price = True
        case _:
            lines[at] = lines[at][: draw(st.integers(0, len(lines[at])))]
            on_price = on_price or near_prices
    return Slip(base, kind, "\n".join(lines) + "\n", on_price)


def read(text: str) -> Config | ConfigError:
    try:
        return parse_config(text, "config.yaml", {})
    except ConfigError as error:
        return error


def helpful(error: ConfigError, text: str) -> None:
    """A refusal names a line of the file, its empty last one included, and the fix."""
    assert str(error) == f"config.yaml:{error.line}: {error.problem}"
    assert 1 <= error.line <= text.count("\n") + 1
    assert HINTS.search(error.problem), error.problem


@settings(deadline=None, derandomize=True, max_examples=1000)
@given(slips())
def test_prices_stay_or_the_file_is_refused(slip: Slip) -> None:
    """A slip away from the prices leaves every call's price; any other loads too, or is refused with line and fix."""
    outcome = read(slip.text)
    if isinstance(outcome, ConfigError):
        helpful(outcome, slip.text)
        return
    assert not slip.refused
    for model in outcome.models:
        prices = outcome.card(model).prices.values()
        assert prices
        assert all(price.nano >= 0 and price.per > 0 for price in prices)
    if not slip.prices:
        assert bills(outcome, slip.base.config) == slip.base.bills


@st.composite
def misspelt_keys(draw: st.DrawFn) -> tuple[Base, Scalar, str]:
    """Draw a key of the format and how it was misspelt."""
    base = draw(st.sampled_from(BASES))
    key = draw(st.sampled_from(base.known_keys))
    return base, key, misspelt(draw, base.of(key))


@settings(deadline=None, derandomize=True, max_examples=500)
@given(misspelt_keys())
def test_the_fix_of_a_misspelt_key_mends_the_file(slip: tuple[Base, Scalar, str]) -> None:
    """What `did you mean` names, written on the line that is named, makes the file load as before."""
    base, key, wrong = slip
    text = base.with_((key, wrong))
    outcome = read(text)
    if not isinstance(outcome, ConfigError):
        # Only another key of the format, or the same, loads.
        assert base.of(key) == wrong or not key.prices
        return
    helpful(outcome, text)
    meant = re.search(r"unknown key `(.*)`; did you mean `(\w+)`\?", outcome.problem)
    if meant is None:
        assert base.of(key) in outcome.problem or wrong in outcome.problem or f"`{base.of(key)}:`" in outcome.problem
        return
    assert meant[1] == wrong.strip("\"'")
    lines = text.splitlines()
    place = re.compile(rf"(?<![\w]){re.escape(wrong)}(?=:)")
    assert len(place.findall(lines[outcome.line - 1])) == 1, outcome
    lines[outcome.line - 1] = place.sub(meant[2], lines[outcome.line - 1])
    mended = read("\n".join(lines) + "\n")
    assert isinstance(mended, Config), mended
    if meant[2] == base.of(key):
        assert mended.table.version == base.config.table.version


MODEL = """upstreams: {d: {kind: demo}}
models:
  a:
    upstream: d/a
    # what it costs
    price:
      request: 1
"""


@pytest.mark.parametrize(
    ("right", "wrong", "line"),
    [
        ("models:", "modles:", 2),
        ("    price:", "    prize:", 6),
        ("  a:", "  a/b:", 3),
        ("upstreams:", "creators:\n  premium: 10%\nupstreams:", 1),
        ("models:", "buckets:\n  daily:\n    titel: x\nmodels:", 4),
    ],
)
def test_a_key_is_refused_on_its_own_line(right: str, wrong: str, line: int) -> None:
    """A key that is wrong is refused on the line where it stands, also where its value begins on a later one."""
    outcome = read(MODEL.replace(right, wrong, 1))
    assert isinstance(outcome, ConfigError)
    assert outcome.line == line, outcome


def test_what_is_there_already_was_not_meant() -> None:
    """A misspelt `max` beside a `min` is not taken for a second `min`, which would be refused in turn."""
    outcome = read(MODEL + "      min: 1\n      man: 5\n")
    assert isinstance(outcome, ConfigError)
    assert "did you mean `min`" not in outcome.problem


def test_a_missing_upstream_is_refused_with_the_fix() -> None:
    """A model that names nobody to answer is told what to write."""
    text = MODEL.replace("    upstream: d/a\n", "")
    outcome = read(text)
    assert isinstance(outcome, ConfigError)
    helpful(outcome, text)


def test_an_operation_prices_both_tokens_or_none() -> None:
    """An operation that prices input tokens alone is refused for a model without token prices, as a model would be."""
    outcome = read(MODEL + "operations:\n  edit: {model: a, price: {input_tokens: 5 / 1M}}\n")
    assert isinstance(outcome, ConfigError)
    assert "output_tokens" in outcome.problem
