"""The process that lets browsers in and leads each to its own: `python -m MediScanLib.web.gateway`.

It ends with its standard input, so that it never outlives the server that started it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import ssl
import sys
import time
from collections.abc import AsyncIterator

import aiohttp
from aiohttp import web

from ..errors import MediScanError
from ..server.problems import status_of
from ..server.storage.database import Database
from .door import full_page, sign_in_page
from .forwarding import KEY_HEADER, PAGE, forward, forward_socket
from .guard import NAME, add_headers, guard
from .sessions import Sessions, UserProcess
from .settings import ENVIRONMENT, WebSettings
from .visitors import COOKIE, Visitor, Visitors

_log = logging.getLogger("mediscan.web")

_SWEEP_S = 2.0
_LONGEST_FORM = 4096
_CLOSED_S = 60.0
"""A closed page may be opened again for so long, even where others wait for its place."""


class Gateway:
    """The doors of the page.

    Args:
        settings: How it is set up.
    """

    def __init__(self, settings: WebSettings) -> None:
        self.settings = settings
        self._database = Database(settings.server.database_url)
        self._visitors = Visitors(settings, self._database)
        self._sessions: Sessions
        self._client: aiohttp.ClientSession

    def application(self) -> web.Application:
        """The aiohttp application."""
        settings = self.settings
        app = web.Application(middlewares=[guard(settings)], client_max_size=settings.server.max_body_bytes)
        app.on_response_prepare.append(add_headers(settings))
        app.cleanup_ctx.append(self._life)
        app.router.add_get("/", self._page)
        app.router.add_get("/alive", self._alive)
        app.router.add_post("/sign-in", self._sign_in)
        app.router.add_post("/sign-out", self._sign_out)
        app.router.add_get("/ws", self._socket)
        app.router.add_post("/upload", self._pass_on)
        app.router.add_get("/{path:.+}", self._pass_on)
        return app

    async def _life(self, _: web.Application) -> AsyncIterator[None]:
        self._client = aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=10), cookie_jar=aiohttp.DummyCookieJar()
        )
        self._sessions = Sessions(self.settings, self._tell)
        self._sessions.prepare()
        sweeper = asyncio.create_task(self._sweep())
        yield
        sweeper.cancel()
        await self._sessions.close()
        await self._client.close()
        self._database.close()

    async def _page(self, request: web.Request) -> web.StreamResponse:
        """The page itself: where somebody comes in, or is asked to sign in."""
        visitor = self._visitor(request)
        if visitor is None:
            if await asyncio.to_thread(self._visitors.needs_token):
                return _html(sign_in_page(), 401)
            visitor = await asyncio.to_thread(self._visitors.stranger)
        await self._make_room(visitor)
        try:
            process = await self._sessions.of(visitor)
        except MediScanError as error:
            await self._leave(visitor)
            return _html(full_page(str(error)), status_of(error))
        if not process.alive:  # it died since
            await self._leave(visitor)
            raise web.HTTPSeeOther("/")
        visitor.seen = time.monotonic()
        return self._with_cookie(request, await self._answered(request, visitor, process), visitor)

    async def _sign_in(self, request: web.Request) -> web.StreamResponse:
        if (request.content_length or _LONGEST_FORM + 1) > _LONGEST_FORM:
            raise web.HTTPRequestEntityTooLarge(_LONGEST_FORM, request.content_length or 0)
        form = await request.post()
        try:
            visitor = await asyncio.to_thread(
                self._visitors.sign_in, str(form.get("token", "")).strip(), request.remote or "-"
            )
        except MediScanError as error:
            return _html(sign_in_page(str(error)), status_of(error))
        earlier = self._visitor(request)
        if earlier is not None:
            await self._leave(earlier)
        return self._with_cookie(request, web.HTTPSeeOther("/"), visitor)

    async def _sign_out(self, request: web.Request) -> web.StreamResponse:
        """Leave: the process ends, and with it everything of the study."""
        visitor = self._visitor(request)
        if visitor is not None:
            await self._leave(visitor)
        response = web.HTTPSeeOther("/")
        response.del_cookie(self._cookie)
        return response

    async def _alive(self, request: web.Request) -> web.StreamResponse:
        """Whether the browser's study is still here; asked again and again by the page."""
        visitor = self._visitor(request)
        there = visitor is not None and self._sessions.existing(visitor) is not None
        return web.Response(status=204 if there else 410)

    async def _socket(self, request: web.Request) -> web.StreamResponse:
        visitor, process = self._inside(request)

        def heard() -> None:
            visitor.seen = time.monotonic()

        visitor.connections += 1
        try:
            return await forward_socket(request, self._client, process.port, process.key, heard)
        finally:
            visitor.connections -= 1
            heard()

    async def _pass_on(self, request: web.Request) -> web.StreamResponse:
        visitor, process = self._inside(request)
        visitor.seen = time.monotonic()
        return await self._answered(request, visitor, process)

    async def _answered(self, request: web.Request, visitor: Visitor, process: UserProcess) -> web.StreamResponse:
        request[NAME] = visitor.name
        if request.path == "/":
            # not streamed, since a cookie goes along
            async with self._client.get(
                f"http://127.0.0.1:{process.port}{PAGE}", headers={KEY_HEADER: process.key}
            ) as answer:
                return _html(await answer.text(), answer.status)
        return await forward(request, self._client, process.port, process.key)

    def _inside(self, request: web.Request) -> tuple[Visitor, UserProcess]:
        visitor = self._visitor(request)
        process = None if visitor is None else self._sessions.existing(visitor)
        if visitor is None or process is None:
            raise web.HTTPGone(text="There is no study of this browser here any more. Open the page again.")
        request[NAME] = visitor.name
        return visitor, process

    @property
    def _cookie(self) -> str:
        # cookies know no ports: two servers on one machine must not take each other's
        return f"{COOKIE}_{self.settings.port}"

    def _visitor(self, request: web.Request) -> Visitor | None:
        return self._visitors.find(request.cookies.get(self._cookie))

    def _with_cookie(self, request: web.Request, response: web.StreamResponse, visitor: Visitor) -> web.StreamResponse:
        if request.cookies.get(self._cookie) != visitor.cookie:
            response.set_cookie(
                self._cookie,
                visitor.cookie,
                httponly=True,
                samesite="Strict",
                secure=self.settings.server.tls_certificate is not None,
            )
        return response

    async def _leave(self, visitor: Visitor) -> None:
        self._visitors.forget(visitor)
        await self._sessions.end(visitor)

    async def _make_room(self, visitor: Visitor) -> None:
        """Where there is no place left, send away who closed the page longest ago."""
        if self._sessions.has_room(visitor):
            return
        before = time.monotonic() - _CLOSED_S
        closed = [one for one in self._visitors.all() if one.connections == 0 and one.seen < before]
        if closed:
            await self._leave(min(closed, key=lambda one: one.seen))

    def _tell(self, visitor: Visitor, event: str, details: dict[str, object]) -> None:
        asyncio.get_running_loop().run_in_executor(None, self._visitors.tell, event, visitor, details)

    async def _sweep(self) -> None:
        """Send away who was silent for too long, and whose token is not good any more."""
        while True:
            await asyncio.sleep(min(_SWEEP_S, self.settings.idle_s / 4))
            for visitor in self._visitors.all():
                if self._sessions.is_starting(visitor):
                    continue
                silent = time.monotonic() - visitor.seen > self.settings.idle_s
                try:
                    if silent or not await asyncio.to_thread(self._visitors.may_stay, visitor):
                        await self._leave(visitor)
                except MediScanError as error:
                    _log.warning("visitors could not be looked after: %s", error.code)


def _html(text: str, status: int = 200) -> web.Response:
    return web.Response(status=status, text=text, content_type="text/html", charset="utf-8")


def _tls(settings: WebSettings) -> ssl.SSLContext | None:
    server = settings.server
    if server.tls_certificate is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(server.tls_certificate, server.tls_key)
    return context


async def _serve(settings: WebSettings) -> None:
    runner = web.AppRunner(Gateway(settings).application(), access_log=None, shutdown_timeout=2.0)
    await runner.setup()
    try:
        await web.TCPSite(runner, settings.server.host, settings.port, ssl_context=_tls(settings)).start()
        await asyncio.to_thread(sys.stdin.buffer.read)  # until the server that started it has ended
    finally:
        await runner.cleanup()


def main() -> None:
    """Serve until standard input ends."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    plain = logging.StreamHandler()
    plain.setFormatter(logging.Formatter("%(message)s"))
    access = logging.getLogger("mediscan.web.access")
    access.addHandler(plain)
    access.setLevel(logging.INFO)
    access.propagate = False
    settings = WebSettings.model_validate_json(os.environ[ENVIRONMENT])
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_serve(settings))
    os._exit(0)  # the thread that reads standard input may still wait


if __name__ == "__main__":
    main()
