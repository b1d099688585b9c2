"""Asks the REST server for a prediction without holding up the page."""

from __future__ import annotations

import asyncio
import ssl
import threading
from collections.abc import Callable
from pathlib import Path

from ..errors import CancelledError
from ..prediction.engine import Step
from ..prediction.exchange import Request
from ..prediction.result import Prediction
from ..prediction.server_client import ServerClient, ServerInfo

_TICK_S = 0.15


class LocalClient(ServerClient):
    """A client of the REST server beside the page.

    Args:
        url: Of the server.
        token: Of whoever is at the page; None where none is needed.
        certificate: Of the server. It is believed whatever name it is for, and no other one is.
    """

    def __init__(self, url: str, token: str | None, certificate: Path | None) -> None:
        super().__init__(url, token, allow_http=True)  # another address of this machine
        if certificate is not None:
            context = ssl.create_default_context(cafile=certificate)
            context.check_hostname = False
            context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
            self._context = context


class Asking:
    """One question after another, each in a thread; a new one waits for the one before.

    Args:
        client: Of the REST server.
    """

    def __init__(self, client: ServerClient) -> None:
        self._client = client
        self._turn = asyncio.Lock()
        self._stop: threading.Event | None = None

    async def info(self) -> ServerInfo:
        """What the server is; see `ServerClient.info`."""
        async with self._turn:
            return await asyncio.to_thread(self._client.info)

    async def predict(self, request: Request, on_step: Callable[[Step], None]) -> Prediction:
        """Predict, telling how far it is.

        Args:
            request: What is asked.
            on_step: Called in this thread whenever there is something new to tell.

        Raises:
            MediScanError: See `ServerClient.predict`.
        """
        async with self._turn:
            heard = _Heard()
            self._stop = heard.stop
            asked = asyncio.ensure_future(asyncio.to_thread(self._client.predict, request, heard))
            try:
                told = None
                while not asked.done():
                    await asyncio.wait({asked}, timeout=_TICK_S)
                    if heard.step != told and not asked.done():
                        told = heard.step
                        on_step(told)
                if heard.stop.is_set() and asked.exception() is not None:
                    raise CancelledError("Cancelled.")
                return asked.result()
            finally:
                self._stop = None
                heard.stop.set()

    def cancel(self) -> None:
        """Stop what is under way."""
        if self._stop is not None:
            self._stop.set()
            self._client.abort()


class _Heard:
    """See `Progress`."""

    def __init__(self) -> None:
        self.step = Step("waiting", 0, 0)
        self.stop = threading.Event()

    def report(self, stage: str, done: int, total: int) -> None:
        self.step = Step(stage, done, total)

    def cancelled(self) -> bool:
        return self.stop.is_set()
