"""Which slices of a volume are looked at, when, and what is shown of them."""

from __future__ import annotations

import numpy as np
import pytest


@pytest.fixture
def volume(panel, slicer):
    """A volume of eight axial slices, chosen and shown."""
    from slicer_double.application import settle

    from MediScanLib.scene.volumes import volume_from_image
    from MediScanLib.study.image import MedicalImage

    pixels = np.random.default_rng(0).random((8, 40, 50), dtype=np.float32)
    node = volume_from_image(slicer.mrmlScene, MedicalImage(pixels, spacing=(2.0, 2.0, 5.0)), "volume")
    for name in ("Red", "Yellow", "Green"):
        view = slicer.vtkMRMLSliceNode()
        view.SetName(name)
        view.SetLayoutName(name)
        slicer.vtkMRMLSliceNode.AddDefaultSliceOrientationPresets(slicer.mrmlScene)
        view = slicer.mrmlScene.AddNode(view)
        view.SetOrientation({"Red": "Axial", "Yellow": "Sagittal", "Green": "Coronal"}[name])
        composite = slicer.vtkMRMLSliceCompositeNode()
        composite.SetLayoutName(name)
        composite = slicer.mrmlScene.AddNode(composite)
        composite.SetBackgroundVolumeID(node.GetID())
    panel.node.inputVolume = node
    settle()
    return node


def move(slicer, slice_index: int) -> None:
    """Move the axial view to a slice."""
    view = next(node for node in slicer.util.getNodesByClass("vtkMRMLSliceNode") if node.GetName() == "Red")
    view.JumpSliceByOffsetting(-50.0, -40.0, 5.0 * slice_index)


def test_a_single_image_has_no_choice_of_slices(panel) -> None:
    panel.module.loadPhantom()
    panel.initializeParameterNode()
    assert not panel.ui.scopeWidget._object.isVisibleTo(panel.window)


def test_the_whole_volume_the_current_slice_or_a_range(panel, volume, slicer, runs, picture) -> None:
    assert panel.ui.scopeWidget._object.isVisibleTo(panel.window)
    assert panel.ui.lastSliceSpinBox.maximum == 7
    panel.ui.applyButton.click()
    assert runs[0].request["slices"] is None
    panel.runner.drop()
    panel.ui.scopeComboBox.currentIndex = 1
    move(slicer, 3)
    panel.ui.applyButton.click()
    assert runs[1].request["slices"] == [3]
    panel.runner.drop()
    panel.ui.scopeComboBox.currentIndex = 2
    panel.ui.firstSliceSpinBox.value = 2
    panel.ui.lastSliceSpinBox.value = 5
    picture(panel, "panel-slices")
    panel.ui.applyButton.click()
    assert runs[2].request["slices"] == [2, 3, 4, 5]


def test_a_range_that_runs_backwards_disables_apply(panel, volume) -> None:
    panel.ui.scopeComboBox.currentIndex = 2
    panel.ui.firstSliceSpinBox.value = 6
    panel.ui.lastSliceSpinBox.value = 2
    assert not panel.ui.applyButton.enabled
    assert "Swap" in panel.ui.statusLabel.text
    panel.ui.firstSliceSpinBox.value = 1
    assert panel.ui.applyButton.enabled


def test_the_model_looks_again_once_the_slice_has_come_to_rest(panel, volume, slicer, runs, wait) -> None:
    assert not panel.ui.autoRunCheckBox.checked, "only if one wants it"
    panel.ui.scopeComboBox.currentIndex = 1
    panel.ui.autoRunCheckBox.checked = True
    for slice_index in (1, 2, 4):
        move(slicer, slice_index)
    wait(lambda: bool(runs), 5)
    assert [run.request["slices"] for run in runs] == [[4]], "the slices passed on the way are not looked at"
    panel.runner.drop()
    move(slicer, 4)
    move(slicer, 5)
    wait(lambda: len(runs) == 2, 5)
    assert runs[1].request["slices"] == [5]
    panel.runner.drop()
    panel.ui.autoRunCheckBox.checked = False
    move(slicer, 1)
    with pytest.raises(AssertionError, match="did not happen"):
        wait(lambda: len(runs) == 3, 1.2)


def test_scores_by_slice_are_plotted_and_lead_to_their_slice(panel, volume, slicer) -> None:
    from vtkmodules.vtkCommonCore import vtkCollection, vtkIdTypeArray, vtkStringArray

    from MediScanLib.prediction.engine import InProcess
    from MediScanLib.prediction.exchange import Request
    from MediScanLib.scene.volumes import image_from_volume

    assert not panel.ui.plotButton._object.isVisibleTo(panel.window)
    prediction = InProcess().predict(Request(image_from_volume(volume), device="cpu"))
    panel.onPrediction(volume, prediction, jump=False)
    assert panel.ui.plotButton._object.isVisibleTo(panel.ui.findingsCollapsibleButton._object)
    assert "Mean over" in panel.ui.certaintyTextLabel.text
    panel.ui.plotButton.click()
    (series, *_others) = slicer.util.getNodesByClass("vtkMRMLPlotSeriesNode")
    ids, points, selections = vtkStringArray(), vtkIdTypeArray(), vtkCollection()
    ids.InsertNextValue(series.GetID())
    points.InsertNextValue(6)
    selections.AddItem(points)
    panel.findings.onPointSelected(ids, selections)
    assert panel.logic.currentSlice(volume) == 6
