"""Side by side: the layout of its own, what each view shows, and the way back."""

from __future__ import annotations

import json

import numpy as np
import pytest
import slicer
from vtkmodules.vtkRenderingCore import vtkRenderer

from MediScanLib.errors import UsageError
from MediScanLib.scene.comparison import (
    LAYOUT,
    LAYOUT_ID,
    Pane,
    corner_texts,
    go_to_place,
    is_side_by_side,
    leave_side_by_side,
    show_side_by_side,
    style_side_by_side,
)
from MediScanLib.scene.corner_text import annotate, write_corner_text
from MediScanLib.scene.nodes import is_ours
from MediScanLib.scene.overlay import find_overlay
from MediScanLib.scene.panes import (
    panes_findings,
    panes_image_only,
    panes_models,
    panes_original,
    panes_prior,
    panes_region,
    study_date,
)
from MediScanLib.scene.session import add_prediction, show_heat_map, style_heat_map
from MediScanLib.scene.style import Style, style_of
from MediScanLib.scene.views import LEFT, RIGHT
from MediScanLib.scene.volumes import volume_from_image, write_voxels
from MediScanLib.study.image import MedicalImage

FOUR_UP = 3
FLAT, VOLUME = (1, 12, 10), (8, 12, 10)


def make_image(scene, name, shape=FLAT, origin=(0, 0, 0), spacing=(1, 1, 2)):
    pixels = np.random.default_rng(0).uniform(0, 100, shape).astype(np.float32)
    return volume_from_image(scene, MedicalImage(pixels, spacing=spacing, origin=origin), name)


@pytest.fixture
def reference(scene, heat_maps, prediction):
    node = make_image(scene, "radiograph")
    add_prediction(scene, prediction().with_maps(heat_maps(FLAT, (0, 2, 3))[0]), node)
    return node


@pytest.fixture
def volume(scene, heat_maps, prediction):
    node = make_image(scene, "CT", VOLUME)
    add_prediction(scene, prediction().with_maps(heat_maps(VOLUME, (6, 2, 3))[0]), node)
    return node


@pytest.fixture
def layout(scene):
    """A layout node as the application has it."""
    node = scene.CreateNodeByClass("vtkMRMLLayoutNode")
    node.UnRegister(None)
    node.SetSingletonTag("vtkMRMLLayoutNode")
    node = scene.AddNode(node)
    for number in (0, FOUR_UP):
        node.AddLayoutDescription(
            number, '<layout><item><view class="vtkMRMLViewNode" singletontag="1"/></item></layout>'
        )
    node.SetViewArrangement(FOUR_UP)
    return node


@pytest.fixture
def red(scene, make_view):
    return make_view("Red", "Axial")


def slice_node(scene, name):
    return scene.GetSingletonNode(name, "vtkMRMLSliceNode")


def composite(scene, name):
    number = scene.GetNumberOfNodesByClass("vtkMRMLSliceCompositeNode")
    nodes = (scene.GetNthNodeByClass(n, "vtkMRMLSliceCompositeNode") for n in range(number))
    return next(node for node in nodes if node.GetLayoutName() == name)


def layers(node):
    return node.GetBackgroundVolumeID(), node.GetForegroundVolumeID(), node.GetForegroundOpacity()


def legend_of(overlay):
    return slicer.vtkSlicerColorLogic.GetColorLegendDisplayNode(overlay.GetDisplayNode())


def test_the_layout_can_be_parsed_and_names_both_views():
    root = slicer.vtkMRMLLayoutNode.ParseLayout(LAYOUT)
    views = [root.GetNestedElement(number).GetNestedElement(0) for number in range(root.GetNumberOfNestedElements())]
    assert [view.GetAttribute("singletontag") for view in views] == [LEFT, RIGHT]
    assert {view.GetAttribute("class") for view in views} == {"vtkMRMLSliceNode"}


