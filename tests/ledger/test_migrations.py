"""Revisions: every database, of whatever release, comes to the tables of this one, or is left alone."""

from __future__ import annotations

import secrets
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, Engine, create_engine, inspect
from sqlmodel import SQLModel

import proxy.app  # noqa: F401  # every room's tables are known now
from ledger.audit import audit
from ledger.errors import LedgerUnavailable
from ledger.migrating import LEDGER, History, migrate
from ledger.opening import open_stores
from proxy.database import HISTORY, Database
from tests.postgres import own_database

RELEASES = Path(__file__).parents[1] / "releases"
RELEASED = [file.stem for file in sorted(RELEASES.glob("*.sql"))]
"""Revisions of the ledger that databases are kept of."""

HISTORIES = [LEDGER, HISTORY]


@pytest.fixture(params=["sqlite", "postgres"])
def empty(request: pytest.FixtureRequest, path: str) -> str:
    """A database with nothing in it, on either."""
    if request.param == "sqlite":
        return path
    return own_database(request.getfixturevalue("postgres_url"), secrets.token_hex(8))


@pytest.fixture
def engine(empty: str) -> Iterator[Engine]:
    if "://" in empty:
        engine = create_engine(empty.replace("postgresql://", "postgresql+psycopg://"))
    else:
        engine = create_engine(f"sqlite:///{empty}", connect_args={"isolation_level": None})
    yield engine
    engine.dispose()


@contextmanager
def begun(engine: Engine) -> Iterator[Connection]:
    with engine.begin() as connection:
        if connection.dialect.name == "sqlite":
            connection.exec_driver_sql("BEGIN IMMEDIATE")
        yield connection


def load(connection: Connection, release: str) -> None:
    """Make a database of that release, and fill it with what a server of it has left."""
    with closing(sqlite3.connect(":memory:")) as left:
        left.executescript((RELEASES / f"{release}.sql").read_text(encoding="utf-8"))
        there = {name for (name,) in left.execute("SELECT name FROM sqlite_master")}
        for history in HISTORIES:
            # The first was of before there were versions.
            asked = f"SELECT version_num FROM {history.table}"
            migrate(connection, history, to=left.execute(asked).fetchone()[0] if history.table in there else "0001")
        for table in inspect(connection).get_table_names():
            if not table.endswith("_version") or table == "price_version":
                cursor = left.execute(f"SELECT * FROM {table}")
                columns = [column[0] for column in cursor.description]
                mark = "?" if connection.dialect.name == "sqlite" else "%s"
                marks = ", ".join([mark] * len(columns))
                for row in cursor:
                    connection.exec_driver_sql(
                        f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({marks})", tuple(row)
                    )


def bring_up(url: str) -> None:
    """Open and close everything, as a server does."""
    stores, ownership = open_stores(url, "a test")
    try:
        Database(url).close()
    finally:
        for store in stores:
            store.close()
        ownership.release()


def test_revisions_come_to_the_tables_that_the_code_knows(empty: str, engine: Engine) -> None:
    """A new database has the tables, columns and indexes of the rows' classes, and nothing else."""
    bring_up(empty)
    with engine.connect() as connection:
        tables = {"ledger_version", "proxy_version"}
        context = MigrationContext.configure(
            connection, opts={"include_object": lambda _, name, kind, *rest: kind != "table" or name not in tables}
        )
        assert compare_metadata(context, SQLModel.metadata) == []


def test_each_history_has_a_file_for_every_revision() -> None:
    """Revisions are numbered without gaps."""
    for history in HISTORIES:
        numbers = sorted(file.name[1:5] for file in (history.folder / "versions").glob("r*.py"))
        assert numbers == [f"{number:04}" for number in range(1, len(numbers) + 1)]
        assert history.head == numbers[-1]


@pytest.mark.parametrize("revision", RELEASED)
def test_what_a_release_has_left_is_brought_up_to_date(empty: str, engine: Engine, revision: str) -> None:
    """Every row of an older release is there afterwards, the ledger is lawful, and opening again changes nothing."""
    with begun(engine) as connection:
        load(connection, revision)
        before = rows(connection)
    for _ in range(2):
        bring_up(empty)
        with engine.connect() as connection:
            after = rows(connection)
            assert {table: after[table] for table in before} == before
    assert audit(empty).clean


def rows(connection: Connection) -> dict[str, int]:
    return {
        table: connection.exec_driver_sql(f"SELECT COUNT(*) FROM {table}").scalar_one()
        for table in inspect(connection).get_table_names()
        if table != "ledger_lease"
    }


@pytest.mark.parametrize("history", HISTORIES, ids=["ledger", "proxy"])
def test_a_database_of_a_newer_release_is_refused(empty: str, engine: Engine, history: History) -> None:
    """It is said which version it has and which is known here; nothing is changed."""
    bring_up(empty)
    with begun(engine) as connection:
        connection.exec_driver_sql(f"UPDATE {history.table} SET version_num = '9000'")
    for _ in range(2):
        with pytest.raises(LedgerUnavailable, match=f"newer release: {history.table} is 9000, .* {history.head};"):
            bring_up(empty)


def test_a_revision_that_fails_leaves_nothing(empty: str, engine: Engine, tmp_path: Path) -> None:
    """Half of a revision is never there: the tables and the version are as they were."""
    (versions := tmp_path / "versions").mkdir()
    head = "from alembic import op\nimport sqlalchemy as sa\n"
    first = "op.create_table('one', sa.Column('a', sa.Integer))"
    (versions / "r0001_a.py").write_text(f"{head}revision, down_revision = '0001', None\ndef upgrade(): {first}\n")
    second = "op.create_table('two', sa.Column('a', sa.Integer)); op.execute('INSERT INTO nowhere VALUES (1)')"
    (versions / "r0002_b.py").write_text(f"{head}revision, down_revision = '0002', '0001'\ndef upgrade(): {second}\n")
    history = History(tmp_path, "odd_version")
    with begun(engine) as connection:
        migrate(connection, history, to="0001")
    with pytest.raises(Exception, match="nowhere"), begun(engine) as connection:
        migrate(connection, history)
    with engine.connect() as connection:
        assert set(inspect(connection).get_table_names()) == {"odd_version", "one"}
        assert connection.exec_driver_sql("SELECT version_num FROM odd_version").scalar() == "0001"
