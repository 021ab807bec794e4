"""What pricing refuses.

PricingError
├── ConfigError      the operator's file is wrong; carries file, line and fix
├── UnpricedModel    the table has no price for what was asked
├── UnreadablePrice  a provider publishes a price that can't be expressed here; names the field
├── UnreadableTable  what was kept of a table is not it, or more than this release knows
├── NotKept          a call was recorded before something that its price depends on was
└── InvalidAmount    a figure that is no amount of credits
"""

from __future__ import annotations

__all__ = [
    "ConfigError",
    "InvalidAmount",
    "NotKept",
    "PricingError",
    "UnpricedModel",
    "UnreadablePrice",
    "UnreadableTable",
]


class PricingError(Exception):
    """Anything that pricing refuses."""


class ConfigError(PricingError):
    """The operator's file is wrong at one line; `str()` reads `FILE:LINE: what is wrong, and the fix`."""

    def __init__(self, file: str, line: int, problem: str) -> None:
        super().__init__(f"{file}:{line}: {problem}")
        self.file = file
        self.line = line
        self.problem = problem


class UnpricedModel(PricingError):
    """A model or meter was asked for that the table does not price."""


class UnreadablePrice(PricingError):
    """A published price says something that can't be expressed here; `str()` reads "`field` is …"."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"`{field}` {problem}")
        self.field = field


class UnreadableTable(PricingError):
    """What was kept of a price table is not that table, or says more than this release knows."""


class NotKept(PricingError):
    """A call was recorded before something that its price depends on was kept; `str()` reads `written before …`."""

    def __init__(self, since: str) -> None:
        super().__init__(f"written before {since}")


class InvalidAmount(PricingError):
    """A figure that is no amount of credits; the message says what is expected."""
