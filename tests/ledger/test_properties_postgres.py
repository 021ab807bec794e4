"""The random lives of `test_properties`, on PostgreSQL as well: all three come to the same."""

from __future__ import annotations

import os

import pytest
from hypothesis import settings

from tests.ledger.books import PostgresLedger
from tests.ledger.test_properties import RandomLife, in_no_order

_SOAKING = os.environ.get("FAREBOX_SOAK") == "1"


class LifeInPostgres(RandomLife):
    """Batches that SQLite has taken go to PostgreSQL too."""

    url: str

    def __init__(self) -> None:
        super().__init__()
        self.postgres = PostgresLedger(self.url)

    def commit(self) -> None:
        batch, answers = self.batch, self.answers
        super().commit()
        if batch:
            assert self.postgres.store.transact(batch, self.config, self.model.now) == answers
            assert in_no_order(self.postgres.page()) == in_no_order(self.sqlite.page())

    def teardown(self) -> None:
        try:
            super().teardown()
        finally:
            self.postgres.close()


@pytest.fixture(scope="module", autouse=True)
def _server(postgres_url: str) -> None:
    LifeInPostgres.url = postgres_url


TestLifeInPostgres = LifeInPostgres.TestCase
TestLifeInPostgres.settings = settings(
    max_examples=100 if _SOAKING else 20,
    stateful_step_count=50,
    deadline=None,
    derandomize=not _SOAKING,
    database=None,
)
