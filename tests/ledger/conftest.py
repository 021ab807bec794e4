from collections.abc import Iterator
from pathlib import Path

import pytest

from ledger import leases, minding
from ledger.postgres import Postgres
from tests.pooler import bouncer, pooler
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
    from tests.ledger.running import empty  # after pytest has been told to rewrite it

    empty(postgres_url)
    return postgres_url


@pytest.fixture(scope="session")
def pooled_url(postgres_url: str) -> Iterator[str]:
    """The same, behind a pooler in transaction mode."""
    with pooler(postgres_url) as url:
        yield url


@pytest.fixture(scope="session")
def bouncer_url(postgres_url: str) -> Iterator[str]:
    """The same, behind PgBouncer."""
    with bouncer(postgres_url) as url:
        yield url


@pytest.fixture
def path(tmp_path: Path) -> str:
    """Where a test's ledger lies."""
    return str(tmp_path / "ledger.db")


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leases that are renewed, and die, quickly."""
    monkeypatch.setattr(leases, "LEASE_SECONDS", 1)
    monkeypatch.setattr(minding, "RENEW_SECONDS", 0.1)
    monkeypatch.setattr(minding, "LAPSE_SECONDS", 0.6)
