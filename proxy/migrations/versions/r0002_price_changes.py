"""Who changed prices, when, and to what."""

from __future__ import annotations

import json

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    changes = op.create_table(
        "price_change",
        sa.Column("change_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("actor", sa.String(), nullable=False),
        sa.Column("steps", sa.String(), nullable=False),
        sa.Column("words", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("change_id"),
    )
    # Only when a version was first in force was kept so far.
    kept = op.get_bind().execute(
        sa.text("SELECT effective_at, version FROM price_version ORDER BY effective_at, version")
    )
    before = [
        {"change_id": number, "at": at, "actor": "not kept", "steps": json.dumps([[0, version]]), "words": "[]"}
        for number, (at, version) in enumerate(kept, start=1)
    ]
    if before:
        op.bulk_insert(changes, before)
