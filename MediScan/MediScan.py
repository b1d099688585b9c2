"""MediScan in 3D Slicer: reads an image with what is known of the patient and shows what it sees, and where."""

import importlib.util
import json
import logging
import shutil
import sys
import time
import unittest
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import qt
import slicer
import vtk
from slicer import vtkMRMLScalarVolumeNode
from slicer.i18n import tr as _
from slicer.i18n import translate
from slicer.parameterNodeWrapper import Choice, WithinRange, parameterNodeWrapper
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleLogic,
    ScriptedLoadableModuleTest,
    ScriptedLoadableModuleWidget,
)
from slicer.util import VTKObservationMixin

# Installed, MediScanLib lies beside this file; in a source checkout it lies beside the folder of this file.
_HERE = Path(__file__).resolve().parent
_LIBRARY = next(folder for folder in (_HERE, _HERE.parent) if (folder / "MediScanLib" / "__init__.py").is_file())
if str(_LIBRARY) not in sys.path:
    sys.path.insert(0, str(_LIBRARY))

from MediScanLib.errors import CancelledError, MediScanError  # noqa: E402 - found only once the path is set
from MediScanLib.study.fields import FIELDS  # noqa: E402
from MediScanLib.study.values import parse_field  # noqa: E402

if TYPE_CHECKING:
    from MediScanLib.prediction.engine import Run
    from MediScanLib.prediction.exchange import Request
    from MediScanLib.prediction.result import Prediction
    from MediScanLib.progress import Progress
    from MediScanLib.scene.session import Results
    from MediScanLib.study.record import ClinicalRecord

DEFAULT_MODEL = "mediscan-general"
POLL_MILLISECONDS = 50
NEEDED_PACKAGES = ("pydantic", "safetensors", "torch", "monai")
REQUIREMENTS = _HERE / "Resources" / "requirements.txt"


class MediScan(ScriptedLoadableModule):
    """What the application shows about the module."""

    def __init__(self, parent: Any) -> None:
        ScriptedLoadableModule.__init__(self, parent)
        self.parent.title = _("MediScan")
        self.parent.categories = [translate("qSlicerAbstractCoreModule", "Analysis")]
        self.parent.dependencies = []
        self.parent.contributors = ["MediScan contributors"]
        self.parent.helpText = _("""
Reads one image, a radiograph, a color picture or a volume, together with ten clinical values, and says what it sees,
where it sees it, how sure it is and when it would rather leave the decision to a human.
<p>Choose the image and press Apply. Clinical values may stay empty; age and sex come from the DICOM header where it
has them. The heat map of the finding lies over the image in the slice views.</p>
<p>For research use only. Not a medical device: not cleared or approved for diagnosis or patient care.</p>
""")
        self.parent.acknowledgementText = _("""
MediScan stands on MONAI, PyTorch, pydicom, SimpleITK and 3D Slicer. What the models were trained on, and under which
licenses, is stated in the card of each model.
""")
        slicer.app.connect("startupCompleted()", registerSampleData)


def registerSampleData() -> None:
    """Add a phantom, which needs no download, and a few public radiographs to the Sample Data module."""
    import SampleData

    category = "MediScan"
    SampleData.SampleDataLogic.registerCustomSampleDataCategory(category, title=_("MediScan"))
    SampleData.SampleDataLogic.registerCustomSampleDataSource(
        category=category,
        sampleName="MediScanPhantom",
        uris="phantom",  # made by code; the name stands where others have an address
        fileNames="MediScanPhantom.nrrd",
        nodeNames="MediScanPhantom",
        thumbnailFileName=str(_HERE / "Resources" / "Icons" / "MediScan.png"),
        customDownloader=loadPhantom,
    )
    for sample in json.loads((_HERE / "Resources" / "SampleData" / "samples.json").read_text(encoding="utf-8")):
        SampleData.SampleDataLogic.registerCustomSampleDataSource(
            category=category,
            sampleName=f"{sample['name']} ({sample['credit']}, {sample['license']})",
            uris=sample["url"],
            fileNames=sample["file"],
            nodeNames=sample["name"],
            checksums=f"SHA256:{sample['sha256']}",
            loadFileType="VolumeFile",
            # The names hold numbers, which would make the reader look for more slices beside the file.
            loadFileProperties={"singleFile": True},
        )


