"""Farebox's own routes as they are described to programs: what each takes, answers and refuses."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from proxy.openapi_schemas import TIME, Schema, ref

__all__ = ["ROUTES", "Described"]

_TEXT: Schema = {"type": "string"}
_USER = "X-Farebox-User"
_USAGE_FILTERS = ("thread", "run", "model", "operation", "app", "key", "member", "since", "until")
_EXPORTS = ("text/csv", "application/jsonl")
_KINDS = ("operation", "model", "app", "thread", "run", "day", "key", "member")

_QUERY: dict[str, Schema] = {
    "limit": {"type": "integer", "minimum": 1, "default": 50, "description": "1 to 1000; larger is cut."},
    "after": {"type": "string", "description": "The last id seen."},
    "since": {**TIME, "description": "From this time on."},
    "until": {**TIME, "description": "Before this time."},
    "by": {"type": "string", "enum": list(_KINDS), "default": "operation"},
    "period": {"type": "string", "enum": ["current", "all"], "default": "current"},
}

_HEADERS: dict[str, Schema] = {
    "X-Farebox-Operation": {**_TEXT, "description": "What the call is, for its price."},
    "X-Farebox-Thread": {**_TEXT, "description": "The conversation that it belongs to."},
    "X-Farebox-Run": {**_TEXT, "description": "One action of a user that takes several calls."},
    "X-Farebox-Run-Limit": {**_TEXT, "description": "Credits that the run may spend."},
    _USER: {**_TEXT, "description": "Whose credits, by external_id; with a platform's key."},
    "X-Farebox-Fit": {"type": "string", "enum": ["clamp"], "description": "Shorten the answer instead of refusing."},
    "Idempotency-Key": {**_TEXT, "description": "The same command sent again is carried out once."},
    "If-None-Match": {**_TEXT, "description": "The tag of the answer that one has."},
}


@dataclass(frozen=True, slots=True)
class Described:
    """One route.

    key: whose key it takes, `caller`, `admin` or none. sends: the schema of its body. answers: the schema of its
    answer; listed: of each item of a list. media: further media types that it can answer in. refuses: statuses.
    """

    method: str
    path: str
    name: str
    summary: str
    key: str | None
    answers: str | None = None
    status: int = 200
    sends: str | None = None
    listed: bool = False
    query: tuple[str, ...] = ()
    headers: tuple[str, ...] = ()
    media: tuple[str, ...] = ()
    refuses: tuple[int, ...] = ()

    def parameters(self) -> Iterator[Schema]:
        """List the parameters in the path, the query and the headers."""
        for part in self.path.split("/"):
            if part.startswith("{"):
                yield {"name": part.strip("{}"), "in": "path", "required": True, "schema": _TEXT}
        names = (*self.query, *(("limit", "after") if self.listed and self.name != "list_models" else ()))
        for name in names:
            yield {"name": name, "in": "query", "schema": _QUERY.get(name, _TEXT)}
        for name in self.headers:
            yield {"name": name, "in": "header", "schema": _HEADERS[name]}

    def schema(self) -> Schema:
        """State the answer's schema."""
        if self.answers is None:
            return {"type": "string"}
        if not self.listed:
            return ref(self.answers)
        properties = {
            "object": {"type": "string", "const": "list"},
            "data": {"type": "array", "items": ref(self.answers)},
        }
        if self.name != "list_models":
            properties |= {"has_more": {"type": "boolean"}, "next": {"type": ["string", "null"]}}
        return {"type": "object", "required": list(properties), "properties": properties}


def _caller(method: str, path: str, name: str, summary: str, answers: str | None, **more: Any) -> Described:
    """Describe a route of the caller's; a platform's key has it as somebody else's."""
    refuses = tuple(sorted({401, 403, 404, 503, *more.pop("refuses", ())}))
    headers = (_USER,)
    return Described(method, f"/v1{path}", name, summary, "caller", answers, refuses=refuses, headers=headers, **more)


