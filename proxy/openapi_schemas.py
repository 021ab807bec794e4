"""What callers send and get, as JSON Schema, and the words to say it in."""

from __future__ import annotations

from typing import Any

from pricing.meters import METERS

__all__ = [
    "AMOUNT",
    "COUNT",
    "FLAG",
    "TEXT",
    "TIME",
    "Schema",
    "answered",
    "id_of",
    "list_of",
    "map_of",
    "model_members",
    "one_of",
    "or_null",
    "ref",
    "schemas",
    "said",
    "sent",
]

Schema = dict[str, Any]

TEXT: Schema = {"type": "string"}
FLAG: Schema = {"type": "boolean"}
COUNT: Schema = {"type": "integer", "minimum": 0}
TIME: Schema = {"type": "string", "format": "date-time", "description": "RFC 3339, in UTC."}
_LIMIT: Schema = {"type": "integer", "minimum": 1, "maximum": 2**53}
AMOUNT: Schema = {
    "type": "string",
    "pattern": r"^-?(0|[1-9][0-9]*)(\.[0-9]{0,8}[1-9])?$",
    "description": "Credits as a decimal string, without exponent or trailing zero.",
    "examples": ["12.5"],
}


def ref(name: str) -> Schema:
    """Point to a schema by its name."""
    return {"$ref": f"#/components/schemas/{name}"}


def or_null(schema: Schema) -> Schema:
    """Admit null too."""
    if "$ref" in schema:
        return {"anyOf": [schema, {"type": "null"}]}
    if "enum" in schema:
        return {**schema, "enum": [*schema["enum"], None], "type": [schema["type"], "null"]}
    return {**schema, "type": [schema["type"], "null"]}


def one_of(*names: str) -> Schema:
    """Admit these texts only."""
    return {"type": "string", "enum": list(names)}


def said(most: int = 200) -> Schema:
    """Describe a text that is sent: printable, and something in it."""
    return {"type": "string", "minLength": 1, "maxLength": most}


def list_of(of: Schema) -> Schema:
    """Describe a list."""
    return {"type": "array", "items": of}


def map_of(of: Schema) -> Schema:
    """Describe an object with free keys."""
    return {"type": "object", "additionalProperties": of}


def id_of(prefix: str) -> Schema:
    """Describe an id by its prefix."""
    return {"type": "string", "pattern": f"^{prefix}_"}


def answered(kind: str | None, description: str, /, **members: Schema) -> Schema:
    """Describe what is answered: every member is always there, absent values are null."""
    own: dict[str, Schema] = {"object": {"type": "string", "const": kind}} if kind else {}
    properties = {**own, **{name.rstrip("_"): member for name, member in members.items()}}
    return {"type": "object", "description": description, "required": list(properties), "properties": properties}


def sent(description: str, required: tuple[str, ...] = (), /, **members: Schema) -> Schema:
    """Describe what is sent: unknown members are refused by name, and null is as good as absent."""
    named = {name.rstrip("_"): member for name, member in members.items()}
    properties = {name: member if name in required else or_null(member) for name, member in named.items()}
    schema = {"type": "object", "description": description, "properties": properties, "additionalProperties": False}
    return {**schema, "required": list(required)} if required else schema


def model_members() -> dict[str, Schema]:
    """Describe what is shown of a model to whoever may choose it."""
    return {
        "id": TEXT,
        "title": TEXT,
        "description": or_null(TEXT),
        "class_": or_null(TEXT),
        "speed": or_null(COUNT),
        "quality": or_null(COUNT),
        "max_output_tokens": or_null(COUNT),
        "price": ref("PriceList"),
    }


def schemas() -> dict[str, Schema]:
    """List the schemas of what callers send and get, by name."""
    return {**_common(), **_credits(), **_calls()}


def _common() -> dict[str, Schema]:
    amount_sent: Schema = {
        "description": "Credits as a decimal string with at most 9 decimals, or an integer; never a float.",
        "anyOf": [
            {"type": "string", "pattern": r"^[0-9]{1,10}(\.[0-9]{1,9})?$"},
            {"type": "integer", "minimum": 0, "maximum": 10**9},
        ],
    }
    signed: Schema = {
        **amount_sent,
        "anyOf": [
            {"type": "string", "pattern": r"^-?[0-9]{1,10}(\.[0-9]{1,9})?$"},
            {"type": "integer", "minimum": -(10**9), "maximum": 10**9},
        ],
    }
    error = answered(
        None, "What went wrong.", message=TEXT, type=TEXT, param=or_null(TEXT), code=or_null(TEXT), request_id=TEXT
    )
    factor = answered(None, "What multiplies all these prices.", when=map_of(TEXT), multiply=TEXT)
    return {
        "AmountSent": amount_sent,
        "SignedAmountSent": signed,
        "Error": answered(None, "OpenAI's envelope of an error.", error={**error, "additionalProperties": True}),
        "OpenAPI": {"type": "object", "description": "This document."},
        "Status": answered(None, "How the server is.", status=TEXT),
        "Model": answered(
            "model",
            "A model that callers may ask for.",
            created={"type": "integer"},
            owned_by=TEXT,
            **model_members(),
        ),
        "PriceList": {
            "type": "object",
            "description": "Prices by meter, as the operator wrote them; `min` and `max` bound a call's charge.",
            "properties": {name: ref("MeterPrice") for name in METERS}
            | {"min": TEXT, "max": TEXT, "factors": list_of(factor)},
        },
        "MeterPrice": {"anyOf": [TEXT, list_of(ref("PriceRule"))]},
        "PriceRule": {
            "type": "object",
            "description": "A price with its conditions; beyond: what units beyond so many of one call cost.",
            "required": ["when", "price"],
            "properties": {"when": or_null(map_of(TEXT)), "price": TEXT, "beyond": map_of(TEXT)},
        },
    }


