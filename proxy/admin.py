"""`/admin/v1`: accounts, keys and grants."""

from __future__ import annotations

import json
from typing import Any
from zoneinfo import available_timezones

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ledger.caps import PER
from ledger.errors import Conflict, UnknownAccount, UnknownClock
from ledger.ids import microseconds
from ledger.model import Limit
from pricing.amounts import format_credits, parse_credits
from pricing.errors import InvalidAmount
from proxy.caller import headers_of, require_admin
from proxy.config import Config
from proxy.credits import balance_object, find_receipt, grant_object, limit_object
from proxy.errors import ApiError, bad_request, not_supported
from proxy.ids import account_id, object_id, parse_account, parse_object
from proxy.jsonapi import Fields, answer, page, read_fields, read_page, timestamp
from proxy.people.people import ExternalIdTaken, Profile, key_scope
from proxy.people.tables import KeyRow
from proxy.services import Services

__all__ = ["MOST_REASON", "Admin", "account_closed", "read_plan", "routes"]

MOST_REASON = 2000
_SOURCES = ("admin", "campaign", "reward", "compensation")


def routes(services: Services) -> list[Route]:
    """The operator's routes for accounts, keys and grants; each asks for the admin key first."""
    handlers = _Accounts(services)
    return [
        Route("/admin/v1/accounts", handlers.create_account, methods=["POST"]),
        Route("/admin/v1/accounts", handlers.list_accounts, methods=["GET"]),
        Route("/admin/v1/accounts/{account}", handlers.show_account, methods=["GET"]),
        Route("/admin/v1/accounts/{account}", handlers.change_account, methods=["PATCH"]),
        Route("/admin/v1/accounts/{account}/credits", handlers.show_credits, methods=["GET"]),
        Route("/admin/v1/accounts/{account}/keys", handlers.create_key, methods=["POST"]),
        Route("/admin/v1/accounts/{account}/keys", handlers.list_keys, methods=["GET"]),
        Route("/admin/v1/accounts/{account}/grants", handlers.create_grant, methods=["POST"]),
        Route("/admin/v1/accounts/{account}/grants", handlers.list_grants, methods=["GET"]),
        Route("/admin/v1/keys/{key}", handlers.revoke_key, methods=["DELETE"]),
        Route("/admin/v1/receipts/{id}", handlers.show_receipt, methods=["GET"]),
    ]


