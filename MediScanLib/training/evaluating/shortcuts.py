"""What can be had without looking at the picture: simple models on facts beside it, fitted on train.

A figure of the network means something only above these. The view and the follow-up number tell who was well enough to
stand and who came back; the size of a file tells how tightly it was cropped; the source tells which labels there are.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from ..datasets import Study
from .across import CONFOUNDED, allowed_labels
from .answers import FUSED, Answers, FloatArray
from .bootstrap import RESAMPLES, Figure, IntArray, intervals
from .within import TaskRows, task_rows

Columns = Sequence[Mapping[str, str]]

VIEW = "view and follow-up number"
SIZE = "size of the image as distributed"
SOURCE = "source alone"
_FOLLOW_UP = re.compile(r"^\d{8}_(\d{3})$")


@dataclass(frozen=True)
class Shortcut:
    """A model without pixels on one task.

    Attributes:
        shortcut: Which facts it sees.
        task: In words; "likeliest finding" for the source alone over everything.
        source: Data set, or CONFOUNDED.
        studies: Number of studies.
        figures: "AUC-ROC", "accuracy" of the shortcut, and "model's AUC-ROC - shortcut's" or "model's accuracy -
            shortcut's", paired.
    """

    shortcut: str
    task: str
    source: str
    studies: int
    figures: Mapping[str, Figure]


def shortcuts(
    answers: Answers, train: Sequence[Study], train_columns: Columns, resamples: int = RESAMPLES
) -> list[Shortcut]:
    """Shortcuts fitted on `train` and scored on the studies of `answers`; empty without training studies.

    Args:
        answers: What the model said.
        train: Studies of the training split.
        train_columns: Further columns of their manifest.
        resamples: Of the bootstrap.
    """
    if not train:
        return []
    found = []
    for rows in task_rows(answers):
        if not rows.task.answerable(train):
            continue
        for name, facts in _FACTS.items():
            own = facts(rows.answers.columns, rows.rows)
            fitted = _fit(rows, train, train_columns, facts)
            if fitted is not None and own is not None:
                found.append(_scored(name, rows, fitted(own), resamples))
        found.append(_scored(SOURCE, rows, np.full(len(rows.rows), _majority(rows, train)), resamples))
    found.append(_source_over_everything(answers, train, resamples))
    return found


def _view_facts(columns: Columns, rows: Sequence[int] | IntArray) -> FloatArray | None:
    """View as one-hot, and the logarithm of the follow-up number, also found in ChestX-ray14 file names."""
    table = []
    for i in rows:
        view = columns[i].get("view", "").upper()
        follow_up = _FOLLOW_UP.match(columns[i]["image"].rsplit("/", 1)[-1].rsplit(".", 1)[0])
        table.append(
            [
                *(float(view == name) for name in ("PA", "AP", "AP SUPINE")),
                np.log1p(float(columns[i].get("follow_up") or (follow_up[1] if follow_up else 0))),
            ]
        )
    return np.array(table)


def _size_facts(columns: Columns, rows: Sequence[int] | IntArray) -> FloatArray | None:
    """Logarithm of area and shape of the distributed file; None where the manifest does not tell."""
    try:
        width, height = (
            np.array([float(columns[i][name]) for i in rows]) for name in ("original_width", "original_height")
        )
    except (KeyError, ValueError):
        return None
    return np.stack([np.log(width * height), np.log(width / height)], axis=1)


_FACTS: dict[str, Callable[[Columns, Sequence[int] | IntArray], FloatArray | None]] = {
    VIEW: _view_facts,
    SIZE: _size_facts,
}


def _fit(
    rows: TaskRows,
    train: Sequence[Study],
    columns: Columns,
    facts: Callable[[Columns, Sequence[int] | IntArray], FloatArray | None],
) -> Callable[[FloatArray], FloatArray] | None:
    """Logistic regression on the task's training studies; None where they do not differ in these facts."""
    members = rows.task.rows(train)
    known = facts(columns, members)
    if known is None or np.ptp(known, axis=0).max() == 0:
        return None
    truth = np.array([train[i].label == rows.task.positive for i in members])
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(known, truth)
    return lambda own: np.asarray(model.predict_proba(own)[:, 1], dtype=np.float64)


def _majority(rows: TaskRows, train: Sequence[Study]) -> float:
    members = rows.task.rows(train)
    return sum(train[i].label == rows.task.positive for i in members) / len(members)


def _scored(name: str, rows: TaskRows, score: FloatArray, resamples: int) -> Shortcut:
    model = rows.score()

    def statistic(chosen: IntArray) -> Mapping[str, float]:
        truth = rows.truth[chosen]
        if truth.all() or not truth.any():
            raise ValueError("one class only")
        auc = float(roc_auc_score(truth, score[chosen]))
        return {
            "AUC-ROC": auc,
            "accuracy": float(((score[chosen] >= 0.5) == truth).mean()),
            "model's AUC-ROC - shortcut's": float(roc_auc_score(truth, model[chosen])) - auc,
        }

    figures = intervals(statistic, rows.patients, resamples)
    return Shortcut(name, rows.task.name, rows.task.source, len(rows.rows), figures)


def _source_over_everything(answers: Answers, train: Sequence[Study], resamples: int) -> Shortcut:
    """The commonest training label of the source against the model's likeliest finding."""
    allowed = allowed_labels(answers)
    counts = {
        source: Counter(s.label for s in train if s.source == source and s.label in answers.labels)
        for source in {study.source for study in train}
    }
    guesses = [counts[s.source].most_common(1)[0][0] if counts.get(s.source) else None for s in answers.studies]
    guessed = np.array(
        [guess is not None and allowed[i, answers.labels.index(guess)] for i, guess in enumerate(guesses)]
    )
    top = answers.probabilities[FUSED].argmax(axis=1)
    right = allowed[np.arange(len(top)), top]

    def statistic(rows: IntArray) -> Mapping[str, float]:
        return {
            "accuracy": float(guessed[rows].mean()),
            "model's accuracy - shortcut's": float(right[rows].mean() - guessed[rows].mean()),
        }

    figures = intervals(
        statistic, [s.patient for s in answers.studies], resamples, strata=[s.source for s in answers.studies]
    )
    return Shortcut(SOURCE, "likeliest finding", CONFOUNDED, len(top), figures)
