"""How often a key may call, and how many calls a key or an account may have running at once.

The rate is a bucket of calls that refills evenly: `requests_per_minute` a minute. It holds a sixth of a minute's
allowance, but at least 10 calls, or the whole allowance where that is less: an app may send what it has collected in
ten seconds at once, and a key with a small allowance may spend it at once. In any minute a key gets its allowance and
one such bucket at most. A refused request takes nothing.

A bucket is kept as one number, the time at which it is full again, and forgotten once it is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from pricing.document import Node
from proxy.errors import ApiError

__all__ = ["Limits", "LimitsConfig", "parse_limits"]

_LEAST_BURST = 10
_BURST_SHARE = 6
_MOST_REQUESTS = 1_000_000
_MOST_CONCURRENT = 100_000
_SLACK = 0.001
"""Of the time between two calls: what sums of floats may be off by without refusing anybody."""


@dataclass(frozen=True, slots=True)
class LimitsConfig:
    """The operator's limits, None where there is none."""

    key_requests_per_minute: int | None = None
    key_concurrent: int | None = None
    account_concurrent: int | None = None


def parse_limits(node: Node) -> LimitsConfig:
    """Read `limits: {per_key: {requests_per_minute, concurrent}, per_account: {concurrent}}`; raises ConfigError."""
    fields = node.fields(("per_key", "per_account"))
    per_key = _per_key(fields["per_key"]) if "per_key" in fields else {}
    per_account = _per_account(fields["per_account"]) if "per_account" in fields else {}
    return LimitsConfig(
        key_requests_per_minute=_limit(per_key.get("requests_per_minute"), _MOST_REQUESTS),
        key_concurrent=_limit(per_key.get("concurrent"), _MOST_CONCURRENT),
        account_concurrent=_limit(per_account.get("concurrent"), _MOST_CONCURRENT),
    )


def _per_key(node: Node) -> dict[str, Node]:
    return node.fields(("requests_per_minute", "concurrent"))


def _per_account(node: Node) -> dict[str, Node]:
    return node.fields(("concurrent",))


def _limit(node: Node | None, most: int) -> int | None:
    if node is None:
        return None
    if node.text() == "0":
        raise node.error("0 would refuse every call; write 1 or more, or remove the key for no limit")
    return node.integer(1, most)


class Limits:
    """Counts calls against the limits; times are seconds of a clock that never steps back, such as the loop's."""

    __slots__ = ("_accounts", "_burst_seconds", "_config", "_full_at", "_interval", "_keys")

    def __init__(self, config: LimitsConfig) -> None:
        self._full_at: dict[int, float] = {}
        self._keys: dict[int, int] = {}
        self._accounts: dict[int, int] = {}
        self._config = config
        self.change(config)

    def change(self, config: LimitsConfig) -> None:
        """Apply other limits from now on; running calls stay counted, and another rate begins with full buckets."""
        allowance = config.key_requests_per_minute
        if allowance != self._config.key_requests_per_minute:
            self._full_at.clear()
        self._config = config
        self._interval = 0.0 if allowance is None else 60.0 / allowance
        burst = 0 if allowance is None else min(allowance, max(_LEAST_BURST, allowance // _BURST_SHARE))
        # How far ahead of now a bucket may be full again and still have a call in it.
        self._burst_seconds = (burst - 1 + _SLACK) * self._interval

    def enter(self, key_id: int, account_id: int, now: float) -> None:
        """Count a call that begins; raises ApiError 429, having counted nothing, where a limit is reached.

        Each call that entered must `leave`, once.
        """
        config = self._config
        of_key = self._keys.get(key_id, 0)
        of_account = self._accounts.get(account_id, 0)
        if config.key_concurrent is not None and of_key >= config.key_concurrent:
            raise _refusal(f"This key has {of_key} calls running, and {config.key_concurrent} is its limit", 1)
        if config.account_concurrent is not None and of_account >= config.account_concurrent:
            limit = config.account_concurrent
            raise _refusal(f"This account has {of_account} calls running, and {limit} is its limit", 1)
        if self._interval:
            self._take(key_id, now)
        self._keys[key_id] = of_key + 1
        self._accounts[account_id] = of_account + 1

    def leave(self, key_id: int, account_id: int) -> None:
        """Count a call that has ended."""
        _one_less(self._keys, key_id)
        _one_less(self._accounts, account_id)

    def _take(self, key_id: int, now: float) -> None:
        full_at = max(self._full_at.get(key_id, now), now)
        wait = full_at - now - self._burst_seconds
        if wait > 0:
            allowance = self._config.key_requests_per_minute
            raise _refusal(f"This key may send {allowance} requests a minute", math.ceil(wait))
        # The keys that called last stand last, so that those which have long been full again are found in front.
        self._full_at.pop(key_id, None)
        self._full_at[key_id] = full_at + self._interval
        self._forget(now)

    def _forget(self, now: float) -> None:
        """Drop up to two buckets that are full again: quicker than one call adds them, without a sweep."""
        for _ in range(2):
            oldest = next(iter(self._full_at))
            if self._full_at[oldest] > now:
                return
            del self._full_at[oldest]

    def __len__(self) -> int:
        """How many entries are kept."""
        return len(self._full_at) + len(self._keys) + len(self._accounts)


def _one_less(running: dict[int, int], of: int) -> None:
    left = running.get(of, 0) - 1
    if left > 0:
        running[of] = left
    else:
        running.pop(of, None)


def _refusal(reached: str, seconds: int) -> ApiError:
    after = f"{seconds} second{'s' if seconds != 1 else ''}"
    message = f"{reached}; try again in {after}. Nothing was charged."
    return ApiError(429, "rate_limit_exceeded", message, headers={"retry-after": str(seconds)})
