"""The manifest: one row a study, with image, label, split, clinical values and severity."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ..errors import ClinicalError, DataError
from ..study.record import FIELDS, ClinicalRecord

LABELS = ("normal", "pneumonia", "covid", "fracture", "cancer")
"""Findings of the general model, in the order of its logits."""

EXCLUDES = {"benign": ("cancer",)}
"""Manifest labels that are no finding of their own: they only say which findings the study does not have."""

SPLITS = ("train", "val", "test")
REQUIRED_COLUMNS = ("image", "source", "patient", "split", "label")
BRIXIA_MAXIMUM = 18.0
_BRIXIA_COLUMNS = ("brixia_senior", "brixia_junior")


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

    @property
    def allowed(self) -> tuple[bool, ...]:
        """For each of LABELS, whether the study may have it: one for a finding, several for a partial label."""
        if self.label in EXCLUDES:
            return tuple(label not in EXCLUDES[self.label] for label in LABELS)
        return tuple(label == self.label for label in LABELS)


def read_manifest(path: Path) -> list[Study]:
    """Read and check a manifest; image paths are relative to its folder.

    Raises:
        DataError: A missing column or file, an unknown label or split, an implausible value, a patient in two splits:
            the message names the row.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream)
            missing = [column for column in REQUIRED_COLUMNS if column not in (reader.fieldnames or ())]
            if missing:
                raise DataError(f"{path}: the manifest lacks the columns {', '.join(missing)}.")
            studies = [_study(path, number, row) for number, row in enumerate(reader, start=2)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: the manifest cannot be read ({error}).") from error
    if not studies:
        raise DataError(f"{path}: the manifest has no rows.")
    for problem in leaking_patients(studies):
        raise DataError(f"{path}: {problem}")
    return studies


def leaking_patients(studies: list[Study]) -> Iterator[str]:
    """One sentence for every patient of a source that stands in several splits."""
    seen: dict[tuple[str, str], Study] = {}
    for study in studies:
        first = seen.setdefault((study.source, study.patient), study)
        if first.split != study.split:
            yield (
                f"patient {study.patient} of {study.source} is in {first.split} (row {first.row}) and in "
                f"{study.split} (row {study.row}). Put all images of a patient into one split."
            )


def _study(manifest: Path, number: int, row: Mapping[str, str | None]) -> Study:
    where = f"{manifest}, row {number}"

    def cell(column: str) -> str:
        return (row.get(column) or "").strip()

    for column in REQUIRED_COLUMNS:
        if not cell(column):
            raise DataError(f"{where}: {column} is empty.")
    if cell("label") not in LABELS and cell("label") not in EXCLUDES:
        raise DataError(f"{where}: label {cell('label')!r} is unknown; known: {', '.join((*LABELS, *EXCLUDES))}.")
    if cell("split") not in SPLITS:
        raise DataError(f"{where}: split {cell('split')!r} is not one of {', '.join(SPLITS)}.")
    image = manifest.parent / PurePosixPath(cell("image"))
    if not image.exists():
        raise DataError(f"{where}: {image} does not exist.")
    try:
        record = ClinicalRecord(**{name: row.get(name) for name in FIELDS})
    except ClinicalError as error:
        raise DataError(f"{where}: {error}") from error
    return Study(
        image=image,
        source=cell("source"),
        licence=cell("licence"),
        patient=cell("patient"),
        split=cell("split"),
        label=cell("label"),
        modality=cell("modality"),
        body_part=cell("body_part"),
        record=record,
        severity=_brixia(where, [cell(column) for column in _BRIXIA_COLUMNS]),
        row=number,
    )


def _brixia(where: str, cells: list[str]) -> float | None:
    try:
        scores = [float(cell) for cell in cells if cell]
    except ValueError as error:
        raise DataError(f"{where}: a Brixia score is not a number ({error}).") from error
    if not scores:
        return None
    mean = math.fsum(scores) / len(scores)
    if not 0 <= mean <= BRIXIA_MAXIMUM:
        raise DataError(f"{where}: Brixia score {mean:g} is outside 0 to {BRIXIA_MAXIMUM:g}.")
    return mean / BRIXIA_MAXIMUM
