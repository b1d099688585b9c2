"""The chart of probabilities by slice, on the real plot nodes, and VTK's chart clicked as a plot view does it."""

from __future__ import annotations

import numpy as np
import pytest
from vtkmodules.vtkCommonCore import vtkIdList, vtkPoints
from vtkmodules.vtkCommonTransforms import vtkThinPlateSplineTransform

from MediScanLib.scene.geometry import ijk_to_ras, to_vtk
from MediScanLib.scene.nodes import reference_of
from MediScanLib.scene.results import remove_results
from MediScanLib.scene.slice_plot import COLORS, find_plot, remove_plot, show_plot, show_slice, slice_of_point
from MediScanLib.scene.volumes import volume_from_image
from MediScanLib.study.image import MedicalImage

SHAPE = (9, 12, 10)
LOOKED_AT = (2, 4, 6, 8)


@pytest.fixture
def reference(scene):
    return volume_from_image(scene, MedicalImage(np.zeros(SHAPE, np.float32), spacing=(1, 1, 3)), "Thorax CT")


@pytest.fixture
def looked(prediction):
    """A prediction slice by slice: the slices were not all looked at."""
    return prediction(
        slices=[
            {"index": index, "probabilities": {"normal": 1 - index / 10, "pneumonia": index / 10}}
            for index in LOOKED_AT
        ]
    )


def node_ids(scene):
    return {scene.GetNthNode(number).GetID() for number in range(scene.GetNumberOfNodes())}


def series_of(chart):
    return [chart.GetNthPlotSeriesNode(number) for number in range(chart.GetNumberOfPlotSeriesNodes())]


def test_chart(scene, reference, looked):
    chart = show_plot(scene, looked, reference)
    assert chart is find_plot(scene, reference)
    assert chart.GetTitle() == "Thorax CT"
    assert (chart.GetXAxisTitle(), chart.GetYAxisTitle()) == ("Slice", "Probability")
    assert not chart.GetYAxisRangeAuto()
    assert chart.GetYAxisRange() == (0, 1)
    assert [series.GetName() for series in series_of(chart)] == ["normal", "pneumonia"]
    for series in series_of(chart):
        table = series.GetTableNode().GetTable()
        assert series.GetPlotType() == series.PlotTypeScatter
        slices = table.GetColumnByName(series.GetXColumnName())
        assert [slices.GetValue(row) for row in range(4)] == list(LOOKED_AT)
        column = table.GetColumnByName(series.GetYColumnName())
        expected = [scored.probabilities[series.GetName()] for scored in looked.slices]
        assert [column.GetValue(row) for row in range(4)] == expected


def test_every_finding_looks_different(scene, reference, prediction):
    labels = [f"finding {number}" for number in range(20)]
    finding = {"probability": 0.5, "threshold": 0.5, "decision": "unsure", "calibrated": True}
    many = prediction(
        findings=[{**finding, "label": label} for label in labels],
        slices=[{"index": index, "probabilities": dict.fromkeys(labels, 0.5)} for index in range(3)],
    )
    looks = [
        (series.GetColor(), series.GetMarkerStyle(), series.GetLineStyle())
        for series in series_of(show_plot(scene, many, reference))
    ]
    assert len(set(looks)) == 20
    none_in_color = {look[1:] for look in looks[:5]}
    assert len(none_in_color) == 5, "the shipped model's findings can be told apart without color"
    assert all(marker and line for _, marker, line in looks)
    luminance = np.array(COLORS) @ (0.2126, 0.7152, 0.0722)
    assert (luminance < 0.7).all(), "they show on a white chart"


def test_filled_again_not_added(scene, reference, looked, prediction):
    first = show_plot(scene, looked, reference)
    before = node_ids(scene)
    assert show_plot(scene, looked, reference) is first
    assert node_ids(scene) == before
    assert first.GetNumberOfPlotSeriesNodes() == 2
    only = prediction(
        findings=[{"label": "cancer", "probability": 1, "threshold": 0.5, "decision": "present", "calibrated": True}],
        slices=[{"index": 0, "probabilities": {"cancer": 1.0}}, {"index": 1, "probabilities": {"cancer": 0.5}}],
    )
    assert [series.GetName() for series in series_of(show_plot(scene, only, reference))] == ["cancer"]
    assert scene.GetNumberOfNodesByClass("vtkMRMLPlotSeriesNode") == 1, "those of the earlier model are gone"


def test_no_slices_no_chart(scene, reference, looked, prediction):
    before = node_ids(scene)
    assert show_plot(scene, prediction(), reference) is None
    show_plot(scene, looked, reference)
    assert show_plot(scene, prediction(), reference) is None
    assert node_ids(scene) == before, "what the earlier prediction left is removed"


