"""Heat maps on the image's grid, on one scale or the other."""

from __future__ import annotations

import numpy as np
import pytest

from MediScanLib.prediction.colormaps import COLOR_MAPS, color_table
from MediScanLib.prediction.heatmaps import AxisMap, HeatMaps

SHAPE = (5, 12, 10)


def maps(slices, scales=(0.5, 2.0)):
    size = 3 if isinstance(slices, AxisMap) else len(slices)
    values = np.random.default_rng(4).random((2, size, 4, 3), np.float32)
    return HeatMaps(("a", "b"), values, SHAPE, AxisMap(0.3, 0.1), AxisMap(0.25, -0.2), slices, scales)


def test_scales():
    both = maps((0, 2))
    assert (both.scale("a"), both.scale("b")) == (0.5, 2.0)
    assert both.scale("a", common=True) == both.scale("b", common=True) == 2.0
    raw = both.on_image("a")
    assert both.normalized("a") == pytest.approx(np.minimum(raw / 0.5, 1))
    assert both.normalized("a", common=True) == pytest.approx(np.minimum(raw / 2, 1))
    assert np.array_equal(both.normalized("a", 2, common=True)[0], both.normalized("a", common=True)[2])
    assert np.array_equal(both.normalized("b"), both.normalized("b", common=True)), "the largest scale is its own"


def test_the_map_itself_is_not_touched():
    both = maps((0, 2))
    before = both.values.copy()
    both.normalized("a", common=True)
    both.planes("a")[:] = 7
    assert np.array_equal(both.values, before)


@pytest.mark.parametrize("slices", [(0, 2), (3,), tuple(range(5)), AxisMap(0.5, -0.1)], ids=str)
def test_planes_are_the_map_before_it_is_carried_into_the_plane(slices):
    both = maps(slices)
    planes = both.planes("b")
    assert planes.shape == (5, 4, 3)
    down = both.rows.weights(np.arange(12.0), 4)
    across = both.columns.weights(np.arange(10.0), 3)
    assert down @ planes @ across.T == pytest.approx(both.on_image("b"), abs=1e-5)


@pytest.mark.parametrize("name", ["inferno", "viridis", "cividis"])
def test_color_maps_are_the_published_ones(name):
    colormaps = pytest.importorskip("matplotlib").colormaps
    published = np.array(colormaps[name].colors) * 255
    assert np.abs(color_table(name) - published).max() < 5


def test_hot_iron_is_the_palette_of_dicom():
    """PS3.6, B.1.1: red rises over the first half, green over the second, blue over the last quarter."""
    red, green, blue = color_table("hot iron").astype(int).T
    assert np.abs(red - np.minimum(2 * np.arange(256), 255)).max() <= 2
    assert np.abs(green - np.clip(2 * (np.arange(256) - 128), 0, 255)).max() <= 2
    assert np.abs(blue - np.clip(4 * (np.arange(256) - 192), 0, 255)).max() <= 4


def test_names():
    assert COLOR_MAPS[0] == "inferno"
    assert {"viridis", "cividis", "hot iron"} < set(COLOR_MAPS)
