"""A call that is answered in one piece: settled when the piece is here, and only then passed on."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress

from ledger.errors import LedgerError
from proxy.charge import ledger_refusal
from proxy.errors import ApiError, upstream_error
from proxy.idempotency import Answer, figures
from proxy.interruption import CLIENT_LEFT, Interrupted
from proxy.operations import chat
from proxy.performance import Performance, interruption, read_error
from proxy.receipts import ANSWERED
from proxy.upstream.failures import failure, refusal
from proxy.upstream.upstream import UpstreamFailed

__all__ = ["serve_whole"]


async def serve_whole(performance: Performance) -> None:
    """Answer a call that is not streamed; raises ApiError after ending its hold."""
    p = performance
    while True:
        try:
            headers, answer = await _answer(p)
            break
        except Interrupted as stop:
            if stop.reason == CLIENT_LEFT:
                await _end_left(p)
                return
            problem = interruption(stop.reason)
        except UpstreamFailed as error:
            problem = failure(error)
        except ApiError as error:
            problem = error
        if not p.falls_back(problem):
            await p.void()
            raise problem
    body = answer.body
    usage = p.believed(answer.usage)
    estimated = usage is None
    if usage is None:
        usage = await p.count(answer.texts())
    length = (b"content-length", b"%d" % len(body))
    kept = await p.kept(Answer([*p.exchange.composed(headers), length], body)) if p.exchange.keeps else None
    try:
        ended = await p.settle(
            usage, CLIENT_LEFT if p.left else ANSWERED, estimated=estimated, or_void=True, answer=kept
        )
    except LedgerError as error:
        raise ledger_refusal(error) from error
    await p.exchange.start(200, headers, [length, *figures(ended.charged, ended.available)])
    await p.exchange.write(body)


async def _answer(p: Performance) -> tuple[Mapping[str, str], chat.Answer]:
    """Get a whole answer, with its headers; raises ApiError, UpstreamFailed or Interrupted where there is none."""
    with p.life:
        response = await p.open()
        try:
            if response.status != 200:
                raise refusal(response.status, response.headers, await read_error(response))
            body = await response.read(p.arrived)
        finally:
            response.close()
    answer = chat.read_answer(body)
    if answer is None:
        raise upstream_error()
    return response.headers, answer


async def _end_left(p: Performance) -> None:
    if not p.called:
        await p.void(CLIENT_LEFT)
        return
    with suppress(LedgerError):
        await p.settle(await p.count([]), CLIENT_LEFT, estimated=True, answered=False)