def loadPhantom(source: object = None) -> vtkMRMLScalarVolumeNode:
    """Make a phantom chest radiograph, show it and return its volume node; `source` is what Sample Data passes."""
    from MediScanLib.scene.volumes import volume_from_image
    from MediScanLib.study.phantom import make_phantom

    node = volume_from_image(slicer.mrmlScene, make_phantom(), slicer.mrmlScene.GenerateUniqueName("MediScanPhantom"))
    slicer.util.setSliceViewerLayers(background=node, fit=True)
    return node


@parameterNodeWrapper
class MediScanParameterNode:
    """What the user has chosen. Clinical values are text as typed, empty or "unknown" where not known."""

    inputVolume: vtkMRMLScalarVolumeNode
    modelName: str = DEFAULT_MODEL
    device: Annotated[str, Choice(["auto", "cpu", "cuda", "mps"])] = "auto"
    age_years: str = ""
    sex: Annotated[str, Choice(["unknown", "F", "M"])] = "unknown"
    temperature_c: str = ""
    heart_rate_per_min: str = ""
    respiratory_rate_per_min: str = ""
    spo2_percent: str = ""
    leukocytes_1e9_per_l: str = ""
    neutrophils_1e9_per_l: str = ""
    lymphocytes_1e9_per_l: str = ""
    crp_mg_per_l: str = ""
    finding: str = ""
    showHeatMap: bool = True
    opacity: Annotated[float, WithinRange(0.0, 1.0)] = 0.5
    threshold: Annotated[float, WithinRange(0.0, 1.0)] = 0.25


