"""What an upstream's refusal becomes: the caller's own mistake passes, the operator's affairs do not."""

from __future__ import annotations

import json
from typing import Any

import pytest

from proxy.errors import ApiError
from proxy.upstream.failures import failure, refusal
from proxy.upstream.upstream import UpstreamFailed


def error_body(**error: object) -> bytes:
    return json.dumps({"error": error}).encode()


def envelope(error: ApiError) -> dict[str, Any]:
    written: dict[str, Any] = json.loads(error.envelope("req_1"))["error"]
    return written


QUOTA = error_body(
    message="You exceeded your current quota of org-AbC123", type="insufficient_quota", code="insufficient_quota"
)
BUSY = error_body(message="Rate limit reached", type="requests", code="rate_limit_exceeded")


@pytest.mark.parametrize(
    ("status", "body", "expected", "code"),
    [
        (401, error_body(message="Incorrect API key provided: sk-proj-abc"), 503, "upstream_unavailable"),
        (402, error_body(message="Insufficient credits"), 503, "upstream_unavailable"),
        (403, error_body(message="Project proj_1 has no access"), 503, "upstream_unavailable"),
        (429, QUOTA, 503, "upstream_unavailable"),
        (429, error_body(message="x", code="billing_hard_limit_reached"), 503, "upstream_unavailable"),
        (429, BUSY, 429, "rate_limit_exceeded"),
        (429, b"", 429, "rate_limit_exceeded"),
        (429, b"slow down", 429, "rate_limit_exceeded"),
        (404, error_body(message="The model does not exist"), 502, "upstream_error"),
        (500, error_body(message="x"), 502, "upstream_error"),
        (502, b"<html>", 502, "upstream_error"),
        (503, b"", 502, "upstream_error"),
        (529, b"", 502, "upstream_error"),
        (301, b"", 502, "upstream_error"),
        (307, b"", 502, "upstream_error"),
        (204, b"", 502, "upstream_error"),
        (418, b"", 502, "upstream_error"),
    ],
)
def test_refusals(status: int, body: bytes, expected: int, code: str) -> None:
    """The operator's troubles are 502 and 503 in general words, a plain 429 stays one, and no id of theirs shows."""
    error = refusal(status, {"set-cookie": "x"}, body)
    assert (error.status, error.code) == (expected, code)
    for word in ("sk-proj", "proj_1", "org-", "quota", "Insufficient", "billing"):
        assert word not in error.envelope("req_1").decode()


def test_retry_after() -> None:
    """A plain 429 keeps the upstream's Retry-After, and no other header."""
    assert refusal(429, {"retry-after": "7", "x-ratelimit-limit-requests": "9"}, BUSY).headers == {"retry-after": "7"}
    assert refusal(429, {}, BUSY).headers == {}
    assert "retry-after" not in refusal(429, {"retry-after": "7"}, QUOTA).headers


@pytest.mark.parametrize("status", [400, 413, 422])
def test_the_callers_mistake_passes(status: int) -> None:
    """The upstream's own 400, 413 and 422 pass with their error object, under Farebox's request id."""
    own = {"message": "Bad value", "type": "invalid_request_error", "param": "n", "code": "invalid_value"}
    error = refusal(status, {}, error_body(**own, innererror={"code": "x"}, request_id="theirs"))
    assert error.status == status
    assert envelope(error) == {**own, "innererror": {"code": "x"}, "request_id": "req_1"}


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"Bad Request",
        b"<html>",
        b"[]",
        b"{}",
        b'{"error":null}',
        b'{"error":5}',
        b'{"detail":"x"}',
        b'{"error":{}}',
        b'{"error":{"message":null}}',
        b"\xff",
    ],
)
def test_a_mistake_without_words(body: bytes) -> None:
    """A 400 that is no error object is still a 400 in OpenAI's shape, with a message."""
    error = refusal(400, {}, body)
    written = envelope(error)
    assert error.status == 400
    assert written["type"] == "invalid_request_error"
    assert isinstance(written["message"], str)
    assert written["message"]
    assert set(written) >= {"message", "type", "param", "code", "request_id"}


def test_a_mistake_in_plain_words() -> None:
    """An error that is only a text passes as the message."""
    assert (
        envelope(refusal(400, {}, b'{"error":"model requires more memory"}'))["message"] == "model requires more memory"
    )


@pytest.mark.parametrize(
    "own",
    [
        "org-AbCdEf123456",
        "org-QwErTyUiOpAsDfGhJkLzXcVb",
        "proj_AbCdEf123456",
        "sk-proj-AbCdEf123456",
        "sk-abc***********wxyz",
        "user-AbCdEf123456",
        "acct_1AbCdEf234",
        "key_AbCdEf123456",
    ],
)
def test_ids_are_removed(own: str) -> None:
    """Ids of the operator's account, organisation, project and keys are removed, wherever they stand in the object."""
    error = refusal(
        400, {}, error_body(message=f"Not for {own}.", param=own, innererror={"list": [f"a {own}", {"b": own}]})
    )
    written = error.envelope("req_1").decode()
    assert own not in written
    assert own[5:] not in written
    assert "Not for " in written


@pytest.mark.parametrize(
    "message",
    [
        "Unrecognized request argument supplied: user_location",
        "Invalid type for 'tools[0].function.parameters.key_points'",
        "The user-supplied image is too small",
        "Expected a team_members array",
        "max_tokens is too large: 100000",
    ],
)
def test_ordinary_words_stay(message: str) -> None:
    """A message that names a field or uses plain words reaches the caller whole."""
    assert envelope(refusal(400, {}, error_body(message=message)))["message"] == message


@pytest.mark.parametrize(
    ("kind", "status", "code"),
    [
        ("unreachable", 503, "upstream_unavailable"),
        ("timeout", 504, "upstream_timeout"),
        ("broken", 502, "upstream_error"),
    ],
)
def test_failures(kind: str, status: int, code: str) -> None:
    """No connection, no answer in time and half an answer are told apart, without the upstream's address."""
    error = failure(UpstreamFailed(kind, "Cannot connect to host 10.0.0.7:8000"))
    assert (error.status, error.code, error.kind) == (status, code, "api_error")
    assert "10.0.0.7" not in error.envelope("req_1").decode()
