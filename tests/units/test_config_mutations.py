"""A config file that went wrong while it was edited: it loads or is refused at a line, and nothing else happens."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from pricing.errors import ConfigError
from proxy.config import Config, parse_config

LINES = (Path(__file__).parents[2] / "config.yaml").read_text(encoding="utf-8").splitlines()

FRAGMENTS = st.sampled_from([
    "- ", "{", "}", "[", "]", "&a ", "*a", "!!int ", "!", "\t", "  ", "\0", "\x01", "\ufeff", "\u2028", "\x85", "\r",
    "${", "${NO_SUCH}", "${X:-1}", "-1", "1e-5", "nan", ".inf", "null", "~", ":", ": ", " #", "'", '"', "|", ">", "%",
    "@", "`", "<<: ", "? ", "---", "...", "\n---\n", "é", "/", "$", "0", "9" * 40, ",", "\n", "<<: *a", "&a", "true",
])  # fmt: skip


@st.composite
def edited(draw: st.DrawFn) -> str:
    """Draw the shipped file after a few slips: lines lost, doubled, moved, re-indented or garbled."""
    lines = list(LINES)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(lines) - 1))
        match draw(
            st.sampled_from(["delete", "double", "move", "indent", "insert", "insert", "cut", "type", "truncate"])
        ):
            case "delete":
                del lines[at]
            case "double":
                lines.insert(at, lines[at])
            case "move":
                lines.insert(draw(st.integers(0, len(lines) - 1)), lines.pop(at))
            case "indent":
                lines[at] = " " * draw(st.integers(0, 8)) + lines[at].lstrip()
            case "insert":
                place = draw(st.integers(0, len(lines[at])))
                lines[at] = lines[at][:place] + draw(FRAGMENTS) + lines[at][place:]
            case "cut":
                start, stop = draw(st.integers(0, len(lines[at]))), draw(st.integers(0, len(lines[at])))
                lines[at] = lines[at][:start] + lines[at][max(start, stop) :]
            case "type":
                place = draw(st.integers(0, len(lines[at])))
                typed = draw(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=3))
                lines[at] = lines[at][:place] + typed + lines[at][place + 1 :]
            case _:
                lines[at] = lines[at][: draw(st.integers(0, len(lines[at])))]
                del lines[at + 1 :]
        if not lines:
            break
    return "\n".join(lines) + draw(st.sampled_from(["\n", ""]))


def read(text: str) -> Config | ConfigError:
    try:
        return parse_config(text, "config.yaml", {})
    except ConfigError as error:
        return error


@settings(deadline=None, derandomize=True, max_examples=800)
@given(edited())
def test_loads_or_is_refused(text: str) -> None:
    """Whatever slip was made, the file loads with sound prices or is refused with a line of its own and a reason."""
    outcome = read(text)
    if isinstance(outcome, ConfigError):
        assert str(outcome).startswith(f"config.yaml:{outcome.line}: ")
        assert 1 <= outcome.line <= len(text.splitlines()) + 1
        assert len(outcome.problem) > 10
        return
    assert outcome.models
    for model in outcome.models.values():
        assert outcome.card(model.name).prices
        assert all(price.nano >= 0 and price.per > 0 for price in outcome.card(model.name).prices.values())
        assert 1 <= model.min_output_tokens <= model.max_output_tokens
        assert 1 <= model.hold_output_tokens <= model.max_output_tokens
