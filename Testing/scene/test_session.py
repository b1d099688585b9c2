"""What the panel and scripts call, on the real MRML libraries."""

from __future__ import annotations

import numpy as np
import pytest

from MediScanLib.errors import UsageError
from MediScanLib.scene.overlay import find_overlay, make_overlay
from MediScanLib.scene.results import show_findings
from MediScanLib.scene.session import (
    Results,
    Style,
    add_prediction,
    first_image,
    results_of,
    show_heat_map,
    stated_values,
    style_heat_map,
    style_of,
)
from MediScanLib.scene.stored_maps import stored_maps
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
    style_heat_map(scene, None, Style(visible=True, opacity=0.5, threshold=0.2))
    style_heat_map(scene, reference, Style(visible=True, opacity=0.5, threshold=0.2))


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
    overlay, turned = show_heat_map(scene, predicted, "pneumonia", Style(opacity=0.3, threshold=0.4), jump=True)
    assert turned
    assert view.composite.GetForegroundOpacity() == pytest.approx(0.3)
    assert overlay.GetDisplayNode().GetLowerThreshold() == pytest.approx(0.4)
    assert view.node.GetSliceOffset() == pytest.approx(2 * 2), "the hottest slice"
    assert not show_heat_map(scene, predicted, "normal")[1]
    style_heat_map(scene, predicted, Style(visible=False, opacity=0.3, threshold=0.6))
    assert view.composite.GetForegroundVolumeID() is None
    assert overlay.GetDisplayNode().GetLowerThreshold() == pytest.approx(0.6)
    style_heat_map(scene, predicted, Style(visible=True, opacity=0.9, threshold=0.6))
    assert view.composite.GetForegroundVolumeID() == overlay.GetID()


def test_made_without_showing(scene, predicted, make_view):
    view = make_view("Red", "Axial")
    show_heat_map(scene, predicted, "pneumonia", Style(visible=False))
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


def test_the_active_volume_comes_first(scene, maps):
    selection = scene.AddNode(scene.CreateNodeByClass("vtkMRMLSelectionNode"))
    assert selection.GetID() == "vtkMRMLSelectionNodeSingleton"
    first = volume_from_image(scene, MedicalImage(np.zeros(SHAPE, np.float32)), "first")
    second = volume_from_image(scene, MedicalImage(np.zeros(SHAPE, np.float32)), "second")
    assert first_image(scene) is first
    selection.SetActiveVolumeID(second.GetID())
    assert first_image(scene) is second
    for other in (
        make_overlay(scene, maps, "pneumonia", first),
        scene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode", "labels"),
        scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "empty"),
    ):
        selection.SetActiveVolumeID(other.GetID())
        assert first_image(scene) is first
    selection.SetActiveVolumeID("gone")
    assert first_image(scene) is first


def test_style(scene, predicted, make_view):
    view = make_view("Red", "Axial")
    style = Style(opacity=0.8, threshold=0.5, colors="viridis", common_scale=True, legend=False)
    overlay, _ = show_heat_map(scene, predicted, "pneumonia", style)
    assert style_of(overlay) == style
    assert overlay.GetDisplayNode().GetColorNode().GetName() == "Viridis"
    show_heat_map(scene, predicted, "normal")
    assert style_of(overlay) == style, "without a style, as before"
    style_heat_map(scene, predicted, Style(outline=True, visible=False))
    assert style_of(overlay) == Style(outline=True, visible=False)
    assert view.composite.GetForegroundVolumeID() is None


def test_styles_leave_the_maps_alone(scene, predicted):
    before = stored_maps(scene, predicted).to_json()
    for style in (Style(outline=True), Style(common_scale=True), Style(threshold=0.9)):
        show_heat_map(scene, predicted, "pneumonia", style)
        style_heat_map(scene, predicted, Style(outline=True, threshold=0.7))
    assert stored_maps(scene, predicted).to_json() == before


def test_outline_without_stored_maps(scene, reference, maps):
    overlay = make_overlay(scene, maps, "pneumonia", reference)
    style_heat_map(scene, reference, Style(threshold=0.9, colors="viridis"))
    assert style_of(overlay).threshold == 0.9
    with pytest.raises(UsageError, match="Run the model"):
        style_heat_map(scene, reference, Style(outline=True))
    assert not style_of(overlay).outline, "what was not drawn is not remembered"
