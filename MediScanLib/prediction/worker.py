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
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from .exchange import Request, describe_error, read_request, write_answer

if TYPE_CHECKING:
    from .predictor import Predictor

WARM_MODELS = 2
"""Models that stay in memory, so that two can be compared."""


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


class _Models:
    """Predictors by model, device and settings; the one that was not used for longest goes first."""

    def __init__(self) -> None:
        self._loaded: dict[tuple[str, str, str], Predictor] = {}

    def get(self, request: Request) -> Predictor:
        from .predictor import Predictor

        key = request.model, request.device, request.settings.model_dump_json()
        predictor = self._loaded.pop(key, None)
        while len(self._loaded) >= WARM_MODELS:  # the old memory goes before the new comes
            del self._loaded[next(iter(self._loaded))]
        predictor = predictor or Predictor.load(request.model, request.device, request.settings)
        self._loaded[key] = predictor
        return predictor


def serve(lines: Iterable[str], stream: TextIO, folder: Path) -> None:
    """Answer requests until the lines end; then the process ends, whatever is under way.

    Args:
        lines: JSON objects: {"run": number, "folder": path} asks for a prediction, {"cancel": number} stops one.
        stream: Where events go: {"ready": true}, then for each run {"run", "stage", "done", "total"} and at last
            either {"run", "answered": true} or {"run", "error"}.
        folder: Removed at the end.
    """
    events, models = _Events(stream), _Models()
    todo: queue.Queue[dict[str, Any]] = queue.Queue()
    cancelled: set[int] = set()

    def listen() -> None:
        for line in lines:
            message = json.loads(line)
            if "cancel" in message:
                cancelled.add(message["cancel"])
            else:
                todo.put(message)
        shutil.rmtree(folder, ignore_errors=True)  # whoever asked is gone, maybe without tidying up
        os._exit(0)

    threading.Thread(target=listen, daemon=True).start()
    events.send(ready=True)
    while True:
        message = todo.get()
        run = message["run"]
        try:
            progress = _RunProgress(events, run, cancelled)
            request = read_request(Path(message["folder"]))
            progress.report("loading the model", 0, 1)
            predictor = models.get(request)
            progress.report("loading the model", 1, 1)
            prediction = predictor(request.image, request.record, slices=request.slices, progress=progress)
            write_answer(prediction, Path(message["folder"]))
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
