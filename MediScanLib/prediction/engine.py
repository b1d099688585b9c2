"""Where predictions are made: in this process, or in a child process that keeps the model warm.

A child cannot freeze the program that asked, can be stopped at any moment, and takes a crash or the end of the memory
upon itself.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from ..errors import CancelledError, EngineError, UsageError
from ..progress import Progress, SilentProgress
from ..study.image import MedicalImage
from .digest import pixels_digest
from .exchange import Request, error_from, read_answer, write_request
from .result import Prediction
from .warm import WarmModels

GRACE_SECONDS = 0.5
"""How long a cancelled run may take to stop by itself before its process is ended."""

_LIBRARY = Path(__file__).resolve().parents[2]
_LAST_LINES = 5


class Engine(Protocol):
    """Makes predictions."""

    def predict(self, request: Request, progress: Progress | None = None) -> Prediction:
        """Predict one study and wait for it.

        Raises:
            MediScanError: The input, the model or the device is not acceptable, the run was cancelled, or the engine
                failed.
        """

    def close(self) -> None:
        """Let go of models and processes."""


class InProcess:
    """Predicts in this process. The last models stay loaded."""

    def __init__(self) -> None:
        self._models = WarmModels()

    def predict(self, request: Request, progress: Progress | None = None) -> Prediction:
        """See `Engine`."""
        predictor = self._models.get(request)
        return predictor(request.image, request.record, slices=request.slices, progress=progress)

    def close(self) -> None:
        """See `Engine`."""
        self._models.clear()


class Step(NamedTuple):
    """How far a run is.

    Attributes:
        stage: What is being done.
        done: Steps of it that are finished.
        total: Steps it has; 0 where that is not known yet.
    """

    stage: str
    done: int
    total: int


class Worker:
    """Predicts in a child process, one run at a time. The child starts with the first run and is kept.

    It keeps the pixels of the last run: another run of the same image is not handed them again.

    Args:
        executable: Python that has MediScan's packages; in 3D Slicer PythonSlicer.
        environment: Environment of the child; that of this process where None.
        paths: Where the child looks for packages beside its own places, after those.
    """

    _module = "MediScanLib.prediction.worker"
    _called = "makes predictions"
    _again = "Cancelled. The next run loads the model again."
    _hint = "Try again; if it happens again, choose the CPU as the device, and report what it said."

    def __init__(
        self,
        executable: str = sys.executable,
        environment: Mapping[str, str] | None = None,
        paths: Sequence[str] = (),
    ) -> None:
        self._executable, self._paths = executable, list(paths)
        self._environment = dict(os.environ if environment is None else environment)
        self._process: subprocess.Popen[str] | None = None
        self._folder: Path | None = None
        self._offset = 0
        self._number = 0
        self._kept: Mapping[str, Any] | None = None  # shape and digest of the pixels that the child holds
        self.run: Run | None = None

    @property
    def process_id(self) -> int | None:
        """Of the child; None where there is none."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    def submit(self, request: Request) -> Run:
        """Begin a run; ask `Run.poll` for what became of it.

        Raises:
            UsageError: A run is under way.
            EngineError: The child cannot be started, or the image cannot be handed to it.
        """
        if self.run is not None and not self.run.finished:
            raise UsageError("A prediction is being made already. Wait for it, or cancel it.")
        if self.process_id is None:
            self._start()
        assert self._folder is not None
        self._number += 1
        folder = self._folder / f"run-{self._number}"
        with_pixels = not self._child_keeps(request.image)
        if with_pixels:
            self._kept = None  # until the child says that it has read them
        try:
            folder.mkdir()
            write_request(request, folder, with_pixels=with_pixels)
        except OSError as error:
            shutil.rmtree(folder, ignore_errors=True)
            raise EngineError(
                f"{self._folder}: the image cannot be handed to the process that {self._called} "
                f"({error.strerror or error}). Free some space on that disk and try again."
            ) from error
        self.run = Run(self, self._number, folder)
        self._send({"run": self._number, "folder": str(folder), **self._along()})
        return self.run

    def predict(self, request: Request, progress: Progress | None = None) -> Prediction:
        """See `Engine`."""
        progress = progress or SilentProgress()
        run = self.submit(request)
        while (prediction := run.poll()) is None:
            progress.report(*run.step)
            if progress.cancelled():
                run.cancel()
            time.sleep(0.02)
        return prediction

    def close(self) -> None:
        """End the child, also in the middle of a run, and remove what was handed to it."""
        process, self._process, self._kept = self._process, None, None
        if process is not None:
            process.kill()
            process.wait()
            for stream in (process.stdin, process.stderr):
                if stream is not None:
                    with contextlib.suppress(OSError):  # what was not sent yet has nowhere to go
                        stream.close()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    def __enter__(self) -> Worker:
        """For `with`."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close."""
        self.close()

    def _start(self) -> None:
        self.close()
        self._folder = Path(tempfile.mkdtemp(prefix="MediScan-"))  # nobody else may look at patients' images
        self._offset = 0
        events = self._folder / "events.jsonl"
        events.touch()
        start = (
            f"import sys; sys.path.insert(0, {str(_LIBRARY)!r}); sys.argv = ['', {str(events)!r}]; "
            f"sys.path += [path for path in {self._paths!r} if path not in sys.path]; "
            f"from {self._module} import main; main()"
        )
        hidden = getattr(subprocess, "CREATE_NO_WINDOW", 0)  # Windows would open a console
        try:
            with (self._folder / "log.txt").open("w", encoding="utf-8") as log:
                self._process = subprocess.Popen(  # noqa: S603 - this library, in a Python that the caller names
                    [self._executable, "-c", start],
                    stdin=subprocess.PIPE,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env=self._environment,
                    text=True,
                    creationflags=hidden,
                )
        except OSError as error:
            self.close()
            raise EngineError(f"{self._executable}: cannot be started ({error}). Is it a Python?") from error

    def _along(self) -> dict[str, Any]:
        """What the child is told besides with every run."""
        return {}

    def _child_keeps(self, image: MedicalImage) -> bool:
        return (
            self._kept is not None
            and self._kept["shape"] == list(image.shape)
            and self._kept["digest"] == pixels_digest(image.pixels)
        )

    def _send(self, message: Mapping[str, Any]) -> None:
        assert self._process is not None and self._process.stdin is not None
        with contextlib.suppress(OSError):  # a child that is gone is noticed, and told of, by the next poll
            self._process.stdin.write(json.dumps(message) + "\n")
            self._process.stdin.flush()

    def _events(self) -> list[dict[str, Any]]:
        """What the child said since the last call, without waiting."""
        if self._folder is None:
            return []
        with (self._folder / "events.jsonl").open("rb") as stream:
            stream.seek(self._offset)
            text = stream.read()
        whole = text[: text.rfind(b"\n") + 1]
        self._offset += len(whole)
        return [json.loads(line) for line in whole.splitlines()]

    def _death(self) -> EngineError | None:
        """What to say of a child that has ended; None while it lives."""
        if self._process is None:
            return EngineError("The prediction was stopped because its process was closed.")
        code = self._process.poll()
        if code is None:
            return None
        assert self._folder is not None
        log = (self._folder / "log.txt").read_text(encoding="utf-8", errors="replace").strip().splitlines()
        said = "\n".join(log[-_LAST_LINES:])
        hint = (
            "The system ended it, most probably because the memory was full. Close other programs, or look at the "
            "current slice only."
            if code in (-9, 137)
            else self._hint
        )
        return EngineError(f"The process that {self._called} ended ({code}). {hint}\n{said}".strip())


