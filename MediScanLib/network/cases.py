"""What a bundle tells of its training cases: a table beside the weights, a row for each reference of the novelty.

Nobody is told apart by it: no patient, no exact age, and a file name only where the image may be shown.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields

from ..errors import BundleError
from ..study.fields import FIELDS

CASES_FILE = "cases.csv"
MAX_CASES_BYTES = 8 << 20
MAX_CELL = 200
"""Letters of a cell, at most."""

OLDEST = 90
"""The oldest are told together, from 85 years on."""


@dataclass(frozen=True)
class Case:
    """One training case.

    Attributes:
        label: What it is labelled with.
        source: Data set.
        licence: Of the image, as the source states it.
        view: Such as "PA"; None where unknown.
        age_years: Rounded to tens, `OLDEST` at most; None where unknown.
        sex: F or M; None where unknown.
        image: Public name of the image in its data set; None where its licence does not let it be shown.
    """

    label: str
    source: str
    licence: str
    view: str | None = None
    age_years: int | None = None
    sex: str | None = None
    image: str | None = None


COLUMNS = tuple(field.name for field in fields(Case))
_REQUIRED = 3  # label, source, licence


def format_cases(cases: Sequence[Case]) -> bytes:
    """Cases as a table in CSV; `parse_cases` reads it back."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(["" if cell is None else cell for cell in astuple(case)] for case in cases)
    return text.getvalue().encode()


def parse_cases(content: bytes, name: str) -> tuple[Case, ...]:
    """Read a table of cases, of which nothing is believed.

    Args:
        content: Of the file.
        name: Of the file, for errors.

    Raises:
        BundleError: It is not such a table, or says more of a case than it should.
    """
    if len(content) > MAX_CASES_BYTES:
        raise _error(name, f"{len(content)} bytes are too many (at most {MAX_CASES_BYTES})")
    try:
        rows = list(csv.reader(io.StringIO(content.decode(), newline=""), strict=True))
    except (UnicodeDecodeError, csv.Error) as error:
        raise _error(name, str(error)) from error
    if not rows or tuple(rows[0]) != COLUMNS:
        raise _error(name, f"its columns are not {', '.join(COLUMNS)}")
    return tuple(_case(row, f"{name}, row {number}") for number, row in enumerate(rows[1:], start=2))


def _case(cells: Sequence[str], where: str) -> Case:
    if len(cells) != len(COLUMNS):
        raise _error(where, f"has {len(cells)} cells and not {len(COLUMNS)}")
    for column, cell in zip(COLUMNS, cells, strict=True):
        if len(cell) > MAX_CELL or not cell.isprintable():  # a terminal and a page must be able to show it
            raise _error(where, f"{column} is too long, or no plain text")
    for column, cell in zip(COLUMNS[:_REQUIRED], cells, strict=False):
        if not cell:
            raise _error(where, f"{column} is empty")
    label, source, licence, view, age, sex, image = cells
    if age and age not in _AGES:
        raise _error(where, f"age_years {age!r} is not rounded to tens up to {OLDEST}")
    if sex and sex not in FIELDS["sex"].choices:
        raise _error(where, f"sex {sex!r} is not {FIELDS['sex'].range_text}")
    if any(sign in image for sign in "/\\:") or image in (".", ".."):
        raise _error(where, f"image {image!r} is more than a name")
    return Case(label, source, licence, view or None, int(age) if age else None, sex or None, image or None)


_AGES = frozenset(str(age) for age in range(0, OLDEST + 1, 10))


def _error(where: str, problem: str) -> BundleError:
    return BundleError(f"{where}: is no table of training cases: {problem}. Install the bundle again.")
