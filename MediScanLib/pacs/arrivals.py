"""Studies and the images that came in, as the database knows them."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import Any

from .completeness import Arrival, is_complete
from .database import Database
from .facts import Facts
from .folder import key_of
from .problems import PacsError
from .settings import StudySettings


@dataclass(frozen=True)
class Study:
    """A study to look at.

    Attributes:
        uid: StudyInstanceUID.
        key: Stands for it in the log.
        version: Grows with every new image.
        is_partial: Its association broke and nothing more came.
        is_again: An earlier version of it was looked at before.
    """

    uid: str
    key: str
    version: int
    is_partial: bool
    is_again: bool


@dataclass(frozen=True)
class Instance:
    """An image that came in.

    Attributes:
        facts: What its header says.
        digest: Of its content.
        file: Below the folder of the node; None once it was deleted.
        origin: "ae:" or "web:" and the name of where it came from.
    """

    facts: Facts
    digest: str
    file: str | None
    origin: str


class ArrivalStore:
    """What came in.

    Args:
        database: Where it is kept.
        most: Images of one study.
    """

    def __init__(self, database: Database, most: int) -> None:
        self._database, self._most = database, most

    def recover(self) -> None:
        """After a start: what was open when the node ended is broken now."""
        with self._database.writing() as connection:
            connection.execute("UPDATE studies SET is_broken = 1, is_open = 0 WHERE is_open = 1")

    def is_own(self, uid: str) -> bool:
        """Whether a SOP Instance UID is that of a result which was made or sent here."""
        with self._database.reading() as connection:
            found = connection.execute(
                "SELECT 1 FROM objects WHERE uid = :uid UNION ALL SELECT 1 FROM sent WHERE uid = :uid LIMIT 1",
                {"uid": uid},
            )
            return found.fetchone() is not None

    def check_room(self, facts: Facts, digest: str) -> None:
        """Whether an image may come: one that is here already always may.

        Raises:
            PacsError: Its study has too many already.
        """
        study = facts.study_uid
        with self._database.reading() as connection:
            found = connection.execute("SELECT count(*) FROM instances WHERE study = ?", (study,)).fetchone()[0]
            known = (
                found >= self._most
                and connection.execute(
                    "SELECT 1 FROM instances WHERE study = ? AND uid = ? AND digest = ?", (study, facts.uid, digest)
                ).fetchone()
            )
        if found >= self._most and not known:
            raise PacsError(
                f"study {key_of(study)}: has {found} images already, and no more are taken (limits.instances).",
                code="too_many",
            )

    def add(self, facts: Facts, digest: str, file: str, size: int, origin: str) -> bool:
        """Take an image in; once this returns it will not be lost.

        Returns:
            Whether it is new: another image of its study, or another content.
        """
        now = time.time()
        with self._database.writing() as connection:
            connection.execute(
                "INSERT INTO studies (uid, key, version, planned, first_at, last_at, is_open, is_broken) "
                "VALUES (?, ?, 0, 0, ?, ?, 0, 0) ON CONFLICT DO NOTHING",
                (facts.study_uid, key_of(facts.study_uid), now, now),
            )
            row = connection.execute(
                "SELECT is_current, file FROM instances WHERE study = ? AND uid = ? AND digest = ?",
                (facts.study_uid, facts.uid, digest),
            ).fetchone()
            connection.execute(
                "UPDATE instances SET is_current = 0 WHERE study = ? AND uid = ? AND digest != ?",
                (facts.study_uid, facts.uid, digest),
            )
            connection.execute(
                "INSERT INTO instances VALUES (?, ?, ?, ?, ?, ?, ?, ?, 1) ON CONFLICT (study, uid, digest) "
                "DO UPDATE SET file = excluded.file, is_current = 1",
                (facts.study_uid, facts.uid, digest, file, size, json.dumps(facts.to_dict()), origin, now),
            )
            new = row is None or not row["is_current"]
            if row is None or not row["is_current"] or row["file"] is None:  # what is back may complete a series
                connection.execute(
                    "UPDATE studies SET version = version + 1, last_at = ? WHERE uid = ?", (now, facts.study_uid)
                )
        return new

    def opened(self, study: str) -> None:
        """More of a study may come over a connection that is open."""
        self._update(study, "is_open = 1")

    def closed(self, study: str, *, broken: bool) -> None:
        """The last connection over which more of a study could come has ended.

        Args:
            study: StudyInstanceUID.
            broken: Without being released.
        """
        self._update(study, f"is_open = 0, is_broken = {int(broken)}")

    def due(self, settings: StudySettings) -> list[Study]:
        """Studies that are complete and were not looked at since the last image came."""
        now = time.time()
        with self._database.reading() as connection:
            rows = connection.execute("SELECT * FROM studies WHERE version > planned ORDER BY last_at").fetchall()
        return [_study(row) for row in rows if is_complete(_arrival(row), settings, now)]

    def instances(self, study: str) -> list[Instance]:
        """The images of a study, each with the content that came last."""
        with self._database.reading() as connection:
            rows = connection.execute(
                "SELECT * FROM instances WHERE study = ? AND is_current = 1 ORDER BY uid", (study,)
            ).fetchall()
        return [Instance(Facts(**json.loads(row["facts"])), row["digest"], row["file"], row["origin"]) for row in rows]

    # What polling needs

    def count_seen(self, study: str) -> int | None:
        """How many instances the source stated at the last look; None where it is new."""
        with self._database.reading() as connection:
            row = connection.execute("SELECT count_seen FROM studies WHERE uid = ?", (study,)).fetchone()
        return None if row is None else row["count_seen"]

    def set_count_seen(self, study: str, count: int) -> None:
        """Remember how many instances a source stated."""
        now = time.time()
        with self._database.writing() as connection:
            connection.execute(
                "INSERT INTO studies VALUES (?, ?, 0, 0, ?, ?, 0, 0, ?) "
                "ON CONFLICT (uid) DO UPDATE SET count_seen = excluded.count_seen",
                (study, key_of(study), now, now, count),
            )

    def known(self, study: str) -> set[str]:
        """SOP Instance UIDs of a study that need not be fetched: they are here, or left alone."""
        with self._database.reading() as connection:
            rows = connection.execute(
                "SELECT uid FROM instances WHERE study = :study UNION SELECT uid FROM left_alone WHERE study = :study",
                {"study": study},
            )
            return {row["uid"] for row in rows}

    def leave_alone(self, study: str, uid: str) -> None:
        """Remember that an instance of a source is of no use here."""
        with self._database.writing() as connection:
            connection.execute(
                "INSERT INTO left_alone VALUES (?, ?, ?) ON CONFLICT DO NOTHING", (study, uid, time.time())
            )

    def _update(self, study: str, what: str) -> None:
        with self._database.writing() as connection:
            connection.execute(f"UPDATE studies SET {what} WHERE uid = ?", (study,))  # noqa: S608 - texts of this file


def _arrival(row: Any) -> Arrival:
    return Arrival(row["last_at"], bool(row["is_open"]), bool(row["is_broken"]))


def _study(row: Any) -> Study:
    return Study(row["uid"], row["key"], row["version"], bool(row["is_broken"]), row["planned"] > 0)
