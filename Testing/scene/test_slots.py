"""Second results of one image beside the first: kept apart, found again, removed together."""

from __future__ import annotations

import numpy as np
import pytest

from MediScanLib.errors import UsageError
from MediScanLib.scene.nodes import is_ours, slot_of
from MediScanLib.scene.overlay import find_overlay, make_overlay
from MediScanLib.scene.results import (
    find_findings,
    remove_results,
    slots_with_results,
    stored_fields,
    stored_prediction,
)
from MediScanLib.scene.session import Results, add_prediction, first_image, results_of
from MediScanLib.scene.stored_maps import stored_maps
from MediScanLib.scene.volumes import image_from_volume, volume_from_image
from MediScanLib.study.image import MedicalImage

SHAPE = (1, 12, 10)


@pytest.fixture
def reference(scene):
    return volume_from_image(scene, MedicalImage(np.zeros(SHAPE, np.float32)), "radiograph")


@pytest.fixture
def two(scene, reference, heat_maps, prediction):
    """An image with first results and those of another model."""
    first, second = (heat_maps(SHAPE, (0, *place))[0] for place in ((1, 1), (5, 5)))
    add_prediction(scene, prediction().with_maps(first), reference)
    others = prediction(clinical={"used": {}, "missing": ["sex"], "prefilled": []}).with_maps(second)
    add_prediction(scene, others, reference, slot="other-model")
    return first, second


def node_ids(scene):
    return {scene.GetNthNode(number).GetID() for number in range(scene.GetNumberOfNodes())}


def test_a_slot_stands_beside_the_first(scene, reference, two):
    first, second = two
    assert slots_with_results(scene, reference) == ("", "other-model")
    assert np.array_equal(stored_maps(scene, reference).values, first.values)
    assert np.array_equal(stored_maps(scene, reference, "other-model").values, second.values)
    assert results_of(scene, reference).summary["clinical"].startswith("1 of 2")
    assert results_of(scene, reference, slot="other-model").summary["clinical"].startswith("0 of 1")
    assert results_of(scene, reference, slot="nothing") == Results()
    assert stored_prediction(scene, reference, "other-model").clinical.used == {}
    assert stored_fields(scene, reference)["clinical"]["used"] == {"age_years": 63.0}
    assert stored_fields(scene, reference, "nothing") is None


def test_a_slot_is_filled_again_not_added(scene, reference, two, prediction):
    before = node_ids(scene)
    add_prediction(scene, prediction().with_maps(two[0]), reference, slot="other-model")
    assert node_ids(scene) == before
    assert np.array_equal(stored_maps(scene, reference, "other-model").values, two[0].values)


def test_names_and_ownership(scene, reference, two):
    overlay = make_overlay(scene, two[1], "pneumonia", reference, slot="other-model")
    table = find_findings(scene, reference, "other-model")
    assert overlay.GetName() == "radiograph pneumonia heat map (other-model)"
    assert table.GetName() == "radiograph findings (other-model)"
    assert all(is_ours(node) and slot_of(node) == "other-model" for node in (overlay, table))
    assert slot_of(find_findings(scene, reference)) == ""
    assert first_image(scene) is reference
    with pytest.raises(UsageError, match="heat map made by MediScan"):
        image_from_volume(overlay)


def test_a_second_overlay_of_the_same_maps(scene, reference, two):
    first = make_overlay(scene, two[0], "pneumonia", reference)
    second = make_overlay(scene, two[0], "normal", reference, slot="finding b")
    assert find_overlay(scene, reference) is first
    assert find_overlay(scene, reference, "finding b") is second
    assert results_of(scene, reference).shown == "pneumonia"


def test_all_slots_are_removed(scene, reference, two):
    for slot in ("", "other-model", "finding b"):
        make_overlay(scene, two[0], "pneumonia", reference, slot=slot)
    remove_results(scene, reference)
    assert slots_with_results(scene, reference) == ()
    ours = [scene.GetNthNode(number) for number in range(scene.GetNumberOfNodes())]
    assert [node.GetName() for node in ours if is_ours(node)] == []


def test_saved_and_loaded(scene, reference, two, tmp_path):
    make_overlay(scene, two[1], "pneumonia", reference, slot="other-model")
    file = tmp_path / "scene.mrb"
    assert scene.WriteToMRB(str(file))
    scene.Clear(0)
    assert scene.ReadFromMRB(str(file))
    image = scene.GetFirstNodeByName("radiograph")
    assert slots_with_results(scene, image) == ("", "other-model")
    assert np.array_equal(stored_maps(scene, image, "other-model").values, two[1].values)
    overlay = find_overlay(scene, image, "other-model")
    before = node_ids(scene)
    assert make_overlay(scene, two[1], "normal", image, slot="other-model") is overlay
    assert node_ids(scene) == before


def test_fields_that_cannot_be_read(scene, reference, two):
    scene.GetFirstNodeByName("radiograph prediction").SetText("[1, 2")
    assert stored_fields(scene, reference) is None
