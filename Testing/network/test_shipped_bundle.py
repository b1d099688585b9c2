"""The bundle that comes with the software: whole, small, honest on its card, and able to read a real radiograph."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from MediScanLib.network.bundle import CARD_FILE, DEFAULT_BUNDLE, WEIGHTS_FILE, Bundle, file_sha256, load_bundle
from MediScanLib.network.cases import CASES_FILE
from MediScanLib.prediction.predictor import Predictor
from MediScanLib.prediction.preprocessing import prepare_slices
from MediScanLib.prediction.result import Prediction
from MediScanLib.study.image import MedicalImage
from MediScanLib.study.reading import read_image
from MediScanLib.study.record import FIELDS

FOLDER = Path(__file__).resolve().parents[2] / "Resources" / "Models" / DEFAULT_BUNDLE
LARGEST_BYTES = 25 * 10**6


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return load_bundle(FOLDER)


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return Predictor.load(FOLDER, "cpu")


def test_it_is_the_default_and_whole(bundle):
    assert bundle.name == DEFAULT_BUNDLE == FOLDER.name
    assert bundle.card.files == {name: file_sha256(FOLDER / name) for name in (WEIGHTS_FILE, CASES_FILE)}
    there = sorted(path.name for path in FOLDER.iterdir())
    assert there == [CARD_FILE, CASES_FILE, WEIGHTS_FILE], "and nothing executable"


def test_it_says_when_it_may_be_trusted(bundle):
    card = bundle.card
    assert [level.coverage for level in card.conformal] == [0.8, 0.9, 0.95]
    assert card.confidence is not None and card.epistemic is not None and card.novelty is not None
    assert set(card.operating_points) == {"sensitive", "specific"}
    assert card.needed_fields == []


def test_it_tells_of_its_training_cases_and_names_no_image_that_must_not_be_shown(bundle):
    cases = bundle.load_cases(bundle.load_network())
    assert len(cases) == 2000
    named = {case.source for case in cases if case.image}
    assert named <= {"nih", "hannover"}
    assert all(case.age_years is None or case.age_years % 10 == 0 for case in cases)


def test_it_is_small_enough_to_ship():
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < LARGEST_BYTES


def test_weights_fit_the_card_and_are_numbers(bundle):
    state = bundle.load_network().state_dict()
    assert all(bool(torch.isfinite(tensor).all()) for tensor in state.values())


def test_findings_are_those_of_the_project(bundle):
    assert bundle.card.labels == ["normal", "pneumonia", "covid", "fracture", "cancer"]
    assert list(bundle.card.clinical) == list(FIELDS)


def test_card_states_the_licence_of_weights_and_data_apart_from_the_code(bundle):
    assert "research use only" in bundle.card.weights_licence.lower()
    assert "code's licence does not cover the weights" in bundle.card.weights_licence
    assert {source.name for source in bundle.card.data} >= {"nih", "cohen"}
    assert all(source.licence and source.studies > 0 for source in bundle.card.data)


def test_every_figure_has_an_interval_a_split_and_a_source(bundle):
    metrics = bundle.card.metrics
    assert {metric.split for metric in metrics} >= {"val", "test"}
    for metric in metrics:
        assert metric.low is not None and metric.high is not None, metric
        assert metric.low <= metric.value <= metric.high, metric
        assert metric.studies > 0
    sources = {source.name for source in bundle.card.data}
    within = [metric for metric in metrics if metric.source in sources]
    for disease in ("pneumonia", "covid", "fracture", "cancer"):
        assert any(disease in metric.task and metric.split == "test" for metric in within), disease
    maps = [metric for metric in metrics if metric.name == "pointing game"]  # their source is who marked what
    assert maps
    assert all(metric.task.startswith("map of ") and metric.split == "5-fold" for metric in maps)
    apart = [metric for metric in metrics if metric.source not in sources and metric not in maps]
    assert all("across" in metric.source for metric in apart), "figures over several sources are named as such"


def test_decisions_rest_on_held_out_data(bundle):
    assert bundle.card.calibration is not None
    assert "val" in bundle.card.calibration.fitted_on
    for threshold in bundle.card.thresholds.values():
        assert 0 < threshold.value < 1
        for word in ("sensitivity", "specificity", "val"):
            assert word in threshold.operating_point


def test_what_is_no_medical_image_is_left_to_a_human(predictor):
    datasets = pytest.importorskip("sklearn.datasets")
    flower = datasets.load_sample_image("flower.jpg").mean(axis=2, dtype=np.float32)[None]
    noise = np.random.default_rng(0).random((1, 256, 256), dtype=np.float32)
    for pixels in (flower, flower[:, 100:300, 200:400], noise):
        codes = [reason.code for reason in predictor(MedicalImage(pixels=pixels, source="none")).certainty.reasons]
        assert "unlike_training" in codes


def test_a_phantom_is_left_to_a_human_for_what_it_looks_like(predictor, shared_data):
    phantom = read_image(shared_data / "dicom" / "ct_philips_tilt")
    chest = dataclasses.replace(phantom, body_part="CHEST")  # a header that says nothing against it
    (reason, *_) = predictor(chest).certainty.reasons
    assert reason.code == "unlike_training"


def test_few_studies_of_the_trained_kinds_are_called_unlike_them(predictor, shared_data):
    limit = predictor.bundle.card.novelty
    assert limit is not None and "val" in limit.fitted_on
    far = []
    for source in ("nih", "cohen", "bone_eeeh", "bone_roboflow", "busi", "iqothnccd"):
        for path in sorted((shared_data / "images" / source).glob("*.jpg"))[::40][:8]:
            far.append(predictor(read_image(path)).certainty.novelty)
    assert np.mean(np.array(far) > 1) < 0.15


def test_cautions_name_what_the_figures_hide(bundle):
    said = " ".join(bundle.card.cautions).lower()
    for word in ("source", "mined", "sparse"):
        assert word in said


def test_card_says_nothing_of_the_machine_it_was_made_on():
    text = (FOLDER / CARD_FILE).read_text(encoding="utf-8")
    assert not any(word in text for word in ("/home/", "/root/", "/tmp/", "\\Users\\"))
    assert json.loads(text)["name"] == DEFAULT_BUNDLE


@pytest.mark.parametrize("source", ["nih", "bone_roboflow", "busi"])
def test_a_real_image_gives_a_finite_prediction(predictor, shared_data, source):
    image = read_image(sorted((shared_data / "images" / source).glob("*.jpg"))[0])
    prediction = predictor(image)
    assert sum(prediction.probabilities.values()) == pytest.approx(1)
    assert all(math.isfinite(heat_map.peak) and heat_map.peak >= 0 for heat_map in prediction.heat_maps)
    heat = prediction.maps.on_image(prediction.top.label)
    assert heat.shape == image.shape
    assert np.isfinite(heat).all()
    assert heat.max() > 0, "the most likely finding lies somewhere"
    assert Prediction.from_json(prediction.to_json()).to_dict() == prediction.to_dict()


def test_the_same_image_twice_is_the_same_prediction(predictor, shared_data):
    image = read_image(sorted((shared_data / "images" / "cohen").glob("*.jpg"))[0])
    assert predictor(image).findings == predictor(image).findings


def test_cells_stand_in_the_middle_of_their_pixels(predictor, shared_data):
    """Mirroring the image mirrors its feature map cell on cell: only a center at (stride - 1) / 2 does that."""
    paths = sorted((shared_data / "images" / "nih").glob("*.jpg"))[:8]
    spec = predictor.bundle.card.input
    batch = torch.cat([prepare_slices(read_image(path), spec, (0,)).tensor for path in paths])
    with torch.inference_mode():
        maps = predictor.network.features(batch)
        mirrored = predictor.network.features(batch.flip(3)).flip(3)
    cells = maps.shape[3]

    def similarity(shift: int) -> float:
        one, two = (
            m.narrow(3, max(0, start), cells - abs(shift)) - m.mean((2, 3), keepdim=True)
            for m, start in ((maps, shift), (mirrored, -shift))
        )
        return float(functional.cosine_similarity(one.flatten(), two.flatten(), dim=0))

    assert similarity(0) > max(similarity(-1), similarity(1)) + 0.1
    assert predictor.network.encoder.offset == (predictor.network.encoder.stride - 1) / 2


@pytest.mark.parametrize("shape", [(1, 400, 500), (1, 512, 512), (3, 77, 90)])
@pytest.mark.parametrize("value", [0, 128, 0.1, -1000, 4095])
def test_a_blank_image_of_any_size_and_value_is_left_to_a_human(predictor, shape, value):
    blank = MedicalImage(pixels=np.full(shape, value), spacing=(1, 1, 1), source="blank")
    assert predictor(blank).certainty.reasons[0].code == "blank_image"
