"""Two views side by side: image and heat map, two findings, models, explanations or times, reader and model."""

from typing import Any

import qt
import slicer
import vtk
from slicer.i18n import tr as _
from slicer.util import VTKObservationMixin

from MediScanLib.errors import UsageError
from MediScanLib.prediction.explanations.methods import METHODS as EXPLANATIONS

ORIGINAL, FINDINGS, MODELS, METHODS, IMAGE_ONLY, PRIOR, REGION = COMPARISONS = (
    "original | heat map",
    "finding | other finding",
    "model | other model",
    "explanation | other explanation",
    "image and patient | image only",
    "earlier image | this image",
    "reader's region | heat map",
)
IMAGE_ONLY_SLOT = "image only"  # scene.panes.IMAGE_ONLY, which is not imported before it is needed
REST_MILLISECONDS = 150


class CompareSection(VTKObservationMixin):
    """Chooses what stands beside what, shows it, and finds the way back."""

    def __init__(self, panel: Any) -> None:
        VTKObservationMixin.__init__(self)
        self.panel, self.ui, self.logic, self.runner = panel, panel.ui, panel.logic, panel.runner
        self._shown = ""
        self._rest = qt.QTimer()
        self._rest.setSingleShot(True)
        self._rest.setInterval(REST_MILLISECONDS)
        self._rest.connect("timeout()", self.onRested)
        self.ui.secondMethodComboBox.addItems(list(EXPLANATIONS[1:]))
        self.ui.compareButton.connect("clicked(bool)", self.onCompare)
        self.ui.leaveCompareButton.connect("clicked(bool)", self.leave)
        self.ui.regionSelector.connect("currentNodeChanged(vtkMRMLNode*)", self.onRegionChanged)
        self.ui.secondFindingComboBox.connect("currentIndexChanged(int)", self.onOtherChanged)

    @property
    def slot(self) -> str:
        """Which second result stands beside the first; empty where there is only one."""
        comparison = self.panel.node.comparison
        if comparison == MODELS:
            return self.ui.secondModelComboBox.currentText
        if comparison == METHODS:
            return self.ui.secondMethodComboBox.currentText
        return IMAGE_ONLY_SLOT if comparison == IMAGE_ONLY else ""

    def cleanup(self) -> None:
        """Let go of everything."""
        self._rest.stop()
        self.removeObservers()

    def show(self, volumeNode: Any) -> None:
        """Offer what can be compared with the results of an image."""
        findings = list(self.logic.results(volumeNode).findings)
        self._fill(self.ui.secondFindingComboBox, findings, 1)
        self._fill(self.ui.secondModelComboBox, list(self.logic.availableModels()), 1)
        self.ui.compareCollapsibleButton.enabled = bool(findings)

    def update(self) -> None:
        """Show the rows that belong to the chosen comparison."""
        node = self.panel.node
        for widget, comparison in (
            (self.ui.secondFindingComboBox, FINDINGS),
            (self.ui.secondModelComboBox, MODELS),
            (self.ui.secondMethodComboBox, METHODS),
            (self.ui.priorSelector, PRIOR),
            (self.ui.regionSelector, REGION),
        ):
            widget.visible = node.comparison == comparison
            getattr(self.ui, f"{widget.objectName}Label").visible = node.comparison == comparison
        self.ui.leaveCompareButton.enabled = self.logic.isComparing()
        if node.comparison != self._shown:
            self._shown = node.comparison
            self._say("")
        self._rest.start()  # threshold or finding may have changed

    def onOtherChanged(self, index: int = -1) -> None:
        """Show the other finding, if two are side by side."""
        if self.panel.node and self.panel.node.comparison == FINDINGS and self.logic.isComparing():
            self._show()

    def onRegionChanged(self, regionNode: Any = None) -> None:
        """Follow the region that was chosen."""
        self.removeObservers()
        if regionNode is not None:
            self.addObserver(regionNode, vtk.vtkCommand.ModifiedEvent, self.onRegionModified)
            if regionNode.IsA("vtkMRMLMarkupsNode"):
                self.addObserver(regionNode, slicer.vtkMRMLMarkupsNode.PointModifiedEvent, self.onRegionModified)
            else:
                kind, segmentation = slicer.vtkSegmentation, regionNode.GetSegmentation()
                for event in (kind.SourceRepresentationModified, kind.SegmentAdded, kind.SegmentRemoved):
                    self.addObserver(segmentation, event, self.onRegionModified)
                self.addObserver(regionNode, slicer.vtkMRMLDisplayableNode.DisplayModifiedEvent, self.onRegionModified)
        self._rest.start()

    def onRegionModified(self, caller: object = None, event: object = None) -> None:
        """Measure anew, once the reader's hand has come to rest."""
        self._rest.start()

    def onRested(self) -> None:
        """Say how the heat map fits the region."""
        node = self.panel.node
        if not node or node.comparison != REGION or not node.inputVolume or not node.finding:
            return
        regionNode = self.ui.regionSelector.currentNode()
        if regionNode is None:
            self._say(_("Draw a region of interest or a segmentation on the image, and choose it."))
            return
        try:
            self._say(
                self.logic.regionFigures(node.inputVolume, node.finding, regionNode, node.threshold, node.commonScale)
            )
        except UsageError as error:
            self._say(str(error))

    def onCompare(self) -> None:
        """Show the two, after asking the model for the second where it is needed."""
        node = self.panel.node
        if node.comparison not in (MODELS, METHODS, IMAGE_ONLY):
            self._show()
            return
        said = self.logic.predictionFields(node.inputVolume)
        if self.runner.busy or said is None or not self.panel.run.prepare():
            return
        slot = self.slot
        with slicer.util.tryWithErrorDisplay(_("The image was not looked at.")):
            self.runner.start(
                node.inputVolume,
                {} if node.comparison == IMAGE_ONLY else said["clinical"]["used"],
                lambda volumeNode, prediction: self._onPrediction(volumeNode, prediction, slot),
                modelName=slot if node.comparison == MODELS else node.modelName,
                device=node.device,
                slices=[part["index"] for part in said["slices"]] or None,
                prefill=False,
                # a slower explanation is asked for to be trusted more: then it is tried, too
                **({"explanation": slot, "checkMap": True} if node.comparison == METHODS else {}),
            )

    def leave(self) -> None:
        """Go back to the layout that was there before."""
        self.logic.leaveComparison()
        self.ui.leaveCompareButton.enabled = False
        self._say("")

    def _onPrediction(self, volumeNode: Any, prediction: Any, slot: str) -> None:
        self.logic.addPrediction(volumeNode, prediction, slot=slot)
        if self.panel.node and self.panel.node.inputVolume is volumeNode:
            self._show()
            self._say(
                "\n".join(f"{verdict.finding}, {slot}: {verdict.verdict}" for verdict in prediction.faithfulness)
            )

    def _show(self) -> None:
        node = self.panel.node
        with slicer.util.tryWithErrorDisplay(_("The two cannot be shown side by side."), waitCursor=True):
            try:
                self.logic.showComparison(
                    node.comparison,
                    node.inputVolume,
                    node.finding,
                    otherFinding=self.ui.secondFindingComboBox.currentText,
                    slot=self.slot,
                    priorVolume=node.priorVolume,
                    region=self.ui.regionSelector.currentNode(),
                    **self.panel.heatMap.style,
                )
            except UsageError as error:
                self._say(str(error))
                raise
        self.ui.leaveCompareButton.enabled = self.logic.isComparing()
        self._say("")
        self._rest.start()

    def _say(self, text: str) -> None:
        self.ui.compareStatusLabel.text = text
        self.ui.compareStatusLabel.visible = bool(text)

    def _fill(self, box: Any, texts: list[str], index: int) -> None:
        chosen = box.currentText
        blocked = box.blockSignals(True)
        box.clear()
        box.addItems(texts)
        box.setCurrentIndex(texts.index(chosen) if chosen in texts else min(index, len(texts) - 1))
        box.blockSignals(blocked)
