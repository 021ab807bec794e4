"""What all of administration shares: the admin key, an account, commands carried out once, a note of what was done."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import orjson
from starlette.requests import Request
from starlette.responses import Response

from ledger.ids import microseconds
from proxy.caller import headers_of, require_admin, secret_of
from proxy.errors import ApiError
from proxy.idempotency import in_progress, key_conflict, key_of
from proxy.ids import parse_account
from proxy.jsonapi import JSON, MOST_REASON, Fields, read_body
from proxy.once import Busy, Command, OtherBody
from proxy.people.people import secret_of_digest
from proxy.services import Services

__all__ = ["Admin", "secret_unknown"]

_CARRIED = "farebox.command"
_Handler = Callable[[Request], Awaitable[Response]]


@dataclass(slots=True)
class _Carried:
    """A command while it is carried out; seed: what only who sent it can make again."""

    command: Command
    seed: bytes


class Admin:
    """What every admin route needs."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def _allow(self, request: Request) -> None:
        await require_admin(self._services, headers_of(request.scope))

    def command(self, handler: _Handler) -> _Handler:
        """Have a handler's command carried out once under its Idempotency-Key, if it has one; a refused one frees it.

        Cut off in between it may be sent again: whatever it makes has the same id, so the ledger knows it.
        """

        async def carry_out(request: Request) -> Response:
            await self._allow(request)
            headers = headers_of(request.scope)
            key = key_of(headers)
            if key is None:
                return await handler(request)
            commands, own_id = self._services.commands, self._services.ledger.next_id()
            claimed = hashlib.sha256(f"{request.method} {request.url.path}\n".encode() + key).digest()
            body = hashlib.sha256(await read_body(request)).digest()
            try:
                command = await commands.begin(claimed, body, own_id, microseconds())
            except OtherBody:
                raise key_conflict() from None
            except Busy:
                raise in_progress() from None
            # Neither who has a key made of it can try admin keys, nor who has the database can make it again.
            own = await self._services.people.command_seed()
            seed = hmac.digest(own + (secret_of(headers) or "").encode(), b"farebox command\n" + claimed, "sha512")
            if command.answer is not None:
                return _again(*command.answer, seed)
            request.scope[_CARRIED] = _Carried(command, seed)
            try:
                response = await handler(request)
            except ApiError:
                await commands.end(command, None)
                raise
            except BaseException:
                commands.leave(command)
                raise
            await commands.end(command, (response.status_code, _without_secret(bytes(response.body))))
            return response

        return carry_out

    def _own_id(self, request: Request) -> int:
        """The id of what a command makes: the same each time that it is sent under its key."""
        carried: _Carried | None = request.scope.get(_CARRIED)
        return self._services.ledger.next_id() if carried is None else carried.command.own_id

    def _secret(self, request: Request) -> str | None:
        """The secret of a key that a command makes, where it must be the same each time; it is kept nowhere."""
        carried: _Carried | None = request.scope.get(_CARRIED)
        return None if carried is None else secret_of_digest(carried.seed)

    async def _account(self, request: Request) -> int:
        """Read the account of the path; raises ApiError 404 where there is none."""
        await self._allow(request)
        account = parse_account(request.path_params["account"])
        if account is None or await self._services.people.profile(account) is None:
            raise ApiError(404, "not_found", "There is no such account")
        return account

    async def _note(
        self, request: Request, command: str, account: int | None, fields: Fields | None, target: str | None = None
    ) -> None:
        """Journal a command that was carried out, with its actor and reason; and tell who watches the account."""
        services = self._services
        details = fields.everything if fields is not None else {}
        reason = fields.text("reason", most=MOST_REASON) if fields is not None else None
        action = self._own_id(request)
        await services.journal.note(action, microseconds(), "admin", command, account, target, reason, details)
        if account is not None:
            services.changed(account)


def secret_unknown() -> ApiError:
    """Say that a key's secret can't be made again."""
    return key_conflict("This key was made under another admin key; its secret was shown then, and can't be again")


def _without_secret(body: bytes) -> bytes:
    shown = orjson.loads(body)
    return orjson.dumps({**shown, "key": None}) if "key" in shown else body


def _again(status: int, body: bytes, seed: bytes) -> Response:
    """Answer as before; the secret of a key that was made is made again."""
    shown = orjson.loads(body)
    if "key" in shown:
        secret = secret_of_digest(seed)
        if not secret.startswith(shown["prefix"]):
            raise secret_unknown()
        shown["key"] = secret
    return JSON(shown, status, {"x-idempotent-replayed": "true"})
