"""Everything that a server process owns, from start to stop."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import shutil
import socket
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

from ..errors import MediScanError
from ..report.reviews import ReviewStore
from .compute import Compute, Models
from .job_runner import JobRunner
from .limits import Admission, RateLimit, RecentPixels
from .metrics import Metrics
from .reader_pool import ReaderPool, ResultsPool
from .settings import ServerSettings
from .storage.audit import AuditLog
from .storage.database import Database
from .storage.jobs import JobStore
from .storage.studies import StudyStore
from .storage.tokens import TokenStore

_log = logging.getLogger("mediscan.server")

LEAST_KEPT_S = 300.0
"""How long results of jobs can be fetched where nothing is to be kept."""

SWEEP_S = 60.0
"""How often expired results are removed."""


class House:
    """The services of one server process.

    Args:
        settings: How it is set up.
        metrics: Figures.
    """

    def __init__(self, settings: ServerSettings, metrics: Metrics) -> None:
        self.settings, self.metrics = settings, metrics
        self.name = f"{socket.gethostname()[:30]}-{os.getpid()}-{secrets.token_hex(4)}"
        self.ready = False
        self.stopping = False
        self.database = Database(settings.database_url)
        self.tokens = TokenStore(self.database)
        self.audit = AuditLog(self.database)
        self.studies = StudyStore(self.database)
        keep_s = settings.keep_s or LEAST_KEPT_S
        self.jobs = JobStore(self.database, settings.lease_s, settings.attempts, keep_s, settings.max_jobs)
        self.reviews = ReviewStore(settings.reviews_file)
        self.admission = Admission(settings.max_queue, settings.max_held_bytes)
        self.rate = RateLimit(settings.requests_per_minute)
        self.recent = RecentPixels()
        self.compute: Compute
        self.readers: ReaderPool
        self.results: ResultsPool
        self.scratch: Path
        self.needs_token = False
        self._runners: list[JobRunner] = []
        self._sweeper: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Load the models, warm them up and begin.

        Raises:
            MediScanError: A model, the device or the database cannot be used.
        """
        settings = self.settings
        await asyncio.to_thread(self.database.migrate)
        self.needs_token = settings.require_token or not settings.is_local or self.tokens.any_active()
        self.scratch = await asyncio.to_thread(self._make_scratch)
        with ThreadPoolExecutor(1) as passing:  # one that stayed would slow the lanes down: see there
            self.compute = await asyncio.get_running_loop().run_in_executor(passing, self._load)
        self.readers = ReaderPool(
            settings.readers, settings.reading_memory_bytes, settings.reading_time_s, settings.max_voxels
        )
        self.results = ResultsPool(1, settings.reading_memory_bytes, settings.reading_time_s, settings.max_voxels)
        for number in range(settings.job_threads):
            runner = JobRunner(f"{self.name}-{number}", self.jobs, self.studies, self.compute, settings.lease_s)
            runner.start()
            self._runners.append(runner)
        self._sweeper = asyncio.create_task(self._sweep())
        await asyncio.to_thread(
            self.audit.append, "server.started", "server", {"worker": self.name, "models": self._hashes()}
        )
        self.ready = True

    async def close(self) -> None:
        """Finish or put back what is under way, and end."""
        self.ready, self.stopping = False, True
        if self._sweeper is not None:
            self._sweeper.cancel()
        for runner in self._runners:
            runner.stop()
        if hasattr(self, "compute"):
            await asyncio.to_thread(self.compute.close, self.settings.stop_s)
        for runner in self._runners:
            await asyncio.to_thread(runner.join, 10.0)
            with suppress(MediScanError):
                await asyncio.to_thread(self.jobs.release, runner.worker)
        if hasattr(self, "readers"):
            await self.readers.close()
            await self.results.close()
        if hasattr(self, "scratch"):
            await asyncio.to_thread(shutil.rmtree, self.scratch, True)
        with suppress(MediScanError):
            await asyncio.to_thread(self.audit.append, "server.stopped", "server", {"worker": self.name})
        self.database.close()

    def wake_runners(self) -> None:
        """There is a new job."""
        for runner in self._runners:
            runner.wake()

    @contextmanager
    def folder(self) -> Iterator[Path]:
        """A folder for one upload; nothing of it stays."""
        folder = Path(tempfile.mkdtemp(prefix="upload-", dir=self.scratch))
        try:
            (folder / "files").mkdir()
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def observe(self) -> None:
        """Bring the figures that are states up to date."""
        self.metrics.waiting.labels("images").set(self.compute.images_waiting)
        self.metrics.waiting.labels("volumes").set(self.compute.volumes.waiting)
        self.metrics.held.set(self.admission.held)
        counts = self.jobs.counts()
        for state in ("queued", "running", "done", "failed", "cancelled"):
            self.metrics.jobs.labels(state).set(counts.get(state, 0))

    def _load(self) -> Compute:
        from ..study.phantom import make_phantom

        settings = self.settings
        compute = Compute(
            Models(settings.models, settings.device, settings.inference), settings.batch_wait_s, self.metrics
        )
        compute.warm_up(make_phantom())
        return compute

    def _hashes(self) -> dict[str, str]:
        return {name: bundle.sha256 for name, bundle in self.compute.models.bundles.items()}

    def _make_scratch(self) -> Path:
        """A folder of this process; those of processes that died without tidying up go."""
        parent = self.settings.folder / "Uploads"
        parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        parent.chmod(0o700)
        for folder in parent.iterdir():
            process = folder.name.partition("-")[0]
            if process.isdigit() and (int(process) == os.getpid() or not _alive(int(process))):
                shutil.rmtree(folder, ignore_errors=True)
        folder = parent / f"{os.getpid()}-{secrets.token_hex(4)}"
        folder.mkdir(mode=0o700)
        return folder

    async def _sweep(self) -> None:
        while True:
            try:
                await asyncio.to_thread(self.studies.expire)
            except MediScanError as error:
                _log.warning("expired results could not be removed: %s", error)
            await asyncio.sleep(min(SWEEP_S, max(1.0, self.settings.keep_s / 10)))


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
