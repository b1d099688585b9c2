"""What a reader said about predictions, in one SQLite file of this user. Reviews are added and never changed."""

from __future__ import annotations

import csv
import io
import os
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ..errors import UsageError
from ..network.bundle import user_folder
from ..writing import atomic_write
from .review import Box, Review, ReviewError, first_problem

__all__ = ["Box", "Review", "ReviewError", "ReviewStore", "reviews_file"]

STORE_VERSION = 1
APPLICATION_ID = 0x4D534352  # "MSCR", so that another program's file is not taken for ours
TIMEOUT_S = 5.0

_TABLE = """
CREATE TABLE reviews (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    reviewed_at TEXT NOT NULL,
    model TEXT NOT NULL,
    review TEXT NOT NULL
)
"""

COLUMNS = (
    "reviewed_at",
    "reader",
    "input",
    "finding",
    "agree",
    "corrected_label",
    "corrected_severity",
    "note",
    "region",
    "probability",
    "decision",
    "severity_score",
    "deferred",
    "model",
    "model_version",
    "model_sha256",
    "patient",
    "study",
    "series",
    "instance",
)
"""Columns of an exported table."""


class ReviewStore:
    """The reviews of this user, in a file that several processes may use at once.

    A file that is damaged, of another program or of a newer MediScan is an error and stays as it is. Nothing is
    created before the first review.

    Args:
        path: SQLite file; `reviews_file()` where None.
        timeout_s: How long to wait for another process that writes, in seconds.
    """

    def __init__(self, path: Path | None = None, *, timeout_s: float = TIMEOUT_S) -> None:
        self.path = path or reviews_file()
        self._timeout_s = timeout_s

    def add(self, review: Review) -> int:
        """Keep a review; earlier ones of the same prediction stay.

        Returns:
            Its number, which rises.

        Raises:
            ReviewError: It could not be kept.
        """
        # made whole before the file is touched
        row = (_sortable(review.reviewed_at), review.model, review.to_json())
        with self._explained("written"):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with suppress(FileExistsError):  # private: a note may say what no file header does
                os.close(os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
            with closing(sqlite3.connect(self.path, timeout=self._timeout_s, isolation_level=None)) as connection:
                self._check(connection)
                with suppress(sqlite3.OperationalError):  # not on every file system, nor while another one does it
                    connection.execute("PRAGMA journal_mode = WAL")
                connection.execute("PRAGMA synchronous = FULL")
                connection.execute("BEGIN IMMEDIATE")
                try:
                    if self._check(connection) == 0:
                        connection.execute(_TABLE)
                        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
                        connection.execute(f"PRAGMA user_version = {STORE_VERSION}")
                    cursor = connection.execute(
                        "INSERT INTO reviews (reviewed_at, model, review) VALUES (?, ?, ?)", row
                    )
                    connection.execute("COMMIT")
                except BaseException:
                    if connection.in_transaction:
                        connection.execute("ROLLBACK")
                    raise
                number = cursor.lastrowid
        assert number is not None
        return number

    def all(self) -> list[Review]:
        """Every review, in the order in which they were added.

        Raises:
            ReviewError: The file cannot be read.
        """
        return self.of()

    def of(self, *, model: str | None = None, since: datetime | None = None) -> list[Review]:
        """Reviews in the order in which they were added.

        Args:
            model: Of this model only.
            since: From this time on only; with its time zone.

        Raises:
            UsageError: The time has no time zone.
            ReviewError: The file cannot be read.
        """
        if since is not None and since.tzinfo is None:
            raise UsageError("The time from which reviews are wanted needs a time zone.")
        conditions, values = [], []
        if model is not None:
            conditions.append("model = ?")
            values.append(model)
        if since is not None:
            conditions.append("reviewed_at >= ?")
            values.append(_sortable(since.astimezone(timezone.utc)))
        where = f"WHERE {' AND '.join(conditions)} " if conditions else ""
        with self._explained("read"):
            rows = self._rows(f"SELECT id, review FROM reviews {where}ORDER BY id", values)  # noqa: S608 - no values
        return [self._parsed(number, text) for number, text in rows]

    def latest(self, *, model: str | None = None) -> list[Review]:
        """The newest review of each study by each model and each reader, in the order of their times.

        Args:
            model: Of this model only.

        Raises:
            ReviewError: The file cannot be read.
        """
        newest: dict[tuple[str, ...], Review] = {}
        for review in self.of(model=model):
            key = (review.study, review.model, review.model_sha256, review.reader)
            if key not in newest or newest[key].reviewed_at <= review.reviewed_at:
                newest[key] = review
        return sorted(newest.values(), key=lambda review: review.reviewed_at)

    def export(self, path: Path, *, model: str | None = None, since: datetime | None = None) -> int:
        """Write the reviews as a table (.csv), or each with its whole prediction (.jsonl).

        Args:
            path: File.
            model: As in `of`.
            since: As in `of`.

        Returns:
            How many there are.

        Raises:
            UsageError: Another ending, or the file of the reviews itself.
            ReviewError: The reviews cannot be read.
            WriteError: The file cannot be written; an older one is untouched.
        """
        kind = path.suffix.lower()
        if kind not in (".csv", ".jsonl"):
            raise UsageError(f"{path}: reviews are written as .csv or .jsonl. Give a name with such an ending.")
        if os.path.realpath(path) == os.path.realpath(self.path):
            raise UsageError(f"{path}: this is the file of the reviews itself. Give another name.")
        reviews = self.of(model=model, since=since)
        with atomic_write(path) as stream:
            if kind == ".jsonl":
                stream.writelines(review.to_json().encode("utf-8") + b"\n" for review in reviews)
            else:
                text = io.StringIO()
                writer = csv.DictWriter(text, COLUMNS)  # ends lines by CR LF: only then a CR in a note is quoted
                writer.writeheader()
                writer.writerows(map(_row, reviews))
                stream.write(text.getvalue().encode("utf-8"))
        return len(reviews)

    def _rows(self, query: str, values: Sequence[str]) -> list[tuple[int, str]]:
        try:
            size = self.path.stat().st_size
        except FileNotFoundError:
            return []
        if size == 0:  # made by a process that is about to write its first review
            return []
        address = self.path.resolve().as_uri()
        try:
            return self._query(f"{address}?mode=rw", query, values)
        except sqlite3.OperationalError:
            # in a folder that cannot be written the file is read as it is, unless somebody else is at it
            if os.access(self.path.parent, os.W_OK) or Path(f"{self.path}-wal").exists():
                raise
            return self._query(f"{address}?immutable=1", query, values)

    def _query(self, address: str, query: str, values: Sequence[str]) -> list[tuple[int, str]]:
        with closing(sqlite3.connect(address, uri=True, timeout=self._timeout_s, isolation_level=None)) as connection:
            if self._check(connection) == 0:
                return []
            return connection.execute(query, values).fetchall()

    def _check(self, connection: sqlite3.Connection) -> int:
        """The version of the file, 0 where it is new.

        Raises:
            ReviewError: The file is another program's, or of a newer MediScan.
        """
        own = not connection.in_transaction
        if own:  # of one moment: another process may just be making the file
            connection.execute("BEGIN")
        try:
            (application,) = connection.execute("PRAGMA application_id").fetchone()
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        finally:
            if own:
                connection.rollback()
        if application == version == tables == 0:
            return 0
        if application != APPLICATION_ID:
            raise ReviewError(
                f"{self.path}: is a file of another program. Let MEDISCAN_REVIEWS name another one.", code="foreign"
            )
        if version > STORE_VERSION:
            raise ReviewError(
                f"{self.path}: was written by a newer MediScan (format {version}, this one knows {STORE_VERSION}). "
                "Update MediScan, or let MEDISCAN_REVIEWS name another file.",
                code="newer",
            )
        return int(version)

    def _parsed(self, number: int, text: str) -> Review:
        try:
            return Review.model_validate_json(text)
        except ValidationError as error:
            raise ReviewError(
                f"{self.path}: review {number} in it is damaged at {first_problem(error)}. {_KEEP}", code="damaged"
            ) from error

    @contextmanager
    def _explained(self, done: str) -> Iterator[None]:
        """Turns what SQLite and the system say into what is wrong with which file, and what to do."""
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            said = str(error.strerror or error) if isinstance(error, OSError) else str(error)
            code, advice = _explanation(said, done)
            raise ReviewError(f"{self.path}: cannot be {done} ({said}). {advice}", code=code) from error


def reviews_file() -> Path:
    """Where reviews are kept: MEDISCAN_REVIEWS, or beside the user's own models."""
    chosen = os.environ.get("MEDISCAN_REVIEWS")
    return Path(chosen) if chosen else user_folder() / "reviews.sqlite"


_KEEP = "It is left as it is: keep a copy, and let MEDISCAN_REVIEWS name another file."

_ADVICE: Mapping[str, tuple[str, str]] = {
    "locked": ("locked", "Another program is writing to it. Close that, or try again in a moment."),
    "busy": ("locked", "Another program is writing to it. Close that, or try again in a moment."),
    "readonly": ("read_only", "Make file and folder writable, or let MEDISCAN_REVIEWS name another file."),
    "full": ("full", "Free some space and try again; what was kept before is whole."),
    "i/o error": ("full", "Free some space or look after the disk, and try again; what was kept before is whole."),
    "malformed": ("damaged", _KEEP),
    "not a database": ("damaged", _KEEP),
    "no such": ("damaged", _KEEP),
}


def _explanation(said: str, done: str) -> tuple[str, str]:
    for part, explanation in _ADVICE.items():
        if part in said.lower():
            return explanation
    return "read_only", f"See that file and folder can be {done}, or let MEDISCAN_REVIEWS name another file."


def _row(review: Review) -> dict[str, Any]:
    prediction: Any = review.prediction
    facts = review.model_dump(mode="json", exclude={"prediction", "identifiers", "region", "schema_version"})
    judged: Mapping[str, Any] = next(
        (f for f in prediction.get("findings", ()) if f.get("label") == review.finding), {}
    )
    return {
        **{name: "" if value is None else value for name, value in facts.items()},
        "region": " ".join(_box_text(box) for box in review.region),
        "probability": judged.get("probability", ""),
        "decision": judged.get("decision", ""),
        "severity_score": _or_empty(prediction.get("severity", {}).get("score")),
        "deferred": prediction.get("certainty", {}).get("deferred", ""),
        **{level: review.identifiers.get(level, "") for level in COLUMNS[-4:]},
    }


def _box_text(box: Box) -> str:
    return ":".join(",".join(map(str, corner)) for corner in (box.first, box.last))


def _or_empty(value: object) -> object:
    return "" if value is None else value


def _sortable(moment: datetime) -> str:
    """Of one length, so that the order of the texts is that of the times."""
    return moment.isoformat(timespec="microseconds")
