"""Whether a heat map lies on a region that somebody marked, beside what chance would give.

Pointing game (Zhang et al., "Top-down Neural Attention by Excitation Backprop", ECCV 2016), without its tolerance;
intersection over union above a threshold; relevance mass (Arras et al., "CLEVR-XAI", 2022), the share of the whole map
inside the region.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..errors import UsageError
from .heatmaps import AxisMap, HeatMaps

BoolArray = npt.NDArray[np.bool_]
HeatArray = npt.NDArray[np.float32]

BLOB_SIGMA = 0.25
"""Standard deviation of the blob as a fraction of each axis."""

SLAB = 16
"""Image slices that are interpolated at a time."""


@dataclass(frozen=True)
class Localization:
    """How one finding's map and one region agree.

    Attributes:
        finding: Finding.
        peak: (slice, row, column) where the map is hottest; None for an empty map.
        pointing: True where the peak lies inside the region.
        threshold: Above it the map counts as hot, 0..1 of the scale it is drawn on.
        overlap: Intersection over union of the region with the hot places; 0 where nothing is hot.
        mass: Share of the whole map inside the region; 0 for an empty map.
        hot: Share of the image that is hot.
        area: Share of the image that is the region: the relevance mass of an even map, and how often a place chosen
            at random lies inside.
        blob_pointing: True where a blob in the center of the image, which has seen nothing, points into the region.
    """

    finding: str
    peak: tuple[int, int, int] | None
    pointing: bool
    threshold: float
    overlap: float
    mass: float
    hot: float
    area: float
    blob_pointing: bool

    @property
    def chance_overlap(self) -> float:
        """Intersection over union to expect of as much heat, strewn over the image at random."""
        both = self.hot * self.area
        either = self.hot + self.area - both
        return both / either if either > 0 else 0.0


@dataclass(frozen=True, eq=False)
class MarkedRegion:
    """A region on the grid of an image, kept in the smallest box around it, since it is a small part of a volume.

    Attributes:
        shape: (slices, rows, columns) of the image.
        start: (slice, row, column) of the box's first voxel.
        inside: (slice, row, column) bool, the box: True where marked.
    """

    shape: tuple[int, int, int]
    start: tuple[int, int, int]
    inside: BoolArray

    @classmethod
    def around(
        cls, mask: BoolArray, shape: tuple[int, int, int] | None = None, start: tuple[int, int, int] = (0, 0, 0)
    ) -> MarkedRegion:
        """The smallest box around what a mask marks; an empty box where it marks nothing.

        Args:
            mask: (slice, row, column) bool.
            shape: Of the image; that of the mask where it covers the image.
            start: (slice, row, column) of the image at the mask's first voxel.
        """
        begins, box = [], []
        for axis in range(3):
            along = np.flatnonzero(mask.any(axis=tuple({0, 1, 2} - {axis})))
            begin, end = (int(along[0]), int(along[-1]) + 1) if len(along) else (0, 0)
            begins.append(start[axis] + begin)
            box.append(slice(begin, end))
        first, second, third = begins
        return cls(shape or mask.shape, (first, second, third), mask[tuple(box)])

    @property
    def box(self) -> tuple[slice, slice, slice]:
        """Where the box lies in the image, to index an array with."""
        first, second, third = (
            slice(begin, begin + length) for begin, length in zip(self.start, self.inside.shape, strict=True)
        )
        return first, second, third

    @property
    def voxels(self) -> int:
        """Number of marked voxels."""
        return int(np.count_nonzero(self.inside))

    @property
    def area(self) -> float:
        """Share of the image that is marked."""
        return self.voxels / float(np.prod(self.shape, dtype=np.int64))

    def mask(self) -> BoolArray:
        """(slices, rows, columns) bool on the whole image."""
        full = np.zeros(self.shape, dtype=np.bool_)
        full[self.box] = self.inside
        return full

    def contains(self, index: tuple[int, int, int]) -> bool:
        """True where the (slice, row, column) is marked."""
        at = tuple(i - begin for i, begin in zip(index, self.start, strict=True))
        return all(0 <= i < length for i, length in zip(at, self.inside.shape, strict=True)) and bool(self.inside[at])


def pointing(heat: HeatArray, marked: BoolArray) -> float:
    """1.0 where the hottest place is marked; an empty map points nowhere."""
    return float(heat.max() > 0 and marked[np.unravel_index(int(heat.argmax()), heat.shape)])


def overlap(heat: HeatArray, marked: BoolArray, level: float) -> float:
    """Intersection over union of the marks with the map at or above a value; a place without evidence is never hot."""
    hot = hot_places(heat, level)
    either = np.count_nonzero(hot | marked)
    return float(np.count_nonzero(hot & marked) / either) if either else 0.0


def relevance_mass(heat: HeatArray, marked: BoolArray) -> float:
    """Share of the map inside the marks; 0 for an empty map."""
    total = float(heat.sum(dtype=np.float64))
    return float(heat[marked].sum(dtype=np.float64)) / total if total > 0 else 0.0


def hot_places(heat: HeatArray, level: float) -> BoolArray:
    """True where the map is at or above a value, and above zero."""
    hot: BoolArray = (heat >= level) & (heat > 0)
    return hot


def centered_blob(shape: tuple[int, ...]) -> HeatArray:
    """A Gaussian in the middle of an image or a volume, which has seen nothing."""
    squares = [(((np.arange(size) + 0.5) / size - 0.5) / BLOB_SIGMA) ** 2 for size in shape]
    distance = sum(np.ix_(*squares), start=np.zeros((1,) * len(shape)))
    return np.exp(-0.5 * distance).astype(np.float32)


def localize_map(
    maps: HeatMaps, finding: str, region: MarkedRegion, threshold: float, *, common: bool = False
) -> Localization:
    """Compare a finding's map with a region on the image's grid, without making the map there where it cannot matter.

    Args:
        maps: Heat maps of the image.
        finding: Finding.
        region: What was marked.
        threshold: 0..1 of the scale that the map is drawn on.
        common: The scale is that of all findings together, see `HeatMaps.scale`.

    Raises:
        UsageError: There is no map of that finding, or the region is on the grid of another image.
    """
    if finding not in maps.labels:
        raise UsageError(f"There is no heat map of {finding!r}. Choose one of {', '.join(maps.labels)}.")
    if region.shape != tuple(maps.shape):
        raise UsageError(
            f"The region is on an image of {_size(region.shape)} voxels, the heat maps are of {_size(maps.shape)}. "
            "Compare them on the image that the prediction was made for."
        )
    grid = _Grid.of(maps, finding)
    value, peak = maps.peak(finding)
    level = threshold * maps.scale(finding, common=common)
    within = grid.sample(*region.box)
    total = grid.total()
    hot = grid.count_hot(level)
    both = int(np.count_nonzero(hot_places(within, level) & region.inside))
    either = hot + region.voxels - both
    middle = tuple((length - 1) // 2 for length in region.shape)
    return Localization(
        finding=finding,
        peak=peak if value > 0 else None,
        pointing=value > 0 and region.contains(peak),
        threshold=threshold,
        overlap=both / either if either else 0.0,
        mass=float(within[region.inside].sum(dtype=np.float64)) / total if total > 0 else 0.0,
        hot=hot / float(np.prod(region.shape, dtype=np.int64)),
        area=region.area,
        blob_pointing=region.contains(middle),  # type: ignore[arg-type]  # three lengths by construction
    )


@dataclass(frozen=True, eq=False)
class _Grid:
    """A finding's coarse map and the weights that carry it to the image's grid.

    Attributes:
        planes: (slices, map rows, map columns).
        down: (rows, map rows).
        across: (columns, map columns).
    """

    planes: HeatArray
    down: HeatArray
    across: HeatArray

    @classmethod
    def of(cls, maps: HeatMaps, finding: str) -> _Grid:
        planes = maps.planes(finding)
        return cls(
            planes,
            _weights(maps.rows, maps.shape[1], planes.shape[1]),
            _weights(maps.columns, maps.shape[2], planes.shape[2]),
        )

    def sample(self, slices: slice, rows: slice, columns: slice) -> HeatArray:
        """The raw map in a box of the image."""
        values: HeatArray = np.matmul(np.matmul(self.down[rows], self.planes[slices]), self.across[columns].T)
        return values

    def total(self) -> float:
        """Sum of the raw map over the image: interpolation is linear, so the weights are summed first."""
        down, across = self.down.sum(axis=0, dtype=np.float64), self.across.sum(axis=0, dtype=np.float64)
        return float(down @ self.planes.sum(axis=0, dtype=np.float64) @ across)

    def count_hot(self, level: float) -> int:
        """Number of the image's voxels at or above a value.

        Interpolation never exceeds the coarse values it is made of, so only what lies beside a hot one is made.
        """
        slices = np.flatnonzero(self.planes.max(axis=(1, 2), initial=0.0) >= level)
        count = 0
        for first in range(0, len(slices), SLAB):
            planes = self.planes[slices[first : first + SLAB]]
            warm = planes.max(axis=0) >= level
            down = self.down[(self.down[:, warm.any(axis=1)] > 0).any(axis=1)]
            across = self.across[(self.across[:, warm.any(axis=0)] > 0).any(axis=1)]
            values = np.matmul(np.matmul(down, planes), across.T)
            count += int(np.count_nonzero(hot_places(values, level)))
        return count


def _weights(axis: AxisMap, size: int, length: int) -> HeatArray:
    return axis.weights(np.arange(size, dtype=np.float64), length)


def _size(shape: tuple[int, ...]) -> str:
    return " x ".join(str(length) for length in shape)
