"""MediScan in 3D Slicer: reads an image with what is known of the patient and shows what it sees, and where."""

import importlib.util
import logging
import shutil
import sys
import unittest
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import qt
import slicer
import vtk
from slicer import vtkMRMLScalarVolumeNode
from slicer.i18n import tr as _
from slicer.i18n import translate
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
for _folder in (_LIBRARY, _HERE):
    if str(_folder) not in sys.path:
        sys.path.insert(0, str(_folder))

from MediScanLib.errors import MediScanError  # noqa: E402 - found only once the path is set
from MediScanLib.study.fields import FIELDS  # noqa: E402
from MediScanLib.study.values import parse_field  # noqa: E402
from MediScanPanel.CompareSection import CompareSection  # noqa: E402
from MediScanPanel.EngineSection import EngineSection  # noqa: E402
from MediScanPanel.ExportSection import ExportSection  # noqa: E402
from MediScanPanel.FindingsSection import FindingsSection  # noqa: E402
from MediScanPanel.HeatMapSection import HeatMapSection  # noqa: E402
from MediScanPanel.ParameterNode import DEFAULT_MODEL, MediScanParameterNode, mendValues  # noqa: E402
from MediScanPanel.PatientSection import PatientSection  # noqa: E402
from MediScanPanel.ReviewSection import ReviewSection  # noqa: E402
from MediScanPanel.Runner import Runner  # noqa: E402
from MediScanPanel.RunSection import RunSection  # noqa: E402
from MediScanPanel.SampleImages import loadPhantom, registerSampleData  # noqa: E402
from MediScanPanel.StudySection import StudySection  # noqa: E402
from MediScanPanel.WhatIfSection import WhatIfSection  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Sequence

    from MediScanLib.network.bundle import Bundle
    from MediScanLib.prediction.connection_test import ConnectionTest
    from MediScanLib.prediction.engine import Run, Worker
    from MediScanLib.prediction.exchange import Request
    from MediScanLib.prediction.result import Prediction
    from MediScanLib.progress import Progress
    from MediScanLib.scene.session import Results
    from MediScanLib.scene.style import Style
    from MediScanLib.study.image import MedicalImage
    from MediScanLib.study.record import ClinicalRecord

NEEDED_PACKAGES = ("pydantic", "safetensors", "torch", "monai")
NEEDED_PACKAGES_WITH_SERVER = ("pydantic", "yaml")
REQUIREMENTS = _HERE / "Resources" / "requirements.txt"
REQUIREMENTS_WITH_SERVER = _HERE / "Resources" / "requirements-server.txt"
WELCOMED = "MediScan/NoticeUnderstood"


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