class Run:
    """One prediction that a `Worker` is making.

    Attributes:
        step: How far it is.
        finished: Whether it has come to an end, good or bad.
    """

    def __init__(self, worker: Worker, number: int, folder: Path) -> None:
        self._worker, self._number, self._folder = worker, number, folder
        self._deadline: float | None = None
        self.step = Step("starting", 0, 0)
        self.finished = False

    def poll(self) -> Prediction | None:
        """What became of it, without waiting: the prediction, or None while it is being made.

        Raises:
            CancelledError: It was cancelled.
            MediScanError: It failed; the next run may succeed.
        """
        if self.finished:
            raise UsageError("This run has ended already.")
        death = self._worker._death()  # before the events, so that the last ones are not missed
        for event in self._worker._events():
            if event.get("run") != self._number:
                continue
            if "kept" in event:
                self._worker._kept = event["kept"]
            elif "stage" in event:
                self.step = Step(event["stage"], event["done"], event["total"])
            elif "error" in event:
                self._end()
                raise error_from(event["error"])
            elif self._deadline is not None:
                self._end()
                raise CancelledError("Cancelled.")
            else:
                try:
                    return read_answer(self._folder)
                except (OSError, ValueError, KeyError, TypeError) as error:
                    raise EngineError(
                        f"The answer of the process that makes predictions cannot be read ({error}). Try again; if it "
                        "happens again, look whether the disk is full."
                    ) from error
                finally:
                    self._end()
        if self._deadline is not None and (death or time.monotonic() >= self._deadline):
            self._end()
            self._worker.close()
            raise CancelledError(self._worker._again)
        if death:
            self._end()
            self._worker.close()
            raise death
        return None

    def cancel(self) -> None:
        """Ask it to stop. `poll` raises `CancelledError` within about half a second."""
        if self._deadline is None and not self.finished:
            self._deadline = time.monotonic() + GRACE_SECONDS
            self._worker._send({"cancel": self._number})

    def _end(self) -> None:
        self.finished = True
        shutil.rmtree(self._folder, ignore_errors=True)
