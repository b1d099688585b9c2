"""The overlay volume, its colors and legend, the slice views, and removing it all."""

from __future__ import annotations

import json

import numpy as np
import pytest
from vtkmodules.util.numpy_support import vtk_to_numpy

from MediScanLib.errors import UsageError
from MediScanLib.prediction.colormaps import color_table
from MediScanLib.scene.colors import COLOR_MAPS, color_node
from MediScanLib.scene.geometry import ijk_to_ras, ijk_to_world_ras, to_vtk
from MediScanLib.scene.overlay import find_overlay, make_overlay, remove_overlay, set_visible, show_overlay
from MediScanLib.scene.views import jump_to
from MediScanLib.scene.volumes import image_from_volume, volume_from_image
from MediScanLib.study.image import MedicalImage

SHAPE = (3, 12, 10)


@pytest.fixture
def reference(scene):
    direction = (0.0, 1.0, 0.0, 0.0, 0.0, 1.0, 1.0, 0.0, 0.0)
    image = MedicalImage(np.zeros(SHAPE, np.float32), spacing=(0.5, 2.0, 3.0), origin=(7, 8, 9), direction=direction)
    return volume_from_image(scene, image, "CT")


@pytest.fixture
def maps(heat_maps):
    return heat_maps(SHAPE, (1, 2, 3))[0]


@pytest.fixture
def composites(scene):
    made = []
    for name in ("Red", "Green"):
        node = scene.CreateNodeByClass("vtkMRMLSliceCompositeNode")
        node.UnRegister(None)
        node.SetLayoutName(name)
        node.SetSingletonTag(name)
        made.append(scene.AddNode(node))
    return made


def node_ids(scene):
    return {scene.GetNthNode(number).GetID() for number in range(scene.GetNumberOfNodes())}


def values(node):
    return vtk_to_numpy(node.GetImageData().GetPointData().GetScalars()).reshape(SHAPE)


def test_geometry_and_values(scene, reference, maps):
    overlay = make_overlay(scene, maps, "pneumonia", reference)
    assert np.array_equal(ijk_to_ras(overlay), ijk_to_ras(reference))
    assert overlay.GetImageData().GetExtent() == reference.GetImageData().GetExtent()
    assert np.array_equal(values(overlay), maps.normalized("pneumonia"))


def test_follows_the_transform_of_its_image(scene, reference, maps):
    mover = scene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "moved")
    matrix = np.eye(4)
    matrix[:3, 3] = 10, 20, 30
    mover.SetMatrixTransformToParent(to_vtk(matrix))
    reference.SetAndObserveTransformNodeID(mover.GetID())
    overlay = make_overlay(scene, maps, "pneumonia", reference)
    assert np.array_equal(ijk_to_world_ras(overlay), ijk_to_world_ras(reference))


def test_scale_of_the_model_is_kept(scene, reference, heat_maps):
    """A weak map must look weak: it is not stretched to its own maximum."""
    weak = heat_maps(SHAPE, (1, 2, 3), height=0.3, scale=40.0)[0]
    assert values(make_overlay(scene, weak, "pneumonia", reference)).max() < 0.31
    strong = heat_maps(SHAPE, (1, 2, 3), height=5.0, scale=40.0)[0]
    assert values(make_overlay(scene, strong, "pneumonia", reference)).max() == 1.0


def test_display(scene, reference, maps):
    overlay = show_overlay(scene, maps, "pneumonia", reference, threshold=0.4)
    display = overlay.GetDisplayNode()
    assert (display.GetWindowLevelMin(), display.GetWindowLevelMax()) == (0, 1)
    assert not display.GetAutoWindowLevel()
    assert display.GetApplyThreshold()
    assert (display.GetLowerThreshold(), display.GetUpperThreshold()) == pytest.approx((0.4, 1.0))
    assert display.GetColorNode().GetName() == "Inferno"


def test_legend_names_the_finding(scene, reference, maps):
    overlay = show_overlay(scene, maps, "pneumonia", reference)
    legend = overlay.GetNthDisplayNode(1)
    assert legend.IsA("vtkMRMLColorLegendDisplayNode")
    assert legend.GetTitleText() == "pneumonia"
    assert legend.GetPrimaryDisplayNode() is overlay.GetNthDisplayNode(0)


def test_another_finding_reuses_every_node(scene, reference, maps, composites):
    first = show_overlay(scene, maps, "pneumonia", reference, threshold=0.4)
    before = node_ids(scene)
    second = show_overlay(scene, maps, "normal", reference, threshold=0.1)
    assert second is first
    assert node_ids(scene) == before
    assert second.GetNthDisplayNode(1).GetTitleText() == "normal"
    assert values(second) == pytest.approx(0.1)
    assert "normal" in second.GetName()


def test_two_images_have_an_overlay_each(scene, reference, maps):
    other = volume_from_image(scene, MedicalImage(np.zeros(SHAPE, np.float32), spacing=(1, 1, 1)), "other")
    assert make_overlay(scene, maps, "pneumonia", reference) is not make_overlay(scene, maps, "pneumonia", other)


