"""The field of distances behind an outline."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from MediScanLib.prediction.heatmaps import AxisMap, HeatMaps
from MediScanLib.scene.outline import GRID, WIDTH, outline_band, outline_field


def maps_of(values, shape, scale=1.0):
    """Maps of one finding whose corners coincide with the image's."""
    values = np.asarray(values, np.float32)
    rows, columns = (
        AxisMap((grid - 1) / max(length - 1, 1), 0.0) for grid, length in zip(values.shape[1:], shape[1:], strict=True)
    )
    return HeatMaps(("a",), values[None], shape, rows, columns, tuple(range(shape[0])), (scale,))


@settings(max_examples=60, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 3), st.integers(2, 60), st.integers(2, 60)),
    threshold=st.floats(0.05, 1.0),
    spacing=st.tuples(st.floats(0.5, 1.0), st.floats(0.5, 1.0)),
    seed=st.integers(0, 1000),
)
def test_the_line_stands_where_the_filled_region_ends(shape, threshold, spacing, seed):
    values = np.random.default_rng(seed).random((shape[0], 5, 4)) * 2.5
    maps = maps_of(values, shape, scale=2.0)
    band = outline_band(shape, spacing)
    assert band.shape == shape, "a small image keeps its grid"
    field = outline_field(maps, "a", threshold, band)
    region = maps.normalized("a") >= threshold
    assert ((field >= 0) & (field <= 1)).all()
    sure = np.abs(maps.normalized("a") - threshold) > 1e-4
    assert not (field > 0.5)[sure & ~region].any()
    border = int(np.ceil(band.half / min(spacing)))
    inner = (slice(None), slice(border, -border), slice(border, -border))
    assert (field >= 0.5)[inner][(sure & region)[inner]].all()


@pytest.mark.parametrize("length", [64, 128, 512, 2048, 4096])
@pytest.mark.parametrize("spacing", [(1.0, 1.0), (0.15, 0.15), (2.0, 0.5)])
def test_width_is_a_part_of_the_image(length, spacing):
    ramp = np.tile(np.linspace(0, 1, 2), (1, 2, 1))
    maps = maps_of(ramp, (1, length, length))
    band = outline_band((1, length, length), spacing)
    across = outline_field(maps, "a", 0.5, band)[0, band.shape[1] // 2]
    fine = np.interp(np.linspace(0, len(across) - 1, 20000), np.arange(len(across)), across)
    low, high = band.limits
    middle = fine[2000:18000]
    drawn = ((middle >= low) & (middle <= high)).mean() * 0.8 * (len(across) - 1) * band.spacing[1]
    longest = length * max(spacing)
    line = drawn * 0.6
    assert line == pytest.approx(longest * WIDTH, rel=0.05)


def test_no_grid_is_larger_than_needed():
    band = outline_band((3, 4096, 2048), (0.1, 0.1))
    assert band.shape == (3, GRID, GRID // 2)
    first, last = band.to_image @ (0, 0, 0, 1), band.to_image @ (GRID // 2 - 1, GRID - 1, 2, 1)
    assert first[:2] == pytest.approx(((2048 / 180 - 1) / 2, (4096 / 360 - 1) / 2))
    assert first + last == pytest.approx((2047, 4095, 2, 2)), "the grid lies in the middle of the image"


def test_closed_along_the_border():
    """A region that fills the image has an outline, too, and it is all inside."""
    maps = maps_of(np.ones((1, 3, 3)), (1, 200, 100))
    band = outline_band((1, 200, 100), (1.0, 1.0))
    field = outline_field(maps, "a", 0.5, band)[0]
    low, high = band.limits
    drawn = (field >= low) & (field <= high)
    assert drawn[:, 0].all() and drawn[0].all() and drawn[:, -1].all() and drawn[-1].all()
    assert not drawn[10:-10, 10:-10].any()


def test_slices_without_the_finding_are_empty():
    values = np.zeros((3, 3, 3))
    values[1, 1, 1] = 1
    band = outline_band((3, 30, 30), (1.0, 1.0))
    field = outline_field(maps_of(values, (3, 30, 30)), "a", 0.5, band)
    assert not field[[0, 2]].any()
    assert field[1].max() == 1


def test_common_scale():
    maps = maps_of(np.ones((1, 3, 3)), (1, 30, 30))
    both = HeatMaps(
        ("a", "b"), np.repeat(maps.values, 2, axis=0), maps.shape, maps.rows, maps.columns, maps.slices, (1.0, 4.0)
    )
    band = outline_band((1, 30, 30), (1.0, 1.0))
    assert outline_field(both, "a", 0.5, band).any()
    assert not outline_field(both, "a", 0.5, band, common=True).any()
