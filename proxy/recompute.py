"""Receipts proven: each call rated again from what is kept of it, under the price table that its receipt names."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache
from pathlib import Path
from typing import Any

import orjson
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError
from sqlmodel import col, select

from ledger.errors import LedgerUnavailable
from ledger.model import Run
from ledger.opening import is_postgres
from ledger.queries import Recorded, outages_of, read_only, snapshot
from ledger.runs import share_of
from ledger.usage import Which, find_call, usage_page
from pricing.errors import NotKept, PricingError, UnreadableTable
from pricing.receipt import LineItem, Rating
from pricing.recomputing import Difference, Share, UsedCall, differences, rerate
from pricing.table import PriceTable, RateCard
from pricing.usage import Quantity, impossible
from pricing.versions import kept_table
from proxy.charge import run_share
from proxy.ids import object_id, parse_object
from proxy.journal import PriceVersionRow
from proxy.receipts import CLIENT_LEFT

__all__ = ["BROKEN", "DIFFERS", "EQUAL", "OLD", "RUNNING", "Books", "Recomputed", "Unreadable", "used_call"]

EQUAL = "equal"
DIFFERS = "differs"
BROKEN = "broken"
OLD = "old"
RUNNING = "running"

_PAGE = 500
_TABLES = 32
_QUANTITY = re.compile(r"\d{1,4300}(\.\d{1,4300})?", re.ASCII)
_NOTHING = Rating((), 0)


class Unreadable(Exception):
    """What is kept of a call is not what Farebox writes."""


@dataclass(frozen=True, slots=True)
class Recomputed:
    """What came of one call; request: its id.

    outcome: EQUAL; DIFFERS, with the differences; or, with the reason, BROKEN: it can't be recomputed, and should be;
    OLD: it can't, as it was written before all that it takes was kept; or RUNNING: it has no receipt yet.
    """

    request: str
    outcome: str
    reason: str = ""
    differences: tuple[Difference, ...] = ()


class Books:
    """The calls and price tables of one database, read beside whoever writes it; where: a file, or PostgreSQL's URL.

    Raises LedgerUnavailable where it can't be read. Memory stays the same however many calls there are.
    """

    def __init__(self, where: str) -> None:
        if not is_postgres(where) and not Path(where).is_file():
            raise LedgerUnavailable(f"there is no ledger at {where}")
        self._engine = read_only(where)
        self._outages = outages_of(where)
        self._kept = lru_cache(_TABLES)(self._read_table)

    def close(self) -> None:
        self._engine.dispose()

    def recompute(self, which: Which) -> Iterator[Recomputed]:
        """Recompute calls, account by account, newest first in each."""
        return map(self._recompute, self.calls(which))

    def recompute_each(self, requests: Iterable[str]) -> Iterator[Recomputed]:
        """Recompute these calls, by their ids."""
        for request in requests:
            ids = parse_object("req", request)
            with self.reading() as connection:
                call = None if ids is None else find_call(connection, account_id=ids[1], hold_id=ids[0])
            yield Recomputed(request, BROKEN, "there is no such call") if call is None else self._recompute(call)

    def calls(self, which: Which) -> Iterator[Recorded]:
        """Walk through calls, held or ended, a page at a time."""
        after = None
        while True:
            with self.reading() as connection:
                page = usage_page(connection, which, _PAGE, after)
            yield from page
            if len(page) < _PAGE:
                return
            after = (page[-1].hold_id, page[-1].account_id)

    def table(self, version: str) -> PriceTable:
        """The table of a version; raises UnreadableTable."""
        table = self._kept(version)
        if isinstance(table, str):
            raise UnreadableTable(table)
        return table

    def _read_table(self, version: str) -> PriceTable | str:
        """Read a version's table, or say why it can't be; what can't is asked for once too."""
        with self.reading() as connection:
            wanted = select(col(PriceVersionRow.content)).where(col(PriceVersionRow.version) == version)
            content = connection.execute(wanted).scalar()
        if not isinstance(content, str):
            return f"nothing is kept of the price table {version}"
        try:
            return kept_table(version, content)
        except UnreadableTable as error:
            return str(error)

    def _recompute(self, recorded: Recorded) -> Recomputed:
        request = object_id("req", recorded.hold_id, recorded.account_id)
        if recorded.status == "held":
            return Recomputed(request, RUNNING)
        try:
            memo = _document(recorded)
            lines = _lines(memo)
            # What ended without a charge was not rated.
            rating = self._rate(memo) if recorded.status == "settled" else _NOTHING
        except NotKept as error:
            return Recomputed(request, OLD, str(error))
        except (PricingError, Unreadable) as error:
            return Recomputed(request, BROKEN, str(error))
        found = differences(lines, recorded.charged, rating)
        return Recomputed(request, DIFFERS if found else EQUAL, differences=tuple(found))

    def _rate(self, memo: Mapping[str, Any]) -> Rating:
        return rerate(self.table(str(memo.get("price_version"))), used_call(memo), _share(memo))

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """Have a connection on which all is of one moment."""
        try:
            with snapshot(self._engine) as connection:
                yield connection
        except DBAPIError as error:
            # Not the URL: it may have a password in it.
            raise LedgerUnavailable(f"the ledger's database can't be read: {error.orig}") from error
        except self._outages as error:
            raise LedgerUnavailable(f"the ledger's database can't be read: {error}") from error
        except ValueError as error:
            raise LedgerUnavailable(f"a call can't be read, `farebox audit` says which: {error}") from error


