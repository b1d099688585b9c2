"""A reader's region in the scene, a box, segments or a label map, as a mask on the grid of an image."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import slicer
from vtkmodules.util.numpy_support import vtk_to_numpy
from vtkmodules.vtkCommonMath import vtkMatrix4x4

from ..errors import UsageError
from ..prediction.localization import BoolArray, Localization, MarkedRegion, localize_map
from .geometry import Matrix, ijk_to_world_ras, to_numpy, to_vtk
from .nodes import Node, Scene, place_beside
from .stored_maps import stored_maps
from .style import DEFAULT_THRESHOLD
from .volumes import grid_shape

REGION_CLASSES = ("vtkMRMLMarkupsROINode", "vtkMRMLSegmentationNode", "vtkMRMLLabelMapVolumeNode")
"""Nodes that a reader can mark a region with."""

LABELMAP, SURFACE = "Binary labelmap", "Closed surface"
"""Slicer's names of the representations of segments."""

SLAB = 16
"""Image slices that are looked at together."""

_EDGE = 1e-6
"""Slack in voxels, so that rounding does not drop a voxel whose center lies on a border."""


def region_on(region: Node, reference: Node, segment: str = "") -> MarkedRegion:
    """What a reader marked, on the grid of an image. A voxel is marked where its center is.

    * A box (ROI) may be turned and stand under linear transforms. One that is thinner than a voxel marks the layer of
      voxels it lies in. On an image of one slice, a box that the image's plane does not cut, such as a flat one drawn
      beside it, counts by what it covers of the plane when seen along the plane's normal: a radiograph has no depth.
    * Segments may be stored as label map or as closed surface; the node is not changed.
    * In a label map volume everything that is not zero is marked.

    Args:
        region: Node of one of `REGION_CLASSES`.
        reference: Image volume node.
        segment: ID of one segment; all visible segments where it is empty.

    Raises:
        UsageError: Nothing is marked, the region lies outside the image, or the node is no region.
        ReadError: A transform is not linear.
    """
    if region is None or not any(region.IsA(name) for name in REGION_CLASSES):
        what = "There is no region" if region is None else f"{region.GetName()!r} is no region"
        raise UsageError(f"{what}. Draw a box (ROI) or a segment, or choose a label map.")
    if reference is None or reference.GetImageData() is None:
        raise UsageError("There is no image to put the region on. Choose the image that was marked.")
    if region.IsA("vtkMRMLMarkupsROINode"):
        found = _box(region, reference)
    elif region.IsA("vtkMRMLSegmentationNode"):
        found = _union([_resampled(*part, reference) for part in _segments(region, reference, segment)], reference)
    else:
        found = _resampled(_voxels(region, region.GetName()) != 0, _grid_to_world(region), reference)
    if found.voxels == 0:
        raise UsageError(
            f"The region {region.GetName()!r} lies outside the image {reference.GetName()!r}. Draw it on that image."
        )
    return found


def region_mask(region: Node, reference: Node, segment: str = "") -> BoolArray:
    """As `region_on`, as (slices, rows, columns) bool on the whole image."""
    return region_on(region, reference, segment).mask()


def make_region(scene: Scene, reference: Node) -> Node:
    """An empty box (vtkMRMLMarkupsROINode) beside an image in the subject hierarchy, for a reader to draw.

    Only its edges are drawn: filled, or with its name across it, it would cover what it marks.
    """
    node = scene.AddNewNodeByClass("vtkMRMLMarkupsROINode", f"{reference.GetName()} region")
    node.CreateDefaultDisplayNodes()
    node.GetDisplayNode().FillVisibilityOff()
    node.GetDisplayNode().PropertiesLabelVisibilityOff()
    place_beside(scene, node, reference)
    return node


