"""The ledger's tables and what guards them, as they were when revisions began."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

from ledger.migrating import create_missing

revision = "0001"
down_revision = None

# The journal and the records of ended holds and refunds can only be added to; an orphan's alone may be settled late.
_APPEND_ONLY = (
    ("ledger_transfer", "UPDATE", ""),
    ("ledger_transfer", "DELETE", ""),
    ("ledger_receipt", "UPDATE", "OLD.status <> 'orphaned'"),
    ("ledger_receipt", "DELETE", ""),
    ("ledger_refund", "UPDATE", ""),
    ("ledger_refund", "DELETE", ""),
    ("ledger_adjustment", "UPDATE", ""),
    ("ledger_adjustment", "DELETE", ""),
)
_HAS_ENDED = "SELECT 1 FROM ledger_receipt WHERE account_id = NEW.account_id AND hold_id = NEW.hold_id"

_SQLITE = [
    f"""CREATE TRIGGER IF NOT EXISTS {table}_no_{verb.lower()} BEFORE {verb} ON {table}
    {condition and "WHEN " + condition} BEGIN SELECT RAISE(ABORT, '{table} is append-only'); END"""
    for table, verb, condition in _APPEND_ONLY
] + [
    # A request id is charged at most once, so the hold of one that has ended can't be placed again.
    f"""CREATE TRIGGER IF NOT EXISTS ledger_hold_once BEFORE INSERT ON ledger_hold WHEN EXISTS ({_HAS_ENDED})
    BEGIN SELECT RAISE(ABORT, 'this hold has ended'); END"""
]

# Reads a memo; null where it is no JSON. A zero can stand in JSON but in no text, so it is read as U+FFFD; the pattern
# leaves alone what is an escaped backslash before "u0000".
_LEDGER_JSON = r"""CREATE OR REPLACE FUNCTION ledger_json(memo bytea) RETURNS jsonb LANGUAGE plpgsql IMMUTABLE STRICT AS
    $$ BEGIN
        RETURN convert_from(memo, 'UTF8')::jsonb;
    EXCEPTION WHEN data_exception OR program_limit_exceeded THEN
        BEGIN
            RETURN regexp_replace(convert_from(memo, 'UTF8'), '(?<!\\)((?:\\\\)*)\\u0000', '\1\\ufffd', 'g')::jsonb;
        EXCEPTION WHEN data_exception OR program_limit_exceeded THEN
            RETURN NULL;
        END;
    END $$"""

_POSTGRES = [
    _LEDGER_JSON,
    """CREATE OR REPLACE FUNCTION ledger_append_only() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN RAISE EXCEPTION '% is append-only', TG_TABLE_NAME; END $$""",
    f"""CREATE OR REPLACE FUNCTION ledger_hold_once() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN IF EXISTS ({_HAS_ENDED}) THEN RAISE EXCEPTION 'this hold has ended'; END IF; RETURN NEW; END $$""",
    *(
        f"""CREATE OR REPLACE TRIGGER {table}_no_{verb.lower()} BEFORE {verb} ON {table} FOR EACH ROW
        {condition and "WHEN (" + condition + ")"} EXECUTE FUNCTION ledger_append_only()"""
        for table, verb, condition in _APPEND_ONLY
    ),
    "CREATE OR REPLACE TRIGGER ledger_hold_once BEFORE INSERT ON ledger_hold FOR EACH ROW"
    " EXECUTE FUNCTION ledger_hold_once()",
]


def upgrade() -> None:
    create_missing(op.get_bind(), _tables())
    for statement in _SQLITE if op.get_bind().dialect.name == "sqlite" else _POSTGRES:
        op.execute(statement)


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
        "ledger_account",
        metadata,
        _big("account_id"),
        _text("status"),
        _text("timezone"),
        _big("debt"),
        _big("overdraft_limit", null=True),
        _big("overdraft_held"),
        _big("next_due_at"),
        _big("created_at"),
        _text("plan", null=True),
        _text("next_plan", null=True),
        _big("next_plan_at"),
        _text("periods", null=True),
        _big("clock", null=True),
        _big("seen_at"),
        _small("limited"),
        sa.CheckConstraint("debt >= 0 AND overdraft_held >= 0 AND overdraft_limit >= 0", name="ledger_account_sane"),
        sa.PrimaryKeyConstraint("account_id"),
        sqlite_with_rowid=False,
    )
    sa.Table(
        "ledger_adjustment",
        metadata,
        _big("account_id"),
        _big("adjustment_id"),
        _big("amount"),
        _text("reason"),
        _big("created_at"),
        _big("debt_reduced"),
        _small("granted"),
        _text("taken"),
        _big("debt_added"),
        sa.CheckConstraint("amount <> 0 AND debt_reduced >= 0 AND debt_added >= 0", name="ledger_adjustment_sane"),
        sa.PrimaryKeyConstraint("account_id", "adjustment_id"),
        sqlite_with_rowid=False,
    )
    sa.Table(
        "ledger_claim",
        metadata,
        _big("account_id"),
        _bytes("claim"),
        _bytes("body"),
        _big("hold_id"),
        _big("at"),
        _big("charged"),
        _big("available"),
        _bytes("answer", null=True),
        sa.PrimaryKeyConstraint("account_id", "claim"),
    )
    sa.Table("ledger_clock", metadata, _big("clock_id"), _big("now"), sa.PrimaryKeyConstraint("clock_id"))
    sa.Table(
        "ledger_grant",
        metadata,
        _big("account_id"),
        _big("grant_id"),
        _text("bucket"),
        _text("source"),
        _small("paid"),
        _big("granted"),
        _big("balance"),
        _big("held"),
        _big("lost"),
        _small("open"),
        _big("effective_at"),
        _big("expires_at"),
        _big("created_at"),
        _text("source_key", null=True),
        _text("note", null=True),
        _big("voided_at", null=True),
        sa.CheckConstraint(
            "0 <= held AND held <= balance AND balance + lost <= granted AND lost >= 0", name="ledger_grant_sane"
        ),
        sa.PrimaryKeyConstraint("account_id", "grant_id"),
        sqlite_with_rowid=False,
    )
    sa.Table(
        "ledger_hold",
        metadata,
        _big("account_id"),
        _big("hold_id"),
        _big("amount"),
        _text("legs"),
        _bytes("memo"),
        _big("created_at"),
        _big("deadline"),
        _text("limits", null=True),
        _bytes("claim", null=True),
        _big("lease", null=True),
        sa.PrimaryKeyConstraint("account_id", "hold_id"),
        sqlite_with_rowid=False,
    )
    sa.Table(
        "ledger_lease",
        metadata,
        _big("lease_id"),
        _small("node"),
        _text("owner"),
        _text("machine"),
        _text("process"),
        _big("renewed_at"),
        sa.PrimaryKeyConstraint("lease_id"),
    )
    sa.Table(
        "ledger_limit",
        metadata,
        _big("account_id"),
        _text("scope"),
        _big("amount"),
        _text("per"),
        _big("label"),
        _big("ends_at"),
        _big("spent"),
        _big("reserved"),
        sa.CheckConstraint("amount >= 0 AND spent >= 0 AND reserved >= 0", name="ledger_limit_sane"),
        sa.PrimaryKeyConstraint("account_id", "scope"),
        sqlite_with_rowid=False,
    )
    sa.Table(
        "ledger_receipt",
        metadata,
        _big("account_id"),
        _big("hold_id"),
        _text("status"),
        _big("charged"),
        _big("debt"),
        _text("paid_from"),
        _bytes("memo"),
        _big("created_at"),
        _big("ended_at"),
        _small("late"),
        _text("limits", null=True),
        sa.CheckConstraint("charged >= 0 AND debt >= 0 AND debt <= charged", name="ledger_receipt_sane"),
        sa.PrimaryKeyConstraint("account_id", "hold_id"),
    )
    sa.Table(
        "ledger_refund",
        metadata,
        _big("account_id"),
        _big("refund_id"),
        _big("hold_id"),
        _big("amount"),
        _big("debt_reduced"),
        _text("paid_to"),
        _text("reason"),
        _big("created_at"),
        sa.CheckConstraint("amount > 0 AND 0 <= debt_reduced AND debt_reduced <= amount", name="ledger_refund_sane"),
        sa.PrimaryKeyConstraint("account_id", "refund_id"),
        sqlite_with_rowid=False,
    )
    sa.Table(
        "ledger_run",
        metadata,
        _big("account_id"),
        _text("run"),
        _text("operation"),
        _big("raw"),
        _big("charged"),
        sa.CheckConstraint("raw >= 0 AND charged >= 0", name="ledger_run_sane"),
        sa.PrimaryKeyConstraint("account_id", "run", "operation"),
        sqlite_with_rowid=False,
    )
    sa.Table(
        "ledger_transfer",
        metadata,
        _big("account_id"),
        _big("transfer_id"),
        _text("kind"),
        _big("source"),
        _big("target"),
        _big("amount"),
        _big("at"),
        _big("request", null=True),
        _text("note", null=True),
        sa.CheckConstraint("amount > 0", name="ledger_transfer_positive"),
        sa.PrimaryKeyConstraint("account_id", "transfer_id"),
        sqlite_with_rowid=False,
    )
    _where("answer IS NOT NULL", "ledger_claim_answered", metadata.tables["ledger_claim"].c.at)
    grant, receipt, refund = (metadata.tables[f"ledger_{name}"].c for name in ("grant", "receipt", "refund"))
    _where("open = 1", "ledger_grant_open", grant.account_id)
    _where("source_key IS NOT NULL", "ledger_grant_source", grant.account_id, grant.source_key, unique=True)
    _where("status = 'orphaned'", "ledger_receipt_orphan", receipt.hold_id, receipt.account_id)
    sa.Index("ledger_refund_call", refund.account_id, refund.hold_id)
    return metadata


def _where(condition: str, name: str, *columns: sa.Column[Any], unique: bool = False) -> None:
    where = sa.text(condition)
    sa.Index(name, *columns, unique=unique, sqlite_where=where, postgresql_where=where)