def _document(recorded: Recorded) -> Mapping[str, Any]:
    try:
        memo = orjson.loads(recorded.memo)
    except ValueError:
        memo = None
    if not isinstance(memo, dict):
        raise Unreadable("what is kept of it is no JSON object")
    return memo


def used_call(memo: Mapping[str, Any]) -> UsedCall:
    """Read what a settled call's price depends on out of its memo; raises Unreadable."""
    # Somebody else may have answered, at another price than the model's.
    model, operation, usage = memo.get("priced_as", memo.get("model")), memo.get("operation"), memo.get("usage")
    # Before `answered` was kept, only calls whose client left were charged without any output.
    attributes, answered = memo.get("attributes"), memo.get("answered", memo.get("ended") != CLIENT_LEFT or None)
    if (
        not isinstance(model, str)
        or not isinstance(operation, str | None)
        or not isinstance(usage, dict)
        or not isinstance(attributes, dict | None)
        or not all(isinstance(value, str) for value in (attributes or {}).values())
        or not isinstance(answered, bool | None)
    ):
        raise Unreadable("what is kept of it does not say what it used")
    quantities = {meter: _quantity(text) for meter, text in usage.items()}
    if (problem := impossible(quantities)) is not None:
        raise Unreadable(f"its usage can't be: {problem}")
    return UsedCall(model, operation, quantities, attributes, answered)


def _lines(memo: Mapping[str, Any]) -> list[LineItem]:
    try:
        return [_line(**line) for line in memo["lines"]]
    except (KeyError, TypeError) as error:
        raise Unreadable("its receipt's lines can't be read") from error


def _line(*, meter: object, quantity: object, price: object, amount: object) -> LineItem:
    if not isinstance(meter, str) or not isinstance(price, str) or not isinstance(amount, int):
        raise Unreadable(f"its receipt's line {meter} has no amount or price")
    return LineItem(meter, _quantity(quantity), price, amount)


def _quantity(text: object) -> Quantity:
    if not isinstance(text, str) or not _QUANTITY.fullmatch(text):
        raise Unreadable(f"{text!r} is no quantity")
    return Decimal(text) if "." in text else int(text)


def _share(memo: Mapping[str, Any]) -> Share | None:
    """What its run was charged for a call, after what the run had come to by then."""
    run, operation = memo.get("run"), memo.get("operation")
    if run is None:
        return None

    def share(card: RateCard, raw: int, answered: bool) -> int:
        before = memo.get("run_before")
        if before is None:
            raise NotKept("it was kept what its run had come to")
        try:
            return share_of(
                Run(int(before["raw"]), int(before["charged"])), run_share(card, run, operation, raw, floor=answered)
            )
        except (KeyError, TypeError, ValueError) as error:
            raise Unreadable("what is kept of its run can't be read") from error

    return share
