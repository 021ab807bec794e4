"""A key gets its calls a minute and its running calls, and no key costs another any."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pricing.document import Document
from pricing.errors import ConfigError
from proxy.errors import ApiError
from proxy.limits import Limits, LimitsConfig, parse_limits
from tests.units.strategies import properties


def parsed(text: str) -> LimitsConfig:
    root = Document("config.yaml", text, {}).root()
    return parse_limits(root.members()["limits"])


def admitted(limits: Limits, calls: int, now: float, key: int = 1, account: int = 1) -> int:
    """Send calls that end at once; returns how many of them got in."""
    entered = 0
    for _ in range(calls):
        try:
            limits.enter(key, account, now)
        except ApiError:
            continue
        limits.leave(key, account)
        entered += 1
    return entered


def refusal(limits: Limits, now: float, key: int = 1, account: int = 1) -> ApiError:
    with pytest.raises(ApiError) as caught:
        limits.enter(key, account, now)
    return caught.value


@pytest.mark.parametrize(("allowance", "burst"), [(1, 1), (5, 5), (10, 10), (59, 10), (60, 10), (600, 100)])
def test_burst(allowance: int, burst: int) -> None:
    """At once a key gets a sixth of a minute's calls, at least 10, or all of a smaller allowance."""
    assert admitted(Limits(LimitsConfig(key_requests_per_minute=allowance)), 1000, 50.0) == burst


@pytest.mark.parametrize("allowance", [1, 7, 60, 600, 7919])
def test_sustained(allowance: int) -> None:
    """A key that always asks gets its calls minute for minute, and its bucket once."""
    limits = Limits(LimitsConfig(key_requests_per_minute=allowance))
    burst = admitted(limits, 10_000, 0.0)
    for minute in range(3):
        got = sum(admitted(limits, allowance, minute * 60 + second) for second in range(1, 61))
        assert got == allowance
    assert burst <= allowance


def test_retry_after() -> None:
    """A refusal says when the next call fits, in whole seconds, and then it does."""
    limits = Limits(LimitsConfig(key_requests_per_minute=2))
    assert admitted(limits, 3, 100.0) == 2
    refused = refusal(limits, 104.5)
    assert (refused.status, refused.code, refused.kind) == (429, "rate_limit_exceeded", "rate_limit_error")
    assert refused.headers == {"retry-after": "26"}
    assert "2 requests a minute" in refused.message
    assert admitted(limits, 2, 104.5 + 26) == 1


def test_refused_takes_nothing() -> None:
    """Asking again and again does not put the next call off."""
    limits = Limits(LimitsConfig(key_requests_per_minute=1))
    assert admitted(limits, 1, 0.0) == 1
    assert sum(admitted(limits, 50, second / 10) for second in range(599)) == 0
    assert admitted(limits, 1, 60.0) == 1


def test_concurrent_of_key() -> None:
    """A key's running calls are limited; one that ends makes room for one."""
    limits = Limits(LimitsConfig(key_concurrent=2))
    limits.enter(1, 1, 0.0)
    limits.enter(1, 1, 0.0)
    refused = refusal(limits, 0.0)
    assert refused.headers == {"retry-after": "1"}
    assert "2 calls running" in refused.message
    limits.enter(2, 1, 0.0)
    limits.leave(1, 1)
    limits.enter(1, 1, 0.0)
    refusal(limits, 0.0)


def test_concurrent_of_account() -> None:
    """An account's keys share its running calls, and another account's do not."""
    limits = Limits(LimitsConfig(account_concurrent=2))
    limits.enter(1, 7, 0.0)
    limits.enter(2, 7, 0.0)
    assert "account" in refusal(limits, 0.0, key=3, account=7).message
    limits.enter(4, 8, 0.0)
    limits.leave(2, 7)
    limits.enter(3, 7, 0.0)


def test_refused_by_one_limit() -> None:
    """A call that one limit refuses is counted against none."""
    limits = Limits(LimitsConfig(key_requests_per_minute=3, key_concurrent=1, account_concurrent=5))
    limits.enter(1, 1, 0.0)
    for _ in range(20):
        refusal(limits, 0.0)
    limits.leave(1, 1)
    assert admitted(limits, 5, 0.0) == 2
    limits.enter(2, 1, 0.0)
    limits.leave(2, 1)


