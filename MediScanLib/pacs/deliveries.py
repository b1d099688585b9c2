"""Results on their way to destinations, and the ledger of what was sent there."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from sqlite3 import Connection

from .backoff import MOST_WAIT_S
from .database import Database


@dataclass(frozen=True)
class ResultObject:
    """One DICOM object of a result.

    Attributes:
        uid: SOPInstanceUID.
        file: Below the folder of the node; None once it was deleted.
        is_uncertain: Its sending began and was never seen to end: the destination may have it.
    """

    uid: str
    file: str | None
    is_uncertain: bool


@dataclass(frozen=True)
class Delivery:
    """The results of an item for one destination.

    Attributes:
        item: Id of the item.
        destination: Name.
        attempt: How often it was tried, with this time.
        objects: What is still to be sent.
    """

    item: str
    destination: str
    attempt: int
    objects: tuple[ResultObject, ...]


class DeliveryStore:
    """The deliveries of a node. Each destination has one thread that sends, so that none is claimed twice.

    Args:
        database: Where they are kept.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def next(self, destination: str) -> Delivery | None:
        """The next delivery for a destination; None where there is none now."""
        now = time.time()
        with self._database.writing() as connection:
            row = connection.execute(
                "SELECT * FROM deliveries WHERE destination = ? AND state = 'waiting' "
                "AND (attempt = 0 OR due <= ? OR due > ?) ORDER BY due LIMIT 1",
                (destination, now, now + MOST_WAIT_S),
            ).fetchone()
            if row is None:
                return None
            connection.execute(
                "UPDATE deliveries SET attempt = attempt + 1 WHERE item = ? AND destination = ?",
                (row["item"], destination),
            )
            objects = connection.execute(
                "SELECT o.uid, o.file, s.state FROM objects o LEFT JOIN sent s ON s.uid = o.uid "
                "AND s.destination = ? WHERE o.item = ? ORDER BY o.number",
                (destination, row["item"]),
            ).fetchall()
        return Delivery(
            row["item"],
            destination,
            row["attempt"] + 1,
            tuple(
                ResultObject(one["uid"], one["file"], one["state"] == "sending")
                for one in objects
                if one["state"] != "sent"
            ),
        )

    def begin(self, delivery: Delivery) -> None:
        """Say in the ledger that its objects may be on their way from now on."""
        now = time.time()
        with self._database.writing() as connection:
            connection.executemany(
                "INSERT INTO sent VALUES (?, ?, 'sending', ?) ON CONFLICT DO NOTHING",
                [(delivery.destination, one.uid, now) for one in delivery.objects],
            )

    def settle(self, delivery: Delivery, sent: set[str], uncertain: set[str]) -> None:
        """Say in the ledger what became of its objects.

        Args:
            delivery: The delivery.
            sent: UIDs that the destination has.
            uncertain: UIDs that it may have.
        """
        with self._database.writing() as connection:
            self._settle(connection, delivery, sent, uncertain)

    def done(self, delivery: Delivery, sent: set[str]) -> None:
        """All of it is there."""
        now = time.time()
        with self._database.writing() as connection:
            self._settle(connection, delivery, sent, set())
            connection.execute(
                "UPDATE deliveries SET state = 'done', ended = ?, error = NULL "
                "WHERE item = ? AND destination = ? AND state = 'waiting'",
                (now, delivery.item, delivery.destination),
            )
            self._end_item(connection, delivery.item, now)

    def fail(
        self, delivery: Delivery, code: str, message: str, again_at: float | None, *, counts: bool = True
    ) -> None:
        """It did not go.

        Args:
            delivery: The delivery.
            code: Of the error.
            message: Of the error; names no patient.
            again_at: When it is tried again; None for a dead letter.
            counts: Whether this was an attempt.
        """
        now = time.time()
        with self._database.writing() as connection:
            connection.execute(
                "UPDATE deliveries SET state = ?, due = ?, ended = ?, error = ?, attempt = attempt - ? "
                "WHERE item = ? AND destination = ? AND state = 'waiting'",
                (
                    "dead" if again_at is None else "waiting",
                    again_at or 0.0,
                    now if again_at is None else None,
                    json.dumps({"code": code, "message": message}),
                    int(not counts),
                    delivery.item,
                    delivery.destination,
                ),
            )
            if again_at is None:
                self._end_item(connection, delivery.item, now)

    @staticmethod
    def _settle(connection: Connection, delivery: Delivery, sent: set[str], uncertain: set[str]) -> None:
        now = time.time()
        for one in delivery.objects:
            if one.uid in sent:
                connection.execute(
                    "INSERT INTO sent VALUES (?, ?, 'sent', ?) "
                    "ON CONFLICT (destination, uid) DO UPDATE SET state = 'sent', at = excluded.at",
                    (delivery.destination, one.uid, now),
                )
            elif one.uid not in uncertain:
                connection.execute(
                    "DELETE FROM sent WHERE destination = ? AND uid = ? AND state = 'sending'",
                    (delivery.destination, one.uid),
                )

    @staticmethod
    def _end_item(connection: Connection, item: str, now: float) -> None:
        states = {row["state"] for row in connection.execute("SELECT state FROM deliveries WHERE item = ?", (item,))}
        if "waiting" not in states:
            connection.execute(
                "UPDATE items SET state = ?, ended = ? WHERE id = ?",
                ("dead" if "dead" in states else "done", now, item),
            )
