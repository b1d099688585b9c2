"""Figures of each disease within its source, and their means: what may be quoted."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ..evaluation import Task, tasks_by_label, tasks_in
from .answers import FUSED, Answers, FloatArray
from .binary import HEADLINE, NAMES, BoolArray, binary_figures
from .bootstrap import RESAMPLES, Figure, IntArray, intervals


@dataclass(frozen=True, eq=False)
class TaskRows:
    """The studies of one task, ready to be scored.

    Attributes:
        task: The comparison.
        answers: The whole table.
        rows: Positions of the task's studies in it.
    """

    task: Task
    answers: Answers
    rows: IntArray

    @classmethod
    def of(cls, task: Task, answers: Answers) -> TaskRows:
        """The rows of a task."""
        return cls(task, answers, np.array(task.rows(answers.studies), dtype=np.int64))

    @cached_property
    def truth(self) -> BoolArray:
        """(row,) whether the finding is there."""
        return np.array([self.answers.studies[i].label == self.task.positive for i in self.rows], dtype=np.bool_)

    @cached_property
    def patients(self) -> list[str]:
        """Patient of each row."""
        return [self.answers.studies[i].patient for i in self.rows]

    @cached_property
    def _score(self) -> FloatArray:
        return self.score()

    @cached_property
    def _decided(self) -> BoolArray:
        return self.decided()

    def score(self, shown: str = FUSED) -> FloatArray:
        """(row,) probability of the finding."""
        return self.answers.score(self.task.positive, shown)[self.rows]

    def decided(self, shown: str = FUSED) -> BoolArray:
        """(row,) whether it is called present."""
        return self.answers.decided(self.task.positive, shown)[self.rows]

    def subset(self, keep: BoolArray) -> TaskRows:
        """The same task on some of its rows."""
        return TaskRows(self.task, self.answers, self.rows[keep])

    @property
    def has_both_sides(self) -> bool:
        """Whether the finding is there in some rows and not in others."""
        return bool(self.truth.any() and not self.truth.all())

    def figures(self, chosen: IntArray, names: Sequence[str] = NAMES) -> Mapping[str, float]:
        """Figures of the rows at these positions; ValueError where one class only."""
        return binary_figures(self.truth[chosen], self._score[chosen], self._decided[chosen], names)


@dataclass(frozen=True)
class WithinSource:
    """One row of the table within sources.

    Attributes:
        task: In words.
        label: Finding.
        source: Data set.
        studies: Number of studies.
        patients: Number of patients.
        positives: Studies with the finding.
        thresholds: Smallest and largest operating point that was applied (one model has one).
        figures: By name of `binary.NAMES`.
    """

    task: str
    label: str
    source: str
    studies: int
    patients: int
    positives: int
    thresholds: tuple[float, float]
    figures: Mapping[str, Figure]

    @property
    def prevalence(self) -> float:
        """Share of studies with the finding."""
        return self.positives / self.studies


@dataclass(frozen=True)
class MeanOverSources:
    """A finding's figures, each the unweighted mean of those within its sources.

    Attributes:
        label: Finding, or "all" for the mean over the tasks.
        tasks: What was averaged, "task (source)".
        studies: Number of studies.
        positives: Of these with the finding.
        figures: By name; empty where no source can answer.
    """

    label: str
    tasks: tuple[str, ...]
    studies: int
    positives: int
    figures: Mapping[str, Figure]


def task_rows(answers: Answers) -> list[TaskRows]:
    """The rows of every task that the answers can be scored on."""
    return [TaskRows.of(task, answers) for task in tasks_in(answers.studies)]


def within_source(answers: Answers, resamples: int = RESAMPLES) -> list[WithinSource]:
    """Every task with all its figures."""
    table = []
    for rows in task_rows(answers):
        limits = answers.thresholds[rows.rows, answers.labels.index(rows.task.positive)]
        table.append(
            WithinSource(
                task=rows.task.name,
                label=rows.task.positive,
                source=rows.task.source,
                studies=len(rows.rows),
                patients=len(set(rows.patients)),
                positives=int(rows.truth.sum()),
                thresholds=(float(limits.min()), float(limits.max())),
                figures=intervals(rows.figures, rows.patients, resamples),
            )
        )
    return table


def by_disease(answers: Answers, resamples: int = RESAMPLES) -> list[MeanOverSources]:
    """The first table: each finding of the model within its sources, the mean where there are several."""
    tasks = tasks_by_label(answers.studies)
    return [
        _mean(label, [TaskRows.of(t, answers) for t in tasks.get(label, [])], HEADLINE, resamples)
        for label in answers.labels
    ]


def overall(answers: Answers, resamples: int = RESAMPLES) -> MeanOverSources:
    """Unweighted mean over all tasks."""
    return _mean("all", task_rows(answers), NAMES, resamples)


def _mean(label: str, parts: Sequence[TaskRows], names: Sequence[str], resamples: int) -> MeanOverSources:
    """Mean over tasks, its interval by drawing patients within each source."""
    starts = np.cumsum([0, *(len(part.rows) for part in parts)])

    def statistic(chosen: IntArray) -> Mapping[str, float]:
        inside = [
            part.figures(chosen[(chosen >= start) & (chosen < stop)] - start, names)
            for part, start, stop in zip(parts, starts[:-1], starts[1:], strict=True)
        ]
        return {name: math.fsum(figures[name] for figures in inside) / len(inside) for name in names}

    studies = {int(i): part.task for part in parts for i in part.rows}
    return MeanOverSources(
        label=label,
        tasks=tuple(f"{part.task.name} ({part.task.source})" for part in parts),
        studies=len(studies),
        positives=sum(int(part.truth.sum()) for part in parts),
        figures=intervals(
            statistic,
            [patient for part in parts for patient in part.patients],
            resamples,
            strata=[f"{number}" for number, part in enumerate(parts) for _ in part.rows],
        )
        if parts
        else {},
    )
