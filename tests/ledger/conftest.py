from pathlib import Path

import pytest

pytest.register_assert_rewrite(
    "tests.ledger.books", "tests.ledger.running", "tests.ledger.scenario", "tests.ledger.words"
)


@pytest.fixture
def path(tmp_path: Path) -> str:
    """Where a test's ledger lies."""
    return str(tmp_path / "ledger.db")
