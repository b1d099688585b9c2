"""The module inside a running Slicer.

    Slicer --testing --no-splash --additional-module-path MediScan --python-script Testing/slicer/Python/run.py

What needs PyTorch or the shipped model is skipped, with the reason, where they are missing.
"""

import unittest

import numpy as np
import slicer
import vtk

from MediScan import MediScanLogic, loadPhantom, registerSampleData
from MediScanLib.errors import CancelledError, MediScanError
from MediScanLib.prediction.heatmaps import AxisMap, HeatMaps
from MediScanLib.progress import CallbackProgress
from MediScanLib.scene.geometry import ijk_to_ras
from MediScanLib.scene.stored_maps import store_maps
from MediScanLib.scene.volumes import volume_from_image
from MediScanLib.study.image import MedicalImage


def node_count():
    return slicer.mrmlScene.GetNumberOfNodes()


def random_maps(shape, seed=0):
    axes = [AxisMap(scale=6 / max(1, length - 1), offset=0.0) for length in shape[1:]]
    values = np.random.default_rng(seed).random((2, shape[0], 7, 7), dtype=np.float32)
    return HeatMaps(("pneumonia", "normal"), values, tuple(shape), *axes, tuple(range(shape[0])), (1.0, 1.0))


def oblique_volume():
    angle = np.radians(20)
    direction = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    image = MedicalImage(
        np.random.default_rng(0).random((4, 20, 30), dtype=np.float32),
        spacing=(0.7, 1.1, 5.0),
        origin=(10.0, -20.0, 30.0),
        direction=tuple(direction.ravel()),
    )
    return volume_from_image(slicer.mrmlScene, image, "oblique")


def run_or_skip(test, logic, node, **options):
    """A prediction; skips where the packages or the shipped model are not there."""
    try:
        from MediScanLib.network.bundle import DEFAULT_BUNDLE, bundle_folders
        from MediScanLib.prediction.predictor import Predictor  # noqa: F401 - shows that torch is there
    except ImportError as error:
        test.skipTest(f"the Python package {error.name!r} is not installed")
    if DEFAULT_BUNDLE not in {folder.name for folder in bundle_folders()}:
        test.skipTest(f"the model {DEFAULT_BUNDLE} is not installed")
    return logic.process(node, device="cpu", **options)


class SceneTest(unittest.TestCase):
    def setUp(self):
        slicer.mrmlScene.Clear()
        self.logic = MediScanLogic()


class ModuleTest(SceneTest):
    def test_module_is_loaded(self):
        module = slicer.modules.mediscan
        self.assertEqual(module.title, "MediScan")
        self.assertIn("research use only", module.helpText)
        self.assertFalse(module.icon.isNull())

    def test_sample_data(self):
        registerSampleData()
        names = [source.sampleName for source in slicer.modules.sampleDataSources["MediScan"]]
        self.assertIn("MediScanPhantom", names)
        self.assertTrue(any("CC BY 3.0" in name for name in names))

    def test_phantom(self):
        node = loadPhantom()
        self.assertEqual(slicer.util.arrayFromVolume(node).ndim, 3)
        for composite in slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode"):
            self.assertEqual(composite.GetBackgroundVolumeID(), node.GetID())

    def test_packages_are_not_installed_in_testing_mode(self):
        self.assertIsInstance(self.logic.dependenciesInstalled(), bool)
        self.assertEqual(self.logic.dependenciesInstalled(), not self.logic.dependencyMessage())
        self.logic.installDependencies()

    def test_models_are_listed(self):
        self.assertTrue(self.logic.availableModels())


