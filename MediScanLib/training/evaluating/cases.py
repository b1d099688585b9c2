"""The best and the worst cases of every task, with their pictures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from ...prediction.predictor import Predictor
from ...prediction.result import Prediction
from ...study.image import MedicalImage
from .answers import Answers
from .asking import read_study
from .within import TaskRows, task_rows

Draw = Callable[[MedicalImage, Prediction, str], Image.Image]
"""Makes the picture of a prediction with the heat map of a finding."""


@dataclass(frozen=True)
class Case:
    """One study worth looking at.

    Attributes:
        kind: "best", "missed" (the finding is there and got the lowest probability) or "false alarm".
        task: In words.
        source: Data set.
        row: Position in the answers.
        image: As the manifest names it.
        label: Manifest label.
        finding: Finding of the task, whose heat map is shown.
        probability: Of that finding.
        threshold: Its operating point.
    """

    kind: str
    task: str
    source: str
    row: int
    image: str
    label: str
    finding: str
    probability: float
    threshold: float


def choose_cases(answers: Answers) -> list[Case]:
    """For each task the surest hit, and where there are any the worst miss and the worst false alarm."""
    found = []
    for rows in task_rows(answers):
        score, decided, truth = rows.score(), rows.decided(), rows.truth
        for kind, candidates, order in (
            ("best", truth & decided, score),
            ("missed", truth & ~decided, -score),
            ("false alarm", ~truth & decided, score),
        ):
            if candidates.any():
                found.append(_case(kind, rows, int(np.where(candidates, order, -np.inf).argmax())))
    return found


def draw_cases(
    cases: Sequence[Case], answers: Answers, predictor_of: Callable[[int], Predictor], draw: Draw
) -> list[tuple[Case, Image.Image]]:
    """Each case with its picture, by the predictor that answered this row."""
    pictures = []
    for case in cases:
        study = answers.studies[case.row]
        image = read_study(study)
        pictures.append((case, draw(image, predictor_of(case.row)(image, study.record), case.finding)))
    return pictures


def _case(kind: str, rows: TaskRows, at: int) -> Case:
    row, answers = int(rows.rows[at]), rows.answers
    return Case(
        kind=kind,
        task=rows.task.name,
        source=rows.task.source,
        row=row,
        image=answers.columns[row]["image"],
        label=answers.studies[row].label,
        finding=rows.task.positive,
        probability=float(rows.score()[at]),
        threshold=float(answers.thresholds[row, answers.labels.index(rows.task.positive)]),
    )
