"""The module's panel inside a running Slicer, a feature a class. See MediScanModuleTest.py for how to run it.

What needs PyTorch or the shipped model is skipped, with the reason, where they are missing; what needs a window is
skipped without one.
"""

import json
import os
import socket
import tempfile
import time
import unittest
from pathlib import Path

import numpy as np
import qt
import slicer
import vtk

from MediScan import MediScanLogic, loadPhantom
from MediScanLib.scene.comparison import LAYOUT_ID
from MediScanLib.scene.current_slice import current_slice
from MediScanLib.scene.geometry import world_ras
from MediScanLib.scene.overlay import find_overlay
from MediScanLib.scene.stored_maps import store_maps, stored_maps
from MediScanLib.scene.style import style_of
from MediScanLib.scene.volumes import volume_from_image
from MediScanLib.study.image import MedicalImage
from MediScanModuleTest import node_count, random_maps, run_or_skip


def wait_until(condition, seconds=300):
    """Let the application work until a condition holds."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(f"it did not happen within {seconds} s")
        slicer.app.processEvents()
        time.sleep(0.02)
    slicer.app.processEvents()


def axial_volume():
    """A volume of six axial slices, shown."""
    pixels = np.random.default_rng(0).random((6, 40, 50), dtype=np.float32)
    node = volume_from_image(slicer.mrmlScene, MedicalImage(pixels, spacing=(2.0, 2.0, 5.0)), "axial")
    slicer.util.setSliceViewerLayers(background=node, fit=True)
    return node


def table_texts(table):
    """Texts of a table's items; None where a cell holds a widget."""
    items = [[table.item(row, column) for column in range(table.columnCount)] for row in range(table.rowCount)]
    return [[item.text() if item else None for item in row] for row in items]


class PanelTestCase(unittest.TestCase):
    """Starts from an empty scene and the opened module, and leaves both behind."""

    def setUp(self):
        slicer.mrmlScene.Clear()
        if slicer.util.mainWindow():
            slicer.util.selectModule("MediScan")
        self.widget = slicer.modules.mediscan.widgetRepresentation().self()
        self.widget.initializeParameterNode()
        self.ui = self.widget.ui
        self.logic = MediScanLogic()
        self.folder = tempfile.TemporaryDirectory(prefix="MediScanTest-")
        os.environ["MEDISCAN_REVIEWS"] = str(Path(self.folder.name) / "reviews.sqlite")

    def tearDown(self):
        self.widget.runner.drop()
        self.widget.compare.leave()
        slicer.mrmlScene.Clear()
        self.folder.cleanup()
        os.environ.pop("MEDISCAN_REVIEWS", None)

    def choose(self, node):
        """Choose an image; the model runs on the CPU."""
        self.widget.initializeParameterNode()
        self.widget.node.inputVolume = node
        self.widget.node.device = "cpu"
        return node

    def result(self, node=None, **options):
        """The phantom, or an image, with a real result in the panel."""
        node = self.choose(node or loadPhantom())
        prediction = run_or_skip(self, self.logic, node, **options)
        self.widget.onPrediction(node, prediction, jump=False)
        return node, prediction

    def needs_window(self):
        """Skip where there is no main window."""
        if slicer.util.mainWindow() is None or slicer.app.layoutManager() is None:
            self.skipTest("there is no main window")


class StudyTest(PanelTestCase):
    def test_apply_needs_an_image(self):
        self.assertFalse(self.ui.applyButton.enabled)
        self.assertTrue(self.ui.applyButton.toolTip)

    def test_the_active_image_is_chosen(self):
        loadPhantom()
        node = loadPhantom()
        slicer.app.applicationLogic().GetSelectionNode().SetActiveVolumeID(node.GetID())
        self.assertEqual(self.logic.firstImage().GetID(), node.GetID())

    def test_what_is_known_of_the_image(self):
        self.choose(axial_volume())
        self.assertIn("volume of 6 slices", self.ui.imageFactsLabel.text)

    def test_models_can_be_searched(self):
        self.assertGreater(self.ui.modelComboBox.count, 0)
        self.ui.modelSearchBox.text = "no model has these words"
        self.assertEqual(self.ui.modelList.count, 0)
        self.ui.modelSearchBox.text = ""
        self.assertTrue(self.ui.modelCardBrowser.plainText)


