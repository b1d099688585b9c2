"""Findings and prediction in the scene, their place in the subject hierarchy, and saving and loading it all."""

from __future__ import annotations

import numpy as np
import pytest
from vtkmodules.vtkCommonCore import vtkIdList

from MediScanLib.prediction.heatmaps import AxisMap, HeatMaps
from MediScanLib.scene.nodes import reference_of
from MediScanLib.scene.overlay import find_overlay, show_overlay
from MediScanLib.scene.results import (
    remove_results,
    show_findings,
    shown_summary,
    store_prediction,
    stored_prediction,
    summary_lines,
)
from MediScanLib.scene.stored_maps import store_maps, stored_maps
from MediScanLib.scene.volumes import image_from_volume, volume_from_image
from MediScanLib.study.image import MedicalImage

SHAPE = (1, 12, 10)


@pytest.fixture
def reference(scene):
    return volume_from_image(scene, MedicalImage(np.zeros(SHAPE, np.float32), modality="DX"), "radiograph")


@pytest.fixture
def maps(heat_maps):
    return heat_maps(SHAPE, (0, 2, 3))[0]


def node_ids(scene):
    return {scene.GetNthNode(number).GetID() for number in range(scene.GetNumberOfNodes())}


def item_names(scene):
    hierarchy = scene.GetSubjectHierarchyNode()
    children = vtkIdList()
    hierarchy.GetItemChildren(hierarchy.GetSceneItemID(), children, True)
    return [hierarchy.GetItemName(children.GetId(number)) for number in range(children.GetNumberOfIds())]


def rows(table):
    return [
        [table.GetTable().GetValue(row, column).ToString() for column in range(table.GetNumberOfColumns())]
        for row in range(table.GetNumberOfRows())
    ]


def test_findings_table(scene, reference, prediction):
    table = show_findings(scene, prediction(), reference)
    names = [table.GetColumnName(column) for column in range(table.GetNumberOfColumns())]
    assert names == ["Finding", "Probability", "Threshold", "Decision"]
    assert rows(table) == [["pneumonia", "0.8", "0.4", "present"], ["normal", "0.1235", "0.5", "absent"]]
    assert table.GetLocked()
    assert shown_summary(scene, reference) == summary_lines(prediction())


def test_table_is_filled_again_not_added(scene, reference, prediction):
    first = show_findings(scene, prediction(), reference)
    before = node_ids(scene)
    assert show_findings(scene, prediction(), reference) is first
    assert node_ids(scene) == before
    assert first.GetNumberOfRows() == 2
    assert first.GetNumberOfColumns() == 4


def test_summary(prediction):
    lines = summary_lines(prediction())
    assert lines["severity"] == "moderate, 0.50 of 1, 9.0 on Brixia 0-18"
    assert lines["certainty"] == "no reason to defer; most probable is pneumonia"
    assert lines["clinical"] == "1 of 2 clinical values known"


def test_summary_says_when_it_would_rather_not(prediction):
    said = prediction(
        severity={"applicable": False, "reason": "not learned"},
        certainty={
            "label": "normal",
            "deferred": True,
            "reasons": [{"code": "low_confidence", "message": "The probabilities are close."}],
        },
        findings=[
            {"label": "normal", "probability": 0.5, "threshold": 0.5, "decision": "unsure", "calibrated": False}
        ],
    )
    lines = summary_lines(said)
    assert lines["severity"] == "not applicable: not learned"
    assert "leave it to a human: The probabilities are close." in lines["certainty"]
    assert "uncalibrated" in lines["certainty"]


def test_prediction_is_kept(scene, reference, prediction):
    assert stored_prediction(scene, reference) is None
    store_prediction(scene, prediction(), reference)
    before = node_ids(scene)
    store_prediction(scene, prediction(), reference)
    assert node_ids(scene) == before
    assert stored_prediction(scene, reference) == prediction()


