"""`/admin/v1`: keys, the members of teams, and spend limits."""

from __future__ import annotations

import json
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ledger.caps import PER
from ledger.errors import UnknownAccount
from ledger.model import Limit
from pricing.amounts import parse_credits
from pricing.errors import InvalidAmount
from proxy.admin_commands import Admin, secret_unknown
from proxy.credits import limit_object
from proxy.errors import ApiError, bad_request
from proxy.ids import account_id, object_id, parse_account, parse_object
from proxy.jsonapi import Fields, answer, page, read_fields, read_page, timestamp
from proxy.people.callers import app_scope, key_scope, member_scope
from proxy.people.people import NewKey, NotAMember, OtherSecret
from proxy.people.tables import KeyRow, MemberRow
from proxy.services import Services

__all__ = ["routes"]

_OF = ("key", "app", "member")
_MOST_APP = 200


def routes(services: Services) -> list[Route]:
    """The operator's routes for keys, members and limits; each asks for the admin key first."""
    handlers = _Keys(services)
    return [
        Route("/admin/v1/accounts/{account}/keys", handlers.command(handlers.create_key), methods=["POST"]),
        Route("/admin/v1/accounts/{account}/keys", handlers.list_keys, methods=["GET"]),
        Route("/admin/v1/keys/{key}", handlers.command(handlers.revoke_key), methods=["DELETE"]),
        Route("/admin/v1/accounts/{account}/members", handlers.command(handlers.add_member), methods=["POST"]),
        Route("/admin/v1/accounts/{account}/members", handlers.list_members, methods=["GET"]),
        Route(
            "/admin/v1/accounts/{account}/members/{member}",
            handlers.command(handlers.remove_member),
            methods=["DELETE"],
        ),
        Route("/admin/v1/accounts/{account}/limits", handlers.command(handlers.set_limit), methods=["POST"]),
        Route("/admin/v1/accounts/{account}/limits", handlers.list_limits, methods=["GET"]),
    ]


