"""What callers are told when a request is refused: OpenAI's envelope, one class, the codes named in one place."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

__all__ = ["ApiError", "bad_request", "not_supported", "upstream_error", "upstream_unavailable"]


class ApiError(Exception):
    """A refusal with its HTTP status.

    code: what programs branch on. param: the field at fault. extra: further members of the error object.
    headers: answer headers such as retry-after.
    """

    def __init__(
        self,
        status: int,
        code: str | None,
        message: str,
        *,
        param: str | None = None,
        kind: str | None = None,
        extra: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.param = param
        self.kind = kind or _kind(status)
        self.extra = dict(extra or {})
        # SDKs repeat conflicts by themselves, and these don't go away.
        self.headers = {"x-should-retry": "false"} if status == 409 else {}
        self.headers |= headers or {}

    def envelope(self, request_id: str) -> bytes:
        """Write the answer's body."""
        error = {
            "message": self.message,
            "type": self.kind,
            "param": self.param,
            "code": self.code,
            **self.extra,
            "request_id": request_id,
        }
        return orjson.dumps({"error": error})


def _kind(status: int) -> str:
    if status == 401:
        return "authentication_error"
    if status == 402:
        return "billing_error"
    if status == 403:
        return "permission_error"
    if status == 429:
        return "rate_limit_error"
    return "invalid_request_error" if status < 500 else "api_error"


def bad_request(message: str, param: str | None = None, *, code: str | None = None, status: int = 400) -> ApiError:
    """Refuse a request that is wrong in itself; the message says how to mend it."""
    return ApiError(status, code, message, param=param)


def not_supported(what: str, param: str | None = None) -> ApiError:
    """Refuse by name what this release does not do."""
    return ApiError(400, "not_supported", f"{what} is not supported by this release", param=param)


def upstream_error(message: str = "The model's provider failed to answer. Nothing was charged.") -> ApiError:
    return ApiError(502, "upstream_error", message)


def upstream_unavailable(
    message: str = "The model's provider cannot be reached at the moment. Nothing was charged.",
) -> ApiError:
    """The provider refuses or cannot be reached; its bill is the operator's affair, so the text is generic."""
    return ApiError(503, "upstream_unavailable", message)