def compare_with_region(
    scene: Scene,
    reference: Node,
    finding: str,
    region: Node,
    threshold: float = DEFAULT_THRESHOLD,
    slot: str = "",
    *,
    segment: str = "",
    common: bool = False,
) -> Localization:
    """How the heat map of a finding and a reader's region agree.

    Args:
        scene: vtkMRMLScene.
        reference: Image volume node with results.
        finding: Finding.
        region: See `region_on`.
        threshold: That of the overlay, 0..1.
        slot: Slot of the results, see `nodes.SLOT`.
        segment: See `region_on`.
        common: True where the overlay is drawn on the scale of all findings, see `HeatMaps.scale`.

    Raises:
        UsageError: There are no heat maps, none of that finding, or no such region on the image.
        ReadError: See `region_on`.
    """
    maps = stored_maps(scene, reference, slot) if reference is not None else None
    if maps is None:
        raise UsageError("There are no heat maps for this image. Run the model on it first.")
    return localize_map(maps, finding, region_on(region, reference, segment), threshold, common=common)


def _box(region: Node, reference: Node) -> MarkedRegion:
    """A ROI on the image's grid."""
    sides = np.array(region.GetSize())
    if region.GetNumberOfControlPoints() == 0 or np.count_nonzero(sides > 0) < 2:
        raise UsageError(f"The region {region.GetName()!r} is empty. Draw a box around what you see.")
    to_box = np.linalg.inv(to_numpy(region.GetObjectToWorldMatrix())) @ _grid_to_world(reference)
    half = np.maximum(sides / 2, np.abs(to_box[:3, :3]).max(axis=1) / 2)
    corners = np.array([(x, y, z, 1.0) for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)]) * [*half, 1.0]
    shape = grid_shape(reference)
    corners = corners @ np.linalg.inv(to_box).T
    found = _inside_box(to_box, half, _bounds(corners, shape), shape)
    if found.voxels == 0 and shape[0] == 1:
        on_plane = corners * (1, 1, 0, 1)
        return _inside_box(to_box, half, _bounds(on_plane, shape), shape, along_normal=True)
    return found


def _inside_box(
    to_box: Matrix,
    half: npt.NDArray[np.float64],
    bounds: tuple[slice, slice, slice],
    shape: tuple[int, int, int],
    *,
    along_normal: bool = False,
) -> MarkedRegion:
    """Voxels of the bounds whose center lies in the box, or from which one gets into it along the slice axis."""
    slices, rows, columns = (np.arange(part.start, part.stop, dtype=np.float64) for part in bounds)
    inside = np.ones((len(slices), len(rows), len(columns)), dtype=np.bool_)
    for first in range(0, len(slices), SLAB):  # the coordinates of a whole volume would fill the memory
        slab = inside[first : first + SLAB]
        axes = (slices[first : first + SLAB], rows, columns)
        if along_normal:
            slab &= _seen_through(to_box, half, axes)
        else:
            for coefficients, limit in zip(to_box[:3], half, strict=True):
                slab &= np.abs(_coordinate(coefficients, axes)) <= limit + _slack(coefficients)
    return MarkedRegion.around(inside, shape, (bounds[0].start, bounds[1].start, bounds[2].start))


def _seen_through(to_box: Matrix, half: npt.NDArray[np.float64], axes: tuple[Matrix, Matrix, Matrix]) -> BoolArray:
    """True where the line along the slice axis meets the box: it enters each pair of faces before it leaves any."""
    enter, leave = np.array(-np.inf), np.array(np.inf)
    beside = np.array(True)
    for coefficients, limit in zip(to_box[:3], half, strict=True):
        at, reach = _coordinate(coefficients, axes), limit + _slack(coefficients)
        slope = coefficients[2]
        if abs(slope) > _slack(coefficients):
            ends = (-reach - at) / slope, (reach - at) / slope
            enter, leave = np.maximum(enter, np.minimum(*ends)), np.minimum(leave, np.maximum(*ends))
        else:
            beside = beside & (np.abs(at) <= reach)
    return np.asarray(beside & (enter <= leave), dtype=np.bool_)


def _coordinate(coefficients: Matrix, axes: tuple[Matrix, Matrix, Matrix]) -> Matrix:
    """One coordinate in the box, (slice, row, column) mm; an axis that it does not depend on stays of length one."""
    at = np.full((1, 1, 1), coefficients[3])
    for axis, (step, values) in enumerate(zip(coefficients[2::-1], axes, strict=True)):
        if abs(step) > _slack(coefficients):
            at = at + (step * values).reshape([-1 if other == axis else 1 for other in range(3)])
    return at


