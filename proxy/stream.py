"""A call that is answered in a stream: events pass as they come, and its last bytes wait for the settlement."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, suppress

from ledger.errors import LedgerError
from pricing.usage import Usage
from proxy.charge import ledger_refusal
from proxy.errors import ApiError, upstream_error
from proxy.idempotency import Answer, last_events
from proxy.interruption import CLIENT_LEFT, Interrupted
from proxy.operations.chat_stream import ChatStream, MalformedStream
from proxy.performance import Performance, interruption, read_error
from proxy.receipts import ANSWERED, UPSTREAM_BROKE
from proxy.upstream.failures import failure, refusal
from proxy.upstream.upstream import UpstreamFailed, UpstreamResponse

__all__ = ["serve_stream"]

_LATE_USAGE_SECONDS = 0.25
_LEFT_USAGE_SECONDS = 2.0
_EVENTS = {"content-type": "text/event-stream"}


async def serve_stream(performance: Performance) -> None:
    """Answer a streamed call; raises ApiError after ending its hold."""
    while not await _served(performance):
        pass


async def _served(p: Performance) -> bool:
    """Pass on the stream of whoever is to answer now, and settle it; returns False where the next is to be asked."""
    stream = p.stream = ChatStream(p.call.choices)
    response: UpstreamResponse | None = None
    problem: ApiError | None = None
    left = False
    try:
        try:
            with p.life:
                response = await p.open()
                if response.status != 200:
                    raise refusal(response.status, response.headers, await read_error(response))
                if not response.headers.get("content-type", "").lower().startswith("text/event-stream"):
                    raise upstream_error()
                async with aclosing(response.chunks()) as chunks:
                    await _relay(p, stream, response, chunks)
            if not (stream.done or stream.complete) or stream.error is not None:
                problem = upstream_error("The model's answer broke off.")
        except Interrupted as stop:
            left = stop.reason == CLIENT_LEFT
            problem = None if left else interruption(stop.reason)
            if left and response is not None and stream.complete and stream.awaits_usage:
                await _await_usage(stream, response.chunks(), _LEFT_USAGE_SECONDS)
        except (UpstreamFailed, MalformedStream) as error:
            problem = failure(error) if isinstance(error, UpstreamFailed) else upstream_error()
        except ApiError as error:
            problem = error
        usage = p.believed(stream.usage()) if problem is None and (stream.done or stream.complete) else None
        if problem is None and not left and usage is None and not stream.has_choices:
            problem = upstream_error()
        if problem is not None and not any(stream.texts()) and p.falls_back(problem):
            return False
        try:
            await _end(p, stream, usage, problem, left=left)
        except LedgerError as error:
            raise ledger_refusal(error) from error
        if response is not None and stream.done:
            await response.finish()
        return True
    finally:
        if response is not None:
            response.close()


async def _relay(p: Performance, stream: ChatStream, response: UpstreamResponse, chunks: AsyncIterator[bytes]) -> None:
    """Pass events on until the end, an error, or the upstream closes."""
    async for chunk in chunks:
        p.arrived()
        await _pass_on(p, response, stream.feed(chunk))
        if stream.done or stream.error is not None:
            break
    else:
        await _pass_on(p, response, stream.end())
    if stream.done and stream.awaits_usage:
        await _await_usage(stream, chunks, _LATE_USAGE_SECONDS)


async def _pass_on(p: Performance, response: UpstreamResponse, events: bytes) -> None:
    if not events:
        return
    p.life.sending = True
    await p.exchange.start(200, response.headers, [])
    await p.exchange.write(events, more=True)
    p.life.sending = False


async def _await_usage(stream: ChatStream, chunks: AsyncIterator[bytes], seconds: float) -> None:
    """Read on for figures that come late; nothing of it is passed on."""
    with suppress(TimeoutError, UpstreamFailed, MalformedStream):
        async with asyncio.timeout(seconds):
            async for chunk in chunks:
                stream.feed(chunk)
                if not stream.awaits_usage:
                    return


async def _end(
    p: Performance, stream: ChatStream, usage: Usage | None, problem: ApiError | None, *, left: bool
) -> None:
    """Settle a stream that has ended, and only then send its last bytes."""
    if left and not p.called:
        await p.void(CLIENT_LEFT)
        return
    if problem is not None and not any(stream.texts()):
        await p.void()
        raise problem
    estimated = usage is None
    if usage is None:
        usage = await p.count(stream.texts())
    last = None
    if p.call.include_usage and problem is None:
        last = stream.usage_event(p.call.model, p.exchange.request_id, usage if estimated else None)
    kept = None
    if p.exchange.keeps and problem is None and not left:
        headers = p.exchange.headers or p.exchange.composed(_EVENTS)
        kept = await p.kept(Answer(headers, p.exchange.kept, True, last, estimated))
    ended = await p.settle(
        usage,
        UPSTREAM_BROKE if problem is not None else CLIENT_LEFT if left or p.left else ANSWERED,
        estimated=estimated,
        answered=not left or stream.done or stream.complete or any(stream.texts()),
        answer=kept,
    )
    if problem is not None:
        raise ApiError(problem.status, "upstream_error", "The model's answer broke off; what had arrived was charged.")
    await p.exchange.start(200, _EVENTS, [])
    await p.exchange.write(last_events(last, ended.charged, ended.available, estimated=estimated))
