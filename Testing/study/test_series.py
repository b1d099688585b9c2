"""DICOM folders: which series, in which order, and never a distorted volume."""

from __future__ import annotations

import shutil

import numpy as np
import pydicom
import pytest
import SimpleITK
from hypothesis import given, settings
from hypothesis import strategies as st

from MediScanLib.errors import ReadError
from MediScanLib.study.finding import find_images
from MediScanLib.study.reading import read_image

VOLUME = np.arange(5 * 6 * 7, dtype=float).reshape(5, 6, 7) * 4 - 500


def stacked(count: int, step: float = 2.5) -> np.ndarray:
    return np.array([(-10.0, -20.0, 30 + step * index) for index in range(count)])


def test_slices_are_sorted_by_position_and_not_by_name(make_series, tmp_path):
    image = read_image(make_series(tmp_path, VOLUME, stacked(5), spacing=(0.5, 0.75)))
    np.testing.assert_array_equal(image.pixels, VOLUME)
    assert image.spacing == (0.5, 0.75, 2.5)
    assert image.origin == (-10, -20, 30)
    assert image.units == "HU" and image.is_volume and not image.warnings
    assert set(image.identifiers) == {"patient", "study", "series"}
    assert image.source == str(tmp_path)


def test_descending_series_becomes_right_handed(make_series, tmp_path):
    image = read_image(make_series(tmp_path, VOLUME, stacked(5)[::-1]))
    np.testing.assert_array_equal(image.pixels, VOLUME[::-1])
    assert np.linalg.det(image.direction_matrix) == pytest.approx(1)


@settings(max_examples=15, deadline=None)
@given(
    angles=st.tuples(*[st.floats(-3.1, 3.1)] * 3),
    spacing=st.tuples(st.floats(0.2, 3), st.floats(0.2, 3), st.floats(0.5, 8)),
    origin=st.tuples(*[st.floats(-300, 300)] * 3),
    data=st.data(),
)
def test_any_orientation_gives_back_each_voxel_at_its_place(
    make_series, tmp_path_factory, angles, spacing, origin, data
):
    transform = SimpleITK.Euler3DTransform()
    transform.SetRotation(*angles)
    axes = np.reshape(transform.GetMatrix(), (3, 3))
    order = data.draw(st.permutations(range(5)))
    positions = np.array(origin) + np.outer(np.arange(5) * spacing[2], axes[:, 2])
    folder = make_series(
        tmp_path_factory.mktemp("series"),
        VOLUME[order],
        positions[order],
        orientation=(*axes[:, 0], *axes[:, 1]),
        spacing=spacing[:2],
    )
    image = read_image(folder)
    np.testing.assert_array_equal(image.pixels, VOLUME)
    np.testing.assert_allclose(image.spacing, spacing, rtol=1e-4)
    np.testing.assert_allclose(image.direction_matrix, axes, atol=1e-4)
    for index in ((0, 0, 0), (4, 5, 6), (2, 3, 1)):
        expected = np.array(origin) + axes @ (np.array(spacing) * index[::-1])
        np.testing.assert_allclose(image.to_physical(index), expected, atol=0.01)
    assert not image.warnings


def test_several_series_are_listed_and_can_be_chosen(make_series, tmp_path):
    make_series(tmp_path / "a", VOLUME, stacked(5), SeriesInstanceUID="1.2.3.10", SeriesDescription="Lung 1 mm")
    make_series(tmp_path / "b", VOLUME[:2] + 4, stacked(2), SeriesInstanceUID="1.2.3.11")
    with pytest.raises(ReadError) as caught:
        read_image(tmp_path)
    assert caught.value.code == "several_series"
    for word in ("1.2.3.10", "1.2.3.11", "LUNG 1 MM", "CT", "5 files", "2 files", "series="):
        assert word in str(caught.value)
    assert read_image(tmp_path, series="1.2.3.10").shape[0] == 5
    assert read_image(tmp_path, series="2").shape[0] == 2
    with pytest.raises(ReadError) as caught:
        read_image(tmp_path, series="1.2.3.1")
    assert caught.value.code == "several_series"
    with pytest.raises(ReadError) as caught:
        read_image(tmp_path, series="9.9")
    assert caught.value.code == "not_found"


