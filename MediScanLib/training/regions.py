"""Where readers saw a lesion: boxes and masks, as regions on the image's own grid."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from ..errors import DataError
from ..study.record import ClinicalRecord
from .datasets import Study

BoolArray = npt.NDArray[np.bool_]
Box = tuple[float, float, float, float]

BOX_FINDINGS = {
    "lung opacity": "pneumonia",
    "pneumonia": "pneumonia",
    "infiltrate": "pneumonia",
    "consolidation": "pneumonia",
}
"""Names that readers wrote beside a box, and the finding whose heat map should lie on it."""

NO_COPY = "not in the manifest"


class MarkFiles(NamedTuple):
    """Files of readers' marks, each of which may be missing.

    Attributes:
        boxes: CSV, see `read_boxes`.
        lesions: CSV of masks, see `read_lesions`.
    """

    boxes: Path | None = None
    lesions: Path | None = None

    @property
    def there(self) -> dict[str, Path]:
        """Those that are not missing, by name."""
        return {name: path for name, path in self._asdict().items() if path is not None}


NO_MARKS = MarkFiles()


@dataclass(frozen=True, eq=False)
class Region:
    """What readers marked on one image.

    Attributes:
        image: Path of the image.
        record: Clinical values.
        patient: For the bootstrap.
        split: Split of the image, or of its copy; NO_COPY where the manifest has none.
        group: Source of image and marks, for the tables.
        label: Finding whose map is scored; "" where the manifest does not tell.
        boxes: (x, y, width, height) as fractions of the image, by reader.
        mask: Mask file, None where there are boxes.
    """

    image: Path
    record: ClinicalRecord
    patient: str
    split: str
    group: str
    label: str
    boxes: Mapping[str, Sequence[Box]]
    mask: Path | None = None

    def marked(self, shape: tuple[int, int], reader: str | None = None) -> BoolArray:
        """(row, column) bool on an image of this shape: the marks of one reader, or of all.

        Raises:
            DataError: The mask cannot be read or marks nothing.
        """
        if self.mask is not None:
            return _read_mask(self.mask, shape)
        found = np.zeros(shape, dtype=np.bool_)
        for name, boxes in self.boxes.items():
            if reader in (None, name):
                for x, y, width, height in boxes:
                    rows = slice(round(y * shape[0]), max(round((y + height) * shape[0]), round(y * shape[0]) + 1))
                    columns = slice(round(x * shape[1]), max(round((x + width) * shape[1]), round(x * shape[1]) + 1))
                    found[rows, columns] = True
        return found


def read_boxes(path: Path, studies: Sequence[Study]) -> list[Region]:
    """Boxed images of the manifest; boxes of other findings than those of the model are left out.

    Args:
        path: CSV with the columns image, label, reader, x, y, width, height; fractions, origin top left.
        studies: All studies of the manifest.

    Raises:
        DataError: A missing column, a box outside the image: the message names the row.
    """
    by_name = {(study.image.parent.name, study.image.name): study for study in studies}
    boxes: dict[tuple[str, str], dict[str, dict[str, list[Box]]]] = {}
    for number, row in _rows(path, ("image", "label", "reader", "x", "y", "width", "height")):
        label = BOX_FINDINGS.get(row["label"].lower())
        file = PurePosixPath(row["image"])
        key = (file.parent.name, file.name)
        if label is not None and key in by_name:
            own = boxes.setdefault(key, {}).setdefault(label, {})
            own.setdefault(row["reader"], []).append(_box(path, number, row))
    return [
        Region(study.image, study.record, study.patient, study.split, f"{study.source} boxes", label, by_reader)
        for key, by_label in boxes.items()
        for label, by_reader in by_label.items()
        for study in (by_name[key],)
    ]


def read_lesions(path: Path, studies: Sequence[Study]) -> list[Region]:
    """Images with a drawn mask. They are copies of images of the manifest: the same file name tells the split.

    Args:
        path: CSV with the columns image and mask, relative to its folder.
        studies: All studies of the manifest.

    Raises:
        DataError: A missing column or file: the message names the row.
    """
    copies = {study.image.stem: study for study in studies}
    found = []
    for number, row in _rows(path, ("image", "mask")):
        image, mask = path.parent / PurePosixPath(row["image"]), path.parent / PurePosixPath(row["mask"])
        for file in (image, mask):
            if not file.is_file():
                raise DataError(f"{path}, row {number}: {file} does not exist.")
        copy = copies.get(image.stem)
        found.append(
            Region(
                image=image,
                record=ClinicalRecord() if copy is None else copy.record,
                patient=image.stem if copy is None else copy.patient,
                split=NO_COPY if copy is None else copy.split,
                group="lesion masks" if copy is None else f"lesion masks on {copy.source} images",
                label="" if copy is None else copy.label,
                boxes={},
                mask=mask,
            )
        )
    return found


def regions_of(studies: Sequence[Study], files: MarkFiles) -> list[Region]:
    """What readers marked on images of the manifest.

    Raises:
        DataError: As for `read_boxes` and `read_lesions`.
    """
    found = [] if files.boxes is None else read_boxes(files.boxes, studies)
    return found if files.lesions is None else found + read_lesions(files.lesions, studies)


def _rows(path: Path, columns: Sequence[str]) -> list[tuple[int, dict[str, str]]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream)
            missing = [column for column in columns if column not in (reader.fieldnames or ())]
            if missing:
                raise DataError(f"{path}: the columns {', '.join(missing)} are missing.")
            return [
                (number, {column: (row[column] or "").strip() for column in columns})
                for number, row in enumerate(reader, start=2)
            ]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read ({error}).") from error


def _box(path: Path, number: int, row: Mapping[str, str]) -> Box:
    try:
        x, y, width, height = (float(row[name]) for name in ("x", "y", "width", "height"))
    except ValueError as error:
        raise DataError(f"{path}, row {number}: the box is not four numbers ({error}).") from error
    slack = 0.01  # boxes are rounded
    inside = -slack <= x and -slack <= y and x + width <= 1 + slack and y + height <= 1 + slack
    if not (inside and width > 0 and height > 0):
        raise DataError(f"{path}, row {number}: the box is not inside the image; give fractions of width and height.")
    x, y = max(x, 0.0), max(y, 0.0)
    return x, y, min(width, 1 - x), min(height, 1 - y)


def _read_mask(path: Path, shape: tuple[int, int]) -> BoolArray:
    try:
        with Image.open(path, formats=("PNG", "JPEG", "TIFF")) as picture:
            resized = picture.convert("L").resize((shape[1], shape[0]), Image.Resampling.NEAREST)
    except OSError as error:
        raise DataError(f"{path}: the mask cannot be read ({error}).") from error
    found = np.asarray(resized) > 127
    if not found.any():
        raise DataError(f"{path}: the mask marks nothing.")
    return found
