"""The processes behind the page, one for each browser: started, given to somebody, and ended."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import secrets
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..errors import MediScanError
from ..server.problems import BusyError
from ..server.settings import ENVIRONMENT as SERVER_ENVIRONMENT
from ..study.decoding import interpreter
from .settings import ENVIRONMENT, UserSettings, WebSettings
from .visitors import Visitor

_log = logging.getLogger("mediscan.web")

_SECRET_VARIABLES = (ENVIRONMENT, SERVER_ENVIRONMENT, "MEDISCAN_DATABASE")
"""What the process of a browser need not know: a database's password is in it."""


class UserProcess:
    """A process that can show the page to one browser.

    Attributes:
        port: Where it listens, on this machine only.
        key: What it wants to be shown with every request.
    """

    def __init__(self, process: asyncio.subprocess.Process, folder: Path) -> None:
        self._process, self._folder = process, folder
        self.port = 0
        self.key = secrets.token_urlsafe(32)
        self._listening: asyncio.Task[None] | None = None

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self._process.returncode is None

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    async def ready(self, patience_s: float) -> None:
        """Wait until it listens.

        Raises:
            MediScanError: It does not.
        """
        self.port = int(await self._hear("port", patience_s))

    async def give(
        self, visitor: Visitor, settings: WebSettings, told: Callable[[str, dict[str, object]], None]
    ) -> None:
        """Hand it to a visitor.

        Args:
            visitor: To whom.
            settings: Of the page.
            told: Hears what the visitor does that belongs into the audit log.

        Raises:
            MediScanError: It does not answer.
        """
        server = settings.server
        content = UserSettings(
            key=self.key,
            name=visitor.name,
            token=visitor.token,
            signed_in=visitor.token is not None,
            server_url=settings.server_url,
            certificate=server.tls_certificate,
            folder=self._folder,
            reviews_file=server.reviews_file,
            max_body_bytes=server.max_body_bytes,
            max_files=server.max_files,
            max_voxels=server.max_voxels,
            reading_memory_bytes=server.reading_memory_bytes,
            reading_time_s=server.reading_time_s,
            upload_time_s=server.upload_time_s,
        )
        assert self._process.stdin is not None
        self._process.stdin.write(content.model_dump_json().encode() + b"\n")
        await self._hear("begun", settings.start_s)
        self._listening = asyncio.create_task(self._listen(told))

    async def end(self) -> None:
        """End it with all its children, and remove what it left."""
        if self._listening is not None:
            self._listening.cancel()
        if self.alive:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                if hasattr(os, "killpg"):  # with the decoder that it may have started
                    os.killpg(self._process.pid, signal.SIGKILL)
                else:
                    self._process.kill()
        await self._process.wait()
        await asyncio.to_thread(shutil.rmtree, self._folder, True)

    async def _hear(self, name: str, patience_s: float) -> Any:
        """The next line, which must be about that."""
        assert self._process.stdout is not None
        try:
            line = await asyncio.wait_for(self._process.stdout.readline(), patience_s)
            return json.loads(line)[name]
        except (asyncio.TimeoutError, ValueError, KeyError) as error:
            await self.end()
            raise MediScanError(
                "The page cannot be shown: its process did not start. Tell whoever runs the server.", code="engine"
            ) from error

    async def _listen(self, told: Callable[[str, dict[str, object]], None]) -> None:
        assert self._process.stdout is not None
        while line := await self._process.stdout.readline():
            with contextlib.suppress(ValueError, KeyError, TypeError):
                said = json.loads(line)
                told(str(said["event"]), dict(said["details"]))


class Sessions:
    """All processes behind the page. For one event loop.

    Args:
        settings: How the page is set up.
        told: Hears (visitor, event, details) of what belongs into the audit log.
    """

    def __init__(self, settings: WebSettings, told: Callable[[Visitor, str, dict[str, object]], None]) -> None:
        self._settings, self._told = settings, told
        self._given: dict[Visitor, asyncio.Task[UserProcess]] = {}
        self._spare: list[asyncio.Task[UserProcess]] = []
        parent = settings.server.folder / "Uploads"
        parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        # named as the REST server names its own, so that what a crash leaves is removed at the next start
        self._scratch = Path(tempfile.mkdtemp(prefix=f"{os.getpid()}-web-", dir=parent))

    def prepare(self) -> None:
        """Have spare processes at hand."""
        while len(self._spare) < self._settings.spare:
            self._spare.append(asyncio.create_task(self._start()))

    def has_room(self, visitor: Visitor) -> bool:
        """Whether a visitor has a process, or can have one."""
        return visitor in self._given or len(self._given) < self._settings.most_users

    async def of(self, visitor: Visitor) -> UserProcess:
        """The process of a visitor, made where there is none.

        Raises:
            BusyError: There are too many visitors.
            MediScanError: It cannot be made.
        """
        task = self._given.get(visitor)
        if task is None:
            if not self.has_room(visitor):
                raise BusyError(
                    f"{len(self._given)} readers are at this page, and there is no room for more. Try again later.", 60
                )
            self._given[visitor] = task = asyncio.create_task(self._give(visitor))
        try:
            return await asyncio.shield(task)
        except MediScanError:
            self._given.pop(visitor, None)
            raise

    def is_starting(self, visitor: Visitor) -> bool:
        """Whether a visitor waits for a process."""
        return visitor in self._given and not self._given[visitor].done()

    def existing(self, visitor: Visitor) -> UserProcess | None:
        """The process of a visitor, None where there is none that lives."""
        task = self._given.get(visitor)
        if task is None or not task.done() or task.cancelled() or task.exception() is not None:
            return None
        return task.result() if task.result().alive else None

    async def end(self, visitor: Visitor) -> None:
        """A visitor has left: nothing of the study stays."""
        task = self._given.pop(visitor, None)
        if task is not None:
            with contextlib.suppress(MediScanError, asyncio.CancelledError):
                await (await task).end()

    async def close(self) -> None:
        """End all."""
        for visitor in list(self._given):
            await self.end(visitor)
        for task in self._spare:
            with contextlib.suppress(MediScanError, asyncio.CancelledError):
                await (await task).end()
        self._spare.clear()
        await asyncio.to_thread(shutil.rmtree, self._scratch, True)

    async def _give(self, visitor: Visitor) -> UserProcess:
        while True:
            ready = self._spare.pop(0) if self._spare else asyncio.create_task(self._start())
            process = await ready
            if process.alive:
                break
            await process.end()
        await process.give(visitor, self._settings, lambda event, details: self._told(visitor, event, details))
        self.prepare()
        return process

    async def _start(self) -> UserProcess:
        folder = Path(tempfile.mkdtemp(prefix="browser-", dir=self._scratch))
        root = Path(__file__).resolve().parents[2]
        places = [str(root), *(str(Path(place).absolute()) for place in sys.path if place)]
        environment = {name: value for name, value in os.environ.items() if name not in _SECRET_VARIABLES}
        process = await asyncio.create_subprocess_exec(
            interpreter(),
            "-m",
            "MediScanLib.web.user_process",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            cwd=root,
            env={**environment, "PYTHONPATH": os.pathsep.join(places), "OMP_NUM_THREADS": "1"},
            start_new_session=True,
        )
        made = UserProcess(process, folder)
        await made.ready(self._settings.start_s)
        return made
