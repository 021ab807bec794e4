"""What cold reads write differently on SQLite and on PostgreSQL; everything else is one SQL for both."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy import Connection

__all__ = ["POSTGRES", "SQLITE", "Dialect", "dialect_of"]


@dataclass(frozen=True, slots=True)
class Dialect:
    """How a database says it, in SQL.

    is_not: differs from, where either may be null. bytewise: orders a text by its bytes. begin: what makes the next
    statements see one moment, where they do not anyway. hint: has a table read by an index. first: a part of a union of
    which only the first rows count.

    A memo is bytes that are nearly always JSON; one that is not has no members. member: of the memo, by its name, null
    where there is none; member_is: whether it is the text that a parameter stands for. text: makes such a parameter.

    items: the rows of a JSON list, as alias.value, which are lists themselves, none where it is no JSON; number and
    word: what stands at a place in one, 0 the first. lines, paid: a receipt's sums, null where it is no JSON.

    probe: of rows s, a table f, how f's rows are found by s, and columns; looks into the table by its key for each row.
    """

    is_not: str
    bytewise: str
    begin: str
    hint: Callable[[str], str]
    first: Callable[[str, str], str]
    member: Callable[[str], str]
    member_is: Callable[[str, str], str]
    text: Callable[[str], str]
    items: Callable[[str, str], str]
    number: Callable[[str, int], str]
    word: Callable[[str, int], str]
    probe: Callable[[str, str, str, str], str]
    lines: str
    paid: str


def dialect_of(connection: Connection) -> Dialect:
    return POSTGRES if connection.dialect.name == "postgresql" else SQLITE


def _sqlite_member(name: str) -> str:
    return f"CASE json_valid(CAST(memo AS TEXT)) WHEN 1 THEN json_extract(CAST(memo AS TEXT), '$.{name}') END"


def _sqlite_item(alias: str, place: int) -> str:
    return f"json_extract({alias}.value, '$[{place}]')"


def _sqlite_sum(json: str, items: str, amount: str) -> str:
    return (
        f"CASE json_valid({json}) WHEN 1 THEN (SELECT COALESCE(SUM(json_extract(value, '${amount}')), 0)"
        f" FROM json_each({json}, '${items}')) END"
    )


def _postgres_json(text: str) -> str:
    return f"ledger_json(convert_to({text}, 'UTF8'))"


def _postgres_number(alias: str, place: int) -> str:
    item = f"{alias}.value -> {place}"
    return f"CASE jsonb_typeof({item}) WHEN 'number' THEN CAST({item} AS numeric) END"


def _postgres_sum(json: str, items: str, amount: str) -> str:
    path = f'${items}[*]{amount} ? (@.type() == "number")'
    # The offset has it read once, although it is named twice.
    return (
        "(SELECT CASE WHEN doc IS NOT NULL THEN (SELECT COALESCE(SUM(CAST(value AS numeric)), 0)"
        f" FROM jsonb_path_query(doc, '{path}') AS found(value)) END FROM (SELECT {json} AS doc OFFSET 0) read)"
    )


SQLITE = Dialect(
    is_not="IS NOT",
    bytewise="",
    begin="BEGIN",
    hint=lambda index: f" INDEXED BY {index}",
    # It reads no more of the parts than the whole needs.
    first=lambda select, first: select,
    member=_sqlite_member,
    member_is=lambda name, parameter: f"{_sqlite_member(name)} = {parameter}",
    text=str,
    items=lambda json, alias: f"json_each(CASE json_valid({json}) WHEN 1 THEN {json} END) {alias}",
    number=_sqlite_item,
    word=_sqlite_item,
    # What stands left of a cross join is SQLite's outer loop.
    probe=lambda rows, table, found, columns: f"SELECT {columns} FROM ({rows}) s CROSS JOIN {table} f WHERE {found}",
    lines=_sqlite_sum("CAST(memo AS TEXT)", ".lines", ".amount"),
    paid=_sqlite_sum("paid_from", "", "[2]"),
)

POSTGRES = Dialect(
    is_not="IS DISTINCT FROM",
    bytewise=' COLLATE "C"',
    # Every read is one transaction, and its snapshot that of its first statement.
    begin="",
    hint=lambda index: "",
    first=lambda select, first: f"({select} {first})",
    member=lambda name: f"ledger_json(memo) ->> '{name}'",
    # As JSON, so that 5 is not "5".
    member_is=lambda name, parameter: f"ledger_json(memo) -> '{name}' = to_jsonb(CAST({parameter} AS text))",
    # No text holds a zero; `ledger_json` reads it in the same way.
    text=lambda text: text.replace("\0", "\ufffd"),
    # A path, as it takes what is no list for a list of one.
    items=lambda json, alias: f"jsonb_path_query({_postgres_json(json)}, '$[*]') AS {alias}(value)",
    number=_postgres_number,
    word=lambda alias, place: f"{alias}.value ->> {place}",
    # The offset keeps it from reading the whole table instead.
    probe=lambda rows, table, found, columns: (
        f"SELECT {columns} FROM ({rows}) s CROSS JOIN LATERAL (SELECT * FROM {table} f WHERE {found} OFFSET 0) f"
    ),
    lines=_postgres_sum("ledger_json(memo)", ".lines", ".amount"),
    paid=_postgres_sum(_postgres_json("paid_from"), "", "[2]"),
)
