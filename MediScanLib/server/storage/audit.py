"""The audit log: who did what and when, each entry chained to the one before by its digest.

An entry that is changed, removed, or put in between breaks the chain. Entries cut off at the end leave a whole chain:
compare its last digest with one that was written down elsewhere (`mediscan serve audit verify --expect`).
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, desc, insert, select

from ...errors import MediScanError
from .database import Database
from .tables import audit

START = "0" * 64


class AuditError(MediScanError):
    """The audit log is not what was written."""

    code = "audit"


@dataclass(frozen=True)
class Entry:
    """One entry.

    Attributes:
        number: Counted from 1 without gaps.
        at: Seconds since 1970, UTC.
        event: What was done.
        actor: Name of the token, or "local", or "server".
        details: Ids, names of models and digests; never what names a patient.
        digest: Of all this and the digest before.
    """

    number: int
    at: float
    event: str
    actor: str
    details: Mapping[str, Any]
    digest: str


class AuditLog:
    """Appends and checks.

    Args:
        database: Where it lies.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def append(self, event: str, actor: str, details: Mapping[str, Any] | None = None) -> Entry:
        """Add an entry in a transaction of its own."""
        with self._database.writing() as connection:
            return self.append_in(connection, event, actor, details)

    def append_in(
        self, connection: Connection, event: str, actor: str, details: Mapping[str, Any] | None = None
    ) -> Entry:
        """Add an entry in a transaction that does more: both are kept, or neither."""
        self._database.lock_audit(connection)
        last = connection.execute(
            select(audit.c.number, audit.c.digest).order_by(desc(audit.c.number)).limit(1)
        ).first()
        number, previous = (last.number + 1, last.digest) if last else (1, START)
        text = json.dumps(dict(details or {}), sort_keys=True, ensure_ascii=True)
        at = round(time.time(), 3)
        digest = _digest(previous, number, at, event, actor, text)
        connection.execute(
            insert(audit).values(
                number=number, at=at, event=event, actor=actor, details=text, previous=previous, digest=digest
            )
        )
        return Entry(number, at, event, actor, json.loads(text), digest)

    def verify(self, expected: str | None = None) -> tuple[int, str]:
        """Walk the whole chain.

        Args:
            expected: A digest that was the last one once, and must still be in the chain.

        Returns:
            How many entries there are, and the digest of the last.

        Raises:
            AuditError: The chain is broken; the message names the entry.
        """
        count, previous, met = 0, START, expected is None
        with self._database.reading() as connection:
            rows = connection.execution_options(yield_per=1000).execute(select(audit).order_by(audit.c.number))
            for row in rows:
                count += 1
                if row.number != count:
                    raise AuditError(f"Entry {count} of the audit log is missing. Somebody removed it.")
                digest = _digest(previous, row.number, row.at, row.event, row.actor, row.details)
                if row.previous != previous or row.digest != digest:
                    raise AuditError(f"Entry {count} of the audit log is not what was written. Somebody changed it.")
                previous = digest
                met = met or digest == expected
        if not met:
            raise AuditError("The expected digest is not in the audit log: entries at its end were removed.")
        return count, previous

    def last(self, count: int) -> list[Entry]:
        """The newest entries, the oldest of them first."""
        with self._database.reading() as connection:
            rows = connection.execute(select(audit).order_by(desc(audit.c.number)).limit(count)).all()
        return [
            Entry(row.number, row.at, row.event, row.actor, json.loads(row.details), row.digest)
            for row in reversed(rows)
        ]


def _digest(previous: str, number: int, at: float, event: str, actor: str, details: str) -> str:
    content = json.dumps([previous, number, at, event, actor, details], ensure_ascii=True)
    return hashlib.sha256(content.encode("ascii")).hexdigest()