class EngineTest(PanelTestCase):
    def setUp(self):
        super().setUp()
        self.before = (self.ui.engineComboBox.currentIndex, self.ui.serverAddressEdit.text)

    def tearDown(self):
        self.ui.serverAddressEdit.text = self.before[1]
        self.ui.engineComboBox.setCurrentIndex(self.before[0])
        super().tearDown()

    def test_a_server_that_is_away_is_told_of_without_waiting(self):
        self.ui.engineComboBox.setCurrentIndex(1)
        with socket.socket() as taken:  # bound, but nobody listens
            taken.bind(("127.0.0.1", 0))
            self.ui.serverAddressEdit.text = f"http://127.0.0.1:{taken.getsockname()[1]}"
            self.ui.testConnectionButton.click()
            wait_until(lambda: self.ui.testConnectionButton.enabled, 60)
        self.assertTrue(self.ui.serverStatusLabel.text)
        self.assertNotIn("Connected", self.ui.serverStatusLabel.text)
        self.ui.engineComboBox.setCurrentIndex(0)
        self.assertEqual(self.ui.serverStatusLabel.text, "")
        self.assertTrue(self.ui.deviceComboBox.enabled)

    def test_the_choice_is_not_in_the_scene(self):
        self.ui.engineComboBox.setCurrentIndex(1)
        self.ui.serverAddressEdit.text = "https://mediscan.example:8800"
        self.assertNotIn("mediscan.example", slicer.mrmlScene.GetSceneXMLString())


class PatientTest(PanelTestCase):
    def test_values_out_of_range(self):
        self.choose(loadPhantom())
        self.assertTrue(self.ui.applyButton.enabled)
        self.ui.temperature_cEdit.text = "384"
        self.assertFalse(self.ui.applyButton.enabled)
        self.assertIn("25 to 45", self.ui.statusLabel.text)
        self.assertIn("25 to 45", self.ui.temperature_cUnitLabel.text)
        self.ui.temperature_cEdit.text = "38,4"
        self.assertTrue(self.ui.applyButton.enabled)
        self.assertEqual(self.ui.temperature_cUnitLabel.text, "°C")
        self.assertIn("1 of 10", self.ui.clinicalCollapsibleButton.text)
        self.ui.sexComboBox.currentIndex = 1
        self.assertEqual(self.widget.node.sex, "F")

    def test_saving_loading_and_reset(self):
        self.choose(loadPhantom())
        file = str(Path(self.folder.name) / "patient.json")
        self.ui.temperature_cEdit.text = "38.4"
        self.widget.patient.save(file)
        self.assertEqual(json.loads(Path(file).read_text(encoding="utf-8")), {"temperature_c": 38.4})
        self.ui.resetClinicalButton.click()
        self.assertEqual(self.ui.temperature_cEdit.text, "")
        self.widget.patient.load(file)
        self.assertEqual(self.widget.node.temperature_c, "38.4")


