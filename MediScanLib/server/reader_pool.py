"""Child processes that decode uploads: a hostile file can crash, starve or stall only its own."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import EngineError, MediScanError, ReadError
from ..prediction.exchange import error_from, read_request
from ..study.decoding import interpreter
from ..study.image import MedicalImage

_HEADROOM = 512 * 1024**2
_MOST_USES = 500
"""A child that has read so many uploads is replaced, whatever it may have leaked."""


class _Child:
    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.uses = 0

    @property
    def alive(self) -> bool:
        return self.process.returncode is None

    async def ask(self, question: dict[str, object]) -> dict[str, Any]:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.uses += 1
        self.process.stdin.write(json.dumps(question).encode() + b"\n")
        await self.process.stdin.drain()
        line = await self.process.stdout.readline()
        if not line:
            raise BrokenPipeError
        answer: dict[str, Any] = json.loads(line)
        return answer

    async def end(self) -> None:
        if self.alive:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                if hasattr(os, "killpg"):  # with the decoder that it may have started
                    os.killpg(self.process.pid, signal.SIGKILL)
                else:
                    self.process.kill()
        await self.process.wait()


class ReaderPool:
    """Decodes uploads, as many at once as there are children. For one event loop.

    Args:
        count: Children at most; each is started when it is needed and kept.
        memory_bytes: What decoding one upload may take.
        time_s: How long decoding one upload may take.
        max_voxels: Larger images are refused.
    """

    _module = "MediScanLib.server.reader_child"

    def __init__(self, count: int, memory_bytes: int, time_s: float, max_voxels: int) -> None:
        self._memory, self._time, self._voxels = memory_bytes, time_s, max_voxels
        self._free = asyncio.Semaphore(count)
        self._idle: list[_Child] = []
        self._busy: set[_Child] = set()

    async def read(self, folder: Path, file: str | None, series: str | None, name: str) -> MedicalImage:
        """Decode what lies in `folder/files`.

        Args:
            folder: Where; the decoded image is put there too.
            file: One file of it; all as one DICOM series where None.
            series: Which series of several.
            name: What errors call it.

        Raises:
            MediScanError: It cannot be read, or not within the limits.
        """
        question: dict[str, object] = {
            "folder": str(folder),
            "file": file,
            "series": series,
            "name": name,
            "limit": self._memory,
        }
        await self._ask(question, name)
        return await asyncio.to_thread(self._take, folder, name)

    async def close(self) -> None:
        """End all children."""
        for child in [*self._idle, *self._busy]:
            await child.end()
        self._idle.clear()

    async def _ask(self, question: dict[str, object], name: str) -> dict[str, Any]:
        async with self._free:
            child = await self._child()
            self._busy.add(child)
            whole = False
            try:
                answer = await asyncio.wait_for(child.ask(question), self._time)
                whole = True
            except asyncio.TimeoutError:
                raise ReadError(
                    name,
                    f"took longer than {self._time:g} s to decode",
                    "Send fewer or smaller files.",
                    code="corrupt",
                ) from None
            except (OSError, ValueError):
                raise ReadError(name, "made the decoder crash", "Do not use this file.", code="corrupt") from None
            finally:
                self._busy.discard(child)
                if whole and child.uses < _MOST_USES:
                    self._idle.append(child)
                else:  # also where whoever asked has gone
                    await asyncio.shield(child.end())
        if "error" in answer:
            raise error_from(answer["error"])
        return answer

    def _take(self, folder: Path, name: str) -> MedicalImage:
        pixels = folder / "pixels.npy"
        if pixels.stat().st_size > 4 * self._voxels + 4096:
            raise MediScanError(
                f"{name}: has more than the {self._voxels} voxels that are allowed here. Crop or resample it.",
                code="too_large",
            )
        try:
            return read_request(folder).image
        except (ValueError, TypeError, KeyError) as error:  # the child is started from what is installed now
            raise EngineError(
                f"{name}: what its decoder answered is not understood. MediScan was changed while the server ran: "
                "start the server again."
            ) from error
        finally:
            pixels.unlink()

    async def _child(self) -> _Child:
        while self._idle:
            child = self._idle.pop()
            if child.alive:
                return child
        root = Path(__file__).resolve().parents[2]
        places = [str(root), *(str(Path(place).absolute()) for place in sys.path if place)]
        process = await asyncio.create_subprocess_exec(
            interpreter(),
            "-m",
            self._module,
            str(self._memory + _HEADROOM),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            cwd=root,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(places), "OMP_NUM_THREADS": "1"},
            start_new_session=True,
        )
        return _Child(process)


class ResultsPool(ReaderPool):
    """Makes DICOM results in child processes: they need the headers of the files, which come from outside."""

    _module = "MediScanLib.server.results_child"

    async def make(self, folder: Path, files: Sequence[str]) -> list[str]:
        """Make the objects of the prediction in a folder.

        Args:
            folder: With the prediction as `exchange.write_answer` writes it.
            files: Names of the DICOM files in `folder/files`.

        Returns:
            Names of the objects in `folder/results`.

        Raises:
            MediScanError: The files are not those of the prediction, or not within the limits.
        """
        question: dict[str, object] = {"folder": str(folder), "files": list(files), "limit": self._memory}
        return [str(name) for name in (await self._ask(question, "the upload"))["objects"]]
