"""Who asks: headers, key, body."""

from __future__ import annotations

import hmac
from collections.abc import Mapping

from starlette.types import Receive, Scope

from pricing.amounts import parse_credits
from pricing.errors import InvalidAmount
from proxy.choice import choose_operation
from proxy.config import Config, ModelConfig
from proxy.errors import ApiError, bad_request, not_supported
from proxy.people.callers import Caller, acting_for, digest
from proxy.services import Services

__all__ = [
    "ClientGone",
    "headers_of",
    "identify",
    "operation_of",
    "read_body",
    "recorded_header",
    "run_of",
    "require_admin",
    "secret_of",
]

_MOST_HEADER = 256
_USER = "X-Farebox-User"


class ClientGone(Exception):
    """The client left before its request had arrived whole."""


def headers_of(scope: Scope) -> dict[bytes, bytes]:
    """Read the request's headers; of one sent twice the last counts."""
    return dict(scope["headers"])


def secret_of(headers: Mapping[bytes, bytes]) -> str | None:
    """Read the key from `Authorization: Bearer` or `x-api-key`."""
    authorization = headers.get(b"authorization")
    if authorization is not None:
        scheme, _, secret = authorization.decode("latin-1").partition(" ")
        return secret.strip() if scheme.lower() == "bearer" and secret.strip() else None
    key = headers.get(b"x-api-key")
    return key.decode("latin-1").strip() if key else None


async def identify(services: Services, headers: Mapping[bytes, bytes]) -> Caller:
    """Find whom the request's key stands for; raises ApiError 401.

    A platform's key stands for the account that X-Farebox-User names. Raises ApiError 403 for that header with another
    key, and 404 where nobody is known by it.
    """
    secret = secret_of(headers)
    if secret is None:
        raise ApiError(401, "invalid_api_key", "No API key: send `Authorization: Bearer fbx_…`")
    caller = services.people.cached(digest(secret)) or await services.people.identify(secret)
    if caller is None:
        raise ApiError(401, "invalid_api_key", "This API key is unknown or was revoked")
    return caller if b"x-farebox-user" not in headers else await _acting(services, caller, headers)


async def _acting(services: Services, caller: Caller, headers: Mapping[bytes, bytes]) -> Caller:
    if not caller.platform and caller.app is not None:
        raise not_supported("X-Farebox-User with an app's key", _USER)
    if not caller.platform:
        message = "This key spends its own account's credits only; X-Farebox-User needs a platform's key"
        raise ApiError(403, "permission_denied", message, param=_USER)
    external = headers[b"x-farebox-user"].decode("utf-8", "replace")
    account = await services.people.named(external)
    if account is None:
        raise ApiError(404, "not_found", f"There is no account whose external_id is {external!r:.80}", param=_USER)
    return acting_for(caller, account)


async def require_admin(services: Services, headers: Mapping[bytes, bytes]) -> None:
    """Let only the admin key pass; raises ApiError 401, or 403 for a caller's key."""
    secret = secret_of(headers)
    if secret is not None and hmac.compare_digest(digest(secret), services.admin_digest):
        return
    if secret is not None and await services.people.identify(secret) is not None:
        raise ApiError(403, "permission_denied", "This is a caller's key; administration needs the admin key")
    raise ApiError(401, "invalid_api_key", "Administration needs the admin key: send `Authorization: Bearer …`")


def operation_of(
    config: Config, caller: Caller, headers: Mapping[bytes, bytes], endpoint: str, model: ModelConfig
) -> str | None:
    """Find what operation a call is; raises ApiError where its header, its key or the operation itself forbid it."""
    named = headers.get(b"x-farebox-operation")
    if not config.operations and not caller.operations and named is None:
        return None
    return choose_operation(
        config.operations,
        None if named is None else named.decode("utf-8", "replace"),
        caller.operations,
        caller.operation,
        endpoint,
        model.name,
    )


def recorded_header(headers: Mapping[bytes, bytes], name: bytes) -> str | None:
    """Read a header that is stored with the call, such as its thread."""
    value = headers.get(name)
    if not value:
        return None
    text = value.decode("utf-8", "replace")
    if len(text) > _MOST_HEADER or not text.isprintable():
        shown = name.decode()
        raise bad_request(f"the header {shown} must be at most {_MOST_HEADER} printable characters", shown)
    return text


def run_of(headers: Mapping[bytes, bytes]) -> tuple[str | None, int | None]:
    """Read a call's run, and what the run may spend, in nanocredits; raises ApiError 400."""
    run, limit = recorded_header(headers, b"x-farebox-run"), headers.get(b"x-farebox-run-limit")
    if limit is None:
        return run, None
    if run is None:
        raise bad_request("the header X-Farebox-Run-Limit needs X-Farebox-Run, which names the run", "X-Farebox-Run")
    try:
        return run, parse_credits(limit.decode("latin-1"), zero=True)
    except InvalidAmount as error:
        raise bad_request(f"the header X-Farebox-Run-Limit {error}", "X-Farebox-Run-Limit") from None


async def read_body(receive: Receive, headers: Mapping[bytes, bytes], most: int) -> bytes:
    """Read the request's body; raises ApiError 413 above `most` bytes, ClientGone if it never arrives whole."""
    length = headers.get(b"content-length", b"0")
    if length.isdigit() and int(length) > most:
        raise _too_large(most)
    message = await receive()
    if message["type"] == "http.disconnect":
        raise ClientGone
    body: bytes = message.get("body", b"")
    if message.get("more_body"):
        pieces = [body]
        size = len(body)
        while message.get("more_body"):
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ClientGone
            pieces.append(message.get("body", b""))
            size += len(pieces[-1])
            if size > most:
                raise _too_large(most)
        body = b"".join(pieces)
    if len(body) > most:
        raise _too_large(most)
    return body


def _too_large(most: int) -> ApiError:
    return ApiError(413, "request_too_large", f"The body is larger than {most} bytes", headers={"connection": "close"})
