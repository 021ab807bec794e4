"""What operators send and get, as JSON Schema."""

from __future__ import annotations

from proxy.openapi_schemas import (
    AMOUNT,
    COUNT,
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


_TABLE: dict[str, Schema] = {
    "models": map_of(ref("PriceList")),
    "operations": map_of({"type": "object"}),
    "surcharges": map_of(ref("MeterPrice")),
}


def admin_schemas() -> dict[str, Schema]:
    """List the schemas of administration, by name."""
    return {**_administration(), **_commands()}


def _simulation() -> Schema:
    sums = {
        "calls": COUNT,
        "before": AMOUNT,
        "after": AMOUNT,
        "change": AMOUNT,
        "cost_usd": AMOUNT,
        "calls_without_cost": COUNT,
        "margin_before_usd": or_null(AMOUNT),
        "margin_after_usd": or_null(AMOUNT),
    }
    by = {
        f"by_{name}": list_of(answered(None, f"Calls of one {name}.", **{name: or_null(TEXT)}, **sums))
        for name in ("model", "app", "operation", "day")
    }
    dry = answered(None, "When credits ran out, and how many were missing in all.", account=TEXT, at=TIME, short=AMOUNT)
    return answered(
        "prices.simulation",
        "Stored usage under a draft; before, after: credits. A margin is null where a cost is not known.",
        since=TIME,
        until=TIME,
        version=TEXT,
        total=answered(None, "All calls that have a price.", **sums),
        **by,
        left_out=list_of(answered(None, "Calls that have none.", reason=TEXT, calls=COUNT, charged=AMOUNT)),
        dry=answered(None, "Accounts that would have run dry, and did not.", accounts=COUNT, data=list_of(dry)),
        most_affected=list_of(answered(None, "An account.", account=TEXT, before=AMOUNT, after=AMOUNT, change=AMOUNT)),
    )


def _administration() -> dict[str, Schema]:
    limit = answered(
        None,
        "What may be spent; reserved: what running calls may come to.",
        credits=AMOUNT,
        per=one_of("day", "month", "ever"),
        spent=AMOUNT,
        reserved=AMOUNT,
        resets_at=or_null(TIME),
    )
    coming = answered(None, "The plan that comes, and when.", plan=or_null(TEXT), at=TIME)
    granted = answered(None, "What it gives at once.", bucket=TEXT, credits=AMOUNT, expires_at=TIME)
    key = {
        "id": id_of("key"),
        "account": id_of("acct"),
        "pays": id_of("acct"),
        "platform": FLAG,
        "name": or_null(TEXT),
        "app": or_null(TEXT),
        "operations": {"anyOf": [list_of(TEXT), {"type": "null"}]},
        "operation": or_null(TEXT),
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
            next_plan={"anyOf": [coming, {"type": "null"}]},
            timezone=TEXT,
            overdraft_limit=AMOUNT,
            status=one_of("active", "suspended", "closed"),
            created_at=TIME,
        ),
        "Key": answered("key", "A key, without its secret.", **key),
        "NewKey": answered("key", "A key with its secret.", **key, key=secret),
        "Member": answered(
            "member",
            "An account that may have keys which spend a team's credits.",
            id=id_of("acct"),
            team=id_of("acct"),
            account=id_of("acct"),
            limit={"anyOf": [limit, {"type": "null"}]},
            created_at=TIME,
        ),
        "SpendLimit": answered(
            "spend_limit",
            "What may be spent of an account's credits by a key, in an app or by a member.",
            id=TEXT,
            of=one_of("key", "app", "member"),
            name=TEXT,
            limit={"anyOf": [limit, {"type": "null"}]},
        ),
        "PlanChange": answered(
            "plan_change",
            "What a change of plan would do: up at once, down when the longest period has ended.",
            account=id_of("acct"),
            from_=or_null(TEXT),
            to=or_null(TEXT),
            effective_at=TIME,
            immediate=FLAG,
            grants=list_of(granted),
        ),
        "Clock": answered("clock", "A test clock: the time of the accounts bound to it.", id=id_of("clock"), now=TIME),
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
            upcoming=list_of(answered(None, "What comes into force later.", effective_from=TIME, version=TEXT)),
            **_TABLE,
        ),
        "Simulation": _simulation(),
        "PriceVersion": answered("prices.version", "A price table that was kept.", version=TEXT, **_TABLE),
        "PriceChange": answered(
            "prices.change",
            "That prices were changed; steps: what came into force, when (null: at once), and what that changed.",
            id=TEXT,
            at=TIME,
            actor=TEXT,
            steps=list_of(
                answered(None, "A table.", effective_from=or_null(TIME), version=TEXT, changes=list_of(TEXT))
            ),
        ),
        "Audit": answered(
            "audit",
            "Whether the books add up, and what does not.",
            clean=FLAG,
            findings=list_of(answered(None, "A broken invariant.", invariant=TEXT, rows=list_of({"type": "object"}))),
            totals=map_of(AMOUNT),
            checked=list_of(TEXT),
            sealed=answered(
                None, "What is sealed; head: its digest.", ranges=COUNT, rows=COUNT, read=COUNT, head=or_null(TEXT)
            ),
        ),
    }


def _commands() -> dict[str, Schema]:
    reason: Schema = {**said(2000), "description": "Why; kept in the journal of actions."}
    amount, zone = ref("AmountSent"), {**said(), "examples": ["Europe/Rome"]}
    limit = sent("", ("credits", "per"), credits=amount, per=one_of("day", "month", "ever"))
    account: dict[str, Schema] = {
        "name": said(),
        "email": said(),
        "plan": said(),
    }
    return {
        "AccountCreate": sent(
            "An account to be made.",
            ("name",),
            **account,
            external_id=said(),
            clock=said(),
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
            operation=said(),
            limit=limit,
            pays=said(),
            platform=FLAG,
            reason=reason,
        ),
        "MemberAdd": sent(
            "A team's member to be, or one whose limit is to change; null lifts it.",
            ("account",),
            account=said(),
            limit=limit,
            reason=reason,
        ),
        "LimitSet": sent(
            "A spend limit; null lifts it. id: a key's, an app's name, or a member's account.",
            ("of", "id"),
            of=one_of("key", "app", "member"),
            id=said(),
            limit=limit,
            reason=reason,
        ),
        "SimulationAsked": sent(
            "A draft; since: a time, or how long ago, such as 30d.", ("config",), config=said(), since=said()
        ),
        "PlanPreview": sent("A plan to be tried; null for none.", plan=said()),
        "ClockCreate": sent("A test clock to be made.", ("now",), now=TIME, reason=reason),
        "ClockAdvance": sent("What a test clock is to show.", ("to",), to=TIME, reason=reason),
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
