"""What a radiologist sees side by side: real images with the shipped model. Pictures go to Testing/output/scene."""

from __future__ import annotations

import csv
import gc

import numpy as np
import pytest
from PIL import Image

from MediScanLib.prediction.predictor import Predictor
from MediScanLib.scene.comparison import corner_texts, go_to_place, leave_side_by_side, show_side_by_side
from MediScanLib.scene.corner_text import annotate
from MediScanLib.scene.geometry import world_ras
from MediScanLib.scene.overlay import find_overlay
from MediScanLib.scene.panes import (
    panes_findings,
    panes_image_only,
    panes_models,
    panes_original,
    panes_prior,
    panes_region,
)
from MediScanLib.scene.regions import compare_with_region, make_region
from MediScanLib.scene.session import add_prediction
from MediScanLib.scene.style import Style
from MediScanLib.scene.views import LEFT, RIGHT
from MediScanLib.scene.volumes import volume_from_image
from MediScanLib.study.image import MedicalImage
from MediScanLib.study.reading import read_image
from MediScanLib.study.record import ClinicalRecord

CURRENT, PRIOR = "images/nih/00002993_002.jpg", "images/nih/00002993_001.jpg"
GAP = 6


@pytest.fixture
def folder(output_folder):
    folder = output_folder / "scene"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="module")
def predictor():
    yield Predictor.load("mediscan-general", device="cpu")
    gc.collect()


@pytest.fixture(scope="module")
def studies(shared_data, predictor):
    """Current and prior radiograph of one patient, with what the shipped model says of them."""
    images = {name: read_image(shared_data / name) for name in (CURRENT, PRIOR)}
    record = ClinicalRecord(age_years=58, sex="M", temperature_c=38.9, crp_mg_per_l=110)
    return {
        "current": (images[CURRENT], predictor(images[CURRENT], record)),
        "image only": (images[CURRENT], predictor(images[CURRENT])),
        "prior": (images[PRIOR], predictor(images[PRIOR])),
    }


@pytest.fixture
def current(scene, studies):
    image, prediction = studies["current"]
    node = volume_from_image(scene, image, "radiograph")
    add_prediction(scene, prediction, node)
    return node


@pytest.fixture
def compare(scene, make_view, folder):
    """Shows two panes and writes both views beside each other as one picture; returns the two as arrays."""
    views = {name: make_view(name, size=(560, 640)) for name in (LEFT, RIGHT)}

    def shown(panes, file, *, orientation=None, opacity=0.5):
        names = show_side_by_side(scene, *panes, opacity=opacity)
        for name in names:
            if orientation:
                views[name].node.SetOrientation(orientation)
            views[name].fit()
        go_to_place(scene)
        for name, text in corner_texts(scene).items():
            annotate(views[name].view.first_renderer(), text)
        pictures = [views[name].picture() for name in (LEFT, RIGHT)]
        gap = np.full((len(pictures[0]), GAP, 3), 60, np.uint8)
        Image.fromarray(np.hstack([pictures[0], gap, pictures[1]])).save(folder / file)
        return pictures

    return shown


def colored(picture):
    """Share of pixels that are not gray."""
    return float((np.ptp(picture.astype(int), axis=2) > 24).mean())


def has_text(picture):
    """True where bright letters stand at the upper edge."""
    return bool((picture[:30] > 200).all(axis=2).sum() > 40)


def test_original_and_heat_map(scene, current, compare):
    left, right = compare(panes_original(scene, current, "pneumonia"), "compare_original.png")
    assert colored(left) < 0.001
    assert colored(right) > 0.02
    assert has_text(left)
    assert has_text(right)


def test_two_findings(scene, current, compare):
    left, right = compare(panes_findings(scene, current, "pneumonia", "covid"), "compare_findings.png")
    assert colored(left) > 0.01
    assert colored(right) > 0.005
    assert np.abs(left.astype(int) - right).mean() > 1


def test_outlines_of_two_findings(scene, current, compare):
    style = Style(outline=True, opacity=1.0)
    left, right = compare(
        panes_findings(scene, current, "pneumonia", "cancer", style=style), "compare_outlines.png", opacity=1.0
    )
    assert 0.001 < colored(left) < 0.2
    assert np.abs(left.astype(int) - right).mean() > 0.1


def test_two_models(scene, current, compare, studies):
    """A second model is stood in for by the same one with another name: its map is the mirror image."""
    prediction = studies["image only"][1]
    provenance = prediction.provenance.model_copy(update={"model": "mirrored-general", "model_version": "0.1"})
    maps = prediction.maps
    mirrored = type(maps)(
        maps.labels, maps.values[..., ::-1].copy(), maps.shape, maps.rows, maps.columns, maps.slices, maps.scales
    )
    other = prediction.model_copy(update={"provenance": provenance}).with_maps(mirrored)
    add_prediction(scene, other, current, slot="mirrored-general")
    left, right = compare(panes_models(scene, current, "pneumonia", "mirrored-general"), "compare_models.png")
    assert colored(left) > 0.01
    assert np.abs(left.astype(int) - right).mean() > 1


