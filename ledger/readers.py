"""The reading side of a pool's connection."""

from __future__ import annotations

import sqlite3

from sqlalchemy import Connection

from ledger.backend import Reader
from ledger.sqlite import SqliteReader

__all__ = ["reader_of"]


def reader_of(connection: Connection) -> Reader:
    """Read by a connection of SQLAlchemy's, in its transaction."""
    raw = connection.connection.dbapi_connection
    if isinstance(raw, sqlite3.Connection):
        return SqliteReader(raw)
    import psycopg

    from ledger.postgres import PostgresReader

    assert isinstance(raw, psycopg.Connection)
    return PostgresReader(raw.cursor)
