"""Maps of any method on one grid of cells, so that they can be compared and kept."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy.stats import spearmanr
from torch.nn import functional

from ...prediction.heatmaps import HeatMaps

FloatArray = npt.NDArray[np.float32]

MOST_CELLS = (16, 64, 64)
"""Slices, rows and columns of the grid at most; a smaller image keeps its own."""

HOT_SHARE = 0.1
"""Share of the image that counts as hottest where two maps are laid on each other."""

CHANCE_OVERLAP = HOT_SHARE / (2 - HOT_SHARE)
"""IoU to expect of the hottest places of two maps that have nothing to do with each other."""


def pooled(heat: FloatArray) -> FloatArray:
    """Means over cells of equal size: (slice, row, column) of at most MOST_CELLS."""
    slices, rows, columns = (min(length, most) for length, most in zip(heat.shape, MOST_CELLS, strict=True))
    image = torch.from_numpy(np.ascontiguousarray(heat))[None, None]
    cells = functional.adaptive_avg_pool3d(image, (slices, rows, columns))
    result: FloatArray = cells[0, 0].numpy()
    return result


def grid_of(maps: HeatMaps, label: str) -> FloatArray:
    """A finding's raw map in cells that cover the image, and not the padding around it."""
    return pooled(maps.on_image(label))


def shifted_back(
    before: HeatMaps, after: HeatMaps, label: str, move: tuple[int, int]
) -> tuple[FloatArray, FloatArray]:
    """The map of an image and that of the image moved by (rows, columns), on what both show.

    Args:
        before: Of the image.
        after: Of the image that was moved down and to the right by `move`.
        label: Finding.
        move: Whole pixels.
    """
    first, second = before.on_image(label), after.on_image(label)
    kept = [slice(max(0, -step), side - max(0, step)) for step, side in zip(move, first.shape[1:], strict=True)]
    moved = [slice(part.start + step, part.stop + step) for part, step in zip(kept, move, strict=True)]
    return pooled(first[:, kept[0], kept[1]]), pooled(second[:, moved[0], moved[1]])


def rank_correlation(first: FloatArray, second: FloatArray) -> float | None:
    """Spearman's rank correlation over the cells; None where a map is the same everywhere, as an empty one is."""
    if np.ptp(first) == 0 or np.ptp(second) == 0:
        return None
    return float(spearmanr(first.ravel(), second.ravel()).statistic)


def hot_overlap(first: FloatArray, second: FloatArray) -> float | None:
    """IoU of the hottest HOT_SHARE of both; places without evidence are never hot. None where both are empty."""
    one, other = _hottest(first), _hottest(second)
    either = np.count_nonzero(one | other)
    return float(np.count_nonzero(one & other) / either) if either else None


def _hottest(grid: FloatArray) -> npt.NDArray[np.bool_]:
    hot: npt.NDArray[np.bool_] = (grid >= np.quantile(grid, 1 - HOT_SHARE)) & (grid > 0)
    return hot


def pack(grid: FloatArray) -> dict[str, Any]:
    """The grid as JSON-ready values."""
    data = zlib.compress(np.ascontiguousarray(grid, dtype="<f4").tobytes())
    return {"shape": list(grid.shape), "data": base64.b64encode(data).decode("ascii")}


def unpack(packed: Mapping[str, Any]) -> FloatArray:
    """The grid that `pack` packed."""
    shape: Sequence[int] = packed["shape"]
    return np.frombuffer(zlib.decompress(base64.b64decode(packed["data"])), dtype="<f4").reshape(shape)
