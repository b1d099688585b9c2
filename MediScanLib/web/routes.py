"""What the process of a browser answers beside trame: the page, uploads and files to keep."""

from __future__ import annotations

import asyncio
import hmac
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING

from aiohttp import web

from ..errors import MediScanError
from ..server.problems import status_of
from .exporting import KINDS, export
from .forwarding import KEY_HEADER, PAGE
from .receiving import received

if TYPE_CHECKING:
    from .app import App

STATIC = Path(__file__).with_name("static")


def add_routes(application: web.Application, app: App) -> None:
    """Add them to trame's own application, and let nobody but the gateway in.

    Args:
        application: Of trame's server.
        app: What the browser shows.
    """

    @web.middleware
    async def only_the_gateway(
        request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        key = app.settings.key if app.settings is not None else ""
        if not key or not hmac.compare_digest(key, request.headers.get(KEY_HEADER, "")):
            raise web.HTTPForbidden
        return await handler(request)

    async def page(_: web.Request) -> web.Response:
        return web.Response(text=index_page(), content_type="text/html", charset="utf-8")

    async def upload(request: web.Request) -> web.Response:
        try:
            async with received(request, app.needed_settings) as folder_and_names:
                await app.open_upload(*folder_and_names)
        except MediScanError as error:
            app.say_problem(str(error))
            return web.json_response({"detail": str(error)}, status=status_of(error))
        return web.json_response({"ok": True})

    async def exported(request: web.Request) -> web.Response:
        kind = request.match_info["kind"]
        if kind not in KINDS:
            raise web.HTTPNotFound
        try:
            content, media_type, name = await asyncio.to_thread(export, kind, *app.to_export())
        except MediScanError as error:
            return web.Response(status=status_of(error), text=str(error))
        return web.Response(
            body=content,
            content_type=media_type,
            headers={"Content-Disposition": f'attachment; filename="{name}"'},
        )

    application.middlewares.append(only_the_gateway)
    application.router.add_get(PAGE, page)
    application.router.add_post("/upload", upload)
    application.router.add_get("/export/{kind}", exported)


def index_page() -> str:
    """The document that loads trame's client; its own would forbid to enlarge the page on a phone."""
    from trame_client.module import vue3

    whole = Path(vue3.www, "index.html").read_text(encoding="utf-8")
    found = re.search(r"assets/index-[\w-]+\.js", whole), re.search(r"assets/index-[\w-]+\.css", whole)
    script, style = (match.group() if match is not None else "" for match in found)
    return (STATIC / "index.html").read_text(encoding="utf-8").replace("@SCRIPT@", script).replace("@STYLE@", style)