def test_each_pane_is_in_its_view_and_no_other_view_changes(scene, layout, reference, red):
    show_heat_map(scene, reference, "normal", Style(opacity=0.3))
    before = layers(red.composite)
    left, right = panes_original(scene, reference, "normal")
    assert show_side_by_side(scene, left, right, opacity=0.6) == (LEFT, RIGHT)
    assert is_side_by_side(scene)
    assert layout.GetViewArrangement() == LAYOUT_ID
    overlay = find_overlay(scene, reference)
    assert layers(composite(scene, LEFT)) == (reference.GetID(), None, 0.0)
    assert layers(composite(scene, RIGHT)) == (reference.GetID(), overlay.GetID(), pytest.approx(0.6))
    assert layers(red.composite) == before
    assert corner_texts(scene) == {LEFT: "original", RIGHT: "normal 0.12"}


def test_the_way_back(scene, layout, reference, red):
    show_heat_map(scene, reference, "normal", Style(opacity=0.3))
    before = layers(red.composite)
    show_side_by_side(scene, *panes_findings(scene, reference, "normal", "pneumonia"))
    show_side_by_side(scene, *panes_original(scene, reference, "normal"))
    leave_side_by_side(scene)
    assert layout.GetViewArrangement() == FOUR_UP, "not the layout of the comparison that came before"
    assert not is_side_by_side(scene)
    assert layers(red.composite) == before
    assert corner_texts(scene) == {LEFT: "", RIGHT: ""}
    assert all(
        layers(composite(scene, name)) == (None, None, pytest.approx(o)) for name, o in ((LEFT, 0), (RIGHT, 0.5))
    )
    assert legend_of(find_overlay(scene, reference)).GetVisibility()
    assert not legend_of(find_overlay(scene, reference, "finding b")).GetVisibility()
    assert layout.GetSaveWithScene()
    leave_side_by_side(scene)
    assert layout.GetViewArrangement() == FOUR_UP


def test_leaving_without_a_comparison_does_nothing(scene, layout):
    leave_side_by_side(scene)
    assert layout.GetViewArrangement() == FOUR_UP
    assert not is_side_by_side(scene)


def test_without_a_layout_node(scene, reference):
    """As in the wheel: nobody has made one."""
    leave_side_by_side(scene)
    assert not is_side_by_side(scene)
    assert corner_texts(scene) == {}
    show_side_by_side(scene, *panes_original(scene, reference, "normal"))
    assert is_side_by_side(scene)
    leave_side_by_side(scene)
    assert not is_side_by_side(scene)


def test_a_layout_that_the_user_chose_meanwhile_stays(scene, layout, reference):
    show_side_by_side(scene, *panes_original(scene, reference, "normal"))
    layout.SetViewArrangement(0)
    assert not is_side_by_side(scene)
    leave_side_by_side(scene)
    assert layout.GetViewArrangement() == 0
    assert layout.GetSaveWithScene()
    assert layers(composite(scene, RIGHT))[:2] == (None, None)


def test_window_and_level_stay_the_users(scene, reference):
    reference.GetDisplayNode().SetWindowLevel(123, 45)
    show_side_by_side(scene, *panes_original(scene, reference, "normal"))
    leave_side_by_side(scene)
    assert (reference.GetDisplayNode().GetWindow(), reference.GetDisplayNode().GetLevel()) == (123, 45)


def linked(scene):
    return [
        (composite(scene, name).GetLinkedControl(), composite(scene, name).GetHotLinkedControl())
        for name in (LEFT, RIGHT)
    ]


def test_views_of_one_place_are_linked(scene, reference, volume, red):
    show_side_by_side(scene, *panes_original(scene, reference, "normal"))
    assert linked(scene) == [(1, 1)] * 2
    other = make_image(scene, "other", spacing=(0.8, 0.8, 1))
    show_side_by_side(scene, Pane(reference), Pane(other))
    assert linked(scene) == [(0, 0)] * 2, "radiographs on two films"
    beside = make_image(scene, "beside", (5, 9, 9), origin=(3, 3, 3))
    show_side_by_side(scene, Pane(volume), Pane(beside))
    assert linked(scene) == [(1, 1)] * 2
    elsewhere = make_image(scene, "elsewhere", (5, 9, 9), origin=(300, 3, 3))
    show_side_by_side(scene, Pane(volume), Pane(elsewhere))
    assert linked(scene) == [(0, 0)] * 2
    assert slice_node(scene, LEFT).GetViewGroup() == slice_node(scene, RIGHT).GetViewGroup()
    assert slice_node(scene, LEFT).GetViewGroup() != red.node.GetViewGroup(), "only the two follow each other"


