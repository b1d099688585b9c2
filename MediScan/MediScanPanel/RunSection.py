"""Which slices are looked at, Apply and Cancel, and how far the run is."""

from typing import Any

import qt
import slicer
import vtk
from slicer.i18n import tr as _
from slicer.util import VTKObservationMixin

from MediScanLib.errors import CancelledError

WHOLE, CURRENT, RANGE = SCOPES = ("whole volume", "current slice", "slices from a to b")
AUTO_RUN_MILLISECONDS = 500


class RunSection(VTKObservationMixin):
    """Starts and stops looking at the image."""

    def __init__(self, panel: Any) -> None:
        VTKObservationMixin.__init__(self)
        self.panel, self.ui, self.logic, self.runner = panel, panel.ui, panel.logic, panel.runner
        self._dependencyMessage = ""
        self._slices = 1
        self._lastSlice: int | None = None
        self._rest = qt.QTimer()
        self._rest.setSingleShot(True)
        self._rest.setInterval(AUTO_RUN_MILLISECONDS)
        self._rest.connect("timeout()", self.onSliceRested)
        self.ui.applyButton.connect("clicked(bool)", self.onApply)

    def checkDependencies(self) -> None:
        """Look which packages are missing."""
        self._dependencyMessage = self.logic.dependencyMessage()

    def cleanup(self) -> None:
        """Let go of everything."""
        self._rest.stop()
        self.removeObservers()

    def showVolume(self, volumeNode: Any) -> None:
        """Offer slices only where there are some."""
        self._slices = self.logic.sliceCount(volumeNode)
        self._lastSlice = None
        for box in (self.ui.firstSliceSpinBox, self.ui.lastSliceSpinBox):
            box.maximum = max(self._slices - 1, 0)
        node = self.panel.node
        if node and node.lastSlice < node.firstSlice:
            node.lastSlice = node.firstSlice

    def update(self) -> None:
        """Show what can be done."""
        node = self.panel.node
        self.ui.scopeWidget.visible = self._slices > 1
        inRange = node.scope == RANGE
        for widget in (self.ui.sliceRangeRow, self.ui.sliceRangeRowLabel):
            widget.visible = inRange
        self.ui.autoRunCheckBox.visible = node.scope == CURRENT
        self._observeSlices(node.autoRun and node.scope == CURRENT and self._slices > 1)
        values = self.panel.patient.values
        problem = self.logic.problem(node.inputVolume, values) or self._rangeProblem()
        self.ui.applyButton.enabled = self.runner.busy or not problem
        self.ui.applyButton.toolTip = _("Stop looking.") if self.runner.busy else problem or _("Look at the image.")
        if not self.runner.busy:
            message = self._message(problem)
            self.ui.statusLabel.text = message
            self.ui.statusLabel.visible = bool(message)

    def showProgress(self) -> None:
        """Apply becomes Cancel while a run is under way; a bar and a line tell how far it is."""
        busy = self.runner.busy
        self.ui.applyButton.text = _("Cancel") if busy else _("Apply")
        self.ui.progressBar.visible = busy
        if not busy:
            return
        stage, done, total = self.runner.step
        steps = total if total > 1 else 0  # a single step has no percentage: the bar just moves
        self.ui.progressBar.maximum = steps
        self.ui.progressBar.value = done if steps else 0
        text = _("{stage}: {done} of {total}, {seconds:.0f} s") if steps else _("{stage}, {seconds:.0f} s")
        self.ui.statusLabel.text = text.format(
            stage=stage.capitalize(), done=done, total=total, seconds=self.runner.seconds
        )
        self.ui.statusLabel.visible = True

    def onApply(self) -> None:
        """Look at the image, or stop looking."""
        if self.runner.busy:
            self.runner.cancel()
            return
        with slicer.util.tryWithErrorDisplay(_("The image was not looked at.")):
            if self.prepare():
                self._start(jump=True)

    def prepare(self) -> bool:
        """Install what is missing, after asking; False where the user would rather not."""
        try:
            self.logic.installDependencies()
        except CancelledError as error:
            slicer.util.showStatusMessage(str(error), 5000)
            return False
        finally:
            self.checkDependencies()
            self.panel.study.fillModels()
        return True

    def onSliceMoved(self, caller: object = None, event: object = None) -> None:
        """Wait until the view has come to rest."""
        self._rest.start()

    def onSliceRested(self) -> None:
        """Look at the slice that is shown now, unless it was looked at already."""
        node = self.panel.node
        if not node or not node.autoRun or node.scope != CURRENT or not self.ui.applyButton.enabled:
            return
        if self.runner.job is not None:
            self._rest.start()
            return
        with slicer.util.tryWithErrorDisplay(_("The slice was not looked at.")):
            current = self.logic.currentSlice(node.inputVolume)
            if current is not None and current != self._lastSlice and self.logic.dependenciesInstalled():
                self._start(jump=False)

    def slices(self) -> list[int] | None:
        """The slices to look at; None for all."""
        node = self.panel.node
        if self._slices <= 1 or node.scope == WHOLE:
            return None
        if node.scope == RANGE:
            return list(range(node.firstSlice, node.lastSlice + 1))
        current = self.logic.currentSlice(node.inputVolume)
        if current is None:
            raise CancelledError(_("No slice view shows a slice of this image. Show it, or choose the whole volume."))
        return [current]

    def _start(self, jump: bool) -> None:
        node = self.panel.node
        slices = self.slices()
        self._lastSlice = slices[0] if slices and len(slices) == 1 else None
        self.runner.start(
            node.inputVolume,
            self.panel.patient.values,
            lambda volumeNode, prediction: self.panel.onPrediction(volumeNode, prediction, jump),
            modelName=node.modelName,
            device=node.device,
            slices=slices,
        )

    def _message(self, problem: str) -> str:
        node, values = self.panel.node, self.panel.patient.values
        if problem or self._dependencyMessage:
            return problem or self._dependencyMessage
        if self.logic.imageChanged(node.inputVolume):
            return _("The image is not the one that the result below was made of. Apply looks again.")
        if self.logic.isOutdated(node.inputVolume, values, node.modelName):
            return _("The result below was made with other clinical values or by another model. Apply looks again.")
        return ""

    def _rangeProblem(self) -> str:
        node = self.panel.node
        if self._slices > 1 and node.scope == RANGE and node.firstSlice > node.lastSlice:
            return _("The first slice lies after the last. Swap them.")
        return ""

    def _observeSlices(self, wanted: bool) -> None:
        views = self.logic.sliceViews(self.panel.node.inputVolume) if wanted else []
        observed = {caller for caller, *_rest in self.Observations} if self.Observations else set()
        if observed == set(views):
            return
        self.removeObservers()
        for view in views:
            self.addObserver(view, vtk.vtkCommand.ModifiedEvent, self.onSliceMoved)
