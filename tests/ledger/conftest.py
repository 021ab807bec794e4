from collections.abc import Iterator
from pathlib import Path

import pytest

from ledger.postgres import Postgres
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


@pytest.fixture
def path(tmp_path: Path) -> str:
    """Where a test's ledger lies."""
    return str(tmp_path / "ledger.db")
