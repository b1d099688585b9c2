"""Jobs that survive: taken in with all their pixels in one transaction, leased to one worker at a time, ended once.

A worker that dies, even by `kill -9`, lets its lease run out; then the job is begun again by another one, from its
first study without a result. Every write of a worker says which attempt it belongs to, so that one who was only slow
cannot write over what a later attempt wrote: each study gets one result.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, and_, func, insert, or_, select, update
from sqlalchemy.exc import IntegrityError

from ...errors import MediScanError, UsageError
from ...prediction.exchange import Request
from ...prediction.result import Prediction
from ..problems import BusyError, MissingError
from .audit import AuditLog
from .database import Database
from .job import ENDED, Failed, Job, LostError, job_of
from .studies import put_failure, put_prediction, put_study
from .tables import jobs, studies


class JobStore:
    """The jobs of a server, or of several on one database.

    Args:
        database: Where they lie.
        lease_s: How long a worker may be silent.
        attempts: How often a job is begun.
        keep_s: How long results stay.
        most: How many may wait.
    """

    def __init__(self, database: Database, lease_s: float, attempts: int, keep_s: float, most: int) -> None:
        self._database, self._audit = database, AuditLog(database)
        self._lease, self._attempts, self._keep, self._most = lease_s, attempts, keep_s, most

    def submit(
        self,
        inputs: Sequence[Request | Failed],
        *,
        owner: str,
        kind: str,
        model: str,
        fingerprint: str,
        key: str | None = None,
    ) -> tuple[Job, bool]:
        """Take a job in; once this returns it will be done, whatever happens to the server.

        Args:
            inputs: What is asked, or what was wrong with an input.
            owner: Name of the token.
            kind: series or batch.
            model: Name of the bundle.
            fingerprint: Of what was submitted.
            key: The client's; the same again with the same content is the same job.

        Returns:
            The job, and whether it is a new one.

        Raises:
            BusyError: Too many jobs wait.
            UsageError: The key was used for something else.
        """
        now = time.time()
        identity = secrets.token_hex(16)
        try:
            with self._database.writing() as connection:
                if key is not None:
                    row = connection.execute(select(jobs).where(jobs.c.owner == owner, jobs.c.key == key)).first()
                    if row is not None:
                        return self._same(row, fingerprint), False
                waiting = connection.execute(
                    select(func.count()).select_from(jobs).where(jobs.c.state == "queued")
                ).scalar_one()
                if waiting >= self._most:
                    raise BusyError(f"{waiting} jobs wait already. Submit this one later.", 30)
                failed = sum(isinstance(item, Failed) for item in inputs)
                connection.execute(
                    insert(jobs).values(
                        id=identity,
                        owner=owner,
                        key=key,
                        fingerprint=fingerprint,
                        kind=kind,
                        model=model,
                        state="queued",
                        stage="waiting",
                        total=len(inputs),
                        done=failed,
                        slices_done=0,
                        slices_total=0,
                        created=now,
                        expires=now + self._keep,
                        cancelling=False,
                        attempt=0,
                    )
                )
                for number, item in enumerate(inputs):
                    if isinstance(item, Failed):
                        put_failure(
                            connection,
                            item.source,
                            item.code,
                            item.message,
                            owner=owner,
                            expires=_FOREVER,
                            job=identity,
                            number=number,
                        )
                    else:
                        put_study(
                            connection,
                            item,
                            owner=owner,
                            expires=_FOREVER,
                            state="queued",
                            job=identity,
                            number=number,
                        )
                self._audit.append_in(
                    connection,
                    "job.submitted",
                    owner,
                    {"job": identity, "model": model, "studies": len(inputs), "content": fingerprint},
                )
        except MediScanError as error:
            if key is not None and isinstance(error.__cause__, IntegrityError):  # twice at the same moment
                return self.by_key(owner, key, fingerprint), False
            raise
        return self.get(identity), True

    def by_key(self, owner: str, key: str, fingerprint: str) -> Job:
        """The job that was submitted under a key.

        Raises:
            UsageError: It was something else.
            MissingError: There is none.
        """
        with self._database.reading() as connection:
            row = connection.execute(select(jobs).where(jobs.c.owner == owner, jobs.c.key == key)).first()
        if row is None:
            raise _missing()
        return self._same(row, fingerprint)

    def get(self, identity: str) -> Job:
        """A job.

        Raises:
            MissingError: There is none of that id, or it has expired.
        """
        with self._database.reading() as connection:
            row = connection.execute(select(jobs).where(jobs.c.id == identity)).first()
        if row is None or (row.state in ENDED and row.expires < time.time()):
            raise _missing()
        return job_of(row)

    def listed(self, owner: str | None, most: int = 100) -> list[Job]:
        """The newest jobs, of one owner or all."""
        wanted = select(jobs).order_by(jobs.c.created.desc()).limit(most)
        if owner is not None:
            wanted = wanted.where(jobs.c.owner == owner)
        with self._database.reading() as connection:
            return [job_of(row) for row in connection.execute(wanted)]

    def counts(self) -> dict[str, int]:
        """Jobs by state."""
        with self._database.reading() as connection:
            rows = connection.execute(select(jobs.c.state, func.count()).group_by(jobs.c.state)).all()
        return {row[0]: row[1] for row in rows}

    def cancel(self, identity: str, actor: str) -> Job:
        """Stop a job; one that runs ends within moments.

        Raises:
            MissingError: There is none.
            UsageError: It has ended.
        """
        now = time.time()
        with self._database.writing() as connection:
            waiting = connection.execute(
                update(jobs)
                .where(jobs.c.id == identity, jobs.c.state == "queued")
                .values(state="cancelled", stage="cancelled", ended=now, cancelling=True, expires=now + self._keep)
            ).rowcount
            running = (
                connection.execute(
                    update(jobs).where(jobs.c.id == identity, jobs.c.state == "running").values(cancelling=True)
                ).rowcount
                if not waiting
                else 0
            )
            if waiting or running:
                self._audit.append_in(connection, "job.cancelled", actor, {"job": identity})
        job = self.get(identity)
        if not waiting and not running:
            raise UsageError(f"The job has ended already ({job.state}).", code="already_ended")
        return job

    # for workers

    def claim(self, worker: str) -> Job | None:
        """The oldest job that nobody works on, from now on this worker's; None where there is none.

        A job that was begun too often without an end is given up here.
        """
        self.give_up()
        now = time.time()
        free = or_(jobs.c.state == "queued", and_(jobs.c.state == "running", jobs.c.lease < now))
        oldest = (
            select(jobs.c.id).where(free).order_by(jobs.c.created).limit(1).with_for_update(skip_locked=True)
        ).scalar_subquery()
        with self._database.writing() as connection:
            row = connection.execute(
                update(jobs)
                .where(jobs.c.id == oldest, free)
                .values(
                    state="running",
                    stage="starting",
                    worker=worker,
                    lease=now + self._lease,
                    attempt=jobs.c.attempt + 1,
                    started=func.coalesce(jobs.c.started, now),
                )
                .returning(jobs)
            ).first()
        return None if row is None else job_of(row)

    def give_up(self) -> None:
        """End jobs that took their worker down as often as is allowed, and cancelled ones whose worker is gone."""
        now = time.time()
        silent = and_(jobs.c.state == "running", jobs.c.lease < now)
        with self._database.reading() as connection:  # mostly there is nothing to do, and writing is dear
            found = connection.execute(
                select(jobs.c.id).where(silent, or_(jobs.c.attempt >= self._attempts, jobs.c.cancelling)).limit(1)
            ).first()
        if found is None:
            return
        with self._database.writing() as connection:
            connection.execute(
                update(jobs)
                .where(silent, jobs.c.cancelling)
                .values(state="cancelled", stage="cancelled", ended=now, expires=now + self._keep)
            )
            connection.execute(
                update(jobs)
                .where(silent, jobs.c.attempt >= self._attempts)
                .values(
                    state="failed",
                    stage="failed",
                    ended=now,
                    expires=now + self._keep,
                    error_code="engine",
                    error_message=f"The server's process ended {self._attempts} times while it was at this job, most "
                    "probably for want of memory. Send fewer or smaller images.",
                )
            )

    def todo(self, job: Job) -> list[str]:
        """Ids of its studies without a result, in order."""
        with self._database.reading() as connection:
            rows = connection.execute(
                select(studies.c.id)
                .where(studies.c.job == job.id, studies.c.state == "queued")
                .order_by(studies.c.number)
            )
            return [row.id for row in rows]

    def beat(self, job: Job, worker: str, stage: str, slices_done: int, slices_total: int) -> bool:
        """Say that it is still being worked on, and how far it is.

        Returns:
            Whether somebody wants it to stop.

        Raises:
            LostError: It is another worker's now.
        """
        with self._database.writing() as connection:
            row = connection.execute(
                update(jobs)
                .where(*_mine(job, worker))
                .values(
                    lease=time.time() + self._lease,
                    stage=stage[:100],
                    slices_done=slices_done,
                    slices_total=slices_total,
                )
                .returning(jobs.c.cancelling)
            ).first()
        if row is None:
            raise LostError("The job is another worker's now.")
        return bool(row.cancelling)

    def answer(self, job: Job, worker: str, study: str, outcome: Prediction | MediScanError) -> None:
        """Write what became of one study.

        Raises:
            LostError: It is another worker's now, or has a result.
        """
        with self._database.writing() as connection:
            held = connection.execute(
                update(jobs)
                .where(*_mine(job, worker))
                .values(done=jobs.c.done + 1, lease=time.time() + self._lease, slices_done=0, slices_total=0)
            ).rowcount
            mine = connection.execute(
                update(studies)
                .where(studies.c.id == study, studies.c.state == "queued")
                .values(state="failed" if isinstance(outcome, MediScanError) else "done")
            ).rowcount
            if not held or not mine:
                raise LostError("The job is another worker's now.")
            if isinstance(outcome, MediScanError):
                connection.execute(
                    update(studies)
                    .where(studies.c.id == study)
                    .values(error_code=outcome.code, error_message=str(outcome))
                )
            else:
                put_prediction(connection, study, outcome)

    def end(self, job: Job, worker: str, state: str, error: MediScanError | None = None) -> None:
        """End a job, once.

        Raises:
            LostError: It is another worker's now.
        """
        now = time.time()
        with self._database.writing() as connection:
            ended = connection.execute(
                update(jobs)
                .where(*_mine(job, worker))
                .values(
                    state=state,
                    stage=state,
                    ended=now,
                    expires=now + self._keep,
                    worker=None,
                    lease=None,
                    error_code=None if error is None else error.code,
                    error_message=None if error is None else str(error),
                )
            ).rowcount
            if not ended:
                raise LostError("The job is another worker's now.")
            connection.execute(update(studies).where(studies.c.job == job.id).values(expires=now + self._keep))
            self._audit.append_in(connection, f"job.{state}", "server", {"job": job.id})

    def release(self, worker: str) -> int:
        """Put back what this worker has begun, for another one; a stop is no failed attempt. How many."""
        with self._database.writing() as connection:
            return connection.execute(
                update(jobs)
                .where(jobs.c.worker == worker, jobs.c.state == "running")
                .values(state="queued", stage="waiting", worker=None, lease=None, attempt=jobs.c.attempt - 1)
            ).rowcount

    @staticmethod
    def _same(row: Any, fingerprint: str) -> Job:
        if row.fingerprint != fingerprint:
            raise UsageError("This Idempotency-Key was used for other content. Choose a new one.", code="key_reused")
        return job_of(row)


_FOREVER = 1e12  # until the job ends


def _mine(job: Job, worker: str) -> tuple[ColumnElement[bool], ...]:
    return (
        jobs.c.id == job.id,
        jobs.c.worker == worker,
        jobs.c.attempt == job.attempt,
        jobs.c.state == "running",
    )


def _missing() -> MissingError:
    return MissingError("There is no job of that id here, or not any more. Submit it again.")