class MediScanWidget(ScriptedLoadableModuleWidget, VTKObservationMixin):
    """The panel: widgets and wiring only."""

    def __init__(self, parent: Any = None) -> None:
        ScriptedLoadableModuleWidget.__init__(self, parent)
        VTKObservationMixin.__init__(self)
        self.logic = None
        self._parameterNode = None
        self._parameterNodeGuiTag = None
        self._shownVolumeID = ""
        self._shownStyle = None
        self._dependencyMessage = ""
        self._run = None
        self._runVolumeID = ""
        self._runStarted = 0.0

    def setup(self) -> None:
        """Called when the user opens the module the first time."""
        ScriptedLoadableModuleWidget.setup(self)
        uiWidget = slicer.util.loadUI(self.resourcePath("UI/MediScan.ui"))
        self.layout.addWidget(uiWidget)
        self.ui = slicer.util.childWidgetVariables(uiWidget)
        uiWidget.setMRMLScene(slicer.mrmlScene)
        self.logic = MediScanLogic()

        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.StartCloseEvent, self.onSceneStartClose)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.EndCloseEvent, self.onSceneEndClose)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.EndImportEvent, self.onSceneEndImport)
        self.ui.applyButton.connect("clicked(bool)", self.onApplyButton)
        self.ui.modelComboBox.connect("currentIndexChanged(int)", self.onModelChanged)
        self.ui.findingComboBox.connect("currentIndexChanged(int)", self.onFindingChanged)
        self._timer = qt.QTimer()
        self._timer.interval = POLL_MILLISECONDS
        self._timer.connect("timeout()", self._pollRun)
        self._fillModels()
        self.initializeParameterNode()

    def cleanup(self) -> None:
        """Called when the application closes and the module widget is destroyed."""
        self._dropRun()
        self.setParameterNode(None)
        self.removeObservers()

    def enter(self) -> None:
        """Called each time the user opens this module."""
        self._fillModels()
        self.initializeParameterNode()

    def exit(self) -> None:
        """Called each time the user opens a different module."""
        self.setParameterNode(None)

    def onReload(self) -> None:
        """Reload the library together with the module, for developers."""
        for name in [name for name in sys.modules if name == "MediScanLib" or name.startswith("MediScanLib.")]:
            del sys.modules[name]
        ScriptedLoadableModuleWidget.onReload(self)

    def onSceneStartClose(self, caller: vtk.vtkObject, event: str) -> None:
        """Called just before the scene is closed."""
        self._dropRun()
        self.setParameterNode(None)
        self._showResults(None)

    def onSceneEndClose(self, caller: vtk.vtkObject, event: str) -> None:
        """Called just after the scene is closed."""
        if self.parent.isEntered:
            self.initializeParameterNode()

    def onSceneEndImport(self, caller: vtk.vtkObject, event: str) -> None:
        """Called after a scene was loaded: only now are all nodes there that the parameter node points to."""
        if self.parent.isEntered:
            self.initializeParameterNode()

    def initializeParameterNode(self) -> None:
        """Ensure that the parameter node exists and is observed, and choose an image if none is chosen."""
        self.setParameterNode(self.logic.getParameterNode())
        if not self._parameterNode.inputVolume:
            volumeNode = self.logic.firstImage()
            if volumeNode:
                self._parameterNode.inputVolume = volumeNode

    def setParameterNode(self, inputParameterNode: MediScanParameterNode | None) -> None:
        """Set and observe the parameter node, or let go of it."""
        if self._parameterNode:
            self._parameterNode.disconnectGui(self._parameterNodeGuiTag)
            self.removeObserver(self._parameterNode, vtk.vtkCommand.ModifiedEvent, self._onParameterNodeModified)
        self._parameterNode = inputParameterNode
        self._parameterNodeGuiTag = None
        self._shownVolumeID = ""
        if self._parameterNode:
            self._dependencyMessage = self.logic.dependencyMessage()
            self._parameterNodeGuiTag = self._parameterNode.connectGui(self.ui)
            self.addObserver(self._parameterNode, vtk.vtkCommand.ModifiedEvent, self._onParameterNodeModified)
            self._shownStyle = self._style()
            self._onParameterNodeModified()

    def onModelChanged(self, index: int = -1) -> None:
        """Take the chosen model into the parameter node."""
        if self._parameterNode and self.ui.modelComboBox.currentText:
            self._parameterNode.modelName = self.ui.modelComboBox.currentText

    def onFindingChanged(self, index: int = -1) -> None:
        """Show the heat map of the chosen finding."""
        label = self.ui.findingComboBox.currentText
        if not self._parameterNode or not label or label == self._parameterNode.finding:
            return
        self._parameterNode.finding = label
        with slicer.util.tryWithErrorDisplay(_("The heat map cannot be shown."), waitCursor=True):
            self.logic.showHeatMap(self._parameterNode.inputVolume, label, *self._style())

    def onApplyButton(self) -> None:
        """Look at the image, or stop looking."""
        if self._run is not None:
            self._run.cancel()
            return
        with slicer.util.tryWithErrorDisplay(_("The image was not looked at.")):
            self._startRun(self._parameterNode)

    def isRunning(self) -> bool:
        """True while an image is being looked at."""
        return self._run is not None

    def _startRun(self, node: MediScanParameterNode) -> None:
        try:
            self.logic.installDependencies()
        except CancelledError as error:
            slicer.util.showStatusMessage(str(error), 5000)
            return
        finally:
            self._dependencyMessage = self.logic.dependencyMessage()
            self._fillModels()
        self._run = self.logic.startProcessing(
            node.inputVolume, self._clinicalValues(), modelName=node.modelName, device=node.device
        )
        self._runVolumeID = node.inputVolume.GetID()
        self._runStarted = time.monotonic()
        self._timer.start()
        self._showProgress()
        self._checkCanApply()

    def _pollRun(self) -> None:
        """Called by the timer while an image is being looked at; it never waits."""
        run = self._run
        if run is None:
            return
        try:
            with slicer.util.tryWithErrorDisplay(_("The image was not looked at.")):
                try:
                    prediction = run.poll()
                except CancelledError as error:
                    slicer.util.showStatusMessage(str(error), 5000)
                else:
                    if prediction is None:
                        self._showProgress()
                    else:
                        self._finishRun(prediction)
        finally:
            if run.finished:
                self._endRun()

    def _finishRun(self, prediction: "Prediction") -> None:
        volumeNode = slicer.mrmlScene.GetNodeByID(self._runVolumeID)
        if volumeNode is None:
            slicer.util.showStatusMessage(_("The image was removed while it was looked at."), 5000)
            return
        self.logic.addPrediction(volumeNode, prediction)
        findings = self.logic.results(volumeNode).findings
        node = self._parameterNode
        if findings and node and node.inputVolume is volumeNode:
            node.finding = findings[0]
            self.logic.showHeatMap(volumeNode, findings[0], *self._style(), jump=True)
        elif findings:
            self.logic.showHeatMap(volumeNode, findings[0], visible=False)

    def _endRun(self) -> None:
        self._timer.stop()
        self._run = None
        self._showProgress()
        if self._parameterNode:
            self._showResults(self._parameterNode.inputVolume)
            self._checkCanApply()

    def _dropRun(self) -> None:
        """Stop at once whatever is under way, and forget it."""
        if self.logic is not None:  # the panel may be closed before it was ever opened
            self.logic.stopProcessing()
        if self._run is not None:
            self._endRun()

    def _showProgress(self) -> None:
        self.ui.applyButton.text = _("Apply") if self._run is None else _("Cancel")
        self.ui.progressBar.visible = self._run is not None
        if self._run is not None:
            stage, done, total = self._run.step
            steps = total if total > 1 else 0  # a single step has no percentage: the bar just moves
            self.ui.progressBar.maximum = steps
            self.ui.progressBar.value = done if steps else 0
            text = _("{stage}: {done} of {total}, {seconds:.0f} s") if steps else _("{stage}, {seconds:.0f} s")
            self.ui.statusLabel.text = text.format(
                stage=stage.capitalize(), done=done, total=total, seconds=time.monotonic() - self._runStarted
            )
            self.ui.statusLabel.visible = True

    def _onParameterNodeModified(self, caller: object = None, event: object = None) -> None:
        node = self._parameterNode
        if not node:
            return
        volumeID = node.inputVolume.GetID() if node.inputVolume else None
        if volumeID != self._shownVolumeID:
            self._shownVolumeID = volumeID
            self._showResults(node.inputVolume)
            self._showPrefill(node.inputVolume)
        self._select(self.ui.modelComboBox, node.modelName)
        self._select(self.ui.findingComboBox, node.finding)
        if self._style() != self._shownStyle:
            # only then, so that typing elsewhere in the panel never turns the views back to this image
            self._shownStyle = self._style()
            self.logic.styleHeatMap(node.inputVolume, *self._style())
        self._checkCanApply()

    def _checkCanApply(self) -> None:
        problem = self.logic.problem(self._parameterNode.inputVolume, self._clinicalValues())
        self.ui.applyButton.enabled = not problem or self._run is not None
        self.ui.applyButton.toolTip = _("Stop looking.") if self._run else problem or _("Look at the image.")
        if self._run is None:
            message = self._clinicalProblem() or self._dependencyMessage
            self.ui.statusLabel.text = message
            self.ui.statusLabel.visible = bool(message)
        values = self._clinicalValues().values()
        known = sum(value not in ("", "unknown") for value in values)
        self.ui.clinicalCollapsibleButton.text = _("Clinical values ({known} of {total} entered)").format(
            known=known, total=len(FIELDS)
        )

    def _clinicalValues(self) -> dict[str, str]:
        return {name: self._parameterNode.getValue(name) for name in FIELDS}

    def _clinicalProblem(self) -> str:
        return self.logic.clinicalProblem(self._clinicalValues())

    def _style(self) -> tuple[bool, float, float]:
        node = self._parameterNode
        return node.showHeatMap, node.opacity, node.threshold

    def _fillModels(self) -> None:
        models = self.logic.availableModels()
        blocked = self.ui.modelComboBox.blockSignals(True)
        self.ui.modelComboBox.clear()
        for name, description in models.items():
            self.ui.modelComboBox.addItem(name)
            self.ui.modelComboBox.setItemData(self.ui.modelComboBox.count - 1, description, qt.Qt.ToolTipRole)
        if self._parameterNode:
            self._select(self.ui.modelComboBox, self._parameterNode.modelName)
        self.ui.modelComboBox.blockSignals(blocked)

    def _select(self, comboBox: Any, text: str) -> None:
        """Select an item; a model that is not there (any more) is shown all the same, so that Apply can say so."""
        blocked = comboBox.blockSignals(True)
        index = comboBox.findText(text)
        if index < 0 and text and comboBox is self.ui.modelComboBox:
            comboBox.addItem(text)
            index = comboBox.count - 1
        comboBox.setCurrentIndex(index)
        comboBox.blockSignals(blocked)

    def _showResults(self, volumeNode: vtkMRMLScalarVolumeNode | None) -> None:
        """Fill table, lines and finding selector with what the scene holds for an image."""
        results = self.logic.results(volumeNode)
        self.ui.findingsTableView.setMRMLTableNode(results.table)
        if results.table:
            self.ui.findingsTableView.resizeColumnsToContents()
        for name in ("severity", "certainty", "clinical", "model"):
            getattr(self.ui, f"{name}TextLabel").text = results.summary.get(name, "")
        blocked = self.ui.findingComboBox.blockSignals(True)
        self.ui.findingComboBox.clear()
        self.ui.findingComboBox.addItems(list(results.findings))
        self.ui.findingComboBox.blockSignals(blocked)
        self.ui.heatMapCollapsibleButton.enabled = bool(results.findings)
        if self._parameterNode and results.shown:
            self._parameterNode.finding = results.shown
            self._select(self.ui.findingComboBox, results.shown)

    def _showPrefill(self, volumeNode: vtkMRMLScalarVolumeNode | None) -> None:
        """Say which clinical values the image header states; they count unless the user enters others."""
        prefill = self.logic.prefill(volumeNode)
        for name, info in FIELDS.items():
            value = prefill.get(name)
            text = (
                _("unknown")
                if value is None
                else _("{value} (from the image)").format(value=value if info.choices else f"{value:g}")
            )
            if info.choices:
                getattr(self.ui, f"{name}ComboBox").setItemText(0, text)
            else:
                getattr(self.ui, f"{name}Edit").placeholderText = text


