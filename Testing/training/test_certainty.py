"""Limits that are chosen on held-out studies: prediction sets, confidence, epistemic uncertainty, needed fields."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from MediScanLib.study.record import ClinicalRecord
from MediScanLib.training.calibration import choose_thresholds
from MediScanLib.training.certainty import (
    COVERAGES,
    KEPT,
    fit_confidence,
    fit_conformal,
    fit_epistemic,
    needed_fields,
)
from MediScanLib.training.datasets import LABELS, Study

STUDY = Study(Path("a.png"), "nih", "", "1", "val", "normal", "CR", "CHEST", ClinicalRecord(), None, 2)


def _studies(truth: np.ndarray) -> list[Study]:
    return [dataclasses.replace(STUDY, label=LABELS[k], patient=str(i)) for i, k in enumerate(truth)]


def _answers(rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Truth, and probabilities that are much worse for some findings than for others."""
    truth = rng.choice(5, count, p=[0.4, 0.3, 0.15, 0.1, 0.05])
    sharpness = np.array([6.0, 2.0, 4.0, 1.0, 3.0])
    logits = rng.normal(size=(count, 5)) * 1.5
    logits[np.arange(count), truth] += sharpness[truth]
    odds = np.exp(logits)
    return truth, odds / odds.sum(axis=1, keepdims=True)


def test_each_finding_keeps_the_coverage_on_new_studies() -> None:
    rng = np.random.default_rng(0)
    truth, probabilities = _answers(rng, 20_000)
    levels = fit_conformal(_studies(truth), probabilities, "val")
    assert [level.coverage for level in levels] == list(COVERAGES)
    again, others = _answers(rng, 20_000)
    for level in levels:
        members = others >= np.array(level.thresholds)
        for k in range(5):
            own = again == k
            low, high = binom.interval(0.9999, own.sum(), level.coverage)
            assert low <= members[own, k].sum() <= high + 0.01 * own.sum()


@given(st.integers(0, 30), st.integers(0, 2**32 - 1))
@settings(max_examples=60)
def test_the_threshold_is_the_conformal_quantile(count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    probabilities = rng.dirichlet(np.ones(5), count).round(2)
    truth = np.zeros(count, dtype=int)
    for level in fit_conformal(_studies(truth), probabilities, "val"):
        rank = int(np.ceil((count + 1) * level.coverage - 1e-9))
        expected = 0.0 if rank > count else np.sort(probabilities[:, 0])[::-1][rank - 1]
        assert level.thresholds[0] == pytest.approx(expected, abs=2e-6)
        assert level.thresholds[1:] == [0.0] * 4  # nobody had these: they are never excluded


def test_studies_without_a_finding_of_their_own_take_no_part() -> None:
    truth, probabilities = _answers(np.random.default_rng(1), 400)
    studies = _studies(truth)
    benign = [dataclasses.replace(STUDY, label="benign")] * 50
    with_others = fit_conformal([*studies, *benign], np.concatenate([probabilities, np.full((50, 5), 0.2)]), "val")
    assert with_others == fit_conformal(studies, probabilities, "val")


def test_as_many_are_kept_as_is_said_and_contradictions_go_first() -> None:
    _, probabilities = _answers(np.random.default_rng(2), 1000)
    never = [1.0, 0.0, 1.0, 1.0, 1.0]  # pneumonia is always present and nothing else: no contradiction
    limit = fit_confidence(probabilities, never, "val")
    assert (probabilities.max(axis=1) >= limit.threshold).mean() == pytest.approx(KEPT, abs=0.002)
    probabilities[:150] = [0.5, 0.5, 0, 0, 0]
    low = fit_confidence(probabilities, [0.4, 0.4, 0.4, 0.4, 0.4], "val")
    strict = fit_confidence(probabilities[150:], [0.4] * 5, "val")
    assert low.threshold < strict.threshold  # most of those who go have gone already


def test_no_dropout_no_limit() -> None:
    assert fit_epistemic(np.zeros(10), "val") is None
    limit = fit_epistemic(np.linspace(0, 1, 101), "val")
    assert limit is not None and limit.threshold == pytest.approx(0.98)


def test_fields_are_needed_only_where_they_help_and_were_there() -> None:
    known = {"age_years": 0.9, "sex": 0.5, "crp_mg_per_l": 0.1}
    assert needed_fields(0.03, known) == ["age_years", "sex"]
    assert needed_fields(0.005, known) == []
    assert needed_fields(float("nan"), known) == []


def test_operating_points_reach_what_they_are_named_for() -> None:
    rng = np.random.default_rng(3)
    truth = rng.integers(0, 2, 400)
    score = np.clip(rng.normal(0.35 + 0.25 * truth, 0.15), 0, 1)
    probabilities = np.stack([1 - score, score, *np.zeros((3, 400))], axis=1)
    studies = _studies(truth)
    sensitive = choose_thresholds(studies, probabilities, "val", sensitivity=0.95)["pneumonia"].value
    balanced = choose_thresholds(studies, probabilities, "val")["pneumonia"].value
    specific = choose_thresholds(studies, probabilities, "val", specificity=0.95)["pneumonia"].value
    assert sensitive < balanced < specific
    assert (score[truth == 1] >= sensitive).mean() >= 0.95
    assert (score[truth == 0] < specific).mean() >= 0.95