def test_removal_leaves_nothing(scene, reference, maps, composites):
    color_node(scene, COLOR_MAPS[0])
    make_overlay(scene, maps, "pneumonia", reference)
    remove_overlay(scene, reference)
    before = node_ids(scene)
    background = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "PET")
    composites[0].SetBackgroundVolumeID(reference.GetID())
    composites[0].SetForegroundVolumeID(background.GetID())
    composites[0].SetForegroundOpacity(0.7)
    show_overlay(scene, maps, "pneumonia", reference)
    remove_overlay(scene, reference)
    assert node_ids(scene) == before | {background.GetID()}
    assert composites[0].GetForegroundVolumeID() == background.GetID()
    assert composites[0].GetForegroundOpacity() == pytest.approx(0.7)
    remove_overlay(scene, reference)


def test_empty_views_get_the_image(scene, reference, maps, composites):
    overlay = show_overlay(scene, maps, "pneumonia", reference, opacity=0.3)
    for node in composites:
        assert node.GetBackgroundVolumeID() == reference.GetID()
        assert node.GetForegroundVolumeID() == overlay.GetID()
        assert node.GetForegroundOpacity() == pytest.approx(0.3)


def test_view_of_another_image_is_left_alone(scene, reference, maps, composites):
    other = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "other")
    composites[0].SetBackgroundVolumeID(reference.GetID())
    composites[1].SetBackgroundVolumeID(other.GetID())
    show_overlay(scene, maps, "pneumonia", reference)
    assert composites[0].GetForegroundVolumeID() is not None
    assert composites[1].GetBackgroundVolumeID() == other.GetID()
    assert composites[1].GetForegroundVolumeID() is None


def test_views_turn_to_the_image_where_none_shows_it(scene, reference, maps, composites):
    other = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "other")
    for node in composites:
        node.SetBackgroundVolumeID(other.GetID())
    show_overlay(scene, maps, "pneumonia", reference)
    assert [node.GetBackgroundVolumeID() for node in composites] == [reference.GetID()] * 2


def test_window_of_the_image_is_kept(scene, reference, maps, composites):
    reference.GetDisplayNode().SetWindowLevel(123, 45)
    show_overlay(scene, maps, "pneumonia", reference)
    assert (reference.GetDisplayNode().GetWindow(), reference.GetDisplayNode().GetLevel()) == (123, 45)


def test_hide_and_show(scene, reference, maps, composites):
    overlay = show_overlay(scene, maps, "pneumonia", reference)
    set_visible(scene, overlay, reference, False)
    assert all(node.GetForegroundVolumeID() is None for node in composites)
    assert not overlay.GetNthDisplayNode(1).GetVisibility()
    set_visible(scene, overlay, reference, True, 0.8)
    assert all(node.GetForegroundVolumeID() == overlay.GetID() for node in composites)
    assert overlay.GetNthDisplayNode(1).GetVisibility()


def test_errors(scene, reference, maps, heat_maps):
    with pytest.raises(UsageError, match=r"'cancer'.*pneumonia, normal"):
        make_overlay(scene, maps, "cancer", reference)
    with pytest.raises(UsageError, match="3 x 12 x 10"):
        make_overlay(scene, heat_maps((2, 5, 5), (1, 2, 3))[0], "pneumonia", reference)
    assert find_overlay(scene, reference) is None, "a refused overlay must not stay in the scene"


def test_overlay_is_no_image(scene, reference, maps):
    with pytest.raises(UsageError, match="heat map made by MediScan"):
        image_from_volume(make_overlay(scene, maps, "pneumonia", reference))


@pytest.mark.parametrize("name", COLOR_MAPS)
def test_color_node(scene, name):
    node = color_node(scene, name)
    assert color_node(scene, name) is node
    lookup = node.GetLookupTable()
    assert lookup.GetNumberOfTableValues() == 256
    for position in (0, 100, 255):
        assert lookup.GetTableValue(position)[:3] == pytest.approx(color_table(name)[position] / 255, abs=1e-6)


def test_color_node_of_the_application_is_preferred(scene):
    table = scene.CreateNodeByClass("vtkMRMLColorTableNode")
    table.UnRegister(None)
    table.SetSingletonTag("FileInferno.txt")
    added = scene.AddNode(table)
    assert added.GetID() == "vtkMRMLColorTableNodeFileInferno.txt"
    assert color_node(scene, "inferno") is added


def test_jump_to(scene, reference, make_view):
    view = make_view("Red", "Axial")
    view.composite.SetBackgroundVolumeID(reference.GetID())
    jump_to(scene, reference, (2, 5, 4))
    expected = (ijk_to_world_ras(reference) @ (4, 5, 2, 1))[2]
    assert view.node.GetSliceOffset() == pytest.approx(expected)


def test_what_a_view_showed_before_is_json(scene, reference, maps, composites):
    overlay = show_overlay(scene, maps, "pneumonia", reference)
    assert set(json.loads(overlay.GetAttribute("MediScan.ForegroundBefore"))) == {c.GetID() for c in composites}