def test_slots_and_removal(scene, reference, looked):
    other = volume_from_image(scene, MedicalImage(np.zeros(SHAPE, np.float32)), "other")
    show_plot(scene, looked, other)
    before = node_ids(scene)
    first = show_plot(scene, looked, reference)
    second = show_plot(scene, looked, reference, "other model")
    assert first is not second
    assert second.GetTitle() == "Thorax CT (other model)"
    remove_plot(scene, reference, "other model")
    assert find_plot(scene, reference, "other model") is None
    assert first.GetNumberOfPlotSeriesNodes() == 2
    assert all(series is not None for series in series_of(first))
    show_plot(scene, looked, reference, "other model")
    remove_plot(scene, reference)
    assert node_ids(scene) == before
    remove_plot(scene, reference)


def test_stands_beside_the_image(scene, reference, looked):
    hierarchy = scene.GetSubjectHierarchyNode()
    study = hierarchy.CreateStudyItem(hierarchy.GetSceneItemID(), "study")
    hierarchy.CreateItem(study, reference)
    chart = show_plot(scene, looked, reference)
    for node in (chart, chart.GetNthPlotSeriesNode(0).GetTableNode()):
        assert reference_of(node) is reference
        assert hierarchy.GetItemParent(hierarchy.GetItemByDataNode(node)) == study
    remove_plot(scene, reference)
    children = vtkIdList()
    hierarchy.GetItemChildren(study, children)
    assert children.GetNumberOfIds() == 1


def test_slice_of_point(scene, reference, looked):
    chart = show_plot(scene, looked, reference)
    for series in series_of(chart):
        for point, index in enumerate(LOOKED_AT):
            assert slice_of_point(scene, series.GetID(), point) == (reference, index)
        assert slice_of_point(scene, series.GetID(), 4) is None
        assert slice_of_point(scene, series.GetID(), -1) is None
    foreign = scene.AddNewNodeByClass("vtkMRMLPlotSeriesNode", "foreign")
    assert slice_of_point(scene, foreign.GetID(), 0) is None
    assert slice_of_point(scene, reference.GetID(), 0) is None
    assert slice_of_point(scene, "gone", 0) is None


def test_saved_and_loaded(scene, reference, looked, tmp_path):
    show_plot(scene, looked, reference)
    file = tmp_path / "scene.mrb"
    assert scene.WriteToMRB(str(file))
    scene.Clear(0)
    assert scene.ReadFromMRB(str(file))
    image = scene.GetFirstNodeByName("Thorax CT")
    chart = find_plot(scene, image)
    assert chart.GetYAxisRange() == (0, 1)
    assert slice_of_point(scene, series_of(chart)[1].GetID(), 2) == (image, 6)
    before = node_ids(scene)
    assert show_plot(scene, looked, image) is chart
    assert node_ids(scene) == before


@pytest.fixture
def three_views(make_view, reference):
    views = {
        name: make_view(name, plane)
        for name, plane in {"Red": "Axial", "Yellow": "Sagittal", "Green": "Coronal"}.items()
    }
    for view in views.values():
        view.composite.SetBackgroundVolumeID(reference.GetID())
        view.fit()
    return views


def place(view):
    matrix = view.node.GetSliceToRAS()
    return np.array([matrix.GetElement(row, 3) for row in range(3)])


def test_show_slice_moves_the_views_along_the_slices_only(scene, reference, three_views):
    before = {name: place(view) for name, view in three_views.items()}
    assert show_slice(scene, reference, 7)
    assert three_views["Red"].node.GetSliceOffset() == pytest.approx(21)
    assert place(three_views["Red"])[:2] == pytest.approx(before["Red"][:2]), "not panned"
    for name in ("Yellow", "Green"):
        assert place(three_views[name]) == pytest.approx(before[name])


def shifted(scene):
    mover = scene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "moved")
    matrix = np.eye(4)
    matrix[:3, 3] = 10, 20, 30
    mover.SetMatrixTransformToParent(to_vtk(matrix))
    return mover


def bent(scene):
    """A thin plate spline: no matrix says where the voxels are."""
    source, target = vtkPoints(), vtkPoints()
    for x, y, z in np.ndindex(2, 2, 2):
        source.InsertNextPoint(x * 60 - 30, y * 60 - 30, z * 60 - 10)
        target.InsertNextPoint(x * 60 - 30, y * 60 - 30, z * 70 - 4 + 3 * x)
    spline = vtkThinPlateSplineTransform()
    spline.SetBasisToR()
    spline.SetSourceLandmarks(source)
    spline.SetTargetLandmarks(target)
    mover = scene.AddNewNodeByClass("vtkMRMLTransformNode", "bent")
    mover.SetAndObserveTransformToParent(spline)
    assert not mover.IsTransformToWorldLinear()
    return mover