class MediScanWidget(ScriptedLoadableModuleWidget, VTKObservationMixin):
    """The panel: its sections, and what keeps them in step with the scene."""

    def __init__(self, parent: Any = None) -> None:
        ScriptedLoadableModuleWidget.__init__(self, parent)
        VTKObservationMixin.__init__(self)
        self.logic = None
        self.node: MediScanParameterNode | None = None
        self.defaultModel = DEFAULT_MODEL
        self._nodeGuiTag = None
        self._shownVolumeID = ""
        self._followed: Any = None

    def setup(self) -> None:
        """Called when the user opens the module the first time."""
        ScriptedLoadableModuleWidget.setup(self)
        uiWidget = slicer.util.loadUI(self.resourcePath("UI/MediScan.ui"))
        self.layout.addWidget(uiWidget)
        self.ui = slicer.util.childWidgetVariables(uiWidget)
        uiWidget.setMRMLScene(slicer.mrmlScene)
        self.logic = MediScanLogic()
        self.runner = Runner(self.logic, self._onRunnerChanged)
        self.study = StudySection(self)
        self.engine = EngineSection(self)
        self.patient = PatientSection(self)
        self.run = RunSection(self)
        self.findings = FindingsSection(self)
        self.heatMap = HeatMapSection(self)
        self.compare = CompareSection(self)
        self.whatIf = WhatIfSection(self)
        self.review = ReviewSection(self)
        self.export = ExportSection(self)
        self._changed = qt.QTimer()
        self._changed.setSingleShot(True)
        self._changed.setInterval(0)  # once for everything that changes in one go
        self._changed.connect("timeout()", self._onImageChanged)

        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.StartCloseEvent, self.onSceneStartClose)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.EndCloseEvent, self.onSceneEndClose)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.StartImportEvent, self.onSceneStartImport)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.EndImportEvent, self.onSceneEndImport)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.NodeAboutToBeRemovedEvent, self.onNodeAboutToBeRemoved)
        self.ui.welcomeFrame.visible = not slicer.util.settingsValue(WELCOMED, False, converter=slicer.util.toBool)
        self.ui.welcomeButton.connect("clicked(bool)", self.onWelcomed)
        self.study.fillModels()
        self.initializeParameterNode()

    def cleanup(self) -> None:
        """Called when the application closes and the module widget is destroyed."""
        if self.logic is not None:  # the panel may be closed before it was ever opened
            self.setParameterNode(None)
            self.runner.drop()
            for section in (self.engine, self.run, self.compare, self.whatIf):
                section.cleanup()
            self.heatMap.exit()
        self.removeObservers()

    def enter(self) -> None:
        """Called each time the user opens this module."""
        self.study.fillModels()
        self.initializeParameterNode()
        self.heatMap.enter()

    def exit(self) -> None:
        """Called each time the user opens a different module."""
        self.heatMap.exit()
        self.setParameterNode(None)

    def onReload(self) -> None:
        """Reload the library and the sections together with the module, for developers."""
        for name in list(sys.modules):
            if name.split(".")[0] in ("MediScanLib", "MediScanPanel"):
                del sys.modules[name]
        ScriptedLoadableModuleWidget.onReload(self)

    def onEngineChanged(self) -> None:
        """Another engine will do the next run; what is under way on the old one ends."""
        self.runner.drop()
        self.study.fillModels()
        if self.node:
            self.run.checkDependencies()
            self.run.update()

    def onWelcomed(self) -> None:
        """The notice was understood: it stays away; the foot of the panel keeps saying what matters."""
        qt.QSettings().setValue(WELCOMED, True)
        self.ui.welcomeFrame.visible = False

    def onSceneStartClose(self, caller: vtk.vtkObject, event: str) -> None:
        """Called just before the scene is closed."""
        self.runner.drop()
        self.logic.leaveComparison()
        self.setParameterNode(None)
        self._showVolume(None)

    def onSceneEndClose(self, caller: vtk.vtkObject, event: str) -> None:
        """Called just after the scene is closed."""
        if self.parent.isEntered:
            self.initializeParameterNode()

    def onSceneStartImport(self, caller: vtk.vtkObject, event: str) -> None:
        """Called before a scene is loaded: the selectors are filled anew then, and must not choose for the user."""
        self.setParameterNode(None)

    def onSceneEndImport(self, caller: vtk.vtkObject, event: str) -> None:
        """Called after a scene was loaded: only now are all nodes there that the parameter node points to."""
        if self.parent.isEntered:
            self.initializeParameterNode()

    @vtk.calldata_type(vtk.VTK_OBJECT)
    def onNodeAboutToBeRemoved(self, caller: vtk.vtkObject, event: str, removed: Any) -> None:
        """What was made for an image goes with it, while the references to the image still lead to it."""
        if removed is not None and removed.IsA("vtkMRMLVolumeNode") and not slicer.mrmlScene.IsClosing():
            self.logic.removeResults(removed)

    def initializeParameterNode(self) -> None:
        """Ensure that the parameter node exists and is observed, and choose an image if none is chosen."""
        self.setParameterNode(self.logic.getParameterNode())
        if not self.node.inputVolume:
            volumeNode = self.logic.firstImage()
            if volumeNode:
                self.node.inputVolume = volumeNode

    def setParameterNode(self, inputParameterNode: MediScanParameterNode | None) -> None:
        """Set and observe the parameter node, or let go of it."""
        if self.node:
            self.node.disconnectGui(self._nodeGuiTag)
            self.removeObserver(self.node, vtk.vtkCommand.ModifiedEvent, self._onParameterNodeModified)
        self.node = inputParameterNode
        self._nodeGuiTag = None
        self._shownVolumeID = ""
        self._follow(None)
        if self.node:
            self.run.checkDependencies()
            self._nodeGuiTag = self.node.connectGui(self.ui)
            self.addObserver(self.node, vtk.vtkCommand.ModifiedEvent, self._onParameterNodeModified)
            self.heatMap.setParameterNode()
            self._onParameterNodeModified()

    def isRunning(self) -> bool:
        """True while the model is at work."""
        return self.runner.job is not None

    def onPrediction(self, volumeNode: vtkMRMLScalarVolumeNode, prediction: "Prediction", jump: bool) -> None:
        """Put what the model said into the scene, and show it if the image is still the chosen one."""
        self.logic.addPrediction(volumeNode, prediction)
        findings = self.logic.results(volumeNode).findings
        chosen = self.node is not None and self.node.inputVolume is volumeNode
        if findings and chosen:
            self.node.finding = findings[0]
            self.logic.showHeatMap(volumeNode, findings[0], **self.heatMap.style, jump=jump)
        elif findings:
            self.logic.showHeatMap(volumeNode, findings[0], visible=False)
        if chosen:
            self._showVolume(volumeNode)

    def _onRunnerChanged(self) -> None:
        self.run.showProgress()
        if self.node and self.runner.job is None:
            self.run.update()

    def _onParameterNodeModified(self, caller: object = None, event: object = None) -> None:
        node = self.node
        if not node:
            return
        volumeID = node.inputVolume.GetID() if node.inputVolume else None
        if volumeID != self._shownVolumeID:
            self._shownVolumeID = volumeID
            self._follow(node.inputVolume)
            self._showVolume(node.inputVolume)
        for section in (self.study, self.patient, self.run, self.heatMap, self.compare, self.export):
            section.update()

    def _follow(self, volumeNode: vtkMRMLScalarVolumeNode | None) -> None:
        """Hear of it when the image changes: the first in the scene is chosen before it has its voxels."""
        for event in (vtk.vtkCommand.ModifiedEvent, slicer.vtkMRMLVolumeNode.ImageDataModifiedEvent):
            if self._followed is not None:
                self.removeObserver(self._followed, event, self._onImageModified)
            if volumeNode is not None:
                self.addObserver(volumeNode, event, self._onImageModified)
        self._followed = volumeNode

    def _onImageModified(self, caller: object = None, event: object = None) -> None:
        self._changed.start()

    def _onImageChanged(self) -> None:
        """Say anew what is known of the image, and whether it can be looked at."""
        if self.node:
            self.patient.showPrefill(self.node.inputVolume)
            self.run.showVolume(self.node.inputVolume)
            self.study.show(self.node.inputVolume)
            self.run.update()
            self.heatMap.update()

    def _showVolume(self, volumeNode: vtkMRMLScalarVolumeNode | None) -> None:
        """Fill every section with what the scene holds for an image."""
        self.patient.showPrefill(volumeNode)
        self.run.showVolume(volumeNode)
        for section in (self.study, self.findings, self.heatMap, self.compare, self.whatIf, self.review, self.export):
            section.show(volumeNode)


