"""Result files that are valid after every single result, so that a run may stop at any point and go on later."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from ..errors import UsageError
from .table import columns, row

Entry = Mapping[str, Any]
"""A prediction or an error object, in its JSON form."""

_JSON_END = b"\n]\n"


class ResultFile:
    """Appends results to a .json file (an array), a .jsonl file (one object a line) or a .csv file.

    Every append is one write that leaves the file valid. Use as a context manager.

    Args:
        path: File; its ending chooses the format. An older file is replaced, unless `resume`.
        labels: Labels of the model, for the columns of a CSV file.
        resume: Keep the results of an earlier run; its errors are dropped, so that those inputs are tried again.

    Raises:
        UsageError: Unknown ending, or an earlier file that cannot be gone on from.
    """

    def __init__(self, path: Path, labels: Sequence[str], *, resume: bool = False) -> None:
        self.path = path
        self.format = path.suffix.lower()
        if self.format not in (".json", ".jsonl", ".csv"):
            raise UsageError(f"{path}: results are written as .json, .jsonl or .csv. Give a name with such an ending.")
        self._columns = columns(labels)
        self._count = 0
        kept = self._earlier() if resume and path.is_file() else []
        self.done = frozenset(entry["input"] for entry in kept)
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch = path.with_name(f".{path.name}.new")
        self._stream: BinaryIO
        try:
            with scratch.open("w+b") as self._stream:
                self._stream.write(self._header())
                for entry in kept:
                    self.append(entry)
            scratch.replace(path)  # the earlier results stay until the new file holds them all
            self._stream = path.open("r+b")
            self._stream.seek(0, os.SEEK_END)
        except OSError as error:
            raise UsageError(f"{path}: cannot be written ({error.strerror}). Choose another place.") from error

    def append(self, entry: Entry) -> None:
        """Add one result."""
        self._stream.write(self._encoded(entry))
        self._stream.flush()
        self._count += 1

    def close(self) -> None:
        """Close the file."""
        self._stream.close()

    def __enter__(self) -> ResultFile:
        """The file itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close."""
        self.close()

    def _header(self) -> bytes:
        if self.format == ".json":
            return b"[" + _JSON_END
        return self._csv_line(dict(zip(self._columns, self._columns, strict=True))) if self.format == ".csv" else b""

    def _encoded(self, entry: Entry) -> bytes:
        if self.format == ".csv":
            # an earlier run's CSV row has no "certainty": it is already flat
            return self._csv_line(row(entry) if "certainty" in entry or "error" in entry else entry)
        text = json.dumps(entry, ensure_ascii=False, allow_nan=False).encode()
        if self.format == ".jsonl":
            return text + b"\n"
        self._stream.seek(-len(_JSON_END), os.SEEK_END)
        return (b",\n" if self._count else b"\n") + text + _JSON_END

    def _csv_line(self, values: Mapping[str, Any]) -> bytes:
        buffer = io.StringIO()
        csv.DictWriter(buffer, self._columns, lineterminator="\n").writerow(values)
        return buffer.getvalue().encode()

    def _earlier(self) -> list[Entry]:
        """Results without errors of an earlier run; a last line that was cut is dropped."""
        try:
            text = self.path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"{self.path}: cannot be gone on from ({error}). Leave out --resume.") from error
        if self.format == ".csv":
            reader = csv.DictReader(io.StringIO(text))
            if text and list(reader.fieldnames or ()) != self._columns:
                raise UsageError(
                    f"{self.path}: has other columns than this model's results. "
                    "Leave out --resume, or choose another file."
                )
            rows = list(reader)
            whole = rows if text.endswith("\n") else rows[:-1]
            return [line for line in whole if line["input"] and not line["error_code"]]
        return [entry for entry in _json_lines(text) if "error" not in entry]


def error_entry(source: str, code: str, message: str) -> dict[str, Any]:
    """The object that stands for an input that failed."""
    return {"input": source, "error": {"code": code, "message": message}}


def _json_lines(text: str) -> list[dict[str, Any]]:
    """Every line that is a whole result: one object a line is how both JSON forms are written."""
    entries = []
    for line in text.splitlines():
        try:
            entry = json.loads(line.strip().rstrip(","))
        except json.JSONDecodeError:
            continue
        if isinstance(entry, dict) and isinstance(entry.get("input"), str):
            entries.append(entry)
    return entries
