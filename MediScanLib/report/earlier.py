"""What an earlier run left in its result file, for `--resume`."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import UsageError

Entry = Mapping[str, Any]
"""A prediction or an error object, in its JSON form, or its row of a CSV file."""

_BEGINNINGS = ('{"schema_version"', '{"input"')


def earlier_results(path: Path, columns: Sequence[str], model_sha256: str | None) -> list[Entry]:
    """Results without errors, in the order of the file; a last one that was cut is dropped.

    Args:
        path: .json, .jsonl or .csv file.
        columns: Columns of a CSV file of this model.
        model_sha256: The model that must have made the results; any where None.

    Raises:
        UsageError: The file holds something else, or results of another model.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
        entries = _rows(path, text, columns) if path.suffix.lower() == ".csv" else _objects(path, text)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"{path}: cannot be gone on from ({error}). Leave out --resume.") from error
    models = {entry.get("model_sha256") or entry["provenance"]["model_sha256"] for entry in entries}
    if model_sha256 is not None and models - {model_sha256}:
        raise UsageError(
            f"{path}: holds results of another model. Go on with that one, leave out --resume, or choose another file."
        )
    return entries


def _rows(path: Path, text: str, columns: Sequence[str]) -> list[Entry]:
    reader = csv.DictReader(io.StringIO(text, newline=""))
    if text and list(reader.fieldnames or ()) != list(columns):
        raise UsageError(
            f"{path}: has other columns than this model's results. Leave out --resume, or choose another file."
        )
    rows = list(reader)
    whole = rows if text.endswith("\n") else rows[:-1]
    return [row for row in whole if set(row) == set(columns) and None not in row.values() and not row["error_code"]]


def _objects(path: Path, text: str) -> list[Entry]:
    """From a JSON array, as anybody may have laid it out, or line by line, as it is written here, where it was cut."""
    try:
        found = json.loads(text) if path.suffix.lower() == ".json" else _whole_lines(text)
    except json.JSONDecodeError:
        found = _whole_lines(text)
    begun = text.strip("[ \r\n")  # the first result may have been cut: then nothing is found in a file of ours
    ours = begun in ("", "]") or begun.startswith(_BEGINNINGS)
    if not isinstance(found, list) or not all(_is_entry(item) for item in found) or not (found or ours):
        raise UsageError(f"{path}: does not hold MediScan's results. Leave out --resume, or choose another file.")
    return [entry for entry in found if "error" not in entry]


def _whole_lines(text: str) -> list[Any]:
    entries = []
    for line in text.split("\n"):  # not splitlines: names may hold other line separators of Unicode
        try:
            entries.append(json.loads(line.strip().rstrip(",")))
        except json.JSONDecodeError:
            continue
    return entries


def _is_entry(item: object) -> bool:
    if not isinstance(item, dict) or not isinstance(item.get("input"), str):
        return False
    return "error" in item or "model_sha256" in item.get("provenance", {})
