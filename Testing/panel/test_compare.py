"""Two views side by side, and the way back, on a real scene."""

from __future__ import annotations

from dataclasses import replace

import pytest


@pytest.fixture
def layout(slicer):
    """The scene's layout node, as the application has it: in the conventional layout."""
    node = slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLLayoutNode") or slicer.mrmlScene.AddNewNodeByClass(
        "vtkMRMLLayoutNode"
    )
    conventional = slicer.vtkMRMLLayoutNode.SlicerLayoutConventionalView
    node.AddLayoutDescription(conventional, '<layout type="horizontal"/>')  # the application's logic does it
    node.SetViewArrangement(conventional)
    return node


def views(slicer) -> dict[str, tuple[str | None, str | None, str]]:
    """Background, foreground and text of the two views."""
    from MediScanLib.scene.comparison import corner_texts

    texts = corner_texts(slicer.mrmlScene)
    return {
        node.GetLayoutName(): (node.GetBackgroundVolumeID(), node.GetForegroundVolumeID(), texts[node.GetLayoutName()])
        for node in slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode")
        if node.GetLayoutName() in texts
    }


def choose(panel, name: str) -> None:
    panel.ui.comparisonComboBox.currentIndex = panel.ui.comparisonComboBox.findText(name)


def test_original_and_heat_map_and_back(panel, shown, slicer, layout, picture) -> None:
    panel.ui.compareCollapsibleButton.collapsed = False
    assert not panel.ui.leaveCompareButton.enabled
    panel.ui.compareButton.click()
    (left, right) = views(slicer).values()
    assert left[:2] == (shown.GetID(), None)
    assert right[0] == shown.GetID()
    assert right[1] is not None
    assert panel.node.finding in right[2]
    assert layout.GetViewArrangement() != slicer.vtkMRMLLayoutNode.SlicerLayoutConventionalView
    assert panel.ui.leaveCompareButton.enabled
    picture(panel, "panel-compare")
    panel.ui.leaveCompareButton.click()
    assert layout.GetViewArrangement() == slicer.vtkMRMLLayoutNode.SlicerLayoutConventionalView
    assert not panel.ui.leaveCompareButton.enabled


def test_two_findings_share_how_they_are_drawn(panel, shown, slicer, layout) -> None:
    from MediScanLib.scene.style import style_of

    choose(panel, "finding | other finding")
    assert panel.ui.secondFindingComboBox._object.isVisibleTo(panel.ui.compareCollapsibleButton._object)
    assert not panel.ui.priorSelector._object.isVisibleTo(panel.ui.compareCollapsibleButton._object)
    panel.ui.compareButton.click()
    overlays = [slicer.mrmlScene.GetNodeByID(view[1]) for view in views(slicer).values()]
    labels = [overlay.GetAttribute("MediScan.Finding") for overlay in overlays]
    assert labels == [panel.node.finding, panel.ui.secondFindingComboBox.currentText]
    panel.ui.thresholdSlider.value = 0.7
    assert [style_of(overlay).threshold for overlay in overlays] == [0.7, 0.7]
    panel.ui.secondFindingComboBox.currentIndex = 3
    right = list(views(slicer).values())[1]
    assert panel.ui.secondFindingComboBox.currentText in right[2]


def test_the_image_alone_is_asked_of_the_model(panel, shown, slicer, layout, runs, predicted, wait) -> None:
    choose(panel, "image and patient | image only")
    panel.ui.compareButton.click()
    (run,) = runs
    assert run.request["record"] == {}
    assert run.request["prefill"] is False
    assert panel.ui.applyButton.text == "Cancel"
    run.answer = predicted
    wait(lambda: not panel.isRunning(), 5)
    left, right = views(slicer).values()
    assert left[1] != right[1]
    assert "image only" in right[2]
    assert panel.logic.predictionFields(shown)["clinical"]["used"], "the first result stays"


def test_another_model_is_asked_and_the_first_result_stays(
    panel, shown, slicer, layout, runs, predicted, wait
) -> None:
    panel.ui.secondModelComboBox.addItem("other")
    choose(panel, "model | other model")
    panel.ui.secondModelComboBox.currentIndex = panel.ui.secondModelComboBox.findText("other")
    panel.ui.compareButton.click()
    (run,) = runs
    assert run.request["modelName"] == "other"
    assert run.request["record"] == dict(predicted.clinical.used), "both see the same patient"
    provenance = predicted.provenance.model_copy(update={"model": "other"})
    run.answer = predicted.model_copy(update={"provenance": provenance}).with_maps(predicted.maps)
    wait(lambda: not panel.isRunning(), 5)
    left, right = views(slicer).values()
    assert "mediscan-general" in left[2]
    assert "other" in right[2]
    assert panel.logic.predictionFields(shown)["provenance"]["model"] == "mediscan-general"
    assert panel.logic.predictionFields(shown, "other")["provenance"]["model"] == "other"


