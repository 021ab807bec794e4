"""Calls at the same moment never spend more than there is."""

from __future__ import annotations

import asyncio
from decimal import Decimal

import httpx
import pytest

from tests.proxy.chats import DONE, answer, body_of, finish, usage_chunk, words
from tests.proxy.running import Server
from tests.proxy.upstream import Gate, Upstream, streamed

_CALLS = 200


@pytest.mark.parametrize("stream", [False, True])
async def test_credits_for_seven_calls_pay_for_seven(upstream: Upstream, shared: Server, stream: bool) -> None:
    """Of 200 calls at once 7 are answered and 193 refused, while the 7 run; nothing is left, nothing is held."""
    caller = shared.caller("7")
    gate = Gate()
    upstream.says([gate, *(streamed(words("one"), finish(), usage_chunk(), DONE) if stream else [answer()])])
    refusals = 0

    async def call(client: httpx.AsyncClient) -> httpx.Response:
        nonlocal refusals
        answered = await client.post(caller.url, content=body_of(model="each", stream=stream), headers=caller.headers)
        if answered.status_code == 402:
            refusals += 1
            if refusals == _CALLS - 7:
                gate.open()
        return answered

    limits = httpx.Limits(max_connections=_CALLS)
    async with httpx.AsyncClient(timeout=20, limits=limits) as client:
        answers = await asyncio.gather(*(call(client) for _ in range(_CALLS)))
    assert sorted(answered.status_code for answered in answers) == [200] * 7 + [402] * 193
    assert {answered.json()["error"]["code"] for answered in answers if answered.status_code == 402} == {"credits_held"}
    assert len(upstream.received) == 7
    balance = caller.balance()
    assert (balance["available"], balance["held"], balance["debt"]) == ("0", "0", "0")
    assert len({answered.headers["x-request-id"] for answered in answers}) == _CALLS
    for answered in answers:
        if answered.status_code == 200:
            assert caller.receipt(answered)["total"] == "1"
    shared.audit()


async def test_tokens_are_spent_to_the_last_credit_and_not_beyond(upstream: Upstream, shared: Server) -> None:
    """However calls overlap, what was charged and what is left add up to what was granted."""
    caller = shared.caller("1")
    upstream.says(answer())
    async with httpx.AsyncClient(timeout=20, limits=httpx.Limits(max_connections=50)) as client:
        answers = await asyncio.gather(
            *(client.post(caller.url, content=body_of(max_tokens=20), headers=caller.headers) for _ in range(_CALLS))
        )
    served = sum(answered.status_code == 200 for answered in answers)
    assert {answered.status_code for answered in answers} == {200, 402}
    balance = caller.balance()
    # No number of calls at 0.041 comes out at more than 1: each holds 0.009 + 20 x 0.003 before it is made.
    assert balance["available"] == format_thousandths(1000 - served * 41)
    assert served <= 24
    assert (balance["held"], balance["debt"]) == ("0", "0")
    assert caller.chat(max_tokens=1000).status_code == 402


def format_thousandths(number: int) -> str:
    """Write thousandths of a credit as the API does."""
    return f"{Decimal(number) / 1000:f}"
