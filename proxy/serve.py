"""The one paid path: identify → parse → quote → hold → perform → meter → settle.

Plain ASGI, because every layer between the upstream's bytes and the caller costs each of them. The hold is durable
before anything reaches an upstream, and the settlement before the last byte reaches the caller. The `finally` here is
the net: a call that ended in any other way is counted and settled in the background.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections.abc import Mapping

from starlette.types import Receive, Scope, Send

from ledger.errors import LedgerError
from ledger.model import Claim
from pricing.amounts import format_credits
from proxy.admission import Admitted, admit, in_payer, terms_of
from proxy.caller import (
    ClientGone,
    headers_of,
    identify,
    operation_of,
    read_body,
    recorded_header,
    run_of,
)
from proxy.charge import ledger_refusal
from proxy.config import Config, ModelConfig
from proxy.endpoints import CHAT
from proxy.errors import ApiError, upstream_unavailable
from proxy.exchange import Exchange
from proxy.idempotency import claim_of, refused_again, replayed
from proxy.ids import object_id
from proxy.interruption import Interruptible
from proxy.offers import offers_of
from proxy.operations import chat
from proxy.people.callers import Caller
from proxy.performance import Performance
from proxy.receipts import CallMemo
from proxy.services import Services
from proxy.stream import serve_stream
from proxy.telemetry.calls import CallLine
from proxy.whole import serve_whole

__all__ = ["PaidEndpoint", "find_model"]

_log = logging.getLogger("farebox.call")
_SLOW_SECONDS = 1.0


class PaidEndpoint:
    """`POST /v1/chat/completions` as an ASGI application."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        call = _PaidCall(self._services, scope, receive, send)
        try:
            await call.serve()
        except ClientGone:
            return
        except ApiError as error:
            self._services.metrics.refused(error.code)
            await call.exchange.refuse(error)
        except LedgerError as error:
            _log.error("the ledger did not answer: %s", error)
            refused = ledger_refusal(error)
            self._services.metrics.refused(refused.code)
            await call.exchange.refuse(refused)
        except Exception:
            _log.exception("a call failed inside Farebox")
            failed = ApiError(500, "internal_error", "Something failed inside the server; nothing more is charged")
            await call.exchange.refuse(failed)
        finally:
            call.close()


