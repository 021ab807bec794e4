"""The ledger's tables. Every key starts with `account_id`; nothing refers across accounts.

Rows only: commands never go through these classes, the paid path writes in sets (`ledger.store`).
"""

from __future__ import annotations

from typing import Any, ClassVar

from sqlalchemy import BigInteger, CheckConstraint, Column, Index, LargeBinary, text
from sqlmodel import Field, SQLModel

__all__ = [
    "HOLD_HAS_ENDED",
    "TABLES",
    "AccountRow",
    "AdjustmentRow",
    "ClaimRow",
    "ClockRow",
    "GrantRow",
    "HoldRow",
    "LeaseRow",
    "LimitRow",
    "ReceiptRow",
    "RefundRow",
    "RunRow",
    "SealRow",
    "TransferRow",
]

# One B-tree a table: rows lie in account order, which is how they are read.
_CLUSTERED: dict[str, Any] = {"sqlite_with_rowid": False}


def _big(*, key: bool = False) -> Any:
    """A BIGINT column; nanocredits of 10⁹ credits do not fit less."""
    return Field(sa_type=BigInteger, primary_key=key, sa_column_kwargs={"autoincrement": False} if key else {})


class AccountRow(SQLModel, table=True):
    """What an account owes and when something is next due; its credits are in its grants.

    overdraft_limit: its own, null for its plan's. periods: JSON {bucket: [the members of `ledger.model.Period`]}.
    limited: 1 where it has, or had, a spend limit.
    """

    __tablename__: ClassVar[Any] = "ledger_account"
    __table_args__ = (
        CheckConstraint("debt >= 0 AND overdraft_held >= 0 AND overdraft_limit >= 0", name="ledger_account_sane"),
        _CLUSTERED,
    )

    account_id: int = _big(key=True)
    status: str
    timezone: str
    debt: int = _big()
    overdraft_limit: int | None = Field(default=None, sa_type=BigInteger)
    overdraft_held: int = _big()
    next_due_at: int = _big()
    created_at: int = _big()
    plan: str | None = None
    next_plan: str | None = None
    next_plan_at: int = _big()
    periods: str | None = None
    clock: int | None = Field(default=None, sa_type=BigInteger)
    seen_at: int = _big()
    limited: int


class GrantRow(SQLModel, table=True):
    """One lot of credits.

    open: 0 while nothing is left of it, so that calls load only lots that matter. lost: what left it without being
    spent: it expired, was voided, or was taken by an adjustment.
    """

    __tablename__: ClassVar[Any] = "ledger_grant"
    __table_args__ = (
        CheckConstraint(
            "0 <= held AND held <= balance AND balance + lost <= granted AND lost >= 0", name="ledger_grant_sane"
        ),
        Index("ledger_grant_open", "account_id", sqlite_where=text("open = 1"), postgresql_where=text("open = 1")),
        Index(
            "ledger_grant_source",
            "account_id",
            "source_key",
            unique=True,
            sqlite_where=text("source_key IS NOT NULL"),
            postgresql_where=text("source_key IS NOT NULL"),
        ),
        _CLUSTERED,
    )

    account_id: int = _big(key=True)
    grant_id: int = _big(key=True)
    bucket: str
    source: str
    paid: int
    granted: int = _big()
    balance: int = _big()
    held: int = _big()
    lost: int = _big()
    open: int
    effective_at: int = _big()
    expires_at: int = _big()
    created_at: int = _big()
    source_key: str | None = None
    note: str | None = None
    voided_at: int | None = Field(default=None, sa_type=BigInteger)


class HoldRow(SQLModel, table=True):
    """An open hold; whoever deletes the row has ended it.

    legs: JSON [[grant id, amount], …], 0 is the overdraft. limits: JSON [[scope, label], …], where it is reserved.
    claim: the digests of its idempotency key and of its body. lease: of the process that placed
    it, where there are many.
    """

    __tablename__: ClassVar[Any] = "ledger_hold"
    __table_args__ = (_CLUSTERED,)

    account_id: int = _big(key=True)
    hold_id: int = _big(key=True)
    amount: int = _big()
    legs: str
    memo: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    created_at: int = _big()
    deadline: int = _big()
    limits: str | None = None
    claim: bytes | None = None
    lease: int | None = Field(default=None, sa_type=BigInteger)


class LeaseRow(SQLModel, table=True):
    """A process that writes to the ledger, in the database's own time; node: its own in ids.

    machine: where `process`, its number and when it began, means something: others there can see whether it lives.
    """

    __tablename__: ClassVar[Any] = "ledger_lease"

    lease_id: int = _big(key=True)
    node: int
    owner: str
    machine: str
    process: str
    renewed_at: int = _big()


class ClaimRow(SQLModel, table=True):
    """What a call's idempotency key has claimed: whoever has the row's key first has the call.

    claim, body: digests of the key and of what was asked. answer: null while the call runs, empty where it is not kept.
    """

    __tablename__: ClassVar[Any] = "ledger_claim"
    __table_args__ = (
        Index(
            "ledger_claim_answered",
            "at",
            sqlite_where=text("answer IS NOT NULL"),
            postgresql_where=text("answer IS NOT NULL"),
        ),
    )

    account_id: int = _big(key=True)
    claim: bytes = Field(primary_key=True)
    body: bytes
    hold_id: int = _big()
    at: int = _big()
    charged: int = _big()
    available: int = _big()
    answer: bytes | None = None


