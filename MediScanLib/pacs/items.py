"""What is to be predicted, leased to nobody: the one process that owns the folder starts over what it left undone."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass
from sqlite3 import Connection
from typing import Any

from .arrivals import Study
from .backoff import MOST_WAIT_S
from .database import Database
from .folder import file_name, key_of
from .plans import Plan
from .rules import Rule

ENDED = ("done", "dead", "superseded")
"""States that an item leaves by the hand of an operator only."""


@dataclass(frozen=True)
class Item:
    """One image or volume for one model.

    Attributes:
        id: Random; stands in the log.
        study: StudyInstanceUID.
        rule: What is done with it.
        files: Below the folder of the node.
        is_partial: The study was incomplete.
        attempt: How often it was begun.
    """

    id: str
    study: str
    rule: Rule
    files: tuple[str, ...]
    is_partial: bool
    attempt: int


class ItemStore:
    """The items of a node.

    Args:
        database: Where they are kept.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def recover(self) -> None:
        """After a start: what was under way begins again."""
        with self._database.writing() as connection:
            connection.execute("UPDATE items SET state = 'queued' WHERE state = 'predicting'")

    def put(self, study: Study, found: Sequence[Plan]) -> tuple[int, int]:
        """Queue what is new in a version of a study, and drop what it replaces.

        Returns:
            How many are new, and how many were known already.
        """
        now = time.time()
        new = known = 0
        with self._database.writing() as connection:
            for plan in found:
                connection.execute(
                    "UPDATE items SET state = 'superseded', ended = ? WHERE study = ? AND member = ? "
                    "AND fingerprint != ? AND json_extract(rule, '$.name') = ? AND (state IN ('queued', 'predicting') "
                    "OR state = 'dead' AND NOT EXISTS (SELECT 1 FROM deliveries d WHERE d.item = id))",
                    (now, study.uid, plan.member, plan.fingerprint, plan.rule.name),
                )
                row = connection.execute(
                    "SELECT id, state, error FROM items WHERE fingerprint = ?", (plan.fingerprint,)
                ).fetchone()
                if row is not None and plan.is_whole and _can_begin_again(connection, row):
                    for table in ("objects", "deliveries"):  # of results whose files are deleted
                        connection.execute(f"DELETE FROM {table} WHERE item = ?", (row["id"],))  # noqa: S608
                    connection.execute(
                        "UPDATE items SET state = 'queued', due = ?, ended = NULL, error = NULL, files = ? "
                        "WHERE id = ?",
                        (now, _files(plan), row["id"]),
                    )
                if row is not None:
                    known += 1
                    continue
                new += 1
                error = None if plan.is_whole else json.dumps(_GONE)
                connection.execute(
                    "INSERT INTO items VALUES (?, ?, ?, ?, ?, ?, ?, ?, 0, ?, ?, ?, ?)",
                    (
                        secrets.token_hex(5),
                        plan.fingerprint,
                        study.uid,
                        plan.member,
                        plan.rule.model_dump_json(),
                        _files(plan),
                        int(study.is_partial),
                        "queued" if plan.is_whole else "dead",
                        now,
                        now,
                        None if plan.is_whole else now,
                        error,
                    ),
                )
            connection.execute(
                "UPDATE studies SET planned = max(planned, ?) WHERE uid = ?", (study.version, study.uid)
            )
        return new, known

    def claim(self) -> Item | None:
        """The next item to predict; None where there is none now."""
        now = time.time()
        with self._database.writing() as connection:
            row = connection.execute(
                "SELECT * FROM items WHERE state = 'queued' AND (attempt = 0 OR due <= ? OR due > ?) "
                "ORDER BY created, rowid LIMIT 1",
                (now, now + MOST_WAIT_S),
            ).fetchone()
            if row is None:
                return None
            connection.execute(
                "UPDATE items SET state = 'predicting', attempt = attempt + 1 WHERE id = ?", (row["id"],)
            )
        return item_of(row, row["attempt"] + 1)

    def give_back(self, item: Item) -> None:
        """It was not begun after all."""
        with self._database.writing() as connection:
            connection.execute(
                "UPDATE items SET state = 'queued', attempt = attempt - 1 "
                "WHERE id = ? AND state = 'predicting' AND attempt = ?",
                (item.id, item.attempt),
            )

    def finish(self, item: Item, objects: Sequence[tuple[str, str]]) -> bool:
        """It was predicted: its results go out.

        Args:
            item: The item.
            objects: (SOP Instance UID, path below the folder) of each result.

        Returns:
            False where a newer version of its study has taken its place meanwhile.
        """
        now = time.time()
        with self._database.writing() as connection:
            changed = connection.execute(
                "UPDATE items SET state = 'sending', error = NULL "
                "WHERE id = ? AND state = 'predicting' AND attempt = ?",
                (item.id, item.attempt),
            )
            if changed.rowcount == 0:
                return False
            connection.execute("DELETE FROM objects WHERE item = ?", (item.id,))
            connection.executemany(
                "INSERT INTO objects VALUES (?, ?, ?, ?)",
                [(item.id, number, uid, file) for number, (uid, file) in enumerate(objects)],
            )
            connection.execute("DELETE FROM deliveries WHERE item = ?", (item.id,))
            connection.executemany(
                "INSERT INTO deliveries VALUES (?, ?, 'waiting', 0, ?, NULL, NULL)",
                [(item.id, name, now) for name in item.rule.send_to],
            )
        return True

    def fail(self, item: Item, code: str, message: str, again_at: float | None) -> None:
        """It was not predicted.

        Args:
            item: The item.
            code: Of the error.
            message: Of the error; names no patient.
            again_at: When it is tried again; None for a dead letter.
        """
        error = json.dumps({"code": code, "message": message})
        with self._database.writing() as connection:
            connection.execute(
                "UPDATE items SET state = ?, due = ?, ended = ?, error = ? "
                "WHERE id = ? AND state = 'predicting' AND attempt = ?",
                (
                    "dead" if again_at is None else "queued",
                    again_at or 0.0,
                    time.time() if again_at is None else None,
                    error,
                    item.id,
                    item.attempt,
                ),
            )


_GONE = {
    "code": "files_gone",
    "message": "Images of this series that came earlier are deleted already. Have the whole study sent again.",
}


def _files(plan: Plan) -> str:
    """All of its files, also those that are gone: a volume is never predicted from a part of its slices."""
    found = [
        instance.file or file_name(key_of(instance.facts.study_uid), instance.facts.uid, instance.digest)
        for instance in plan.instances
    ]
    return json.dumps(found)


def _can_begin_again(connection: Connection, row: Any) -> bool:
    """Whether something else took its place, or files were missing: its own, or later those of its results."""
    if row["state"] != "dead":
        return bool(row["state"] == "superseded")
    if json.loads(row["error"] or "{}").get("code") == _GONE["code"]:
        return True
    lost = connection.execute("SELECT 1 FROM objects WHERE item = ? AND file IS NULL LIMIT 1", (row["id"],))
    return lost.fetchone() is not None


def item_of(row: Any, attempt: int) -> Item:
    """The item in a row of the table."""
    rule = Rule.model_validate_json(row["rule"])
    return Item(row["id"], row["study"], rule, tuple(json.loads(row["files"])), bool(row["is_partial"]), attempt)
