"""Talks HTTP to a MediScan server. Standard library only, because it also runs in 3D Slicer's Python.

Every call blocks until it is done; `Remote` therefore makes them in a process of its own.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import socket
import ssl
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from .. import __version__
from ..errors import CancelledError, MediScanError, ServerError
from ..progress import Progress, SilentProgress
from .exchange import Request, error_from
from .heatmaps import HeatMaps
from .packing import MEDIA_TYPE, VERSION, completed, pack
from .result import Prediction
from .server_address import address_parts, checked_token, tls_context

API = 1
TIMEOUT_S = 30.0
PATIENCE_S = 120.0
_MOST_ANSWER_BYTES = 1024**3
_PIECE = 1 << 20


@dataclass(frozen=True)
class ServerModel:
    """A model that a server offers.

    Attributes:
        name: For `Request.model`.
        version: Of the bundle.
        title: For people.
        sha256: Of the weights.
        labels: Findings.
        spatial_dims: 2 or 3.
    """

    name: str
    version: str
    title: str
    sha256: str
    labels: tuple[str, ...]
    spatial_dims: int


@dataclass(frozen=True)
class ServerInfo:
    """What a server says of itself.

    Attributes:
        url: Its address.
        version: Of MediScan there.
        role: Of the token that was shown: reader, submitter or admin.
        models: What it offers; the first is its default.
        device: Where it computes.
        max_body_bytes: Largest request.
        max_voxels: Largest image.
        seconds: How long this answer took.
    """

    url: str
    version: str
    role: str
    models: tuple[ServerModel, ...]
    device: str
    max_body_bytes: int
    max_voxels: int
    seconds: float

    def model(self, name: str) -> ServerModel:
        """The model of that name.

        Raises:
            ServerError: There is none.
        """
        for model in self.models:
            if model.name == name:
                return model
        raise _no_model(self.url, name, [model.name for model in self.models])


class ServerClient:
    """One server and the way to it.

    Args:
        url: Such as https://host:8800, maybe with a path in front of /v1.
        token: Shown with every request; None where the server wants none.
        timeout_s: Longest silence of the server.
        patience_s: How long a full queue is waited for, in all.
        ca_file: Certificates (PEM) to trust instead of the system's.
        allow_http: Whether images may travel unencrypted to another machine.

    Raises:
        ServerError: The address or the certificates cannot be used.
    """

    def __init__(
        self,
        url: str,
        token: str | None = None,
        *,
        timeout_s: float = TIMEOUT_S,
        patience_s: float = PATIENCE_S,
        ca_file: str | os.PathLike[str] | None = None,
        allow_http: bool = False,
    ) -> None:
        self.url = url.strip().rstrip("/")
        self._secure, self._host, self._port, self._path = address_parts(self.url, allow_http)
        self._token = checked_token(token)
        self._timeout, self._patience = timeout_s, patience_s
        self._context = tls_context(ca_file) if self._secure else None
        self._open: http.client.HTTPConnection | None = None
        self._known: str | None = None  # digest of the pixels that the server has

    def info(self) -> ServerInfo:
        """Ask who is there.

        Raises:
            ServerError: Nobody, somebody else, a server of another version, or one that does not know the token.
        """
        started = time.perf_counter()
        with self._answer("GET", "/v1/info") as response:
            content = self._json(response)
        try:
            if content["name"] != "mediscan":
                raise KeyError("name")
            if content["api"] != API or VERSION not in content["study_versions"]:
                raise ServerError(
                    f"{self.url}: runs MediScan {content.get('version')}, which does not understand this one "
                    f"({__version__}). Bring both to the same version.",
                    code="server_version",
                )
            return ServerInfo(
                url=self.url,
                version=str(content["version"]),
                role=str(content["role"]),
                models=tuple(
                    ServerModel(
                        model["name"],
                        model["version"],
                        model["title"],
                        model["sha256"],
                        tuple(model["labels"]),
                        int(model["spatial_dims"]),
                    )
                    for model in content["models"]
                ),
                device=str(content["device"]),
                max_body_bytes=int(content["limits"]["max_body_bytes"]),
                max_voxels=int(content["limits"]["max_voxels"]),
                seconds=time.perf_counter() - started,
            )
        except (KeyError, TypeError, ValueError) as error:
            raise self._stranger() from error

    def predict(self, request: Request, progress: Progress | None = None) -> Prediction:
        """Predict one study there.

        The pixels of the last study are not sent again while the server remembers them. A full queue is waited for
        as long as the server asks, up to `patience_s` in all.

        Raises:
            CancelledError: `progress` asked to stop, or `abort` was called.
            MediScanError: As an engine here would say it, or a `ServerError`.
        """
        progress = progress or SilentProgress()
        end = time.monotonic() + self._patience
        again = True
        while True:
            head, pixels = pack(request)
            digest = json.loads(head[24:])["digest"]
            brought = self._known != digest
            try:
                prediction = self._predict(head, pixels if brought else memoryview(b""), progress)
                self._known = digest
                return completed(prediction, request.image)
            except _BusyError as busy:
                self._wait(busy, end, progress)
            except MediScanError as error:
                self._known = None
                if error.code != "pixels_needed" or brought or not again:
                    raise
                again = False

    def abort(self) -> None:
        """End what is under way in another thread."""
        connection = self._open
        if connection is not None and connection.sock is not None:
            with contextlib.suppress(OSError, ValueError):
                connection.sock.shutdown(socket.SHUT_RDWR)

    def _predict(self, head: bytes, pixels: memoryview, progress: Progress) -> Prediction:
        total = len(head) + len(pixels)
        headers = {
            "Content-Type": MEDIA_TYPE,
            "Content-Length": str(total),
            "Accept": "application/x-ndjson",
        }

        def body() -> Iterator[bytes | memoryview]:
            yield head
            for start in range(0, len(pixels), _PIECE):
                if progress.cancelled():
                    raise CancelledError("Cancelled.")
                yield pixels[start : start + _PIECE]
                progress.report("sending the image", min(start + _PIECE, len(pixels)), len(pixels))

        try:
            with self._answer("POST", "/v1/predict", body(), headers) as response:
                for line in self._lines(response):
                    if progress.cancelled():
                        raise CancelledError("Cancelled.")
                    if "problem" in line:
                        raise self._problem(int(line["problem"].get("status", 500)), line["problem"], {})
                    if "prediction" in line:
                        return self._prediction(line)
                    progress.report(str(line["stage"]), int(line["done"]), int(line["total"]))
        except (ServerError, KeyError, TypeError, ValueError, AttributeError) as error:
            if progress.cancelled():  # the connection was cut by `abort`
                raise CancelledError("Cancelled.") from error
            if isinstance(error, ServerError):
                raise
            raise self._stranger() from error
        if progress.cancelled():
            raise CancelledError("Cancelled.")
        raise ServerError(
            f"{self.url}: the answer ended too soon. The server was stopped, or something between cut the line. "
            "Try again."
        )

    def _prediction(self, line: Mapping[str, Any]) -> Prediction:
        try:
            prediction = Prediction.model_validate(line["prediction"])
            maps = line.get("maps")
            return prediction if maps is None else prediction.with_maps(HeatMaps.from_json(maps))
        except (ValidationError, ValueError) as error:
            raise ServerError(
                f"{self.url}: its prediction is of another version. Bring both to the same version of MediScan.",
                code="server_version",
            ) from error

    def _wait(self, busy: _BusyError, end: float, progress: Progress) -> None:
        if time.monotonic() + busy.seconds > end:
            raise ServerError(
                f"{self.url}: is busy and asks to come back in {busy.seconds:g} s. Try again later.",
                code="server_busy",
            ) from None
        until = time.monotonic() + busy.seconds
        progress.report("waiting for the server", 0, 0)
        while time.monotonic() < until:
            if progress.cancelled():
                raise CancelledError("Cancelled.") from None
            time.sleep(min(0.05, max(0.0, until - time.monotonic())))

    @contextmanager
    def _answer(
        self,
        method: str,
        path: str,
        body: Iterable[bytes | memoryview] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Iterator[http.client.HTTPResponse]:
        """The response to a request, where it is a good one."""
        connection = self._connection()
        self._open = connection
        try:
            sent = {"User-Agent": f"MediScan/{__version__}", "Accept": "application/json", **(headers or {})}
            if self._token:
                sent["Authorization"] = f"Bearer {self._token}"
            # refused while it was being sent: the reason may still be read
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                connection.request(method, self._path + path, body=body, headers=sent)
            response = connection.getresponse()
            if response.status != 200:
                raise self._refusal(response)
            yield response
        except (MediScanError, _BusyError):
            raise
        except (OSError, http.client.HTTPException) as error:
            raise self._unreachable(error) from error
        finally:
            self._open = None
            connection.close()

    def _connection(self) -> http.client.HTTPConnection:
        if self._context is not None:
            return http.client.HTTPSConnection(self._host, self._port, timeout=self._timeout, context=self._context)
        return http.client.HTTPConnection(self._host, self._port, timeout=self._timeout)

    def _lines(self, response: http.client.HTTPResponse) -> Iterator[dict[str, Any]]:
        read = 0
        while line := response.readline(_MOST_ANSWER_BYTES):
            read += len(line)
            if read > _MOST_ANSWER_BYTES:
                raise ServerError(f"{self.url}: sends more than any answer has. Is this the right address?")
            if line.strip():
                yield json.loads(line)

    def _json(self, response: http.client.HTTPResponse) -> Any:
        try:
            return json.loads(response.read(_PIECE * 16))
        except ValueError as error:
            raise self._stranger() from error

    def _refusal(self, response: http.client.HTTPResponse) -> Exception:
        text = response.read(_PIECE)
        try:
            problem = json.loads(text)
            if not isinstance(problem, dict) or "detail" not in problem or "code" not in problem:
                raise ValueError("no problem")
        except ValueError:
            problem = None
        return self._problem(response.status, problem, response.headers)

    def _problem(self, status: int, problem: Mapping[str, Any] | None, headers: Any) -> Exception:
        """What a refusal means."""
        code = str(problem["code"]) if problem else ""
        detail = str(problem["detail"]) if problem else ""
        if status == 401:
            said = "does not know this token" if self._token else "wants a token"
            return ServerError(
                f"{self.url}: {said}. Ask whoever runs it for one (mediscan serve token add).", code="server_token"
            )
        if status == 403:
            return ServerError(f"{self.url}: {detail or 'does not allow this'}", code="server_role")
        if status in (429, 503) and problem and headers.get("Retry-After"):
            return _BusyError(_seconds(headers.get("Retry-After")))
        if problem is None and (status == 404 or 300 <= status < 400):
            return self._stranger()
        if code == "model_unknown":
            return ServerError(f"{self.url}: {detail}", code="server_model")
        if code == "not_packed":
            return ServerError(
                f"{self.url}: does not understand what this version of MediScan ({__version__}) sends. Bring both to "
                "the same version.",
                code="server_version",
            )
        if problem is None or (status >= 500 and code in ("internal", "http")):
            return ServerError(f"{self.url}: failed with status {status}. {detail}".strip())
        return error_from({"code": code, "message": detail})

    def _stranger(self) -> ServerError:
        return ServerError(
            f"{self.url}: something answers there, but it is no MediScan server, or a very old one. Check the "
            "address.",
            code="server_version",
        )

    def _unreachable(self, error: Exception) -> ServerError:
        if isinstance(error, ssl.SSLCertVerificationError):
            return ServerError(
                f"{self.url}: its certificate is not trusted here ({error.verify_message}). Name the file of the "
                "certificate that signed it.",
                code="server_tls",
            )
        if isinstance(error, ssl.SSLError):
            return ServerError(
                f"{self.url}: no encrypted connection comes about ({error.reason or error}). Is it an http:// server?",
                code="server_tls",
            )
        if isinstance(error, TimeoutError):
            return ServerError(
                f"{self.url}: silent for {self._timeout:g} s. See whether the server runs, or try again.",
                code="server_timeout",
            )
        if isinstance(error, socket.gaierror):
            return ServerError(
                f"{self.url}: there is no host {self._host}. Check the address.", code="server_unreachable"
            )
        if isinstance(error, ConnectionRefusedError):
            return ServerError(
                f"{self.url}: nobody answers there. Start the server (mediscan serve), or check host and port.",
                code="server_unreachable",
            )
        said = getattr(error, "strerror", None) or type(error).__name__
        return ServerError(
            f"{self.url}: the connection failed ({said}). Check the address, and https:// against http://.",
            code="server_unreachable",
        )


class _BusyError(Exception):
    """The server wants the same again later."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds = seconds


def _seconds(text: str | None) -> float:
    try:
        return min(3600.0, max(0.1, float(text or 1)))
    except ValueError:  # a date; servers of ours give seconds
        return 5.0


def _no_model(url: str, name: str, names: Iterable[str]) -> ServerError:
    return ServerError(f"{url}: has no model {name!r}. It has: {', '.join(names)}.", code="server_model")
