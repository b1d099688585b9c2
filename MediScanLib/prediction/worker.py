"""The child process that keeps a model warm: requests come in on standard input, events go out as lines of a file.

Started by `engine.Worker`. A file and not a pipe, because the panel of 3D Slicer may neither wait for a pipe nor read
it in a thread of its own: its event loop keeps Python's lock. The process ends when its standard input does, so that
it never outlives the program that started it, and then removes the folder that it shared with it.
"""

from __future__ import annotations

import json
import os
import queue
import shutil
import sys
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Protocol, TextIO

import numpy as np
import numpy.typing as npt

from ..progress import Progress
from .digest import pixels_digest
from .exchange import Request, describe_error, has_pixels, read_request, write_answer
from .result import Prediction
from .warm import WarmModels


class _Events:
    """Appends events to the file that the parent reads; a line is whole or not there."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._lock = threading.Lock()

    def send(self, **event: Any) -> None:
        with self._lock:
            self._stream.write(json.dumps(event) + "\n")
            self._stream.flush()


class _RunProgress:
    """Tells the parent how far a run is, and stops it once the parent said so."""

    def __init__(self, events: _Events, run: int, cancelled: set[int]) -> None:
        self._events, self._run, self._cancelled = events, run, cancelled

    def report(self, stage: str, done: int, total: int) -> None:
        self._events.send(run=self._run, stage=stage, done=done, total=total)

    def cancelled(self) -> bool:
        return self._run in self._cancelled


class _Desk:
    """Keeps the pixels of the last request, for the next one that is about the same image."""

    def __init__(self) -> None:
        self._pixels: npt.NDArray[np.float32] | None = None

    def read(self, folder: Path, events: _Events, run: int) -> Request:
        """The request in a folder; the parent is told which pixels are kept from now on."""
        if not has_pixels(folder):
            return read_request(folder, self._pixels)
        self._pixels = None  # the old memory goes before the new comes
        request = read_request(folder)
        self._pixels = request.image.pixels
        events.send(run=run, kept={"shape": request.image.shape, "digest": pixels_digest(self._pixels)})
        return request


class Answerer(Protocol):
    """Makes the answer to a request; `serve` has one."""

    def answer(self, message: dict[str, Any], request: Request, progress: Progress) -> Prediction:
        """The prediction.

        Args:
            message: The line that asked, {"run", "folder"} and whatever else the parent sent along.
            request: What is asked.
            progress: Hears how far it is, and knows whether it was cancelled.
        """

    def stop(self, run: int) -> None:
        """Called in another thread when that run, which may be under way, was cancelled."""


class _Local:
    """Predicts in this process."""

    def __init__(self) -> None:
        self._models = WarmModels()

    def answer(self, message: dict[str, Any], request: Request, progress: Progress) -> Prediction:
        progress.report("loading the model", 0, 1)
        predictor = self._models.get(request)
        progress.report("loading the model", 1, 1)
        return predictor(request.image, request.record, slices=request.slices, progress=progress)

    def stop(self, run: int) -> None:
        pass  # its progress says so


def serve(lines: Iterable[str], stream: TextIO, folder: Path, make_answerer: Callable[[], Answerer] = _Local) -> None:
    """Answer requests until the lines end; then the process ends, whatever is under way.

    Args:
        lines: JSON objects: {"run": number, "folder": path} asks for a prediction, {"cancel": number} stops one.
        stream: Where events go: {"ready": true}, then for each run {"run", "kept"} where it brought pixels along,
            {"run", "stage", "done", "total"} and at last either {"run", "answered": true} or {"run", "error"}.
        folder: Removed at the end.
        make_answerer: Makes what answers.
    """
    events, desk, answerer = _Events(stream), _Desk(), make_answerer()
    todo: queue.Queue[dict[str, Any]] = queue.Queue()
    cancelled: set[int] = set()

    def listen() -> None:
        for line in lines:
            message = json.loads(line)
            if "cancel" in message:
                cancelled.add(message["cancel"])
                answerer.stop(message["cancel"])
            else:
                todo.put(message)
        shutil.rmtree(folder, ignore_errors=True)  # whoever asked is gone, maybe without tidying up
        os._exit(0)

    threading.Thread(target=listen, daemon=True).start()
    events.send(ready=True)
    while True:
        message = todo.get()
        run, place = message["run"], Path(message["folder"])
        try:
            request = desk.read(place, events, run)
            write_answer(answerer.answer(message, request, _RunProgress(events, run, cancelled)), place)
            events.send(run=run, answered=True)
        except Exception as error:  # every failure of a run is an answer; the process lives on
            events.send(run=run, error=describe_error(error))


def main() -> None:
    """`python -m MediScanLib.prediction.worker EVENTS_FILE`."""
    path = Path(sys.argv[1])
    with path.open("a", encoding="utf-8") as stream:
        serve(sys.stdin, stream, path.parent)


if __name__ == "__main__":
    main()
