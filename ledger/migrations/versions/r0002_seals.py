"""Seals: ranges of the journal that can be shown to be as they were, and packed away."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

# Rows may go when their range has been packed, and with it all before; what a receipt of an orphan says is in no range.
_PACKED = "SELECT 1 FROM ledger_seal WHERE account_id = OLD.account_id AND packed IS NOT NULL AND to_id >= OLD."
_PACKED_TRANSFER, _PACKED_RECEIPT = f"{_PACKED}transfer_id", f"{_PACKED}hold_id"
_NUMBERS = ("account_id", "number", "to_id", "first_hold", "last_hold", "first_at", "last_at")
_COUNTS = ("transfers", "receipts", "sealed_at")
_SAME = " AND ".join(f"NEW.{name} = OLD.{name}" for name in (*_NUMBERS, *_COUNTS, "digest", "state", "leaves"))
_PACKS_ONCE = f"OLD.packed IS NULL AND {_SAME}"

# A hold of a time that is sealed would be one that nobody waited for.
_HAS_ENDED = (
    "EXISTS (SELECT 1 FROM ledger_receipt WHERE account_id = NEW.account_id AND hold_id = NEW.hold_id)"
    " OR NEW.hold_id <= COALESCE((SELECT MAX(to_id) FROM ledger_seal WHERE account_id = NEW.account_id), 0)"
)

_SQLITE = [
    "DROP TRIGGER ledger_hold_once",
    f"""CREATE TRIGGER ledger_hold_once BEFORE INSERT ON ledger_hold WHEN {_HAS_ENDED}
    BEGIN SELECT RAISE(ABORT, 'this hold has ended'); END""",
    "DROP TRIGGER ledger_transfer_no_delete",
    "DROP TRIGGER ledger_receipt_no_delete",
    f"""CREATE TRIGGER ledger_transfer_no_delete BEFORE DELETE ON ledger_transfer WHEN NOT EXISTS ({_PACKED_TRANSFER})
    BEGIN SELECT RAISE(ABORT, 'ledger_transfer is append-only'); END""",
    f"""CREATE TRIGGER ledger_receipt_no_delete BEFORE DELETE ON ledger_receipt
    WHEN OLD.status = 'orphaned' OR NOT EXISTS ({_PACKED_RECEIPT})
    BEGIN SELECT RAISE(ABORT, 'ledger_receipt is append-only'); END""",
    f"""CREATE TRIGGER ledger_seal_no_update BEFORE UPDATE ON ledger_seal WHEN NOT ({_PACKS_ONCE})
    BEGIN SELECT RAISE(ABORT, 'ledger_seal is append-only'); END""",
    """CREATE TRIGGER ledger_seal_no_delete BEFORE DELETE ON ledger_seal
    BEGIN SELECT RAISE(ABORT, 'ledger_seal is append-only'); END""",
]

_FUNCTION = """CREATE OR REPLACE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN
        IF {refused} THEN RAISE EXCEPTION '% is append-only', TG_TABLE_NAME; END IF;
        RETURN OLD;
    END $$"""
_POSTGRES = [
    f"""CREATE OR REPLACE FUNCTION ledger_hold_once() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN IF {_HAS_ENDED} THEN RAISE EXCEPTION 'this hold has ended'; END IF; RETURN NEW; END $$""",
    _FUNCTION.format(name="ledger_transfer_packed", refused=f"NOT EXISTS ({_PACKED_TRANSFER})"),
    _FUNCTION.format(
        name="ledger_receipt_packed", refused=f"OLD.status = 'orphaned' OR NOT EXISTS ({_PACKED_RECEIPT})"
    ),
    *(
        f"CREATE OR REPLACE TRIGGER ledger_{table}_no_delete BEFORE DELETE ON ledger_{table} FOR EACH ROW"
        f" EXECUTE FUNCTION ledger_{table}_packed()"
        for table in ("transfer", "receipt")
    ),
    "CREATE TRIGGER ledger_seal_no_update BEFORE UPDATE ON ledger_seal FOR EACH ROW"
    f" WHEN (NOT ({_PACKS_ONCE})) EXECUTE FUNCTION ledger_append_only()",
    "CREATE TRIGGER ledger_seal_no_delete BEFORE DELETE ON ledger_seal FOR EACH ROW"
    " EXECUTE FUNCTION ledger_append_only()",
]


def upgrade() -> None:
    op.create_table(
        "ledger_seal",
        *(sa.Column(name, sa.BigInteger(), autoincrement=False, nullable=False) for name in (*_NUMBERS, *_COUNTS)),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("leaves", sa.LargeBinary(), nullable=False),
        sa.Column("packed", sa.LargeBinary()),
        sa.PrimaryKeyConstraint("account_id", "to_id"),
        sa.CheckConstraint("number > 0 AND transfers >= 0 AND receipts >= 0", name="ledger_seal_sane"),
    )
    for statement in _SQLITE if op.get_bind().dialect.name == "sqlite" else _POSTGRES:
        op.execute(statement)
