"""One admitted call while its upstream answers: what the whole and the streamed answer have in common."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from contextlib import aclosing, suppress

from ledger.errors import LedgerError
from ledger.ids import microseconds
from ledger.outcomes import Ended
from pricing.costs import cost_of
from pricing.usage import Usage
from proxy.admission import Admitted, count_input
from proxy.charge import Charge
from proxy.config import ModelConfig
from proxy.errors import ApiError
from proxy.exchange import Exchange
from proxy.idempotency import Answer
from proxy.interruption import CLIENT_LEFT, LAPSED, TIMED_OUT, Interruptible
from proxy.operations.chat import ChatCall
from proxy.operations.chat_stream import ChatStream
from proxy.receipts import UPSTREAM_BROKE, UPSTREAM_ERROR
from proxy.services import Services
from proxy.upstream.failures import PASSED, failure
from proxy.upstream.upstream import Upstream, UpstreamFailed, UpstreamResponse

__all__ = ["Performance", "interruption", "read_error"]

_FORWARDED = ("content-type", "accept", "traceparent", "openai-beta")
_LONG = 16_000
_MOST_ERROR_BYTES = 1_000_000
_PLAUSIBLE = 10**8
"""Tokens beyond this are looked at twice before they are charged."""


class Performance:
    """A call between its hold and its end.

    offer: who is to answer now. called: they may have seen it. stream: what they have streamed.
    """

    def __init__(
        self,
        services: Services,
        headers: Mapping[bytes, bytes],
        exchange: Exchange,
        life: Interruptible,
        call: ChatCall,
        model: ModelConfig,
        upstreams: Mapping[str, Upstream],
        admitted: Admitted,
        account: int,
    ) -> None:
        self.exchange = exchange
        self.life = life
        self.call = call
        self.model = model
        self.terms = admitted.terms
        self.offer, *self._others = admitted.offers
        self.account = account
        self.charge = Charge(
            services.ledger,
            services.pending,
            account,
            admitted.held,
            self.offer.card,
            admitted.memo,
            admitted.terms.run,
        )
        # Prices are of this moment, and so are costs.
        self._admitted_at = microseconds()
        self.called = False
        self.stream: ChatStream | None = None
        self.ended: Ended | None = None
        self.outcome = ""
        self.estimated = False
        self.first_byte_at: float | None = None
        self._opened_at = 0.0
        self._attempts: list[dict[str, object]] = []
        self._counted: dict[str, object] = {}
        self.tokens: Usage = {}
        self._services = services
        self._upstreams = upstreams
        self._memo = admitted.memo
        self._headers = headers

    @property
    def left(self) -> bool:
        """Whether the client has gone."""
        return self.life.left

    async def open(self) -> UpstreamResponse:
        """Send the call upstream; raises UpstreamFailed."""
        self.called = True
        self._opened_at = time.perf_counter()
        target = self.offer.target
        upstream = target.upstream
        self.life.within(upstream.timeouts.first_byte, upstream.timeouts.total)
        headers = {"content-type": "application/json"}
        for name in (*_FORWARDED, *upstream.forward_headers):
            value = self._headers.get(name.encode())
            if value is not None:
                headers[name] = value.decode("latin-1")
        limit = target.told(self.call.limit, self.terms.shortened_to)
        request = self.call.rewritten(target.model, limit, upstream.output_limit)
        attempt: dict[str, object] = {"upstream": upstream.name, "model": target.model, "status": None}
        self._attempts.append(attempt)
        response = await self._upstreams[upstream.name].open("/chat/completions", request, headers)
        attempt["status"] = response.status
        return response

    def falls_back(self, problem: ApiError) -> bool:
        """Let the next who may answer be asked, after a failure that is neither the caller's nor seen by anybody.

        Returns whether there is somebody. Nothing is owed to whoever failed.
        """
        if (
            not self._others
            or problem.status in PASSED
            or self.exchange.begun
            or self.left
            or self.life.reason not in (None, TIMED_OUT)
            or self._services.draining
        ):
            return False
        self.offer = self._others.pop(0)
        self.called, self.first_byte_at = False, None
        self.charge.sold_at(self.offer.card, self._memo.answered_by(self.offer))
        self.life.resume()
        return True

    def arrived(self) -> None:
        """Some of the answer is here: move the deadline on, and note the first time."""
        if self.first_byte_at is None:
            self.first_byte_at = time.perf_counter()
        self.life.within(self.offer.target.upstream.timeouts.between_bytes)

    def _performed(self) -> dict[str, object]:
        """How the upstream did it: never content, only figures."""
        first = self.first_byte_at
        return {
            "attempts": self._attempts,
            "first_byte_ms": None if first is None else round((first - self._opened_at) * 1000, 1),
            "ended_ms": round((time.perf_counter() - self._opened_at) * 1000, 1) if self._attempts else None,
            **self._counted,
        }

    async def count(self, texts: list[str]) -> Usage:
        """Farebox's own count, where the provider's figures are missing or impossible."""
        counter = self._services.counter
        counted = await count_input(counter, self.call, self.model)
        self._counted["input_by_role"] = counted.by_role
        return {
            "input_tokens": counted.total,
            "output_tokens": await counter.count_aside(texts),
        }

    def believed(self, usage: Usage | None) -> Usage | None:
        """Large figures are believed, up to what can be charged at all."""
        if usage is not None and max(usage.values()) > _PLAUSIBLE and not self.charge.can_charge(usage):
            return None
        return usage

    async def settle(
        self,
        usage: Usage,
        ended: str,
        *,
        estimated: bool,
        answered: bool = True,
        or_void: bool = False,
        answer: bytes | None = None,
    ) -> Ended:
        """Charge the call, as `Charge.settle` does."""
        self.tokens = usage
        self.outcome, self.estimated = ended, estimated
        asked = dict.fromkeys(self.call.needs, 1) if answered and self.call.needs else {}
        counted = {"request": 1, **asked, **usage}
        costs = self.offer.target.costs
        if costs is not None:
            cost = cost_of(costs, counted, self.offer.attributes, self._admitted_at, answered=answered)
            self._counted["cost"] = self._attempts[-1]["cost"] = cost
            self._counted["usd"] = str(self._services.config.credit.usd)
        self.ended = await self.charge.settle(
            counted,
            ended,
            estimated=estimated,
            answered=answered,
            or_void=or_void,
            performed=self._performed(),
            answer=answer,
        )
        return self.ended

    async def kept(self, answer: Answer) -> bytes:
        """What is kept of an answer; nothing where the operator wants no content stored."""
        if not self._services.config.keep_answers:
            return b""
        # In a thread, where a long one stops nobody.
        return await asyncio.to_thread(answer.packed) if len(answer.body) > _LONG else answer.packed()

    async def void(self, ended: str = UPSTREAM_ERROR) -> None:
        """End the call without a charge; where the store fails that goes on in the background."""
        self.outcome = ended
        with suppress(LedgerError):
            self.ended = await self.charge.void(ended, self._performed())

    def close(self) -> None:
        """Let go of everything; a charge that nobody ended is ended in the background."""
        if not self.charge.ending:
            received = self.stream.texts() if self.stream is not None else []
            self._services.pending.start(self._end_abandoned(received))

    async def _end_abandoned(self, received: list[str]) -> None:
        if not self.called or not (self.left or any(received)):
            await self.charge.void(CLIENT_LEFT if self.left else UPSTREAM_ERROR)
            return
        ended = CLIENT_LEFT if self.left else UPSTREAM_BROKE
        await self.settle(await self.count(received), ended, estimated=True, answered=any(received))


async def read_error(response: UpstreamResponse) -> bytes:
    """Read an error's body, as far as one can be expected to reach."""
    body = b""
    async with aclosing(response.chunks()) as chunks:
        async for chunk in chunks:
            body += chunk
            if len(body) > _MOST_ERROR_BYTES:
                break
    return body


def interruption(reason: str) -> ApiError:
    """Say why a call was ended from outside, where that was not its client's doing."""
    if reason == TIMED_OUT:
        return failure(UpstreamFailed("timeout", "deadline"))
    if reason == LAPSED:
        return ApiError(
            503, "ledger_unavailable", "Credits cannot be debited at the moment, so the call is cut; try again"
        )
    return ApiError(503, "upstream_unavailable", "The server is stopping; try again")
