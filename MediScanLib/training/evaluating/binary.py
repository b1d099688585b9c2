"""Figures of one finding against others: discrimination, decisions at the operating point, calibration."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch
from monai.metrics import calibration_binning, compute_confusion_matrix_metric
from sklearn.metrics import average_precision_score, brier_score_loss, roc_auc_score

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

CALIBRATION_BINS = 10
NAMES = (
    *("accuracy", "sensitivity", "specificity", "precision", "recall", "F1", "AUC-ROC", "AUC-PR", "ECE", "Brier"),
)
_DECISIONS = {
    "accuracy": "accuracy",
    "sensitivity": "sensitivity",
    "specificity": "specificity",
    "precision": "precision",
    "recall": "sensitivity",
    "F1": "f1 score",
}
HEADLINE = ("accuracy", "precision", "recall", "F1", "AUC-ROC")


def binary_figures(
    truth: BoolArray, score: FloatArray, decided: BoolArray, names: Sequence[str] = NAMES
) -> Mapping[str, float]:
    """Figures by name; NaN where one is undefined, such as the precision of a model that calls nothing present.

    Args:
        truth: (study,) whether the finding is there.
        score: (study,) its probability.
        decided: (study,) whether it was called present.
        names: Which of NAMES.

    Raises:
        ValueError: One class only.
    """
    if truth.all() or not truth.any():
        raise ValueError("one class only")
    tn, fp, fn, tp = np.bincount(2 * truth + decided, minlength=4)
    counts = torch.tensor([tp, fp, tn, fn], dtype=torch.float64)
    measures: dict[str, Callable[[], float]] = {
        "AUC-ROC": lambda: roc_auc_score(truth, score),
        "AUC-PR": lambda: average_precision_score(truth, score),
        "ECE": lambda: calibration_error(truth, score),
        "Brier": lambda: brier_score_loss(truth, score),
    }
    return {
        name: float(
            measures[name]() if name in measures else compute_confusion_matrix_metric(_DECISIONS[name], counts)
        )
        for name in names
    }


def calibration_error(truth: BoolArray, score: FloatArray) -> float:
    """Expected calibration error over ten equal bins (Naeini et al., AAAI 2015; Guo et al., ICML 2017)."""
    predicted, observed, counts = calibration_bins(truth, score)
    return float(np.nansum(np.abs(predicted - observed) * counts) / counts.sum())


def calibration_bins(truth: BoolArray, score: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Mean probability, observed share and number of studies of each bin; the first two NaN where it is empty."""
    binned = calibration_binning(
        torch.from_numpy(np.ascontiguousarray(score, dtype=np.float32))[None, None],
        torch.from_numpy(np.ascontiguousarray(truth, dtype=np.float32))[None, None],
        num_bins=CALIBRATION_BINS,
    )
    predicted, observed, counts = (part[0, 0].double().numpy() for part in binned)
    return predicted, observed, counts
