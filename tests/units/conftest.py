"""What several of these tests need once."""

from __future__ import annotations

import pytest

from proxy.counting import TokenCounter


@pytest.fixture(scope="session")
def counter() -> TokenCounter:
    """The tokenizer, loaded once."""
    return TokenCounter()