def test_series_by_unique_prefix(make_series, tmp_path):
    make_series(tmp_path / "a", VOLUME, stacked(5), SeriesInstanceUID="1.2.3.10")
    make_series(tmp_path / "b", VOLUME[:2], stacked(2), SeriesInstanceUID="1.2.4.11")
    assert read_image(tmp_path, series="1.2.4").shape[0] == 2


def column(y: np.ndarray, x: np.ndarray) -> np.ndarray:
    return 1000 * np.exp(-((x - 20.0) ** 2 + (y - 30.0) ** 2) / 40) - 1000


@pytest.mark.parametrize("degrees", [-18.5, 10.0, 25.0])
def test_gantry_tilt_is_straightened(make_series, tmp_path, degrees):
    # Acquired planes are tilted about x; a column straight along z is seen in each plane at another row.
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    rows, columns = np.meshgrid(np.arange(64), np.arange(48), indexing="ij")
    table = np.arange(20) * 3.0
    positions = np.stack([np.zeros(20), np.zeros(20), table], axis=1)
    slices = np.stack([column(rows * c, columns) for _ in table])
    folder = make_series(tmp_path, slices, positions, orientation=(1, 0, 0, 0, c, s))
    image = read_image(folder)
    assert any("tilt" in note and f"{abs(degrees):.1f}" in note for note in image.warnings)
    assert image.spacing == pytest.approx((1, 1, 3 * c), rel=1e-4)
    np.testing.assert_allclose(image.direction_matrix @ image.direction_matrix.T, np.eye(3), atol=1e-6)
    for z in (20.0, 30.0, 40.0):
        for x, y in ((20.0, 30.0), (20.0, 34.0), (15.0, 30.0), (24.0, 27.0)):
            at = image.to_index((x, y, z + y * s / c))
            if not all(0 <= a <= n - 1 for a, n in zip(at, image.shape, strict=True)):
                continue
            volume = SimpleITK.GetImageFromArray(image.pixels)
            value = volume.EvaluateAtContinuousIndex([at[2], at[1], at[0]], SimpleITK.sitkLinear)
            assert value == pytest.approx(column(np.array(y), np.array(x)), abs=30)


def test_shifted_fields_of_view_are_aligned(make_series, tmp_path):
    rows, columns = np.meshgrid(np.arange(64), np.arange(48), indexing="ij")
    shifts = [(0, 0), (3, 0), (3.5, -2), (-4, 1)]
    slices = np.stack([column(rows + dy, columns + dx) for dx, dy in shifts])
    positions = np.array([(dx, dy, 2.0 * index) for index, (dx, dy) in enumerate(shifts)])
    image = read_image(make_series(tmp_path, slices, positions))
    for index in range(4):
        peak = np.unravel_index(image.pixels[index].argmax(), image.shape[1:])
        np.testing.assert_allclose(image.to_physical((index, *peak))[:2], (20, 30), atol=0.6)


def test_uneven_gaps_are_interpolated_and_said(make_series, tmp_path):
    heights = np.array([0, 1, 2, 3, 5, 7, 8, 9.0])
    slices = np.stack([np.full((4, 4), 10 * height) for height in heights])
    positions = np.stack([0 * heights, 0 * heights, heights], axis=1)
    image = read_image(make_series(tmp_path, slices, positions))
    assert image.shape[0] == 10 and image.spacing[2] == pytest.approx(1)
    np.testing.assert_allclose(image.pixels[:, 0, 0], np.arange(10) * 10, atol=0.01)
    note = next(note for note in image.warnings if "varies" in note)
    assert "8 slices" in note and "3.0 to 5.0 mm" in note


def test_a_wide_gap_is_an_error_that_names_it(make_series, tmp_path):
    positions = stacked(5, 1.0)
    positions[3:, 2] += 10
    with pytest.raises(ReadError, match=r"11\.00 mm between 32\.0 and 43\.0 mm") as caught:
        read_image(make_series(tmp_path, VOLUME, positions))
    assert caught.value.code == "geometry"


