"""The manifest file: one CSV row a study; beside it a CSV of the boxes that readers drew. Written atomically."""

from __future__ import annotations

import csv
import os
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import DataError
from ..study.record import FIELDS

REQUIRED_COLUMNS = ("image", "source", "patient", "split", "label")

COLUMNS = (
    *("image", "source", "licence", "patient", "split", "fold", "modality", "body_part", "view", "follow_up"),
    *("label", "finding"),
    *FIELDS,
    *("ldh_u_per_l", "d_dimer", "po2_mmhg", "icu", "survived"),
    *("brixia_senior", "brixia_junior", "geographic_0_8", "opacity_0_6"),
    *("label_note", "original_width", "original_height", "pixel_spacing_mm"),
)
"""Columns that MediScan writes, in this order. Only REQUIRED_COLUMNS must be there; others are kept as they are."""

BOX_COLUMNS = ("image", "label", "reader", "x", "y", "width", "height")

Row = Mapping[str, str]


@dataclass(frozen=True)
class Box:
    """A rectangle that a reader drew, as fractions of the image's width and height, origin top left.

    Attributes:
        image: Path of the image.
        label: Finding in lower case, such as "lung opacity".
        reader: Who drew it.
        x: Left edge.
        y: Upper edge.
        width: Width.
        height: Height.
    """

    image: Path
    label: str
    reader: str
    x: float
    y: float
    width: float
    height: float


def read_rows(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    """Columns and rows of a manifest as they stand, stripped of blanks, nothing checked but the table itself.

    Missing cells at the end of a row read as empty.

    Raises:
        DataError: Not readable, no rows, a required column missing, a column twice, or a row longer than the header.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.reader(stream, strict=True)
            columns = [name.strip() for name in next(reader, [])]
            cells = [row for row in reader if row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: the manifest cannot be read ({error}).") from error
    missing = [column for column in REQUIRED_COLUMNS if column not in columns]
    if missing:
        raise DataError(f"{path}: the manifest lacks the columns {', '.join(missing)}.")
    if len(set(columns)) != len(columns):
        raise DataError(f"{path}: a column stands twice in the header.")
    if not cells:
        raise DataError(f"{path}: the manifest has no rows.")
    for number, row in enumerate(cells, start=2):
        if len(row) > len(columns):
            raise DataError(f"{path}, row {number}: has {len(row)} cells under {len(columns)} columns.")
    empty = dict.fromkeys(columns, "")
    return columns, [{**empty, **{c: v.strip() for c, v in zip(columns, row, strict=False)}} for row in cells]


def image_path(manifest: Path, cell: str) -> Path:
    """The image that a cell names, relative to the manifest's folder unless absolute."""
    return manifest.parent / Path(cell)


def write_manifest(path: Path, columns: Sequence[str], rows: Iterable[Row]) -> None:
    """Write a manifest; the file appears whole or not at all.

    Raises:
        DataError: The file cannot be written; what stood there before is kept.
    """
    _write(path, columns, rows)


def write_boxes(path: Path, boxes: Iterable[Box]) -> None:
    """Write boxes with image paths relative to the folder of `path`; the file appears whole or not at all.

    Raises:
        DataError: The file cannot be written.
    """
    rows = (
        {
            "image": relative_cell(box.image, path.parent),
            "label": box.label,
            "reader": box.reader,
            **{side: f"{getattr(box, side):.5f}" for side in ("x", "y", "width", "height")},
        }
        for box in boxes
    )
    _write(path, BOX_COLUMNS, rows)


def relative_cell(image: Path, folder: Path) -> str:
    """How a manifest in `folder` names `image`: relative, with forward slashes; absolute on another drive."""
    try:
        return Path(os.path.relpath(image.absolute(), folder.absolute())).as_posix()
    except ValueError:
        return image.absolute().as_posix()


def _write(path: Path, columns: Sequence[str], rows: Iterable[Row]) -> None:
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(
            "w", encoding="utf-8", newline="", dir=path.parent, prefix=f".{path.name}.", delete=False
        ) as stream:
            temporary = Path(stream.name)
            writer = csv.DictWriter(stream, columns, restval="", lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
            stream.flush()
            os.fsync(stream.fileno())
        mask = os.umask(0)
        os.umask(mask)
        temporary.chmod(0o666 & ~mask)  # temporary files are private, a manifest need not be
        temporary.replace(path)
    except OSError as error:
        raise DataError(f"{path}: cannot be written ({error}). Nothing there was changed.") from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
