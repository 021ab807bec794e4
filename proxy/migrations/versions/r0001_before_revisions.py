"""The people, the directory, the operators' journal and its commands, as they were when revisions began."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from ledger.migrating import create_missing

revision = "0001"
down_revision = None


def upgrade() -> None:
    create_missing(op.get_bind(), _tables())


def _big(name: str, *, null: bool = False) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger(), autoincrement=False, nullable=null)


def _small(name: str, *, null: bool = False) -> sa.Column[int]:
    return sa.Column(name, sa.Integer(), nullable=null)


def _text(name: str, *, null: bool = False) -> sa.Column[str]:
    return sa.Column(name, sa.String(), nullable=null)


def _bytes(name: str, *, null: bool = False) -> sa.Column[bytes]:
    return sa.Column(name, sa.LargeBinary(), nullable=null)


def _tables() -> sa.MetaData:
    metadata = sa.MetaData()
    sa.Table(
        "action",
        metadata,
        _big("action_id"),
        _big("at"),
        _text("actor"),
        _text("command"),
        _text("object", null=True),
        _big("account_id", null=True),
        _text("reason", null=True),
        _text("details"),
        sa.PrimaryKeyConstraint("action_id"),
    )
    sa.Table(
        "command",
        metadata,
        _bytes("key"),
        _bytes("body"),
        _big("own_id"),
        _big("at"),
        _small("status", null=True),
        _bytes("answer", null=True),
        sa.PrimaryKeyConstraint("key"),
    )
    sa.Table(
        "directory_external_id",
        metadata,
        _text("external_id"),
        _big("account_id"),
        sa.PrimaryKeyConstraint("external_id"),
    )
    sa.Table(
        "directory_key",
        metadata,
        _bytes("digest"),
        _big("account_id"),
        _big("key_id"),
        sa.PrimaryKeyConstraint("digest"),
    )
    sa.Table(
        "people_account",
        metadata,
        _big("account_id"),
        _text("name"),
        _text("email", null=True),
        _text("external_id", null=True),
        _text("kind"),
        _big("created_at"),
        _small("barred", null=True),
        sa.PrimaryKeyConstraint("account_id"),
    )
    sa.Table(
        "people_key",
        metadata,
        _big("account_id"),
        _big("key_id"),
        _text("name", null=True),
        _text("app", null=True),
        _text("operations", null=True),
        _text("operation", null=True),
        _text("prefix"),
        _bytes("digest"),
        _big("created_at"),
        _big("revoked_at", null=True),
        _big("pays", null=True),
        _small("platform", null=True),
        sa.PrimaryKeyConstraint("account_id", "key_id"),
    )
    sa.Table(
        "people_member",
        metadata,
        _big("account_id"),
        _big("member_id"),
        _big("created_at"),
        sa.PrimaryKeyConstraint("account_id", "member_id"),
    )
    sa.Table("people_setting", metadata, _text("name"), _bytes("value"), sa.PrimaryKeyConstraint("name"))
    sa.Table(
        "price_version",
        metadata,
        _text("version"),
        _text("content"),
        _big("effective_at"),
        sa.PrimaryKeyConstraint("version"),
    )
    sa.Index("ix_action_account_id", metadata.tables["action"].c.account_id)
    sa.Index("ix_command_at", metadata.tables["command"].c.at)
    return metadata
