"""What a key may spend, in its account's days and months."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from typing import Any

import httpx
import pytest

from tests.proxy.chats import DONE, MESSAGES, answer, body_of, finish, usage_chunk, words
from tests.proxy.running import Caller, Server
from tests.proxy.upstream import Gate, Upstream, streamed


@pytest.fixture(autouse=True)
def _answers(upstream: Upstream) -> None:
    upstream.says(answer())


def _account(server: Server, clock: str | None = None, credits: str = "1000") -> str:
    fields = {"name": "Somebody", "clock": clock, "timezone": "Europe/Rome"}
    account: str = server.done("POST", "/accounts", fields)["id"]
    server.done("POST", f"/accounts/{account}/grants", {"bucket": "paid", "credits": credits})
    return account


def _key(server: Server, account: str, credits: Any, per: str) -> tuple[Caller, str]:
    made = server.done("POST", f"/accounts/{account}/keys", {"limit": {"credits": credits, "per": per}})
    assert made["limit"]["per"] == per
    return Caller(server, account, made["key"]), made["id"]


def _limit(server: Server, account: str, key: str) -> dict[str, Any]:
    keys = server.done("GET", f"/accounts/{account}/keys")["data"]
    found: dict[str, Any] = next(row["limit"] for row in keys if row["id"] == key)
    return found


def _refusal(answered: httpx.Response) -> dict[str, Any]:
    assert answered.status_code == 402, answered.text
    error: dict[str, Any] = answered.json()["error"]
    assert error["code"] == "spend_limit_reached"
    return error


async def test_a_limit_of_seven_calls_answers_seven(upstream: Upstream, shared: Server) -> None:
    """Of 50 calls at once 7 are answered and 43 refused, though the account could pay for all."""
    account = _account(shared)
    caller, key = _key(shared, account, "7", "day")
    gate = Gate()
    upstream.says(gate, answer())
    refusals = 0

    async def call(client: httpx.AsyncClient) -> httpx.Response:
        nonlocal refusals
        answered = await client.post(caller.url, content=body_of(model="each"), headers=caller.headers)
        refusals += answered.status_code == 402
        if refusals == 43:
            gate.open()
        return answered

    async with httpx.AsyncClient(timeout=20, limits=httpx.Limits(max_connections=50)) as client:
        answers = await asyncio.gather(*(call(client) for _ in range(50)))
    refused = [answered for answered in answers if answered.status_code != 200]
    assert len(refused) == 43
    for each in refused:
        error = _refusal(each)
        # While the 7 run, waiting may help: one of them may come to less than it holds.
        assert error["limit"] == {"of": "key", "id": key, "credits": "7", "per": "day", "spent": "0", "reserved": "7"}
        assert error["needed"] == "1"
        assert each.headers["x-should-retry"] == "true"
    assert len(upstream.received) == 7
    limit = _limit(shared, account, key)
    assert (limit["credits"], limit["spent"], limit["reserved"]) == ("7", "7", "0")
    assert caller.available == "993"
    late = caller.chat("each")
    assert late.headers["x-should-retry"] == "false"
    assert _refusal(late)["limit"]["spent"] == "7"
    # Another key of the account is not concerned.
    other = Caller(shared, account, shared.done("POST", f"/accounts/{account}/keys", {})["key"])
    assert other.chat("each").status_code == 200
    shared.audit()


async def test_tokens_never_exceed_a_limit(shared: Server) -> None:
    """However calls overlap, what a key was charged is what its limit says, and not above it."""
    account = _account(shared)
    caller, key = _key(shared, account, "1", "ever")
    async with httpx.AsyncClient(timeout=20, limits=httpx.Limits(max_connections=50)) as client:
        answers = await asyncio.gather(
            *(client.post(caller.url, content=body_of(max_tokens=20), headers=caller.headers) for _ in range(100))
        )
    served = sum(answered.status_code == 200 for answered in answers)
    assert 1 <= served <= 24
    limit = _limit(shared, account, key)
    assert (Decimal(limit["spent"]), limit["reserved"]) == (served * Decimal("0.041"), "0")


@pytest.mark.parametrize(
    ("per", "before", "after"),
    [
        # 28 March 2027 has 23 hours in Rome.
        ("day", "2027-03-28T21:59:59Z", "2027-03-28T22:00:00Z"),
        ("month", "2027-03-31T21:59:59Z", "2027-03-31T22:00:00Z"),
    ],
)
def test_a_limit_resets_at_local_midnight(shared: Server, per: str, before: str, after: str) -> None:
    """Of the next day, or of the 1st; what was not spent before is not added."""
    clock = shared.done("POST", "/clocks", {"now": "2027-03-28T10:00:00Z"})["id"]
    account = _account(shared, clock)
    caller, key = _key(shared, account, 2, per)
    assert [caller.chat("each").status_code for _ in range(2)] == [200, 200]
    for now in (None, before):
        if now is not None:
            shared.done("POST", f"/clocks/{clock}/advance", {"to": now})
        error = _refusal(caller.chat("each"))
        assert error["resets_at"] == after
        assert after in error["message"]
    shared.done("POST", f"/clocks/{clock}/advance", {"to": after})
    assert _limit(shared, account, key)["spent"] == "0"
    assert [caller.chat("each").status_code for _ in range(3)] == [200, 200, 402]
    assert caller.available == "996"


def test_a_limit_for_ever_does_not_reset(shared: Server) -> None:
    """Also years later."""
    clock = shared.done("POST", "/clocks", {"now": "2027-03-28T10:00:00Z"})["id"]
    account = _account(shared, clock)
    caller, _ = _key(shared, account, "1", "ever")
    assert caller.chat("each").status_code == 200
    shared.done("POST", f"/clocks/{clock}/advance", {"to": "2035-01-01T00:00:00Z"})
    refused = caller.chat("each")
    assert _refusal(refused)["resets_at"] is None
    assert refused.headers["x-should-retry"] == "false"


def test_a_limit_of_nothing_lets_free_calls_pass(shared: Server) -> None:
    """Zero is a limit too; a call that costs nothing is within it."""
    account = _account(shared)
    caller, _ = _key(shared, account, 0, "day")
    assert _refusal(caller.chat("each"))["limit"]["credits"] == "0"
    assert caller.chat("gift").status_code == 200


def test_a_refund_gives_back_in_its_own_period(shared: Server) -> None:
    """Refunded on its day a call makes room for another; refunded the day after it makes none."""
    clock = shared.done("POST", "/clocks", {"now": "2027-03-28T10:00:00Z"})["id"]
    account = _account(shared, clock)
    caller, key = _key(shared, account, "2", "day")
    first, second = caller.chat("each"), caller.chat("each")
    _refusal(caller.chat("each"))
    refund = {"credits": "1", "reason": "It was wrong"}
    shared.done("POST", f"/receipts/{first.headers['x-request-id']}/refund", refund)
    assert _limit(shared, account, key)["spent"] == "1"
    assert caller.chat("each").status_code == 200
    _refusal(caller.chat("each"))
    shared.done("POST", f"/clocks/{clock}/advance", {"to": "2027-03-29T10:00:00Z"})
    assert caller.chat("each").status_code == 200
    shared.done("POST", f"/receipts/{second.headers['x-request-id']}/refund", refund)
    assert _limit(shared, account, key)["spent"] == "1"
    assert [caller.chat("each").status_code for _ in range(2)] == [200, 402]


def test_a_call_is_shortened_to_what_the_limit_pays(upstream: Upstream, shared: Server) -> None:
    """As it is to what the credits pay; (0.5 - 9 x 0.001) / 0.003 = 163.7."""
    account = _account(shared)
    caller, key = _key(shared, account, "0.5", "month")
    answered = caller.chat()
    assert answered.headers["x-credits-max-tokens"] == "163"
    assert upstream.last.document["max_completion_tokens"] == 163
    # 0.459 are left: (0.459 - 0.009) / 0.003 = 150. An explicit limit above that is refused.
    assert _limit(shared, account, key)["spent"] == "0.041"
    error = _refusal(caller.chat(max_tokens=151))
    assert (error["needed"], error["limit"]["spent"]) == ("0.462", "0.041")
    assert caller.chat(max_tokens=150).status_code == 200


def test_the_quote_says_what_a_limit_lets_through(shared: Server) -> None:
    """As the call that is then made is counted and shortened, so is its quote, though the account is rich."""
    caller, _ = _key(shared, _account(shared), "0.5", "month")
    body = {"endpoint": "/v1/chat/completions", "body": {"model": "words", "messages": MESSAGES}}
    quote = shared.http.post(f"{shared.base}/v1/credits/quote", json=body, headers=caller.headers).json()
    figures = (quote["fits"], quote["shortened_to"], quote["max_tokens_affordable"], quote["most"])
    assert figures == (True, 163, 163, "0.498")


def test_own_running_calls_may_stand_in_the_way(upstream: Upstream, shared: Server) -> None:
    """Then the refusal says that trying again helps, and afterwards it does."""
    account = _account(shared)
    caller, key = _key(shared, account, "4", "day")
    gate = Gate()
    upstream.says(streamed(words("one"), gate, finish(), usage_chunk(), DONE))
    # 1000 x 0.003 are reserved, and the input's cheap bound; the call that is refused is counted: 3 + 0.009.
    stream = caller.openai.chat.completions.create(model="words", messages=MESSAGES, stream=True)
    gate.reached()
    reserved = _limit(shared, account, key)["reserved"]
    assert reserved == caller.balance()["held"]
    assert Decimal("3.009") <= Decimal(reserved) < 4
    refused = caller.chat(max_tokens=1000)
    error = _refusal(refused)
    assert (error["limit"]["spent"], error["limit"]["reserved"], error["needed"]) == ("0", reserved, "3.009")
    assert (refused.headers["x-should-retry"], refused.headers["retry-after"]) == ("true", "2")
    gate.open()
    assert len(list(stream)) == 2
    assert caller.nothing_held()
    limit = _limit(shared, account, key)
    assert (limit["spent"], limit["reserved"]) == ("0.041", "0")
    upstream.says(answer())
    assert caller.chat(max_tokens=1000).status_code == 200


def test_a_call_over_midnight_counts_on_the_day_it_began(upstream: Upstream, shared: Server) -> None:
    """What it reserved and what it was charged is of no concern to the day on which it ends."""
    clock = shared.done("POST", "/clocks", {"now": "2027-03-28T21:59:59Z"})["id"]
    account = _account(shared, clock)
    caller, key = _key(shared, account, "4", "day")
    gate = Gate()
    upstream.says(streamed(words("one"), gate, finish(), usage_chunk(), DONE))
    stream = caller.openai.chat.completions.create(model="words", messages=MESSAGES, stream=True)
    gate.reached()
    shared.done("POST", f"/clocks/{clock}/advance", {"to": "2027-03-28T22:00:01Z"})
    limit = _limit(shared, account, key)
    assert (limit["spent"], limit["reserved"], limit["resets_at"]) == ("0", "0", "2027-03-29T22:00:00Z")
    upstream.says(answer())
    assert caller.chat("each").status_code == 200
    gate.open()
    assert len(list(stream)) == 2
    assert caller.nothing_held()
    limit = _limit(shared, account, key)
    assert (limit["spent"], limit["reserved"]) == ("1", "0")
    # 1000 - 1 - 0.041
    assert caller.available == "998.959"


def test_a_failed_call_spends_nothing_of_a_limit(upstream: Upstream, shared: Server) -> None:
    """What it reserved comes back whole."""
    account = _account(shared)
    caller, key = _key(shared, account, "1", "ever")
    upstream.says(b"HTTP/1.1 500 Broken\r\ncontent-length: 0\r\n\r\n")
    assert caller.chat("each").status_code == 502
    limit = _limit(shared, account, key)
    assert (limit["spent"], limit["reserved"]) == ("0", "0")
    upstream.says(answer())
    assert caller.chat("each").status_code == 200


def test_usage_above_the_hold_counts_in_full(upstream: Upstream, shared: Server) -> None:
    """It is charged, so it is spent, above the limit too; and nothing more is let through."""
    account = _account(shared)
    caller, key = _key(shared, account, "1", "ever")
    upstream.says(answer(usage={"prompt_tokens": 20, "completion_tokens": 1000, "total_tokens": 1020}))
    assert caller.chat(max_tokens=20).headers["x-credits-charged"] == "3.02"
    assert _limit(shared, account, key)["spent"] == "3.02"
    assert _refusal(caller.chat("each"))["limit"]["spent"] == "3.02"


def test_the_account_comes_before_the_limit_only_where_it_is_poorer(shared: Server) -> None:
    """Where credits lack, it is credits that are asked for; where both lack, either is true but neither passes."""
    account = _account(shared, credits="0.5")
    caller, key = _key(shared, account, "100", "day")
    refused = caller.chat("each")
    assert (refused.status_code, refused.json()["error"]["code"]) == (402, "insufficient_credits")
    assert _limit(shared, account, key)["reserved"] == "0"
