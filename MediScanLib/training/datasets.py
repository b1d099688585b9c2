"""The manifest: one row a study, with image, label, split, clinical values and severity."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from ..errors import ClinicalError, DataError
from ..study.record import FIELDS, ClinicalRecord
from ..study.values import parse_field
from .manifest import REQUIRED_COLUMNS, image_path, read_rows

LABELS = ("normal", "pneumonia", "covid", "fracture", "cancer")
"""Findings of the general model, in the order of its logits."""

EXCLUDES: Mapping[str, tuple[str, ...]] = {
    "benign": ("cancer",),
    "abnormal": ("normal",),
    "no_pneumonia": ("pneumonia", "covid"),
    "unknown": (),
}
"""Manifest labels that are no finding of their own: they only say which findings the study does not have.

`benign` is a lesion that is no cancer, `abnormal` something of whatever kind, `no_pneumonia` a chest that may show
other things, but no pneumonia (COVID-19 is one); `unknown` says nothing, so that such a study can serve severity only.
"""

SEVERAL = "|"
"""Joins findings any of which may be right, as in "normal|pneumonia" for a chest known to be free of COVID-19."""

SPLITS = ("train", "val", "test")
BRIXIA_MAXIMUM = 18.0
_BRIXIA_COLUMNS = ("brixia_senior", "brixia_junior")
_MAXIMA = dict.fromkeys(_BRIXIA_COLUMNS, BRIXIA_MAXIMUM) | {"geographic_0_8": 8.0, "opacity_0_6": 6.0}
_COUNTS = ("fold", "follow_up")


@dataclass(frozen=True)
class Study:
    """One row of a manifest.

    Attributes:
        image: Path of the image.
        source: Data set it comes from.
        licence: Licence of the image as its source states it.
        patient: Patient identifier, unique within the source.
        split: train, val or test.
        label: As in the manifest.
        modality: DICOM modality code or "".
        body_part: DICOM Body Part Examined or "".
        record: Clinical values.
        severity: Fraction of the largest Brixia score (Borghesi and Maroldi 2020), mean over the readers; None where
            nobody scored it.
        row: Line in the manifest, for error messages.
        view: Projection such as PA, AP, LATERAL, or "".
        finding: What the source itself says, in its own words.
        follow_up: How many earlier studies of the patient the source counts, None where it does not.
        fold: Number of the cross-validation fold that holds the study out, None where there are no folds.
        severity_readers: The readers' single scores on the scale of `severity`, the senior first.
    """

    image: Path
    source: str
    licence: str
    patient: str
    split: str
    label: str
    modality: str
    body_part: str
    record: ClinicalRecord
    severity: float | None
    row: int
    view: str = ""
    finding: str = ""
    follow_up: int | None = None
    fold: int | None = None
    severity_readers: tuple[float, ...] = ()

    @property
    def allowed(self) -> tuple[bool, ...]:
        """For each of LABELS, whether the study may have it: one for a finding, several for a partial label."""
        return allowed_findings(self.label)


def allowed_findings(label: str) -> tuple[bool, ...]:
    """For each of LABELS, whether a study with this manifest label may have it.

    Raises:
        DataError: The label is none of LABELS, of EXCLUDES, and not several of LABELS joined by "|".
    """
    if label in EXCLUDES:
        return tuple(name not in EXCLUDES[label] for name in LABELS)
    named = label.split(SEVERAL)
    if len(set(named)) != len(named) or not set(named) <= set(LABELS):
        known = ", ".join((*LABELS, *EXCLUDES))
        raise DataError(f"label {label!r} is unknown; known: {known}, and several findings joined by {SEVERAL!r}.")
    return tuple(name in named for name in LABELS)


def read_manifest(path: Path) -> list[Study]:
    """Read and check a manifest; image paths are relative to its folder.

    Raises:
        DataError: A missing column or file, an unknown label or split, an implausible value, a patient in two splits:
            the message names the row.
    """
    _, rows = read_rows(path)
    studies = []
    for number, row in enumerate(rows, start=2):
        for problem in row_problems(path, row):
            raise DataError(f"{path}, row {number}: {problem.text}")
        studies.append(_study(path, number, row))
    for leak in leaking_patients(studies):
        raise DataError(f"{path}: {leak}")
    return studies


def check_trainable(studies: Sequence[Study], path: Path) -> None:
    """Refuse what no training can learn from, before hours are spent.

    Raises:
        DataError: Nothing in train or in val, or the training studies tell no two findings apart.
    """
    counts = Counter(study.split for study in studies)
    for split in ("train", "val"):
        if not counts[split]:
            raise DataError(f"{path}: no study is in split {split}. Make the splits with `mediscan data split`.")
    labels = sorted({study.label for study in studies if study.split == "train"})
    if len({allowed_findings(label) for label in labels}) < 2:
        raise DataError(f"{path}: every training study is labelled {labels[0]}. Add studies with another label.")


def leaking_patients(studies: Sequence[Study]) -> Iterator[str]:
    """One sentence for every patient of a source that stands in several splits."""
    seen: dict[tuple[str, str], Study] = {}
    told = set()
    for study in studies:
        patient = (study.source, study.patient)
        first = seen.setdefault(patient, study)
        if first.split != study.split and patient not in told:
            told.add(patient)
            yield (
                f"patient {study.patient} of {study.source} is in {first.split} (row {first.row}) and in "
                f"{study.split} (row {study.row}). Put all images of a patient into one split."
            )


class RowProblem(NamedTuple):
    """What is wrong with a row.

    Attributes:
        kind: Short stable name.
        text: Sentence for people, without file and row.
    """

    kind: str
    text: str


def row_problems(manifest: Path, row: Mapping[str, str]) -> Iterator[RowProblem]:
    """Everything that is wrong with one row by itself, its pixels aside."""
    for column in REQUIRED_COLUMNS:
        if not row[column]:
            remedy = " Make the splits with `mediscan data split`." if column == "split" else ""
            yield RowProblem("empty_cell", f"{column} is empty.{remedy}")
    if row["label"]:
        try:
            allowed_findings(row["label"])
        except DataError as error:
            yield RowProblem("unknown_label", str(error))
    if row["split"] and row["split"] not in SPLITS:
        yield RowProblem("unknown_split", f"split {row['split']!r} is not one of {', '.join(SPLITS)}.")
    if row["image"] and not image_path(manifest, row["image"]).exists():
        yield RowProblem("missing_file", f"{image_path(manifest, row['image'])} does not exist.")
    for name in FIELDS:
        try:
            parse_field(name, row.get(name))
        except ClinicalError as error:
            yield RowProblem("clinical_value", str(error))
    for column, maximum in _MAXIMA.items():
        if (score := row.get(column)) and not _within(score, maximum):
            yield RowProblem("severity", f"{column} {score!r} is not a number from 0 to {maximum:g}.")
    for column in _COUNTS:
        if (count := row.get(column)) and not (count.isascii() and count.isdigit()):
            yield RowProblem("not_a_count", f"{column} {count!r} is not a whole number from 0.")


def _within(text: str, maximum: float) -> bool:
    try:
        return 0 <= float(text) <= maximum
    except ValueError:
        return False


def _study(manifest: Path, number: int, row: Mapping[str, str]) -> Study:
    scores = [float(row[column]) for column in _BRIXIA_COLUMNS if row.get(column)]
    return Study(
        image=image_path(manifest, row["image"]),
        source=row["source"],
        licence=row.get("licence", ""),
        patient=row["patient"],
        split=row["split"],
        label=row["label"],
        modality=row.get("modality", ""),
        body_part=row.get("body_part", ""),
        record=ClinicalRecord(**{name: row.get(name) for name in FIELDS}),
        severity=math.fsum(scores) / len(scores) / BRIXIA_MAXIMUM if scores else None,
        row=number,
        view=row.get("view", ""),
        finding=row.get("finding", ""),
        follow_up=int(row["follow_up"]) if row.get("follow_up") else None,
        fold=int(row["fold"]) if row.get("fold") else None,
        severity_readers=tuple(score / BRIXIA_MAXIMUM for score in scores),
    )
