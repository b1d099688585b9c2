"""The overlay volume, its colors and legend, the slice views, and removing it all."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from vtkmodules.util.numpy_support import vtk_to_numpy

from MediScanLib.errors import UsageError
from MediScanLib.prediction.colormaps import color_table
from MediScanLib.scene.colors import COLOR_MAPS, color_node, outline_color_node
from MediScanLib.scene.geometry import ijk_to_ras, ijk_to_world_ras, to_vtk
from MediScanLib.scene.outline import EDGE
from MediScanLib.scene.overlay import (
    find_overlay,
    make_overlay,
    needs_maps,
    remove_overlay,
    restyle,
    set_visible,
    show_overlay,
)
from MediScanLib.scene.style import Style, style_of
from MediScanLib.scene.views import jump_to
from MediScanLib.scene.volumes import grid_shape, image_from_volume, volume_from_image
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
    overlay = show_overlay(scene, maps, "pneumonia", reference, Style(threshold=0.4))
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
    assert legend.GetTitleText() == "pneumonia\nown scale"
    assert legend.GetPrimaryDisplayNode() is overlay.GetNthDisplayNode(0)


def test_another_finding_reuses_every_node(scene, reference, maps, composites):
    first = show_overlay(scene, maps, "pneumonia", reference, Style(threshold=0.4))
    before = node_ids(scene)
    second = show_overlay(scene, maps, "normal", reference, Style(threshold=0.1))
    assert second is first
    assert node_ids(scene) == before
    assert second.GetNthDisplayNode(1).GetTitleText() == "normal\nown scale"
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
    overlay = show_overlay(scene, maps, "pneumonia", reference, Style(opacity=0.3))
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
    assert not style_of(overlay).visible
    assert style_of(overlay).opacity == Style().opacity
    set_visible(scene, overlay, reference, True, 0.8)
    assert style_of(overlay) == Style(opacity=0.8)
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


@pytest.mark.parametrize("outline", [False, True])
@pytest.mark.parametrize("common", [False, True])
def test_legend_says_what_is_drawn(scene, reference, maps, outline, common):
    style = Style(outline=outline, common_scale=common, threshold=0.4)
    legend = show_overlay(scene, maps, "pneumonia", reference, style).GetNthDisplayNode(1)
    first, second = legend.GetTitleText().split("\n")
    assert first == ("pneumonia \N{GREATER-THAN OR EQUAL TO} 0.40" if outline else "pneumonia")
    assert second == ("common scale" if common else "own scale")
    assert legend.GetNumberOfLabels() == (0 if outline else 3)
    assert legend.GetVisibility()


def test_legend_off(scene, reference, maps, composites):
    overlay = show_overlay(scene, maps, "pneumonia", reference, Style(legend=False))
    legend = overlay.GetNthDisplayNode(1)
    assert not legend.GetVisibility()
    set_visible(scene, overlay, reference, False)
    set_visible(scene, overlay, reference, True)
    assert not legend.GetVisibility(), "hiding and showing the map brings no legend"
    restyle(scene, None, overlay, reference, Style())
    assert legend.GetVisibility()


def test_common_scale(scene, reference, heat_maps):
    own = heat_maps(SHAPE, (1, 2, 3), height=0.5)[0]
    maps = replace(own, scales=(1.0, 2.0))
    assert np.array_equal(values(show_overlay(scene, maps, "pneumonia", reference)), maps.normalized("pneumonia"))
    overlay = show_overlay(scene, maps, "pneumonia", reference, Style(common_scale=True))
    assert np.allclose(values(overlay), maps.normalized("pneumonia") / 2)


STYLES = st.builds(
    Style,
    visible=st.booleans(),
    opacity=st.floats(0, 1),
    threshold=st.floats(0, 1),
    colors=st.sampled_from(COLOR_MAPS),
    outline=st.booleans(),
    common_scale=st.booleans(),
    legend=st.booleans(),
)


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(before=STYLES, after=STYLES)
def test_restyled_is_as_made_anew(scene, reference, maps, composites, before, after):
    maps = replace(maps, scales=(1.0, 1.5))
    overlay = show_overlay(scene, maps, "pneumonia", reference, before)
    assert style_of(overlay) == before
    restyle(scene, maps if needs_maps(overlay, after) else None, overlay, reference, after)
    look = looks(overlay)
    remove_overlay(scene, reference)
    overlay = show_overlay(scene, maps, "pneumonia", reference, after)
    for got, wanted in zip(look, looks(overlay), strict=True):
        assert same(got, wanted)
    assert style_of(overlay) == after
    remove_overlay(scene, reference)


def looks(overlay):
    display, legend = overlay.GetNthDisplayNode(0), overlay.GetNthDisplayNode(1)
    return (
        vtk_to_numpy(overlay.GetImageData().GetPointData().GetScalars()).copy(),
        ijk_to_ras(overlay),
        overlay.GetImageData().GetExtent(),
        (display.GetLowerThreshold(), display.GetUpperThreshold()),
        (display.GetWindow(), display.GetLevel()),
        display.GetColorNode().GetName(),
        legend.GetTitleText(),
        (legend.GetVisibility(), *legend.GetSize(), legend.GetNumberOfLabels()),
    )


def same(got, wanted):
    return got == wanted if isinstance(wanted, str) else np.allclose(got, wanted)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [({"opacity": 1.2}, "opacity"), ({"threshold": -1}, "threshold"), ({"colors": "jet"}, "viridis")],
)
def test_styles_out_of_range(wrong, said):
    with pytest.raises(UsageError, match=said):
        Style(**wrong)


@pytest.mark.parametrize("stored", [None, "", "{", "[1]", '{"colors": "jet"}', '{"size": 3}', '{"opacity": "much"}'])
def test_style_that_cannot_be_read(scene, reference, maps, stored):
    overlay = make_overlay(scene, maps, "pneumonia", reference, Style(opacity=0.9))
    overlay.SetAttribute("MediScan.Style", stored)
    assert style_of(overlay) == Style()


def test_style_is_saved_with_the_scene(scene, reference, maps, composites, tmp_path):
    style = Style(opacity=0.7, threshold=0.3, colors="cividis", outline=True, common_scale=True, legend=False)
    show_overlay(scene, maps, "pneumonia", reference, style)
    before = looks(find_overlay(scene, reference))
    assert scene.WriteToMRB(str(tmp_path / "scene.mrb"))
    scene.Clear(0)
    assert scene.ReadFromMRB(str(tmp_path / "scene.mrb"))
    image = scene.GetFirstNodeByName("CT")
    overlay = find_overlay(scene, image)
    assert style_of(overlay) == style
    after = looks(overlay)
    for got, wanted in zip(after, before, strict=True):
        assert same(got, wanted)
    restyle(scene, maps, overlay, image, Style())
    assert np.array_equal(values(overlay), maps.normalized("pneumonia"))
    assert np.allclose(ijk_to_ras(overlay), ijk_to_ras(image))


def test_outline_over_an_image_whose_indices_start_elsewhere(scene, heat_maps):
    """A part of a volume keeps the indices of the whole; and the outline's grid may be coarser than the image."""
    shape = (1, 800, 400)
    node = volume_from_image(scene, MedicalImage(np.zeros(shape, np.float32), spacing=(0.5, 0.5, 1)), "part")
    node.GetImageData().SetExtent(100, 499, 200, 999, 3, 3)
    maps = heat_maps(shape, (0, 2, 3))[0]
    overlay = show_overlay(scene, maps, "pneumonia", node, Style(outline=True))
    slices, rows, columns = grid_shape(overlay)
    assert rows < 800
    ends = [
        ijk_to_ras(overlay) @ (*corner, 1) for corner in ((-0.5, -0.5, 0), (columns - 0.5, rows - 0.5, slices - 1))
    ]
    wanted = [ijk_to_ras(node) @ (*corner, 1) for corner in ((99.5, 199.5, 3), (499.5, 999.5, 3))]
    assert np.allclose(ends, wanted)
    restyle(scene, maps, overlay, node, Style())
    assert overlay.GetImageData().GetExtent() == (100, 499, 200, 999, 3, 3)


@pytest.mark.parametrize("name", COLOR_MAPS)
def test_outline_colors(scene, name):
    node = outline_color_node(scene, name)
    assert outline_color_node(scene, name) is node
    table = [np.array(node.GetLookupTable().GetTableValue(n)[:3]) for n in range(node.GetNumberOfColors())]
    edge, line = color_table(name)[0] / 255, color_table(name)[-1] / 255
    part = [np.allclose(color, edge, atol=0.01) for color in table]
    assert sum(part) / len(part) == pytest.approx(EDGE)
    assert part == part[::-1]
    assert np.allclose(table[len(table) // 2], line, atol=0.01)
