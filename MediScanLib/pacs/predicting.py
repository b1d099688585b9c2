"""A child process that reads, predicts and makes results: what a file does to it is not done to the node."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import EngineError
from ..prediction.exchange import error_from
from ..study.decoding import interpreter
from .predicting_child import Task
from .settings import PredictSettings

_MOST_USES = 2000
"""A child that has done so many is replaced, whatever it may have leaked."""
_THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS",
)


@dataclass(frozen=True)
class Results:
    """What was made of an image or volume.

    Attributes:
        objects: (SOP Instance UID, file name) each.
        notes: What was left out and why.
        deferred: Whether a human should decide without the prediction.
    """

    objects: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]
    deferred: bool


class PredictingProcess:
    """Owns the child: starts it when it is needed and again after it has ended. For one thread, besides `stop`.

    Args:
        settings: Threads and limits.
    """

    def __init__(self, settings: PredictSettings) -> None:
        self._settings = settings
        self._process: subprocess.Popen[str] | None = None
        self._uses = 0
        self._stopped = False

    @property
    def process_id(self) -> int | None:
        """Of the child; None where there is none."""
        return None if self._process is None or self._process.poll() is not None else self._process.pid

    def predict(self, task: Task) -> Results:
        """Predict and wait for it.

        Raises:
            EngineError: The child ended, took too long or could not be started.
            MediScanError: The files, the model or the device are not acceptable, or results cannot be written.
        """
        process = self._started()
        if self._stopped:  # while it was started
            self._kill()
        assert process.stdin is not None and process.stdout is not None
        late = threading.Event()

        def end_late() -> None:
            late.set()
            self._kill()

        timer = threading.Timer(self._settings.time_limit_s, end_late)
        timer.daemon = True
        timer.start()
        line = ""
        try:
            with contextlib.suppress(OSError, ValueError):  # a child that is gone is told of below
                process.stdin.write(task.to_json() + "\n")
                process.stdin.flush()
                line = process.stdout.readline()
        finally:
            timer.cancel()
        self._uses += 1
        if not line.endswith("\n"):
            self._kill()
            code = process.wait()
            if self._stopped:
                raise EngineError("The node is stopping.", code="stopping")
            if late.is_set():
                raise EngineError(f"It took longer than predict.time_limit_s ({self._settings.time_limit_s:g} s).")
            raise EngineError(
                f"The process that predicts ended ({code}). It may have needed more memory than there is."
            )
        answer: dict[str, Any] = json.loads(line)
        if self._uses >= _MOST_USES:
            self.close()
        if "error" in answer:
            raise error_from(answer["error"])
        return Results(
            tuple((str(uid), str(name)) for uid, name in answer["objects"]), tuple(answer["notes"]), answer["deferred"]
        )

    def stop(self) -> None:
        """From another thread: end what is under way."""
        self._stopped = True
        self._kill()

    def close(self) -> None:
        """End the child."""
        self._kill()
        process, self._process = self._process, None
        if process is not None:
            process.wait()
            for stream in (process.stdin, process.stdout):
                if stream is not None:
                    with contextlib.suppress(OSError):
                        stream.close()

    def _kill(self) -> None:
        process = self._process
        if process is None or process.poll() is not None:
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if hasattr(os, "killpg"):  # with the decoder that it may have started
                os.killpg(process.pid, signal.SIGKILL)
            else:
                process.kill()

    def _started(self) -> subprocess.Popen[str]:
        if self._stopped:
            raise EngineError("The node is stopping.", code="stopping")
        if self.process_id is not None and self._process is not None:
            return self._process
        self.close()
        self._uses = 0
        root = Path(__file__).resolve().parents[2]
        places = [str(root), *(str(Path(place).absolute()) for place in sys.path if place)]
        threads = str(self._settings.threads_each)
        models = os.environ.get("MEDISCAN_MODELS", "").split(os.pathsep)
        try:
            self._process = subprocess.Popen(  # noqa: S603 - this library, in the Python that runs
                [interpreter(), "-m", "MediScanLib.pacs.predicting_child"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                cwd=root,
                env={
                    **os.environ,
                    "PYTHONPATH": os.pathsep.join(places),
                    **dict.fromkeys(_THREAD_VARIABLES, threads),
                    "MEDISCAN_MODELS": os.pathsep.join(str(Path(place).absolute()) for place in models if place),
                },
                text=True,
                encoding="utf-8",
                start_new_session=True,
            )
        except OSError as error:
            raise EngineError(f"The process that predicts cannot be started ({error.strerror}).") from error
        return self._process