def _admin(method: str, path: str, name: str, summary: str, answers: str | None, **more: Any) -> Described:
    """Describe a route of the operator's; what changes something takes an idempotency key and refuses bad fields."""
    refuses = {401, 403, 503, *more.pop("refuses", ())}
    if "{" in path:
        refuses.add(404)
    if more.get("listed"):
        refuses.add(422)
    if method != "get":
        refuses |= {400, 409, 413, 422}
        more["headers"] = () if name in ("preview_plan", "simulate_prices") else ("Idempotency-Key",)
    return Described(
        method, f"/admin/v1{path}", name, summary, "admin", answers, refuses=tuple(sorted(refuses)), **more
    )


_CHAT = Described(
    "post",
    "/v1/chat/completions",
    "create_chat_completion",
    "Call a model; the answer is held, metered and charged.",
    "caller",
    "ChatAnswer",
    sends="ChatRequest",
    headers=tuple(name for name in _HEADERS if name != "If-None-Match"),
    media=("text/event-stream",),
    refuses=(400, 401, 402, 403, 404, 409, 413, 422, 429, 500, 502, 503, 504),
)

_CREDITS = (
    _caller("get", "/models", "list_models", "List the models and their prices.", "Model", listed=True),
    _caller("get", "/models/{name}", "get_model", "Show a model.", "Model"),
    _caller("get", "/credits", "get_credits", "Show what the account has.", "Balance"),
    _caller(
        "get",
        "/credits/usage",
        "list_usage",
        "List calls, newest first; as CSV or JSON lines, all of them.",
        "UsageRow",
        listed=True,
        query=_USAGE_FILTERS,
        media=_EXPORTS,
        refuses=(422,),
    ),
    _caller(
        "get",
        "/credits/usage/summary",
        "sum_usage",
        "Add calls up by what they have in common.",
        "UsageSum",
        listed=True,
        query=("by", "period", *_USAGE_FILTERS),
        refuses=(422,),
    ),
    _caller("get", "/credits/receipts/{id}", "get_receipt", "Show a call's receipt.", "Receipt"),
    _caller(
        "get",
        "/credits/statement",
        "list_statement",
        "List every movement of credits.",
        "StatementEntry",
        listed=True,
        refuses=(422,),
    ),
    _caller(
        "post",
        "/credits/quote",
        "quote_call",
        "Say what a call would cost; nothing is held.",
        "Quote",
        sends="QuoteRequest",
        refuses=(400, 413, 422),
    ),
    _caller(
        "get",
        "/credits/events",
        "watch_credits",
        "Send a `balance` event, with what `GET /v1/credits` answers, after each change.",
        None,
        media=("text/event-stream",),
    ),
)

