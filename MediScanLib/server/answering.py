"""Waiting for a prediction while somebody waits for the answer: time limits, disconnections, lines of progress."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from fastapi import Request as HttpRequest
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from ..errors import MediScanError
from ..prediction.result import Prediction
from .compute import Compute
from .lane import Work
from .problems import problem

T = TypeVar("T")

LINES = "application/x-ndjson"
_TICK_S = 0.1
_ALIVE_S = 5.0


class GoneError(MediScanError):
    """Nobody waits for the answer any more."""

    code = "gone"


async def predicted(compute: Compute, work: Work) -> Prediction:
    """Let a work wait its turn, and wait for it; where this is cancelled, so is the work.

    Raises:
        MediScanError: It failed.
    """
    loop = asyncio.get_running_loop()
    done = asyncio.Event()

    def tell(_: object) -> None:
        if not loop.is_closed():
            loop.call_soon_threadsafe(done.set)

    compute.put(work)
    work.future.add_done_callback(tell)
    try:
        await done.wait()
    except asyncio.CancelledError:
        work.cancel()
        raise
    return work.future.result()


async def while_connected(request: HttpRequest, doing: Coroutine[Any, Any, T], limit_s: float) -> T:
    """Do something for as long as the client is there and its time is not over.

    Raises:
        GoneError: The client went; what was being done is cancelled.
        MediScanError: too_late where the time is over.
    """
    task = asyncio.ensure_future(doing)
    gone = asyncio.ensure_future(_disconnected(request.receive))
    try:
        await asyncio.wait({task, gone}, timeout=limit_s, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        if gone.done():
            raise GoneError("The client has gone.")
        raise MediScanError(
            f"There was no answer within {limit_s:g} s. Try again later, or submit it as a job.", code="too_late"
        )
    finally:
        for left in (task, gone):
            left.cancel()
        await asyncio.gather(task, gone, return_exceptions=True)


class LineStream(Response):
    """Lines of JSON: {"stage", "done", "total"} again and again, then {"prediction", "maps"} or {"problem"}.

    A line comes at least every five seconds, so that silence means that somebody has died.

    Args:
        compute: What predicts.
        work: What is to be done.
        limit_s: How long it may take.
        finish: Makes the last line; called in a thread.
        headers: Of the response.
    """

    media_type = LINES

    def __init__(
        self,
        compute: Compute,
        work: Work,
        limit_s: float,
        finish: Callable[[Prediction], dict[str, Any]],
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(headers=headers)
        del self.headers["content-length"]
        self._compute, self._work, self._limit, self._finish = compute, work, limit_s, finish

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the lines; stop the work where the client goes."""
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})

        async def line(content: dict[str, Any], *, last: bool = False) -> None:
            data = json.dumps(content, allow_nan=False).encode("utf-8") + b"\n"
            await send({"type": "http.response.body", "body": data, "more_body": not last})

        task = asyncio.ensure_future(predicted(self._compute, self._work))
        gone = asyncio.ensure_future(_disconnected(receive))
        loop = asyncio.get_running_loop()
        end, told, told_at = loop.time() + self._limit, None, loop.time()
        try:
            while not task.done() and not gone.done() and loop.time() < end:
                await asyncio.wait({task, gone}, timeout=_TICK_S, return_when=asyncio.FIRST_COMPLETED)
                step = self._work.step
                if not task.done() and (step != told or loop.time() > told_at + _ALIVE_S):
                    await line(step._asdict())
                    told, told_at = step, loop.time()
            if gone.done() and not task.done():
                return
            await line(await self._last(task), last=True)
        except OSError:
            return  # the client went while it was being told
        finally:
            for left in (task, gone):
                left.cancel()
            await asyncio.gather(task, gone, return_exceptions=True)

    async def _last(self, task: asyncio.Future[Prediction]) -> dict[str, Any]:
        try:
            if not task.done():
                raise MediScanError(f"There was no answer within {self._limit:g} s. Send less.", code="too_late")
            return await asyncio.to_thread(self._finish, task.result())
        except MediScanError as error:
            return {"problem": problem(error)}


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
