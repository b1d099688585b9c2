"""Deletes what is no longer needed: images and results first, and much later the memory of them."""

from __future__ import annotations

import logging
import time
from contextlib import suppress
from pathlib import Path
from sqlite3 import Connection

from .database import Database
from .folder import NodeFolder
from .settings import KeepSettings

_log = logging.getLogger("mediscan.pacs")

_DAY = 86400.0

_ENDED = """
SELECT s.uid, s.key FROM studies s
WHERE s.version = s.planned AND s.is_open = 0 AND s.last_at < :before
AND EXISTS (SELECT 1 FROM instances n WHERE n.study = s.uid AND n.file IS NOT NULL)
AND NOT EXISTS (
    SELECT 1 FROM items i WHERE i.study = s.uid AND (
        i.state NOT IN ('done', 'dead', 'superseded') OR i.ended >= :before
        OR (i.state = 'dead' AND i.ended >= :dead_before)
    )
)
"""
_STUDIES_WITH_FILES = """
SELECT key FROM studies s WHERE EXISTS (SELECT 1 FROM instances n WHERE n.study = s.uid AND n.file IS NOT NULL)
"""
_ITEMS_WITH_FILES = """
SELECT id FROM items i WHERE state IN ('queued', 'predicting', 'sending')
OR EXISTS (SELECT 1 FROM objects o WHERE o.item = i.id AND o.file IS NOT NULL)
"""


class Housekeeper:
    """Tidies up.

    Args:
        database: What is known.
        folder: Where files lie.
        keep: What is kept for how long.
    """

    def __init__(self, database: Database, folder: NodeFolder, keep: KeepSettings) -> None:
        self._database, self._folder, self._keep = database, folder, keep

    def tidy(self) -> int:
        """Delete what is due.

        Returns:
            Studies whose files were deleted.
        """
        now = time.time()
        limits = {"before": now - self._keep.days * _DAY, "dead_before": now - self._keep.dead_days * _DAY}
        with self._folder.clearing() as busy:
            with self._database.writing() as connection:
                ended = connection.execute(_ENDED, limits).fetchall()
                studies = [study for study in ended if study["key"] not in busy]
                items = [row["id"] for study in studies for row in self._forget_files(connection, study["uid"])]
                self._forget(connection, now - self._keep.ledger_days * _DAY)
            # after the database: a file too many is found again, one too few is not
            places = [self._folder.studies / study["key"] for study in studies]
            places += [self._folder.results / item for item in items]
            aside = [self._folder.put_aside(place) for place in places]
            aside += self._sweep(busy)
        for place in aside:
            if place is not None:
                self._folder.delete(place)
        if studies:
            _log.info("the files of %d studies were deleted, as keep says.", len(studies))
        return len(studies)

    @staticmethod
    def _forget_files(connection: Connection, study: str) -> list[dict[str, str]]:
        items = connection.execute("SELECT id FROM items WHERE study = ?", (study,)).fetchall()
        connection.execute("UPDATE instances SET file = NULL WHERE study = ?", (study,))
        connection.executemany("UPDATE objects SET file = NULL WHERE item = ?", [(row["id"],) for row in items])
        return items

    @staticmethod
    def _forget(connection: Connection, before: float) -> None:
        connection.execute(
            "DELETE FROM studies WHERE last_at < ? AND version = planned AND NOT EXISTS "
            "(SELECT 1 FROM instances n WHERE n.study = uid AND n.file IS NOT NULL)",
            (before,),
        )
        for table in ("sent", "left_alone"):
            connection.execute(f"DELETE FROM {table} WHERE at < ?", (before,))  # noqa: S608 - names of this file

    def _sweep(self, busy: frozenset[str]) -> list[Path | None]:
        """Put aside folders of which nothing is needed, as a crash can leave them."""
        with self._database.reading() as connection:
            keys = {row["key"] for row in connection.execute(_STUDIES_WITH_FILES)} | busy
            items = {row["id"] for row in connection.execute(_ITEMS_WITH_FILES)}
        old, found = time.time() - 3600, []
        for place, known in ((self._folder.studies, keys), (self._folder.results, items)):
            for folder in place.iterdir():
                with suppress(OSError):
                    if folder.name not in known and folder.stat().st_mtime < old:
                        found.append(self._folder.put_aside(folder))
        return found
