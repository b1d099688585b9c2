"""Figures over all sources at once. They mostly measure which source an image comes from, and are named so."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from sklearn.metrics import roc_auc_score

from ..datasets import LABELS
from .answers import FUSED, Answers
from .binary import calibration_error
from .bootstrap import RESAMPLES, Figure, IntArray, intervals

CONFOUNDED = "across sources (confounded)"


@dataclass(frozen=True)
class AcrossSources:
    """Figures over all studies, and how the manifest's labels were answered.

    Attributes:
        studies: Number of studies.
        figures: "top-1 accuracy" (the likeliest finding is one that the label allows), "ECE of the likeliest finding",
            "mean AUC-ROC, one against the rest", and per finding "AUC-ROC of L", "ECE of L".
        truth: Manifest labels, rows of `confusion`.
        labels: Findings, columns of `confusion`.
        confusion: Number of studies by manifest label and likeliest finding.
    """

    studies: int
    figures: Mapping[str, Figure]
    truth: tuple[str, ...]
    labels: tuple[str, ...]
    confusion: tuple[tuple[int, ...], ...]


def across_sources(answers: Answers, resamples: int = RESAMPLES) -> AcrossSources:
    """Figures of the fused answers over all studies."""
    studies, labels = answers.studies, answers.labels
    probabilities = answers.probabilities[FUSED]
    top = probabilities.argmax(axis=1)
    allowed = allowed_labels(answers)
    right = allowed[np.arange(len(studies)), top]
    confidence = probabilities.max(axis=1)
    own = np.array([[study.label == label for label in labels] for study in studies])

    def statistic(rows: IntArray) -> Mapping[str, float]:
        figures = {
            "top-1 accuracy": float(right[rows].mean()),
            "ECE of the likeliest finding": calibration_error(right[rows], confidence[rows]),
        }
        single = []
        for k, label in enumerate(labels):
            # a study whose label leaves the finding open is neither with nor without it
            clear = rows[own[rows, k] | ~allowed[rows, k]]
            truth = own[clear, k]
            if truth.any() and not truth.all():
                single.append(float(roc_auc_score(truth, probabilities[clear, k])))
                figures[f"AUC-ROC of {label}"] = single[-1]
                figures[f"ECE of {label}"] = calibration_error(truth, probabilities[clear, k])
        if single:
            figures["mean AUC-ROC, one against the rest"] = float(np.mean(single))
        return figures

    present = {study.label for study in studies}
    names = [label for label in (*labels, *sorted(present - set(labels))) if label in present]
    confusion = [
        tuple(
            int(sum(study.label == name and top[i] == k for i, study in enumerate(studies)))
            for k in range(len(labels))
        )
        for name in names
    ]
    return AcrossSources(
        studies=len(studies),
        figures=intervals(
            statistic,
            [study.patient for study in studies],
            resamples,
            strata=[study.source for study in studies],
        ),
        truth=tuple(names),
        labels=labels,
        confusion=tuple(confusion),
    )


def allowed_labels(answers: Answers) -> npt.NDArray[np.bool_]:
    """(study, finding) bool, the findings that a study's label leaves possible."""
    order = [LABELS.index(label) if label in LABELS else None for label in answers.labels]
    return np.array([[k is not None and study.allowed[k] for k in order] for study in answers.studies])
