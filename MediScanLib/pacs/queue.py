"""What an operator sees of the queue, and can do to it, while a node runs or not."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .database import Database
from .problems import PacsError

_WAITING = ("queued", "predicting", "sending")
_RETRIED_ITEM = (
    "UPDATE items SET state = 'queued', attempt = 0, due = :now, ended = NULL, error = NULL "
    "WHERE id = :id AND state = 'dead' AND NOT EXISTS (SELECT 1 FROM deliveries d WHERE d.item = id)"
)
_RETRIED_DELIVERIES = (
    "UPDATE deliveries SET state = 'waiting', attempt = 0, due = :now, ended = NULL, error = NULL "
    "WHERE item = :id AND state = 'dead'"
)


@dataclass(frozen=True)
class Counts:
    """How much is where.

    Attributes:
        waiting_studies: Not complete yet, or not looked at.
        items: By state: queued, predicting, sending, done, dead, superseded.
        deliveries: By destination and state: waiting, done, dead, dropped.
    """

    waiting_studies: int
    items: dict[str, int]
    deliveries: dict[str, dict[str, int]]

    @property
    def is_idle(self) -> bool:
        """Whether nothing waits."""
        return not self.waiting_studies and not any(self.items.get(state) for state in _WAITING)


@dataclass(frozen=True)
class DeadLetter:
    """Something that was given up.

    Attributes:
        item: Its id.
        study: Key of its study, as in the log.
        rule: Name of its rule.
        destination: Where its results did not go; None where there are no results.
        attempts: How often it was tried.
        ended: When it was given up, seconds since 1970.
        message: Why.
        can_retry: Whether its files are still there.
    """

    item: str
    study: str
    rule: str
    destination: str | None
    attempts: int
    ended: float
    message: str
    can_retry: bool


class Queue:
    """The queue in the folder of a node.

    Args:
        folder: Of the node.

    Raises:
        PacsError: There is none, or it cannot be used.
    """

    def __init__(self, folder: Path) -> None:
        path = folder / "queue.sqlite"
        if not path.is_file():
            raise PacsError(f"{folder}: holds no queue. Give the settings of a node that ran already.")
        self._database = Database(path)

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def counts(self) -> Counts:
        """How much is where."""
        with self._database.reading() as connection:
            waiting = connection.execute("SELECT count(*) FROM studies WHERE version > planned").fetchone()[0]
            items = connection.execute("SELECT state, count(*) FROM items GROUP BY state ORDER BY state").fetchall()
            rows = connection.execute(
                "SELECT destination, state, count(*) FROM deliveries GROUP BY destination, state "
                "ORDER BY destination, state"
            ).fetchall()
        deliveries: dict[str, dict[str, int]] = {}
        for destination, state, count in rows:
            deliveries.setdefault(destination, {})[state] = count
        return Counts(waiting, {row[0]: row[1] for row in items}, deliveries)

    def destinations(self) -> set[str]:
        """Names of destinations that something waits for."""
        with self._database.reading() as connection:
            rows = connection.execute("SELECT DISTINCT destination FROM deliveries WHERE state = 'waiting'").fetchall()
        return {row["destination"] for row in rows}

    def dead_letters(self) -> list[DeadLetter]:
        """All that was given up, the latest last."""
        with self._database.reading() as connection:
            items = connection.execute(
                "SELECT i.id, s.key, json_extract(i.rule, '$.name') AS name, NULL AS destination, i.attempt, i.ended, "
                "i.error, NOT EXISTS (SELECT value FROM json_each(i.files) "
                "EXCEPT SELECT n.file FROM instances n WHERE n.study = i.study) AS whole "
                "FROM items i JOIN studies s ON s.uid = i.study "
                "WHERE i.state = 'dead' AND NOT EXISTS (SELECT 1 FROM deliveries d WHERE d.item = i.id) "
                "UNION ALL "
                "SELECT i.id, s.key, json_extract(i.rule, '$.name'), d.destination, d.attempt, d.ended, d.error, "
                "NOT EXISTS (SELECT 1 FROM objects o WHERE o.item = i.id AND o.file IS NULL) "
                "FROM deliveries d JOIN items i ON i.id = d.item JOIN studies s ON s.uid = i.study "
                "WHERE d.state = 'dead' ORDER BY 6"
            ).fetchall()
        return [
            DeadLetter(
                row["id"],
                row["key"],
                row["name"],
                row["destination"],
                row["attempt"],
                row["ended"] or 0.0,
                json.loads(row["error"] or "{}").get("message", ""),
                bool(row["whole"]),
            )
            for row in items
        ]

    def retry(self, ids: Sequence[str]) -> int:
        """Try dead letters again.

        Args:
            ids: Of items; all that can be where there are none.

        Returns:
            How many items are tried again.

        Raises:
            PacsError: One is no dead letter, or its files are deleted.
        """
        chosen = self._chosen(ids, only_whole=True)
        now = time.time()
        with self._database.writing() as connection:
            for one in chosen:
                values = {"id": one, "now": now}
                if connection.execute(_RETRIED_DELIVERIES, values).rowcount:
                    connection.execute("UPDATE items SET state = 'sending', ended = NULL WHERE id = :id", values)
                else:
                    connection.execute(_RETRIED_ITEM, values)
        return len(chosen)

    def drop(self, ids: Sequence[str]) -> int:
        """Take dead letters off the list for good.

        Args:
            ids: Of items; all dead letters where there are none.

        Returns:
            How many items.

        Raises:
            PacsError: One is no dead letter.
        """
        chosen = self._chosen(ids, only_whole=False)
        now = time.time()
        with self._database.writing() as connection:
            for one in chosen:
                connection.execute(
                    "UPDATE deliveries SET state = 'dropped', ended = ? WHERE item = ? AND state = 'dead'", (now, one)
                )
                connection.execute(
                    "UPDATE items SET state = 'done', ended = ? WHERE id = ? AND state = 'dead'", (now, one)
                )
        return len(chosen)

    def _chosen(self, ids: Sequence[str], *, only_whole: bool) -> list[str]:
        whole: dict[str, bool] = {}
        for letter in self.dead_letters():
            whole[letter.item] = whole.get(letter.item, True) and letter.can_retry
        for one in ids:
            if one not in whole:
                raise PacsError(f"{one}: is no dead letter. `mediscan queue dead` lists them.")
            if only_whole and not whole[one]:
                raise PacsError(f"{one}: its files are deleted already. Have its study sent again.")
        return [one for one in dict.fromkeys(ids or whole) if whole[one] or not only_whole]
