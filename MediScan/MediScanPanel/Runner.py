"""What the model is doing in the other process: one run at a time, asked for by a timer, so that nothing waits."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import qt
import slicer
from slicer.i18n import tr as _

from MediScanLib.errors import CancelledError

if TYPE_CHECKING:
    from MediScanLib.prediction.engine import Run, Step
    from MediScanLib.prediction.result import Prediction

POLL_MILLISECONDS = 50


@dataclass
class Job:
    """A run and what becomes of it.

    Attributes:
        run: The run.
        volumeID: Image it looks at.
        finish: Called with the image's node and the prediction, unless the image is gone by then.
        visible: Whether the user asked for it, so that progress is shown and errors are told.
        started: When, by `time.monotonic`.
    """

    run: "Run"
    volumeID: str
    finish: Callable[[Any, "Prediction"], None]
    visible: bool
    started: float


class Runner:
    """Starts runs and hears of their end.

    Args:
        logic: The module's logic.
        changed: Called whenever a run starts, moves on or ends.
    """

    def __init__(self, logic: Any, changed: Callable[[], None]) -> None:
        self._logic = logic
        self._changed = changed
        self.job: Job | None = None
        self._next: Callable[[], None] | None = None  # what starts once the run before it has stopped
        self._timer = qt.QTimer()
        self._timer.setInterval(POLL_MILLISECONDS)
        self._timer.connect("timeout()", self._poll)

    @property
    def busy(self) -> bool:
        """True while a run is under way, or about to start, that the user asked for."""
        return self._next is not None or (self.job is not None and self.job.visible)

    @property
    def step(self) -> "Step | tuple[str, int, int]":
        """How far the run is."""
        return ("starting", 0, 0) if self._next is not None or self.job is None else self.job.run.step

    @property
    def seconds(self) -> float:
        """How long it has been under way."""
        return 0.0 if self.job is None else time.monotonic() - self.job.started

    def start(
        self,
        volumeNode: Any,
        clinicalRecord: Any,
        finish: Callable[[Any, "Prediction"], None],
        visible: bool = True,
        **options: Any,
    ) -> None:
        """Begin a run; see `MediScanLogic.startProcessing` for the options and errors.

        One that is under way is cancelled first, so that the model stays loaded; this one starts when it has stopped.
        """

        def begin() -> None:
            run = self._logic.startProcessing(volumeNode, clinicalRecord, **options)
            self.job = Job(run, volumeNode.GetID(), finish, visible, time.monotonic())
            self._timer.start()
            self._changed()

        if self.job is None:
            begin()
            return
        self._next = begin
        self.job.run.cancel()
        self._changed()

    def cancel(self) -> None:
        """Ask the run to stop; it does within about half a second."""
        self._next = None
        if self.job is not None:
            self.job.run.cancel()

    def drop(self) -> None:
        """Stop at once whatever is under way, and forget it."""
        self._next = None
        self._logic.stopProcessing()
        if self.job is not None:
            self._end()

    def _poll(self) -> None:
        job = self.job
        if job is None:
            return
        try:
            with slicer.util.tryWithErrorDisplay(_("The image was not looked at."), show=job.visible):
                try:
                    prediction = job.run.poll()
                except CancelledError as error:
                    if job.visible:
                        slicer.util.showStatusMessage(str(error), 5000)
                else:
                    if prediction is None:
                        self._changed()
                    else:
                        self._finish(job, prediction)
        finally:
            if job.run.finished and self.job is job:
                self._end()
            if self.job is None and self._next is not None:
                begin, self._next = self._next, None
                with slicer.util.tryWithErrorDisplay(_("The image was not looked at.")):
                    begin()

    def _finish(self, job: Job, prediction: "Prediction") -> None:
        self._end()  # first, so that what is done with the prediction may start the next run
        volumeNode = slicer.mrmlScene.GetNodeByID(job.volumeID)
        if volumeNode is None:
            slicer.util.showStatusMessage(_("The image was removed while it was looked at."), 5000)
            return
        job.finish(volumeNode, prediction)

    def _end(self) -> None:
        self._timer.stop()
        self.job = None
        self._changed()
