"""`Remote`: predictions that a MediScan server makes, asked for so that nobody here ever waits for the network."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import UsageError
from ..progress import Progress
from .engine import Worker
from .exchange import Request
from .result import Prediction
from .server_client import PATIENCE_S, TIMEOUT_S, ServerClient, ServerInfo, ServerModel
from .worker import serve

__all__ = ["Remote", "ServerInfo", "ServerModel", "read_token", "test_connection"]

TEST_SECONDS = 3.0


class Remote(Worker):
    """Predicts on a server, one run at a time; submit, poll and cancel as with a `Worker`.

    All talk with the server happens in a small child process: the event loop of 3D Slicer keeps Python's lock, so that
    a thread would starve, and name servers, connections and sockets can each keep one waiting for long. The child
    loads no torch. A run that is cancelled, or whose program ends, closes its connection, and so the server stops it.

    `Request.device` is for the server to choose. File names, identifiers and warnings of the image do not travel.

    Args:
        url: Such as https://host:8800.
        token: Shown with every request; None where the server wants none.
        timeout_s: Longest silence of the server.
        patience_s: How long a full queue is waited for.
        ca_file: Certificates (PEM) to trust instead of the system's.
        allow_http: Whether images may travel unencrypted to another machine.
        executable: Python with numpy and pydantic; in 3D Slicer PythonSlicer.
        environment: Environment of the child; that of this process where None.
        paths: Where the child looks for packages beside its own places, after those.

    Raises:
        ServerError: The address, the token or the certificates cannot be used.
    """

    _module = "MediScanLib.prediction.remote"
    _called = "talks to the server"
    _again = "Cancelled."
    _hint = "Try again; if it happens again, report what it said."

    def __init__(
        self,
        url: str,
        token: str | None = None,
        *,
        timeout_s: float = TIMEOUT_S,
        patience_s: float = PATIENCE_S,
        ca_file: str | os.PathLike[str] | None = None,
        allow_http: bool = False,
        executable: str = sys.executable,
        environment: Mapping[str, str] | None = None,
        paths: Sequence[str] = (),
    ) -> None:
        super().__init__(executable, environment, paths)
        self._server = {
            "url": url,
            "token": token,
            "timeout_s": timeout_s,
            "patience_s": patience_s,
            "ca_file": None if ca_file is None else os.fspath(ca_file),
            "allow_http": allow_http,
        }
        self.url = ServerClient(**self._server).url  # type: ignore[arg-type]

    def test(self, timeout_s: float = TEST_SECONDS) -> ServerInfo:
        """As `test_connection`, with the settings of this engine."""
        return ServerClient(**{**self._server, "timeout_s": timeout_s}).info()  # type: ignore[arg-type]

    def _along(self) -> dict[str, Any]:
        # through the pipe, since command lines and environments can be looked at by others
        return {"server": self._server}


def test_connection(
    url: str,
    token: str | None = None,
    *,
    timeout_s: float = TEST_SECONDS,
    ca_file: str | os.PathLike[str] | None = None,
    allow_http: bool = False,
) -> ServerInfo:
    """Ask a server who it is; blocks for `timeout_s` at most, but for a name server that does not answer.

    Raises:
        ServerError: Not to be reached, not MediScan, too old, or the token is wrong; its `code` tells which.
    """
    return ServerClient(url, token, timeout_s=timeout_s, ca_file=ca_file, allow_http=allow_http).info()


test_connection.__test__ = False  # type: ignore[attr-defined]  # pytest takes names for tests


def read_token(path: str | os.PathLike[str]) -> str:
    """The token in a file: its first line.

    Raises:
        UsageError: There is no such file, or nothing in it.
    """
    try:
        with Path(path).open(encoding="utf-8") as stream:
            token = stream.readline(10_000).strip()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: the token cannot be read from it. Give a text file.") from error
    if not token:
        raise UsageError(f"{path}: holds no token in its first line.")
    return token


class _Asking:
    """What the child does: passes requests on to the server."""

    def __init__(self) -> None:
        self._settings: dict[str, Any] | None = None
        self._client: ServerClient | None = None

    def answer(self, message: dict[str, Any], request: Request, progress: Progress) -> Prediction:
        progress.report("connecting", 0, 0)
        if self._client is None or self._settings != message["server"]:
            self._settings = message["server"]
            self._client = ServerClient(**message["server"])
        return self._client.predict(request, progress)

    def stop(self, run: int) -> None:
        if self._client is not None:
            self._client.abort()


def main() -> None:
    """The child; started by `Remote` with the file of events as its only argument."""
    path = Path(sys.argv[1])
    with path.open("a", encoding="utf-8") as stream:
        serve(sys.stdin, stream, path.parent, _Asking)
