"""Risk and coverage: how the error falls when the least certain studies are left to a human.

El-Yaniv and Wiener, "On the Foundations of Noise-free Selective Classification", JMLR 2010.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from .answers import Answers, FloatArray
from .bootstrap import RESAMPLES, Figure, IntArray, intervals
from .within import TaskRows, task_rows

STATED_COVERAGE = 0.8


@dataclass(frozen=True, eq=False)
class Selective:
    """Risk-coverage of one task.

    Attributes:
        task: In words.
        source: Data set.
        coverage: (study,) share of studies kept, the most certain first.
        risk: (study,) share of errors among them.
        figures: "error on all"; "error at 80 % coverage", the most certain kept, and its "ratio at 80 %" to the error
            on all; "area under the curve"; "coverage as deferred", the share that the model does not defer, and "error
            as deferred", its error on these.
    """

    task: str
    source: str
    coverage: FloatArray
    risk: FloatArray
    figures: Mapping[str, Figure]

    @property
    def verdict(self) -> str:
        """What deferring does to the error, in words."""
        all_of_them, kept = (self.figures[name].value for name in ("error on all", "error as deferred"))
        if not math.isfinite(kept):
            return "everything is deferred"
        if kept > all_of_them:
            return "deferring makes it worse"
        return "deferring helps" if kept < all_of_them else "deferring changes nothing"


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
    certainty = rows.answers.certainty[rows.rows]
    deferred = rows.answers.deferred[rows.rows]

    def statistic(chosen: IntArray) -> Mapping[str, float]:
        kept = chosen[~deferred[chosen]]
        risk = risk_coverage(wrong[chosen], certainty[chosen])[1]
        at_most = float(risk[math.ceil(STATED_COVERAGE * len(chosen)) - 1])
        return {
            "error on all": float(risk[-1]),
            "error at 80 % coverage": at_most,
            "ratio at 80 %": at_most / float(risk[-1]) if risk[-1] else np.nan,
            "area under the curve": float(risk.mean()),
            "coverage as deferred": len(kept) / len(chosen),
            "error as deferred": float(wrong[kept].mean()) if len(kept) else np.nan,
        }

    coverage, risk = risk_coverage(wrong, certainty)
    figures = intervals(statistic, rows.patients, resamples)
    return Selective(rows.task.name, rows.task.source, coverage, risk, figures)