class MediScanLogic(ScriptedLoadableModuleLogic):
    """Everything that works without a window. Heavy packages are imported only where they are used."""

    def __init__(self) -> None:
        ScriptedLoadableModuleLogic.__init__(self)
        self._engine = None
        self._worker = None
        self._server: tuple[str, str] | None = None
        self._images: dict[tuple[str, int, bool], Any] = {}
        # by image, the state of its voxels: when it was looked at last, and when its result was made
        self._lookedAt: dict[str, int] = {}
        self._madeOf: dict[str, int] = {}

    def getParameterNode(self) -> MediScanParameterNode:
        """The parameter node of this module in the scene."""
        return mendValues(MediScanParameterNode(super().getParameterNode()))

    # packages

    def dependenciesInstalled(self) -> bool:
        """True where nothing has to be installed before the first run."""
        from MediScanLib.scene import packages

        return packages.installed(self._requirements, torch=self._server is None)

    def dependencyMessage(self) -> str:
        """What the user should know about missing packages; empty where there are none."""
        from MediScanLib.scene import packages

        return packages.message(self._requirements, torch=self._server is None)

    def installDependencies(self) -> None:
        """Install what is missing after asking the user; in testing mode nothing is installed."""
        from MediScanLib.scene import packages

        packages.install(self._requirements, torch=self._server is None)

    @property
    def _requirements(self) -> Path:
        return REQUIREMENTS if self._server is None else REQUIREMENTS_WITH_SERVER

    # engine

    def setServer(self, server: tuple[str, str] | None) -> None:
        """Where images are looked at from now on.

        Args:
            server: Address and token of a MediScan server, an empty token where it wants none; None for this computer.
        """
        if server == self._server:
            return
        self.stopProcessing()
        if self._engine is not None:
            self._engine.close()
        self._server, self._worker, self._engine = server, None, None

    def testServer(self) -> "ConnectionTest":
        """Begin to ask the server of `setServer` who it is; `poll` tells what it said.

        Raises:
            MediScanError: No server was set, its address or token cannot be used, or a package is missing.
        """
        self._checkPackages()
        from MediScanLib.prediction.connection_test import ConnectionTest

        address, token = self._server or ("", "")
        return ConnectionTest(address, token or None, executable=_pythonSlicer(), paths=sys.path)

    # models

    @staticmethod
    def availableModels() -> dict[str, str]:
        """Names of the models with their descriptions; only the default's name before the packages are installed."""
        models = {bundle.name: bundle.description for bundle in _bundles()}
        return models or {DEFAULT_MODEL: ""}

    @staticmethod
    def modelSearchTexts() -> dict[str, str]:
        """What a search for models looks through, by name: name, title, description, findings and kinds of images."""
        return {
            bundle.name: " ".join(
                [
                    bundle.name,
                    bundle.card.title,
                    bundle.description,
                    *bundle.card.labels,
                    *bundle.card.input.modalities,
                    *bundle.card.input.body_parts,
                ]
            )
            for bundle in _bundles()
        }

    @staticmethod
    def modelCard(name: str) -> str:
        """A model's card as text: what it is for, how well it does, its license."""
        bundle = next((bundle for bundle in _bundles() if bundle.name == name), None)
        if bundle is None:
            return _("The card can be read once the Python packages are installed, which Apply does.")
        from MediScanLib.report.card_text import card_text

        return card_text(bundle)

    @staticmethod
    def addModel(source: str, sha256: str | None = None) -> str:
        """Add a model from a folder, a .zip file or an address with its SHA-256, and return its name.

        Raises:
            BundleError: It is no model, damaged, or not the one that the SHA-256 stands for.
        """
        from MediScanLib.network.installing import add_model

        return add_model(source, sha256).name

    @staticmethod
    def removeModel(name: str) -> None:
        """Remove a model that was added on this computer.

        Raises:
            BundleError: There is none of that name, or it came with the module.
        """
        from MediScanLib.network.installing import remove_model

        remove_model(name)

    @staticmethod
    def verifyModel(name: str) -> str:
        """Compare a model's files with the hashes in its card, and say how it went."""
        from MediScanLib.network.bundle import load_bundle

        try:
            bundle = load_bundle(name)
        except MediScanError as error:
            return str(error)
        return _("{name} {version}: every file is as its card says.").format(name=bundle.name, version=bundle.version)

    # images

    @staticmethod
    def firstImage() -> vtkMRMLScalarVolumeNode | None:
        """The active volume, else the first in the scene, that is an image and no heat map; None if there is none."""
        from MediScanLib.scene.session import first_image

        return first_image(slicer.mrmlScene)

    @staticmethod
    def imageFacts(volumeNode: vtkMRMLScalarVolumeNode | None) -> str:
        """What is known of an image, in a few words; empty where there is none."""
        if volumeNode is None or volumeNode.GetImageData() is None:
            return ""
        from MediScanLib.scene.image_facts import describe_image

        return "; ".join(f"{name}: {value}" for name, value in describe_image(volumeNode))

    @staticmethod
    def sliceCount(volumeNode: vtkMRMLScalarVolumeNode | None) -> int:
        """How many slices an image has; 0 where there is none."""
        data = volumeNode.GetImageData() if volumeNode else None
        return 0 if data is None else data.GetDimensions()[2]

    @staticmethod
    def sliceViews(volumeNode: vtkMRMLScalarVolumeNode | None) -> list[Any]:
        """Slice nodes of the views that show an image."""
        if volumeNode is None:
            return []
        from MediScanLib.scene.current_slice import slice_view_nodes

        return slice_view_nodes(slicer.mrmlScene, volumeNode)

    @staticmethod
    def currentSlice(volumeNode: vtkMRMLScalarVolumeNode) -> int | None:
        """Which slice of a volume is shown; None where none is."""
        from MediScanLib.scene.current_slice import current_slice

        return current_slice(slicer.mrmlScene, volumeNode)

    @staticmethod
    def prefill(volumeNode: vtkMRMLScalarVolumeNode | None) -> dict[str, float | str]:
        """Clinical values that the image header states, by field name."""
        from MediScanLib.scene.session import stated_values

        return stated_values(volumeNode)

    @staticmethod
    def readClinicalValues(file: str, volumeNode: vtkMRMLScalarVolumeNode | None = None) -> dict[str, float | str]:
        """Known clinical values in a JSON or CSV file: those of the image by its name, else those for every image.

        Raises:
            ClinicalError: Something in the file is not understood or out of range.
        """
        from MediScanLib.study.record_files import read_records

        return dict(read_records(file).of(volumeNode.GetName() if volumeNode else "").known)

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

    # runs

    def process(
        self,
        volumeNode: vtkMRMLScalarVolumeNode,
        clinicalRecord: "ClinicalRecord | dict[str, Any] | None" = None,
        modelName: str = DEFAULT_MODEL,
        device: str = "auto",
        slices: "Sequence[int] | None" = None,
        progress: "Progress | None" = None,
        showResult: bool = True,
    ) -> "Prediction":
        """Look at an image, wait, and put findings, prediction and heat maps into the scene. Needs no window.

        Args:
            volumeNode: Scalar or vector volume node.
            clinicalRecord: What is known of the patient; values by field name, what is left out is unknown.
            modelName: Name of a model, or folder of a bundle.
            device: "auto", "cpu", "cuda", "cuda:N" or "mps".
            slices: Slices to look at, the first being 0; all where None.
            progress: Hears how far it is, and may cancel.
            showResult: Lay the heat map of the most probable finding over the image in the slice views.

        Raises:
            MediScanError: An input, the model or the device is not acceptable, a package is missing, or the run was
                cancelled.
        """
        request = self._request(volumeNode, clinicalRecord, modelName, device, slices)
        if self._engine is None:
            from MediScanLib.prediction.engine import InProcess

            self._engine = InProcess() if self._server is None else self._makeWorker()
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
        slices: "Sequence[int] | None" = None,
        prefill: bool = True,
        explanation: str = "gradcam",
        checkMap: bool = False,
    ) -> "Run":
        """Begin to look at an image in another process and return at once; `addPrediction` takes what it says.

        One image at a time. The errors and the other arguments are those of `process`; without `prefill`, age and sex
        stay unknown where they are not given, whatever the image's header states. `explanation` says how heat maps are
        made, one of `prediction.explanations.METHODS`; with `checkMap` it is tried whether the model leans on them.
        """
        request = self._request(volumeNode, clinicalRecord, modelName, device, slices, prefill, explanation, checkMap)
        if self._worker is None:
            self._worker = self._makeWorker()
        return self._worker.submit(request)

    def _makeWorker(self) -> "Worker":
        if self._server is None:
            from MediScanLib.prediction.engine import Worker

            return Worker(_pythonSlicer(), paths=sys.path)
        from MediScanLib.prediction.remote import Remote

        address, token = self._server
        return Remote(address, token or None, executable=_pythonSlicer(), paths=sys.path)

    def stopProcessing(self) -> None:
        """End the other process, whatever it is doing."""
        self._images.clear()
        if self._worker is not None:
            self._worker.close()

    def _request(
        self,
        volumeNode: vtkMRMLScalarVolumeNode,
        clinicalRecord: "ClinicalRecord | dict[str, Any] | None",
        modelName: str,
        device: str,
        slices: "Sequence[int] | None" = None,
        prefill: bool = True,
        explanation: str = "gradcam",
        checkMap: bool = False,
    ) -> "Request":
        self._checkPackages()
        from MediScanLib.config import InferenceConfig
        from MediScanLib.prediction.exchange import Request
        from MediScanLib.study.record import ClinicalRecord

        if not isinstance(clinicalRecord, ClinicalRecord):
            clinicalRecord = ClinicalRecord(**(clinicalRecord or {}))
        settings = InferenceConfig(explanation=explanation, faithfulness=checkMap)
        request = Request(self._image(volumeNode, prefill), clinicalRecord, modelName, device, slices, settings)
        self._lookedAt[volumeNode.GetID()] = volumeNode.GetImageData().GetMTime()
        return request

    def _checkPackages(self) -> None:
        needed = NEEDED_PACKAGES if self._server is None else NEEDED_PACKAGES_WITH_SERVER
        for name in needed:  # not imported here: that takes seconds, and the other process does it
            if importlib.util.find_spec(name) is None:
                raise MediScanError(
                    _("The Python package {name} is missing. {remedy}").format(
                        name=name, remedy=self.dependencyMessage() or _("Install it.")
                    )
                )

    def _image(self, volumeNode: vtkMRMLScalarVolumeNode, prefill: bool) -> "MedicalImage":
        """The image of a node; the same object as long as nothing changed, so that it is handed over once."""
        from MediScanLib.scene.volumes import image_from_volume

        data = volumeNode.GetImageData()
        changed = max(node.GetMTime() for node in (volumeNode, data, volumeNode.GetParentTransformNode()) if node)
        key = volumeNode.GetID(), changed, prefill
        if key not in self._images:
            image = image_from_volume(volumeNode)
            self._images = {key: image if prefill else replace(image, prefill={})}  # one is enough: they are large
        return self._images[key]

    # results

    def addPrediction(self, volumeNode: vtkMRMLScalarVolumeNode, prediction: "Prediction", slot: str = "") -> None:
        """Put findings, prediction and heat maps into the scene beside the image.

        With a slot, such as another model's name, a second result of the image stands beside the first.
        """
        from MediScanLib.scene.session import add_prediction
        from MediScanLib.scene.volumes import image_from_volume, mend_window

        mend_window(volumeNode, image_from_volume(volumeNode))
        volumeID = volumeNode.GetID()
        if not slot:
            self._madeOf[volumeID] = self._lookedAt.get(volumeID, volumeNode.GetImageData().GetMTime())
        add_prediction(slicer.mrmlScene, prediction, volumeNode, slot=slot)
        logging.info(
            f"MediScan: {prediction.top.label} {prediction.top.probability:.2f} by {prediction.provenance.model}"
        )

    def imageChanged(self, volumeNode: vtkMRMLScalarVolumeNode | None) -> bool:
        """True where an image shows other voxels than those its result was made of, as another frame of a sequence."""
        data = volumeNode.GetImageData() if volumeNode else None
        return data is not None and self._madeOf.get(volumeNode.GetID(), data.GetMTime()) != data.GetMTime()

    @staticmethod
    def results(volumeNode: vtkMRMLScalarVolumeNode | None, slot: str = "") -> "Results":
        """What the scene holds for an image: table, summary, findings with a heat map, and which one is shown."""
        from MediScanLib.scene.session import results_of

        return results_of(slicer.mrmlScene, volumeNode, slot=slot)

    @staticmethod
    def predictionFields(volumeNode: vtkMRMLScalarVolumeNode | None, slot: str = "") -> dict[str, Any] | None:
        """The prediction that the scene holds for an image, as in its JSON; None if there is none."""
        from MediScanLib.scene.results import stored_fields

        return None if volumeNode is None else stored_fields(slicer.mrmlScene, volumeNode, slot)

    def isOutdated(
        self, volumeNode: vtkMRMLScalarVolumeNode | None, clinicalValues: dict[str, str], modelName: str
    ) -> bool:
        """True where the result of an image was made with other clinical values, or by another model."""
        said = self.predictionFields(volumeNode)
        if said is None or self.clinicalProblem(clinicalValues):
            return False
        stated = {
            name: value for name, value in self.prefill(volumeNode).items() if not self.clinicalProblem({name: value})
        }
        entered = {name: parse_field(name, text) for name, text in clinicalValues.items()}
        known = stated | {name: value for name, value in entered.items() if value is not None}
        seen, used = (
            {name: round(value, 6) if isinstance(value, float) else value for name, value in values.items()}
            for values in (known, said["clinical"]["used"])
        )
        seen = {name: value for name, value in seen.items() if name not in said["clinical"]["unlearned"]}
        return seen != used or Path(modelName).name != said["provenance"]["model"]

    @staticmethod
    def showHeatMap(
        volumeNode: vtkMRMLScalarVolumeNode | None, finding: str, jump: bool = False, **style: Any
    ) -> vtkMRMLScalarVolumeNode:
        """Show the heat map of a finding over its image, and if asked the slices where it is hottest.

        The style is visible, opacity, threshold, colors, outline, legend and commonScale; see `scene.style.Style`.

        Raises:
            MediScanError: There are no heat maps for this image, or none of that finding.
        """
        from MediScanLib.scene.session import show_heat_map

        overlay, turned = show_heat_map(slicer.mrmlScene, volumeNode, finding, style=_style(style), jump=jump)
        if turned and slicer.app.layoutManager() is not None:
            slicer.util.resetSliceViews()
        return overlay

    @staticmethod
    def styleHeatMap(volumeNode: vtkMRMLScalarVolumeNode | None, **style: Any) -> None:
        """Show or hide the heat map of an image and say how it is drawn; nothing where it has none."""
        from MediScanLib.scene.comparison import style_side_by_side
        from MediScanLib.scene.session import style_heat_map

        style_heat_map(slicer.mrmlScene, volumeNode, style=_style(style))
        style_side_by_side(slicer.mrmlScene, _style(style))

    @staticmethod
    def plotSlices(volumeNode: vtkMRMLScalarVolumeNode) -> Any:
        """Plot the scores of a volume by slice and show the plot beside the views.

        Returns:
            The qMRMLPlotView that shows it, whose points can be clicked; None without a window.

        Raises:
            MediScanError: The image has no scores by slice.
        """
        from MediScanLib.scene.results import stored_prediction
        from MediScanLib.scene.slice_plot import show_plot

        prediction = stored_prediction(slicer.mrmlScene, volumeNode)
        chart = show_plot(slicer.mrmlScene, prediction, volumeNode) if prediction is not None else None
        if chart is None:
            raise MediScanError(_("There are no scores by slice. Look at a volume first."))
        layoutManager = slicer.app.layoutManager()
        if layoutManager is None:
            return None
        slicer.modules.plots.logic().ShowChartInLayout(chart)
        widgets = [layoutManager.plotWidget(number) for number in range(layoutManager.plotViewCount)]
        nodes = [(widget, widget.mrmlPlotViewNode()) for widget in widgets]
        showing = [(widget, node) for widget, node in nodes if node and node.GetPlotChartNodeID() == chart.GetID()]
        showing.sort(key=lambda pair: not pair[1].IsMappedInLayout())  # views of other layouts hold the chart, too
        return showing[0][0].plotView() if showing else None

    @staticmethod
    def showSelectedSlice(seriesIDs: Any, selections: Any) -> bool:
        """Move the slice views to the slice of a point of the plot; the arguments are those of `dataSelected`.

        Returns:
            True where a point was selected.
        """
        from MediScanLib.scene.slice_plot import show_slice, slice_of_point

        for number in range(seriesIDs.GetNumberOfValues()):
            points = selections.GetItemAsObject(number)
            if points is not None and points.GetNumberOfValues():
                found = slice_of_point(slicer.mrmlScene, seriesIDs.GetValue(number), points.GetValue(0))
                if found is not None:
                    show_slice(slicer.mrmlScene, *found)
                return True
        return False

    # side by side

    def showComparison(
        self,
        comparison: str,
        volumeNode: vtkMRMLScalarVolumeNode,
        finding: str,
        otherFinding: str = "",
        slot: str = "",
        priorVolume: vtkMRMLScalarVolumeNode | None = None,
        region: Any = None,
        **style: Any,
    ) -> None:
        """Show two things in two linked views of their own; see `MediScanPanel.Comparison`.

        Raises:
            MediScanError: What is to be compared is not there.
        """
        from MediScanPanel.Comparison import showComparison

        shown = _style({**style, "visible": True})
        showComparison(comparison, volumeNode, finding, otherFinding, slot, priorVolume, region, shown)

    @staticmethod
    def leaveComparison() -> None:
        """Go back to the layout that was there before; nothing happens where there is no comparison."""
        from MediScanPanel.Comparison import leaveComparison

        leaveComparison()

    @staticmethod
    def isComparing() -> bool:
        """True while two views stand side by side."""
        from MediScanLib.scene.comparison import is_side_by_side

        return is_side_by_side(slicer.mrmlScene)

    @staticmethod
    def regionFigures(
        volumeNode: vtkMRMLScalarVolumeNode, finding: str, region: Any, threshold: float, commonScale: bool = False
    ) -> str:
        """How a finding's heat map fits a reader's region, in words.

        Raises:
            MediScanError: The region is empty or beside the image, or there is no heat map of the finding.
        """
        from MediScanPanel.Comparison import regionFigures

        return regionFigures(volumeNode, finding, region, threshold, commonScale)

    # reviews

    @staticmethod
    def addReview(volumeNode: vtkMRMLScalarVolumeNode, **answers: Any) -> tuple[int, Path]:
        """Keep what a reader says about a prediction; see `MediScanPanel.Reviews`."""
        from MediScanPanel.Reviews import addReview

        return addReview(volumeNode, **answers)

    @staticmethod
    def review(volumeNode: vtkMRMLScalarVolumeNode) -> dict[str, Any] | None:
        """The last review of an image that the scene holds, as in its JSON; None if there is none."""
        from MediScanLib.scene.stored_review import stored_review

        return stored_review(slicer.mrmlScene, volumeNode)

    # files

    def export(self, volumeNode: vtkMRMLScalarVolumeNode, folder: str, formats: "Sequence[str]") -> list[Path]:
        """Write the prediction of an image, and a picture of the views.

        The files are named after the image; the formats are any of "json", "csv", "html", "views" and
        "dicom"; "database" beside it adds that to Slicer's DICOM database.

        Returns:
            The files that were written.

        Raises:
            MediScanError: There is no prediction, or a file cannot be written.
        """
        from MediScanPanel.Export import exportResults

        return exportResults(volumeNode, Path(folder), formats)

    @staticmethod
    def drawRegion(volumeNode: vtkMRMLScalarVolumeNode) -> Any:
        """Make a region of interest for a reader's mark on an image, and let it be drawn in the slice views."""
        from MediScanLib.scene.regions import make_region

        node = make_region(slicer.mrmlScene, volumeNode)
        if slicer.app.layoutManager() is not None:
            selection = slicer.app.applicationLogic().GetSelectionNode()
            selection.SetReferenceActivePlaceNodeClassName("vtkMRMLMarkupsROINode")
            selection.SetActivePlaceNodeID(node.GetID())
            slicer.app.applicationLogic().GetInteractionNode().SwitchToSinglePlaceMode()
        return node

    @staticmethod
    def removeResults(volumeNode: vtkMRMLScalarVolumeNode) -> None:
        """Remove everything that MediScan added to the scene for an image."""
        from MediScanLib.scene.results import remove_results

        remove_results(slicer.mrmlScene, volumeNode)


def _pythonSlicer() -> str:
    return shutil.which("PythonSlicer") or sys.executable


def _bundles() -> "list[Bundle]":
    """The models on this computer; none before the packages are installed. Files are hashed again once they change."""
    try:
        from MediScanLib.network.bundle import available_bundles, bundle_folders
    except ImportError:
        return []
    state = tuple(
        (str(file), file.stat().st_mtime_ns, file.stat().st_size)
        for folder in bundle_folders()
        for file in sorted(folder.iterdir())
    )
    if state not in _FOUND:
        _FOUND.clear()
        _FOUND[state] = available_bundles()
    return _FOUND[state]


_FOUND: dict[tuple, "list[Bundle]"] = {}


def _style(style: dict[str, Any]) -> "Style":
    from MediScanLib.scene.style import Style

    names = {"commonScale": "common_scale"}
    return Style(**{names.get(name, name): value for name, value in style.items()})


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