def test_a_cancelled_comparison_shows_nothing(panel, shown, slicer, layout, runs, wait) -> None:
    choose(panel, "image and patient | image only")
    panel.ui.compareButton.click()
    panel.ui.applyButton.click()
    wait(lambda: not panel.isRunning(), 5)
    assert not panel.logic.isComparing()


def test_an_earlier_image_needs_results_of_its_own(panel, shown, slicer, layout, radiograph, predicted) -> None:
    from slicer_double.application import settle

    from MediScanLib.scene.volumes import volume_from_image

    choose(panel, "earlier image | this image")
    prior = volume_from_image(slicer.mrmlScene, radiograph, "earlier")
    panel.ui.priorSelector.setCurrentNode(prior)
    panel.ui.compareButton.click()
    with pytest.raises(Exception, match="Run the model on it first"):
        settle()
    assert "Run the model on it first" in panel.ui.compareStatusLabel.text
    assert not panel.logic.isComparing()
    panel.logic.addPrediction(prior, predicted)
    panel.ui.compareButton.click()
    left, right = views(slicer).values()
    assert (left[0], right[0]) == (prior.GetID(), shown.GetID())
    assert "prior" in left[2]


def test_a_region_is_measured_while_it_is_drawn(panel, shown, slicer, layout, predicted, wait, picture) -> None:
    from MediScanLib.scene.geometry import world_ras

    panel.ui.compareCollapsibleButton.collapsed = False
    choose(panel, "reader's region | heat map")
    wait(lambda: "Draw" in panel.ui.compareStatusLabel.text, 5)
    region = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsROINode", "opacity")
    peak = world_ras(shown, predicted.maps.peak(panel.node.finding)[1])
    region.SetCenter(*peak)
    region.SetSize(120.0, 120.0, 10.0)
    panel.ui.regionSelector.setCurrentNode(region)
    wait(lambda: "inside the region" in panel.ui.compareStatusLabel.text, 5)
    before = panel.ui.compareStatusLabel.text
    assert "IoU" in before
    picture(panel, "panel-region")
    region.SetCenter(peak[0] + (150 if peak[0] < 0 else -150), peak[1], peak[2])
    wait(lambda: panel.ui.compareStatusLabel.text != before, 5)
    panel.ui.compareButton.click()
    assert "opacity" in next(iter(views(slicer).values()))[2]


def test_closing_the_scene_while_comparing(panel, shown, slicer, layout) -> None:
    from slicer_double.application import settle

    panel.ui.compareButton.click()
    slicer.mrmlScene.Clear()
    settle()
    panel.initializeParameterNode()
    assert not panel.logic.isComparing()
    assert not panel.ui.compareCollapsibleButton.enabled


def test_another_explanation_beside_the_first_says_whether_it_holds(panel, shown, runs, wait, picture) -> None:
    from MediScanLib.config import InferenceConfig
    from MediScanLib.prediction.engine import InProcess
    from MediScanLib.prediction.exchange import Request
    from MediScanLib.study.record import ClinicalRecord

    panel.ui.compareCollapsibleButton.collapsed = False
    panel.node.comparison = "explanation | other explanation"
    assert panel.ui.secondMethodComboBox._object.isVisibleTo(panel.ui.compareCollapsibleButton._object)
    panel.ui.secondMethodComboBox.currentIndex = panel.ui.secondMethodComboBox.findText("layercam")
    panel.ui.compareButton.click()
    (run,) = runs
    assert (run.request["explanation"], run.request["checkMap"]) == ("layercam", True)
    settings = InferenceConfig(explanation="layercam", faithfulness=True)
    record = ClinicalRecord(**run.request["record"])
    request = Request(panel.logic._image(shown, False), record, "mediscan-general", "cpu")
    run.answer = InProcess().predict(replace(request, settings=settings))
    wait(lambda: panel.runner.job is None)
    assert panel.logic.isComparing()
    assert "layercam: " in panel.ui.compareStatusLabel.text
    assert run.answer.faithfulness[0].verdict in panel.ui.compareStatusLabel.text
    picture(panel, "panel-compare-methods")
