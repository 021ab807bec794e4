"""The least that a Python relay costs: bare ASGI and aiohttp, bytes in, bytes out; nobody is charged.

Run by `bench.run` as `python -m bench.floor PORT UPSTREAM_URL`, on the server that Farebox uses.
"""

from __future__ import annotations

import sys

import aiohttp
import uvicorn
import uvloop
from starlette.types import Receive, Scope, Send

_HEADERS = {"content-type": "application/json", "authorization": "Bearer sk-mock", "accept-encoding": "identity"}


class Floor:
    """Relays every request to one upstream."""

    def __init__(self, upstream: str, session: aiohttp.ClientSession) -> None:
        self._upstream = upstream
        self._session = session

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = b""
        more = True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        async with self._session.post(self._upstream + scope["path"], data=body, headers=_HEADERS) as response:
            kind = response.headers.get("content-type", "application/json")
            headers = [(b"content-type", kind.encode())]
            if kind.startswith("text/event-stream"):
                await send({"type": "http.response.start", "status": response.status, "headers": headers})
                async for chunk in response.content.iter_any():
                    await send({"type": "http.response.body", "body": chunk, "more_body": True})
                await send({"type": "http.response.body", "body": b""})
            else:
                answer = await response.read()
                headers.append((b"content-length", str(len(answer)).encode()))
                await send({"type": "http.response.start", "status": response.status, "headers": headers})
                await send({"type": "http.response.body", "body": answer})


async def _serve(port: int, upstream: str) -> None:
    connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=30)
    async with aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar()) as session:
        app = Floor(upstream, session)
        config = uvicorn.Config(
            app, port=port, http="httptools", ws="none", lifespan="off", access_log=False, log_level="warning"
        )
        await uvicorn.Server(config).serve()


if __name__ == "__main__":
    uvloop.run(_serve(int(sys.argv[1]), sys.argv[2]))
