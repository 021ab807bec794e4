"""What an upstream's refusal means to a caller: their own mistake passes, the operator's affairs do not."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import orjson

from proxy.errors import ApiError, bad_request, upstream_error, upstream_unavailable
from proxy.upstream.upstream import UpstreamFailed

__all__ = ["PASSED", "failure", "refusal"]

PASSED = (400, 413, 422)
"""What is the caller's own mistake, whoever is asked."""

# Ids of the operator's account, organisation, project and keys at the provider.
_OPERATORS = re.compile(r"\b(?:org|proj|acct|user|key|sk|team)[-_](?=[a-z_-]*[A-Z\d*])[A-Za-z0-9*_-]{6,}", re.ASCII)
_QUOTA = re.compile(r"quota|billing|insufficient|credit", re.IGNORECASE)


def refusal(status: int, headers: Mapping[str, str], body: bytes) -> ApiError:
    """Translate an upstream's error answer."""
    error = _error_object(body)
    if status in PASSED:
        return _passed(status, error)
    if status == 429:
        about = f"{error.get('code')} {error.get('type')}"
        if not _QUOTA.search(about):
            retry = headers.get("retry-after")
            return ApiError(
                429,
                "rate_limit_exceeded",
                "The model's provider is receiving too many requests; try again later. Nothing was charged.",
                headers={"retry-after": retry} if retry else {},
            )
        return upstream_unavailable()
    if status in (401, 402, 403):
        return upstream_unavailable()
    return upstream_error()


def failure(error: UpstreamFailed) -> ApiError:
    """Translate an upstream that gave no whole answer."""
    if error.kind == "unreachable":
        return upstream_unavailable()
    if error.kind == "timeout":
        return ApiError(504, "upstream_timeout", "The model's provider took too long. Nothing was charged.")
    return upstream_error()


def _error_object(body: bytes) -> dict[str, Any]:
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        return {}
    error = document.get("error") if isinstance(document, dict) else None
    if isinstance(error, str):
        return {"message": error}
    return error if isinstance(error, dict) else {}


def _passed(status: int, error: Mapping[str, Any]) -> ApiError:
    clean: dict[str, Any] = _without_ids(error)
    message = clean.pop("message", None)
    passed = bad_request(
        message if isinstance(message, str) and message else "The model's provider refused the request.", status=status
    )
    passed.kind = clean.pop("type", None) or passed.kind
    passed.code = clean.pop("code", None)
    passed.param = clean.pop("param", None)
    passed.extra = clean
    return passed


def _without_ids(value: Any) -> Any:
    if isinstance(value, str):
        return _OPERATORS.sub("[removed]", value)
    if isinstance(value, dict):
        return {key: _without_ids(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_ids(item) for item in value]
    return value
