"""One file over http or https: bounded in size and time, and of a known hash."""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable
from http.client import HTTPException, HTTPMessage, HTTPResponse
from pathlib import Path
from typing import IO
from urllib.error import HTTPError, URLError
from urllib.request import (
    HTTPDefaultErrorHandler,
    HTTPErrorProcessor,
    HTTPHandler,
    HTTPRedirectHandler,
    HTTPSHandler,
    OpenerDirector,
    ProxyHandler,
    Request,
    UnknownHandler,
)

from ..errors import BundleError, CancelledError
from ..progress import Progress

LEAST_BYTES_PER_S = 1024
"""A server that is slower for as long as it may be silent is given up."""

_BLOCK = 1 << 20


def download(
    url: str,
    file: Path,
    sha256: str,
    progress: Progress,
    *,
    max_bytes: int,
    timeout_s: float,
    require_space: Callable[[int], None] = lambda _: None,
) -> None:
    """Fetch a file; what has not the hash does not count.

    Args:
        url: Address; it, and whereto it leads, is http or https.
        file: Where the bytes go. The caller deletes it after an error.
        sha256: Expected SHA-256, hexadecimal in lower case.
        progress: Hears of stage "download" in bytes, total 0 where the server does not tell, and may cancel.
        max_bytes: Most that is taken.
        timeout_s: Longest silence of the server, in seconds.
        require_space: Told how much the server announces; raises where that is too much.

    Raises:
        BundleError: The server does not deliver, or something else.
        CancelledError: The user cancelled.
        OSError: The file cannot be written.
    """
    digest = hashlib.sha256()
    with _open(url, timeout_s) as response, file.open("wb") as stream:
        announced = response.length or 0
        if announced > max_bytes:
            raise BundleError(f"{url}: {announced} bytes are too many for a model (at most {max_bytes}).")
        require_space(announced)
        pace = _Pace(url, timeout_s)
        done = 0
        while True:
            if progress.cancelled():
                raise CancelledError("Cancelled. Nothing was installed.")
            progress.report("download", done, announced)
            block = _read(url, response)
            if not block:
                break
            done += len(block)
            if done > max_bytes:
                raise BundleError(f"{url}: the server sends more than the {max_bytes} bytes that a model may have.")
            pace.check(done)
            digest.update(block)
            stream.write(block)
    if done < announced:
        raise BundleError(f"{url}: the connection broke off after {done} of {announced} bytes. Try again.")
    if digest.hexdigest() != sha256:
        raise BundleError(
            f"{url}: SHA-256 of what came is {digest.hexdigest()}, not {sha256}: the file is another one, or was "
            "changed on the way. Ask whoever offers the model."
        )


class _Pace:
    """Gives up a server that says something ever so often, and never enough."""

    def __init__(self, url: str, window_s: float) -> None:
        self._url, self._window_s = url, window_s
        self._since, self._done = time.monotonic(), 0

    def check(self, done: int) -> None:
        now = time.monotonic()
        if now - self._since < self._window_s:
            return
        if done - self._done < LEAST_BYTES_PER_S * self._window_s:
            raise BundleError(f"{self._url}: the server is too slow ({done} bytes so far). Try again later.")
        self._since, self._done = now, done


class _Redirects(HTTPRedirectHandler):
    """Follows to http and https, and never from https to http."""

    def redirect_request(
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> Request | None:
        secure = req.full_url.lower().startswith("https:")
        allowed = ("https://",) if secure else ("http://", "https://")
        if not newurl.lower().startswith(allowed):
            raise URLError(f"it leads to {newurl}, which is not followed")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _open(url: str, timeout_s: float) -> HTTPResponse:
    if re.search(r"[\x00-\x20\x7f]", url) or not url.isascii():
        raise BundleError(f"{url!r}: is no address; write spaces and letters beyond ASCII as %20 and the like.")
    opener = OpenerDirector()
    # by hand: urllib's own opener also reads files of this machine, and FTP
    for handler in (
        ProxyHandler(),
        HTTPHandler(),
        HTTPSHandler(),
        _Redirects(),
        HTTPDefaultErrorHandler(),
        HTTPErrorProcessor(),
        UnknownHandler(),
    ):
        opener.add_handler(handler)
    opener.addheaders = [("User-Agent", "MediScan"), ("Accept-Encoding", "identity")]
    try:
        response = opener.open(url, timeout=timeout_s)
    except HTTPError as error:
        error.close()
        raise BundleError(f"{url}: the server answers {error.code} ({error.reason}). Check the address.") from error
    except TimeoutError as error:
        raise BundleError(f"{url}: the server does not answer within {timeout_s:g} s. Try again later.") from error
    except (URLError, HTTPException, OSError, ValueError) as error:
        reason = error.reason if isinstance(error, URLError) else error
        if isinstance(reason, TimeoutError):
            reason = f"no answer within {timeout_s:g} s"
        raise BundleError(f"{url}: cannot be fetched ({reason}). Check address and network.") from error
    assert isinstance(response, HTTPResponse)
    return response


def _read(url: str, response: HTTPResponse) -> bytes:
    """What has come, as soon as something has, so that a slow server does not hold up a cancel."""
    try:
        return response.read1(_BLOCK)
    except TimeoutError as error:
        raise BundleError(f"{url}: the server has fallen silent. Try again later.") from error
    except (HTTPException, OSError, ValueError) as error:
        raise BundleError(f"{url}: the connection broke off ({error}). Try again.") from error
