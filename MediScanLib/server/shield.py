"""What every request passes first: limits of its body, whom it may come from, headers, figures and the log.

The log tells method, route, status, time and the caller's name, never paths, file names or anything of a body.
"""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
import time
import traceback
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..errors import MediScanError
from . import problems
from .metrics import Metrics
from .settings import ServerSettings, is_loopback

access_log = logging.getLogger("mediscan.access")
error_log = logging.getLogger("mediscan.server")

_DRAIN_S = 10.0
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
    "Cache-Control": "no-store",
}
_POLICY = "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"


class _BodyError(MediScanError):
    """The body is too large or too slow; the connection goes with it."""


class Shield:
    """ASGI middleware around the whole application.

    Args:
        app: The application.
        settings: Limits.
        metrics: Where requests are counted.
    """

    def __init__(self, app: ASGIApp, settings: ServerSettings, metrics: Metrics) -> None:
        self._app, self._settings, self._metrics = app, settings, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection."""
        if scope["type"] != "http":
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 1003})
                return
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        scope.setdefault("state", {})["request_id"] = request_id = secrets.token_hex(8)
        body = _Body(receive, self._settings)
        status = 500
        begun = False

        async def answer(message: Message) -> None:
            nonlocal status, begun
            if message["type"] == "http.response.start":
                status, begun = message["status"], True
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
                headers.setdefault("Content-Security-Policy", _POLICY)
                if self._settings.tls_certificate is not None or scope.get("scheme") == "https":
                    headers.setdefault("Strict-Transport-Security", "max-age=31536000")
                headers["X-Request-ID"] = request_id
                if status >= 400:
                    await body.drain()  # else the client may never read why it was refused
            await send(message)

        try:
            refusal = self._refusal(scope)
            if refusal is not None:
                await problems.problem_response(refusal)(scope, body.receive, answer)
            else:
                await self._app(scope, body.receive, answer)
        except _BodyError as error:
            if not begun:
                await problems.problem_response(error)(scope, body.receive, answer)
        except Exception as error:
            self._tell(error, request_id)
            if not begun:
                await _inside(error, request_id)(scope, body.receive, answer)
        finally:
            self._count(scope, status, time.perf_counter() - started)

    def _refusal(self, scope: Scope) -> MediScanError | None:
        """Why a request is not even looked at."""
        headers = Headers(scope=scope)
        limit = self._settings.max_body_bytes
        length = headers.get("content-length", "0")
        if not length.isdigit() or int(length) > limit:
            return _too_large(limit)
        if headers.get("content-encoding", "identity") != "identity":
            return MediScanError("Compressed bodies are not taken. Send it as it is.", code="unsupported")
        if self._settings.is_local:
            # a page in a browser of this machine must not get at a server that asks for no token
            host = _host(headers.get("host", ""))
            if not is_loopback(host) and host not in self._settings.allowed_hosts:
                return MediScanError("This server answers to the names of this machine only.", code="forbidden")
        origin = headers.get("origin")
        if origin is not None and origin.partition("://")[2] != headers.get("host", ""):
            return MediScanError("Requests of pages from elsewhere are not answered.", code="forbidden")
        return None

    def _count(self, scope: Scope, status: int, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", "none")
        self._metrics.requests.labels(scope["method"] if route != "none" else "-", route, str(status)).inc()
        self._metrics.seconds.labels(route).observe(seconds)
        access_log.info(
            "%s",
            json.dumps(
                {
                    "at": round(time.time(), 3),
                    "id": scope["state"]["request_id"],
                    "method": scope["method"] if route != "none" else "-",
                    "route": route,
                    "status": status,
                    "seconds": round(seconds, 4),
                    "caller": scope["state"].get("caller", "-"),
                    "code": scope["state"].get("code", ""),
                }
            ),
        )

    @staticmethod
    def _tell(error: Exception, request_id: str) -> None:
        """Where it happened, without the error's own words: they may quote a header, a name or a value."""
        places = "".join(traceback.format_tb(error.__traceback__))
        number = f" {error.errno}" if isinstance(error, OSError) else ""
        error_log.error("request %s: %s%s\n%s", request_id, type(error).__name__, number, places)


class _Body:
    """The body of a request as it comes in, with its limits.

    Args:
        receive: Of the server.
        settings: Limits.
    """

    def __init__(self, receive: Receive, settings: ServerSettings) -> None:
        self._receive, self._limit = receive, settings.max_body_bytes
        self._seconds = settings.upload_time_s
        self._end = time.monotonic() + settings.upload_time_s
        self._read = 0
        self.complete = False

    async def receive(self) -> Message:
        """One message; a body that is too large or too slow ends the request."""
        if self.complete:
            return await self._receive()  # waits for the disconnection
        try:
            message = await asyncio.wait_for(self._receive(), max(0.0, self._end - time.monotonic()))
        except asyncio.TimeoutError:
            self.complete = True
            raise _BodyError(
                f"The request took longer than {self._seconds:g} s to arrive. Send it faster, or less.",
                code="slow_upload",
            ) from None
        if message["type"] == "http.disconnect":
            self.complete = True
            return message
        self._read += len(message.get("body", b""))
        self.complete = not message.get("more_body", False)
        if self._read > self._limit:
            self.complete = True
            raise _too_large(self._limit)
        return message

    async def drain(self) -> None:
        """Read what is left and forget it, for a while."""
        end = time.monotonic() + _DRAIN_S
        read = self._read
        while not self.complete and time.monotonic() < end and read <= self._limit:
            try:
                message = await asyncio.wait_for(self._receive(), end - time.monotonic())
            except asyncio.TimeoutError:
                break
            read += len(message.get("body", b""))
            self.complete = message["type"] == "http.disconnect" or not message.get("more_body", False)


def _inside(error: Exception, request_id: str) -> Response:
    """What to say of an error that nobody foresaw; that the machine is full is not one, and may pass."""
    if isinstance(error, OSError | MemoryError) or "start new thread" in str(error):
        return problems.problem_response(
            MediScanError(
                "The server lacks disk space, memory or processes at the moment. Try again later; tell whoever runs "
                f"it: {request_id}.",
                code="resources",
            )
        )
    return problems.response(
        500, "internal", f"Something went wrong inside. Tell whoever runs the server: {request_id}."
    )


def _too_large(limit: int) -> _BodyError:
    return _BodyError(
        f"The request is larger than the {limit} bytes that are allowed here. Send less.", code="too_large"
    )


def _host(text: str) -> str:
    """Without the port."""
    if text.startswith("["):
        return text[1:].partition("]")[0]
    return text.rpartition(":")[0] or text if text.count(":") == 1 else text


def remember(scope: Any, **facts: str) -> None:
    """Put facts into the line of the log that this request will get."""
    scope.setdefault("state", {}).update(facts)
