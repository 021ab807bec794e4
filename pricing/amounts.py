"""Credits as people write them, nanocredits as machines add them."""

from __future__ import annotations

import re

from pricing.errors import InvalidAmount

__all__ = ["MAX_CREDITS", "NANO", "format_credits", "parse_credits"]

NANO = 10**9
"""Nanocredits in a credit."""

MAX_CREDITS = 10**9
"""Largest amount of credits that one command may name: 10¹⁸ nanocredits still fit a BIGINT nine times over."""

_DECIMAL = re.compile(r"(-?)(\d{1,19})(?:\.(\d{1,9}))?", re.ASCII)


def format_credits(nanocredits: int) -> str:
    """Write an amount as a decimal string of credits: no exponent, no trailing zero, `-0.5`, `10`, `0`."""
    whole, fraction = divmod(abs(nanocredits), NANO)
    sign = "-" if nanocredits < 0 else ""
    if not fraction:
        return f"{sign}{whole}"
    return f"{sign}{whole}.{fraction:09d}".rstrip("0")


def parse_credits(value: object, *, signed: bool = False, zero: bool = False) -> int:
    """Read an amount of credits that a person or program sent, in nanocredits.

    Takes a decimal string or an integer, at most 9 decimals and 10⁹ credits; `signed` admits negative amounts and
    `zero` admits 0. Raises InvalidAmount otherwise: a float has already lost the figure that was meant.
    """
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        raise InvalidAmount('must be a decimal string such as "12.5", or an integer')
    if isinstance(value, int) and abs(value) > MAX_CREDITS:
        raise InvalidAmount(f"must be at most {MAX_CREDITS} credits")
    match = _DECIMAL.fullmatch(str(value)[:40])
    if match is None:
        raise InvalidAmount('must be a decimal number of credits with at most 9 decimals, such as "12.5"')
    sign, whole, fraction = match.groups()
    amount = int(whole) * NANO + int((fraction or "").ljust(9, "0"))
    if amount > MAX_CREDITS * NANO:
        raise InvalidAmount(f"must be at most {MAX_CREDITS} credits")
    if amount == 0 and not zero:
        raise InvalidAmount("must not be 0" if signed else "must be more than 0")
    if sign and amount and not signed:
        raise InvalidAmount("must be more than 0" if not zero else "must be 0 or more")
    return -amount if sign else amount
