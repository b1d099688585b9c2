"""Dropout samples, uncertainty, prediction sets, and the one place that defers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_np
from scipy.stats import entropy

from MediScanLib.config import InferenceConfig, ModelConfig
from MediScanLib.network.card import Card, ConformalLevel, Limit
from MediScanLib.network.fusion import FusionNetwork
from MediScanLib.prediction.certainty import contradicts, draw, entropies, intervals, prediction_sets, uncertainty
from MediScanLib.prediction.deferral import Signs, deferral_reasons
from MediScanLib.prediction.predictor import Predictor
from MediScanLib.prediction.result import Finding, PredictionSet, Uncertainty
from MediScanLib.study.image import MedicalImage
from MediScanLib.study.phantom import make_phantom
from MediScanLib.study.record import ClinicalRecord
from toys import LABELS, make_card

draws = st_np.arrays(np.float64, (7, 5), elements=st.floats(0, 1)).filter(lambda drawn: (drawn.sum(1) > 0).all())


@given(draws)
def test_epistemic_uncertainty_is_what_the_answers_disagree_on(drawn: np.ndarray) -> None:
    drawn = drawn / drawn.sum(axis=1, keepdims=True)
    found = entropies(drawn)
    total = entropy(drawn.mean(axis=0)) / np.log(5)
    assert found.total == pytest.approx(total, abs=1e-9)
    assert found.epistemic == pytest.approx(total - entropy(drawn, axis=1).mean() / np.log(5), abs=1e-9)
    assert 0 <= found.epistemic <= found.total + 1e-12 <= 1 + 2e-12


def test_certain_and_torn_answers() -> None:
    sure = np.eye(5)[[1, 1, 1]]
    torn = np.eye(5)[[0, 1, 2, 3, 4]]
    even = np.full((5, 5), 0.2)
    assert entropies(sure) == (0, 0)
    assert entropies(torn) == (pytest.approx(1), pytest.approx(1))  # each is sure, of something else
    assert entropies(even) == (pytest.approx(1), pytest.approx(0))  # all agree that they do not know
    limit = Limit(threshold=0.5, accepted=0.98, fitted_on="nothing")
    assert uncertainty(torn, limit).relative == pytest.approx(2)
    assert uncertainty(torn, None).relative is None


@pytest.mark.parametrize("fusion", ["gated", "attention"])
def test_samples_cost_no_encoder_and_scatter_around_the_answer(fusion: str) -> None:
    torch.manual_seed(0)
    network = FusionNetwork.build(ModelConfig(fusion=fusion, weights="none")).eval()
    features = torch.rand(2, 1280, 3, 3)
    values, known = torch.zeros(2, 10), torch.zeros(2, 10, dtype=torch.bool)
    network.encoder.register_forward_hook(lambda *_: pytest.fail("the encoder was asked"))
    drawn = draw(network, features, values, known, None, 400)
    assert drawn.shape == (2, 400, 5)
    np.testing.assert_allclose(drawn.sum(axis=2), 1)
    with torch.no_grad():
        plain = torch.softmax(network.head(features, values, known).logits.double(), dim=1).numpy()
    for own, sample in zip(plain, drawn, strict=True):
        assert all(low <= p <= high for p, (low, high) in zip(own, intervals(sample), strict=True))


def _with_levels(**changes: object) -> Card:
    levels = [
        ConformalLevel(coverage=0.8, thresholds=[0.6] * 5, fitted_on="nothing"),
        ConformalLevel(coverage=0.9, thresholds=[0.2, 0.2, 0.2, 0.2, 0.0], fitted_on="nothing"),
    ]
    return make_card().model_copy(update={"conformal": levels, **changes})


def test_sets_hold_what_the_thresholds_do_not_exclude_the_likeliest_first() -> None:
    sets = prediction_sets(np.array([0.3, 0.5, 0.1, 0.1, 0.0]), _with_levels())
    assert [one.labels for one in sets] == [[], ["pneumonia", "normal", "cancer"]]
    assert [one.coverage for one in sets] == [0.8, 0.9]


@given(st_np.arrays(np.float64, 5, elements=st.floats(0, 1)))
def test_sets_grow_with_their_coverage(probabilities: np.ndarray) -> None:
    low, high = prediction_sets(probabilities, _with_levels())
    assert set(low.labels) <= set(high.labels)


def test_a_study_is_normal_or_not() -> None:
    assert contradicts([True, False, False, False, False], LABELS) is None
    assert contradicts([False, True, True, False, False], LABELS) is None
    assert (
        contradicts([True, True, False, False, False], LABELS) == "Both normal and pneumonia reach their thresholds."
    )
    assert "No finding" in str(contradicts([False] * 5, LABELS))
    assert contradicts([False, False], ["fracture", "cancer"]) is None


def _findings(*probabilities: float, threshold: float = 0.3) -> list[Finding]:
    return [
        Finding(
            label=label,
            probability=p,
            threshold=threshold,
            decision="unsure" if abs(p - threshold) < 0.02 else "present" if p >= threshold else "absent",
            calibrated=True,
        )
        for label, p in zip(LABELS, probabilities, strict=True)
    ]


SURE = _findings(0.02, 0.95, 0.01, 0.01, 0.01)


def _codes(findings: list[Finding], card: Card, signs: Signs, threshold: float | None = None) -> list[str]:
    image = MedicalImage(np.random.default_rng(0).random((1, 8, 8), dtype=np.float32))
    return [reason.code for reason in deferral_reasons(image, card, findings, signs, threshold)]


def test_each_reason_comes_from_its_own_sign() -> None:
    card = _with_levels(
        confidence=Limit(threshold=0.7, accepted=0.8, fitted_on="val"), needed_fields=["age_years", "crp_mg_per_l"]
    )
    calm = Signs(contrast=True)
    assert _codes(SURE, card, calm) == []
    assert _codes(SURE, card, Signs(contrast=False)) == ["blank_image"]
    assert _codes(SURE, card, Signs(contrast=True, novelty=1.2)) == ["unlike_training"]
    two = PredictionSet(coverage=0.8, labels=["pneumonia", "covid"])
    assert _codes(SURE, card, Signs(contrast=True, sets=[two])) == ["several_findings"]
    wide = [
        PredictionSet(coverage=0.8, labels=["pneumonia"]),
        PredictionSet(coverage=0.9, labels=["pneumonia", "covid"]),
    ]
    assert _codes(SURE, card, Signs(contrast=True, sets=wide)) == []  # nearly every set is wide at some coverage
    scattered = Uncertainty(samples=30, total=0.6, epistemic=0.5, relative=1.1)
    assert _codes(SURE, card, Signs(contrast=True, uncertainty=scattered)) == ["disagreement"]
    assert _codes(SURE, card, Signs(contrast=True, missing=["sex", "age_years"])) == ["missing_fields"]
    assert _codes(_findings(0.1, 0.6, 0.1, 0.1, 0.1), card, calm) == ["low_confidence"]
    assert _codes(_findings(0.1, 0.6, 0.1, 0.1, 0.1), card, calm, 0.5) == []
    assert _codes(_findings(0.35, 0.6, 0.0, 0.0, 0.05), card, calm, 0.5) == ["contradiction"]
    assert _codes(_findings(0.2, 0.31, 0.19, 0.2, 0.1), card, calm, 0.3) == ["close_call"]


def test_reasons_are_in_order_the_gravest_first() -> None:
    card = _with_levels(confidence=Limit(threshold=0.7, accepted=0.8, fitted_on="val"), needed_fields=["age_years"])
    signs = Signs(
        contrast=False,
        novelty=2.0,
        sets=[PredictionSet(coverage=0.8, labels=["normal", "pneumonia"])],
        uncertainty=Uncertainty(samples=30, total=0.9, epistemic=0.5, relative=3.0),
        missing=["age_years"],
    )
    assert _codes(_findings(0.31, 0.3, 0.2, 0.1, 0.1), card, signs) == [
        "blank_image",
        "unlike_training",
        "contradiction",
        "several_findings",
        "low_confidence",
        "disagreement",
        "missing_fields",
        "close_call",
    ]


def test_a_model_without_limits_defers_below_one_half() -> None:
    card = make_card()
    findings = _findings(0.2, 0.45, 0.2, 0.1, 0.05)
    assert _codes(findings, card, Signs(contrast=True)) == ["low_confidence"]
    assert _codes(findings, card, Signs(contrast=True), 0.4) == []


def test_a_prediction_carries_interval_sets_and_uncertainty_and_repeats_them() -> None:
    predictor = Predictor.load("mediscan-general", device="cpu")
    image = make_phantom()
    first, second = (predictor(image, ClinicalRecord(age_years=63)) for _ in range(2))
    scatter = first.certainty.uncertainty
    assert scatter is not None and scatter.samples == 30 and 0 < scatter.epistemic < scatter.total
    for finding in first.findings:
        assert finding.interval is not None
        assert finding.interval[0] <= finding.probability <= finding.interval[1]
    assert first.findings == second.findings and first.certainty == second.certainty
    without = Predictor(predictor.bundle, predictor.network, predictor.device, InferenceConfig(dropout_samples=0))
    plain = without(image, ClinicalRecord(age_years=63))
    assert plain.certainty.uncertainty is None
    assert plain.probabilities == first.probabilities
    assert all(finding.interval is None for finding in plain.findings)
