"""Clinical records in and out of JSON and CSV."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any

from ..errors import ClinicalError
from .fhir import is_fhir, record_of_bundle
from .fields import FIELDS
from .record import ClinicalRecord

INPUT_COLUMN = "input"
MAX_BYTES = 64 * 1024**2


@dataclass(frozen=True)
class ClinicalRecords:
    """Records for a run over several inputs.

    Attributes:
        default: Record of every input that has none of its own.
        by_input: Records by the name of the input: its path as given, its absolute path, or the file name alone.
        warnings: What a user should know of how they were read.
    """

    default: ClinicalRecord = field(default_factory=ClinicalRecord)
    by_input: Mapping[str, ClinicalRecord] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    def of(self, source: str | Path) -> ClinicalRecord:
        """The record of one input: by path first, then by file name, then the default."""
        for key in self.keys_of(source):
            if key in self.by_input:
                return self.by_input[key]
        return self.default

    @staticmethod
    def keys_of(source: str | Path) -> tuple[str, ...]:
        """Names under which an input's record may stand, the most specific first."""
        path = PurePath(source)
        return str(path), path.as_posix(), os.path.abspath(path), path.name  # noqa: PTH100 (follows no links)


def read_records(text_or_file: str) -> ClinicalRecords:
    """Clinical records from JSON text, a JSON file or a CSV file.

    JSON is one object of fields, for every input, or a list of objects that each name their "input". CSV has a header
    of field names, and a column "input" unless it holds a single row, which is then for every input. Comma,
    semicolon and tab separate. A FHIR Bundle of one patient is for every input too; see `fhir.record_of_bundle`.

    Raises:
        ClinicalError: Anything that is not understood; the message names file, row and field.
    """
    stripped = text_or_file.strip()
    if stripped[:1] in ("{", "["):
        return _from_json(stripped, "the clinical JSON")
    if not stripped:
        raise ClinicalError("The clinical values are empty. Give a JSON object, a .json file or a .csv file.")
    path = Path(text_or_file)
    try:
        found = path.is_file()
    except OSError:  # such as a name longer than any file's
        found = False
    if not found:
        raise ClinicalError(f"{text_or_file[:200]}: no such file. Give a JSON object, a .json file or a .csv file.")
    if path.stat().st_size > MAX_BYTES:
        raise ClinicalError(f"{path}: larger than {MAX_BYTES} bytes, which no clinical table is. Give another file.")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ClinicalError(f"{path}: cannot be read ({error.strerror}). Give a file that can be.") from error
    except UnicodeDecodeError as error:
        raise ClinicalError(f"{path}: cannot be read as UTF-8 text ({error}). Save it as UTF-8.") from error
    if path.suffix.lower() == ".json":
        return _from_json(text, str(path))
    if path.suffix.lower() in (".csv", ".tsv"):
        return _from_csv(text, str(path))
    raise ClinicalError(f"{path}: is neither .json nor .csv. Give a JSON object, a .json file or a .csv file.")


def write_records(records: Mapping[str, ClinicalRecord], path: Path) -> None:
    """Write records by input as CSV or JSON (by the ending of `path`); `read_records` reads them back."""
    rows = [{INPUT_COLUMN: name, **record.known} for name, record in records.items()]
    if path.suffix.lower() == ".json":
        path.write_text(json.dumps(rows, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        return
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, [INPUT_COLUMN, *FIELDS])
        writer.writeheader()
        writer.writerows(rows)


def _from_json(text: str, name: str) -> ClinicalRecords:
    try:
        data = json.loads(text, object_pairs_hook=_refuse_duplicates)
    except (ValueError, RecursionError) as error:  # ValueError: also a number of thousands of digits
        raise ClinicalError(f"{name}: is not valid JSON ({error}).") from error
    if is_fhir(data):
        found = record_of_bundle(data, name)
        return ClinicalRecords(default=found.record, warnings=found.warnings)
    if isinstance(data, Mapping):
        return ClinicalRecords(default=_record(data, name))
    if not isinstance(data, list):
        raise ClinicalError(f"{name}: expected an object of fields or a list of objects, got {type(data).__name__}.")
    return _keyed(((f"{name}, item {i}", item) for i, item in enumerate(data, start=1)), name)


def _from_csv(text: str, name: str) -> ClinicalRecords:
    header = text.partition("\n")[0]
    delimiter = max((",", ";", "\t"), key=header.count)
    try:
        reader = csv.DictReader(io.StringIO(text), delimiter=delimiter, strict=True)
        rows = [(reader.line_num, row) for row in reader]  # the line, because empty ones are passed over
        columns = list(reader.fieldnames or ())
    except csv.Error as error:
        raise ClinicalError(f"{name}: is not valid CSV ({error}).") from error
    if not rows:
        raise ClinicalError(f"{name}: has no rows. Give a header of field names and a row for each input.")
    if len(columns) != len(set(columns)):
        raise ClinicalError(f"{name}: a column stands twice in the header {columns}.")
    for number, row in rows:
        if None in row or None in row.values():
            raise ClinicalError(f"{name}, row {number}: has another number of cells than the header.")
    if INPUT_COLUMN not in columns:
        if len(rows) > 1:
            raise ClinicalError(
                f"{name}: has {len(rows)} rows but no column {INPUT_COLUMN!r} to say whose they are. Add that column."
            )
        number, row = rows[0]
        return ClinicalRecords(default=_record(row, f"{name}, row {number}"))
    return _keyed(((f"{name}, row {number}", row) for number, row in rows), name)


def _keyed(items: Iterable[tuple[str, Any]], name: str) -> ClinicalRecords:
    records: dict[str, ClinicalRecord] = {}
    for where, item in items:
        if not isinstance(item, Mapping) or not isinstance(item.get(INPUT_COLUMN), str) or not item[INPUT_COLUMN]:
            raise ClinicalError(f"{where}: does not name its {INPUT_COLUMN!r}.")
        key = str(PurePath(item[INPUT_COLUMN]))  # "./a.png" and "a.png" are the same input
        if key in records:
            raise ClinicalError(f"{where}: input {key!r} stands twice.")
        records[key] = _record({k: v for k, v in item.items() if k != INPUT_COLUMN}, where)
    if not records:
        raise ClinicalError(f"{name}: holds no record.")
    return ClinicalRecords(by_input=records)


def _record(data: Mapping[str, Any], where: str) -> ClinicalRecord:
    try:
        return ClinicalRecord.model_validate(dict(data))
    except ClinicalError as error:
        raise ClinicalError(f"{where}: {error}") from error


def _refuse_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        names = [name for name, _ in pairs]
        double = next(name for name in names if names.count(name) > 1)
        raise ClinicalError(f"The clinical JSON has {double!r} twice. Keep one.")
    return result
