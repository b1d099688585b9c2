"""What the panel and scripts call, on the real MRML libraries."""

from __future__ import annotations

import numpy as np
import pytest

from MediScanLib.errors import UsageError
from MediScanLib.scene.overlay import find_overlay, make_overlay
from MediScanLib.scene.results import show_findings
from MediScanLib.scene.session import (
    Results,
    add_prediction,
    first_image,
    results_of,
    show_heat_map,
    stated_values,
    style_heat_map,
)
from MediScanLib.scene.volumes import volume_from_image
from MediScanLib.study.image import MedicalImage

SHAPE = (3, 12, 10)


@pytest.fixture
def reference(scene):
    pixels = np.zeros(SHAPE, np.float32)
    return volume_from_image(scene, MedicalImage(pixels, spacing=(1, 1, 2), prefill={"age_years": 63.0}), "CT")


@pytest.fixture
def maps(heat_maps):
    return heat_maps(SHAPE, (2, 2, 3))[0]


@pytest.fixture
def predicted(scene, reference, maps, prediction):
    """A scene after a run on the reference."""
    add_prediction(scene, prediction().with_maps(maps), reference)
    return reference


def test_nothing_before_a_run(scene, reference):
    assert results_of(scene, None) == Results()
    assert results_of(scene, reference) == Results()
    with pytest.raises(UsageError, match="no heat maps"):
        show_heat_map(scene, reference, "pneumonia")
    with pytest.raises(UsageError, match="no heat maps"):
        show_heat_map(scene, None, "pneumonia")
    style_heat_map(scene, None, visible=True, opacity=0.5, threshold=0.2)
    style_heat_map(scene, reference, visible=True, opacity=0.5, threshold=0.2)


def test_results(scene, predicted):
    results = results_of(scene, predicted)
    assert results.findings == ("pneumonia", "normal"), "most probable first"
    assert results.shown == ""
    assert results.summary["severity"].startswith("moderate")
    show_heat_map(scene, predicted, "normal")
    assert results_of(scene, predicted).shown == "normal"


def test_prediction_without_maps(scene, reference, prediction):
    show_findings(scene, prediction(), reference)
    assert results_of(scene, reference).findings == ()


def test_show_and_style(scene, predicted, make_view):
    view = make_view("Red", "Axial")
    overlay, turned = show_heat_map(scene, predicted, "pneumonia", opacity=0.3, threshold=0.4, jump=True)
    assert turned
    assert view.composite.GetForegroundOpacity() == pytest.approx(0.3)
    assert overlay.GetDisplayNode().GetLowerThreshold() == pytest.approx(0.4)
    assert view.node.GetSliceOffset() == pytest.approx(2 * 2), "the hottest slice"
    assert not show_heat_map(scene, predicted, "normal")[1]
    style_heat_map(scene, predicted, visible=False, opacity=0.3, threshold=0.6)
    assert view.composite.GetForegroundVolumeID() is None
    assert overlay.GetDisplayNode().GetLowerThreshold() == pytest.approx(0.6)
    style_heat_map(scene, predicted, visible=True, opacity=0.9, threshold=0.6)
    assert view.composite.GetForegroundVolumeID() == overlay.GetID()


def test_made_without_showing(scene, predicted, make_view):
    view = make_view("Red", "Axial")
    show_heat_map(scene, predicted, "pneumonia", visible=False)
    assert find_overlay(scene, predicted) is not None
    assert view.composite.GetForegroundVolumeID() is None


def test_first_image(scene, maps):
    assert first_image(scene) is None
    scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "empty")
    scene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode", "labels")
    assert first_image(scene) is None
    image = volume_from_image(scene, MedicalImage(np.zeros(SHAPE, np.float32)), "image")
    assert first_image(scene) is image
    make_overlay(scene, maps, "pneumonia", image)
    scene.RemoveNode(image)
    assert first_image(scene) is None, "a heat map is no image"


def test_stated_values(scene, reference):
    assert stated_values(reference) == {"age_years": 63.0}
    assert stated_values(None) == {}
    assert stated_values(scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "empty")) == {}