class RunTest(PanelTestCase):
    def test_apply(self):
        node, _ = self.result()
        self.logic.removeResults(node)
        self.ui.applyButton.click()
        self.assertTrue(self.widget.isRunning())
        self.assertEqual(self.ui.applyButton.text, "Cancel")
        wait_until(lambda: not self.widget.isRunning())
        self.assertEqual(self.ui.applyButton.text, "Apply")
        self.assertEqual(self.ui.findingsTable.rowCount, self.logic.results(node).table.GetNumberOfRows())

    def test_cancel(self):
        node, _ = self.result()
        self.logic.removeResults(node)
        count = node_count()
        self.ui.applyButton.click()
        self.ui.applyButton.click()
        wait_until(lambda: not self.widget.isRunning(), seconds=5)
        self.assertEqual(node_count(), count)
        self.assertTrue(self.ui.applyButton.enabled)

    def test_one_slice_and_some(self):
        node, _ = self.result(axial_volume())
        self.assertEqual(len(self.logic.predictionFields(node)["slices"]), 6)
        self.ui.scopeComboBox.currentIndex = 2
        self.ui.firstSliceSpinBox.value = 1
        self.ui.lastSliceSpinBox.value = 3
        self.ui.applyButton.click()
        wait_until(lambda: not self.widget.isRunning())
        self.assertEqual([part["index"] for part in self.logic.predictionFields(node)["slices"]], [1, 2, 3])

    def test_the_current_slice_by_itself(self):
        self.needs_window()
        node, _ = self.result(axial_volume())
        self.ui.scopeComboBox.currentIndex = 1
        self.ui.autoRunCheckBox.checked = True
        slicer.util.getNode("vtkMRMLSliceNodeRed").JumpSliceByOffsetting(*world_ras(node, (4, 20, 25)))
        wait_until(self.widget.isRunning, seconds=5)
        wait_until(lambda: not self.widget.isRunning())
        self.assertEqual(self.logic.predictionFields(node)["slices"], [])
        self.assertEqual(current_slice(slicer.mrmlScene, node), 4)

    def test_closing_the_scene(self):
        self.result()
        self.ui.applyButton.click()
        slicer.mrmlScene.Clear()
        self.assertFalse(self.widget.isRunning())
        self.widget.initializeParameterNode()
        self.assertIsNone(self.widget.node.inputVolume)
        self.assertFalse(self.ui.applyButton.enabled)

    def test_removing_the_image(self):
        node, _ = self.result()
        self.ui.applyButton.click()
        slicer.mrmlScene.RemoveNode(node)
        wait_until(lambda: not self.widget.isRunning())
        self.assertEqual(slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLTableNode"), 0)
        self.assertEqual(slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLScalarVolumeNode"), 0)

    def test_switching_the_module(self):
        self.needs_window()
        node, _ = self.result()
        self.logic.removeResults(node)
        self.ui.applyButton.click()
        slicer.util.selectModule("Data")
        wait_until(lambda: not self.widget.isRunning())
        slicer.util.selectModule("MediScan")
        self.assertEqual(self.ui.findingsTable.rowCount, 5)


class FindingsTest(PanelTestCase):
    def test_findings(self):
        _, prediction = self.result(clinicalRecord={"temperature_c": 38.4, "age_years": 60})
        rows = table_texts(self.ui.findingsTable)
        self.assertEqual(rows[0][0], prediction.top.label)
        self.assertIn(prediction.top.decision, rows[0][1])
        bar = self.ui.findingsTable.cellWidget(0, 2)
        self.assertEqual(bar.value, round(1000 * prediction.top.probability))
        self.assertTrue(self.ui.certaintyTextLabel.text)
        self.assertEqual(len(table_texts(self.ui.contributionsTable)), len(prediction.clinical.used))

    def test_noise_is_left_to_a_human(self):
        pixels = np.random.default_rng(0).random((1, 256, 256), dtype=np.float32)
        _, prediction = self.result(volume_from_image(slicer.mrmlScene, MedicalImage(pixels), "noise"))
        self.assertTrue(prediction.certainty.deferred)
        self.assertTrue(self.ui.deferralFrame.isVisibleTo(self.ui.findingsCollapsibleButton))
        self.assertIn(prediction.certainty.reasons[0].message, self.ui.deferralLabel.text)

    def test_plot_by_slice(self):
        self.needs_window()
        node, _ = self.result(axial_volume())
        layout = slicer.app.layoutManager().layout
        self.ui.plotButton.click()
        slicer.app.processEvents()
        series = slicer.util.getNodesByClass("vtkMRMLPlotSeriesNode")
        self.assertEqual(len(series), 5)
        ids, points, selections = vtk.vtkStringArray(), vtk.vtkIdTypeArray(), vtk.vtkCollection()
        ids.InsertNextValue(series[0].GetID())
        points.InsertNextValue(2)
        selections.AddItem(points)
        self.widget.findings.onPointSelected(ids, selections)
        self.assertEqual(current_slice(slicer.mrmlScene, node), 2)
        slicer.app.layoutManager().setLayout(layout)


class HeatMapTest(PanelTestCase):
    def test_finding_and_style(self):
        node, _ = self.result()
        self.assertGreater(self.ui.findingComboBox.count, 1)
        self.ui.findingComboBox.currentIndex = 1
        overlay = find_overlay(slicer.mrmlScene, node)
        self.assertEqual(overlay.GetAttribute("MediScan.Finding"), self.ui.findingComboBox.currentText)
        self.ui.thresholdSlider.value = 0.6
        self.assertAlmostEqual(overlay.GetDisplayNode().GetLowerThreshold(), 0.6)
        self.ui.outlineCheckBox.checked = True
        self.ui.colorsComboBox.currentIndex = 1
        self.assertTrue(style_of(overlay).outline)
        self.assertEqual(style_of(overlay).colors, self.ui.colorsComboBox.currentText)
        self.widget.heatMap.toggle()
        self.assertFalse(self.ui.showHeatMapCheckBox.checked)
        for composite in slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode"):
            self.assertIsNone(composite.GetForegroundVolumeID())

    def test_window_and_level_stay(self):
        node = self.choose(loadPhantom())
        display = node.GetDisplayNode()
        display.SetWindowLevel(0.4, 0.3)
        self.result(node)
        self.assertAlmostEqual(display.GetWindow(), 0.4)
        self.assertAlmostEqual(display.GetLevel(), 0.3)


class CompareTest(PanelTestCase):
    def compare(self, name):
        self.ui.comparisonComboBox.currentIndex = self.ui.comparisonComboBox.findText(name)
        self.ui.compareButton.click()
        slicer.app.processEvents()

    def composites(self):
        manager = slicer.app.layoutManager()
        return [manager.sliceWidget(name).mrmlSliceCompositeNode() for name in ("MediScanLeft", "MediScanRight")]

    def test_original_and_heat_map(self):
        self.needs_window()
        node, _ = self.result()
        manager = slicer.app.layoutManager()
        before = manager.layout
        self.compare("original | heat map")
        self.assertEqual(manager.layout, LAYOUT_ID)
        left, right = self.composites()
        self.assertEqual(left.GetBackgroundVolumeID(), node.GetID())
        self.assertIsNone(left.GetForegroundVolumeID())
        self.assertEqual(right.GetForegroundVolumeID(), find_overlay(slicer.mrmlScene, node).GetID())
        annotation = manager.sliceWidget("MediScanRight").sliceView().cornerAnnotation()
        texts = [annotation.GetText(position) or "" for position in range(8)]
        self.assertTrue(any(self.widget.node.finding in text for text in texts), texts)
        self.ui.leaveCompareButton.click()
        self.assertEqual(manager.layout, before)

    def test_two_findings(self):
        self.needs_window()
        self.result()
        self.compare("finding | other finding")
        overlays = [slicer.mrmlScene.GetNodeByID(node.GetForegroundVolumeID()) for node in self.composites()]
        found = [overlay.GetAttribute("MediScan.Finding") for overlay in overlays]
        self.assertEqual(found, [self.widget.node.finding, self.ui.secondFindingComboBox.currentText])

    def test_image_only(self):
        self.needs_window()
        node, _ = self.result(clinicalRecord={"temperature_c": 39.5})
        self.compare("image and patient | image only")
        wait_until(lambda: not self.widget.isRunning())
        self.assertEqual(self.logic.predictionFields(node, "image only")["clinical"]["used"], {})
        self.assertIn("temperature_c", self.logic.predictionFields(node)["clinical"]["used"])
        self.assertTrue(self.logic.isComparing())

    def test_region(self):
        node, prediction = self.result()
        region = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsROINode", "mark")
        region.SetCenter(*world_ras(node, prediction.maps.peak(prediction.top.label)[1]))
        region.SetSize(100.0, 100.0, 10.0)
        self.ui.comparisonComboBox.currentIndex = self.ui.comparisonComboBox.count - 1
        self.ui.regionSelector.setCurrentNode(region)
        wait_until(lambda: "inside the region" in self.ui.compareStatusLabel.text, seconds=10)

    def test_segmentation(self):
        node, prediction = self.result()
        segmentation = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "mark")
        segmentation.CreateDefaultDisplayNodes()
        segmentation.SetReferenceImageGeometryParameterFromVolumeNode(node)
        segment = segmentation.GetSegmentation().AddEmptySegment("opacity")
        marked = np.zeros(slicer.util.arrayFromVolume(node).shape, dtype=np.uint8)
        slice_index, row, column = prediction.maps.peak(prediction.top.label)[1]
        marked[slice_index, max(row - 40, 0) : row + 40, max(column - 40, 0) : column + 40] = 1
        slicer.util.updateSegmentBinaryLabelmapFromArray(marked, segmentation, segment, node)
        self.ui.comparisonComboBox.currentIndex = self.ui.comparisonComboBox.count - 1
        self.ui.regionSelector.setCurrentNode(segmentation)
        wait_until(lambda: "inside the region" in self.ui.compareStatusLabel.text, seconds=10)


class WhatIfTest(PanelTestCase):
    def test_a_tried_value(self):
        node, prediction = self.result(clinicalRecord={"temperature_c": 36.5})
        self.ui.whatIfFieldComboBox.currentIndex = self.ui.whatIfFieldComboBox.findText("Temperature")
        self.assertAlmostEqual(self.ui.whatIfSlider.value, 36.5)
        self.ui.whatIfSlider.value = 40.5
        wait_until(lambda: "40.5" in self.ui.whatIfStatusLabel.text)
        before, after = table_texts(self.ui.whatIfTable)[0][1:3]
        self.assertEqual(before, f"{100 * prediction.top.probability:.1f} %")
        self.assertTrue(after.endswith("%"))
        self.assertEqual(self.logic.predictionFields(node)["clinical"]["used"]["temperature_c"], 36.5)


class ReviewTest(PanelTestCase):
    def test_a_review(self):
        from MediScanLib.report.reviews import ReviewStore

        node, _ = self.result()
        self.assertFalse(self.ui.saveReviewButton.enabled)
        self.ui.disagreeRadioButton.checked = True
        self.ui.reviewNoteEdit.text = "a note"
        region = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsROINode", "mark")
        region.SetCenter(*world_ras(node, (0, 100, 100)))
        region.SetSize(50.0, 50.0, 10.0)
        self.ui.reviewRegionSelector.setCurrentNode(region)
        self.ui.saveReviewButton.click()
        (review,) = ReviewStore().all()
        self.assertFalse(review.agree)
        self.assertEqual(review.note, "a note")
        self.assertEqual(len(review.region), 1)
        self.assertEqual(self.logic.review(node)["note"], "a note")

    def test_drawing_a_region(self):
        self.result()
        self.ui.drawRegionButton.click()
        self.assertIsNotNone(self.ui.reviewRegionSelector.currentNode())
        slicer.app.applicationLogic().GetInteractionNode().SwitchToViewTransformMode()


class ExportTest(PanelTestCase):
    def test_files(self):
        self.result()
        self.ui.exportDirectoryButton.directory = self.folder.name
        self.ui.exportButton.click()
        endings = {file.name.removeprefix("MediScanPhantom") for file in Path(self.folder.name).iterdir()}
        expected = {".json", ".csv", ".html"}
        if slicer.util.mainWindow() is not None:
            expected.add("-views.png")
        self.assertEqual(endings & {".json", ".csv", ".html", "-views.png"}, expected)

    def test_the_scene(self):
        node = self.choose(loadPhantom())
        self.widget.node.temperature_c = "38.4"
        self.widget.node.threshold = 0.4
        store_maps(slicer.mrmlScene, random_maps(slicer.util.arrayFromVolume(node).shape), node)
        self.logic.showHeatMap(node, "normal", outline=True)
        loaded = self.reload_scene()
        self.assertEqual(self.widget.node.temperature_c, "38.4")
        self.assertAlmostEqual(self.widget.node.threshold, 0.4)
        self.assertTrue(style_of(find_overlay(slicer.mrmlScene, loaded)).outline)
        count = node_count()
        self.logic.showHeatMap(loaded, "pneumonia", outline=True)
        self.assertEqual(node_count(), count)

    def test_the_scene_with_a_result(self):
        self.result()
        self.ui.agreeRadioButton.checked = True
        self.ui.saveReviewButton.click()
        rows = table_texts(self.ui.findingsTable)
        loaded = self.reload_scene()
        self.assertEqual(table_texts(self.ui.findingsTable), rows)
        self.assertTrue(self.ui.agreeRadioButton.checked)
        self.assertIsNotNone(stored_maps(slicer.mrmlScene, loaded))
        self.ui.findingComboBox.currentIndex = 1
        overlay = find_overlay(slicer.mrmlScene, loaded)
        self.assertEqual(overlay.GetAttribute("MediScan.Finding"), self.ui.findingComboBox.currentText)

    def reload_scene(self):
        """Save everything as MRB, close the scene, load it, and return the image."""
        file = str(Path(self.folder.name) / "scene.mrb")
        self.assertTrue(slicer.util.saveScene(file))
        slicer.mrmlScene.Clear()
        slicer.util.loadScene(file)
        self.widget.initializeParameterNode()
        return self.widget.node.inputVolume


class NoticeTest(PanelTestCase):
    def test_the_notice(self):
        settings = qt.QSettings()
        before = settings.value("MediScan/NoticeUnderstood")
        try:
            self.ui.welcomeFrame.visible = True
            self.ui.welcomeButton.click()
            self.assertFalse(self.ui.welcomeFrame.visible)
            self.assertTrue(slicer.util.settingsValue("MediScan/NoticeUnderstood", False, slicer.util.toBool))
            self.assertIn("research use only", self.ui.noticeLabel.text)
        finally:
            if before is None:
                settings.remove("MediScan/NoticeUnderstood")

    def test_fits_a_narrow_dock(self):
        self.assertLessEqual(self.widget.parent.minimumSizeHint.width(), 400)
        self.assertIsInstance(self.ui.applyButton, qt.QPushButton)