def _slack(coefficients: Matrix) -> float:
    return float(_EDGE * np.abs(coefficients[:3]).max())


def _segments(region: Node, reference: Node, segment: str) -> Iterator[tuple[BoolArray, Matrix]]:
    """Marked voxels of each wanted segment on its own grid, and the way from (column, row, slice) there to world."""
    name = region.GetName()
    segmentation = region.GetSegmentation()
    wanted = [segment] if segment else _visible_segments(region)
    if segment and segmentation.GetSegment(segment) is None:
        raise UsageError(f"The segmentation {name!r} has no segment {segment!r}.")
    if not wanted:
        remedy = "Show the segment that you mean." if segmentation.GetNumberOfSegments() else "Draw a segment."
        raise UsageError(f"The segmentation {name!r} has no segment to compare with. {remedy}")
    to_world = _to_world(region)
    found = False
    for segment_id in wanted:
        part = segmentation.GetSegment(segment_id)
        labels = _labels(part, segmentation, to_world, reference)
        if labels is None:
            continue
        image, value = labels
        marked = _array(image) == value
        if not marked.any():
            continue
        found = True
        matrix = vtkMatrix4x4()
        image.GetImageToWorldMatrix(matrix)
        first = np.eye(4)
        first[:3, 3] = image.GetExtent()[0::2]
        yield marked, to_world @ to_numpy(matrix) @ first
    if not found:
        raise UsageError(f"The region {name!r} is empty. Mark what you see.")


def _visible_segments(region: Node) -> list[str]:
    display = region.GetDisplayNode()
    segmentation = region.GetSegmentation()
    names = [segmentation.GetNthSegmentID(number) for number in range(segmentation.GetNumberOfSegments())]
    return [name for name in names if display is None or display.GetSegmentVisibility(name)]


def _labels(part: Any, segmentation: Any, to_world: Matrix, reference: Node) -> tuple[Any, float] | None:
    """Label image and value of a segment; None where it is empty.

    A surface is filled on the grid of the image itself, in a copy: the user's node gets no representation it lacked.
    """
    if segmentation.GetSourceRepresentationName() == LABELMAP:
        image = part.GetRepresentation(LABELMAP)
        empty = image is None or image.GetPointData().GetScalars() is None or image.GetNumberOfPoints() == 0
        return None if empty else (image, part.GetLabelValue())
    surface = part.GetRepresentation(SURFACE)
    if surface is None or surface.GetNumberOfPoints() == 0:
        return None
    copy = slicer.vtkSegmentation()
    copy.SetSourceRepresentationName(SURFACE)
    own = slicer.vtkSegment()
    own.AddRepresentation(SURFACE, surface)
    copy.AddSegment(own, "region")
    grid = slicer.vtkOrientedImageData()
    columns, rows, slices = reference.GetImageData().GetDimensions()
    grid.SetExtent(0, columns - 1, 0, rows - 1, 0, slices - 1)
    grid.SetGeometryFromImageToWorldMatrix(to_vtk(np.linalg.inv(to_world) @ _grid_to_world(reference)))
    converter = slicer.vtkSegmentationConverter
    copy.SetConversionParameter(
        converter.GetReferenceImageGeometryParameterName(), converter.SerializeImageGeometry(grid)
    )
    copy.CreateRepresentation(LABELMAP)
    return copy.GetSegment("region").GetRepresentation(LABELMAP), copy.GetSegment("region").GetLabelValue()


