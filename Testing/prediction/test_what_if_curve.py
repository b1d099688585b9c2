"""A what-if curve is what the model says of the same image with other values, and says where it is guessing."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from MediScanLib.errors import ClinicalError, UsageError
from MediScanLib.network.card import FieldStatistics
from MediScanLib.prediction import what_if_curve as module
from MediScanLib.prediction.attribution import seen_by_head
from MediScanLib.prediction.calibrated import calibrated_probabilities
from MediScanLib.prediction.predictor import Predictor
from MediScanLib.prediction.preprocessing import prepare_clinical
from MediScanLib.prediction.what_if_curve import what_if_curve, what_if_curves
from MediScanLib.study.image import MedicalImage
from MediScanLib.study.reading import read_image
from MediScanLib.study.record import FIELDS, ClinicalRecord
from toys import LABELS, make_card, make_random_predictor

FUSIONS = ["gated", "attention"]
RECORD = ClinicalRecord(age_years=81, sex="M", temperature_c=39.5, crp_mg_per_l=210)


def image_of(slices: int = 1, seed: int = 0, **facts: object) -> MedicalImage:
    pixels = np.random.default_rng(seed).random((slices, 40, 48), dtype=np.float32)
    return MedicalImage(pixels, spacing=(1.0, 1.0, 2.0), source="noise", **facts)


def with_value(field: str, value: object) -> ClinicalRecord:
    others = {name: known for name, known in RECORD.known.items() if name != field}
    return ClinicalRecord.model_validate({**others, field: value})


@pytest.mark.parametrize("spatial_dims", [2, 3])
@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("field", ["crp_mg_per_l", "spo2_percent", "sex"])
def test_every_point_is_what_a_prediction_with_that_value_says(fusion, spatial_dims, field) -> None:
    predictor = make_random_predictor(fusion, spatial_dims)
    image = image_of(1 if spatial_dims == 2 else 6)
    (curve,) = what_if_curves(predictor, image, RECORD, [field], points=4)
    for point in curve.points:
        said = predictor(image, with_value(field, point.value)).probabilities
        assert point.probabilities == pytest.approx(said, abs=1e-6)
    assert curve.current.probabilities == pytest.approx(predictor(image, RECORD).probabilities, abs=1e-6)
    heights = np.array([list(point.probabilities.values()) for point in curve.points])
    assert np.ptp(heights, axis=0).max() > 0.01, "the value matters"


@pytest.mark.parametrize("fusion", FUSIONS)
def test_the_slices_that_stand_for_a_volume_stay_the_same(fusion) -> None:
    predictor = make_random_predictor(fusion, volume_slices=3)
    image = image_of(9)
    prediction = predictor(image, RECORD)
    first = int(prediction.volume_rule.split("slices ")[-1].split()[0])
    (curve,) = what_if_curves(predictor, image, RECORD, ["spo2_percent"], points=5)
    for point in curve.points:
        run = predictor(image, with_value("spo2_percent", point.value), slices=range(first, first + 3))
        assert point.probabilities == pytest.approx(run.probabilities, abs=1e-6)


def test_the_slice_that_was_chosen_is_looked_at() -> None:
    predictor = make_random_predictor("gated")
    (curve,) = what_if_curves(predictor, image_of(5), RECORD, ["age_years"], slices=[3], points=4)
    said = predictor(image_of(5), RECORD, slices=[3]).probabilities
    assert curve.current.probabilities == pytest.approx(said, abs=1e-6)
    assert said != pytest.approx(predictor(image_of(5), RECORD, slices=[1]).probabilities, abs=1e-3)


@pytest.mark.parametrize("fusion", FUSIONS)
def test_many_points_at_once_and_one_after_another_are_the_same(fusion, monkeypatch) -> None:
    predictor = make_random_predictor(fusion)
    seen = seen_by_head(predictor.network, torch.randn(2, 12, 4, 4))
    at_once = what_if_curve(predictor.network, seen, RECORD, "age_years", predictor.bundle.card)
    monkeypatch.setattr(module, "_MOST_NUMBERS", 1)
    one_by_one = what_if_curve(predictor.network, seen, RECORD, "age_years", predictor.bundle.card)
    for one, other in zip(at_once.points, one_by_one.points, strict=True):
        assert one.probabilities == pytest.approx(other.probabilities, abs=1e-6)


@pytest.mark.parametrize("record", [RECORD, ClinicalRecord()])
def test_an_image_that_was_predicted_costs_no_second_look(record) -> None:
    predictor = make_random_predictor("gated")
    looks: list[int] = []
    predictor.network.encoder.register_forward_hook(lambda *_: looks.append(1))
    predictor(image_of(), record)
    curves = what_if_curves(predictor, image_of(), record)
    assert len(looks) == 1
    assert [curve.field for curve in curves] == list(FIELDS)


def test_age_and_sex_come_from_the_header_as_for_a_prediction() -> None:
    predictor = make_random_predictor("gated")
    image = image_of(prefill={"age_years": 37.0, "sex": "F"})
    age, sex = what_if_curves(predictor, image, None, ["age_years", "sex"])
    assert (age.current.value, sex.current.value) == (37.0, "F")
    assert age.current.probabilities == pytest.approx(predictor(image).probabilities, abs=1e-6)


# what is marked


def curve_with(field: str, record: ClinicalRecord = RECORD, **statistics: float) -> module.WhatIfCurve:
    predictor = make_random_predictor("gated")
    clinical = {**make_card().clinical, field: FieldStatistics(**statistics)}
    card = predictor.bundle.card.model_copy(update={"clinical": clinical})
    return what_if_curve(predictor.network, torch.randn(1, 12), record, field, card)


def test_one_point_is_the_current_one() -> None:
    for record, value in ((RECORD, 81.0), (ClinicalRecord(), None)):
        curve = curve_with("age_years", record, mean=50, std=10, known_fraction=0.4)
        assert [point.value for point in curve.points if point.current] == [value]
        assert curve.points[0] is curve.unknown
        assert curve.unknown.value is None


def test_what_hardly_any_training_study_had_is_extrapolation() -> None:
    curve = curve_with("temperature_c", mean=38, std=0.5, known_fraction=0.1)
    assert curve.usual == (37, 39)
    assert not curve.unknown.extrapolated
    for point in curve.points[1:]:
        assert point.extrapolated == (not 37 <= point.value <= 39), point
    assert sum(not point.extrapolated for point in curve.points) >= 8, "the field's range is ten times as wide"
    assert curve.current.extrapolated, "39.5"


def test_a_field_that_was_never_learned_changes_nothing_and_says_so() -> None:
    curve = curve_with("heart_rate_per_min", ClinicalRecord(heart_rate_per_min=150), mean=9, std=1, known_fraction=0)
    assert (curve.learned, curve.usual) == (False, None)
    assert curve.current.value == 150
    assert all(point.probabilities == curve.unknown.probabilities for point in curve.points)
    assert all(point.extrapolated for point in curve.points[1:])


@pytest.mark.parametrize(("mean", "guessed"), [(0.4, []), (0.0, ["M"]), (1.0, ["F"])])
def test_sex_has_its_two_codes(mean, guessed) -> None:
    curve = curve_with("sex", mean=mean, std=0.5, known_fraction=0.5)
    assert [point.value for point in curve.points] == [None, "F", "M"]
    assert [point.value for point in curve.points if point.extrapolated] == guessed
    assert curve.current.value == "M"
    assert curve.usual is None


@settings(max_examples=150, deadline=None)
@given(
    name=st.sampled_from([name for name in FIELDS if not FIELDS[name].choices]),
    where=st.floats(0, 1),
    wide=st.floats(1e-4, 1),
    now=st.none() | st.floats(0, 1),
    points=st.integers(2, 60),
    learned=st.booleans(),
)
def test_values_are_round_ordered_and_within_the_plausible_range(name, where, wide, now, points, learned) -> None:
    info = FIELDS[name]
    span = info.maximum - info.minimum
    statistics = FieldStatistics(mean=info.minimum + where * span, std=wide * span, known_fraction=0.5)
    usual = module._usual(info, statistics) if learned else None
    current = None if now is None else info.minimum + now * span
    grid = module._grid(info, usual, current, points)
    assert grid == sorted(set(grid))
    assert (grid[0], grid[-1]) == (info.minimum, info.maximum)
    assert current is None or current in grid
    assert len(grid) <= 2 * points + 6
    if usual is not None and points >= 8:
        assert sum(usual[0] <= value <= usual[1] for value in grid) >= points // 3
    for value in grid:
        if value not in (current, info.minimum, info.maximum):
            assert float(f"{value:.7g}") == value, "a value that people can read"


def test_it_is_ready_for_json() -> None:
    curve = curve_with("crp_mg_per_l", mean=90, std=90, known_fraction=0.04)
    plain = json.loads(json.dumps(curve.to_dict(), allow_nan=False))
    assert set(plain) == {field.name for field in dataclasses.fields(curve)}
    assert plain["points"][0] == {
        "value": None,
        "probabilities": curve.unknown.probabilities,
        "current": False,
        "extrapolated": False,
    }


# what is refused


def test_a_field_that_is_none_is_an_error_that_suggests_one() -> None:
    with pytest.raises(ClinicalError, match="Did you mean 'crp_mg_per_l'"):
        what_if_curves(make_random_predictor("gated"), image_of(), RECORD, ["crp"])


def test_a_model_without_clinical_values_has_nothing_to_try() -> None:
    nothing = {name: FieldStatistics(mean=0, std=1, known_fraction=0) for name in FIELDS}
    with pytest.raises(UsageError, match="no clinical value"):
        what_if_curves(make_random_predictor("gated", clinical=nothing), image_of(), RECORD)


def test_too_few_points_and_no_slice_are_errors() -> None:
    predictor = make_random_predictor("gated")
    with pytest.raises(UsageError, match="2 points"):
        what_if_curves(predictor, image_of(), RECORD, ["age_years"], points=1)
    with pytest.raises(UsageError, match="no slice"):
        what_if_curves(predictor, image_of(3), RECORD, ["age_years"], slices=[])
    with pytest.raises(UsageError, match="no slice 9"):
        what_if_curves(predictor, image_of(3), RECORD, ["age_years"], slices=[9])


def test_a_real_radiograph_by_the_shipped_model(shared_data) -> None:
    image = read_image(sorted((shared_data / "images" / "nih").iterdir())[0])
    predictor = Predictor.load(device="cpu")
    card = predictor.bundle.card
    said = predictor(image, RECORD)
    curves = {curve.field: curve for curve in what_if_curves(predictor, image, RECORD)}
    assert {name for name, curve in curves.items() if not curve.learned} == {
        name for name, statistics in card.clinical.items() if statistics.known_fraction == 0
    }
    for curve in curves.values():
        assert curve.current.probabilities == pytest.approx(said.probabilities, abs=1e-6)
        for point in curve.points:
            assert sum(point.probabilities.values()) == pytest.approx(1)
    crp = curves["crp_mg_per_l"]
    values, known = prepare_clinical([with_value("crp_mg_per_l", crp.points[-1].value)], card)
    with torch.inference_mode():
        features = predictor._last._study.batches[0].features
        logits = predictor.network.head(features, values, known).logits
    expected = calibrated_probabilities(logits, card.calibration)[0].tolist()
    assert crp.points[-1].probabilities == pytest.approx(dict(zip(LABELS, expected, strict=True)), abs=1e-6)
