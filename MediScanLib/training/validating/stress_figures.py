"""Figures of the stress tests: within each source, beside the untouched study."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..datasets import Study
from ..evaluating.bootstrap import Figure, IntArray, intervals
from ..evaluation import Task, tasks_in
from .degradations import DEGRADATIONS
from .journal import Journal
from .models import Model
from .ranking import Ranking
from .request import Request
from .stress import AS_IS, BLACK, FIELDS, HIDDEN, OPPOSITE, SWAPPED, stress_key

AUC, LOST, DEFERRED, MORE_DEFERRED, CHANGED = (
    "AUC-ROC",
    "AUC-ROC - as is",
    "deferred",
    "deferred - as is",
    "decisions changed",
)


@dataclass(frozen=True)
class StressPoint:
    """One task under one condition.

    Attributes:
        model: Model.
        task: In words.
        source: Data set.
        condition: One of DEGRADATIONS by name, or of the conditions in `stress`.
        degree: How much, in the condition's unit; the number of known fields for FIELDS.
        studies: Number of studies.
        positives: Of these with the finding.
        affected: Studies to which the condition makes a difference at all: those with more known fields than `degree`
            for FIELDS, all for the others.
        figures: AUC of the finding, what it lost, share deferred, share of decisions on the finding that changed;
            differences are paired.
    """

    model: str
    task: str
    source: str
    condition: str
    degree: float
    studies: int
    positives: int
    affected: int
    figures: Mapping[str, Figure]


@dataclass(frozen=True, eq=False)
class _Answered:
    """A study and its answers by condition and degree."""

    study: Study
    answers: Mapping[tuple[str, float], Sequence[Mapping[str, Any]]]

    @classmethod
    def of(cls, study: Study, answers: Sequence[Mapping[str, Any]]) -> _Answered:
        found: dict[tuple[str, float], list[Mapping[str, Any]]] = {}
        for answer in answers:
            found.setdefault((answer["condition"], answer["degree"]), []).append(answer)
        return cls(study, found)

    @property
    def fields(self) -> int:
        """Number of known fields."""
        return int(max(degree for condition, degree in self.answers if condition == FIELDS))

    def under(self, condition: str, degree: float) -> Sequence[Mapping[str, Any]]:
        """Its answers; with fewer fields known than asked for, those with all of them."""
        if condition == FIELDS:
            degree = min(degree, self.fields)
        return self.answers.get((condition, degree), ())


def stress_points(
    studies: Sequence[Study], models: Sequence[Model], request: Request, journal: Journal
) -> list[StressPoint]:
    """Every task that the studies can answer under every condition, by model."""
    found = []
    for model in models:
        answered = [
            _Answered.of(study, answers)
            for study in studies
            if (answers := journal.get(stress_key(study, model.name))) is not None
        ]
        for task in tasks_in([item.study for item in answered]):
            if task.positive in model.labels:
                found += _of_task(model.name, task, answered, request)
    return found


def conditions_of(answered: Sequence[Any]) -> list[tuple[str, float]]:
    """All conditions of some studies, from mild to severe; nothing is hidden where nothing is known."""
    most = max((item.fields for item in answered), default=0)
    conditions = [(FIELDS, float(size)) for size in range(most, -1, -1)] if most else []
    conditions += [(damage.name, float(degree)) for damage in DEGRADATIONS for degree in damage.degrees]
    return [*conditions, (HIDDEN, 0.0), (BLACK, 0.0), (OPPOSITE, 0.0), (SWAPPED, 0.0)]


def _of_task(model: str, task: Task, answered: Sequence[_Answered], request: Request) -> list[StressPoint]:
    inside = [answered[i] for i in task.rows([item.study for item in answered])]
    points = []
    for condition, degree in [(AS_IS, 0.0), *conditions_of(inside)]:
        own = [item for item in inside if item.under(condition, degree)]
        truth = np.array([item.study.label == task.positive for item in own], dtype=np.bool_)
        if not truth.any() or truth.all():
            continue
        affected = sum(item.fields > degree for item in own) if condition == FIELDS else len(own)
        points.append(
            StressPoint(
                model=model,
                task=task.name,
                source=task.source,
                condition=condition,
                degree=degree,
                studies=len(own),
                positives=int(truth.sum()),
                affected=affected,
                figures=_figures(task.positive, truth, own, condition, degree, request),
            )
        )
    return points


def _figures(
    label: str,
    truth: np.ndarray,
    own: Sequence[_Answered],
    condition: str,
    degree: float,
    request: Request,
) -> Mapping[str, Figure]:
    before = [item.under(AS_IS, 0.0) for item in own]
    after = [item.under(condition, degree) for item in own]
    ranks = [
        Ranking(truth, [[a["probabilities"][label] for a in answers] for answers in side]) for side in (before, after)
    ]
    deferred = [np.array([np.mean([a["deferred"] for a in answers]) for answers in side]) for side in (before, after)]
    changed = np.array(
        [
            np.mean([(label in a["present"]) != (label in first[0]["present"]) for a in answers])
            for first, answers in zip(before, after, strict=True)
        ]
    )

    def statistic(rows: IntArray) -> Mapping[str, float]:
        old, new = (ranking.auc(rows) for ranking in ranks)
        share = [float(side[rows].mean()) for side in deferred]
        return {
            AUC: new,
            LOST: new - old,
            DEFERRED: share[1],
            MORE_DEFERRED: share[1] - share[0],
            CHANGED: float(changed[rows].mean()),
        }

    return intervals(statistic, [item.study.patient for item in own], request.resamples, request.seed)
