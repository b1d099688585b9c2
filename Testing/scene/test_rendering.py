"""The overlay in a rendered slice view stands where the heat map says. Pictures go to Testing/output/scene."""

from __future__ import annotations

import csv

import numpy as np
import pytest
from PIL import Image

from MediScanLib.prediction.colormaps import color_table
from MediScanLib.scene.geometry import world_ras
from MediScanLib.scene.overlay import set_visible, show_overlay
from MediScanLib.scene.volumes import volume_from_image
from MediScanLib.study.image import MedicalImage
from MediScanLib.study.reading import read_image

PIXEL_TOLERANCE = 2.0


@pytest.fixture
def pictures(output_folder):
    folder = output_folder / "scene"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="module")
def radiograph(shared_data):
    with (shared_data / "studies.csv").open(encoding="utf-8") as stream:
        row = next(r for r in csv.DictReader(stream) if r["source"] == "nih" and r["label"] == "pneumonia")
    return read_image(shared_data / row["image"])


@pytest.fixture(scope="module")
def ct(shared_data):
    """A human CT with gantry tilt and uneven gaps, which reading makes regular."""
    return read_image(shared_data / "dicom" / "ct_ge_variable_gap")


def oblique(shape=(9, 60, 90)):
    """Anisotropic voxels on axes turned by 25 and 15 degrees."""
    a, b = np.radians(25), np.radians(15)
    turn_z = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
    turn_x = np.array([[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]])
    pixels = np.random.default_rng(3).uniform(0, 100, shape).astype(np.float32)
    return MedicalImage(
        pixels, spacing=(0.7, 1.3, 4.0), origin=(-40.0, 25.0, 310.0), direction=tuple((turn_z @ turn_x).ravel())
    )


def hottest_pixel(plain, overlaid):
    """(row, column) where the overlay, drawn with opacity 1, is hottest: center of its hottest pixels."""
    drawn = np.abs(overlaid.astype(int) - plain).sum(axis=2) > 0
    table = color_table("inferno").astype(float)
    rows, columns = np.nonzero(drawn)
    colors = overlaid[rows, columns].astype(float)
    distance = ((colors[:, None, :] - table[None]) ** 2).sum(axis=2)
    heat = distance.argmin(axis=1)
    on_table = distance.min(axis=1) < 30  # leaves out the legend's letters
    rows, columns, heat = rows[on_table], columns[on_table], heat[on_table]
    hottest = heat >= heat.max() - 2
    return float(rows[hottest].mean()), float(columns[hottest].mean())


def check(scene, view, node, maps, index, file, *, jump=True):
    """Renders, saves the picture a user would see and compares the hottest pixel with where it should be."""
    target = world_ras(node, index)
    if jump:
        view.look_at(target)
    overlay = show_overlay(scene, maps, maps.labels[0], node)
    view.fit()
    if jump:
        view.look_at(target)
    Image.fromarray(view.picture()).save(file)

    set_visible(scene, overlay, node, True, opacity=1.0)
    legend = overlay.GetNthDisplayNode(1)
    legend.SetVisibility(False)
    overlaid = view.picture()
    set_visible(scene, overlay, node, False)
    plain = view.picture()
    assert plain.std() > 5, "the image itself is not drawn"
    row, column = hottest_pixel(plain, overlaid)
    expected_row, expected_column = view.pixel_of(target)
    assert np.hypot(row - expected_row, column - expected_column) < PIXEL_TOLERANCE, (
        f"hottest at {(row, column)}, should be at {(expected_row, expected_column)}"
    )


def test_radiograph(scene, make_view, heat_maps, radiograph, pictures):
    view = make_view()
    node = volume_from_image(scene, radiograph, "radiograph")
    maps, index = heat_maps(radiograph.shape, (0, 4, 2))
    check(scene, view, node, maps, index, pictures / "radiograph.png", jump=False)


@pytest.mark.parametrize("orientation", ["Axial", "Sagittal", "Coronal"])
def test_ct(scene, make_view, heat_maps, ct, pictures, orientation):
    view = make_view("Red", orientation)
    node = volume_from_image(scene, ct, "CT")
    maps, index = heat_maps(ct.shape, (ct.shape[0] // 2, 3, 2))
    check(scene, view, node, maps, index, pictures / f"ct_{orientation.lower()}.png")


@pytest.mark.parametrize("orientation", ["Axial", "Sagittal", "Coronal"])
def test_oblique_anisotropic(scene, make_view, heat_maps, pictures, orientation):
    image = oblique()
    view = make_view("Red", orientation)
    node = volume_from_image(scene, image, "oblique")
    maps, index = heat_maps(image.shape, (4, 2, 4))
    check(scene, view, node, maps, index, pictures / f"oblique_{orientation.lower()}.png")