@pytest.mark.parametrize("make_transform", [shifted, bent])
def test_show_slice_on_an_oblique_and_moved_image(scene, make_view, make_transform):
    turn = np.radians(20)
    direction = (1, 0, 0, 0, np.cos(turn), -np.sin(turn), 0, np.sin(turn), np.cos(turn))
    image = MedicalImage(np.zeros(SHAPE, np.float32), spacing=(1, 2, 3), origin=(5, 6, 7), direction=direction)
    node = volume_from_image(scene, image, "oblique")
    node.SetAndObserveTransformNodeID(make_transform(scene).GetID())
    view = make_view("Red", "Axial")
    view.composite.SetBackgroundVolumeID(node.GetID())
    view.fit()
    for wanted in (0, 4, 8):
        for _ in range(4):  # an oblique slice lies elsewhere as the view's center moves: it comes to rest
            assert show_slice(scene, node, wanted)
        own = [0.0] * 3
        node.TransformPointFromWorld(place(view).tolist(), own)
        assert (np.linalg.inv(ijk_to_ras(node)) @ (*own, 1))[2] == pytest.approx(wanted, abs=0.05)


def test_show_slice_where_no_view_shows_it(scene, reference, make_view):
    view = make_view("Green", "Coronal")
    assert not show_slice(scene, reference, 3)
    view.composite.SetBackgroundVolumeID(reference.GetID())
    before = place(view)
    assert not show_slice(scene, reference, 3)
    assert place(view) == pytest.approx(before)


def test_what_a_click_selects(scene, reference, looked):
    """The facts in the docstring of slice_plot, on VTK's own chart set up as a plot view sets it up."""
    import vtkmodules.vtkRenderingContextOpenGL2  # noqa: F401 - draws charts
    from vtkmodules.vtkChartsCore import vtkChart, vtkChartXY, vtkPlotLine
    from vtkmodules.vtkRenderingContext2D import vtkContextMouseEvent
    from vtkmodules.vtkViewsContext2D import vtkContextView

    left = vtkContextMouseEvent.LEFT_BUTTON
    view, chart = vtkContextView(), vtkChartXY()
    window = view.GetRenderWindow()
    window.SetOffScreenRendering(1)
    window.SetSize(500, 400)
    view.GetScene().AddItem(chart)
    all_series = series_of(show_plot(scene, looked, reference))
    plots = []
    for series in all_series:
        plot = vtkPlotLine()
        plot.SetInputData(series.GetTableNode().GetTable(), series.GetXColumnName(), series.GetYColumnName())
        chart.AddPlot(plot)
        plots.append(plot)
    interactor = view.GetInteractor()
    interactor.SetRenderWindow(window)
    interactor.Initialize()

    def selected():
        arrays = [plot.GetSelection() for plot in plots]
        return [[a.GetValue(n) for n in range(a.GetNumberOfValues())] if a is not None else [] for a in arrays]

    signals = []
    chart.AddObserver("SelectionChangedEvent", lambda *_: signals.append(selected()))

    def click(x, y):
        window.Render()
        at = []
        for axis, value, side in ((chart.GetAxis(1), x, 0), (chart.GetAxis(0), y, 1)):
            part = (value - axis.GetMinimum()) / (axis.GetMaximum() - axis.GetMinimum())
            start, end = axis.GetPoint1()[side], axis.GetPoint2()[side]
            at.append(round(start + part * (end - start)))
        interactor.SetEventInformation(*at, 0, 0, "\0", 0)
        interactor.MouseMoveEvent()
        interactor.LeftButtonPressEvent()
        interactor.LeftButtonReleaseEvent()

    chart.SetClickActionToButton(vtkChart.SELECT, left)  # InteractionModePanView
    chart.SetActionToButton(vtkChart.PAN, left)
    click(6, 0.6)
    assert signals == [[[], []], [[], [2]]]
    assert slice_of_point(scene, all_series[1].GetID(), signals[-1][1][0]) == (reference, 6)
    click(4, 0.6)
    assert signals[-1] == [[1], [2]], "a click on one series leaves the other's points"
    chart.RemovePlotSelections()
    click(4, 0.4)
    assert signals[-1] == [[], [1]]


def test_removed_with_all_results(scene, reference, looked):
    before = node_ids(scene)
    show_plot(scene, looked, reference)
    show_plot(scene, looked, reference, "other model")
    remove_results(scene, reference)
    assert node_ids(scene) == before