def test_scrolling_one_view_scrolls_the_other(app, scene, volume, make_view):
    views = [make_view(name) for name in (LEFT, RIGHT)]
    link = slicer.vtkMRMLSliceLinkLogic()
    link.SetMRMLApplicationLogic(app.app_logic)
    link.SetMRMLScene(scene)
    red = make_view("Red")
    show_side_by_side(scene, *panes_original(scene, volume, "pneumonia"))
    offset = red.node.GetSliceOffset()
    logic = views[0].view._logic
    logic.StartSliceNodeInteraction(slicer.vtkMRMLSliceNode.SliceToRASFlag)
    views[0].node.SetSliceOffset(11.0)
    logic.EndSliceNodeInteraction()
    assert views[1].node.GetSliceOffset() == pytest.approx(11.0)
    assert red.node.GetSliceOffset() == offset


def test_both_come_to_the_place_that_the_user_looked_at(scene, volume, red, make_view):
    views = [make_view(name) for name in (LEFT, RIGHT)]
    red.composite.SetBackgroundVolumeID(volume.GetID())
    red.node.SetSliceOffset(4.0)
    names = show_side_by_side(scene, *panes_original(scene, volume, "pneumonia"))
    assert names == (LEFT, RIGHT)
    for view in views:
        view.fit()
    go_to_place(scene)
    assert [view.node.GetSliceOffset() for view in views] == [4.0, 4.0]


def test_a_view_that_keeps_its_image_stays_where_it_is(scene, volume):
    show_side_by_side(scene, *panes_original(scene, volume, "pneumonia"))
    for name in (LEFT, RIGHT):
        slice_node(scene, name).SetOrientation("Coronal")
        slice_node(scene, name).SetSliceOffset(-3.0)
    assert show_side_by_side(scene, *panes_findings(scene, volume, "pneumonia", "normal")) == ()
    go_to_place(scene)
    assert [slice_node(scene, name).GetSliceOffset() for name in (LEFT, RIGHT)] == [-3.0] * 2
    assert [slice_node(scene, name).GetOrientation() for name in (LEFT, RIGHT)] == ["Coronal"] * 2


def test_volumes_are_axial_and_a_radiograph_lies_in_its_plane(scene, volume):
    coronal = np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]])
    upright = volume_from_image(
        scene, MedicalImage(np.zeros(FLAT, np.float32), spacing=(1, 1, 1), direction=tuple(coronal.ravel())), "upright"
    )
    show_side_by_side(scene, Pane(volume), Pane(upright))
    assert slice_node(scene, LEFT).GetOrientation() == "Axial"
    normal = [slice_node(scene, RIGHT).GetSliceToRAS().GetElement(row, 2) for row in range(3)]
    assert np.abs(normal) == pytest.approx([0, 1, 0])


def test_a_closed_scene_forgets_the_comparison(scene, layout, reference):
    show_side_by_side(scene, *panes_original(scene, reference, "normal"))
    scene.Clear(0)
    assert not is_side_by_side(scene)
    leave_side_by_side(scene)
    assert layout.GetSaveWithScene()
    assert set(corner_texts(scene).values()) <= {""}


def test_a_layout_that_outlives_the_scene_can_be_left(scene, layout, reference):
    """The application puts back the last layout after closing, but not what was remembered."""
    show_side_by_side(scene, *panes_original(scene, reference, "normal"))
    scene.Clear(0)
    layout.SetViewArrangement(LAYOUT_ID)
    leave_side_by_side(scene)
    assert layout.GetViewArrangement() == slicer.vtkMRMLLayoutNode.SlicerLayoutInitialView


def test_neither_the_layout_nor_its_views_are_saved(scene, layout, reference, red, tmp_path):
    """Where nobody knows the layout, such a scene would open with an empty window."""
    show_heat_map(scene, reference, "normal")
    show_side_by_side(scene, *panes_models_of(scene, reference))
    file = tmp_path / "scene.mrb"
    assert scene.WriteToMRB(str(file))
    assert is_side_by_side(scene), "saving disturbs nothing"
    scene.Clear(0)
    layout.SetViewArrangement(FOUR_UP)
    assert scene.ReadFromMRB(str(file))
    assert layout.GetViewArrangement() == FOUR_UP
    assert not is_side_by_side(scene)
    image = scene.GetFirstNodeByName("radiograph")
    assert red.composite.GetBackgroundVolumeID() == image.GetID()
    assert all(layers(composite(scene, name))[:2] == (None, None) for name in (LEFT, RIGHT))
    assert show_side_by_side(scene, *panes_models(scene, image, "pneumonia", "other")) == (LEFT, RIGHT)
    leave_side_by_side(scene)
    assert layout.GetViewArrangement() == FOUR_UP


