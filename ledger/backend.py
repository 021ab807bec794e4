"""What the store asks of a database: to lock accounts, to find rows by sets of keys, and to write rows in sets."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, Protocol

__all__ = ["Backend", "Changes", "Pairs", "Reader", "Row", "Stale", "Write"]

Row = tuple[Any, ...]
Pairs = Sequence[tuple[int, int | str]]


class Write(NamedTuple):
    """One kind of change to a table; columns: of the rows that say it, in order, the first `key` of them name a row.

    how: insert, update, delete, or upsert, which replaces what is not key.
    """

    table: str
    columns: tuple[str, ...]
    how: str
    key: int = 0


Changes = Iterable[tuple[Write, Sequence[Row]]]


class Stale(Exception):
    """What was to be changed is not there any more, or is there already."""


class Reader(Protocol):
    """A connection's reading side."""

    def books(self, accounts: Sequence[int]) -> Iterable[Row]:
        """Read accounts with their open grants: ACCOUNT_COLUMNS and then LOT_COLUMNS, of which null is none."""

    def holds(self, pairs: Pairs) -> list[Row]:
        """Read open holds by (account id, hold id), as HOLD_COLUMNS."""

    def rows(self, statement: str, *values: object) -> list[Row]:
        """Read rows; each `?` of the statement stands for a value."""

    def rows_in(self, statement: str, pairs: Pairs) -> list[Row]:
        """Read rows whose two columns are among some pairs; the statement has them as `(a, b) IN {pairs}`."""


class Backend(Reader, Protocol):
    """One writing connection, used by one thread at a time.

    exclusive: nobody else writes while it is open, so what it wrote is what is there. error: what it raises.
    """

    exclusive: bool
    error: type[Exception]

    def create(self) -> None:
        """Create what is missing of the tables and their columns."""

    def begin(self, accounts: Sequence[int], holds: Pairs = ()) -> None:
        """Begin a transaction in which nobody else changes these accounts; holds: those that will be asked for."""

    def write(self, write: Write, rows: Sequence[Row]) -> int:
        """Write rows; returns how many were."""

    def commit(self, changes: Changes = ()) -> None:
        """Write these, and end the transaction; durable when this returns.

        Raises Stale, before it ends, where a change is not of as many rows as it says.
        """

    def rollback(self) -> None:
        """End the transaction as if it had not been, if there is one."""

    def is_double(self, error: Exception) -> bool:
        """Whether something was to be recorded twice; any other constraint that fails is a fault, no contradiction."""

    def is_passing(self, error: Exception) -> bool:
        """Whether the same transaction may pass when it is tried again at once."""

    def is_nobodys(self, error: Exception) -> bool:
        """Whether no command is at fault, and each by itself would fail too."""

    def close(self) -> None: ...
