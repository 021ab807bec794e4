"""How PostgreSQL is connected to, by whoever does."""

from __future__ import annotations

from typing import Any, Final

__all__ = ["CONNECTING"]

CONNECTING: Final[dict[str, Any]] = {
    # A pooler may hand the connection to somebody else after each transaction: nothing is prepared by name.
    "prepare_threshold": None,
    "connect_timeout": 5,
    # A host that is gone does not say so; else whoever waits for it would wait for a quarter of an hour, or for ever.
    "keepalives_idle": 3,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
}
"""For `psycopg.connect`; seconds, and of the last milliseconds."""
