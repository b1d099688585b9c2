"""Asks a server who it is without anybody waiting: name servers and sockets can each keep one waiting for long."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import EngineError, MediScanError, ServerError
from .exchange import describe_error, error_from
from .server_client import ServerClient, ServerInfo, ServerModel

ANSWER_SECONDS = 5.0
"""How long the server may be silent."""

END_SECONDS = 15.0
"""After which the child is ended, whatever it waits for."""

_LIBRARY = Path(__file__).resolve().parents[2]


class ConnectionTest:
    """One question to a server, in a child process that loads no torch; ask `poll` until it answers.

    Args:
        url: Such as https://host:8800.
        token: None where the server wants none.
        executable: Python with numpy and pydantic; in 3D Slicer PythonSlicer.
        paths: Where the child looks for packages beside its own places, after those.
        settings: Further arguments of `ServerClient`.

    Raises:
        ServerError: The address or the token cannot be used.
        EngineError: The child cannot be started.
    """

    def __init__(
        self,
        url: str,
        token: str | None = None,
        *,
        executable: str = sys.executable,
        paths: Sequence[str] = (),
        **settings: Any,
    ) -> None:
        self.url = ServerClient(url, token, **settings).url  # what cannot be used is told at once
        start = (
            f"import sys; sys.path.insert(0, {str(_LIBRARY)!r}); "
            f"sys.path += [path for path in {list(paths)!r} if path not in sys.path]; "
            f"from MediScanLib.prediction.connection_test import main; main()"
        )
        try:
            self._process = subprocess.Popen(  # noqa: S603 - this library, in a Python that the caller names
                [executable, "-c", start],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=dict(os.environ),
                text=True,
                creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
            )
        except OSError as error:
            raise EngineError(f"{executable}: cannot be started ({error}). Is it a Python?") from error
        assert self._process.stdin is not None
        asked = {"url": url, "token": token, "timeout_s": ANSWER_SECONDS, **settings}
        with contextlib.suppress(OSError):  # a child that is gone is noticed by `poll`
            # through the pipe, since command lines and environments can be looked at by others
            self._process.stdin.write(json.dumps(asked))
            self._process.stdin.close()
        self._end = time.monotonic() + END_SECONDS

    def poll(self) -> ServerInfo | None:
        """What the server says of itself; None while nothing is known.

        Raises:
            ServerError: Not to be reached, not MediScan, too old, or the token is wrong.
            EngineError: The child failed.
        """
        if self._process.poll() is None:
            if time.monotonic() < self._end:
                return None
            self.close()
            told = f"{self.url}: does not answer. Check the address and the network."
            raise ServerError(told, code="server_timeout")
        assert self._process.stdout is not None
        text = self._process.stdout.read()
        self.close()
        try:
            said: Mapping[str, Any] = json.loads(text)
        except ValueError as error:
            raise EngineError(
                f"The process that asked {self.url} ended without an answer. Try again; if it happens again, install "
                "the Python packages anew."
            ) from error
        if "error" in said:
            raise error_from(said["error"])
        models = tuple(ServerModel(**{**model, "labels": tuple(model["labels"])}) for model in said["models"])
        return ServerInfo(**{**said, "models": models})

    def close(self) -> None:
        """Forget the question."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()


def main() -> None:
    """The child."""
    try:
        said = dataclasses.asdict(ServerClient(**json.load(sys.stdin)).info())
    except MediScanError as error:
        said = {"error": describe_error(error)}
    json.dump(said, sys.stdout)