def _credits() -> dict[str, Schema]:
    bucket = answered(
        None,
        "What is left in one bucket.",
        bucket=TEXT,
        title=TEXT,
        remaining=AMOUNT,
        held=AMOUNT,
        granted=AMOUNT,
        grants=COUNT,
        exhausted=COUNT,
        resets_at=or_null(TIME),
    )
    return {
        "Bucket": bucket,
        "Grant": answered(
            "credits.grant",
            "One lot of credits; burns: its place in the burn-down order.",
            id=id_of("grant"),
            bucket=TEXT,
            source=TEXT,
            note=or_null(TEXT),
            paid=FLAG,
            granted=AMOUNT,
            remaining=AMOUNT,
            held=AMOUNT,
            burns=or_null(COUNT),
            effective_at=TIME,
            expires_at=or_null(TIME),
            created_at=TIME,
        ),
        "Balance": answered(
            "credits.balance",
            "What an account has; available is what no hold pins, less debt.",
            account=id_of("acct"),
            plan=or_null(TEXT),
            timezone=TEXT,
            usd_per_credit={**AMOUNT, "description": "What a credit sells for, in dollars.", "pattern": r"^[0-9.]+$"},
            available=AMOUNT,
            held=AMOUNT,
            debt=AMOUNT,
            overdraft_limit=AMOUNT,
            low=FLAG,
            monthly_limit=or_null(AMOUNT),
            used=or_null(AMOUNT),
            resets_at=or_null(TIME),
            limits=list_of(
                answered(
                    None,
                    "What the key, its app or its member may spend.",
                    of=one_of("key", "app", "member"),
                    id=TEXT,
                    credits=AMOUNT,
                    per=one_of("day", "month", "ever"),
                    spent=AMOUNT,
                    reserved=AMOUNT,
                    resets_at=or_null(TIME),
                )
            ),
            buckets=list_of(ref("Bucket")),
            grants=list_of(ref("Grant")),
        ),
        "StatementEntry": answered(
            "credits.entry",
            "One movement of an account's credits; amount is signed.",
            id=TEXT,
            at=TIME,
            type=one_of("grant", "charge", "refund", "expiry", "void", "debt", "repayment", "adjustment"),
            bucket=or_null(TEXT),
            amount=AMOUNT,
            balance=AMOUNT,
            request=or_null(id_of("req")),
            note=or_null(TEXT),
        ),
        "Quote": answered(
            "credits.quote",
            "What a call would cost; most is the hold that it would take now.",
            model=TEXT,
            operation=or_null(TEXT),
            least=AMOUNT,
            most=AMOUNT,
            available=AMOUNT,
            fits=FLAG,
            shortened_to=or_null(COUNT),
            max_tokens_affordable=or_null(COUNT),
            price_version=TEXT,
        ),
        "QuoteRequest": sent(
            "A call that is not made.",
            ("body",),
            endpoint={**said(), "default": "/v1/chat/completions"},
            body=ref("ChatRequest"),
        ),
    }


def _calls() -> dict[str, Schema]:
    call: dict[str, Schema] = {
        "id": id_of("req"),
        "status": one_of("held", "settled", "voided", "orphaned"),
        "ended": or_null(one_of("answered", "client_left", "upstream_broke", "upstream_error", "died")),
        **dict.fromkeys(("endpoint", "model", "upstream_model"), TEXT),
        **dict.fromkeys(("operation", "app", "thread", "run"), or_null(TEXT)),
        "key": id_of("key"),
        "member": or_null(id_of("acct")),
        "price_version": TEXT,
        "estimated": FLAG,
        "shortened_to": or_null(COUNT),
    }
    ending: dict[str, Schema] = {
        "total": AMOUNT,
        "debt": AMOUNT,
        "refunded": AMOUNT,
        "reward": AMOUNT,
        "created_at": TIME,
        "settled_at": or_null(TIME),
    }
    lines: dict[str, Schema] = {"lines": list_of(ref("ReceiptLine")), "paid_from": list_of(ref("PaidFrom"))}
    return {
        "ReceiptLine": answered(
            None,
            "What one meter cost; a bound's line is called min or max, and only max is negative.",
            meter=TEXT,
            quantity=or_null(TEXT),
            price=or_null(TEXT),
            amount=AMOUNT,
        ),
        "PaidFrom": answered(None, "What a grant paid.", grant=id_of("grant"), bucket=TEXT, amount=AMOUNT),
        "Receipt": answered(
            "credits.receipt",
            "A call and what it cost: its lines add up to total, and so do paid_from and debt.",
            **call,
            **lines,
            **ending,
        ),
        "UsageRow": answered(
            "credits.usage",
            "A receipt without its lines, with the quantities of each meter; operators see its account too.",
            **call,
            **ending,
            usage=map_of(TEXT),
        ),
        "UsageSum": answered(None, "What the calls of one kind cost.", key=or_null(TEXT), calls=COUNT, total=AMOUNT),
        "ChatRequest": {
            "type": "object",
            "description": "As OpenAI's; all members but the model and the output limit go to the provider as written.",
            "required": ["model", "messages"],
            "properties": {
                "model": {"type": "string", "minLength": 1},
                "messages": {"type": "array", "minItems": 1, "items": {"type": "object"}},
                "stream": FLAG,
                "stream_options": {"type": "object", "properties": {"include_usage": FLAG}},
                "n": {"type": "integer", "minimum": 1, "maximum": 128},
                "max_tokens": _LIMIT,
                "max_completion_tokens": _LIMIT,
            },
            "additionalProperties": True,
        },
        "ChatAnswer": {"type": "object", "description": "The provider's own.", "additionalProperties": True},
    }
