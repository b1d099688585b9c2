"""The outline of a heat map's region, as a field of distances in the voxels of an overlay.

A line that is drawn voxel by voxel falls apart into dots wherever a view cuts the image's slices. So the voxels hold
the signed distance to the region's border in the plane of the slices, and the display draws a band of it. Views
interpolate distances well: the line is smooth on the smallest image, closed in every plane, and as wide as wanted.
The user's views stay as they are, which outlines of label maps would not allow: these need the views' label layer.

Distances are as smooth as the map, so that a grid far coarser than a radiograph's holds them: a change of the
threshold is as quick on the largest radiograph as on a small one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..prediction.heatmaps import AxisMap, FloatArray, HeatMaps

WIDTH = 1 / 140
"""Width of the line as a fraction of the image's longer side: 3.5 of the 500 pixels of a view."""

EDGE = 0.4
"""Part of the drawn band that is the line's dark edge, which sets it off from bright anatomy."""

GRID = 360
"""Most samples along the longer side of a slice: more than two across the line."""


@dataclass(frozen=True)
class Band:
    """The grid of distances of an image, and what of them is drawn. Lengths in mm.

    Attributes:
        shape: (slices, rows, columns) of the grid.
        scale: Image (rows, columns) a row and column of the grid.
        spacing: Between the grid's (rows, columns).
        half: Half the width of the band, edge included.
        reach: Distance from which on it is all the same how far the border is.
    """

    shape: tuple[int, int, int]
    scale: tuple[float, float]
    spacing: tuple[float, float]
    half: float
    reach: float

    @property
    def limits(self) -> tuple[float, float]:
        """Lowest and highest value that is drawn; the border itself is 0.5, outside is lower."""
        return 0.5 - 0.5 * self.half / self.reach, 0.5 + 0.5 * self.half / self.reach

    @property
    def to_image(self) -> npt.NDArray[np.float64]:
        """(4, 4) from the grid's (column, row, slice, 1) to the image's."""
        matrix = np.diag([self.scale[1], self.scale[0], 1.0, 1.0])
        matrix[:2, 3] = (self.scale[1] - 1) / 2, (self.scale[0] - 1) / 2
        return matrix


def outline_band(shape: tuple[int, int, int], spacing: tuple[float, float]) -> Band:
    """The band for an image of (slices, rows, columns) with that spacing in mm of (rows, columns)."""
    longest = max(length * mm for length, mm in zip(shape[1:], spacing, strict=True))
    rows, columns = (
        min(length, max(1, round(GRID * length * mm / longest))) for length, mm in zip(shape[1:], spacing, strict=True)
    )
    scale = (shape[1] / rows, shape[2] / columns)
    grid_spacing = (scale[0] * spacing[0], scale[1] * spacing[1])
    half = longest * WIDTH / 2 / (1 - EDGE)
    return Band((shape[0], rows, columns), scale, grid_spacing, half, max(2 * half, 1.5 * max(grid_spacing)))


def outline_field(maps: HeatMaps, label: str, threshold: float, band: Band, *, common: bool = False) -> FloatArray:
    """Distances to the border of {value >= threshold}: 0 outside, 0.5 on it, 1 inside, linear within `band.reach`.

    The distance is (value - threshold) / |gradient|, right to first order. Where the region reaches the image's
    border, the line runs along it, inside.

    Args:
        maps: Heat maps of the image.
        label: Finding.
        threshold: 0..1 of the scale.
        band: From `outline_band`.
        common: As for `HeatMaps.normalized`.

    Returns:
        (slices, rows, columns) of the band's grid, float32.
    """
    level = np.float32(threshold * maps.scale(label, common=common))
    planes = maps.planes(label)
    _, rows, columns = band.shape
    down, slope_down = _weights(maps.rows, rows, band.scale[0], planes.shape[1])
    across, slope_across = _weights(maps.columns, columns, band.scale[1], planes.shape[2])
    per_reach = [band.reach / mm for mm in band.spacing]
    from_border = np.minimum.outer(_from_ends(rows, band.spacing[0], band), _from_ends(columns, band.spacing[1], band))
    field = np.zeros(band.shape, dtype=np.float32)
    for index in np.flatnonzero(planes.max(axis=(1, 2)) >= level):
        lines = down @ planes[index]
        distance = field[index]
        np.matmul(lines, across.T, out=distance)
        steepness = np.hypot(
            (slope_down @ planes[index]) @ across.T * np.float32(per_reach[0]),
            lines @ slope_across.T * np.float32(per_reach[1]),
        )
        distance -= level
        distance /= np.maximum(steepness, np.float32(1e-12))
        np.minimum(distance, from_border, out=distance)
        np.clip(distance, -1, 1, out=distance)
        distance *= 0.5
        distance += 0.5
    return field


def _weights(axis: AxisMap, length: int, scale: float, size: int) -> tuple[FloatArray, FloatArray]:
    """Weights of the map's nodes at the grid's lines, and of the slope from one line to the next."""
    at = (np.arange(length, dtype=np.float64) + 0.5) * scale - 0.5
    before, after = (axis.weights(at + half, size) for half in (-scale / 2, scale / 2))
    return axis.weights(at, size), np.subtract(after, before)


def _from_ends(length: int, spacing: float, band: Band) -> FloatArray:
    """Distance of each line to where the outline runs along the image's border, a part of the band's reach."""
    at = np.arange(length) + 0.5
    mm = np.minimum(at, length - at) * spacing
    return ((mm - min(band.half, length * spacing / 4)) / band.reach).astype(np.float32)