class OverlayTest(SceneTest):
    def check_geometry(self, node):
        store_maps(slicer.mrmlScene, random_maps(slicer.util.arrayFromVolume(node).shape), node)
        overlay = self.logic.showHeatMap(node, "pneumonia", jump=True)
        self.assertTrue(np.array_equal(ijk_to_ras(overlay), ijk_to_ras(node)))
        self.assertEqual(slicer.util.arrayFromVolume(overlay).shape, slicer.util.arrayFromVolume(node).shape)
        bounds = [[0.0] * 6, [0.0] * 6]
        node.GetRASBounds(bounds[0])
        overlay.GetRASBounds(bounds[1])
        np.testing.assert_allclose(bounds[0], bounds[1])
        return overlay

    def test_geometry(self):
        self.check_geometry(loadPhantom())
        self.check_geometry(oblique_volume())

    def test_geometry_under_a_transform(self):
        node = oblique_volume()
        transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
        matrix = vtk.vtkMatrix4x4()
        matrix.SetElement(0, 3, 25.0)
        transform.SetMatrixTransformToParent(matrix)
        node.SetAndObserveTransformNodeID(transform.GetID())
        self.check_geometry(node)

    def test_display(self):
        overlay = self.check_geometry(loadPhantom())
        display = overlay.GetDisplayNode()
        self.assertEqual(display.GetColorNodeID(), "vtkMRMLColorTableNodeFileInferno.txt")
        self.assertEqual((display.GetWindowLevelMin(), display.GetWindowLevelMax()), (0.0, 1.0))
        legend = slicer.modules.colors.logic().GetColorLegendDisplayNode(overlay)
        self.assertEqual(legend.GetTitleText(), "pneumonia")

    def test_another_finding_reuses_the_nodes(self):
        node = loadPhantom()
        first = self.check_geometry(node)
        count = node_count()
        self.assertIs(self.logic.showHeatMap(node, "normal"), first)
        self.assertEqual(node_count(), count)
        with self.assertRaises(MediScanError):
            self.logic.showHeatMap(node, "cancer")

    def test_removal_leaves_nothing(self):
        node = loadPhantom()
        self.check_geometry(node)
        self.logic.removeResults(node)  # colors and other shared nodes stay, once
        count = node_count()
        self.check_geometry(node)
        self.logic.removeResults(node)
        self.assertEqual(node_count(), count)
        for composite in slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode"):
            self.assertIsNone(composite.GetForegroundVolumeID())

    def test_heat_map_is_no_input(self):
        overlay = self.check_geometry(loadPhantom())
        self.assertIn("heat map", self.logic.problem(overlay))


class ProcessTest(SceneTest):
    def test_results_in_the_scene(self):
        node = loadPhantom()
        prediction = run_or_skip(self, self.logic, node, clinicalRecord={"temperature_c": "38,4 C"})
        self.assertAlmostEqual(prediction.clinical.used["temperature_c"], 38.4)
        results = self.logic.results(node)
        self.assertEqual(results.table.GetNumberOfRows(), len(prediction.findings))
        self.assertEqual(results.shown, prediction.top.label)
        self.assertEqual(set(results.findings), set(prediction.maps.labels))

    def test_again_adds_nothing(self):
        node = loadPhantom()
        run_or_skip(self, self.logic, node)
        count = node_count()
        run_or_skip(self, self.logic, node)
        self.assertEqual(node_count(), count)

    def test_volume(self):
        node = oblique_volume()
        prediction = run_or_skip(self, self.logic, node)
        self.assertEqual(len(prediction.slices), 4)

    def test_cancel(self):
        node = oblique_volume()
        run_or_skip(self, self.logic, node)
        with self.assertRaises(CancelledError):
            self.logic.process(node, device="cpu", progress=CallbackProgress(lambda *_: None, lambda: True))

    def test_errors_name_the_problem(self):
        with self.assertRaises(MediScanError):
            run_or_skip(self, self.logic, slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode"))
        with self.assertRaises(MediScanError):
            run_or_skip(self, self.logic, loadPhantom(), clinicalRecord={"temperature_c": 400})
        with self.assertRaises(MediScanError):
            run_or_skip(self, self.logic, loadPhantom(), modelName="no-such-model")