def test_memory() -> None:
    """What is full again and what has ended is forgotten: a million keys in turn leave no trace."""
    limits = Limits(LimitsConfig(key_requests_per_minute=600, key_concurrent=9, account_concurrent=9))
    for key in range(20_000):
        limits.enter(key, key, key * 0.05)
        limits.leave(key, key)
        assert len(limits) <= 5
    for key in range(1000):
        admitted(limits, 1, 2000.0, key=key)
    for call in range(1000):
        admitted(limits, 1, 3000.0 + call)
    assert len(limits) <= 1


def test_no_limits() -> None:
    """Without limits everything enters, and nothing is kept of what has ended."""
    limits = Limits(LimitsConfig())
    for _ in range(1000):
        limits.enter(1, 1, 0.0)
    for _ in range(1000):
        limits.leave(1, 1)
    assert len(limits) == 0
    limits.leave(1, 1)
    assert len(limits) == 0


def test_change() -> None:
    """Other limits apply at once, to calls that run already too; another rate begins afresh."""
    limits = Limits(LimitsConfig())
    limits.enter(1, 1, 0.0)
    limits.change(LimitsConfig(key_concurrent=1, key_requests_per_minute=1))
    refusal(limits, 0.0)
    limits.leave(1, 1)
    assert admitted(limits, 2, 0.0) == 1
    limits.change(LimitsConfig(key_requests_per_minute=600))
    assert admitted(limits, 1000, 0.0) == 100
    assert admitted(limits, 1000, 60.0) == 100
    limits.change(LimitsConfig())
    assert admitted(limits, 1000, 60.0) == 1000


@properties
@given(
    st.integers(1, 1000),
    st.lists(st.floats(0, 30).map(lambda seconds: round(seconds, 3)), min_size=1, max_size=80),
)
def test_any_minute(allowance: int, pauses: list[float]) -> None:
    """However a key spreads its calls, no minute has more than its allowance and one bucket."""
    limits = Limits(LimitsConfig(key_requests_per_minute=allowance))
    now, entered = 1_000_000.0, []
    for pause in pauses:
        now += pause
        entered += [now] * admitted(limits, 30, now)
    burst = min(allowance, max(10, allowance // 6))
    for begin in entered:
        assert sum(begin <= at < begin + 60 for at in entered) <= allowance + burst


def test_parsing() -> None:
    """Limits are read as the operator wrote them, and what is not written is not limited."""
    assert parsed("limits: {per_key: {requests_per_minute: 600, concurrent: 64}, per_account: {concurrent: 128}}") == (
        LimitsConfig(600, 64, 128)
    )
    assert parsed("limits: {per_account: {concurrent: 3}}") == LimitsConfig(None, None, 3)
    assert parsed("limits: {}") == LimitsConfig()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{per_key: {requests_per_minutes: 5}}", "did you mean `requests_per_minute`?"),
        ("{per_user: {concurrent: 5}}", "unknown key `per_user`"),
        ("{per_account: {requests_per_minute: 5}}", "known here: concurrent"),
        ("{per_key: {concurrent: 0}}", "limits.per_key.concurrent: 0 would refuse every call; write 1 or more"),
        ("{per_key: {requests_per_minute: -1}}", "must be a whole number from 1 to 1000000, not `-1`"),
        ("{per_key: {requests_per_minute: 1.5}}", "must be a whole number"),
        ("{per_key: {concurrent: many}}", "must be a whole number from 1 to 100000, not `many`"),
        ("{per_key: 5}", "must be a mapping"),
        ("5", "must be a mapping"),
    ],
)
def test_parsing_refused(text: str, said: str) -> None:
    """A limit that is none is refused with its line and the fix."""
    with pytest.raises(ConfigError) as caught:
        parsed(f"\nlimits: {text}")
    assert str(caught.value).startswith("config.yaml:2: limits")
    assert said in str(caught.value)
