"""What an adapter makes out of a data set, and the choices that a person has."""

from __future__ import annotations

import csv
import gzip
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from ...errors import ClinicalError, DataError
from ...study.values import parse_field
from ..datasets import allowed_findings
from ..manifest import COLUMNS, Box, relative_cell, write_boxes, write_manifest

Uncertain = Literal["unknown", "ones", "zeros", "ignore"]
Others = Literal["skip", "negative"]


@dataclass(frozen=True)
class Choices:
    """How to read what a data set leaves open.

    Attributes:
        uncertain: What a label of -1 ("uncertain") in CheXpert and MIMIC-CXR becomes (Irvin et al., AAAI 2019):
            "unknown" keeps the study and says that the finding may be there or not, "ones" and "zeros" take it as
            present or absent, "ignore" leaves the study out.
        others: What becomes of a study that is not normal and has none of our findings, such as an effusion: "skip"
            leaves it out, because it is none of our classes; "negative" keeps it as `no_pneumonia`, the usual negative
            of pneumonia detection. It then teaches only that pneumonia is absent.
        labels: Manifest label by class name, for folders and tables whose classes are not named as ours.
        source: Name of the source in the manifest; the adapter's own where empty.
        patient_pattern: Regular expression whose first group is the patient in a file name, for class folders.
    """

    uncertain: Uncertain = "unknown"
    others: Others = "skip"
    labels: Mapping[str, str] = field(default_factory=dict)
    source: str = ""
    patient_pattern: str = ""

    def __post_init__(self) -> None:
        for label in self.labels.values():
            allowed_findings(label)
        try:
            groups = re.compile(self.patient_pattern).groups
        except re.error as error:
            raise DataError(f"patient pattern {self.patient_pattern!r} is no regular expression ({error}).") from error
        if self.patient_pattern and groups < 1:
            raise DataError(f"patient pattern {self.patient_pattern!r} has no group in parentheses for the patient.")


@dataclass
class Imported:
    """Rows and boxes of a manifest in the making.

    Attributes:
        rows: Cells by column; `image` holds the path as it was found.
        boxes: Boxes of readers on those images.
        left_out: Number of studies left out, by reason.
        notes: Sentences that a person should read once.
    """

    rows: list[dict[str, str]] = field(default_factory=list)
    boxes: list[Box] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    notes: Counter[str] = field(default_factory=Counter)

    def add(self, image: Path, label: str, **cells: object) -> None:
        """Add a row, or count it as left out where the image is not there.

        Clinical values that no patient can have become unknown and are counted: sets write 0 or 411 for an age that
        they do not know.
        """
        if not image.exists():
            self.left_out["the image file is not there"] += 1
            return
        row = {"image": str(image), "label": label}
        for column, value in cells.items():
            row[column] = "" if value is None else str(value).strip()
        for column in ("age_years", "sex"):
            try:
                value = parse_field(column, row.get(column))
            except ClinicalError:
                self.notes[f"{column} is implausible and was taken as unknown"] += 1
                value = None
            row[column] = f"{value:g}" if isinstance(value, float) else value or ""
        self.rows.append(row)

    def save(self, manifest: Path, boxes: Path) -> None:
        """Write the manifest, and the boxes where there are any.

        Raises:
            DataError: Nothing was imported, or a file cannot be written.
        """
        if not self.rows:
            reasons = "; ".join(f"{reason}: {count}" for reason, count in self.left_out.most_common())
            raise DataError(f"no study could be imported ({reasons or 'the set lists none'}).")
        rows = ({**row, "image": relative_cell(Path(row["image"]), manifest.parent)} for row in self.rows)
        if self.boxes:
            write_boxes(boxes, self.boxes)
        write_manifest(manifest, COLUMNS, rows)


def read_table(path: Path, required: Sequence[str] = (), *, header: Sequence[str] = ()) -> Iterator[dict[str, str]]:
    """Rows of a CSV file of a data set, gzipped or not, cells stripped.

    Args:
        path: File; where it is not there, its name with or without ".gz" is tried.
        required: Columns that must be there.
        header: Column names of a file that has no header.

    Raises:
        DataError: No such file, a column missing, or not readable.
    """
    other = path.with_suffix("") if path.suffix == ".gz" else path.with_name(path.name + ".gz")
    actual = other if not path.exists() and other.exists() else path
    if not actual.exists():
        raise DataError(f"{path}: no such file. Give the folder that holds the set as it was distributed.")
    opened = gzip.open if actual.suffix == ".gz" else open
    try:
        with opened(actual, "rt", encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream, list(header) or None, restval="")
            missing = [column for column in required if column not in (reader.fieldnames or ())]
            if missing:
                raise DataError(f"{actual}: lacks the columns {', '.join(missing)}. Is it the file of this set?")
            for row in reader:
                yield {str(name).strip(): str(value).strip() for name, value in row.items() if name is not None}
    except (OSError, EOFError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{actual}: cannot be read ({error}).") from error


def read_lines(path: Path) -> list[str]:
    """Lines of a text file that are not empty.

    Raises:
        DataError: Not readable.
    """
    try:
        return [line for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read ({error}).") from error
