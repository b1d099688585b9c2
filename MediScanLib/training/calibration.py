"""Calibration and thresholds, fitted on the validation split only."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from scipy.optimize import minimize, minimize_scalar
from torch import Tensor

from ..network.card import Calibration, Threshold
from .datasets import LABELS, Study
from .evaluation import Task, tasks_by_label

Array = npt.NDArray[np.float64]


PENALTY = 0.01
"""Of squared distances from a single temperature; val is small, and a free fit of every finding would follow it."""


def fit_calibration(logits: Tensor, allowed: Tensor, fitted_on: str) -> Calibration:
    """Vector scaling that minimizes the negative log likelihood of the allowed labels (Guo et al., ICML 2017).

    First the one temperature, then a scale and a shift for each finding, held near it.

    Args:
        logits: (study, label).
        allowed: (study, label) bool.
        fitted_on: Which studies these are, for the card.
    """
    logits, labels = logits.double(), logits.shape[1]

    def loss(log_scale: Tensor, shift: Tensor) -> Tensor:
        log_p = torch.log_softmax(logits * log_scale.exp() + shift, dim=1)
        return -torch.logsumexp(log_p.masked_fill(~allowed, -torch.inf), dim=1).mean()

    none = torch.zeros(labels, dtype=torch.float64)
    common = float(minimize_scalar(lambda x: float(loss(none + x, none)), bounds=(-3, 2), method="bounded").x)

    def penalized(parameters: Array) -> tuple[float, Array]:
        point = torch.tensor(parameters, dtype=torch.float64, requires_grad=True)
        value = loss(common + point[:labels], point[labels:]) + PENALTY * point.square().sum()
        (gradient,) = torch.autograd.grad(value, point)
        return float(value.detach()), gradient.numpy()

    found = minimize(penalized, np.zeros(2 * labels), jac=True, method="L-BFGS-B").x
    return Calibration(
        scale=[round(float(x), 6) for x in np.exp(common + found[:labels])],
        shift=[round(float(x), 6) for x in found[labels:]],
        fitted_on=fitted_on,
    )


def choose_thresholds(
    studies: Sequence[Study],
    probabilities: Array,
    split: str,
    *,
    sensitivity: float = 0.0,
    specificity: float = 0.0,
) -> dict[str, Threshold]:
    """For each label the threshold with the largest sensitivity + specificity - 1 (Youden 1950), within its sources.

    Only thresholds that reach the given sensitivity and specificity are looked at, where there are any. Both are
    averaged over the sources that can answer for the label, so that a large source does not decide for a small one.
    The card states both.

    Args:
        studies: Studies.
        probabilities: (study, label) calibrated.
        split: Name of the split, for the card.
        sensitivity: To reach.
        specificity: To reach.
    """
    thresholds = {}
    for label, tasks in tasks_by_label(studies).items():
        column = probabilities[:, LABELS.index(label)]
        groups = _comparisons(studies, tasks)
        candidates = np.unique(np.round(column, 3)) if groups else ()
        best, value, text = (False, -1.0), 0.5, "no study to choose it on"
        for candidate in candidates:
            sensed = float(np.mean([(column[positive] >= candidate).mean() for positive, _ in groups]))
            specific = float(np.mean([(column[negative] < candidate).mean() for _, negative in groups]))
            worth = (sensed >= sensitivity and specific >= specificity, sensed + specific - 1)
            if worth > best:
                best, value = worth, float(candidate)
                text = f"sensitivity {sensed:.2f}, specificity {specific:.2f} on {split}, within source"
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
