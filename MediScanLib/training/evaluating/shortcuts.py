"""What can be had without looking at the picture: simple models on facts beside it, fitted on train.

A figure of the network means something only above these. The view and the follow-up number tell who was well enough to
stand and who came back; the size of a file tells how tightly it was cropped; the source tells which labels there are.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter

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


@dataclass(frozen=True, eq=False)
class Learned:
    """What the model behind some rows of the answers was trained on.

    Attributes:
        rows: Positions of the studies that it answered.
        train: Its training studies.
        columns: Further columns of their manifest.
    """

    rows: IntArray
    train: Sequence[Study]
    columns: Columns


def shortcuts(answers: Answers, learned: Sequence[Learned], resamples: int = RESAMPLES) -> list[Shortcut]:
    """Shortcuts fitted on what each model was trained on and scored on what it answered.

    Empty without training studies.

    Args:
        answers: What the models said.
        learned: One item a model.
        resamples: Of the bootstrap.
    """
    if not all(part.train for part in learned) or not learned:
        return []
    found = []
    for rows in task_rows(answers):
        if not all(rows.task.answerable(part.train) for part in learned):
            continue
        for name, facts in _FACTS.items():
            score = _fitted_scores(rows, learned, facts)
            if score is not None:
                found.append(_scored(name, rows, score, resamples))
        found.append(_scored(SOURCE, rows, _majorities(rows, learned), resamples))
    found.append(_source_over_everything(answers, learned, resamples))
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


def _fitted_scores(
    rows: TaskRows,
    learned: Sequence[Learned],
    facts: Callable[[Columns, Sequence[int] | IntArray], FloatArray | None],
) -> FloatArray | None:
    """Probabilities of a logistic regression on the task's training studies; None where it cannot be had."""
    score = np.zeros(len(rows.rows))
    for part in learned:
        own = np.isin(rows.rows, part.rows)
        if not own.any():
            continue
        members = rows.task.rows(part.train)
        seen, asked = facts(part.columns, members), facts(rows.answers.columns, rows.rows[own])
        if seen is None or asked is None or np.ptp(seen, axis=0).max() == 0:
            return None
        truth = np.array([part.train[i].label == rows.task.positive for i in members])
        model = make_pipeline(StandardScaler(), LogisticRegression()).fit(seen, truth)
        score[own] = model.predict_proba(asked)[:, 1]
    return score


def _majorities(rows: TaskRows, learned: Sequence[Learned]) -> FloatArray:
    """Share of the finding among the training studies of the source."""
    score = np.zeros(len(rows.rows))
    for part in learned:
        members = rows.task.rows(part.train)
        share = sum(part.train[i].label == rows.task.positive for i in members) / len(members)
        score[np.isin(rows.rows, part.rows)] = share
    return score


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


def _source_over_everything(answers: Answers, learned: Sequence[Learned], resamples: int) -> Shortcut:
    """The commonest training label of the source against the model's likeliest finding."""
    allowed = allowed_labels(answers)
    guessed = np.zeros(len(answers.studies), dtype=np.bool_)
    for part in learned:
        counts = Counter((s.source, s.label) for s in part.train if s.label in answers.labels)
        for i in part.rows:
            source = answers.studies[i].source
            known = [(counts[source, label], label) for label in answers.labels if counts[source, label]]
            if known:
                commonest = max(known, key=itemgetter(0))[1]
                guessed[i] = allowed[i, answers.labels.index(commonest)]
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