def test_rounded_positions_are_no_gaps(make_series, tmp_path):
    positions = stacked(5, 10 / 3)
    positions[:, 2] = positions[:, 2].round(1)
    image = read_image(make_series(tmp_path, VOLUME, positions))
    np.testing.assert_array_equal(image.pixels, VOLUME)
    assert not image.warnings


def test_the_same_slice_twice_is_dropped_but_two_times_are_not_mixed(make_series, tmp_path):
    folder = make_series(tmp_path / "same", VOLUME, stacked(5))
    first = min(folder.iterdir())
    shutil.copy(first, folder / "copy.dcm")
    image = read_image(folder)
    np.testing.assert_array_equal(image.pixels, VOLUME)
    assert any("twice" in note for note in image.warnings)
    other = make_series(tmp_path / "times", np.stack([*VOLUME, VOLUME[0] + 8]), stacked(5)[[0, 1, 2, 3, 4, 0]])
    with pytest.raises(ReadError) as caught:
        read_image(other)
    assert caught.value.code == "geometry"


def test_slices_far_apart_are_said(make_series, tmp_path):
    image = read_image(make_series(tmp_path, VOLUME, stacked(5, 10.0), SliceThickness=1))
    assert any("1 mm thick but 10 mm apart" in note for note in image.warnings)


def change(path, **elements):
    ds = pydicom.dcmread(path)
    for keyword, value in elements.items():
        if value is None:
            delattr(ds, keyword)
        else:
            setattr(ds, keyword, value)
    ds.save_as(path)


