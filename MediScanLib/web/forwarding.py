"""From the browser to its process and back: requests, and the websocket that trame speaks."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

import aiohttp
from aiohttp import WSMsgType, web

KEY_HEADER = "X-MediScan-Key"
"""Header by which the process of a browser knows the gateway."""

PAGE = "/__page"
"""Where the process of a browser has the page itself."""

_LARGEST_MESSAGE = 16 * 1024**2
_PASSED_ON = ("Content-Type", "Content-Length", "Accept", "Accept-Language", "If-Modified-Since", "If-None-Match")
_PASSED_BACK = ("Content-Type", "Content-Disposition", "Content-Length", "Last-Modified", "ETag", "Cache-Control")
_PIECE = 1 << 16


async def forward(request: web.Request, client: aiohttp.ClientSession, port: int, key: str) -> web.StreamResponse:
    """Answer a request with what the process answers.

    Args:
        request: Of the browser.
        client: Talks to the process.
        port: Where it listens.
        key: What it wants to be shown.
    """
    headers = {name: request.headers[name] for name in _PASSED_ON if name in request.headers}
    async with client.request(
        request.method,
        f"http://127.0.0.1:{port}{request.rel_url.raw_path_qs}",
        headers={**headers, KEY_HEADER: key},
        data=request.content.iter_chunked(_PIECE) if request.can_read_body else None,
        allow_redirects=False,
        auto_decompress=False,
    ) as answer:
        response = web.StreamResponse(status=answer.status)
        for name in _PASSED_BACK:
            if name in answer.headers:
                response.headers[name] = answer.headers[name]
        await response.prepare(request)
        async for piece in answer.content.iter_chunked(_PIECE):
            await response.write(piece)
        await response.write_eof()
        return response


async def forward_socket(
    request: web.Request, client: aiohttp.ClientSession, port: int, key: str, heard: Callable[[], None]
) -> web.WebSocketResponse:
    """Connect the browser's websocket with that of its process, until one of them closes.

    Args:
        request: Of the browser.
        client: Talks to the process.
        port: Where it listens.
        key: What it wants to be shown.
        heard: Called for each message of the browser.
    """
    browser = web.WebSocketResponse(max_msg_size=_LARGEST_MESSAGE, heartbeat=20, compress=False)
    await browser.prepare(request)
    async with client.ws_connect(
        f"http://127.0.0.1:{port}/ws", headers={KEY_HEADER: key}, max_msg_size=0, compress=0
    ) as process:

        async def onward() -> None:
            async for message in browser:
                heard()
                if message.type is WSMsgType.BINARY:
                    await process.send_bytes(message.data)

        async def back() -> None:
            async for message in process:
                if message.type is WSMsgType.BINARY:
                    await browser.send_bytes(message.data)

        ways = {asyncio.ensure_future(onward()), asyncio.ensure_future(back())}
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            for way in ways:
                with contextlib.suppress(asyncio.CancelledError, OSError, aiohttp.ClientError):
                    await way
            with contextlib.suppress(OSError):
                await browser.close(code=aiohttp.WSCloseCode.GOING_AWAY)
    return browser
