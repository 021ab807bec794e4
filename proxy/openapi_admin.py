"""What operators send and get, as JSON Schema."""

from __future__ import annotations

from proxy.openapi_schemas import (
    AMOUNT,
    FLAG,
    TEXT,
    TIME,
    Schema,
    answered,
    id_of,
    list_of,
    map_of,
    one_of,
    or_null,
    ref,
    said,
    sent,
)

__all__ = ["admin_schemas"]


def admin_schemas() -> dict[str, Schema]:
    """List the schemas of administration, by name."""
    return {**_administration(), **_commands()}


def _administration() -> dict[str, Schema]:
    limit = answered(None, "What a key may spend.", credits=AMOUNT, per=one_of("day", "month", "ever"))
    key = {
        "id": id_of("key"),
        "account": id_of("acct"),
        "name": or_null(TEXT),
        "app": or_null(TEXT),
        "operations": {"anyOf": [list_of(TEXT), {"type": "null"}]},
        "limit": {"anyOf": [limit, {"type": "null"}]},
        "prefix": TEXT,
        "status": one_of("active", "revoked"),
        "created_at": TIME,
        "revoked_at": or_null(TIME),
    }
    secret: Schema = {"type": "string", "pattern": "^fbx_[A-Za-z0-9]{32,}$", "description": "Shown this once."}
    return {
        "Account": answered(
            "account",
            "Whoever has credits.",
            id=id_of("acct"),
            name=TEXT,
            email=or_null(TEXT),
            external_id=or_null(TEXT),
            kind=one_of("user", "team"),
            plan=or_null(TEXT),
            timezone=TEXT,
            overdraft_limit=AMOUNT,
            status=one_of("active", "suspended", "closed"),
            created_at=TIME,
        ),
        "Key": answered("key", "A key, without its secret.", **key),
        "NewKey": answered("key", "A key with its secret.", **key, key=secret),
        "Refund": answered(
            "credits.refund",
            "What of a charge was given back.",
            id=TEXT,
            request=id_of("req"),
            credits=AMOUNT,
            to=list_of(ref("PaidFrom")),
            debt_reduced=AMOUNT,
            reason=TEXT,
            created_at=TIME,
        ),
        "Adjustment": answered(
            "credits.adjustment",
            "What a correction did: up, it reduced debt and made a grant; down, it took from grants and added debt.",
            account=id_of("acct"),
            credits=AMOUNT,
            debt_reduced=AMOUNT,
            debt_added=AMOUNT,
            grant=or_null(ref("Grant")),
            taken=list_of(ref("PaidFrom")),
            reason=TEXT,
        ),
        "VoidedGrant": {
            "description": "A grant of which only what was held is left.",
            "allOf": [ref("Grant"), answered(None, "What went.", voided=AMOUNT, voided_at=TIME)],
        },
        "Orphan": answered(
            "orphan",
            "A call whose process died; what it held was released.",
            id=id_of("req"),
            account=id_of("acct"),
            status=TEXT,
            created_at=TIME,
            released_at=or_null(TIME),
        ),
        "Action": answered(
            "action",
            "An admin command that was carried out; details: what was asked.",
            id=id_of("act"),
            at=TIME,
            actor=TEXT,
            command=TEXT,
            account=or_null(id_of("acct")),
            target=or_null(TEXT),
            reason=or_null(TEXT),
            details={"type": "object"},
        ),
        "Prices": answered(
            "prices",
            "The price table in force; last_error: why the file as it is now is not.",
            version=TEXT,
            effective_at=or_null(TIME),
            last_error=or_null(TEXT),
            models=map_of(ref("PriceList")),
            operations=map_of({"type": "object"}),
            surcharges=map_of(TEXT),
        ),
        "Audit": answered(
            "audit",
            "Whether the books add up, and what does not.",
            clean=FLAG,
            findings=list_of(answered(None, "A broken invariant.", invariant=TEXT, rows=list_of({"type": "object"}))),
            totals=map_of(AMOUNT),
            checked=list_of(TEXT),
        ),
    }


def _commands() -> dict[str, Schema]:
    reason: Schema = {**said(2000), "description": "Why; kept in the journal of actions."}
    amount, zone = ref("AmountSent"), {**said(), "examples": ["Europe/Rome"]}
    limit = sent("", ("credits", "per"), credits=amount, per=one_of("day", "month", "ever"))
    account: dict[str, Schema] = {
        "name": said(),
        "email": said(),
        "external_id": said(),
        "plan": said(),
    }
    return {
        "AccountCreate": sent(
            "An account to be made.",
            ("name",),
            **account,
            timezone=zone,
            overdraft_limit=amount,
            kind=one_of("user", "team"),
            reason=reason,
        ),
        "AccountChange": sent(
            "What is to change of an account.",
            **account,
            timezone=zone,
            overdraft_limit=amount,
            status=one_of("active", "suspended", "closed"),
            reason=reason,
        ),
        "KeyCreate": sent(
            "A key to be made.",
            name=said(),
            app=said(),
            operations={**list_of(TEXT), "minItems": 1, "maxItems": 100},
            limit=limit,
            reason=reason,
        ),
        "GrantCreate": sent(
            "Credits to be granted.",
            ("bucket", "credits"),
            bucket=said(),
            credits=amount,
            source=one_of("admin", "campaign", "reward", "compensation"),
            expires_at=TIME,
            note=said(500),
            reason=reason,
        ),
        "VoidCreate": sent("Why what is left of a grant goes.", ("reason",), reason=reason),
        "RefundCreate": sent(
            "What is to be refunded of a call, all that is left where credits is absent.",
            ("reason",),
            credits=amount,
            reason=reason,
            as_=one_of("original", "bonus"),
            fault=one_of("operator"),
        ),
        "AdjustCreate": sent(
            "A correction, up or down.",
            ("credits", "reason"),
            credits=ref("SignedAmountSent"),
            bucket=said(),
            reason=reason,
        ),
    }
