"""What each input adds: the same model shown the image alone, the clinical values alone, and both."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sklearn.metrics import brier_score_loss, roc_auc_score

from .answers import CLINICAL_ONLY, FUSED, IMAGE_ONLY, INPUTS, Answers
from .bootstrap import RESAMPLES, Figure, IntArray, intervals
from .within import TaskRows, task_rows

DIFFERENCES = ((FUSED, IMAGE_ONLY), (FUSED, CLINICAL_ONLY))


@dataclass(frozen=True)
class Ablation:
    """One task by what the model was shown.

    Attributes:
        task: In words.
        source: Data set.
        studies: Number of studies.
        with_values: Of these with at least one clinical value.
        auc: AUC-ROC by input.
        brier: Brier score by input.
        differences: AUC-ROC of the first minus that of the second, "fused - image only", on the same resamples.
    """

    task: str
    source: str
    studies: int
    with_values: int
    auc: Mapping[str, Figure]
    brier: Mapping[str, Figure]
    differences: Mapping[str, Figure]

    @property
    def fusion_adds_nothing(self) -> bool:
        """Whether the interval of fused - image only does not lie above zero."""
        return not self.differences[f"{FUSED} - {IMAGE_ONLY}"].low > 0


def ablation(answers: Answers, resamples: int = RESAMPLES) -> list[Ablation]:
    """Every task by what the model was shown, with paired differences."""
    return [_of_task(rows, answers, resamples) for rows in task_rows(answers)]


def _of_task(rows: TaskRows, answers: Answers, resamples: int) -> Ablation:
    scores = {shown: rows.score(shown) for shown in INPUTS}
    values = [bool(answers.studies[i].record.known) for i in rows.rows]

    def statistic(chosen: IntArray) -> Mapping[str, float]:
        truth = rows.truth[chosen]
        if truth.all() or not truth.any():
            raise ValueError("one class only")
        auc = {shown: float(roc_auc_score(truth, score[chosen])) for shown, score in scores.items()}
        brier = {f"Brier {shown}": float(brier_score_loss(truth, score[chosen])) for shown, score in scores.items()}
        return {**auc, **brier, **{f"{a} - {b}": auc[a] - auc[b] for a, b in DIFFERENCES}}

    figures = intervals(statistic, rows.patients, resamples)
    return Ablation(
        task=rows.task.name,
        source=rows.task.source,
        studies=len(rows.rows),
        with_values=sum(values),
        auc={shown: figures[shown] for shown in INPUTS},
        brier={shown: figures[f"Brier {shown}"] for shown in INPUTS},
        differences={f"{a} - {b}": figures[f"{a} - {b}"] for a, b in DIFFERENCES},
    )
