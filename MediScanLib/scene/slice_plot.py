"""The probabilities of every slice as a chart, and the way from a point of it to the slice.

What the application does with a chart (read from Slicer 5.13, qMRMLPlotView, and tried on VTK's chart):

* `slicer.modules.plots.logic().ShowChartInLayout(chart)` shows it, in a layout with a plot view.
* A plot view emits `dataSelected(vtkStringArray*, vtkCollection*)`: the IDs of the series with selected points, and
  for each a vtkIdTypeArray of points, which are rows of the table. One click emits it twice, first as it was before.
* A click selects in the view's default interaction mode (InteractionModePanView) as in the modes for selecting; only
  InteractionModeMovePoints takes clicks away. No mode needs to be set.
* A click on one series leaves the points that are selected on the others. Who wants to know what was clicked calls
  the view's `RemovePlotSelections()` after each signal with points, or compares with the signal before.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import slicer
from vtkmodules.vtkCommonCore import vtkDoubleArray, vtkIntArray

from .geometry import Matrix, ijk_to_ras, to_numpy
from .nodes import (
    ROLE,
    Node,
    Scene,
    ensure_node,
    find_node,
    in_slot,
    reference_of,
    remove_with_belongings,
    slot_of,
    slots_of,
)
from .views import composites_showing, slice_node_of

if TYPE_CHECKING:
    from ..prediction.result import Prediction

SCORES = "scores by slice"
PLOT = "plot of slices"
SERIES = "plot series "
"""Roles of the table, the chart, and with the finding's name each series."""

SLICE_COLUMN = "Slice"
LINE_WIDTH = 2
MARKER_SIZE = 8

# Okabe and Ito's colors for people with any color vision, but for their yellow, which is faint on the chart's white.
COLORS = (
    (0.0, 0.447, 0.698),
    (0.835, 0.369, 0.0),
    (0.0, 0.62, 0.451),
    (0.8, 0.475, 0.655),
    (0.902, 0.624, 0.0),
    (0.337, 0.706, 0.914),
    (0.0, 0.0, 0.0),
)
_MARKERS = ("Circle", "Square", "Diamond", "Plus", "Cross")
_LINES = ("Solid", "Dash", "Dot", "DashDot", "DashDotDot")

PARALLEL = float(np.cos(np.radians(45)))
"""A view shows an image's slices where their normals are at most this angle apart."""


def show_plot(scene: Scene, prediction: Prediction, reference: Node, slot: str = "") -> Node | None:
    """Fill the image's table of probabilities by slice, and the chart of it.

    Every finding has a color, a marker and a line of its own, in the order of the model, so that it looks the same on
    every image. The axis of probabilities always goes from 0 to 1.

    Args:
        scene: vtkMRMLScene.
        prediction: What was said about the image.
        reference: The image's volume node.
        slot: Which of the image's results, see `nodes.SLOT`.

    Returns:
        vtkMRMLPlotChartNode, one an image and slot; None where the model did not look slice by slice, and then what an
        earlier prediction left is removed.
    """
    if not prediction.slices:
        remove_plot(scene, reference, slot)
        return None
    labels = [finding.label for finding in prediction.findings]
    table = ensure_node(scene, "vtkMRMLTableNode", SCORES, reference, slot)
    _fill(table, prediction, labels)
    chart = ensure_node(scene, "vtkMRMLPlotChartNode", PLOT, reference, slot)
    was_modified = chart.StartModify()
    chart.RemoveAllPlotSeriesNodeIDs()
    for number, label in enumerate(labels):
        chart.AddAndObservePlotSeriesNodeID(_series(scene, table, label, number, reference, slot).GetID())
    _remove_series(scene, reference, slot, keep=labels)
    chart.SetTitle(f"{reference.GetName()}{in_slot(slot)}")
    chart.SetXAxisTitle(SLICE_COLUMN)
    chart.SetYAxisTitle("Probability")
    chart.SetXAxisRangeAuto(True)
    chart.SetYAxisRangeAuto(False)
    chart.SetYAxisRange(0.0, 1.0)
    chart.SetLegendVisibility(True)
    chart.SetEnablePointMoveAlongX(False)  # what the model said is not for dragging
    chart.SetEnablePointMoveAlongY(False)
    chart.EndModify(was_modified)
    return chart


def find_plot(scene: Scene, reference: Node, slot: str = "") -> Node | None:
    """The image's chart, None if there is none."""
    return find_node(scene, "vtkMRMLPlotChartNode", PLOT, reference, slot)


def remove_plot(scene: Scene, reference: Node, slot: str | None = None) -> None:
    """Remove an image's chart with its series and table: of one slot, or of all without one."""
    roles = {"vtkMRMLPlotChartNode": PLOT, "vtkMRMLTableNode": SCORES}
    for class_name, role in roles.items():
        for held in slots_of(scene, class_name, role, reference) if slot is None else (slot,):
            _remove_series(scene, reference, held)
            node = find_node(scene, class_name, role, reference, held)
            if node is not None:
                remove_with_belongings(scene, node)


