"""`/admin/v1`: accounts and grants."""

from __future__ import annotations

from typing import Any
from zoneinfo import available_timezones

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ledger.errors import Conflict, UnknownAccount, UnknownClock
from ledger.ids import microseconds
from pricing.amounts import format_credits
from proxy.admin_commands import Admin
from proxy.config import Config
from proxy.credits import balance_object, find_receipt, grant_object
from proxy.errors import ApiError, bad_request
from proxy.ids import account_id, parse_account, parse_object
from proxy.jsonapi import Fields, answer, page, read_fields, read_page, timestamp
from proxy.people.people import ExternalIdTaken, Profile
from proxy.services import Services

__all__ = ["account_closed", "read_plan", "routes"]

_PLAN_PAGE = 500
_SOURCES = ("admin", "campaign", "reward", "compensation")


def routes(services: Services) -> list[Route]:
    """The operator's routes for accounts and grants; each asks for the admin key first."""
    handlers = _Accounts(services)
    return [
        Route("/admin/v1/accounts", handlers.command(handlers.create_account), methods=["POST"]),
        Route("/admin/v1/accounts", handlers.list_accounts, methods=["GET"]),
        Route("/admin/v1/accounts/{account}", handlers.show_account, methods=["GET"]),
        Route("/admin/v1/accounts/{account}", handlers.command(handlers.change_account), methods=["PATCH"]),
        Route("/admin/v1/accounts/{account}/credits", handlers.show_credits, methods=["GET"]),
        Route("/admin/v1/accounts/{account}/grants", handlers.command(handlers.create_grant), methods=["POST"]),
        Route("/admin/v1/accounts/{account}/grants", handlers.list_grants, methods=["GET"]),
        Route("/admin/v1/receipts/{id}", handlers.show_receipt, methods=["GET"]),
    ]


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
        zone = fields.text("timezone") or "UTC"
        _check_zone(zone)
        services = self._services
        profile = Profile(
            account_id=self._own_id(request),
            name=fields.text("name", required=True) or "",
            email=fields.text("email"),
            external_id=fields.text("external_id"),
            kind=fields.choice("kind", ("user", "team"), "user"),
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
        await self._note(request, "account.create", profile.account_id, fields, account_id(profile.account_id))
        return answer(await self._account_object(profile), 201)

    async def list_accounts(self, request: Request) -> Response:
        await self._allow(request)
        limit, after = read_page(request)
        query = request.query_params
        people, last = self._services.people, parse_account(after) or 0 if after else None
        wanted = (query.get("query"), query.get("external_id"))
        if "plan" not in query:
            profiles = await people.profiles(limit + 1, last, *wanted)
            return page([await self._account_object(profile) for profile in profiles], limit)
        profiles = []
        while len(profiles) <= limit:
            among = await self._services.ledger.accounts_on(query["plan"], _PLAN_PAGE, last)
            if not among:
                break
            last = among[-1]
            profiles += await people.profiles(limit + 1 - len(profiles), None, *wanted, among)
        return page([await self._account_object(profile) for profile in profiles], limit)

    async def show_account(self, request: Request) -> Response:
        profile = await self._services.people.profile(await self._account(request))
        assert profile is not None
        return answer(await self._account_object(profile))

    async def change_account(self, request: Request) -> Response:
        account = await self._account(request)
        known = ("name", "email", "plan", "timezone", "overdraft_limit", "status", "reason")
        fields = await read_fields(request, known, ("clock", "external_id", "kind"))
        given = fields.everything
        zone = fields.text("timezone")
        if zone is not None:
            _check_zone(zone)
        status = fields.choice("status", ("active", "suspended", "closed"), "") or None
        overdraft = fields.credits("overdraft_limit", zero=True) if given.get("overdraft_limit") is not None else None
        name, email = fields.text("name"), fields.text("email")
        services = self._services
        plan = read_plan(fields, services.config) if "plan" in given else None
        barred = None if status is None else status != "active"
        if barred:
            # First of all, so that nothing is spent of others' credits while its own are being closed.
            await services.people.change_account(account, None, None, barred=True)
        try:
            # The plan first: a command that closes the account may change it too.
            if "plan" in given:
                await services.ledger.set_plan(account, plan)
            await services.ledger.set_account(
                account,
                status=status,
                timezone=zone,
                overdraft_limit=overdraft,
                plans_overdraft="overdraft_limit" in given and overdraft is None,
            )
        except Conflict:
            raise account_closed() from None
        profile = await services.people.change_account(account, name, email, barred=barred)
        await self._note(request, "account.change", account, fields, account_id(account))
        return answer(await self._account_object(profile))

    async def show_credits(self, request: Request) -> Response:
        account = await self._account(request)
        return answer(await balance_object(self._services.ledger, self._services.config, account))

    async def create_grant(self, request: Request) -> Response:
        account = await self._account(request)
        fields = await read_fields(request, ("bucket", "credits", "source", "expires_at", "note", "reason"))
        services = self._services
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
        issued = await services.ledger.issue(
            account,
            name,
            amount,
            source=source,
            expires_at=expires_at,
            source_key=f"command/{self._own_id(request):x}",
            note=note,
        )
        shown = grant_object(account, issued.grant, issued.balance, 0, None)
        await self._note(request, "grant.create", account, fields, shown["id"])
        return answer(shown, 201)

    async def list_grants(self, request: Request) -> Response:
        account = await self._account(request)
        limit, after = read_page(request)
        ids = parse_object("grant", after) if after else None
        grants = await self._services.ledger.grants(account, limit + 1, ids[0] if ids else 0 if after else None)
        return page([grant_object(account, grant, left, held, None) for grant, left, held in grants], limit)

    async def show_receipt(self, request: Request) -> Response:
        await self._allow(request)
        return answer(await find_receipt(self._services, request, None, operator=True))


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


def _check_zone(zone: str) -> None:
    if zone not in available_timezones():
        raise bad_request(f"`timezone` {zone[:60]} is unknown; use a name such as Europe/Rome", "timezone", status=422)