class MediScanLogic(ScriptedLoadableModuleLogic):
    """Everything that works without a window. Heavy packages are imported only where they are used."""

    def __init__(self) -> None:
        ScriptedLoadableModuleLogic.__init__(self)
        self._engine = None
        self._worker = None

    def getParameterNode(self) -> MediScanParameterNode:
        """The parameter node of this module in the scene."""
        return MediScanParameterNode(super().getParameterNode())

    @staticmethod
    def dependenciesInstalled() -> bool:
        """True where nothing has to be installed before the first run."""
        from MediScanLib.scene import packages

        return packages.installed(REQUIREMENTS)

    @staticmethod
    def dependencyMessage() -> str:
        """What the user should know about missing packages; empty where there are none."""
        from MediScanLib.scene import packages

        return packages.message(REQUIREMENTS)

    @staticmethod
    def installDependencies() -> None:
        """Install what is missing after asking the user; in testing mode nothing is installed."""
        from MediScanLib.scene import packages

        packages.install(REQUIREMENTS)

    @staticmethod
    def availableModels() -> dict[str, str]:
        """Names of the models with their descriptions; only the default's name before the packages are installed."""
        try:
            from MediScanLib.network.bundle import available_bundles
        except ImportError:
            return {DEFAULT_MODEL: ""}
        models = {bundle.name: bundle.description for bundle in available_bundles()}
        return models or {DEFAULT_MODEL: ""}

    @staticmethod
    def firstImage() -> vtkMRMLScalarVolumeNode | None:
        """The first volume in the scene that is an image and no heat map; None if there is none."""
        from MediScanLib.scene.session import first_image

        return first_image(slicer.mrmlScene)

    @staticmethod
    def prefill(volumeNode: vtkMRMLScalarVolumeNode | None) -> dict[str, float | str]:
        """Clinical values that the image header states, by field name."""
        from MediScanLib.scene.session import stated_values

        return stated_values(volumeNode)

    def problem(self, volumeNode: vtkMRMLScalarVolumeNode | None, clinicalValues: dict[str, str] | None = None) -> str:
        """Why these inputs cannot be processed; empty where they can."""
        from MediScanLib.scene.nodes import is_ours

        if volumeNode is None:
            return _("Choose an image. The Sample Data module has some to try.")
        if is_ours(volumeNode):
            return _("This is a heat map. Choose the image itself.")
        if volumeNode.GetImageData() is None:
            return _("This volume is empty. Load the image again.")
        return self.clinicalProblem(clinicalValues or {})

    @staticmethod
    def clinicalProblem(clinicalValues: dict[str, str]) -> str:
        """The first clinical value that is not understood or out of range, in words; empty where all are fine."""
        for name, text in clinicalValues.items():
            try:
                parse_field(name, text)
            except MediScanError as error:
                title = FIELDS[name].title if name in FIELDS else name
                return f"{title}: {str(error).removeprefix(f'{name}: ')}"
        return ""

    def process(
        self,
        volumeNode: vtkMRMLScalarVolumeNode,
        clinicalRecord: "ClinicalRecord | dict[str, Any] | None" = None,
        modelName: str = DEFAULT_MODEL,
        device: str = "auto",
        progress: "Progress | None" = None,
        showResult: bool = True,
    ) -> "Prediction":
        """Look at an image, wait, and put findings, prediction and heat maps into the scene. Needs no window.

        Args:
            volumeNode: Scalar or vector volume node.
            clinicalRecord: What is known of the patient; values by field name, what is left out is unknown.
            modelName: Name of a model, or folder of a bundle.
            device: "auto", "cpu", "cuda", "cuda:N" or "mps".
            progress: Hears how far it is, and may cancel.
            showResult: Lay the heat map of the most probable finding over the image in the slice views.

        Raises:
            MediScanError: An input, the model or the device is not acceptable, a package is missing, or the run was
                cancelled.
        """
        request = self._request(volumeNode, clinicalRecord, modelName, device)
        if self._engine is None:
            from MediScanLib.prediction.engine import InProcess

            self._engine = InProcess()
        prediction = self._engine.predict(request, progress)
        self.addPrediction(volumeNode, prediction)
        findings = self.results(volumeNode).findings
        if showResult and findings:
            self.showHeatMap(volumeNode, findings[0], jump=True)
        return prediction

    def startProcessing(
        self,
        volumeNode: vtkMRMLScalarVolumeNode,
        clinicalRecord: "ClinicalRecord | dict[str, Any] | None" = None,
        modelName: str = DEFAULT_MODEL,
        device: str = "auto",
    ) -> "Run":
        """Begin to look at an image in another process and return at once; `addPrediction` takes what it says.

        The arguments and errors are those of `process`. One image at a time.
        """
        request = self._request(volumeNode, clinicalRecord, modelName, device)
        if self._worker is None:
            from MediScanLib.prediction.engine import Worker

            self._worker = Worker(shutil.which("PythonSlicer") or sys.executable, paths=sys.path)
        return self._worker.submit(request)

    def stopProcessing(self) -> None:
        """End the other process, whatever it is doing."""
        if self._worker is not None:
            self._worker.close()

    def addPrediction(self, volumeNode: vtkMRMLScalarVolumeNode, prediction: "Prediction") -> None:
        """Put findings, prediction and heat maps into the scene beside the image."""
        from MediScanLib.scene.session import add_prediction
        from MediScanLib.scene.volumes import image_from_volume, mend_window

        mend_window(volumeNode, image_from_volume(volumeNode))
        add_prediction(slicer.mrmlScene, prediction, volumeNode)
        logging.info(
            f"MediScan: {prediction.top.label} {prediction.top.probability:.2f} by {prediction.provenance.model}"
        )

    def _request(
        self,
        volumeNode: vtkMRMLScalarVolumeNode,
        clinicalRecord: "ClinicalRecord | dict[str, Any] | None",
        modelName: str,
        device: str,
    ) -> "Request":
        for name in NEEDED_PACKAGES:  # not imported here: that takes seconds, and the other process does it
            if importlib.util.find_spec(name) is None:
                raise MediScanError(
                    _("The Python package {name} is missing. {remedy}").format(
                        name=name, remedy=self.dependencyMessage() or _("Install it.")
                    )
                )
        from MediScanLib.prediction.exchange import Request
        from MediScanLib.scene.volumes import image_from_volume
        from MediScanLib.study.record import ClinicalRecord

        if not isinstance(clinicalRecord, ClinicalRecord):
            clinicalRecord = ClinicalRecord(**(clinicalRecord or {}))
        return Request(image_from_volume(volumeNode), clinicalRecord, modelName, device)

    @staticmethod
    def results(volumeNode: vtkMRMLScalarVolumeNode | None) -> "Results":
        """What the scene holds for an image: table, summary, findings with a heat map, and which one is shown."""
        from MediScanLib.scene.session import results_of

        return results_of(slicer.mrmlScene, volumeNode)

    @staticmethod
    def showHeatMap(
        volumeNode: vtkMRMLScalarVolumeNode | None,
        finding: str,
        visible: bool = True,
        opacity: float = 0.5,
        threshold: float = 0.25,
        jump: bool = False,
    ) -> vtkMRMLScalarVolumeNode:
        """Show the heat map of a finding over its image, and if asked the slices where it is hottest.

        Raises:
            MediScanError: There are no heat maps for this image, or none of that finding.
        """
        from MediScanLib.scene.session import show_heat_map

        overlay, turned = show_heat_map(
            slicer.mrmlScene,
            volumeNode,
            finding,
            visible=visible,
            opacity=opacity,
            threshold=threshold,
            jump=jump,
        )
        if turned and slicer.app.layoutManager() is not None:
            slicer.util.resetSliceViews()
        return overlay

    @staticmethod
    def styleHeatMap(
        volumeNode: vtkMRMLScalarVolumeNode | None, visible: bool, opacity: float, threshold: float
    ) -> None:
        """Show or hide the heat map of an image and set its opacity and threshold; nothing where it has none."""
        from MediScanLib.scene.session import style_heat_map

        style_heat_map(slicer.mrmlScene, volumeNode, visible=visible, opacity=opacity, threshold=threshold)

    @staticmethod
    def removeResults(volumeNode: vtkMRMLScalarVolumeNode) -> None:
        """Remove everything that MediScan added to the scene for an image."""
        from MediScanLib.scene.results import remove_results

        remove_results(slicer.mrmlScene, volumeNode)