def test_localizer_is_left_out(make_series, tmp_path):
    folder = make_series(tmp_path, VOLUME, stacked(5))
    target = next(path for path in folder.iterdir() if pydicom.dcmread(path).ImagePositionPatient[2] == 30)
    change(target, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"], ImageOrientationPatient=[1, 0, 0, 0, 0, -1])
    image = read_image(folder)
    assert image.shape[0] == 4
    assert any("localizer" in note for note in image.warnings)


@pytest.mark.parametrize(
    ("elements", "word"),
    [
        ({"ImageOrientationPatient": [1, 0, 0, 0, 0, -1]}, "parallel"),
        ({"ImagePositionPatient": None}, "1 of its 5 images"),
        ({"PixelSpacing": [3, 3]}, "pixel spacing"),
        ({"Rows": 3, "PixelData": bytes(42)}, "differ in size"),
    ],
)
def test_slices_that_form_no_volume(make_series, tmp_path, elements, word):
    folder = make_series(tmp_path, VOLUME, stacked(5))
    change(min(folder.iterdir()), **elements)
    with pytest.raises(ReadError, match=word) as caught:
        read_image(folder)
    assert caught.value.code == "geometry"


def test_two_radiographs_of_one_series_are_no_volume(make_series, tmp_path):
    folder = make_series(tmp_path, VOLUME[:2], stacked(2), Modality="DX")
    with pytest.raises(ReadError, match="projection") as caught:
        read_image(folder)
    assert caught.value.code == "geometry"
    assert len(find_images(folder)) == 2


@pytest.mark.parametrize("odd", range(5))
def test_a_slice_without_hounsfield_units_among_others_is_refused(make_series, tmp_path, odd):
    path = sorted(make_series(tmp_path, VOLUME, stacked(5)).iterdir())[odd]
    ds = pydicom.dcmread(path)
    del ds.RescaleSlope, ds.RescaleIntercept
    ds.save_as(path)
    with pytest.raises(ReadError, match="mixes slices of different kinds") as caught:
        read_image(tmp_path)
    assert caught.value.code == "geometry"


def test_damaged_files_of_a_series_are_said(make_series, tmp_path):
    folder = make_series(tmp_path, VOLUME, stacked(5))
    (folder / "broken.dcm").write_bytes(max(folder.iterdir()).read_bytes()[:300])
    image = read_image(folder)
    assert image.shape[0] == 5
    assert any("broken.dcm" in note for note in image.warnings)


# the two real ones


@pytest.mark.shared_data
def test_philips_tilt(shared_data):
    folder = shared_data / "dicom" / "ct_philips_tilt"
    image = read_image(folder)
    assert any("18.5 degrees" in note for note in image.warnings)
    _compare_with_slices(image, folder, tolerance=25)


@pytest.mark.shared_data
def test_ge_tilt_and_gaps(shared_data):
    folder = shared_data / "dicom" / "ct_ge_variable_gap"
    image = read_image(folder)
    assert any("18.5 degrees" in note for note in image.warnings)
    assert any("varies from 1.08 to 7.00 mm" in note for note in image.warnings)
    assert image.shape[0] == 37
    _compare_with_slices(image, folder, tolerance=60)


def _compare_with_slices(image, folder, tolerance: float) -> None:
    """Smooth tissue of each acquired slice must be found at its own physical place."""
    volume = SimpleITK.GetImageFromArray(image.pixels)
    checked = 0
    for path in sorted(folder.iterdir()):
        ds = pydicom.dcmread(path)
        if "ImagePositionPatient" not in ds:
            continue
        values = np.maximum(ds.pixel_array * float(ds.RescaleSlope) + float(ds.RescaleIntercept), -1024)
        row_axis, column_axis = np.reshape(ds.ImageOrientationPatient, (2, 3)).astype(float)
        for row in range(60, 460, 100):
            for column in range(60, 460, 100):
                patch = values[row - 2 : row + 3, column - 2 : column + 3]
                if np.ptp(patch) > 60:
                    continue
                position = (
                    np.array(ds.ImagePositionPatient, float)
                    + column * float(ds.PixelSpacing[1]) * row_axis
                    + row * float(ds.PixelSpacing[0]) * column_axis
                )
                at = image.to_index(tuple(position))
                if not 0 <= at[0] <= image.shape[0] - 1:
                    continue
                near = [round(at[0])] if abs(at[0] - round(at[0])) < 0.02 else []
                if not near:
                    continue
                found = volume.EvaluateAtContinuousIndex([at[2], at[1], float(near[0])], SimpleITK.sitkLinear)
                assert found == pytest.approx(patch.mean(), abs=tolerance), (path.name, row, column)
                checked += 1
    assert checked > 100


# what a batch takes as its inputs


@pytest.mark.shared_data
def test_batch_inputs_of_the_real_folders(shared_data):
    found = find_images(shared_data / "dicom" / "files")
    assert len(found) == 147 and found == sorted(found)
    for name in ("ct_ge_variable_gap", "ct_philips_tilt"):
        assert find_images(shared_data / "dicom" / name) == [shared_data / "dicom" / name]
    assert len(find_images(shared_data / "dicom")) == 149


def test_batch_inputs(make_series, make_dicom, tmp_path):
    make_series(tmp_path / "ct", VOLUME, stacked(5))
    make_series(tmp_path / "one", VOLUME[:1], stacked(1))
    make_series(tmp_path / "two", VOLUME[:2], stacked(2), SeriesInstanceUID="1.2.5")
    change(max((tmp_path / "two").iterdir()), SeriesInstanceUID="1.2.6")
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "table.csv").write_text("x")
    (tmp_path / ".hidden.png").write_bytes(b"x")
    (tmp_path / "broken.dcm").write_bytes(b"x")
    (tmp_path / "Ünïcode.png").write_bytes(b"x")
    (tmp_path / "loop").symlink_to(tmp_path, target_is_directory=True)
    names = [str(path.relative_to(tmp_path)) for path in find_images(tmp_path)]
    assert names[:2] == ["broken.dcm", "Ünïcode.png"]
    assert names[2] == "ct"
    assert len(names) == 6 and names[3].startswith("one/") and names[4].startswith("two/")
    assert find_images(tmp_path / "broken.dcm") == [tmp_path / "broken.dcm"]
    with pytest.raises(ReadError) as caught:
        find_images(tmp_path / "nowhere")
    assert caught.value.code == "not_found"
