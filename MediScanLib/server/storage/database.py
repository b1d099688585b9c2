"""The connection to the database, and the migrations that bring it to this version."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, make_url, text
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from ...errors import MediScanError

MIGRATIONS = Path(__file__).parent / "migrations"
_MIGRATION_LOCK = 0x4D534352
_AUDIT_LOCK = 0x4D534353
_WAIT_S = 20.0


class StorageError(MediScanError):
    """The database cannot be used."""

    code = "storage"


class Database:
    """SQLite or PostgreSQL behind one face. Safe for use from several threads and processes.

    Args:
        url: SQLAlchemy URL; `postgresql://` means psycopg.

    Raises:
        StorageError: The URL or its driver cannot be used.
    """

    def __init__(self, url: str) -> None:
        try:
            parsed = make_url(url)
            if parsed.drivername in ("postgresql", "postgres"):
                parsed = parsed.set(drivername="postgresql+psycopg")
            self.is_sqlite = parsed.get_backend_name() == "sqlite"
            if not self.is_sqlite and parsed.get_backend_name() != "postgresql":
                raise StorageError(f"{parsed.get_backend_name()}: is not supported. Use sqlite or postgresql.")
            self.shown = parsed.render_as_string(hide_password=True)
            if self.is_sqlite:
                self._prepare_file(parsed.database)
                # SQLite waits for its lock by itself
                self._engine = create_engine(parsed, connect_args={"timeout": _WAIT_S, "check_same_thread": False})
                event.listen(self._engine, "connect", _sqlite_connected)
                event.listen(self._engine, "begin", _sqlite_begin)
            else:
                self._engine = create_engine(parsed, pool_pre_ping=True, pool_size=10, max_overflow=10)
        except (ArgumentError, ImportError, ValueError) as error:
            raise StorageError(
                f"The database cannot be used ({type(error).__name__}: {error}). Give a URL such as "
                "postgresql://user@host/name, and install MediScan with [postgresql] for it."
            ) from error

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A connection that sees one moment."""
        with self._explained(), self._engine.connect() as connection:
            yield connection
            connection.rollback()

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """A transaction; it is kept where nothing is raised in it."""
        options = {"mediscan_write": True}
        with (
            self._explained(),
            self._engine.connect().execution_options(**options) as connection,
            connection.begin(),
        ):
            yield connection

    def lock_audit(self, connection: Connection) -> None:
        """Until the transaction ends nobody else appends; a transaction of SQLite's that writes is alone anyway."""
        if not self.is_sqlite:
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _AUDIT_LOCK})

    def migrate(self) -> None:
        """Bring the tables to this version, whatever version they are of.

        Raises:
            StorageError: The database is of a newer MediScan, or cannot be used.
        """
        from alembic import command
        from alembic.config import Config
        from alembic.util.exc import CommandError

        config = Config()
        config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
        with self.writing() as connection:
            if not self.is_sqlite:
                connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _MIGRATION_LOCK})
            config.attributes["connection"] = connection
            try:
                command.upgrade(config, "head")
            except CommandError as error:
                raise StorageError(
                    f"{self.shown}: belongs to a newer MediScan. Update this one, or give another database."
                ) from error

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    @property
    def engine(self) -> Engine:
        """SQLAlchemy's."""
        return self._engine

    @staticmethod
    def _prepare_file(name: str | None) -> None:
        """A file for this user only, before anything is in it."""
        if not name or name == ":memory:":
            raise StorageError("A server that forgets its jobs when it stops is none: give a file for SQLite.")
        path = Path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600))
        except OSError as error:
            raise StorageError(f"{path}: cannot be written ({error.strerror}). Choose another folder.") from error

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except SQLAlchemyError as error:
            # never the statement's values: they are results of patients
            said = str(getattr(error, "orig", None) or type(error).__name__).strip().splitlines()[0][:200]
            raise StorageError(
                f"The database does not answer as it should ({said}). Try again; tell whoever runs the server if it "
                "happens again."
            ) from error


def _sqlite_connected(connection: Any, _: object) -> None:
    connection.isolation_level = None  # transactions begin where we say so
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode = WAL")
    cursor.execute("PRAGMA synchronous = FULL")  # a job that was taken is there after a power cut
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.execute("PRAGMA secure_delete = FAST")
    cursor.close()


def _sqlite_begin(connection: Connection) -> None:
    writes = connection.get_execution_options().get("mediscan_write")
    # a transaction that reads first and then writes may find that another one wrote in between: lock at once
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
