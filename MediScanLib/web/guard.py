"""What every request of a browser passes first: where it comes from, the headers of the answer, and the log.

The log tells method, kind of address, status, time and name of the token, never file names or anything of a body.
"""

from __future__ import annotations

import json
import logging
import secrets
import time
import traceback
from collections.abc import Awaitable, Callable

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from ..server.settings import is_loopback
from .settings import WebSettings

access_log = logging.getLogger("mediscan.web.access")
_error_log = logging.getLogger("mediscan.web")

POLICY = (
    "default-src 'none'; script-src 'self' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; font-src 'self'; "
    "img-src 'self' blob: data:; connect-src 'self'; frame-ancestors 'none'; base-uri 'self'; form-action 'self'"
)
"""What a browser may load: nothing from elsewhere. Vue compiles the page in the browser, which is 'unsafe-eval'."""

_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",  # without any, browsers hide where a form comes from
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
    "Content-Security-Policy": POLICY,
}
_KINDS = ("/ws", "/upload", "/export/", "/sign-in", "/sign-out", "/alive", "/assets/", "/__")
NAME = "mediscan.name"
"""Where a handler leaves the name of the token for the log."""


def guard(settings: WebSettings) -> Middleware:
    """The middleware."""

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        started, status = time.perf_counter(), 500
        try:
            refusal = _refusal(request, settings)
            response = refusal if refusal is not None else await handler(request)
            status = response.status
            return response
        except web.HTTPException as error:
            status = error.status
            raise
        except Exception as error:
            number = secrets.token_hex(8)
            places = "".join(traceback.format_tb(error.__traceback__))
            _error_log.error("%s: %s\n%s", number, type(error).__name__, places)
            return web.Response(
                status=500, text=f"Something went wrong inside. Tell whoever runs the server: {number}."
            )
        finally:
            _write_log(request, status, time.perf_counter() - started)

    return middleware


def add_headers(settings: WebSettings) -> Callable[[web.Request, web.StreamResponse], Awaitable[None]]:
    """What puts the headers into every answer, whoever made it."""

    async def add(_: web.Request, response: web.StreamResponse) -> None:
        for name, value in _HEADERS.items():
            response.headers.setdefault(name, value)
        response.headers.setdefault("Cache-Control", "no-store")
        response.headers.pop("Server", None)
        if settings.server.tls_certificate is not None:
            response.headers.setdefault("Strict-Transport-Security", "max-age=31536000")

    return add


def _refusal(request: web.Request, settings: WebSettings) -> web.Response | None:
    """Why a request is not even looked at."""
    server = settings.server
    host = request.headers.get("Host", "")
    if server.is_local and not is_loopback(_name(host)) and _name(host) not in server.allowed_hosts:
        # a page in a browser of this machine must not get at one that asks for no token
        return web.Response(status=403, text="This page answers to the names of this machine only.")
    origin = request.headers.get("Origin")
    needs_origin = request.headers.get("Upgrade", "").lower() == "websocket"
    if (origin is None and needs_origin) or (origin is not None and origin.partition("://")[2] != host):
        return web.Response(status=403, text="Requests of pages from elsewhere are not answered.")
    length = request.content_length or 0
    if length > server.max_body_bytes:
        return web.Response(
            status=413,
            text=f"This is larger than the {server.max_body_bytes // 1024**2} MB that are allowed here. Send less.",
        )
    return None


def _write_log(request: web.Request, status: int, seconds: float) -> None:
    kind = next((start for start in _KINDS if request.path.startswith(start)), "/" if request.path == "/" else "other")
    if kind in ("/alive", "/assets/", "/__") and status < 400:
        return
    access_log.info(
        "%s",
        json.dumps(
            {
                "at": round(time.time(), 3),
                "web": True,
                "method": request.method if kind != "other" else "-",
                "route": kind,
                "status": status,
                "seconds": round(seconds, 4),
                "caller": request.get(NAME, "-"),
            }
        ),
    )


def _name(host: str) -> str:
    """Without the port."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0]
