"""A bright square at a known place is found at that place, whatever the image's shape, spacing and orientation."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from MediScanLib.prediction.preprocessing import mirrored_axes
from MediScanLib.study.image import MedicalImage
from toys import LABELS, make_predictor


def rotation(angles: tuple[float, float, float]) -> np.ndarray:
    matrix = np.eye(3)
    for axis, angle in enumerate(angles):
        c, s = np.cos(angle), np.sin(angle)
        i, j = [k for k in range(3) if k != axis]
        step = np.eye(3)
        step[[i, i, j, j], [i, j, i, j]] = c, -s, s, c
        matrix = matrix @ step
    return matrix


def image_with_square(shape, spacing, direction, origin, center, size):
    """A cube of `size` mm around `center` (slice, row, column)."""
    pixels = np.zeros(shape, dtype=np.float32)
    box = tuple(
        slice(max(0, round(c - size / mm / 2)), min(n, round(c + size / mm / 2) + 1))
        for c, mm, n in zip(center, spacing[::-1], shape, strict=True)
    )
    pixels[box] = 1000
    where = np.argwhere(pixels > 0).mean(axis=0)
    image = MedicalImage(
        pixels=pixels,
        spacing=spacing,
        origin=origin,
        direction=tuple(direction.ravel()),
        modality="CT",
        source="square",
    )
    return image, tuple(where)


fraction = st.floats(0.2, 0.8)
angle = st.floats(-3, 3)


@settings(deadline=None, max_examples=40)
@given(
    rows=st.integers(60, 400),
    columns=st.integers(60, 400),
    spacing=st.tuples(st.floats(0.3, 2), st.floats(0.3, 2)),
    at=st.tuples(fraction, fraction),
    angles=st.tuples(angle, angle, angle),
)
def test_slice_of_any_shape(rows, columns, spacing, at, angles):
    extent = max(rows * spacing[1], columns * spacing[0])
    size = extent / 64 * 10  # ten pixels of the network
    image, where = image_with_square(
        (1, rows, columns),
        (*spacing, 3.0),
        rotation(angles),
        (-80.0, 33.0, 7.0),
        (0, at[0] * (rows - 1), at[1] * (columns - 1)),
        size,
    )
    prediction = make_predictor()(image)
    maps = prediction.maps.on_image("pneumonia")
    assert maps.shape == image.shape
    weight = np.square(maps)
    center = [float((weight * axis).sum() / weight.sum()) for axis in np.indices(maps.shape)]
    distance = np.linalg.norm(np.subtract(image.to_physical(tuple(center)), image.to_physical(where)))
    assert distance < extent / 64 * 1.5, "within one and a half pixels of the network"
    summary = next(m for m in prediction.heat_maps if m.label == "pneumonia")
    assert np.allclose(summary.position, image.to_physical(summary.index))
    assert np.linalg.norm(np.subtract(summary.position, image.to_physical(where))) < size
    assert maps[summary.index] == pytest.approx(maps.max(), rel=1e-4)
    assert summary.peak == pytest.approx(maps[summary.index], rel=1e-5)


@settings(deadline=None, max_examples=25)
@given(
    shape=st.tuples(st.integers(8, 40), st.integers(30, 120), st.integers(30, 120)),
    spacing=st.tuples(st.floats(0.5, 2), st.floats(0.5, 2), st.floats(1, 6)),
    at=st.tuples(fraction, fraction, fraction),
    angles=st.tuples(angle, angle, angle),
    dimensions=st.sampled_from([2, 3]),
)
def test_volume_of_any_shape(shape, spacing, at, angles, dimensions):
    extent = max(n * mm for n, mm in zip(shape, spacing[::-1], strict=True))
    size = max(extent / 6, 3 * spacing[2])
    center = tuple(a * (n - 1) for a, n in zip(at, shape, strict=True))
    image, where = image_with_square(shape, spacing, rotation(angles), (10.0, -20.0, 30.0), center, size)
    predictor = make_predictor(dimensions, (32,) * dimensions)
    prediction = predictor(image)
    summary = next(m for m in prediction.heat_maps if m.label == "pneumonia")
    distance = np.linalg.norm(np.subtract(summary.position, image.to_physical(where)))
    half_diagonal = size / 2 * np.sqrt(3)
    assert distance < half_diagonal + 4 * extent / 32, "inside the cube, give or take a cell"
    maps = prediction.maps.on_image("pneumonia")
    assert maps.shape == shape
    assert maps[summary.index] == pytest.approx(maps.max(), rel=1e-4)


def test_only_chosen_slices_have_a_map():
    image = MedicalImage(pixels=np.random.default_rng(0).random((6, 40, 50)), spacing=(1, 1, 1), source="noise")
    prediction = make_predictor()(image, slices=[1, 4])
    maps = prediction.maps.on_image("pneumonia")
    assert [index for index in range(6) if maps[index].any()] == [1, 4]
    assert [score.index for score in prediction.slices] == [1, 4]
    assert np.array_equal(prediction.maps.on_image("pneumonia", 4)[0], maps[4])


def test_a_weak_map_looks_weak():
    """Maps share the model's scale: none is stretched to its own maximum."""
    image = MedicalImage(pixels=np.random.default_rng(0).random((1, 40, 50)), source="noise")
    strong = make_predictor(heat_map_scales=dict.fromkeys(LABELS, 0.001))(image).maps.normalized("pneumonia")
    weak = make_predictor(heat_map_scales=dict.fromkeys(LABELS, 1000.0))(image).maps.normalized("pneumonia")
    assert strong.max() == 1.0
    assert 0 < weak.max() < 0.01


@pytest.mark.parametrize("dimensions", [2, 3])
@pytest.mark.parametrize("flips", [(0,), (1,), (2,), (0, 1), (1, 2), (0, 1, 2)])
def test_the_same_patient_stored_another_way_round(dimensions, flips):
    """A NIfTI file often runs to the patient's right and front where DICOM runs to the left and back."""
    rng = np.random.default_rng(3)
    pixels = rng.random((12, 50, 70), dtype=np.float32)
    pixels[5, 10:18, 40:52] = 4
    spacing, direction = (1.5, 1.0, 3.0), rotation((0.1, -0.2, 0.15))
    image = MedicalImage(pixels, spacing, (5.0, 6.0, 7.0), tuple(direction.ravel()), source="one way")
    corner = [n - 1 if axis in flips else 0 for axis, n in enumerate(pixels.shape)]
    turned = direction * [-1 if 2 - axis in flips else 1 for axis in range(3)]
    other = MedicalImage(
        np.flip(pixels, flips), spacing, image.to_physical(tuple(corner)), tuple(turned.ravel()), source="another"
    )
    predictor = make_predictor(dimensions, (32,) * dimensions)
    one, two = predictor(image), predictor(other)
    assert two.probabilities == pytest.approx(one.probabilities, abs=1e-5)
    assert np.allclose(np.flip(two.maps.on_image("pneumonia"), flips), one.maps.on_image("pneumonia"), atol=1e-4)
    positions = [next(m.position for m in p.heat_maps if m.label == "pneumonia") for p in (one, two)]
    assert positions[1] == pytest.approx(positions[0], abs=1e-3)


def test_a_radiograph_is_left_as_it_is_stored():
    pixels = np.zeros((1, 60, 60), dtype=np.float32)
    pixels[0, 5:15, 5:15] = 1
    image = MedicalImage(pixels, (1, 1, 1), direction=(-1, 0, 0, 0, -1, 0, 0, 0, 1), modality="DX", source="film")
    assert mirrored_axes(image) == (False, False, False)