class MediScanTest(ScriptedLoadableModuleTest):
    """The module's self test; Testing/slicer holds more."""

    def setUp(self) -> None:
        """Start from an empty scene."""
        slicer.mrmlScene.Clear()

    def runTest(self) -> None:
        """Run every test; one that cannot run here is logged, not failed."""
        for name in ("test_panel", "test_process"):
            self.setUp()
            try:
                getattr(self, name)()
            except unittest.SkipTest as reason:
                logging.info(f"{name} skipped: {reason}")

    def test_panel(self) -> None:
        """Apply says why it cannot be pressed, and can be pressed once there is an image."""
        widget = slicer.modules.mediscan.widgetRepresentation().self()
        widget.initializeParameterNode()
        self.assertFalse(widget.ui.applyButton.enabled)
        self.assertTrue(widget.ui.applyButton.toolTip)
        node = loadPhantom()
        widget.initializeParameterNode()
        self.assertEqual(widget.ui.inputSelector.currentNodeID, node.GetID())
        self.assertTrue(widget.ui.applyButton.enabled)
        widget.ui.spo2_percentEdit.text = "0.97"
        self.assertFalse(widget.ui.applyButton.enabled)
        self.assertIn("97", widget.ui.applyButton.toolTip)
        widget.ui.spo2_percentEdit.text = "97 %"
        self.assertTrue(widget.ui.applyButton.enabled)

    def test_process(self) -> None:
        """A whole run from a script; its results are in the scene and in the panel."""
        logic = MediScanLogic()
        node = loadPhantom()
        try:
            from MediScanLib.network.bundle import bundle_folders
            from MediScanLib.prediction.predictor import Predictor  # noqa: F401 - shows that torch is there
        except ImportError as error:
            self.skipTest(f"the Python package {error.name!r} is not installed")
        if DEFAULT_MODEL not in {folder.name for folder in bundle_folders()}:
            self.skipTest(f"the model {DEFAULT_MODEL} is not installed")
        prediction = logic.process(node, {"age_years": 63, "sex": "F"}, device="cpu")
        self.assertAlmostEqual(sum(prediction.probabilities.values()), 1.0, places=3)
        self.assertEqual(prediction.clinical.used["age_years"], 63)
        results = logic.results(node)
        self.assertEqual(results.table.GetNumberOfRows(), len(prediction.findings))
        self.assertEqual(results.shown, prediction.top.label)

        widget = slicer.modules.mediscan.widgetRepresentation().self()
        widget.initializeParameterNode()
        widget.ui.inputSelector.setCurrentNode(node)
        self.assertEqual(widget.ui.findingComboBox.currentText, prediction.top.label)
        self.assertTrue(widget.ui.severityTextLabel.text)
