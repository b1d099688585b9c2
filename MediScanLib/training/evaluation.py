"""Figures with their intervals, each disease within its own source."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
from sklearn.metrics import roc_auc_score

from ..network.card import Metric
from .datasets import LABELS, Study

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Task:
    """A comparison that means something: one finding against others, inside one source.

    Attributes:
        name: In words.
        source: Data set.
        positive: Finding.
        negatives: Manifest labels on the other side.
    """

    name: str
    source: str
    positive: str
    negatives: tuple[str, ...]


WITHIN_SOURCE_TASKS = (
    Task("pneumonia vs normal", "nih", "pneumonia", ("normal",)),
    Task("covid vs other pneumonia", "cohen", "covid", ("pneumonia",)),
    Task("fracture vs normal", "bone_eeeh", "fracture", ("normal",)),
    Task("fracture vs normal", "bone_roboflow", "fracture", ("normal",)),
    Task("cancer vs benign and normal", "busi", "cancer", ("benign", "normal")),
    Task("cancer vs benign and normal", "iqothnccd", "cancer", ("benign", "normal")),
)
"""Comparing classes across sources mostly measures the source."""


def within_source_auc(studies: Sequence[Study], probabilities: Array, split: str, suffix: str = "") -> list[Metric]:
    """AUC-ROC of every task that the studies can answer, with patient-level bootstrap 95 % intervals.

    Args:
        studies: Studies.
        probabilities: (study, label), rows as `studies`.
        split: Name of the split, for the metric.
        suffix: Added to the metric's name, such as " (image only)".
    """
    metrics = []
    for task in WITHIN_SOURCE_TASKS:
        rows = [
            i
            for i, study in enumerate(studies)
            if study.source == task.source and study.label in (task.positive, *task.negatives)
        ]
        truth = np.array([studies[i].label == task.positive for i in rows])
        if len(set(truth.tolist())) < 2:
            continue
        scores = probabilities[rows, LABELS.index(task.positive)]
        patients = [studies[i].patient for i in rows]
        value, low, high = bootstrap(partial(_auc, truth, scores), patients)
        metrics.append(
            Metric(
                name=f"AUC-ROC{suffix}",
                task=task.name,
                source=task.source,
                split=split,
                studies=len(rows),
                value=round(value, 4),
                low=round(low, 4),
                high=round(high, 4),
            )
        )
    return metrics


def _auc(truth: npt.NDArray[np.bool_], scores: Array, chosen: npt.NDArray[np.int64]) -> float:
    if truth[chosen].all() or not truth[chosen].any():
        raise ValueError("one class only")
    return float(roc_auc_score(truth[chosen], scores[chosen]))


def severity_correlation(studies: Sequence[Study], scores: Array, split: str) -> list[Metric]:
    """Pearson correlation with the readers' mean Brixia score; empty below ten scored studies."""
    rows = [i for i, study in enumerate(studies) if study.severity is not None]
    if len(rows) < 10:
        return []
    truth = np.array([studies[i].severity for i in rows], dtype=np.float64)
    predicted = scores[rows]
    value, low, high = bootstrap(
        lambda chosen: float(np.corrcoef(truth[chosen], predicted[chosen])[0, 1]), [studies[i].patient for i in rows]
    )
    return [
        Metric(
            name="Pearson r",
            task="severity against the readers' mean Brixia score",
            source=", ".join(sorted({studies[i].source for i in rows})),
            split=split,
            studies=len(rows),
            value=round(value, 4),
            low=round(low, 4),
            high=round(high, 4),
        )
    ]


def bootstrap(
    statistic: Callable[[npt.NDArray[np.int64]], float], patients: Sequence[str], rounds: int = 1000, seed: int = 0
) -> tuple[float, float, float]:
    """Point estimate and 95 % percentile interval of a statistic, resampling patients (Efron and Tibshirani 1993).

    Args:
        statistic: Of the rows at the given positions; a resample for which it is undefined is drawn again.
        patients: Patient of each row; the rows of a patient stay together.
        rounds: Resamples.
        seed: Of the resampling.
    """
    rng = np.random.default_rng(seed)
    names, group = np.unique(np.asarray(patients), return_inverse=True)
    members = [np.flatnonzero(group == i) for i in range(len(names))]
    values: list[float] = []
    for _ in range(20 * rounds):
        if len(values) == rounds:
            break
        drawn = np.concatenate([members[i] for i in rng.integers(0, len(names), len(names))])
        try:
            with np.errstate(invalid="ignore", divide="ignore"):
                value = statistic(drawn)
        except ValueError:  # one class only
            continue
        if np.isfinite(value):
            values.append(value)
    everything = statistic(np.arange(len(group)))
    low, high = np.percentile(values, (2.5, 97.5)) if values else (np.nan, np.nan)
    return everything, float(low), float(high)
