"""The application: `create_app(settings)`."""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from .. import __version__
from ..errors import MediScanError
from ..notice import RESEARCH_USE_NOTICE
from . import problems, schemas
from .answering import GoneError
from .house import House
from .memory import keep_freed_memory
from .metrics import Metrics
from .routes import about, dicom, jobs, maps, predict, reviews
from .settings import ENVIRONMENT, ServerSettings
from .shield import Shield, remember

_log = logging.getLogger("mediscan.server")

_CLIENT_GONE = 499
_PROBLEM = {"model": schemas.Problem, "content": {problems.MEDIA_TYPE: {}}}
_ANY_PROBLEM: dict[int | str, dict[str, Any]] = {"default": {**_PROBLEM, "description": "What was wrong."}}


def create_app(settings: ServerSettings) -> FastAPI:
    """The application; models are loaded when it starts.

    Args:
        settings: How it is set up.
    """
    metrics = Metrics()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        app.state.house = house = House(settings, metrics)
        try:
            await house.open()
            yield
        finally:
            await house.close()

    app = FastAPI(
        title="MediScan",
        version=__version__,
        summary="Reads a medical image with what is known of the patient.",
        description=RESEARCH_USE_NOTICE,
        lifespan=lifespan,
        openapi_url="/v1/openapi.json",
        docs_url=None,  # its page would load scripts from elsewhere
        redoc_url=None,
        responses=_ANY_PROBLEM,
        redirect_slashes=False,
    )
    for module in (about, predict, maps, dicom, jobs, reviews):
        app.include_router(module.router, prefix="/v1")
    app.add_exception_handler(MediScanError, _explained)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(ClientDisconnect, _gone)
    app.add_middleware(Shield, settings=settings, metrics=metrics)
    return app


def worker_app() -> FastAPI:
    """The application of a worker process, whose settings are in its environment."""
    keep_freed_memory()
    return create_app(ServerSettings.model_validate_json(os.environ[ENVIRONMENT]))


async def _explained(request: Request, error: Exception) -> Response:
    assert isinstance(error, MediScanError)
    if isinstance(error, GoneError):
        return Response(status_code=_CLIENT_GONE)
    remember(request.scope, code=error.code)
    request.app.state.house.metrics.refused.labels(error.code).inc()
    response = problems.problem_response(error)
    if response.status_code >= 500:
        _log.warning("request %s: %s", request.scope["state"].get("request_id"), error.code)
    return response


async def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    remember(request.scope, code="http")
    return problems.response(error.status_code, "http", str(error.detail), error.headers)


async def _invalid(request: Request, error: Exception) -> Response:
    """Which field is not acceptable and why; never the value that was sent."""
    assert isinstance(error, RequestValidationError)
    remember(request.scope, code="invalid")
    found = "; ".join(
        f"{'.'.join(str(part) for part in problem['loc'])}: {problem['msg']}" for problem in error.errors()[:10]
    )
    return problems.response(422, "invalid", f"The request is not acceptable: {found}.")


async def _gone(request: Request, error: Exception) -> Response:
    return Response(status_code=_CLIENT_GONE)
