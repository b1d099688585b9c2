"""Result files that are valid after every single result, so that a run may stop at any point and go on later."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import UsageError
from .earlier import Entry, earlier_results
from .table import columns, row

_JSON_END = b"\n]\n"


class ResultFile:
    """Appends results to a .json file (an array), a .jsonl file (one object a line) or a .csv file.

    The file is valid after every append, and stays so when an append fails half way, as on a full disk. Use as a
    context manager.

    Args:
        path: File; its ending chooses the format. An older file is replaced, unless `resume`.
        labels: Labels of the model, for the columns of a CSV file.
        resume: Keep the results of an earlier run; its errors are dropped, so that those inputs are tried again.
        model_sha256: Whose results these are: those of another model are not gone on from. Any where None.

    Attributes:
        done: Inputs with a result from the earlier run.

    Raises:
        UsageError: Unknown ending, a place that cannot be written, or an earlier file that cannot be gone on from.
    """

    def __init__(
        self, path: Path, labels: Sequence[str], *, resume: bool = False, model_sha256: str | None = None
    ) -> None:
        self.path = path
        self.format = path.suffix.lower()
        if self.format not in (".json", ".jsonl", ".csv"):
            raise UsageError(f"{path}: results are written as .json, .jsonl or .csv. Give a name with such an ending.")
        self._columns = columns(labels)
        self._count = 0
        self._end = 0
        try:
            kept = earlier_results(path, self._columns, model_sha256) if resume and path.is_file() else []
            self._begin(kept)
        except OSError as error:
            raise UsageError(f"{path}: cannot be written ({error.strerror}). Choose another place.") from error
        self.done = frozenset(entry["input"] for entry in kept)

    def append(self, entry: Entry) -> None:
        """Add one result.

        Raises:
            OSError: It could not be written; the file then holds what it held before.
        """
        data = self._encoded(entry)
        start = self._end - (len(_JSON_END) if self.format == ".json" else 0)
        try:
            self._stream.seek(start)
            self._write(data)
        except BaseException:  # an interrupt too must not leave half a result behind
            self._stream.seek(start)
            if self.format == ".json":
                self._write(_JSON_END)
            self._stream.truncate(self._end)
            raise
        self._end = start + len(data)
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

    def _begin(self, kept: Sequence[Entry]) -> None:
        """Open the new file with the earlier results in it; unbuffered, so that each result is one write."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        scratch = self.path.with_name(f".{self.path.name}.new")
        try:
            with scratch.open("w+b", buffering=0) as self._stream:
                self._end = self._write(self._header())
                for entry in kept:
                    self.append(entry)
            scratch.replace(self.path)  # the earlier results stay until the new file holds them all
        except BaseException:
            scratch.unlink(missing_ok=True)
            raise
        self._stream = self.path.open("r+b", buffering=0)

    def _write(self, data: bytes) -> int:
        done = 0
        while done < len(data):  # an unbuffered write may write less than it was given
            done += self._stream.write(data[done:])
        return done

    def _header(self) -> bytes:
        if self.format == ".json":
            return b"[" + _JSON_END
        return self._csv_line(dict(zip(self._columns, self._columns, strict=True))) if self.format == ".csv" else b""

    def _encoded(self, entry: Entry) -> bytes:
        if self.format == ".csv":
            # an earlier run's CSV row has no "certainty": it is already flat
            return self._csv_line(row(entry) if "certainty" in entry or "error" in entry else entry)
        if self.format == ".jsonl":
            return json_line(entry) + b"\n"
        return (b",\n" if self._count else b"\n") + json_line(entry) + _JSON_END

    def _csv_line(self, values: Mapping[str, Any]) -> bytes:
        buffer = io.StringIO()
        csv.DictWriter(buffer, self._columns, lineterminator="\n").writerow(values)
        return _utf8(buffer.getvalue())


def error_entry(source: str, code: str, message: str) -> dict[str, Any]:
    """The object that stands for an input that failed."""
    return {"input": source, "error": {"code": code, "message": message}}


def json_line(entry: Entry) -> bytes:
    """One result as JSON in UTF-8, without a line's end: what standard output and .jsonl files hold."""
    return _utf8(json.dumps(entry, ensure_ascii=False, allow_nan=False))


def _utf8(text: str) -> bytes:
    """UTF-8 even of file names that are not valid text: in JSON what cannot be encoded becomes an escape."""
    return text.encode("utf-8", "backslashreplace")
