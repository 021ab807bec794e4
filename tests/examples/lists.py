"""What an example charges and holds, written as its price list is: decimal strings of credits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from pricing.amounts import format_credits
from pricing.rating import quote, rate
from pricing.table import RateCard
from pricing.usage import Quantity
from proxy.choice import choose_operation
from proxy.config import Config, load_config
from proxy.endpoints import CHAT

__all__ = ["EXAMPLES", "LATER", "Call", "load", "of_later", "tokens", "uncommented"]

EXAMPLES = Path(__file__).parents[2] / "examples"
LATER = "# With a later release:"


def load(name: str) -> Config:
    """Load an example in an empty environment."""
    return load_config(EXAMPLES / name / "config.yaml", {})


def tokens(given: int, cached: int, output: int, **more: Quantity) -> dict[str, Quantity]:
    """The usage of a chat: tokens in, of them cached, and out; `more` by meter."""
    return {"input_tokens": given, "cached_input_tokens": cached, "output_tokens": output, **more}


@dataclass(frozen=True)
class Call:
    """One call as its caller makes it: what it asks for, and what it uses."""

    model: str
    usage: Mapping[str, Quantity] = field(default_factory=dict)
    endpoint: str = CHAT
    attributes: Mapping[str, str] = field(default_factory=dict)
    header: str | None = None
    answered: bool = True

    def operation(self, config: Config) -> str | None:
        """The operation that the call is."""
        return choose_operation(config.operations, self.header, None, None, self.endpoint, self.model)

    def _card(self, config: Config) -> RateCard:
        return config.card(self.model, self.operation(config), self.attributes)

    def charged(self, config: Config) -> str:
        """What the call is charged."""
        rating = rate(self._card(config), {"request": 1, **self.usage}, answered=self.answered)
        assert rating.unpriced == ()
        assert rating.total == sum(line.amount for line in rating.lines)
        return format_credits(rating.total)

    def held(self, config: Config) -> str:
        """What is held for a call whose usage is the most that it may use."""
        return format_credits(quote(self._card(config), {"request": 1, **self.usage}).total)


def uncommented(name: str) -> str:
    """The example's text with its part for a later release in force."""
    before, mark, after = (EXAMPLES / name / "config.yaml").read_text(encoding="utf-8").partition(LATER + "\n")
    assert mark
    return before + "\n" + "".join(line.removeprefix("# ") for line in after.splitlines(keepends=True))


def of_later(name: str) -> dict[str, Any]:
    """Read the example's part for a later release."""
    document = yaml.safe_load(uncommented(name))
    text = (EXAMPLES / name / "config.yaml").read_text(encoding="utf-8")
    return {key: value for key, value in document.items() if key not in yaml.safe_load(text)}