def slice_of_point(scene: Scene, series_id: str, point: int) -> tuple[Node, int] | None:
    """The image and its slice that a point of a plot stands for.

    Args:
        scene: vtkMRMLScene.
        series_id: Of a vtkMRMLPlotSeriesNode, as the plot view's signal `dataSelected` gives it.
        point: Row of the table, from the same signal.

    Returns:
        Volume node and slice index; None where the series is not ours or has no such point.
    """
    series = scene.GetNodeByID(series_id)
    if series is None or not series.IsA("vtkMRMLPlotSeriesNode"):
        return None
    reference, table = reference_of(series), series.GetTableNode()
    if reference is None or table is None or not 0 <= point < table.GetNumberOfRows():
        return None
    column = table.GetTable().GetColumnByName(SLICE_COLUMN)
    return None if column is None else (reference, int(column.GetValue(point)))


def show_slice(scene: Scene, reference: Node, slice_index: int) -> bool:
    """Move the views that show an image's slices to one of them.

    These are the views that have the image as background and look along its slices, by 45 degrees at most. The others,
    such as the sagittal view of an axial series, show all slices at once and stay where they are. A view is moved
    along its normal only, so that its center and zoom are kept.

    Args:
        scene: vtkMRMLScene.
        reference: The image's volume node; transforms of any kind count.
        slice_index: From 0.

    Returns:
        True where there is such a view.
    """
    matrix = ijk_to_ras(reference)
    inverse = np.linalg.inv(matrix)
    slice_at = reference.GetImageData().GetExtent()[4] + slice_index
    moved = False
    for composite in composites_showing(scene, reference):
        view = slice_node_of(scene, composite)
        if view is None:
            continue
        to_ras = to_numpy(view.GetSliceToRAS())
        ijk = inverse @ (*_transformed(reference.TransformPointFromWorld, to_ras[:3, 3]), 1.0)
        if abs(float(_normal(reference, matrix, ijk) @ to_ras[:3, 2])) < PARALLEL:
            continue
        ijk[2] = slice_at
        view.JumpSliceByOffsetting(*_transformed(reference.TransformPointToWorld, (matrix @ ijk)[:3]))
        moved = True
    return moved


def _normal(reference: Node, matrix: Matrix, ijk: Matrix) -> Matrix:
    """Unit normal of the image's slice in world space; through a warping transform it depends on the place."""
    here, right, below = (
        _transformed(reference.TransformPointToWorld, (matrix @ (ijk + step))[:3])
        for step in ((0, 0, 0, 0), (1, 0, 0, 0), (0, 1, 0, 0))
    )
    normal = np.cross(right - here, below - here)
    return normal / max(float(np.linalg.norm(normal)), 1e-12)


def _transformed(transform: Callable[[list[float], list[float]], None], point: Matrix) -> Matrix:
    moved = [0.0, 0.0, 0.0]
    transform(point.tolist(), moved)
    return np.array(moved)


def _fill(table: Node, prediction: Prediction, labels: Sequence[str]) -> None:
    was_modified = table.StartModify()
    table.SetLocked(False)
    table.RemoveAllColumns()
    index = vtkIntArray()
    index.SetName(SLICE_COLUMN)
    for scored in prediction.slices:
        index.InsertNextValue(scored.index)
    table.AddColumn(index)
    for label in labels:
        column = vtkDoubleArray()
        column.SetName(label)
        for scored in prediction.slices:
            column.InsertNextValue(scored.probabilities[label])
        table.AddColumn(column)
    table.SetUseColumnTitleAsColumnHeader(True)
    table.SetLocked(True)
    table.EndModify(was_modified)


def _series(scene: Scene, table: Node, label: str, number: int, reference: Node, slot: str) -> Node:
    kind = slicer.vtkMRMLPlotSeriesNode
    series = ensure_node(scene, "vtkMRMLPlotSeriesNode", SERIES + label, reference, slot)
    was_modified = series.StartModify()
    series.SetName(label)  # the chart's legend shows it
    series.SetHideFromEditors(True)
    series.SetAndObserveTableNodeID(table.GetID())
    series.SetPlotType(kind.PlotTypeScatter)  # the only one with points where the column of slices says
    series.SetXColumnName(SLICE_COLUMN)
    series.SetYColumnName(label)
    series.SetColor(*COLORS[number % len(COLORS)])
    series.SetMarkerStyle(getattr(kind, "MarkerStyle" + _MARKERS[number % len(_MARKERS)]))
    series.SetLineStyle(getattr(kind, "LineStyle" + _LINES[(number + number // len(_LINES)) % len(_LINES)]))
    series.SetMarkerSize(MARKER_SIZE)
    series.SetLineWidth(LINE_WIDTH)
    series.EndModify(was_modified)
    return series


def _remove_series(scene: Scene, reference: Node, slot: str, keep: Sequence[str] = ()) -> None:
    count = scene.GetNumberOfNodesByClass("vtkMRMLPlotSeriesNode")
    kept = {SERIES + label for label in keep}
    for node in [scene.GetNthNodeByClass(number, "vtkMRMLPlotSeriesNode") for number in range(count)]:
        role = node.GetAttribute(ROLE) or ""
        ours = role.startswith(SERIES) and reference_of(node) is reference and slot_of(node) == slot
        if ours and role not in kept:
            remove_with_belongings(scene, node)
