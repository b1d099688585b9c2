"""Predictions whose settings ask for another explanation, or whether the map holds."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest

from MediScanLib.config import InferenceConfig
from MediScanLib.errors import UsageError
from MediScanLib.prediction.explanations import METHODS
from MediScanLib.prediction.predictor import Predictor
from MediScanLib.prediction.result import Prediction
from MediScanLib.study.image import MedicalImage
from MediScanLib.study.record import ClinicalRecord
from toys import LABELS, make_random_predictor

IMAGE = MedicalImage(np.random.default_rng(0).random((1, 80, 60), dtype=np.float32), source="noise.png")
RECORD = ClinicalRecord(age_years=63)


def asking(**settings: object) -> Predictor:
    return make_random_predictor("gated", settings=InferenceConfig(**settings))


def test_the_configuration_names_the_methods_there_are() -> None:
    assert get_args(InferenceConfig.model_fields["explanation"].annotation) == METHODS


@pytest.mark.parametrize("method", METHODS[1:])
def test_maps_are_those_of_the_method_and_the_rest_stays(method: str) -> None:
    plain, other = asking()(IMAGE, RECORD), asking(explanation=method)(IMAGE, RECORD)
    assert other.findings == plain.findings
    assert other.certainty == plain.certainty
    assert {part.method for part in plain.heat_maps} == {METHODS[0]}
    assert {part.method for part in other.heat_maps} == {method}
    assert other.maps is not None and other.maps.labels == tuple(LABELS)
    assert any(method in note and "times" in note for note in other.provenance.notes), "the cost is printed"
    assert other.provenance.seconds["explanation"] > 0
    assert Prediction.from_json(other.to_json()).to_json() == other.to_json()


def test_why_this_and_not_that() -> None:
    told = asking(explanation_against="normal")(IMAGE, RECORD)
    assert [part.label for part in told.heat_maps] == LABELS[1:]
    assert {part.against for part in told.heat_maps} == {"normal"}
    with pytest.raises(UsageError, match="gout"):
        asking(explanation_against="gout")(IMAGE, RECORD)


def test_the_verdict_on_the_map_of_the_likeliest_finding() -> None:
    told = asking(faithfulness=True)(IMAGE, RECORD)
    (verdict,) = told.faithfulness
    assert verdict.finding == told.top.label
    assert verdict.verdict
    assert asking()(IMAGE, RECORD).faithfulness == []


def test_a_batch_gives_what_single_studies_give() -> None:
    predictor = asking(explanation="gradcam++")
    together = predictor.predict_batch([(IMAGE, RECORD), (IMAGE.with_pixels(1 - IMAGE.pixels), RECORD)])
    alone = predictor(IMAGE, RECORD)
    assert together[0].findings == alone.findings
    assert together[0].heat_maps == alone.heat_maps


def test_without_maps_nothing_is_explained() -> None:
    told = asking(explainability=False, explanation="occlusion", faithfulness=True)(IMAGE, RECORD)
    assert told.heat_maps == [] and told.faithfulness == []
