"""What a model said of many studies: the table that every figure is made from.

Whoever makes the table, one model on one split or the out-of-fold models of a cross-validation, the figures are made
the same way; thresholds are kept by study because models of different folds have different ones.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ...errors import DataError
from ...prediction.certainty import contradicts
from ..datasets import Study
from ..manifest import read_rows

FloatArray = npt.NDArray[np.float64]

FUSED, IMAGE_ONLY, CLINICAL_ONLY = "fused", "image only", "clinical only"
INPUTS = (FUSED, IMAGE_ONLY, CLINICAL_ONLY)
"""What the model was shown, the real thing first."""


@dataclass(frozen=True, eq=False)
class Answers:
    """Probabilities and severity of studies, by what the model was shown. Rows are studies everywhere.

    Attributes:
        studies: Studies.
        columns: Further columns of the manifest, one mapping a study.
        labels: Findings, in the order of the columns of the arrays.
        probabilities: (study, finding) by input.
        severity: (study,), 0 to 1, by input; empty where the model has learned no severity.
        thresholds: (study, finding) operating point of the model that answered.
        deferred: (study,) bool, left to a human.
        reasons: Why, codes joined by a space.
        sets: (study, finding) bool by nominal coverage, whether the finding is in the study's prediction set; empty
            where a model makes no sets.
    """

    studies: tuple[Study, ...]
    columns: tuple[Mapping[str, str], ...]
    labels: tuple[str, ...]
    probabilities: Mapping[str, FloatArray]
    severity: Mapping[str, FloatArray]
    thresholds: FloatArray
    deferred: npt.NDArray[np.bool_]
    reasons: tuple[str, ...]
    sets: Mapping[float, npt.NDArray[np.bool_]] = field(default_factory=dict)

    @cached_property
    def certainty(self) -> FloatArray:
        """(study,) how sure the model is: its highest probability, and less than any where findings contradict."""
        fused = self.probabilities[FUSED]
        present = fused >= self.thresholds
        contradicting = [contradicts(list(row), self.labels) is not None for row in present]
        certainty: FloatArray = fused.max(axis=1) - np.array(contradicting, dtype=np.float64)
        return certainty

    def score(self, label: str, shown: str = FUSED) -> FloatArray:
        """(study,) probability of one finding."""
        return self.probabilities[shown][:, self.labels.index(label)]

    def decided(self, label: str, shown: str = FUSED) -> npt.NDArray[np.bool_]:
        """(study,) whether the finding is called present at the operating point."""
        return self.score(label, shown) >= self.thresholds[:, self.labels.index(label)]


def join_answers(parts: Sequence[Answers]) -> Answers:
    """The tables of several models below each other.

    Raises:
        DataError: The models know different findings, or only some have learned the severity.
    """
    first = parts[0]
    if any(part.labels != first.labels or part.severity.keys() != first.severity.keys() for part in parts):
        raise DataError("The models answer different questions: their findings, or whether they grade, differ.")
    return Answers(
        studies=tuple(study for part in parts for study in part.studies),
        columns=tuple(columns for part in parts for columns in part.columns),
        labels=first.labels,
        probabilities={s: np.concatenate([part.probabilities[s] for part in parts]) for s in first.probabilities},
        severity={s: np.concatenate([part.severity[s] for part in parts]) for s in first.severity},
        thresholds=np.concatenate([part.thresholds for part in parts]),
        deferred=np.concatenate([part.deferred for part in parts]),
        reasons=tuple(reason for part in parts for reason in part.reasons),
        sets={
            coverage: np.concatenate([part.sets[coverage] for part in parts])
            for coverage in first.sets
            if all(coverage in part.sets for part in parts)
        },
    )


def read_columns(manifest: Path, studies: Sequence[Study]) -> tuple[Mapping[str, str], ...]:
    """All columns of the manifest as text, one mapping a study.

    Raises:
        DataError: The manifest is not the one that the studies were read from.
    """
    rows = dict(enumerate(read_rows(manifest)[1], start=2))
    found = []
    for study in studies:
        row = rows.get(study.row, {})
        if study.image.name != Path(row.get("image", "")).name:
            raise DataError(
                f"{manifest}, row {study.row}: not {study.image.name}. Was the manifest changed meanwhile?"
            )
        found.append(row)
    return tuple(found)


def answers_csv(answers: Answers) -> str:
    """The table as CSV: one line a study, probabilities and severity by input, decision and deferral."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    shown = [(name, name.replace(" ", "_")) for name in INPUTS if name in answers.probabilities]
    writer.writerow(
        [
            *("row", "image", "source", "patient", "split", "fold", "label", "severity_readers"),
            *(f"{label}_{column}" for _, column in shown for label in answers.labels),
            *(f"severity_{column}" for name, column in shown if name in answers.severity),
            *("top", "present", "deferred", "reasons"),
            *(f"set_{coverage:.0%}".replace("%", "") for coverage in answers.sets),
        ]
    )
    for i, study in enumerate(answers.studies):
        fused = answers.probabilities[FUSED][i]
        present = [label for k, label in enumerate(answers.labels) if fused[k] >= answers.thresholds[i, k]]
        writer.writerow(
            [
                *(study.row, answers.columns[i]["image"], study.source, study.patient, study.split),
                *("" if study.fold is None else study.fold, study.label),
                "" if study.severity is None else f"{study.severity:.4f}",
                *(f"{value:.6f}" for name, _ in shown for value in answers.probabilities[name][i]),
                *(f"{answers.severity[name][i]:.4f}" for name, _ in shown if name in answers.severity),
                *(answers.labels[int(fused.argmax())], " ".join(present), int(answers.deferred[i])),
                answers.reasons[i],
                *(
                    " ".join(label for label, member in zip(answers.labels, members[i], strict=True) if member)
                    for members in answers.sets.values()
                ),
            ]
        )
    return stream.getvalue()