class TransferRow(SQLModel, table=True):
    """One leg of the journal, append-only: from a node to a node, so that debits equal credits by construction."""

    __tablename__: ClassVar[Any] = "ledger_transfer"
    __table_args__ = (
        CheckConstraint("amount > 0", name="ledger_transfer_positive"),
        _CLUSTERED,
    )

    account_id: int = _big(key=True)
    transfer_id: int = _big(key=True)
    kind: str
    source: int = _big()
    target: int = _big()
    amount: int = _big()
    at: int = _big()
    request: int | None = Field(default=None, sa_type=BigInteger)
    note: str | None = None


class ReceiptRow(SQLModel, table=True):
    """How a hold ended, once each. paid_from: JSON [[grant id, bucket, amount], …]; memo: the proxy's, opaque."""

    __tablename__: ClassVar[Any] = "ledger_receipt"
    __table_args__ = (
        CheckConstraint("charged >= 0 AND debt >= 0 AND debt <= charged", name="ledger_receipt_sane"),
        Index(
            "ledger_receipt_orphan",
            "hold_id",
            "account_id",
            sqlite_where=text("status = 'orphaned'"),
            postgresql_where=text("status = 'orphaned'"),
        ),
    )

    account_id: int = _big(key=True)
    hold_id: int = _big(key=True)
    status: str
    charged: int = _big()
    debt: int = _big()
    paid_from: str
    memo: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    created_at: int = _big()
    ended_at: int = _big()
    late: int
    limits: str | None = None


class LimitRow(SQLModel, table=True):
    """What may be spent in one scope, such as a key's, and what was in the period of that label."""

    __tablename__: ClassVar[Any] = "ledger_limit"
    __table_args__ = (
        CheckConstraint("amount >= 0 AND spent >= 0 AND reserved >= 0", name="ledger_limit_sane"),
        _CLUSTERED,
    )

    account_id: int = _big(key=True)
    scope: str = Field(primary_key=True)
    amount: int = _big()
    per: str
    label: int = _big()
    ends_at: int = _big()
    spent: int = _big()
    reserved: int = _big()


class RunRow(SQLModel, table=True):
    """What a run's calls of one operation have come to, where its bounds are for all of them together."""

    __tablename__: ClassVar[Any] = "ledger_run"
    __table_args__ = (CheckConstraint("raw >= 0 AND charged >= 0", name="ledger_run_sane"), _CLUSTERED)

    account_id: int = _big(key=True)
    run: str = Field(primary_key=True)
    operation: str = Field(primary_key=True)
    raw: int = _big()
    charged: int = _big()


class ClockRow(SQLModel, table=True):
    """A test clock: the time of the accounts that are bound to it."""

    __tablename__: ClassVar[Any] = "ledger_clock"

    clock_id: int = _big(key=True)
    now: int = _big()


class RefundRow(SQLModel, table=True):
    """What was given back of a charge, append-only. paid_to: JSON [[grant id, bucket, amount], …]."""

    __tablename__: ClassVar[Any] = "ledger_refund"
    __table_args__ = (
        CheckConstraint("amount > 0 AND 0 <= debt_reduced AND debt_reduced <= amount", name="ledger_refund_sane"),
        Index("ledger_refund_call", "account_id", "hold_id"),
        _CLUSTERED,
    )

    account_id: int = _big(key=True)
    refund_id: int = _big(key=True)
    hold_id: int = _big()
    amount: int = _big()
    debt_reduced: int = _big()
    paid_to: str
    reason: str
    created_at: int = _big()


class AdjustmentRow(SQLModel, table=True):
    """A correction, append-only; amount is signed. taken: JSON [[grant id, bucket, amount], …].

    granted: 1 where a grant of its id was made of what reduced no debt.
    """

    __tablename__: ClassVar[Any] = "ledger_adjustment"
    __table_args__ = (
        CheckConstraint("amount <> 0 AND debt_reduced >= 0 AND debt_added >= 0", name="ledger_adjustment_sane"),
        _CLUSTERED,
    )

    account_id: int = _big(key=True)
    adjustment_id: int = _big(key=True)
    amount: int = _big()
    reason: str
    created_at: int = _big()
    debt_reduced: int = _big()
    granted: int
    taken: str
    debt_added: int = _big()


class SealRow(SQLModel, table=True):
    """A range of an account's journal that is closed: transfers up to to_id, from where the seal before it ends.

    first_hold to last_at: the receipts' least and greatest ids and times, 0 where there is none. digest: SHA-256 over
    the digest before and every row. state: JSON [[node, amount, lost], …] at its end. leaves: the first 8 bytes of each
    row's own digest, so that a changed row can be named. packed: the rows, once they are in no tables any more.
    """

    __tablename__: ClassVar[Any] = "ledger_seal"
    __table_args__ = (CheckConstraint("number > 0 AND transfers >= 0 AND receipts >= 0", name="ledger_seal_sane"),)

    account_id: int = _big(key=True)
    to_id: int = _big(key=True)
    number: int = _big()
    first_hold: int = _big()
    last_hold: int = _big()
    first_at: int = _big()
    last_at: int = _big()
    transfers: int = _big()
    receipts: int = _big()
    sealed_at: int = _big()
    digest: bytes
    state: str
    leaves: bytes
    packed: bytes | None = None


HOLD_HAS_ENDED = "this hold has ended"

_ROWS: tuple[type[SQLModel], ...] = (
    AccountRow,
    GrantRow,
    HoldRow,
    TransferRow,
    ReceiptRow,
    RefundRow,
    LimitRow,
    RunRow,
    ClockRow,
    ClaimRow,
    AdjustmentRow,
    LeaseRow,
    SealRow,
)
TABLES = [SQLModel.metadata.tables[str(row.__tablename__)] for row in _ROWS]
