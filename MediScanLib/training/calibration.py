"""Temperature and thresholds, fitted on the validation split only."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from scipy.optimize import minimize_scalar

from ..network.card import Threshold
from .datasets import LABELS, Study
from .evaluation import Task, tasks_by_label

Array = npt.NDArray[np.float64]


def fit_temperature(logits: torch.Tensor, allowed: torch.Tensor) -> float:
    """Temperature that minimizes the negative log likelihood of the allowed labels (Guo et al., ICML 2017).

    Args:
        logits: (study, label).
        allowed: (study, label) bool.
    """

    def loss(log_temperature: float) -> float:
        log_p = torch.log_softmax(logits.double() / np.exp(log_temperature), dim=1)
        return float(-torch.logsumexp(log_p.masked_fill(~allowed, -torch.inf), dim=1).mean())

    return float(np.exp(minimize_scalar(loss, bounds=(-2, 3), method="bounded").x))


def choose_thresholds(studies: Sequence[Study], probabilities: Array, split: str) -> dict[str, Threshold]:
    """For each label the threshold with the largest sensitivity + specificity - 1 (Youden 1950), within its sources.

    Sensitivity and specificity are averaged over the sources that can answer for the label, so that a large source
    does not decide for a small one. The card states both.
    """
    thresholds = {}
    for label, tasks in tasks_by_label(studies).items():
        column = probabilities[:, LABELS.index(label)]
        groups = _comparisons(studies, tasks)
        candidates = np.unique(np.round(column, 3)) if groups else ()
        best, value, text = -1.0, 0.5, "no study to choose it on"
        for candidate in candidates:
            sensitivity = np.mean([(column[positive] >= candidate).mean() for positive, _ in groups])
            specificity = np.mean([(column[negative] < candidate).mean() for _, negative in groups])
            if sensitivity + specificity - 1 > best:
                best, value = sensitivity + specificity - 1, float(candidate)
                text = f"sensitivity {sensitivity:.2f}, specificity {specificity:.2f} on {split}, within source"
        thresholds[label] = Threshold(value=value, margin=min(0.05, value / 4), operating_point=text)
    return thresholds


def _comparisons(studies: Sequence[Study], tasks: Sequence[Task]) -> list[tuple[list[int], list[int]]]:
    """(positive rows, negative rows) of each source in which a label is compared with something."""
    pairs = []
    for task in tasks:
        rows = task.rows(studies)
        positive = [i for i in rows if studies[i].label == task.positive]
        pairs.append((positive, [i for i in rows if studies[i].label != task.positive]))
    return pairs