class _PaidCall:
    """One call from its first byte to its last."""

    def __init__(self, services: Services, scope: Scope, receive: Receive, send: Send) -> None:
        self._services = services
        # The table in force now prices this call to its end.
        self._config: Config = services.config
        self._upstreams = services.upstreams
        self._headers = headers_of(scope)
        self._receive = receive
        self._started_at = time.perf_counter()
        self._own_id = services.ledger.next_id()
        self.exchange = Exchange(send, object_id("req", self._own_id, 0))
        self._life = Interruptible(services.loop)
        self._performance: Performance | None = None
        self._admitted_at = 0.0
        self._watcher: asyncio.Task[None] | None = None
        self._model_name = "-"
        self._caller: Caller | None = None

    async def serve(self) -> None:
        services, headers = self._services, self._headers
        caller = await identify(services, headers)
        self.exchange.request_id = object_id("req", self._own_id, caller.account_id)
        if services.draining:
            raise ApiError(503, "overloaded", "The server is stopping; try again", headers={"connection": "close"})
        if caller.barred:
            raise _suspended()
        services.limits.enter(caller.rate, caller.account_id, services.loop.time())
        self._caller = caller
        body = await read_body(self._receive, headers, self._config.max_body)
        if time.perf_counter() - self._started_at > _SLOW_SECONDS:
            # Since its headers came, its key may have been revoked, and other prices may be in force.
            await self._look_again(caller)
        claim = claim_of(headers, caller, CHAT, body)
        if claim is not None and await self._replay(caller, claim):
            return
        call = chat.parse(body)
        model = find_model(self._config, call.model)
        self._model_name = model.name
        # From here on the client's leaving is noticed: before the upstream is called it costs nothing.
        services.running.add(self._life)
        self._watcher = services.loop.create_task(
            self._life.watch(self._receive, interrupts=model.on_leave == "cancel" and claim is None)
        )
        operation = operation_of(self._config, caller, headers, CHAT, model)
        offers = await offers_of(self._config.table, services.ledger, caller.account_id, call, model, operation)
        run, run_limit = run_of(headers)
        memo = CallMemo(
            endpoint=CHAT,
            model=model.name,
            upstream_model=offers[0].target.model,
            operation=operation,
            app=caller.app,
            thread=recorded_header(headers, b"x-farebox-thread"),
            run=run,
            key=caller.key,
            member=caller.member,
            price_version=self._config.table.version,
            shortened_to=None,
            body_sha256=hashlib.sha256(body).hexdigest(),
            retry_count=_retry_count(headers),
            messages=len(call.messages),
            attributes=offers[0].attributes,
            priced_as=offers[0].priced_as(model.name),
        )
        terms = terms_of(call, model, offers, headers, in_payer(caller, run))
        admitted = await admit(
            services, self._config, caller, self._own_id, offers, terms, memo, call, model, run_limit, claim
        )
        self._performance = performance = Performance(
            services,
            headers,
            self.exchange,
            self._life,
            call,
            model,
            self._upstreams,
            admitted,
            caller.account_id,
        )
        self.exchange.credit_headers = _credit_headers(admitted, streamed=call.stream)
        services.metrics.hold_placed()
        services.changed(caller.account_id)
        self._admitted_at = time.perf_counter()
        if claim is not None:
            # Its answer is for whoever asks again too: a client that reads no more must not hold it up for good.
            patience = min(offer.target.upstream.timeouts.between_bytes for offer in offers) / 2
            self.exchange.keep(patience, pieces=self._config.keep_answers)
        await (serve_stream if call.stream else serve_whole)(performance)

    async def _look_again(self, caller: Caller) -> None:
        again = await identify(self._services, self._headers)
        if again.barred or again.account_id != caller.account_id:
            raise _suspended()
        self._config, self._upstreams = self._services.config, self._services.upstreams

    async def _replay(self, caller: Caller, claim: Claim) -> bool:
        """Answer as the call of this key was, if it was; raises ApiError 409 where it runs yet or is another."""
        kept = await self._services.ledger.answered(caller.account_id, claim.key)
        if kept is None:
            return False
        found, answer = kept
        if found.claim.body != claim.body or not answer:
            raise refused_again(found, claim)
        self.exchange.request_id = object_id("req", found.hold_id, caller.account_id)
        del kept
        await self.exchange.again(*await asyncio.to_thread(replayed, found, answer))
        return True

    def _measure(self, performance: Performance) -> None:
        now, first = time.perf_counter(), performance.first_byte_at
        metrics = self._services.metrics
        metrics.hold_ended()
        self._services.changed(performance.account)
        metrics.call_ended(
            self._model_name,
            performance.offer.target.upstream.name,
            performance.outcome or "abandoned",
            performance.ended.charged if performance.ended is not None else 0,
            performance.estimated,
            self._admitted_at - self._started_at,
            None if first is None else first - self._started_at,
            now - self._started_at,
        )

    def close(self) -> None:
        """Let go of everything, and log the call's line."""
        self._life.close()
        if self._watcher is not None:
            self._services.running.discard(self._life)
            self._watcher.cancel()
        services = self._services
        if self._caller is not None:
            services.limits.leave(self._caller.rate, self._caller.account_id)
        performance = self._performance
        ended = None
        tokens = {}
        if performance is not None:
            performance.close()
            ended, tokens = performance.ended, dict(performance.tokens)
            self._measure(performance)
        services.call_log.add(
            CallLine(
                request=self.exchange.request_id,
                status=self.exchange.status,
                model=self._model_name,
                input_tokens=tokens.get("input_tokens", 0),
                output_tokens=tokens.get("output_tokens", 0),
                credits="0" if ended is None else format_credits(ended.charged),
                milliseconds=(time.perf_counter() - self._started_at) * 1000,
            )
        )


def _suspended() -> ApiError:
    return ApiError(403, "account_suspended", "The account of this key is suspended; its calls are refused")


def find_model(config: Config, name: str) -> ModelConfig:
    """Look a model up; raises ApiError 404 where there is none, 503 where nobody can answer or it has no price."""
    model = config.models.get(name)
    if model is None:
        message = f"There is no model `{name[:80]}` here; GET /v1/models lists them"
        raise ApiError(404, "model_not_found", message, param="model")
    if not config.offers(model):
        raise upstream_unavailable(f"The model `{name}` is not available at the moment.")
    return model


def _retry_count(headers: Mapping[bytes, bytes]) -> int | None:
    """What OpenAI's SDKs say of their retries."""
    text = headers.get(b"x-stainless-retry-count", b"")
    return int(text) if text.isdigit() and len(text) < 5 else None


def _credit_headers(admitted: Admitted, *, streamed: bool) -> list[tuple[bytes, bytes]]:
    headers = []
    if streamed:
        headers.append((b"x-credits-held", format_credits(admitted.held.hold.amount).encode()))
    if admitted.terms.shortened_to is not None:
        headers.append((b"x-credits-max-tokens", b"%d" % admitted.terms.shortened_to))
    return headers