def panes_models_of(scene, reference):
    from MediScanLib.scene.results import stored_prediction
    from MediScanLib.scene.stored_maps import stored_maps

    again = stored_prediction(scene, reference).with_maps(stored_maps(scene, reference))
    add_prediction(scene, again, reference, slot="other")
    return panes_models(scene, reference, "pneumonia", "other")


def test_styles_reach_both_panes_and_no_other_view(scene, reference, red):
    show_heat_map(scene, reference, "pneumonia")
    show_side_by_side(scene, *panes_findings(scene, reference, "pneumonia", "normal"))
    second = find_overlay(scene, reference, "finding b")
    style_side_by_side(scene, Style(opacity=0.8, threshold=0.05, colors="viridis", outline=True))
    for node in (find_overlay(scene, reference), second):
        assert style_of(node).outline
        assert node.GetDisplayNode().GetColorNode().GetName().startswith("Viridis")
    assert [layers(composite(scene, name))[2] for name in (LEFT, RIGHT)] == pytest.approx([0.8, 0.8])
    assert red.composite.GetForegroundVolumeID() == find_overlay(scene, reference).GetID()
    style_side_by_side(scene, Style(visible=False))
    assert [layers(composite(scene, name))[2] for name in (LEFT, RIGHT)] == [0.0, 0.0]
    assert composite(scene, RIGHT).GetForegroundVolumeID() == second.GetID(), "only faded"
    style_side_by_side(scene, Style(opacity=0.4))
    assert [layers(composite(scene, name))[2] for name in (LEFT, RIGHT)] == pytest.approx([0.4, 0.4])
    leave_side_by_side(scene)
    style_side_by_side(scene, Style(opacity=0.9))
    assert style_of(second).opacity == pytest.approx(0.4), "nothing stands side by side"


def test_the_users_view_never_gets_the_second_finding(scene, reference, red):
    show_heat_map(scene, reference, "pneumonia")
    show_side_by_side(scene, *panes_findings(scene, reference, "pneumonia", "normal"))
    style_heat_map(scene, reference, Style(opacity=0.7))
    style_heat_map(scene, reference, Style(opacity=0.2), slot="finding b")
    assert red.composite.GetForegroundVolumeID() == find_overlay(scene, reference).GetID()
    assert red.composite.GetForegroundOpacity() == pytest.approx(0.7)
    assert [layers(composite(scene, name))[2] for name in (LEFT, RIGHT)] == pytest.approx([0.7, 0.2])


def test_panes_take_the_style_of_the_heat_map(scene, reference):
    show_heat_map(scene, reference, "pneumonia", Style(threshold=0.4, colors="viridis"))
    _, right = panes_findings(scene, reference, "pneumonia", "normal")
    assert style_of(right.overlay).threshold == pytest.approx(0.4)
    assert style_of(right.overlay).colors == "viridis"
    _, right = panes_findings(scene, reference, "pneumonia", "normal", style=Style(threshold=0.1))
    assert style_of(right.overlay).threshold == pytest.approx(0.1)


def test_labels(scene, reference, prediction, heat_maps):
    panes_models_of(scene, reference)
    left, right = panes_models(scene, reference, "pneumonia", "other")
    assert (left.label, right.label) == ("mediscan-general 1: pneumonia 0.80",) * 2
    add_prediction(scene, prediction().with_maps(heat_maps(FLAT, (0, 1, 1))[0]), reference, slot="image only")
    left, right = panes_image_only(scene, reference, "pneumonia")
    assert left.label == "with 1 of 2 clinical values: pneumonia 0.80"
    assert right.label == "image only: pneumonia 0.80"


