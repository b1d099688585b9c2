"""The file in which the queue lies: SQLite, so that a node needs no server. See docs/decisions/0011-pacs.md.

A transaction that returned is on the disk, whatever happens to the process or the power.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .problems import DiskFullError, PacsError

SCHEMA_VERSION = 1
_WAIT_S = 30.0

_SCHEMA = """
CREATE TABLE studies (                -- what came in
    uid TEXT PRIMARY KEY,
    key TEXT NOT NULL UNIQUE,         -- stands in the log and names the folder
    version INTEGER NOT NULL,         -- grows with every new image
    planned INTEGER NOT NULL,         -- the version that was last looked at
    first_at REAL NOT NULL,
    last_at REAL NOT NULL,
    is_open INTEGER NOT NULL,
    is_broken INTEGER NOT NULL,
    count_seen INTEGER                -- instances that a DICOMweb source stated last
);
CREATE TABLE instances (              -- every content that came under a SOP Instance UID
    study TEXT NOT NULL REFERENCES studies (uid) ON DELETE CASCADE,
    uid TEXT NOT NULL,
    digest TEXT NOT NULL,
    file TEXT,                        -- below the folder; NULL once it was deleted
    size INTEGER NOT NULL,
    facts TEXT NOT NULL,
    origin TEXT NOT NULL,
    at REAL NOT NULL,
    is_current INTEGER NOT NULL,      -- the content that came last under its UID
    PRIMARY KEY (study, uid, digest)
);
CREATE TABLE left_alone (             -- what a DICOMweb source holds and need not be fetched again
    study TEXT NOT NULL,
    uid TEXT NOT NULL,
    at REAL NOT NULL,
    PRIMARY KEY (study, uid)
);
CREATE TABLE items (                  -- one image or volume for one model
    id TEXT PRIMARY KEY,
    fingerprint TEXT NOT NULL UNIQUE, -- of content, model and rule: the same is never predicted twice
    study TEXT NOT NULL REFERENCES studies (uid) ON DELETE CASCADE,
    member TEXT NOT NULL,             -- the series or instance that it is
    rule TEXT NOT NULL,               -- JSON
    files TEXT NOT NULL,              -- JSON
    is_partial INTEGER NOT NULL,
    state TEXT NOT NULL,              -- queued, predicting, sending, done, dead, superseded
    attempt INTEGER NOT NULL,
    due REAL NOT NULL,
    created REAL NOT NULL,
    ended REAL,
    error TEXT
);
CREATE INDEX items_by_state ON items (state, due);
CREATE INDEX items_by_study ON items (study);
CREATE TABLE objects (                -- the results of an item
    item TEXT NOT NULL REFERENCES items (id) ON DELETE CASCADE,
    number INTEGER NOT NULL,
    uid TEXT NOT NULL,
    file TEXT,
    PRIMARY KEY (item, number)
);
CREATE INDEX objects_by_uid ON objects (uid);
CREATE TABLE deliveries (             -- the results of an item for one destination
    item TEXT NOT NULL REFERENCES items (id) ON DELETE CASCADE,
    destination TEXT NOT NULL,
    state TEXT NOT NULL,              -- waiting, done, dead, dropped
    attempt INTEGER NOT NULL,
    due REAL NOT NULL,
    ended REAL,
    error TEXT,
    PRIMARY KEY (item, destination)
);
CREATE INDEX deliveries_by_state ON deliveries (destination, state, due);
CREATE TABLE sent (                   -- the ledger: nothing in it is sent there again
    destination TEXT NOT NULL,
    uid TEXT NOT NULL,
    state TEXT NOT NULL,              -- sending, sent
    at REAL NOT NULL,
    PRIMARY KEY (destination, uid)
);
CREATE INDEX sent_by_uid ON sent (uid);
"""


class Database:
    """One SQLite file. Safe for use from several threads; other processes may look and change at the same time.

    Args:
        path: File; made, for this user only, where it is missing.

    Raises:
        PacsError: It cannot be used, or belongs to a newer MediScan.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.RLock()
        with self._explained():
            path.touch(mode=0o600, exist_ok=True)
            self._connection = sqlite3.connect(path, timeout=_WAIT_S, check_same_thread=False, isolation_level=None)
            self._connection.row_factory = sqlite3.Row
            for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON", "secure_delete = FAST"):
                self._connection.execute(f"PRAGMA {pragma}")
        try:
            self._prepare()
        except BaseException:
            self._connection.close()
            raise

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """A transaction; it is kept where nothing is raised in it.

        Raises:
            DiskFullError: There is no room for it.
            PacsError: The database cannot be used.
        """
        with self._lock, self._explained():
            self._connection.execute("BEGIN IMMEDIATE")  # one that reads first could find that another wrote between
            try:
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """A connection that sees one moment."""
        with self._lock, self._explained():
            self._connection.execute("BEGIN")
            try:
                yield self._connection
            finally:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._connection.close()

    def _prepare(self) -> None:
        with self.writing() as connection:
            version = connection.execute("PRAGMA user_version").fetchone()[0]
            if version > SCHEMA_VERSION:
                raise PacsError(f"{self._path}: belongs to a newer MediScan. Update this one, or give another folder.")
            if version == 0:
                for statement in _SCHEMA.split(";\n"):
                    if statement.strip():
                        connection.execute(statement)
                connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise PacsError(f"{self._path}: cannot be used ({error.strerror}). Choose another folder.") from error
        except sqlite3.Error as error:
            # never the values: they are UIDs of patients
            if "full" in str(error):
                raise DiskFullError(f"{self._path}: the disk is full. Free some space.") from error
            if "disk I/O" in str(error):  # of a full disk too, where a quota bounds it
                raise DiskFullError(f"{self._path}: the disk is full, or fails. Look at it.") from error
            said = str(error).splitlines()[0][:100]
            raise PacsError(
                f"{self._path}: does not answer as it should ({said}). Is it a queue of MediScan?"
            ) from error