def test_everything_stands_beside_the_image(scene, reference, maps, prediction):
    hierarchy = scene.GetSubjectHierarchyNode()
    study = hierarchy.CreateStudyItem(hierarchy.GetSceneItemID(), "study")
    hierarchy.CreateItem(study, reference)
    nodes = [
        show_overlay(scene, maps, "pneumonia", reference),
        show_findings(scene, prediction(), reference),
        store_prediction(scene, prediction(), reference),
    ]
    for node in nodes:
        assert hierarchy.GetItemParent(hierarchy.GetItemByDataNode(node)) == study
        assert reference_of(node) is reference


def test_moves_along_with_the_image(scene, reference, maps):
    hierarchy = scene.GetSubjectHierarchyNode()
    item = hierarchy.CreateItem(hierarchy.GetSceneItemID(), reference)
    show_overlay(scene, maps, "pneumonia", reference)
    study = hierarchy.CreateStudyItem(hierarchy.GetSceneItemID(), "study")
    hierarchy.SetItemParent(item, study)
    overlay = show_overlay(scene, maps, "normal", reference)
    assert hierarchy.GetItemParent(hierarchy.GetItemByDataNode(overlay)) == study


def test_removal_leaves_nothing(scene, reference, maps, prediction):
    def add():
        show_overlay(scene, maps, "pneumonia", reference)
        show_findings(scene, prediction(), reference)
        store_prediction(scene, prediction(), reference)
        store_maps(scene, maps, reference)

    add()
    remove_results(scene, reference)
    nodes, items = node_ids(scene), item_names(scene)
    add()
    assert len(item_names(scene)) == len(items) + 4
    remove_results(scene, reference)
    assert node_ids(scene) == nodes
    assert item_names(scene) == items


def test_saved_and_loaded(scene, reference, maps, tmp_path, prediction):
    show_overlay(scene, maps, "pneumonia", reference)
    show_findings(scene, prediction(), reference)
    store_prediction(scene, prediction(), reference)
    store_maps(scene, maps, reference)
    file = tmp_path / "é scene.mrb"
    assert scene.WriteToMRB(str(file))

    scene.Clear(0)
    assert scene.GetNumberOfNodesByClass("vtkMRMLScalarVolumeNode") == 0
    assert scene.ReadFromMRB(str(file))
    image = scene.GetFirstNodeByName("radiograph")
    assert image_from_volume(image).modality == "DX"
    assert stored_prediction(scene, image) == prediction()
    assert shown_summary(scene, image) == summary_lines(prediction())
    kept = stored_maps(scene, image)
    assert np.array_equal(kept.on_image("normal"), maps.on_image("normal"))
    overlay = find_overlay(scene, image)
    assert overlay.GetAttribute("MediScan.Finding") == "pneumonia"
    assert overlay.GetDisplayNode().GetColorNode().GetName() == "Inferno"
    before = node_ids(scene)
    assert show_overlay(scene, kept, "normal", image) is overlay
    show_findings(scene, prediction(), image)
    assert node_ids(scene) == before, "after loading, the same nodes are used again"


def test_maps_of_a_volume_network_are_kept(scene, reference):
    axis = AxisMap(0.5, -0.25)
    maps = HeatMaps(
        ("a", "b"), np.random.default_rng(0).random((2, 3, 4, 5), np.float32), SHAPE, axis, axis, axis, (2.5, 1.5)
    )
    store_maps(scene, maps, reference)
    kept = stored_maps(scene, reference)
    assert np.array_equal(kept.values, maps.values)
    assert (kept.labels, kept.shape, kept.rows, kept.columns, kept.slices, kept.scales) == (
        (maps.labels, maps.shape, axis, axis, axis, (2.5, 1.5))
    )


@pytest.mark.parametrize(
    "text", ["", "{}", "[1]", "not json", '{"labels": ["a"], "grid": [1, 1, 2, 2], "values": "AAAA"}']
)
def test_damaged_maps_count_as_none(scene, reference, maps, text):
    store_maps(scene, maps, reference).SetText(text)
    assert stored_maps(scene, reference) is None
