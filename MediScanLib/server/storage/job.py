"""What a job is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ...errors import MediScanError

ENDED = ("done", "failed", "cancelled")
"""States that a job does not leave."""


@dataclass(frozen=True)
class Failed:
    """An input of a job that could not be read."""

    source: str
    code: str
    message: str


@dataclass(frozen=True)
class Job:
    """A job as it stands.

    Attributes:
        id: Random.
        owner: Name of the token that submitted it.
        kind: series or batch.
        model: Name of the bundle.
        state: queued, running, done, failed or cancelled.
        stage: What is being done.
        total: Studies.
        done: Studies that have a result, good or bad.
        slices_done: Of the study that is under way.
        slices_total: The same.
        created: Seconds since 1970.
        started: The same.
        ended: The same.
        expires: When its results go.
        cancelling: Somebody wants it to stop.
        attempt: How often it was begun.
        error: (code, message) where the job failed as a whole.
        fingerprint: Of what was submitted.
    """

    id: str
    owner: str
    kind: str
    model: str
    state: str
    stage: str
    total: int
    done: int
    slices_done: int
    slices_total: int
    created: float
    started: float | None
    ended: float | None
    expires: float
    cancelling: bool
    attempt: int
    error: tuple[str, str] | None
    fingerprint: str


class LostError(MediScanError):
    """The job was given to another worker, or cancelled: what this one makes of it counts no more."""

    code = "lost"


def job_of(row: Any) -> Job:
    """The job in a row of the table."""
    return Job(
        id=row.id,
        owner=row.owner,
        kind=row.kind,
        model=row.model,
        state=row.state,
        stage=row.stage,
        total=row.total,
        done=row.done,
        slices_done=row.slices_done,
        slices_total=row.slices_total,
        created=row.created,
        started=row.started,
        ended=row.ended,
        expires=row.expires,
        cancelling=bool(row.cancelling),
        attempt=row.attempt,
        error=None if row.error_code is None else (row.error_code, row.error_message or ""),
        fingerprint=row.fingerprint,
    )
