"""Severity against the readers' mean, beside how well the readers agree with each other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy.stats import pearsonr, spearmanr
from sklearn.metrics import mean_absolute_error

from ..datasets import BRIXIA_MAXIMUM, Study
from .answers import INPUTS, Answers, FloatArray
from .bootstrap import RESAMPLES, Figure, IntArray, intervals

LEAST_STUDIES = 10
READER_COLUMNS = ("brixia_senior", "brixia_junior")


@dataclass(frozen=True, eq=False)
class SeverityAgreement:
    """Agreement of one rater with another.

    Attributes:
        rater: Who is compared: the model by what it was shown, or the second reader.
        reference: With whom.
        source: Data sets of the studies.
        studies: Number of studies.
        figures: "Pearson r", "Spearman rho", "MAE" in points of the Brixia score.
        values: (study,) points given by `rater`.
        truth: (study,) points given by `reference`.
    """

    rater: str
    reference: str
    source: str
    studies: int
    figures: Mapping[str, Figure]
    values: FloatArray
    truth: FloatArray


def severity_agreement(answers: Answers, resamples: int = RESAMPLES) -> list[SeverityAgreement]:
    """The model by what it was shown, then the readers with each other; empty below ten scored studies."""
    scored = [i for i, study in enumerate(answers.studies) if study.severity is not None]
    if len(scored) < LEAST_STUDIES:
        return []
    mean = np.array([answers.studies[i].severity for i in scored], dtype=np.float64) * BRIXIA_MAXIMUM
    members = [answers.studies[i] for i in scored]
    found = [
        _agreement(
            shown, "mean of the readers", answers.severity[shown][scored] * BRIXIA_MAXIMUM, mean, members, resamples
        )
        for shown in INPUTS
        if shown in answers.severity
    ]
    both = [i for i in scored if all(answers.columns[i].get(column) for column in READER_COLUMNS)]
    if len(both) >= LEAST_STUDIES:
        senior, junior = (np.array([float(answers.columns[i][c]) for i in both]) for c in READER_COLUMNS)
        found.append(
            _agreement("junior reader", "senior reader", junior, senior, [answers.studies[i] for i in both], resamples)
        )
    return found


def _agreement(
    rater: str, reference: str, values: FloatArray, truth: FloatArray, studies: list[Study], resamples: int
) -> SeverityAgreement:
    def statistic(rows: IntArray) -> Mapping[str, float]:
        constant = np.ptp(values[rows]) == 0 or np.ptp(truth[rows]) == 0
        return {
            "Pearson r": np.nan if constant else float(pearsonr(values[rows], truth[rows]).statistic),
            "Spearman rho": np.nan if constant else float(spearmanr(values[rows], truth[rows]).statistic),
            "MAE": float(mean_absolute_error(truth[rows], values[rows])),
        }

    patients = [f"{study.source} {study.patient}" for study in studies]
    source = ", ".join(sorted({study.source for study in studies}))
    figures = intervals(statistic, patients, resamples)
    return SeverityAgreement(rater, reference, source, len(truth), figures, values=values, truth=truth)