class _Keys(Admin):
    async def create_key(self, request: Request) -> Response:
        account = await self._account(request)
        fields = await read_fields(
            request, ("name", "app", "operations", "operation", "limit", "pays", "platform", "reason")
        )
        services = self._services
        operations, operation = fields.texts("operations"), fields.text("operation")
        for name, wanted in (("operations", operations or []), ("operation", [operation] if operation else [])):
            for one in wanted:
                if one not in services.config.operations:
                    known = ", ".join(services.config.operations) or "none"
                    raise bad_request(f"`{name}`: there is no operation {one[:80]!r}; known: {known}", name, status=422)
        if operations is not None and operation not in (None, *operations):
            raise bad_request("`operation` must be one of `operations`", "operation", status=422)
        limit, platform = _read_limit(fields), fields.flag("platform")
        pays = await self._read_payer(fields, account)
        if platform and (limit is not None or pays is not None):
            other = "pays" if limit is None else "limit"
            message = f"`{other}` can't be set for a platform's key: it spends other accounts' credits, each its own"
            raise bad_request(message, other, status=422)
        key = self._own_id(request)
        new = NewKey(fields.text("name"), fields.text("app"), operations, operation, pays, platform)
        # The limit first: there is no moment at which the key is without it.
        limited = None
        if limit is not None:
            limited = await services.ledger.set_limit(pays or account, key_scope(key, account), *limit)
        now = (await services.ledger.balance(account)).at
        try:
            secret, row = await services.people.add_key(account, key, now, new, self._secret(request))
        except NotAMember:
            raise _no_member() from None
        except OtherSecret:
            raise secret_unknown() from None
        shown = _key_object(row, limited)
        await self._note(request, "key.create", account, fields, shown["id"])
        return answer({**shown, "key": secret}, 201)

    async def _read_payer(self, fields: Fields, account: int) -> int | None:
        """Read `pays`, None where it is the account itself; raises ApiError 422."""
        named = fields.text("pays")
        team = None if named is None else parse_account(named)
        if named is None or team == account:
            return None
        if team is None or await self._services.people.member(team, account) is None:
            raise _no_member()
        return team

    async def list_keys(self, request: Request) -> Response:
        account = await self._account(request)
        limit, after = read_page(request)
        ids = parse_object("key", after) if after else None
        rows = await self._services.people.keys(account, limit + 1, ids[0] if ids else 0 if after else None)
        limits = {
            payer: await self._services.ledger.limits(payer) for payer in {row.pays or row.account_id for row in rows}
        }
        shown = [_key_object(row, limits[row.pays or account].get(key_scope(row.key_id, account))) for row in rows]
        return page(shown, limit)

    async def revoke_key(self, request: Request) -> Response:
        await self._allow(request)
        fields = await read_fields(request, ("reason",))
        ids = parse_object("key", request.path_params["key"])
        ledger = self._services.ledger
        try:
            now = (await ledger.balance(ids[1])).at if ids else 0
        except UnknownAccount:
            now = 0
        row = await self._services.people.revoke_key(ids[1], ids[0], now) if ids and now else None
        if row is None:
            raise ApiError(404, "not_found", "There is no such key")
        limits = await ledger.limits(row.pays or row.account_id)
        self._services.changed(row.pays or row.account_id)
        shown = _key_object(row, limits.get(key_scope(row.key_id, row.account_id)))
        await self._note(request, "key.revoke", row.account_id, fields, shown["id"])
        return answer(shown)

    async def add_member(self, request: Request) -> Response:
        """Add a member, or change the limit of one."""
        team = await self._team(request)
        fields = await read_fields(request, ("account", "limit", "reason"))
        people, ledger = self._services.people, self._services.ledger
        named = fields.text("account", required=True) or ""
        member = parse_account(named)
        profile = None if member is None else await people.profile(member)
        if member is None or profile is None:
            raise bad_request("`account`: there is no such account", "account", status=422)
        if profile.kind == "team":
            raise bad_request("`account`: a team can't be a member of a team", "account", status=422)
        limit = _read_limit(fields)
        # The limit first: there is no moment at which the member is without it.
        if limit is not None:
            await ledger.set_limit(team, member_scope(member), *limit)
        elif "limit" in fields.everything or await people.member(team, member) is None:
            await ledger.set_limit(team, member_scope(member), None)
        row, new = await people.add_member(team, member, (await ledger.balance(team)).at)
        await self._note(request, "member.add" if new else "member.change", team, fields, named)
        return answer(_member_object(row, (await ledger.limits(team)).get(member_scope(member))), 201 if new else 200)

    async def list_members(self, request: Request) -> Response:
        team = await self._team(request)
        limit, after = read_page(request)
        last = parse_account(after) or 0 if after else None
        rows = await self._services.people.members(team, limit + 1, last)
        limits = await self._services.ledger.limits(team)
        return page([_member_object(row, limits.get(member_scope(row.member_id))) for row in rows], limit)

    async def remove_member(self, request: Request) -> Response:
        """Remove a member, and revoke its keys that spend the team's credits; running calls end as they would."""
        team = await self._team(request)
        fields = await read_fields(request, ("reason",))
        member = parse_account(request.path_params["member"])
        ledger = self._services.ledger
        now = (await ledger.balance(team)).at
        row = None if member is None else await self._services.people.member(team, member)
        revoked = None if row is None else await self._services.people.remove_member(team, row.member_id, now)
        if row is None or revoked is None:
            raise ApiError(404, "not_found", "There is no such member")
        limit = (await ledger.limits(team)).get(member_scope(row.member_id))
        await self._note(request, "member.remove", team, fields, account_id(row.member_id))
        keys = [object_id("key", key.key_id, key.account_id) for key in revoked]
        return answer({**_member_object(row, limit), "removed": True, "revoked_keys": keys})

    async def _team(self, request: Request) -> int:
        """Read the team of the path; raises ApiError 404 where there is none, 422 where it is none."""
        team = await self._account(request)
        profile = await self._services.people.profile(team)
        if profile is None or profile.kind != "team":
            raise bad_request("Only an account of kind team has members", "kind", status=422)
        return team

    async def set_limit(self, request: Request) -> Response:
        """Set, change or lift what is spent of an account's credits by one key, in one app, or by one member."""
        account = await self._account(request)
        fields = await read_fields(request, ("of", "id", "limit", "reason"))
        of = fields.choice("of", _OF, "")
        if not of:
            raise bad_request(f"`of` is missing; it is one of {', '.join(_OF)}", "of", status=422)
        scope = await self._scope(account, of, fields.text("id", most=_MOST_APP, required=True) or "")
        if "limit" not in fields.everything:
            raise bad_request("`limit` is missing; null lifts it", "limit", status=422)
        wanted = _read_limit(fields)
        limit = await self._services.ledger.set_limit(account, scope, *(wanted or (None,)))
        await self._note(request, "limit.set", account, fields, account_id(account))
        return answer(_limit_of(scope, limit))

    async def _scope(self, account: int, of: str, name: str) -> str:
        """Find what a limit is of; raises ApiError 422 where the account pays for nothing of that name."""
        people = self._services.people
        if of == "app":
            return app_scope(name)
        if of == "member":
            member = parse_account(name)
            left = await self._services.ledger.limits(account)
            if member is None or (await people.member(account, member) is None and member_scope(member) not in left):
                raise bad_request("`id`: this account has no such member", "id", status=422)
            return member_scope(member)
        ids = parse_object("key", name)
        key = None if ids is None else await people.key(ids[1], ids[0])
        if key is None or (key.pays or key.account_id) != account:
            raise bad_request("`id`: there is no such key that spends this account's credits", "id", status=422)
        if key.platform:
            raise bad_request("`id`: a platform's key has no limit; limit its app in each account", "id", status=422)
        return key_scope(key.key_id, key.account_id)

    async def list_limits(self, request: Request) -> Response:
        account = await self._account(request)
        limit, after = read_page(request)
        limits = sorted((await self._services.ledger.limits(account)).values(), reverse=True)
        shown = [_limit_of(one.scope, one) for one in limits if after is None or one.scope < after]
        return page(shown[: limit + 1], limit)


def _no_member() -> ApiError:
    message = "`pays` must be this account, or a team of which it is a member"
    return bad_request(message, "pays", status=422)


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


def _key_object(row: KeyRow, limit: Limit | None) -> dict[str, Any]:
    return {
        "object": "key",
        "id": object_id("key", row.key_id, row.account_id),
        "account": account_id(row.account_id),
        "pays": account_id(row.pays or row.account_id),
        "platform": bool(row.platform),
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


def _member_object(row: MemberRow, limit: Limit | None) -> dict[str, Any]:
    return {
        "object": "member",
        "id": account_id(row.member_id),
        "team": account_id(row.account_id),
        "account": account_id(row.member_id),
        "limit": None if limit is None else limit_object(limit),
        "created_at": timestamp(row.created_at),
    }


def _limit_of(scope: str, limit: Limit | None) -> dict[str, Any]:
    """Show what a limit is of; its scope is its id."""
    of, _, name = scope.partition(":")
    shown = None if limit is None else limit_object(limit)
    return {"object": "spend_limit", "id": scope, "of": of, "name": name, "limit": shown}
