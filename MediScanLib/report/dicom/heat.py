"""Heat maps on the pixels of the source images."""

from __future__ import annotations

import numpy as np

from ...prediction.heatmaps import FloatArray, HeatMaps
from ...prediction.result import Prediction
from .source import FramePlace, SourceImages


def shown_labels(prediction: Prediction, maps: HeatMaps) -> list[str]:
    """Findings whose maps are worth keeping: the likeliest, and all that are present."""
    present = [finding.label for finding in prediction.findings if finding.decision == "present"]
    return [label for label in dict.fromkeys((prediction.top.label, *present)) if label in maps.labels]


def heat_on_sources(maps: HeatMaps, label: str, sources: SourceImages) -> FloatArray:
    """One finding's map on every source frame, (frame, row, column) from 0 to 1, 1 as in an overlay.

    The frames are those of the files, also where the image that was looked at had been put together from them by
    moving or interpolating slices: the map is sampled where each pixel of each file went.
    """
    planes = maps.planes(label) / np.float32(maps.scale(label))
    result = np.empty((len(sources.places), sources.rows, sources.columns), np.float32)
    for target, place in zip(result, sources.places, strict=True):
        target[...] = _frame(maps, planes, place, sources)
    return np.minimum(result, np.float32(1.0), out=result)


def _frame(maps: HeatMaps, planes: FloatArray, place: FramePlace, sources: SourceImages) -> FloatArray:
    at = min(max(place.slice_index, 0.0), len(planes) - 1.0)
    below = min(int(at), max(0, len(planes) - 2))
    above = min(below + 1, len(planes) - 1)
    part = np.float32(at - below)
    plane = (1 - part) * planes[below] + part * planes[above]
    rows = place.rows[0] * np.arange(sources.rows, dtype=np.float64) + place.rows[1]
    columns = place.columns[0] * np.arange(sources.columns, dtype=np.float64) + place.columns[1]
    down = maps.rows.weights(rows, plane.shape[0])
    across = maps.columns.weights(columns, plane.shape[1])
    frame: FloatArray = down @ plane @ across.T
    return frame
