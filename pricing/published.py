"""What a provider publishes of a model's price, one entry of litellm's map, as a price here: all of it or a refusal.

Every field that says a price is mapped, or is in `NEVER_CHARGED` with its reason, or makes the conversion refuse with
its name. Amounts are exact: the map is to be read with `parse_float=Decimal`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from fractions import Fraction

from pricing.amounts import NANO
from pricing.conditions import When
from pricing.errors import UnpricedModel, UnreadablePrice
from pricing.meters import INPUT, METERS, OUTPUT
from pricing.published_fields import (
    ALTERNATIVES,
    BY_RESOLUTION,
    FREE_IF_ZERO,
    INCLUSIVE,
    MILLIONS,
    MOST_DOLLARS,
    NEVER_CHARGED,
    NO_OUTPUT,
    PICTURES,
    PRICE_WORDS,
    REGIONS,
    TIERS,
    TOKENS,
    UNITS,
)
from pricing.published_when import count, number, off_peak, ranges
from pricing.table import FREE, ModelPrice, Price, Rule

__all__ = ["decimals", "dollars", "published"]

_FIELD = re.compile(
    rf"(?P<base>.+?)(?:_above_(?P<above>\d{{1,6}})(?P<k>k?)_tokens)?(?:_(?P<tier>{'|'.join(TIERS)}))?", re.ASCII
)
_SIZES = ("low", "medium", "high")
_ALWAYS = (0, "")

Cell = tuple[int, str]
"""When a price holds: above so many input tokens, for a service tier."""


@dataclass(slots=True)
class _Sheet:
    """An entry while it is read.

    cells: dollars a unit by meter. first: rules that come before these, for hours and resolutions. rules: of meters
    that have none of both. factors: of what a token costs, by condition.
    """

    mode: str
    entry: Mapping[str, object]
    cells: dict[str, dict[Cell, Decimal]] = field(default_factory=dict)
    first: dict[str, list[Rule]] = field(default_factory=dict)
    rules: dict[str, list[Rule]] = field(default_factory=dict)
    factors: dict[tuple[str, str], Decimal] = field(default_factory=dict)

    def has(self, name: str) -> bool:
        """Whether a field says a price that is not 0."""
        return bool(self.entry.get(name))


def published(name: str, entry: Mapping[str, object]) -> ModelPrice:
    """Convert an entry into a price in nanodollars, as if a credit were a dollar.

    entry: its numbers are int or Decimal. Raises UnreadablePrice naming the field that can't be expressed, and
    UnpricedModel where nothing is published.
    """
    sheet = _Sheet(str(entry.get("mode")), entry)
    for key, value in entry.items():
        if PRICE_WORDS.search(key):
            _read(sheet, key, value)
    _wholes(sheet)
    rules = {meter: tuple(_rules(sheet, meter)) for meter in sheet.cells if not _says_nothing(sheet, meter)}
    rules |= {meter: tuple(found) for meter, found in sheet.rules.items()}
    if not rules:
        raise UnpricedModel(f"no price of `{name}` is published")
    return ModelPrice(name, {meter: rules[meter] for meter in METERS if meter in rules})


def dollars(meter: str, amount: Fraction) -> str:
    """Write a price in dollars a unit as an operator would: by the million where units are small; exact."""
    shown = amount * 1_000_000 if meter in MILLIONS else amount
    digits = decimals(shown)
    if digits is None:
        return f"${amount.numerator} / {amount.denominator}"
    digits = max(digits, 2 if shown else 0)
    whole, rest = divmod(int(shown * 10**digits), 10**digits)
    return f"${whole}" + f".{rest:0{digits}d}" * bool(digits) + " / 1M" * (meter in MILLIONS)


def decimals(value: Fraction) -> int | None:
    """How many decimals a number has, None where they never end."""
    digits = 0
    while value.denominator != 1:
        if value.denominator % 2 and value.denominator % 5:
            return None
        value, digits = value * 10, digits + 1
    return digits


def _price(meter: str, amount: Decimal | Fraction) -> Price:
    exact = Fraction(amount)
    return Price.of(dollars(meter, exact), exact * NANO)


def _read(sheet: _Sheet, key: str, value: object) -> None:
    """Take a field into the sheet, or refuse it by name."""
    if key in NEVER_CHARGED:
        same = NEVER_CHARGED[key].same_as
        if same is not None and value != sheet.entry.get(same):
            raise UnreadablePrice(key, f"is not what `{same}` says")
    elif key == "search_context_cost_per_query":
        sheet.rules["web_search"] = _searches(key, value)
    elif key == "tiered_pricing":
        _tiered(sheet, key, value)
    elif key == "off_peak_pricing":
        for name, amount, when in off_peak(key, value):
            meter = TOKENS[name]
            sheet.cells.setdefault(meter, {})
            sheet.first.setdefault(meter, []).append(Rule(when, _price(meter, _sane(key, meter, amount))))
    elif key == "provider_specific_entry":
        _specific(sheet, key, value)
    elif key in REGIONS:
        sheet.factors[REGIONS[key]] = _factor(key, value)
    elif (match := BY_RESOLUTION.fullmatch(key)) is not None:
        _by_resolution(sheet, key, number(key, value), match["base"], match["resolution"])
    else:
        _amount(sheet, key, number(key, value))


def _amount(sheet: _Sheet, key: str, amount: Decimal) -> None:
    match = _FIELD.fullmatch(key)
    assert match is not None  # whatever is there is a base
    base = match["base"]
    if base in FREE_IF_ZERO and not amount and sheet.has(FREE_IF_ZERO[base]):
        return
    if any(sheet.has(other) and sheet.mode not in but for other, but in ALTERNATIVES.get(base, ())):
        return
    meter = TOKENS.get(base) or _unit(sheet, base, amount)
    if meter is None:
        # A model that answers in words only makes no pictures, whatever they would cost.
        words = base == "output_cost_per_image" and sheet.entry.get("supported_output_modalities") == ["text"]
        if amount and not words:
            raise UnreadablePrice(key, f"is no price that mode {sheet.mode} has a meter for")
        return
    above = int(match["above"] or 0) * (1000 if match["k"] else 1)
    if above and sheet.entry.get("litellm_provider") in INCLUSIVE:
        above -= 1
    cells = sheet.cells.setdefault(meter, {})
    cell = (above, TIERS.get(match["tier"] or "", ""))
    before = cells.get(cell, Decimal(0))
    if before and amount and before != amount:
        raise UnreadablePrice(key, f"says another price of {meter} than a field before it")
    cells[cell] = before or _sane(key, meter, amount)


def _unit(sheet: _Sheet, base: str, amount: Decimal) -> str | None:
    """The meter of a price that is not by the token."""
    if base == "input_cost_per_image" and sheet.mode in PICTURES and amount:
        # The map's older way to write what a picture made costs.
        output = sheet.entry.get("output_cost_per_image")
        return "image" if output is None or output == amount else "input_image"
    modes = UNITS.get(base, {})
    return modes.get(sheet.mode) or modes.get("")


def _by_resolution(sheet: _Sheet, key: str, amount: Decimal, base: str, resolution: str) -> None:
    meter = _unit(sheet, base, amount)
    if meter is None or not sheet.has(base):
        raise UnreadablePrice(key, f"is no price that mode {sheet.mode} has a meter and a default for")
    rule = Rule((("resolution", resolution),), _price(meter, _sane(key, meter, amount)))
    sheet.first.setdefault(meter, []).append(rule)


def _sane(key: str, meter: str, amount: Decimal) -> Decimal:
    if amount < 0:
        raise UnreadablePrice(key, "is negative")
    most = MOST_DOLLARS[meter in MILLIONS]
    if amount > most:
        raise UnreadablePrice(key, f"is more than ${most} a unit, which no provider charges")
    return amount


def _factor(key: str, value: object) -> Decimal:
    factor = number(key, value)
    if not 1 <= factor <= 100:
        raise UnreadablePrice(key, "is no factor from 1 to 100")
    return factor


def _searches(key: str, value: object) -> list[Rule]:
    """Prices by how much is searched; who asks for nothing gets `medium`."""
    names = {size: f"search_context_size_{size}" for size in _SIZES}
    if not isinstance(value, Mapping) or set(value) != set(names.values()):
        raise UnreadablePrice(key, "does not say a price for each of low, medium and high")
    found = {size: _sane(key, "web_search", number(key, value[name])) for size, name in names.items()}
    ruled = [size for size in ("low", "high") if found[size] != found["medium"]]
    rules = [Rule((("search_context_size", size),), _price("web_search", found[size])) for size in ruled]
    return [*rules, Rule((), _price("web_search", found["medium"]))]


def _tiered(sheet: _Sheet, key: str, value: object) -> None:
    """Prices of the whole call by the length of its input; what a range does not say costs what its whole does."""
    beside = [name for name in TOKENS if name in sheet.entry]
    if beside:
        raise UnreadablePrice(key, f"stands beside `{beside[0]}`, which it replaces")
    found = ranges(key, value)
    for name in {name for _, prices in found for name in prices}:
        whole = "output_cost_per_token" if name.startswith("output") else "input_cost_per_token"
        cells = sheet.cells.setdefault(TOKENS[name], {})
        for above, prices in found:
            cells[above, ""] = _sane(f"{key}.{name}", TOKENS[name], prices.get(name, prices[whole]))


def _specific(sheet: _Sheet, key: str, value: object) -> None:
    for name, said in value.items() if isinstance(value, Mapping) else [("", value)]:
        if name in ("us", "eu"):
            sheet.factors["region", name] = _factor(f"{key}.{name}", said)
        elif name == "fast":
            sheet.factors["service_tier", name] = _factor(f"{key}.{name}", said)
        elif name == "minimax_free_input_images" and isinstance(said, int) and sheet.has("input_cost_per_image"):
            price = _price("input_image", number(key, sheet.entry["input_cost_per_image"]))
            sheet.rules["input_image"] = [Rule((), FREE, ((said, price),))]
        elif name not in NEVER_CHARGED:
            raise UnreadablePrice(f"{key}.{name}", "is not known")


def _wholes(sheet: _Sheet) -> None:
    """See that who sells tokens prices input and output, and drop tokens at 0 beside what is sold by other units."""
    tokens = [meter for meter in sheet.cells if METERS[meter].token]
    units = [meter for meter in sheet.cells if meter not in tokens]
    sold = any(amount for meter in tokens for amount in sheet.cells[meter].values())
    if not sold and any(amount for meter in units for amount in sheet.cells[meter].values()):
        for meter in tokens:
            del sheet.cells[meter]
        return
    if sold and "page" in units:
        raise UnreadablePrice("ocr_cost_per_page", "stands beside prices of tokens; only one of both is charged")
    if not tokens:
        return
    output = sheet.cells.setdefault(OUTPUT, {})
    if _ALWAYS not in output and sheet.mode in NO_OUTPUT:
        output[_ALWAYS] = Decimal(0)
    if sheet.mode in PICTURES and not output.get(_ALWAYS) and "output_image_tokens" in sheet.cells:
        # All that comes out is a picture.
        output |= sheet.cells.pop("output_image_tokens")
    for meter, name in ((INPUT, "input_cost_per_token"), (OUTPUT, "output_cost_per_token")):
        if _ALWAYS not in sheet.cells.get(meter, {}):
            raise UnreadablePrice(name, "is missing, though tokens are priced")


def _whole(sheet: _Sheet, meter: str) -> str | None:
    """The nearest priced meter that a meter is part of."""
    whole = METERS[meter].whole
    while whole is not None and whole not in sheet.cells:
        whole = METERS[whole].whole
    return whole


def _says_nothing(sheet: _Sheet, meter: str) -> bool:
    """Whether a part costs what its whole does: then it does so under every condition, those of the whole too."""
    whole = _whole(sheet, meter)
    if whole is None or sheet.first.get(meter):
        return False
    return sheet.cells[meter] == {_ALWAYS: sheet.cells[whole].get(_ALWAYS)}


def _rules(sheet: _Sheet, meter: str) -> Iterator[Rule]:
    """The rules of a meter, the most particular first: off-peak hours, then the longest input, then the tier."""
    cells = dict(sheet.cells[meter])
    batch = {above: amount for (above, tier), amount in cells.items() if tier == "batch"}
    if 0 in batch:
        # In a batch the length of the input counts only where a price for both is published.
        for above in {above for above, _ in cells} - set(batch):
            cells[above, "batch"] = batch[max(number for number in batch if number < above)]
    if ("service_tier", "fast") not in sheet.factors:
        # Two names of one tier.
        cells |= {(above, "fast"): amount for (above, tier), amount in cells.items() if tier == "priority"}
    plain = list(sheet.first.get(meter, ()))
    for above, tier in sorted(cells, key=lambda cell: (-cell[0], not cell[1], cell[1])):
        when = ((INPUT, f"> {count(above)}"),) * bool(above) + (("service_tier", tier),) * bool(tier)
        plain.append(Rule(when, _price(meter, cells[above, tier])))
    for rule in plain:
        yield from _multiplied(sheet, meter, rule) if METERS[meter].token else [rule]
    whole = _whole(sheet, meter)
    if _ALWAYS not in cells and whole is not None:
        yield from _rules(sheet, whole)


def _multiplied(sheet: _Sheet, meter: str, rule: Rule) -> Iterator[Rule]:
    """A rule for each combination of the factors' conditions, those of more conditions first."""
    combined: list[tuple[When, Fraction]] = [((), Fraction(1))]
    for pair, factor in sheet.factors.items():
        combined = [
            *((((*when, pair), so_far * Fraction(factor))) for when, so_far in combined if pair[0] not in dict(when)),
            *combined,
        ]
    for when, factor_ in sorted(combined, key=lambda item: -len(item[0])):
        if not dict(when).keys() & dict(rule.when).keys():
            amount = Fraction(rule.price.nano, rule.price.per) / NANO * factor_
            yield Rule((*rule.when, *when), _price(meter, amount))
