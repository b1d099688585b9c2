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
from .evaluating.bootstrap import intervals

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

    def rows(self, studies: Sequence[Study]) -> list[int]:
        """Positions of the studies that take part."""
        sides = (self.positive, *self.negatives)
        return [i for i, study in enumerate(studies) if study.source == self.source and study.label in sides]

    def answerable(self, studies: Sequence[Study]) -> bool:
        """Whether both sides have studies."""
        return len({studies[i].label == self.positive for i in self.rows(studies)}) == 2


WITHIN_SOURCE_TASKS = (
    Task("pneumonia vs normal", "nih", "pneumonia", ("normal",)),
    Task("covid vs other pneumonia", "cohen", "covid", ("pneumonia",)),
    Task("fracture vs normal", "bone_eeeh", "fracture", ("normal",)),
    Task("fracture vs normal", "bone_roboflow", "fracture", ("normal",)),
    Task("cancer vs benign and normal", "busi", "cancer", ("benign", "normal")),
    Task("cancer vs benign and normal", "iqothnccd", "cancer", ("benign", "normal")),
)
"""Comparing classes across sources mostly measures the source."""


def tasks_in(studies: Sequence[Study]) -> list[Task]:
    """The comparisons that the studies can answer: the known ones, and in any other source each finding alone."""
    known = {task.source for task in WITHIN_SOURCE_TASKS}
    tasks = list(WITHIN_SOURCE_TASKS)
    for source in sorted({study.source for study in studies} - known):
        inside = [study for study in studies if study.source == source]
        for position, label in enumerate(LABELS):
            # a label that leaves the finding open stands on neither side
            others = tuple(sorted({study.label for study in inside if not study.allowed[position]}))
            if label != "normal":
                tasks.append(Task(f"{label} vs {' and '.join(others)}", source, label, others))
    return [task for task in tasks if task.answerable(studies)]


def tasks_by_label(studies: Sequence[Study]) -> dict[str, list[Task]]:
    """The comparisons that tell how well each of LABELS is recognized within its sources.

    Normal is compared with the finding of its source; benign studies stand aside there, being neither.
    """
    tasks = tasks_in(studies)
    turned = [
        Task(f"normal vs {task.positive}", task.source, "normal", (task.positive,))
        for task in tasks
        if "normal" in task.negatives
    ]
    every = [*tasks, *(task for task in turned if task.answerable(studies))]
    return {label: [task for task in every if task.positive == label] for label in LABELS}


def within_source_auc(studies: Sequence[Study], probabilities: Array, split: str, suffix: str = "") -> list[Metric]:
    """AUC-ROC of every task that the studies can answer, with patient-level bootstrap 95 % intervals.

    Args:
        studies: Studies.
        probabilities: (study, label), rows as `studies`.
        split: Name of the split, for the metric.
        suffix: Added to the metric's name, such as " (image only)".
    """
    metrics = []
    for task in tasks_in(studies):
        rows = task.rows(studies)
        truth = np.array([studies[i].label == task.positive for i in rows])
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
    """Point estimate and 95 % percentile interval of one statistic; see `evaluating.bootstrap.intervals`.

    Args:
        statistic: Of the rows at the given positions; ValueError where it is undefined.
        patients: Patient of each row; the rows of a patient stay together.
        rounds: Resamples.
        seed: Of the resampling.
    """
    figure = intervals(lambda rows: {"": statistic(rows)}, patients, rounds, seed)[""]
    return figure.value, figure.low, figure.high
