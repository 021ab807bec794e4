"""Every error that callers and operators can be told, in one list: the errors page and the API's description read it.

A refusal made anywhere must have its code here; a test looks for those that have none.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["ERRORS", "ErrorCode", "sdk_retries"]

_RETRIED = (408, 409, 429)


@dataclass(frozen=True, slots=True)
class ErrorCode:
    """One code; None stands for OpenAI's own refusals of bad input, whose code is null.

    should_retry: the `x-should-retry` header that goes with it, None where there is none.
    """

    code: str | None
    status: int
    when: str
    should_retry: bool | None = None


def sdk_retries(error: ErrorCode) -> bool:
    """Whether OpenAI's and Anthropic's SDKs try again by themselves (twice, unless told otherwise).

    They obey `x-should-retry`; without it they repeat 408, 409, 429 and everything from 500.
    """
    if error.should_retry is not None:
        return error.should_retry
    return error.status in _RETRIED or error.status >= 500


ERRORS: tuple[ErrorCode, ...] = (
    ErrorCode(None, 400, "The request is wrong; `param` names the field. The provider's own 400 passes with its text."),
    ErrorCode("not_supported", 400, "This release does not do that yet; `param` names the field or header."),
    ErrorCode(
        "unknown_operation", 400, "`X-Farebox-Operation` names no operation of the config; the known are listed."
    ),
    ErrorCode("invalid_api_key", 401, "The key is missing, unknown or revoked."),
    ErrorCode(
        "insufficient_credits",
        402,
        "The most that the call can cost does not fit, even with nothing held. `needed`, `available`, `held`, `debt`,"
        " `fits_at`, `top_up_url` and `max_tokens_affordable` say what would help.",
        should_retry=False,
    ),
    ErrorCode(
        "credits_held",
        402,
        "It would fit if the caller's own running calls did not hold credits; `Retry-After: 2`.",
        should_retry=True,
    ),
    ErrorCode(
        "spend_limit_reached",
        402,
        "The limit of a key, an app, a run or a member, named, is used up until `resets_at`.",
    ),
    ErrorCode("permission_denied", 403, "A caller's key was used for administration."),
    ErrorCode("account_suspended", 403, "The account is suspended or closed."),
    ErrorCode("model_not_in_plan", 403, "The account's plan does not have the model; the plan that has it is named."),
    ErrorCode("operation_not_allowed", 403, "The key may not be used for this operation."),
    ErrorCode("model_not_found", 404, "There is no model of this name; `GET /v1/models` lists them."),
    ErrorCode("not_found", 404, "There is nothing at this path, or nothing with this id that is the caller's."),
    ErrorCode("method_not_allowed", 405, "The path exists, and takes another method."),
    ErrorCode(
        "idempotency_conflict",
        409,
        "The `Idempotency-Key` was used before with another body.",
        should_retry=False,
    ),
    ErrorCode(
        "idempotency_in_progress",
        409,
        "The first call under this `Idempotency-Key` is still running; `Retry-After: 1`.",
        should_retry=True,
    ),
    ErrorCode("external_id_taken", 409, "Another account has this `external_id`."),
    ErrorCode("account_closed", 409, "The account is closed for good; open a new one."),
    ErrorCode("not_serving", 409, "The command needs a running server, such as reloading its config."),
    ErrorCode("refund_exceeds_charge", 409, "More was to be refunded than is left of the call's charge."),
    ErrorCode("request_too_large", 413, "The body is larger than `max_body`, or than 1 MB on Farebox's own routes."),
    ErrorCode(None, 422, "A field of Farebox's own routes has a value that can't be used; `param` names it."),
    ErrorCode(
        "rate_limit_exceeded",
        429,
        "The key's or account's own limit is reached, or the provider asks to slow down; `Retry-After` says how long.",
    ),
    ErrorCode("internal_error", 500, "Something failed inside Farebox. Nothing more is charged."),
    ErrorCode(
        "upstream_error",
        502,
        "The provider failed, or its answer was cut off or malformed. Nothing was charged, unless output had arrived:"
        " then a stream that has begun (status 200) ends with this error in its last event, without `[DONE]`.",
    ),
    ErrorCode("overloaded", 503, "Too many calls wait for the ledger, or the server is stopping. Nothing was charged."),
    ErrorCode("ledger_unavailable", 503, "Credits can't be debited at the moment, so no call is made."),
    ErrorCode(
        "upstream_unavailable",
        503,
        "The provider can't be reached, is switched off, or refuses the operator's own account. Nothing was charged.",
    ),
    ErrorCode("upstream_timeout", 504, "The provider took longer than `timeouts` allow. Nothing was charged."),
)
"""Every code, by status."""