def test_fused_and_image_only(scene, current, compare, studies):
    add_prediction(scene, studies["image only"][1], current, slot="image only")
    left, right = compare(panes_image_only(scene, current, "pneumonia"), "compare_image_only.png")
    assert colored(left) > 0.01
    assert colored(right) > 0.01


def test_prior_and_current(scene, current, compare, studies):
    image, prediction = studies["prior"]
    prior = volume_from_image(scene, image, "prior")
    add_prediction(scene, prediction, prior)
    hierarchy = scene.GetSubjectHierarchyNode()
    for node, date in ((prior, "20210302"), (current, "20210516")):
        study = hierarchy.CreateStudyItem(hierarchy.GetSceneItemID(), date)
        hierarchy.SetItemAttribute(study, "DICOM.StudyDate", date)
        hierarchy.SetItemParent(hierarchy.GetItemByDataNode(node) or hierarchy.CreateItem(study, node), study)
    left, right = compare(panes_prior(scene, current, prior, "pneumonia"), "compare_prior.png")
    assert left.mean() > 20
    assert right.mean() > 20
    assert np.abs(left.astype(int) - right).mean() > 5


def test_readers_region_and_heat_map(scene, current, compare, shared_data):
    with (shared_data / "boxes.csv").open(encoding="utf-8") as stream:
        box = next(row for row in csv.DictReader(stream) if row["image"] == CURRENT)
    _, rows, columns = current.GetImageData().GetDimensions()[::-1]
    x, y, width, height = (float(box[name]) for name in ("x", "y", "width", "height"))
    corners = [
        np.array(world_ras(current, (0, at_y * rows - 0.5, at_x * columns - 0.5)))
        for at_x, at_y in ((x, y), (x + width, y + height))
    ]
    roi = make_region(scene, current)
    roi.SetName(f"{box['reader']} {box['label']}")
    roi.SetCenter(*((corners[0] + corners[1]) / 2))
    roi.SetSize(*np.abs(corners[1] - corners[0]))
    found = compare_with_region(scene, current, "pneumonia", roi)
    assert found.area == pytest.approx(width * height, rel=0.02)
    assert 0 <= found.overlap <= 1
    left, right = compare(panes_region(scene, current, "pneumonia", roi), "compare_region.png")
    assert colored(right) > colored(left)


@pytest.fixture(scope="module")
def ct(shared_data):
    return read_image(shared_data / "dicom" / "ct_ge_variable_gap")


def with_maps(scene, heat_maps, prediction, image, name, place):
    node = volume_from_image(scene, image, name)
    maps, index = heat_maps(image.shape, place)
    add_prediction(scene, prediction().with_maps(maps), node)
    return node, index


@pytest.mark.parametrize("orientation", ["Axial", "Coronal"])
def test_volume(scene, compare, make_view, heat_maps, prediction, ct, orientation):
    """The place that the user looked at in another view is where both come to stand."""
    node, index = with_maps(scene, heat_maps, prediction, ct, "CT", (ct.shape[0] // 2 + 4, 3, 2))
    red = make_view("Red", orientation)
    red.composite.SetBackgroundVolumeID(node.GetID())
    red.look_at(world_ras(node, index))
    left, right = compare(
        panes_original(scene, node, "pneumonia"), f"compare_ct_{orientation.lower()}.png", orientation=orientation
    )
    assert colored(left) < 0.001
    assert colored(right) > 0.005
    offset = red.node.GetSliceOffset()
    leave_side_by_side(scene)
    assert red.node.GetSliceOffset() == offset


def test_oblique_volume(scene, compare, heat_maps, prediction):
    a, b = np.radians(25), np.radians(15)
    turn_z = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
    turn_x = np.array([[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]])
    pixels = np.random.default_rng(3).uniform(0, 100, (15, 60, 90)).astype(np.float32)
    image = MedicalImage(
        pixels, spacing=(0.7, 1.3, 4.0), origin=(-40.0, 25.0, 310.0), direction=tuple((turn_z @ turn_x).ravel())
    )
    node, _ = with_maps(scene, heat_maps, prediction, image, "oblique", (7, 3, 3))
    left, right = compare(panes_findings(scene, node, "pneumonia", "normal"), "compare_oblique.png")
    assert colored(left) > 0.005
    assert find_overlay(scene, node, "finding b") is not None
    assert np.abs(left.astype(int) - right).mean() > 1