def _resampled(marked: BoolArray, to_world: Matrix, reference: Node) -> MarkedRegion:
    """Marked voxels of another grid on the image's: each voxel takes the nearest one there."""
    own = MarkedRegion.around(marked)
    if own.voxels == 0:
        raise UsageError("The region is empty. Mark what you see.")
    shape = grid_shape(reference)
    to_own = np.linalg.inv(to_world) @ _grid_to_world(reference)
    low, high = np.array(own.start)[::-1], (np.array(own.start) + own.inside.shape)[::-1]
    corners = np.array([(x, y, z, 1.0) for x in (0, 1) for y in (0, 1) for z in (0, 1)])
    corners[:, :3] = low - 0.5 + corners[:, :3] * (high - low)
    bounds = _bounds(corners @ np.linalg.inv(to_own).T, shape)
    slices, rows, columns = (np.arange(part.start, part.stop, dtype=np.float64) for part in bounds)
    inside = np.zeros((len(slices), len(rows), len(columns)), dtype=np.bool_)
    for position, k in enumerate(slices):  # a slice at a time: the coordinates of a volume would fill the memory
        index, valid = [], np.ones(inside.shape[1:], dtype=np.bool_)
        for axis in (2, 1, 0):
            at = to_own[axis, 0] * columns[None] + to_own[axis, 1] * rows[:, None] + to_own[axis, 2] * k
            nearest = np.floor(at + to_own[axis, 3] + 0.5 + _EDGE).astype(np.int64) - low[axis]
            length = high[axis] - low[axis]
            valid &= (nearest >= 0) & (nearest < length)
            index.append(np.clip(nearest, 0, length - 1))
        inside[position] = valid & own.inside[tuple(index)]
    return MarkedRegion.around(inside, shape, (bounds[0].start, bounds[1].start, bounds[2].start))


def _union(parts: list[MarkedRegion], reference: Node) -> MarkedRegion:
    if len(parts) == 1:
        return parts[0]
    shape = grid_shape(reference)
    parts = [part for part in parts if part.voxels] or parts[:1]
    low = np.min([part.start for part in parts], axis=0)
    high = np.max([np.add(part.start, part.inside.shape) for part in parts], axis=0)
    inside = np.zeros(high - low, dtype=np.bool_)
    for part in parts:
        first, second, third = (
            slice(begin - origin, begin - origin + length)
            for begin, origin, length in zip(part.start, low, part.inside.shape, strict=True)
        )
        inside[first, second, third] |= part.inside
    return MarkedRegion(shape, (int(low[0]), int(low[1]), int(low[2])), inside)


def _bounds(points: npt.NDArray[np.float64], shape: tuple[int, int, int]) -> tuple[slice, slice, slice]:
    """Slices, rows, columns of the image between (column, row, slice, 1) points; empty where they are beside it."""
    low = np.ceil(points[:, :3].min(axis=0) - _EDGE)[::-1]
    high = np.floor(points[:, :3].max(axis=0) + _EDGE)[::-1] + 1
    first, second, third = (
        slice(int(np.clip(begin, 0, size)), int(np.clip(max(begin, end), 0, size)))
        for begin, end, size in zip(low, high, shape, strict=True)
    )
    return first, second, third


def _grid_to_world(reference: Node) -> Matrix:
    """From (column, row, slice, 1), counted from the first voxel, to world RAS mm."""
    first = np.eye(4)
    first[:3, 3] = reference.GetImageData().GetExtent()[0::2]
    return ijk_to_world_ras(reference) @ first


def _to_world(node: Node) -> Matrix:
    """Matrix of the parent transforms of a node without voxels of its own."""
    parent = node.GetParentTransformNode()
    if parent is None:
        return np.eye(4)
    if not parent.IsTransformToWorldLinear():
        raise UsageError(
            f"The region {node.GetName()!r} stands under the non-linear transform {parent.GetName()!r}. Harden the "
            "transform in the Transforms module, and try again."
        )
    matrix = vtkMatrix4x4()
    parent.GetMatrixTransformToWorld(matrix)
    return to_numpy(matrix)


def _voxels(node: Node, name: str) -> npt.NDArray[Any]:
    data = node.GetImageData()
    if data is None or data.GetPointData().GetScalars() is None:
        raise UsageError(f"The region {name!r} is empty. Mark what you see.")
    return _array(data)


def _array(data: Any) -> npt.NDArray[Any]:
    """(slice, row, column) voxels, sharing memory."""
    columns, rows, slices = data.GetDimensions()
    return vtk_to_numpy(data.GetPointData().GetScalars()).reshape(slices, rows, columns)
