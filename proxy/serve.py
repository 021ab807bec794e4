"""The one paid path: identify → parse → quote → hold → perform → meter → settle.

Plain ASGI, because every layer between the upstream's bytes and the caller costs each of them. The hold is durable
before anything reaches an upstream, and the settlement before the last byte reaches the caller. The `finally` here is
the net: a call that ended in any other way is counted and settled in the background.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing, suppress
from dataclasses import replace

from starlette.types import Receive, Scope, Send

from ledger.errors import LedgerError
from ledger.model import Ended, Held
from pricing.amounts import format_credits
from pricing.usage import Usage
from proxy.caller import ClientGone, headers_of, identify, read_body, recorded_header, refuse_later_headers
from proxy.charge import Charge, Terms, ledger_refusal, place, refused, shortened
from proxy.config import Config, ModelConfig
from proxy.errors import ApiError, bad_request, upstream_error, upstream_unavailable
from proxy.ids import object_id
from proxy.interruption import CLIENT_LEFT, DRAINED, TIMED_OUT, Interrupted, Interruptible
from proxy.operations import chat
from proxy.operations.chat import ChatCall
from proxy.operations.chat_stream import ChatStream, MalformedStream
from proxy.people.people import Caller
from proxy.receipts import ANSWERED, UPSTREAM_BROKE, UPSTREAM_ERROR, CallMemo
from proxy.services import Services
from proxy.telemetry.calls import CallLine
from proxy.upstream.failures import failure, refusal
from proxy.upstream.upstream import UpstreamFailed, UpstreamResponse

__all__ = ["PaidEndpoint"]

_log = logging.getLogger("farebox.call")
_LATE_USAGE_SECONDS = 0.25
_LEFT_USAGE_SECONDS = 2.0
_MOST_ERROR_BYTES = 1_000_000
_PLAUSIBLE = 10**8
_FORWARDED = ("content-type", "accept", "traceparent", "openai-beta")
_RETURNED = ("content-type", "retry-after", "openai-processing-ms", "openai-version")


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
            await call.refuse(error)
        except Exception:
            _log.exception("a call failed inside Farebox")
            await call.refuse(
                ApiError(500, "internal_error", "Something failed inside the server; the call's hold is released")
            )
        finally:
            call.close()


class _PaidCall:
    """One call from its first byte to its last."""

    def __init__(self, services: Services, scope: Scope, receive: Receive, send: Send) -> None:
        self._services = services
        self._config: Config = services.config
        self._headers = headers_of(scope)
        self._receive = receive
        self._send = send
        self._started_at = time.perf_counter()
        self._own_id = services.ledger.next_id()
        self._request_id = object_id("req", self._own_id, 0)
        self._life = Interruptible(services.loop)
        self._watcher: asyncio.Task[None] | None = None
        self._charge: Charge | None = None
        self._stream: ChatStream | None = None
        self._status = 0
        self._model_name = "-"
        self._ended: Ended | None = None
        self._tokens: Usage = {}
        self._called = False
        self._left = False
        self._begun = False

    # -- the path

    async def serve(self) -> None:
        services, headers = self._services, self._headers
        caller = await identify(services, headers)
        self._request_id = object_id("req", self._own_id, caller.account_id)
        if services.draining:
            raise ApiError(503, "overloaded", "The server is stopping; try again", headers={"connection": "close"})
        refuse_later_headers(headers)
        body = await read_body(self._receive, headers, self._config.max_body)
        self._call = call = chat.parse(body)
        self._model = model = self._find_model(call.model)
        charge, limit = await self._admit(caller, call, model)
        self._charge = charge
        services.running.add(self._life)
        self._watcher = services.loop.create_task(self._watch())
        request = call.rewritten(model.upstream_model, limit, model.upstream.output_limit)
        if call.stream:
            await self._serve_stream(call, model, charge, request)
        else:
            await self._serve_whole(call, model, charge, request)

    def _find_model(self, name: str) -> ModelConfig:
        model = self._config.models.get(name)
        if model is None:
            raise ApiError(
                404,
                "model_not_found",
                f"There is no model `{name[:80]}` here; GET /v1/models lists them",
                param="model",
            )
        self._model_name = name
        if not model.upstream.on:
            raise upstream_unavailable(f"The model `{name}` is not available at the moment.")
        return model

    async def _admit(self, caller: Caller, call: ChatCall, model: ModelConfig) -> tuple[Charge, int | None]:
        """Hold the call's upper bound; returns the charge and the output limit to set upstream, if any."""
        fit = self._headers.get(b"x-farebox-fit")
        if fit not in (None, b"clamp"):
            raise bad_request("the header X-Farebox-Fit must be `clamp`", "X-Farebox-Fit")
        most_input = model.max_input_tokens or len(call.body) * 1000
        terms = Terms(
            card=model.card,
            input_tokens=min(call.input_bound(model.part_tokens), most_input),
            limit=model.hold_output_tokens if call.limit is None else min(call.limit, model.max_output_tokens),
            least=model.min_output_tokens,
            choices=call.choices,
            may_shorten=call.limit is None or fit is not None,
        )
        limit = None
        if model.enforce and (call.limit is None or call.limit > model.max_output_tokens):
            limit = model.max_output_tokens
        memo = self._memo(caller, model, None)
        ledger = self._services.ledger
        try:
            outcome = await place(ledger, caller.account_id, self._own_id, terms, memo, exact=False)
            if not isinstance(outcome, Held) and outcome.reason in ("large", "held", "insufficient"):
                counted = await self._count_input(call, model)
                terms = replace(terms, input_tokens=min(terms.input_tokens, counted))
                outcome = await place(ledger, caller.account_id, self._own_id, terms, memo, exact=True)
                if not isinstance(outcome, Held) and outcome.reason == "insufficient" and terms.may_shorten:
                    fitting = shortened(terms, outcome)
                    if fitting is not None:
                        limit = fitting
                        memo = self._memo(caller, model, fitting)
                        terms = replace(terms, limit=fitting)
                        outcome = await place(ledger, caller.account_id, self._own_id, terms, memo, exact=True)
        except LedgerError as error:
            raise ledger_refusal(error) from error
        if not isinstance(outcome, Held):
            raise refused(outcome, terms, self._config.top_up_url, self._config.credit.plural)
        self._shortened_to = memo.shortened_to
        charge = Charge(ledger, self._services.pending, caller.account_id, outcome, model.card, memo)
        return charge, limit

    def _memo(self, caller: Caller, model: ModelConfig, shortened_to: int | None) -> CallMemo:
        return CallMemo(
            endpoint=chat.ENDPOINT,
            model=model.name,
            upstream_model=model.upstream_model,
            app=caller.app,
            thread=recorded_header(self._headers, b"x-farebox-thread"),
            run=recorded_header(self._headers, b"x-farebox-run"),
            key=object_id("key", caller.key_id, caller.account_id),
            price_version=self._config.table.version,
            shortened_to=shortened_to,
        )

    async def _watch(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._left = True
        if self._model.on_leave == "cancel":
            self._life.interrupt(CLIENT_LEFT)

    # -- a whole answer

    async def _serve_whole(self, call: ChatCall, model: ModelConfig, charge: Charge, request: bytes) -> None:
        try:
            with self._life:
                response = await self._open(model, request)
                try:
                    if response.status != 200:
                        raise refusal(response.status, response.headers, await _read_error(response))
                    body = await self._read_whole(response, model)
                finally:
                    response.close()
        except Interrupted as stop:
            await self._end_unanswered(stop.reason, call, model, charge)
            return
        except UpstreamFailed as error:
            await self._void(charge)
            raise failure(error) from error
        except ApiError:
            await self._void(charge)
            raise
        answer = chat.read_answer(body)
        if answer is None:
            await self._void(charge)
            raise upstream_error()
        usage = self._believed(answer.usage, charge)
        estimated = usage is None
        if usage is None:
            usage = await self._count(call, model, answer.texts())
        try:
            ended = await self._settle(
                charge, usage, CLIENT_LEFT if self._left else ANSWERED, estimated=estimated, or_void=True
            )
        except LedgerError as error:
            raise ledger_refusal(error) from error
        await self._start(
            200,
            response.headers,
            {
                "content-length": str(len(body)),
                "x-credits-charged": format_credits(ended.charged),
                "x-credits-available": format_credits(ended.available),
            },
        )
        await self._send({"type": "http.response.body", "body": body})

    async def _read_whole(self, response: UpstreamResponse, model: ModelConfig) -> bytes:
        pieces = []
        async with aclosing(response.chunks()) as chunks:
            async for chunk in chunks:
                self._life.within(model.upstream.timeouts.between_bytes)
                pieces.append(chunk)
        return b"".join(pieces)

    async def _end_unanswered(self, reason: str, call: ChatCall, model: ModelConfig, charge: Charge) -> None:
        if reason != CLIENT_LEFT:
            await self._void(charge)
            raise _interruption(reason)
        if not self._called:
            await self._void(charge, CLIENT_LEFT)
            return
        with suppress(LedgerError):
            await self._settle(charge, await self._count(call, model, []), CLIENT_LEFT, estimated=True, answered=False)

    # -- a stream

    async def _serve_stream(self, call: ChatCall, model: ModelConfig, charge: Charge, request: bytes) -> None:
        self._stream = stream = ChatStream(call.choices)
        response: UpstreamResponse | None = None
        problem: ApiError | None = None
        left = False
        try:
            try:
                with self._life:
                    response = await self._open(model, request)
                    if response.status != 200:
                        raise refusal(response.status, response.headers, await _read_error(response))
                    if not response.headers.get("content-type", "").lower().startswith("text/event-stream"):
                        raise upstream_error()
                    async with aclosing(response.chunks()) as chunks:
                        await self._relay(stream, response, chunks, model)
                if not (stream.done or stream.complete) or stream.error is not None:
                    problem = upstream_error("The model's answer broke off.")
            except Interrupted as stop:
                left = stop.reason == CLIENT_LEFT
                problem = None if left else _interruption(stop.reason)
                if left and response is not None and stream.complete and stream.awaits_usage:
                    await _await_usage(stream, response.chunks(), _LEFT_USAGE_SECONDS)
            except (UpstreamFailed, MalformedStream) as error:
                problem = failure(error) if isinstance(error, UpstreamFailed) else upstream_error()
            except ApiError as error:
                problem = error
            try:
                await self._end_stream(call, model, charge, stream, problem, left=left)
            except LedgerError as error:
                await self.refuse(ledger_refusal(error))
            if response is not None and stream.done:
                await response.finish()
        finally:
            if response is not None:
                response.close()

    async def _relay(
        self, stream: ChatStream, response: UpstreamResponse, chunks: AsyncIterator[bytes], model: ModelConfig
    ) -> None:
        """Pass events on until the end, an error, or the upstream closes."""
        between = model.upstream.timeouts.between_bytes
        async for chunk in chunks:
            self._life.within(between)
            await self._pass_on(response, stream.feed(chunk))
            if stream.done or stream.error is not None:
                break
        else:
            await self._pass_on(response, stream.end())
        if stream.done and stream.awaits_usage:
            await _await_usage(stream, chunks, _LATE_USAGE_SECONDS)

    async def _pass_on(self, response: UpstreamResponse, events: bytes) -> None:
        if not events:
            return
        self._life.sending = True
        await self._start(200, response.headers, {})
        await self._send({"type": "http.response.body", "body": events, "more_body": True})
        self._life.sending = False

    async def _end_stream(
        self,
        call: ChatCall,
        model: ModelConfig,
        charge: Charge,
        stream: ChatStream,
        problem: ApiError | None,
        *,
        left: bool,
    ) -> None:
        """Settle a stream that has ended, and only then send its last bytes."""
        if left and not self._called:
            await self._void(charge, CLIENT_LEFT)
            return
        whole = stream.done or stream.complete
        usage = self._believed(stream.usage(), charge) if whole and problem is None else None
        if problem is None and not left and usage is None and not stream.started:
            problem = upstream_error()
        if problem is not None and not any(stream.texts()):
            await self._void(charge)
            raise problem
        estimated = usage is None
        if usage is None:
            usage = await self._count(call, model, stream.texts())
        ended = await self._settle(
            charge,
            usage,
            UPSTREAM_BROKE if problem is not None else CLIENT_LEFT if left or self._left else ANSWERED,
            estimated=estimated,
            answered=not left or whole or any(stream.texts()),
        )
        if problem is not None:
            raise ApiError(
                problem.status, "upstream_error", "The model's answer broke off; what had arrived was charged."
            )
        tail = b"data: [DONE]\n\n"
        if call.include_usage:
            credits = {
                "charged": format_credits(ended.charged),
                "available": format_credits(ended.available),
                "estimated": estimated,
            }
            tail = stream.usage_chunk(call.model, self._request_id, usage if estimated else None, credits) + tail
        await self._start(200, {"content-type": "text/event-stream"}, {})
        await self._send({"type": "http.response.body", "body": tail})

    # -- pieces

    async def _open(self, model: ModelConfig, request: bytes) -> UpstreamResponse:
        self._called = True
        timeouts = model.upstream.timeouts
        self._life.within(timeouts.first_byte, timeouts.total)
        headers = {"content-type": "application/json"}
        for name in (*_FORWARDED, *model.upstream.forward_headers):
            value = self._headers.get(name.encode())
            if value is not None:
                headers[name] = value.decode("latin-1")
        return await self._services.upstreams[model.upstream.name].open("/chat/completions", request, headers)

    async def _count_input(self, call: ChatCall, model: ModelConfig) -> int:
        counted = await self._services.counter.count_aside(call.input_texts())
        return counted + call.input_overhead(model.part_tokens)

    async def _count(self, call: ChatCall, model: ModelConfig, texts: list[str]) -> Usage:
        """Farebox's own count, where the provider's figures are missing or impossible."""
        return {
            "input_tokens": await self._count_input(call, model),
            "output_tokens": await self._services.counter.count_aside(texts),
        }

    def _believed(self, usage: Usage | None, charge: Charge) -> Usage | None:
        """Large figures are believed, up to what can be charged at all."""
        if usage is not None and max(usage.values()) > _PLAUSIBLE and not charge.can_charge(usage):
            return None
        return usage

    async def _settle(
        self, charge: Charge, usage: Usage, ended: str, *, estimated: bool, answered: bool = True, or_void: bool = False
    ) -> Ended:
        self._tokens = usage
        self._ended = await charge.settle(
            {"request": 1, **usage}, ended, estimated=estimated, answered=answered, or_void=or_void
        )
        return self._ended

    async def _void(self, charge: Charge, ended: str = UPSTREAM_ERROR) -> None:
        # Voiding goes on in the background if the store fails; the caller's answer does not depend on it.
        with suppress(LedgerError):
            self._ended = await charge.void(ended)

    async def _start(self, status: int, upstream: Mapping[str, str], own: Mapping[str, str]) -> None:
        if self._begun:
            return
        self._begun = True
        self._status = status
        headers = [(b"x-request-id", self._request_id.encode())]
        for name in _RETURNED:
            value = upstream.get(name)
            if value is not None:
                headers.append((name.encode(), value.encode("latin-1")))
        charge = self._charge
        if charge is not None:
            if self._call.stream:
                headers.append((b"x-credits-held", format_credits(charge.held.hold.amount).encode()))
            if self._shortened_to is not None:
                headers.append((b"x-credits-max-tokens", b"%d" % self._shortened_to))
        headers += [(name.encode(), value.encode()) for name, value in own.items()]
        await self._send({"type": "http.response.start", "status": status, "headers": headers})

    async def refuse(self, error: ApiError) -> None:
        """Answer with an error: as the whole answer, or as a last event where the answer has begun."""
        if self._begun:
            body = ApiError(502, "upstream_error", error.message, extra=error.extra).envelope(self._request_id)
            await self._send({"type": "http.response.body", "body": b"data: " + body + b"\n\n"})
            return
        body = error.envelope(self._request_id)
        self._begun = True
        self._status = error.status
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(body)),
            (b"x-request-id", self._request_id.encode()),
            *((name.encode(), value.encode("latin-1")) for name, value in error.headers.items()),
        ]
        await self._send({"type": "http.response.start", "status": error.status, "headers": headers})
        await self._send({"type": "http.response.body", "body": body})

    def close(self) -> None:
        """Let go of everything; a charge that nobody ended is ended in the background."""
        self._life.close()
        self._services.running.discard(self._life)
        if self._watcher is not None:
            self._watcher.cancel()
        charge = self._charge
        if charge is not None and not charge.ending:
            self._services.pending.start(self._end_abandoned(charge))
        ended = self._ended
        self._services.call_log.add(
            CallLine(
                request=self._request_id,
                status=self._status,
                model=self._model_name,
                input_tokens=self._tokens.get("input_tokens", 0),
                output_tokens=self._tokens.get("output_tokens", 0),
                credits="0" if ended is None else format_credits(ended.charged),
                milliseconds=(time.perf_counter() - self._started_at) * 1000,
            )
        )

    async def _end_abandoned(self, charge: Charge) -> None:
        if not self._called:
            await charge.void(CLIENT_LEFT)
            return
        texts = self._stream.texts() if self._stream is not None else []
        if not self._left and not any(texts):
            await charge.void(UPSTREAM_ERROR)
            return
        usage = await self._count(self._call, self._model, texts)
        ended = CLIENT_LEFT if self._left else UPSTREAM_BROKE
        await charge.settle({"request": 1, **usage}, ended, estimated=True, answered=any(texts))


async def _read_error(response: UpstreamResponse) -> bytes:
    body = b""
    async with aclosing(response.chunks()) as chunks:
        async for chunk in chunks:
            body += chunk
            if len(body) > _MOST_ERROR_BYTES:
                break
    return body


async def _await_usage(stream: ChatStream, chunks: AsyncIterator[bytes], seconds: float) -> None:
    """Read on for figures that come late; nothing of it is passed on."""
    with suppress(TimeoutError, UpstreamFailed, MalformedStream):
        async with asyncio.timeout(seconds):
            async for chunk in chunks:
                stream.feed(chunk)
                if not stream.awaits_usage:
                    return


def _interruption(reason: str) -> ApiError:
    if reason == TIMED_OUT:
        return failure(UpstreamFailed("timeout", "deadline"))
    assert reason == DRAINED
    return ApiError(503, "upstream_unavailable", "The server is stopping; try again")
