"""Brings a database's tables up to what this release needs, by Alembic's revisions; each room has a history of its own.

A history is a folder of revisions, `versions/r0001_….py` and on, which are never changed once they are released. The
version that a database is at is in a table of the history's name.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Connection, MetaData, inspect, text
from sqlalchemy.schema import CreateColumn

from ledger.errors import LedgerUnavailable

__all__ = ["LEDGER", "History", "create_missing", "migrate"]

# Alembic's `op` is one for the process.
_one_at_a_time = threading.Lock()


@dataclass(frozen=True, slots=True)
class History:
    """A room's revisions. table: where the database says its version."""

    folder: Path
    table: str

    @property
    def head(self) -> str:
        """The newest revision, of which files' names begin with the number."""
        return max(file.name for file in (self.folder / "versions").glob("r[0-9]*.py"))[1:5]


LEDGER = History(Path(__file__).parent / "migrations", "ledger_version")


def migrate(connection: Connection, history: History, *, to: str | None = None) -> None:
    """Bring the tables of a history up to its newest revision, or `to`, in the connection's transaction.

    The caller sees to it that nobody else does so. Raises LedgerUnavailable for a database of a newer release.
    """
    version, wanted = _version(connection, history), to or history.head
    if version == wanted:
        return
    if version is not None and version > history.head:
        raise LedgerUnavailable(
            f"the database was made by a newer release: {history.table} is {version}, this release knows"
            f" {history.head}; start that release, or bring back a copy of before"
        )
    # Only when there is something to do: it costs every start a moment otherwise.
    from alembic.config import Config
    from alembic.runtime.environment import EnvironmentContext
    from alembic.script import ScriptDirectory

    script = ScriptDirectory(str(history.folder))
    with (
        _one_at_a_time,
        EnvironmentContext(
            Config(), script, fn=lambda version, _: script._upgrade_revs(wanted, version), destination_rev=wanted
        ) as environment,
    ):
        environment.configure(connection=connection, version_table=history.table)
        environment.run_migrations()


def _version(connection: Connection, history: History) -> str | None:
    if not inspect(connection).has_table(history.table):
        return None
    return connection.execute(text(f"SELECT version_num FROM {history.table}")).scalar()


def create_missing(connection: Connection, metadata: MetaData) -> None:
    """Create the tables that are not there, and what is missing of those that are: columns that may be null, indexes.

    Before there were revisions, tables grew by such columns.
    """
    found = inspect(connection)
    there = {table.name for table in metadata.sorted_tables if found.has_table(table.name)}
    metadata.create_all(connection)
    for table in metadata.sorted_tables:
        if table.name in there:
            present = {column["name"] for column in found.get_columns(table.name)}
            for column in table.columns:
                if column.name not in present:
                    added = CreateColumn(column).compile(dialect=connection.dialect)
                    connection.exec_driver_sql(f"ALTER TABLE {table.name} ADD COLUMN {added}")
            for index in sorted(table.indexes, key=lambda index: str(index.name)):
                index.create(connection, checkfirst=True)
