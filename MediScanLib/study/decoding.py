"""Decodes compressed DICOM frames in a child process, so that a hostile file can crash or starve only the child.

The child is started at the first compressed frame and kept: a later frame costs a file in the temporary folder
and two pipes. It runs in that folder, which is its own: `python -m` looks for modules in the current folder first, and
that of the user may be full of downloaded files. The why and the measurements are in
docs/decisions/0002-dicom-decoders.md.
"""

from __future__ import annotations

import atexit
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from contextlib import suppress
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ..errors import ReadError
from .decoder_child import read_block, write_blocks

TIME_LIMIT = 20.0
"""Seconds that one frame may take."""

_HEADROOM = 256 * 1024**2  # what GDCM takes besides the pixels


def interpreter() -> str:
    """The Python to start a child with; inside Slicer the running program may be the application itself.

    Raises:
        FileNotFoundError: There is none.
    """
    if "python" in Path(sys.executable or "").name.lower():
        return sys.executable
    found = shutil.which("PythonSlicer") or shutil.which("python3")
    if found is None:
        raise FileNotFoundError("no Python interpreter")
    return found


class DecoderProcess:
    """Owns the child: starts it when needed, one frame at a time, starts another after a crash.

    Args:
        time_limit: Seconds that one frame may take.
    """

    def __init__(self, time_limit: float = TIME_LIMIT) -> None:
        self._time_limit = time_limit
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._folder = ""
        self._owner = 0

    def decode(self, content: bytes, name: str, pixel_bytes: int) -> npt.NDArray:
        """Decode a DICOM file of one frame.

        Args:
            content: The file; made by MediScan, with nothing of the original header but the pixel layout.
            name: The original file, for errors.
            pixel_bytes: Bytes of the decoded frame.

        Returns:
            Stored values, (1, rows, columns) or (1, rows, columns, 3).

        Raises:
            ReadError: corrupt, too_large or unsupported.
        """
        memory = 8 * pixel_bytes + 2 * len(content) + _HEADROOM
        with self._lock:
            header, data = self._ask(content, name, memory)
        if "error" in header:
            if header["error"] == "memory":
                raise ReadError(
                    name,
                    "its compressed pixels need far more memory than an image of this size",
                    "Do not use this file.",
                    code="too_large",
                )
            raise ReadError(name, "its compressed pixels cannot be decoded", "Export it again.", code="corrupt")
        return np.frombuffer(data, dtype=np.dtype(header["dtype"])).reshape(header["shape"])

    def close(self) -> None:
        """End the child and remove its folder, with the frame that it may have been killed over."""
        process, self._process = self._process, None
        if process is not None and self._owner == os.getpid():
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    with suppress(OSError):  # what the dead child did not take
                        pipe.close()
            shutil.rmtree(self._folder, ignore_errors=True)

    def _ask(self, content: bytes, name: str, memory: int) -> tuple[dict, bytes]:
        process = self._running(name)
        assert process.stdin is not None and process.stdout is not None
        timed_out = threading.Event()

        def stop() -> None:
            timed_out.set()
            process.kill()

        timer = threading.Timer(self._time_limit, stop)
        timer.daemon = True
        timer.start()
        try:
            write_blocks(process.stdin, json.dumps({"memory": memory}).encode(), content)
            header, data = read_block(process.stdout), read_block(process.stdout)
        except OSError:  # the pipe broke: the child is gone
            header = data = None
        finally:
            timer.cancel()
        if header is None or data is None:
            self.close()
            what = f"took longer than {self._time_limit:g} s" if timed_out.is_set() else "made the decoder crash"
            raise ReadError(name, f"decoding its pixels {what}", "Do not use this file.", code="corrupt")
        return json.loads(header), data

    def _running(self, name: str) -> subprocess.Popen[bytes]:
        if self._owner != os.getpid():  # a fork must not share its parent's pipes
            self._process = None
        if self._process is None or self._process.poll() is not None:
            self.close()
            root = Path(__file__).resolve().parents[2]  # also in a checkout that is not installed
            places = [str(root), *(str(Path(place).absolute()) for place in sys.path if place)]
            environment = dict(os.environ, PYTHONPATH=os.pathsep.join(places), PYTHONIOENCODING="utf-8")
            self._folder = tempfile.mkdtemp(prefix="mediscan-")
            try:
                self._process = subprocess.Popen(  # noqa: S603  our own module in our own interpreter
                    [interpreter(), "-m", "MediScanLib.study.decoder_child", self._folder],
                    cwd=self._folder,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                    env=environment,
                    creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
                )
            except OSError:
                shutil.rmtree(self._folder, ignore_errors=True)
                raise ReadError(
                    name,
                    "is compressed, and the process that decodes it cannot be started",
                    "Store it uncompressed, or run MediScan with a Python interpreter on the path.",
                    code="unsupported",
                ) from None
            self._owner = os.getpid()
        return self._process


_shared = DecoderProcess()
atexit.register(_shared.close)


def shared_decoder() -> DecoderProcess:
    """The one decoder process of this program."""
    return _shared