_ADMINISTRATION = (
    _admin("post", "/accounts", "create_account", "Make an account.", "Account", status=201, sends="AccountCreate"),
    _admin(
        "get",
        "/accounts",
        "list_accounts",
        "List accounts, newest first.",
        "Account",
        listed=True,
        query=("query", "plan", "external_id"),
    ),
    _admin("get", "/accounts/{account}", "get_account", "Show an account.", "Account"),
    _admin("patch", "/accounts/{account}", "change_account", "Change an account.", "Account", sends="AccountChange"),
    _admin("get", "/accounts/{account}/credits", "get_credits_of_account", "Show what an account has.", "Balance"),
    _admin(
        "get",
        "/accounts/{account}/usage",
        "list_usage_of_account",
        "List an account's calls.",
        "UsageRow",
        listed=True,
        query=_USAGE_FILTERS,
        media=_EXPORTS,
    ),
    _admin(
        "get",
        "/accounts/{account}/usage/summary",
        "sum_usage_of_account",
        "Add an account's calls up.",
        "UsageSum",
        listed=True,
        query=("by", "period", *_USAGE_FILTERS),
    ),
    _admin(
        "get",
        "/accounts/{account}/statement",
        "list_statement_of_account",
        "List every movement of an account's credits.",
        "StatementEntry",
        listed=True,
    ),
    _admin(
        "post",
        "/accounts/{account}/plan/preview",
        "preview_plan",
        "Say what a change of plan would do.",
        "PlanChange",
        sends="PlanPreview",
    ),
    _admin("post", "/clocks", "create_clock", "Make a test clock.", "Clock", status=201, sends="ClockCreate"),
    _admin("get", "/clocks/{clock}", "show_clock", "Show a test clock.", "Clock"),
    _admin("post", "/clocks/{clock}/advance", "advance_clock", "Move a test clock on.", "Clock", sends="ClockAdvance"),
    _admin("post", "/accounts/{account}/keys", "create_key", "Make a key.", "NewKey", status=201, sends="KeyCreate"),
    _admin("get", "/accounts/{account}/keys", "list_keys", "List an account's keys.", "Key", listed=True),
    _admin("delete", "/keys/{key}", "revoke_key", "Revoke a key at once.", "Key"),
    _admin(
        "post",
        "/accounts/{account}/members",
        "add_member",
        "Let an account spend a team's credits; 200 where it could already.",
        "Member",
        status=201,
        sends="MemberAdd",
    ),
    _admin("get", "/accounts/{account}/members", "list_members", "List a team's members.", "Member", listed=True),
    _admin(
        "delete",
        "/accounts/{account}/members/{member}",
        "remove_member",
        "Remove a member, and revoke its keys for the team.",
        "Member",
    ),
    _admin(
        "post",
        "/accounts/{account}/limits",
        "set_limit",
        "Set, change or lift a spend limit.",
        "SpendLimit",
        sends="LimitSet",
    ),
    _admin("get", "/accounts/{account}/limits", "list_limits", "List spend limits.", "SpendLimit", listed=True),
    _admin(
        "post", "/accounts/{account}/grants", "create_grant", "Grant credits.", "Grant", status=201, sends="GrantCreate"
    ),
    _admin("get", "/accounts/{account}/grants", "list_grants", "List an account's grants.", "Grant", listed=True),
    _admin(
        "post",
        "/grants/{grant}/void",
        "void_grant",
        "Take back what is left of a grant.",
        "VoidedGrant",
        sends="VoidCreate",
    ),
    _admin(
        "post",
        "/accounts/{account}/adjust",
        "adjust",
        "Correct a balance.",
        "Adjustment",
        status=201,
        sends="AdjustCreate",
    ),
    _admin("get", "/receipts/{id}", "get_any_receipt", "Show any call's receipt.", "Receipt"),
    _admin("post", "/receipts/{id}/refund", "refund", "Refund a call.", "Refund", status=201, sends="RefundCreate"),
    _admin(
        "get",
        "/usage",
        "list_all_usage",
        "List the calls of all accounts.",
        "UsageRow",
        listed=True,
        query=_USAGE_FILTERS,
        media=_EXPORTS,
    ),
    _admin(
        "get",
        "/usage/summary",
        "sum_all_usage",
        "Add all calls up.",
        "UsageSum",
        listed=True,
        query=("by", "period", *_USAGE_FILTERS),
    ),
    _admin("get", "/orphans", "list_orphans", "List calls whose process died.", "Orphan", listed=True),
    _admin("get", "/actions", "list_actions", "List what operators did.", "Action", listed=True),
    _admin("get", "/prices", "get_prices", "Show the price table in force.", "Prices"),
    _admin("get", "/prices/changes", "list_price_changes", "List changes of prices.", "PriceChange", listed=True),
    _admin("get", "/prices/versions/{version}", "get_price_version", "Show any table that was kept.", "PriceVersion"),
    _admin(
        "post",
        "/prices/simulate",
        "simulate_prices",
        "Price stored usage under a draft of the config; nothing is changed.",
        "Simulation",
        sends="SimulationAsked",
    ),
    _admin("post", "/prices/reload", "reload_prices", "Read the config again.", "Prices"),
    _admin("get", "/audit", "audit", "Prove that the books add up.", "Audit"),
)

_PUBLIC = (
    Described(
        "get",
        "/v1/prices",
        "list_prices",
        "Say what everything costs; without a key.",
        None,
        "PublicPrices",
        headers=("If-None-Match",),
    ),
)

_SERVER = (
    Described("get", "/healthz", "get_health", "Say that the process runs.", None, "Status"),
    Described("get", "/readyz", "get_readiness", "Say whether calls are taken; 503 while stopping.", None, "Status"),
    Described("get", "/openapi.json", "get_openapi", "Describe this API.", None, "OpenAPI"),
    Described("get", "/metrics", "get_metrics", "Show metrics to Prometheus.", None, media=("text/plain",)),
)

ROUTES: tuple[Described, ...] = (_CHAT, *_CREDITS, *_PUBLIC, *_ADMINISTRATION, *_SERVER)
"""Every route of Farebox's own, and the chat endpoint."""
