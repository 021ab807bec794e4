"""An upstream that speaks OpenAI's API: bytes in, bytes out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping

import aiohttp
from yarl import URL

from proxy.upstream.config import UpstreamConfig
from proxy.upstream.upstream import UpstreamFailed

__all__ = ["OpenAIUpstream"]

_REST_SECONDS = 0.25


class OpenAIUpstream:
    """Relays to one base URL over kept-alive connections."""

    def __init__(self, config: UpstreamConfig) -> None:
        self._base_url = config.base_url
        self._urls: dict[str, URL] = {}
        self._headers = {"authorization": f"Bearer {config.api_key}"} if config.api_key else {}
        # Compressed events would arrive in lumps, so none are asked for.
        self._headers["accept-encoding"] = "identity"
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=30),
            # The paid path has deadlines of its own for everything but connecting.
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=config.timeouts.connect),
            skip_auto_headers=("user-agent", "accept", "accept-encoding", "content-type"),
            cookie_jar=aiohttp.DummyCookieJar(),
        )

    async def open(self, path: str, body: bytes, headers: Mapping[str, str]) -> OpenAIResponse:
        try:
            response = await self._session.post(
                self._url(path), data=body, headers={**headers, **self._headers}, allow_redirects=False
            )
        except aiohttp.ConnectionTimeoutError as error:
            raise UpstreamFailed("timeout", str(error)) from error
        except aiohttp.ClientConnectorError as error:
            raise UpstreamFailed("unreachable", str(error)) from error
        except (aiohttp.ClientError, ValueError) as error:
            raise UpstreamFailed("broken", str(error)) from error
        return OpenAIResponse(response)

    def _url(self, path: str) -> URL:
        url = self._urls.get(path)
        if url is None:
            url = self._urls[path] = URL(self._base_url + path)
        return url

    async def close(self) -> None:
        await self._session.close()


class OpenAIResponse:
    """An answer of aiohttp's."""

    __slots__ = ("_response",)

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response

    @property
    def status(self) -> int:
        return self._response.status

    @property
    def headers(self) -> Mapping[str, str]:
        return self._response.headers

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        try:
            async for chunk in self._response.content.iter_any():
                yield chunk
        except (aiohttp.ClientError, ValueError) as error:
            raise UpstreamFailed("broken", str(error)) from error

    async def read(self, progress: Callable[[], None]) -> bytes:
        content = self._response.content
        pieces = []
        try:
            while piece := await content.readany():
                pieces.append(piece)
                progress()
            return pieces[0] if len(pieces) == 1 else b"".join(pieces)
        except (aiohttp.ClientError, ValueError) as error:
            raise UpstreamFailed("broken", str(error)) from error

    def close(self) -> None:
        self._response.close()

    async def finish(self) -> None:
        if not self._response.content.at_eof():
            try:
                async with asyncio.timeout(_REST_SECONDS):
                    await self._response.read()
            except (TimeoutError, aiohttp.ClientError):
                pass
        self._response.close()
