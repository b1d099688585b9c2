"""A table of studies with clinical columns; what the table does not say comes from the DICOM headers."""

from __future__ import annotations

from pathlib import Path

from ...errors import ClinicalError, DataError, ReadError
from ...study.fields import FIELDS
from ...study.values import parse_field
from ..datasets import EXCLUDES, LABELS, SEVERAL
from .entries import Choices, Imported, read_table
from .headers import header_facts

_KEPT = ("source", "licence", "split", "finding", "follow_up", "brixia_senior", "brixia_junior")
_FROM_HEADER = ("modality", "body_part", "view")


def read_dicom_table(table: Path, choices: Choices) -> Imported:
    """Studies of a CSV file with the columns `image` and `label` and whatever else a manifest may have.

    `image` is a file, or the folder of a series, relative to the table. Clinical columns are those of ClinicalRecord
    and may carry units ("101 F"); age and sex that the table leaves empty come from the header, and so do modality,
    body part, view, and the patient as a hash. A column that is neither is refused, so that a clinical value under
    a misspelled name is not lost in silence. `Choices.labels` translates labels.

    Raises:
        DataError: A column, a label or a value that is not understood, a file that cannot be read, no patient.
    """
    allowed = {"image", "label", "patient", *FIELDS, *_KEPT, *_FROM_HEADER}
    result = Imported()
    for number, row in enumerate(read_table(table, ("image", "label")), start=2):
        where = f"{table}, row {number}"
        if unknown := sorted(set(row) - allowed):
            raise DataError(f"{table}: unknown columns {', '.join(unknown)}. Known are {', '.join(sorted(allowed))}.")
        image = table.parent / row["image"]
        label = choices.labels.get(row["label"], row["label"])
        if not {*label.split(SEVERAL)} <= {*LABELS, *EXCLUDES}:
            raise DataError(f"{where}: no label is known for {label!r}. Say which it is, such as {label}=normal.")
        clinical = _clinical(row, where)
        try:
            facts = header_facts(image) if row["image"] and image.exists() else None
        except ReadError as error:
            raise DataError(f"{where}: {error}") from error
        patient = row.get("patient") or (facts.patient if facts else "")
        if not patient and image.exists():
            raise DataError(f"{where}: neither the table nor the header names the patient. Add a column patient.")
        header = {} if facts is None else {name: getattr(facts, name) for name in _FROM_HEADER} | {**facts.clinical}
        known = {name: value for name, value in {**row, **clinical}.items() if value}
        cells = {**header, **known, "patient": patient, "source": row.get("source") or choices.source or table.stem}
        result.add(image, label, **{name: value for name, value in cells.items() if name not in ("image", "label")})
    return result


def _clinical(row: dict[str, str], where: str) -> dict[str, str]:
    """Clinical cells in the units of the manifest."""
    cells = {}
    for name in FIELDS:
        try:
            value = parse_field(name, row.get(name))
        except ClinicalError as error:
            raise DataError(f"{where}: {error}") from error
        cells[name] = "" if value is None else f"{value:g}" if isinstance(value, float) else value
    return cells
