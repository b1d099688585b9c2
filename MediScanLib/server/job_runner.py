"""The threads that do jobs, one study after another or a batch at once, and keep their leases alive."""

from __future__ import annotations

import logging
import threading
import time
from concurrent.futures import wait

from ..errors import CancelledError, MediScanError
from .compute import Compute
from .lane import Work
from .problems import StoppingError
from .storage.job import Job, LostError
from .storage.jobs import JobStore
from .storage.studies import StudyStore

_log = logging.getLogger("mediscan.server")

_IDLE_S = 1.0
"""How often it is looked for jobs that another process took in."""


class _StopError(Exception):
    """The server stops; the job goes back."""


class JobRunner(threading.Thread):
    """Does jobs until it is stopped.

    Args:
        worker: Its name; no two are called the same.
        jobs: Where they come from.
        studies: Where their studies lie.
        compute: What predicts.
        lease_s: How long it may be silent.
    """

    def __init__(self, worker: str, jobs: JobStore, studies: StudyStore, compute: Compute, lease_s: float) -> None:
        super().__init__(name=f"mediscan-jobs-{worker[-12:]}", daemon=True)
        self.worker = worker
        self._jobs, self._studies, self._compute = jobs, studies, compute
        self._beat_s = min(1.0, lease_s / 5)
        self._stop_asked = threading.Event()
        self._something = threading.Event()

    def wake(self) -> None:
        """There is a new job."""
        self._something.set()

    def stop(self) -> None:
        """Take no more; what is under way ends with its lane."""
        self._stop_asked.set()
        self._something.set()

    def run(self) -> None:
        """Until `stop`."""
        while not self._stop_asked.is_set():
            try:
                job = self._jobs.claim(self.worker)
            except Exception as error:  # the database may come back
                _log.warning("no job can be fetched: %s", error)
                job = None
            if job is None:
                self._something.wait(_IDLE_S)
                self._something.clear()
                continue
            try:
                self._do(job)
            except _StopError:
                return  # the house puts it back
            except LostError:
                _log.warning("job %s is another worker's now", job.id)
            except Exception as error:
                _log.error("job %s: %s", job.id, type(error).__name__)
                self._fail(job, error)

    def _do(self, job: Job) -> None:
        size = self._compute.models.inference.max_batch_size if job.kind == "batch" else 1
        todo = self._jobs.todo(job)
        for start in range(0, len(todo), size):
            try:
                self._together(job, todo[start : start + size])
            except CancelledError:
                self._jobs.end(job, self.worker, "cancelled")
                return
        self._jobs.end(job, self.worker, "done")

    def _together(self, job: Job, identities: list[str]) -> None:
        works: dict[str, Work] = {}
        for identity in identities:
            request = self._studies.request(identity)
            try:
                works[identity] = self._compute.put(Work(request, alone=len(identities) == 1, urgent=False))
            except StoppingError:
                raise _StopError from None
            except MediScanError as error:  # such as a model that is no longer offered
                self._jobs.answer(job, self.worker, identity, error)
        try:
            self._wait(job, list(works.values()))
        except BaseException:
            for work in works.values():
                work.cancel()
            raise
        for identity, work in works.items():
            try:
                self._jobs.answer(job, self.worker, identity, work.future.result())
            except LostError:
                raise
            except CancelledError:
                if self._stop_asked.is_set():
                    raise _StopError from None
                raise
            except StoppingError:
                raise _StopError from None
            except MediScanError as error:
                self._jobs.answer(job, self.worker, identity, error)

    def _wait(self, job: Job, works: list[Work]) -> None:
        """Until all are done; the lease is kept alive meanwhile, and cancellation is looked for."""
        end = 0.0
        while True:
            left = wait([work.future for work in works], timeout=min(0.1, self._beat_s)).not_done
            if not left:
                return
            if time.monotonic() >= end:
                end = time.monotonic() + self._beat_s
                step = works[0].step
                if self._jobs.beat(job, self.worker, step.stage, step.done, step.total):
                    for work in works:
                        work.cancel()

    def _fail(self, job: Job, error: Exception) -> None:
        try:
            said = error if isinstance(error, MediScanError) else MediScanError("The job failed.", code="engine")
            self._jobs.end(job, self.worker, "failed", said)
        except MediScanError as again:  # its lease runs out, and it is tried again
            _log.warning("job %s cannot be ended: %s", job.id, again)
