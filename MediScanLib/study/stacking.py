"""Makes a regular volume out of slices in space, or says why there is none.

A volume here has one spacing, and slices that stand exactly above each other. Where the scanner tilted its gantry the
slices are moved within their own planes; where their distances vary, new slices are interpolated between them.
Both are said in a warning; neither is ever done by halves.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from ..errors import ReadError
from .dicom_geometry import Plane
from .guards import check_memory

FloatArray = npt.NDArray[np.float32]

JITTER = 0.05
"""Part of a step by which positions may miss the regular grid (rounded coordinates in headers)."""

SHIFT = 0.5
"""In-plane drift over the whole stack, in pixels, below which nothing is moved."""

WIDEST_GAP = 3.0
"""Largest gap, in medians, across which is interpolated."""

_SAME_PLACE = 0.01  # mm


@dataclass(frozen=True, eq=False)
class Stack:
    """A regular volume; see `MedicalImage` for the fields."""

    pixels: FloatArray
    spacing: tuple[float, float, float]
    origin: tuple[float, float, float]
    direction: tuple[float, ...]
    warnings: tuple[str, ...]


def stack(planes: list[Plane], pixels: FloatArray, name: str, memory_limit: int) -> Stack:
    """Sort slices by position and make them a regular volume.

    Args:
        planes: One for each slice, with position, same orientation and spacing.
        pixels: (slice, row, column).
        name: Study, for errors.
        memory_limit: Bytes that a resampled volume may need.

    Raises:
        ReadError: geometry or too_large.
    """
    order = np.argsort([plane.distance for plane in planes], kind="stable")
    order, notes = _without_duplicates(planes, pixels, order, name)
    if not np.array_equal(order, np.arange(len(planes))):  # most are in order already: no copy
        pixels = pixels[order]
        planes = [planes[index] for index in order]
    first = planes[0]
    assert first.spacing is not None and first.position is not None
    pixels, origin, more = _upright(planes, pixels, name, memory_limit)
    notes += more
    step = first.thickness or 1.0
    if len(planes) > 1:
        distances = np.array([plane.distance for plane in planes])
        pixels, step, more = _even(distances, pixels, name, memory_limit)
        notes += more + _thickness_note(first, step)
    return Stack(pixels, (*first.spacing, step), origin, first.direction, tuple(notes))


def _without_duplicates(
    planes: list[Plane], pixels: FloatArray, order: npt.NDArray[np.intp], name: str
) -> tuple[npt.NDArray[np.intp], list[str]]:
    kept = [int(order[0])]
    for index in map(int, order[1:]):
        if planes[index].distance - planes[kept[-1]].distance > _SAME_PLACE:
            kept.append(index)
        elif not np.array_equal(pixels[index], pixels[kept[-1]]):
            raise ReadError(
                name,
                f"holds several different images at {planes[index].distance:.1f} mm along the stack "
                "(time points, echoes or repetitions)",
                "Give a folder with one of them.",
                code="geometry",
            )
    dropped = len(order) - len(kept)
    notes = [f"{dropped} slices were there twice and were dropped."] if dropped else []
    return np.array(kept), notes


def _upright(
    planes: list[Plane], pixels: FloatArray, name: str, memory_limit: int
) -> tuple[FloatArray, tuple[float, float, float], list[str]]:
    """Move slices within their planes until they stand above each other (gantry tilt, shifted fields of view)."""
    first = planes[0]
    assert first.spacing is not None and first.position is not None
    step_x, step_y = first.spacing
    offsets = np.array(
        [
            [
                (plane.position - first.position) @ axis / step
                for axis, step in zip(_axes(first), first.spacing, strict=True)
            ]
            for plane in planes
            if plane.position is not None
        ]
    )
    corner = float(first.position[0]), float(first.position[1]), float(first.position[2])
    if np.abs(offsets).max() <= SHIFT:
        return pixels, corner, []
    low = np.floor(offsets.min(axis=0))
    extra = np.ceil(offsets.max(axis=0) - low).astype(int)
    count, rows, columns = pixels.shape
    if extra[0] > 2 * columns or extra[1] > 2 * rows:
        raise ReadError(
            name,
            "its slices do not lie above each other",
            "Give slices of one scan; several scans need one folder each.",
            code="geometry",
        )
    shape = count, rows + int(extra[1]), columns + int(extra[0])
    check_memory(name, 4 * int(np.prod(shape)) + pixels.nbytes, memory_limit)
    fill = pixels.min()
    canvas = np.empty(shape, np.float32)
    for target, image, (right, down) in zip(canvas, pixels, offsets - low, strict=True):
        target[...] = _moved(_moved(image, down, 0, shape[1], fill), right, 1, shape[2], fill)
    origin = first.position + low[0] * step_x * first.along_columns + low[1] * step_y * first.along_rows
    drift = np.abs(offsets[-1] - offsets[0]) * first.spacing
    height = planes[-1].distance - planes[0].distance
    degrees = float(np.degrees(np.arctan2(np.hypot(*drift), height)))
    note = (
        f"The slices are not above each other (gantry tilt of {degrees:.1f} degrees): "
        "they were moved within their planes, by linear interpolation, to form an undistorted volume."
    )
    return canvas, (float(origin[0]), float(origin[1]), float(origin[2])), [note]


def _axes(plane: Plane) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    return plane.along_columns, plane.along_rows


def _moved(image: FloatArray, by: float, axis: int, length: int, fill: np.float32) -> FloatArray:
    """The image moved by a number of pixels >= 0 along an axis of the new length; `fill` where it does not reach."""
    whole = int(np.floor(by))
    part = np.float32(by - whole)
    last = image.shape[axis] - 1
    index = np.arange(length) - whole
    moved = np.take(image, np.clip(index, 0, last), axis=axis)
    if part > 0:
        moved = (1 - part) * moved + part * np.take(image, np.clip(index - 1, 0, last), axis=axis)
    outside = (index < 0) | (index > last + (part > 0))
    moved[(slice(None),) * axis + (outside,)] = fill
    return moved


def _even(
    distances: npt.NDArray[np.float64], pixels: FloatArray, name: str, memory_limit: int
) -> tuple[FloatArray, float, list[str]]:
    """Interpolate between slices where their distances vary."""
    gaps = np.diff(distances)
    count = len(distances)
    mean = float((distances[-1] - distances[0]) / (count - 1))
    grid = distances[0] + mean * np.arange(count)
    if np.abs(distances - grid).max() <= JITTER * mean:
        return pixels, mean, []
    median = float(np.median(gaps))
    widest = int(gaps.argmax())
    where = f"{gaps[widest]:.2f} mm between {distances[widest]:.1f} and {distances[widest + 1]:.1f} mm along the stack"
    if gaps[widest] > WIDEST_GAP * median:
        raise ReadError(
            name,
            f"slices are missing: {where}, the median is {median:.2f} mm",
            "Copy the missing slices, or give the parts before and after the gap by themselves.",
            code="geometry",
        )
    step = _finest_regular(gaps)
    length = int(np.floor((distances[-1] - distances[0]) / step + JITTER)) + 1
    check_memory(name, 4 * length * pixels[0].size + pixels.nbytes, memory_limit)
    at = np.interp(distances[0] + step * np.arange(length), distances, np.arange(count))
    below = np.minimum(at.astype(int), count - 2)
    part = (at - below).astype(np.float32)
    result = np.empty((length, *pixels.shape[1:]), np.float32)
    for index, (lower, weight) in enumerate(zip(below, part, strict=True)):
        result[index] = (1 - weight) * pixels[lower] + weight * pixels[lower + 1]
    holes = [f"{distances[i]:.1f} to {distances[i + 1]:.1f} mm" for i in np.flatnonzero(gaps > 1.5 * median)]
    missing = f" Wide gaps: {', '.join(holes[:5])}{' and more' if len(holes) > 5 else ''}." if holes else ""
    note = (
        f"The distance between slices varies from {gaps.min():.2f} to {gaps.max():.2f} mm: the {count} slices were "
        f"interpolated linearly to {length} slices {step:.2f} mm apart.{missing}"
    )
    return result, step, [note]


def _finest_regular(gaps: npt.NDArray[np.float64]) -> float:
    """The smallest gap that is there at least twice; one stray gap must not multiply the number of slices."""
    ordered = np.sort(gaps)
    for gap, following in pairwise(ordered):
        if following - gap <= JITTER * gap:
            return float(gap)
    return float(np.median(gaps))


def _thickness_note(plane: Plane, step: float) -> list[str]:
    if plane.thickness is None or step <= 1.5 * plane.thickness:
        return []
    return [f"The slices are {plane.thickness:g} mm thick but {step:g} mm apart: what lies between was not imaged."]
