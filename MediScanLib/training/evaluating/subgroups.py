"""Whether the model does equally well for everybody: tasks by sex, age band, view, second reading and source."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..datasets import Study
from .answers import Answers
from .binary import BoolArray
from .bootstrap import RESAMPLES, Figure, IntArray, intervals
from .within import TaskRows, task_rows

SCORED = ("AUC-ROC", "sensitivity", "specificity")
LEAST_OF_A_KIND = 5
"""Studies with, and without, the finding below which a group is listed but not scored."""

AGE_BANDS = ((0.0, 40.0, "under 40"), (40.0, 60.0, "40 to 59"), (60.0, math.inf, "60 and over"))

_READINGS = {"pneumonia": "Lung Opacity", "normal": "Normal"}
"""What the readers of the RSNA pneumonia challenge say where they agree with a label (Shih et al., 2019)."""


@dataclass(frozen=True)
class Subgroup:
    """One group of one task.

    Attributes:
        task: In words.
        sources: Data sets.
        attribute: sex, age, view, second reading or source.
        group: Its value.
        studies: Number of studies.
        positives: Of these with the finding.
        figures: By name of SCORED; empty where there are too few.
        reference: The group that differences are taken from, the largest; None where this is it or none is scored.
        differences: This group's figures minus the reference's.
    """

    task: str
    sources: tuple[str, ...]
    attribute: str
    group: str
    studies: int
    positives: int
    figures: Mapping[str, Figure]
    reference: str | None
    differences: Mapping[str, Figure]


def age_band(study: Study) -> str:
    """Band of the age, "" where unknown."""
    age = study.record.age_years
    if age is None:
        return ""
    return next(name for low, high, name in AGE_BANDS if low <= age < high)


def second_reading(study: Study, note: str) -> str:
    """Whether readers who looked at a pneumonia study again agree with its label, "" where nobody did.

    Args:
        study: Study.
        note: The manifest's label_note, "... readers: Lung Opacity", "... readers: Normal" or something else.
    """
    _, marker, reading = note.rpartition("readers: ")
    if not marker or study.label not in _READINGS:
        return ""
    return "readers agree" if reading == _READINGS[study.label] else "readers disagree"


def subgroups(answers: Answers, resamples: int = RESAMPLES) -> list[Subgroup]:
    """All groups of all tasks; an attribute that does not vary within a task is left out."""
    found = []
    attributes: dict[str, Callable[[int], str]] = {
        "sex": lambda i: answers.studies[i].record.sex or "",
        "age": lambda i: age_band(answers.studies[i]),
        "view": lambda i: answers.columns[i].get("view", ""),
        "second reading": lambda i: second_reading(answers.studies[i], answers.columns[i].get("label_note", "")),
    }
    tasks = task_rows(answers)
    for rows in tasks:
        for attribute, value in attributes.items():
            groups = [value(int(i)) for i in rows.rows]
            found += _compare(rows.task.name, (rows.task.source,), attribute, rows, groups, resamples)
    for name in dict.fromkeys(rows.task.name for rows in tasks):
        same = [rows for rows in tasks if rows.task.name == name]
        if len(same) > 1:
            joined = TaskRows(same[0].task, answers, np.concatenate([rows.rows for rows in same]))
            groups = [answers.studies[i].source for i in joined.rows]
            found += _compare(name, tuple(rows.task.source for rows in same), "source", joined, groups, resamples)
    return found


def _compare(
    task: str, sources: tuple[str, ...], attribute: str, rows: TaskRows, groups: Sequence[str], resamples: int
) -> list[Subgroup]:
    names = sorted(set(groups) - {""})
    if len(names) < 2:
        return []
    members: dict[str, BoolArray] = {name: np.array([group == name for group in groups]) for name in names}
    scored = [name for name in names if _enough(rows.truth[members[name]])]
    reference = max(scored, key=lambda name: int(members[name].sum()), default=None)

    def statistic(chosen: IntArray) -> Mapping[str, float]:
        single = {name: _figures(rows, chosen[members[name][chosen]]) for name in scored}
        return {
            **{f"{name}|{figure}": value for name, own in single.items() for figure, value in own.items()},
            **{
                f"{name}-{figure}": value - single[reference][figure]
                for name, own in single.items()
                if reference is not None and name != reference
                for figure, value in own.items()
            },
        }

    strata = [rows.answers.studies[i].source for i in rows.rows]
    figures = intervals(statistic, rows.patients, resamples, strata=strata)
    return [
        Subgroup(
            task=task,
            sources=sources,
            attribute=attribute,
            group=name,
            studies=int(members[name].sum()),
            positives=int(rows.truth[members[name]].sum()),
            figures={figure: figures[f"{name}|{figure}"] for figure in SCORED} if name in scored else {},
            reference=reference if name in scored and name != reference else None,
            differences={figure: figures[f"{name}-{figure}"] for figure in SCORED}
            if name in scored and name != reference
            else {},
        )
        for name in names
    ]


def _enough(truth: BoolArray) -> bool:
    return min(int(truth.sum()), int((~truth).sum())) >= LEAST_OF_A_KIND


def _figures(rows: TaskRows, chosen: IntArray) -> Mapping[str, float]:
    try:
        return rows.figures(chosen, SCORED)
    except ValueError:  # one class only in this resample
        return dict.fromkeys(SCORED, math.nan)
