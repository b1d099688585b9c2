"""Errors as `application/problem+json` (RFC 9457): what was wrong with what, and what to do."""

from __future__ import annotations

import math
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from starlette.responses import JSONResponse

from ..errors import ClinicalError, MediScanError, ReadError, UsageError

MEDIA_TYPE = "application/problem+json"


class BusyError(MediScanError):
    """There is too much to do, or one asks too often.

    Args:
        message: What is too much.
        retry_after_s: When to come back.
    """

    code = "busy"

    def __init__(self, message: str, retry_after_s: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after_s = max(1, math.ceil(retry_after_s))


class StoppingError(BusyError):
    """The server is about to stop."""

    code = "stopping"


class MissingError(MediScanError):
    """There is nothing of that name here."""

    code = "not_found_here"


_BY_CODE = {
    "not_an_image": 415,
    "not_dicom": 415,
    "missing_uid": 422,
    "source_mismatch": 409,
    "no_highdicom": 501,
    "unsupported": 415,
    "not_packed": 415,
    "too_large": 413,
    "too_many_files": 413,
    "model_unknown": 404,
    "not_found_here": 404,
    "pixels_needed": 409,
    "not_done": 409,
    "already_ended": 409,
    "key_reused": 409,
    "token": 401,
    "role": 403,
    "forbidden": 403,
    "slow_upload": 408,
    "too_late": 504,
    "busy": 429,
    "stopping": 503,
}


def status_of(error: MediScanError) -> int:
    """The HTTP status for an error: the client's fault where it is, else 503, for what may pass."""
    known = _BY_CODE.get(error.code)
    if known is not None:
        return known
    own = isinstance(error, ReadError | ClinicalError | UsageError)
    # what came from a child process or the database has lost its class
    return 422 if own or error.code in (*ReadError.CODES, ReadError.code, ClinicalError.code) else 503


def problem(error: MediScanError) -> dict[str, Any]:
    """An error as the fields of a problem."""
    status = status_of(error)
    return described(status, error.code, str(error))


def described(status: int, code: str, detail: str) -> dict[str, Any]:
    """The fields of a problem."""
    return {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "code": code,
        # file names in it may hold what UTF-8 cannot
        "detail": detail.encode("utf-8", "backslashreplace").decode("utf-8"),
    }


def problem_response(error: MediScanError) -> JSONResponse:
    """An error as a response."""
    headers: dict[str, str] = {}
    if isinstance(error, BusyError):
        headers["Retry-After"] = str(error.retry_after_s)
    if error.code == "token":
        headers["WWW-Authenticate"] = 'Bearer realm="mediscan"'
    content = problem(error)
    return JSONResponse(content, content["status"], headers=headers, media_type=MEDIA_TYPE)


def response(status: int, code: str, detail: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """A problem as a response."""
    return JSONResponse(described(status, code, detail), status, headers=dict(headers or {}), media_type=MEDIA_TYPE)