def test_labels_of_a_prior_name_the_dates(scene, reference, prediction, heat_maps):
    prior = make_image(scene, "before")
    add_prediction(scene, prediction().with_maps(heat_maps(FLAT, (0, 1, 1))[0]), prior)
    hierarchy = scene.GetSubjectHierarchyNode()
    study = hierarchy.CreateStudyItem(hierarchy.GetSceneItemID(), "study")
    hierarchy.SetItemAttribute(study, "DICOM.StudyDate", "20210302")
    hierarchy.SetItemParent(hierarchy.GetItemByDataNode(prior) or hierarchy.CreateItem(study, prior), study)
    assert study_date(prior) == "2021-03-02"
    assert study_date(reference) == ""
    left, right = panes_prior(scene, reference, prior, "pneumonia")
    assert (left.label, right.label) == ("prior 2021-03-02: pneumonia 0.80", "current: pneumonia 0.80")
    assert left.overlay is not right.overlay


def test_a_label_map_is_the_label_layer_of_its_view(scene, reference):
    labels = scene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode", "opacity")
    write_voxels(labels, np.ones(FLAT, np.int16))
    left, right = panes_region(scene, reference, "pneumonia", labels)
    show_side_by_side(scene, left, right)
    assert composite(scene, LEFT).GetLabelVolumeID() == labels.GetID()
    assert composite(scene, LEFT).GetForegroundVolumeID() is None
    assert composite(scene, RIGHT).GetLabelVolumeID() is None
    assert slice_node(scene, LEFT).GetUseLabelOutline()
    assert not slice_node(scene, RIGHT).GetUseLabelOutline()
    assert left.label == "reader: opacity"
    roi = scene.AddNewNodeByClass("vtkMRMLMarkupsROINode", "box")
    assert panes_region(scene, reference, "pneumonia", roi)[0].overlay is None


def test_errors_say_what_is_missing_and_what_to_do(scene, reference):
    bare = make_image(scene, "bare")
    with pytest.raises(UsageError, match=r"no heat maps for 'bare'\. Run the model"):
        panes_original(scene, bare, "pneumonia")
    with pytest.raises(UsageError, match=r"'cancer' for 'radiograph'\. Choose one of pneumonia, normal"):
        panes_original(scene, reference, "cancer")
    with pytest.raises(UsageError, match="Choose another finding"):
        panes_findings(scene, reference, "normal", "normal")
    with pytest.raises(UsageError, match=r"in 'other'\. Run the other model on 'radiograph'"):
        panes_models(scene, reference, "normal", "other")
    with pytest.raises(UsageError, match="without clinical values first"):
        panes_image_only(scene, reference, "normal")
    with pytest.raises(UsageError, match=r"no earlier image\. Load it"):
        panes_prior(scene, reference, None, "normal")
    with pytest.raises(UsageError, match="beside itself"):
        panes_prior(scene, reference, reference, "normal")
    with pytest.raises(UsageError, match="no heat maps for 'bare'"):
        panes_prior(scene, reference, bare, "normal")
    with pytest.raises(UsageError, match=r"no region\. Draw"):
        panes_region(scene, reference, "normal", None)
    with pytest.raises(UsageError, match="no image to show"):
        show_side_by_side(scene, Pane(reference), Pane(None))
    overlay = show_heat_map(scene, reference, "normal")[0]
    with pytest.raises(UsageError, match="no heat map of 'bare'"):
        show_side_by_side(scene, Pane(reference), Pane(bare, overlay))
    assert not is_side_by_side(scene), "a refused comparison changes nothing"


def test_the_place_is_plain_json(scene, volume):
    show_side_by_side(scene, *panes_original(scene, volume, "pneumonia"))
    assert len(json.loads(slice_node(scene, LEFT).GetAttribute("MediScan.Place"))) == 3
    assert not is_ours(slice_node(scene, LEFT)), "no result of an image"


def test_text_at_the_upper_edge_leaves_the_corners_to_slicer():
    renderer = vtkRenderer()
    annotation = annotate(renderer, "pneumonia 0.82")
    annotation.SetText(2, "B: radiograph")
    assert annotate(renderer, "normal") is annotation
    assert [annotation.GetText(position) for position in range(4)] == [None, None, "B: radiograph", None]
    assert annotation.GetText(7) == "normal"
    write_corner_text(annotation, "")
    assert not annotation.GetText(7)
