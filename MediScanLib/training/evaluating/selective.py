"""Risk and coverage: how the error falls when the least certain studies are left to a human.

El-Yaniv and Wiener, "On the Foundations of Noise-free Selective Classification", JMLR 2010.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy.special import logit

from .answers import Answers, FloatArray
from .bootstrap import RESAMPLES, Figure, IntArray, intervals
from .within import TaskRows, task_rows


@dataclass(frozen=True, eq=False)
class Selective:
    """Risk-coverage of one task.

    Attributes:
        task: In words.
        source: Data set.
        coverage: (study,) share of studies kept, the most certain first.
        risk: (study,) share of errors among them.
        figures: "area under the curve", "error on all", "coverage as deferred" (share that the model does not defer)
            and "error as deferred" (its error on these).
    """

    task: str
    source: str
    coverage: FloatArray
    risk: FloatArray
    figures: Mapping[str, Figure]


def selective(answers: Answers, resamples: int = RESAMPLES) -> list[Selective]:
    """Risk-coverage of every task."""
    return [_of_task(rows, resamples) for rows in task_rows(answers)]


def risk_coverage(wrong: FloatArray, certainty: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Coverage and risk, from the most certain study to all of them."""
    order = np.argsort(-certainty, kind="stable")
    kept = np.arange(1, len(order) + 1)
    return kept / len(order), np.cumsum(wrong[order]) / kept


def _of_task(rows: TaskRows, resamples: int) -> Selective:
    wrong = (rows.decided() != rows.truth).astype(np.float64)
    limits = rows.answers.thresholds[rows.rows, rows.answers.labels.index(rows.task.positive)]
    # distance from the operating point in log odds: the same on both sides of it wherever it lies
    certainty = np.abs(logit(np.clip(rows.score(), 1e-6, 1 - 1e-6)) - logit(np.clip(limits, 1e-6, 1 - 1e-6)))
    deferred = rows.answers.deferred[rows.rows]

    def statistic(chosen: IntArray) -> Mapping[str, float]:
        kept = chosen[~deferred[chosen]]
        return {
            "area under the curve": float(risk_coverage(wrong[chosen], certainty[chosen])[1].mean()),
            "error on all": float(wrong[chosen].mean()),
            "coverage as deferred": len(kept) / len(chosen),
            "error as deferred": float(wrong[kept].mean()) if len(kept) else np.nan,
        }

    coverage, risk = risk_coverage(wrong, certainty)
    figures = intervals(statistic, rows.patients, resamples)
    return Selective(rows.task.name, rows.task.source, coverage, risk, figures)
