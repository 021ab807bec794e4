"""Plays every text scenario on the pure engine and on SQLite."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.ledger.books import EngineLedger, PostgresLedger, SqliteLedger
from tests.ledger.scenario import Scenario, play, read_scenarios

_FILES = sorted((Path(__file__).parent / "scenarios").glob("*.txt"))
_SCENARIOS = [scenario for path in _FILES for scenario in read_scenarios(path)]


@pytest.mark.parametrize("scenario", _SCENARIOS, ids=lambda scenario: scenario.name)
def test_the_engine_plays(scenario: Scenario) -> None:
    """The pure engine does what the scenario says, step by step, and no step breaks an invariant."""
    play(scenario, EngineLedger())


@pytest.mark.parametrize("scenario", _SCENARIOS, ids=lambda scenario: scenario.name)
def test_the_sqlite_store_plays(scenario: Scenario, tmp_path: Path) -> None:
    """The SQLite store does what the scenario says, step by step, and no step breaks an invariant."""
    book = SqliteLedger(str(tmp_path / "ledger.db"))
    try:
        play(scenario, book)
    finally:
        book.close()


@pytest.mark.parametrize("scenario", _SCENARIOS, ids=lambda scenario: scenario.name)
def test_the_postgres_store_plays(scenario: Scenario, postgres_url: str) -> None:
    """The PostgreSQL store does what the scenario says, step by step, and no step breaks an invariant."""
    book = PostgresLedger(postgres_url)
    try:
        play(scenario, book)
    finally:
        book.close()
