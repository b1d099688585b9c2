"""Scores of heat maps on regions whose answer is known by hand, and the fast way beside the plain one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from MediScanLib.errors import UsageError
from MediScanLib.prediction.heatmaps import AxisMap, HeatMaps
from MediScanLib.prediction.localization import (
    MarkedRegion,
    centered_blob,
    localize_map,
    overlap,
    pointing,
    relevance_mass,
)


def box(shape, *sides):
    marked = np.zeros(shape, bool)
    marked[sides] = True
    return marked


MARKED = box((40, 60), slice(10, 20), slice(30, 50))


def test_a_map_exactly_on_the_box_is_perfect():
    heat = MARKED.astype(np.float32)
    assert pointing(heat, MARKED) == overlap(heat, MARKED, 0.5) == relevance_mass(heat, MARKED) == 1


def test_a_map_beside_the_box_is_nothing():
    heat = np.roll(MARKED, 10, axis=0).astype(np.float32)
    assert pointing(heat, MARKED) == overlap(heat, MARKED, 0.5) == relevance_mass(heat, MARKED) == 0


def test_half_covered():
    heat = np.roll(MARKED, 10, axis=1).astype(np.float32)
    assert overlap(heat, MARKED, 0.5) == pytest.approx(100 / 300)
    assert relevance_mass(heat, MARKED) == pytest.approx(0.5)


def test_an_empty_map_points_nowhere():
    heat = np.zeros((4, 4), np.float32)
    everything = np.ones((4, 4), bool)
    assert pointing(heat, everything) == overlap(heat, everything, 0.0) == relevance_mass(heat, everything) == 0


def test_an_even_map_has_the_mass_of_the_area():
    assert relevance_mass(np.ones(MARKED.shape, np.float32), MARKED) == pytest.approx(MARKED.mean())


@pytest.mark.parametrize("shape", [(41, 61), (1, 41, 61), (9, 21, 31)])
def test_the_blob_sits_in_the_middle(shape):
    blob = centered_blob(shape)
    assert np.unravel_index(blob.argmax(), blob.shape) == tuple(length // 2 for length in shape)
    assert np.allclose(blob, np.flip(blob))


def maps_on(shape, values, slices=None):
    """Maps whose corners coincide with the image's; `slices` None for a network of volumes."""
    axes = [
        AxisMap((coarse - 1) / (fine - 1) if min(fine, coarse) > 1 else 1.0 / fine, 0.0)
        for fine, coarse in zip(shape, values.shape[1:], strict=True)
    ]
    through = axes[0] if slices is None else tuple(slices)
    return HeatMaps(("a", "b"), values, shape, axes[1], axes[2], through, (0.8, 2.0))


@given(seed=st.integers(0, 10**6), flat=st.booleans(), by_slice=st.booleans(), threshold=st.floats(0, 1))
@settings(max_examples=60, deadline=None)
def test_the_fast_way_agrees_with_the_whole_map(seed, flat, by_slice, threshold):
    """Making the map only where it can matter gives what the plain functions give on all of it."""
    random = np.random.default_rng(seed)
    shape = (1 if flat else int(random.integers(2, 40)), *(int(n) for n in random.integers(8, 30, 2)))
    looked_at = np.flatnonzero(random.random(shape[0]) < 0.6) if by_slice else None
    if looked_at is not None and not len(looked_at):
        looked_at = np.array([0])
    depth = int(random.integers(1, 5)) if looked_at is None else len(looked_at)
    values = (random.random((2, depth, *random.integers(2, 7, 2))) ** 3).astype(np.float32)
    maps = maps_on(shape, values, looked_at)
    mask = random.random(shape) < 0.3
    corner = [int(random.integers(0, length)) for length in shape]
    mask[corner[0] + 1 :] = mask[:, : corner[1]] = mask[:, :, : corner[2]] = False
    found = localize_map(maps, "a", MarkedRegion.around(mask), threshold)
    heat = maps.on_image("a")
    assert found.overlap == pytest.approx(overlap(heat, mask, threshold * 0.8), abs=2 / max(1, mask.sum()))
    assert found.mass == pytest.approx(relevance_mass(heat, mask), abs=1e-5)
    assert found.hot == pytest.approx(((heat >= threshold * 0.8) & (heat > 0)).mean(), abs=2 / mask.size)
    assert found.area == pytest.approx(mask.mean())
    assert heat[found.peak] == pytest.approx(heat.max(), rel=1e-5)
    assert found.pointing == mask[found.peak]


def test_the_common_scale_makes_fewer_places_hot():
    values = np.ones((2, 1, 4, 4), np.float32)
    maps = maps_on((1, 20, 20), values)
    region = MarkedRegion.around(box((1, 20, 20), 0, slice(5, 15), slice(5, 15)))
    own, common = (localize_map(maps, "a", region, 0.9, common=common) for common in (False, True))
    assert own.hot == 1
    assert own.overlap == pytest.approx(0.25)
    assert common.hot == common.overlap == 0


def test_what_chance_gives():
    maps = maps_on((1, 21, 21), np.ones((2, 1, 3, 3), np.float32))
    middle = localize_map(maps, "a", MarkedRegion.around(box((1, 21, 21), 0, slice(8, 13), slice(8, 13))), 0.5)
    aside = localize_map(maps, "a", MarkedRegion.around(box((1, 21, 21), 0, slice(0, 5), slice(0, 5))), 0.5)
    assert middle.blob_pointing
    assert not aside.blob_pointing
    assert aside.area == pytest.approx(25 / 441)
    # everything is hot, so that the overlap is the area, as by chance
    assert aside.overlap == pytest.approx(aside.area) == pytest.approx(aside.chance_overlap)


def test_an_empty_map():
    maps = maps_on((1, 20, 20), np.zeros((2, 1, 4, 4), np.float32))
    found = localize_map(maps, "a", MarkedRegion.around(np.ones((1, 20, 20), bool)), 0.0)
    assert found.peak is None
    assert not found.pointing
    assert found.overlap == found.mass == found.hot == 0


@given(seed=st.integers(0, 10**6), density=st.sampled_from([0.0, 0.002, 0.3]))
def test_the_box_around_a_mask_keeps_it(seed, density):
    random = np.random.default_rng(seed)
    shape = tuple(int(n) for n in random.integers(1, 12, 3))
    mask = random.random(shape) < density
    region = MarkedRegion.around(mask)
    assert np.array_equal(region.mask(), mask)
    assert region.voxels == mask.sum()
    assert all(region.contains(tuple(index)) for index in np.argwhere(mask)[:20])
    assert not any(region.contains(tuple(index)) for index in np.argwhere(~mask)[:20])


def test_errors():
    maps = maps_on((1, 20, 20), np.zeros((2, 1, 4, 4), np.float32))
    with pytest.raises(UsageError, match=r"'cancer'.*a, b"):
        localize_map(maps, "cancer", MarkedRegion.around(np.ones((1, 20, 20), bool)), 0.5)
    with pytest.raises(UsageError, match=r"1 x 9 x 9 voxels.*1 x 20 x 20"):
        localize_map(maps, "a", MarkedRegion.around(np.ones((1, 9, 9), bool)), 0.5)