class Admin:
    """What every admin route needs: the admin key, an account, a note of what was done."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def _allow(self, request: Request) -> None:
        headers = headers_of(request.scope)
        await require_admin(self._services, headers)
        if b"idempotency-key" in headers:
            raise not_supported("the header Idempotency-Key", "Idempotency-Key")

    async def _account(self, request: Request) -> int:
        """Read the account of the path; raises ApiError 404 where there is none."""
        await self._allow(request)
        account = parse_account(request.path_params["account"])
        if account is None or await self._services.people.profile(account) is None:
            raise ApiError(404, "not_found", "There is no such account")
        return account

    async def _note(
        self, command: str, account: int | None, fields: Fields | None, object_id: str | None = None
    ) -> None:
        """Journal a command that was carried out, with its actor and reason; and tell who watches the account."""
        services = self._services
        details = fields.everything if fields is not None else {}
        reason = fields.text("reason", most=MOST_REASON) if fields is not None else None
        action = services.ledger.next_id()
        await services.journal.note(action, microseconds(), "admin", command, account, object_id, reason, details)
        if account is not None:
            services.changed(account)


class _Accounts(Admin):
    async def _account_object(self, profile: Profile) -> dict[str, Any]:
        try:
            balance = await self._services.ledger.balance(profile.account_id)
        except UnknownAccount:
            raise ApiError(404, "not_found", "There is no such account") from None
        return {
            "object": "account",
            "id": account_id(profile.account_id),
            "name": profile.name,
            "email": profile.email,
            "external_id": profile.external_id,
            "kind": profile.kind,
            "plan": balance.plan,
            "next_plan": None
            if balance.next_plan is None
            else {"plan": balance.next_plan[0], "at": timestamp(balance.next_plan[1])},
            "timezone": balance.timezone,
            "overdraft_limit": format_credits(balance.overdraft_limit),
            "status": balance.status,
            "created_at": timestamp(balance.created_at),
        }

    async def create_account(self, request: Request) -> Response:
        await self._allow(request)
        known = ("name", "email", "external_id", "plan", "timezone", "overdraft_limit", "kind", "clock", "reason")
        fields = await read_fields(request, known)
        if fields.choice("kind", ("user", "team"), "user") == "team":
            raise not_supported("`kind` team", "kind")
        zone = fields.text("timezone") or "UTC"
        if zone not in available_timezones():
            raise bad_request(
                f"`timezone` {zone[:60]} is unknown; use a name such as Europe/Rome", "timezone", status=422
            )
        services = self._services
        fields.text("reason", most=MOST_REASON)
        profile = Profile(
            account_id=services.ledger.next_id(),
            name=fields.text("name", required=True) or "",
            email=fields.text("email"),
            external_id=fields.text("external_id"),
            kind="user",
            created_at=microseconds(),
        )
        given = fields.everything
        overdraft = None
        if given.get("overdraft_limit") is not None:
            overdraft = fields.credits("overdraft_limit", zero=True)
        config = services.config
        plan = read_plan(fields, config) if "plan" in given else config.default_plan
        clock = None
        if (named := fields.text("clock")) is not None:
            found = parse_object("clock", named)
            clock = found[0] if found else 0
        # The ledger first: without its owner's row an account can't be reached, so a crash between leaves no trace.
        try:
            await services.ledger.open_account(
                profile.account_id,
                timezone=zone,
                overdraft_limit=overdraft,
                plan=plan,
                clock=clock,
                welcome=None if config.signup is None else (config.signup.bucket, config.signup.amount),
            )
        except UnknownClock:
            raise bad_request("`clock` is no test clock", "clock", status=422) from None
        try:
            await services.people.add_account(profile)
        except ExternalIdTaken:
            raise ApiError(
                409,
                "external_id_taken",
                "Another account has this external_id; find it with ?external_id=",
                param="external_id",
            ) from None
        await self._note("account.create", profile.account_id, fields, account_id(profile.account_id))
        return answer(await self._account_object(profile), 201)

    async def list_accounts(self, request: Request) -> Response:
        await self._allow(request)
        if "plan" in request.query_params:
            raise not_supported("filtering by plan", "plan")
        limit, after = read_page(request)
        profiles = await self._services.people.profiles(
            limit + 1,
            parse_account(after) or 0 if after else None,
            request.query_params.get("query"),
            request.query_params.get("external_id"),
        )
        return page([await self._account_object(profile) for profile in profiles], limit)

    async def show_account(self, request: Request) -> Response:
        profile = await self._services.people.profile(await self._account(request))
        assert profile is not None
        return answer(await self._account_object(profile))

    async def change_account(self, request: Request) -> Response:
        account = await self._account(request)
        known = ("name", "email", "plan", "timezone", "overdraft_limit", "status", "reason")
        fields = await read_fields(request, known, ("clock", "external_id", "kind"))
        fields.text("reason", most=MOST_REASON)
        given = fields.everything
        zone = fields.text("timezone")
        if zone is not None:
            _check_zone(zone)
        status = fields.choice("status", ("active", "suspended", "closed"), "") or None
        overdraft = fields.credits("overdraft_limit", zero=True) if given.get("overdraft_limit") is not None else None
        name, email = fields.text("name"), fields.text("email")
        services = self._services
        plan = read_plan(fields, services.config) if "plan" in given else None
        try:
            # The plan first: a command that closes the account may change it too.
            if "plan" in given:
                await services.ledger.set_plan(account, plan)
            await services.ledger.set_account(account, status=status, timezone=zone, overdraft_limit=overdraft)
        except Conflict:
            raise account_closed() from None
        profile = await services.people.change_account(account, name, email)
        await self._note("account.change", account, fields, account_id(account))
        return answer(await self._account_object(profile))

    async def show_credits(self, request: Request) -> Response:
        account = await self._account(request)
        return answer(await balance_object(self._services.ledger, self._services.config, account))

    async def create_key(self, request: Request) -> Response:
        account = await self._account(request)
        fields = await read_fields(request, ("name", "app", "operations", "operation", "limit", "reason"), ("pays",))
        services = self._services
        fields.text("reason", most=MOST_REASON)
        operations, operation = fields.texts("operations"), fields.text("operation")
        for name, wanted in (("operations", operations or []), ("operation", [operation] if operation else [])):
            for one in wanted:
                if one not in services.config.operations:
                    known = ", ".join(services.config.operations) or "none"
                    raise bad_request(f"`{name}`: there is no operation {one[:80]!r}; known: {known}", name, status=422)
        if operations is not None and operation not in (None, *operations):
            raise bad_request("`operation` must be one of `operations`", "operation", status=422)
        limit = _read_limit(fields)
        key = services.ledger.next_id()
        # The limit first: there is no moment at which the key is without it.
        limited = None
        if limit is not None:
            limited = await services.ledger.set_limit(account, key_scope(key, account), *limit)
        secret, row = await services.people.add_key(
            account,
            key,
            (await services.ledger.balance(account)).at,
            fields.text("name"),
            fields.text("app"),
            operations,
            operation,
        )
        shown = _key_object(row, limited)
        await self._note("key.create", account, fields, shown["id"])
        return answer({**shown, "key": secret}, 201)

    async def list_keys(self, request: Request) -> Response:
        account = await self._account(request)
        limit, after = read_page(request)
        ids = parse_object("key", after) if after else None
        rows = await self._services.people.keys(account, limit + 1, ids[0] if ids else 0 if after else None)
        limits = await self._services.ledger.limits(account)
        return page([_key_object(row, limits.get(key_scope(row.key_id, account))) for row in rows], limit)

    async def revoke_key(self, request: Request) -> Response:
        await self._allow(request)
        ids = parse_object("key", request.path_params["key"])
        ledger = self._services.ledger
        try:
            now = (await ledger.balance(ids[1])).at if ids else 0
        except UnknownAccount:
            now = 0
        row = await self._services.people.revoke_key(ids[1], ids[0], now) if ids and now else None
        if row is None:
            raise ApiError(404, "not_found", "There is no such key")
        limits = await ledger.limits(row.account_id)
        shown = _key_object(row, limits.get(key_scope(row.key_id, row.account_id)))
        await self._note("key.revoke", row.account_id, None, shown["id"])
        return answer(shown)

    async def create_grant(self, request: Request) -> Response:
        account = await self._account(request)
        fields = await read_fields(request, ("bucket", "credits", "source", "expires_at", "note", "reason"))
        services = self._services
        fields.text("reason", most=MOST_REASON)
        buckets = services.config.buckets
        name = fields.text("bucket", required=True) or ""
        if name not in buckets:
            raise bad_request(f"`bucket` must be one of {', '.join(buckets)}", "bucket", status=422)
        amount = fields.credits("credits")
        source = fields.choice("source", _SOURCES, "admin")
        note = fields.text("note", most=500)
        expires_at = fields.time("expires_at")
        if expires_at is not None and expires_at <= (await services.ledger.balance(account)).at:
            raise bad_request("`expires_at` must be in the future", "expires_at", status=422)
        issued = await services.ledger.issue(account, name, amount, source=source, expires_at=expires_at, note=note)
        shown = grant_object(account, issued.grant, issued.balance, 0, None)
        await self._note("grant.create", account, fields, shown["id"])
        return answer(shown, 201)

    async def list_grants(self, request: Request) -> Response:
        account = await self._account(request)
        limit, after = read_page(request)
        ids = parse_object("grant", after) if after else None
        grants = await self._services.ledger.grants(account, limit + 1, ids[0] if ids else 0 if after else None)
        return page([grant_object(account, grant, left, held, None) for grant, left, held in grants], limit)

    async def show_receipt(self, request: Request) -> Response:
        await self._allow(request)
        return answer(await find_receipt(self._services.ledger, request.path_params["id"], None, operator=True))


def account_closed() -> ApiError:
    """Say that a closed account stays as it is."""
    return ApiError(409, "account_closed", "This account is closed for good; open a new one")


def read_plan(fields: Fields, config: Config) -> str | None:
    """Read `plan`, null for none; raises ApiError 422."""
    if fields.everything.get("plan") is None:
        return None
    name = fields.text("plan")
    if name not in config.plans:
        known = ", ".join(config.plans) or "none"
        raise bad_request(f"`plan`: there is no plan {name!r:.80}; known: {known}", "plan", status=422)
    return name


def _read_limit(fields: Fields) -> tuple[int, str] | None:
    """Read `limit` as nanocredits and its period; raises ApiError 422."""
    if fields.everything.get("limit") is None:
        return None
    members = fields.mapping("limit")
    for name in members:
        if name not in ("credits", "per"):
            raise bad_request(f"`limit.{name[:60]}` is unknown here; known: credits, per", "limit", status=422)
    try:
        amount = parse_credits(members.get("credits"), zero=True)
    except InvalidAmount as error:
        raise bad_request(f"`limit.credits` {error}", "limit", status=422) from None
    per = members.get("per")
    if per not in PER:
        raise bad_request(f"`limit.per` must be one of {', '.join(PER)}", "limit", status=422)
    return amount, str(per)


def _check_zone(zone: str) -> None:
    if zone not in available_timezones():
        raise bad_request(f"`timezone` {zone[:60]} is unknown; use a name such as Europe/Rome", "timezone", status=422)


def _key_object(row: KeyRow, limit: Limit | None) -> dict[str, Any]:
    return {
        "object": "key",
        "id": object_id("key", row.key_id, row.account_id),
        "account": account_id(row.account_id),
        "name": row.name,
        "app": row.app,
        "operations": None if row.operations is None else json.loads(row.operations),
        "operation": row.operation,
        "limit": None if limit is None else limit_object(limit),
        "prefix": row.prefix,
        "status": "active" if row.revoked_at is None else "revoked",
        "created_at": timestamp(row.created_at),
        "revoked_at": timestamp(row.revoked_at),
    }
