from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from ledger.postgres import Postgres
from ledger.tables import TABLES
from tests.postgres import postgres_server

pytest.register_assert_rewrite(
    "tests.ledger.books", "tests.ledger.running", "tests.ledger.scenario", "tests.ledger.words"
)


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """A PostgreSQL server with the ledger's tables in it."""
    with postgres_server() as url:
        backend = Postgres(url)
        backend.create()
        backend.close()
        yield url


@pytest.fixture(scope="module")
def empty_postgres_url(postgres_url: str) -> str:
    """The same, with nothing in those tables when the module's tests begin."""
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(("TRUNCATE " + ", ".join(table.name for table in TABLES)).encode())
    return postgres_url


@pytest.fixture
def path(tmp_path: Path) -> str:
    """Where a test's ledger lies."""
    return str(tmp_path / "ledger.db")
