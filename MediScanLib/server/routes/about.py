"""Endpoints about the server itself: health, ready, info, models, metrics."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import HTMLResponse, JSONResponse, Response

from ... import __version__
from ...network.bundle import Bundle
from ...notice import RESEARCH_USE_NOTICE
from ...prediction.packing import VERSION
from ...prediction.result import SCHEMA_VERSION
from ...prediction.server_client import API
from .. import schemas
from ..auth import HouseOf, Reader, needs
from ..page import POLICY, page
from ..problems import StoppingError, response

router = APIRouter(tags=["server"])

_METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"


@router.get("/health", response_model=schemas.Health)
async def health(house: HouseOf) -> Response:
    """Whether the process lives and can compute. Needs no token."""
    if not house.ready or house.compute.alive:
        return JSONResponse({"status": "ok"})
    return response(503, "engine", "A thread that predicts has ended. Start the server again.")


@router.get("/ready", response_model=schemas.Readiness)
async def ready(house: HouseOf) -> Response:
    """Whether predictions can be asked for: models are loaded and the database answers. Needs no token."""
    if not house.ready:
        raise StoppingError("The server starts or stops at the moment.", 5)
    await asyncio.to_thread(house.jobs.counts)
    return JSONResponse({"status": "ready"})


@router.get("/docs", include_in_schema=False)
async def docs(request: Request) -> HTMLResponse:
    """The OpenAPI description for people. Needs no token, and tells nothing of this server."""
    return HTMLResponse(page(request.app.openapi()), headers={"Content-Security-Policy": POLICY})


@router.get("/info")
async def info(house: HouseOf, caller: Reader) -> schemas.Info:
    """What the server is, which models it offers and what it lets in."""
    settings = house.settings
    return schemas.Info(
        version=__version__,
        api=API,
        study_versions=[VERSION],
        prediction_version=SCHEMA_VERSION,
        notice=RESEARCH_USE_NOTICE,
        role=caller.role,
        device=str(house.compute.models.device),
        models=[_model(bundle) for bundle in house.compute.models.bundles.values()],
        limits=schemas.Limits(
            max_body_bytes=settings.max_body_bytes,
            max_files=settings.max_files,
            max_voxels=settings.max_voxels,
            max_batch_size=settings.inference.max_batch_size,
            requests_per_minute=settings.requests_per_minute,
            request_time_s=settings.request_time_s,
            keep_s=settings.keep_s,
        ),
    )


@router.get("/models")
async def models(house: HouseOf, _: Reader) -> list[schemas.Model]:
    """The models that are offered; the first is the default."""
    return [_model(bundle) for bundle in house.compute.models.bundles.values()]


@router.get("/models/{name}")
async def model(name: str, house: HouseOf, _: Reader) -> dict[str, Any]:
    """The whole card of a model: what it learned from, how well it did, its licence."""
    card: dict[str, Any] = house.compute.models.bundle(name).card.model_dump(mode="json")
    return card


@router.get("/metrics", response_class=Response, responses={200: {"content": {_METRICS_TYPE: {}}}})
async def metrics(request: Request, house: HouseOf) -> Response:
    """Figures for Prometheus. Needs a token of any role where tokens are needed, unless that is switched off."""
    if house.settings.metrics_token:
        from ..auth import _bearer

        await needs("reader")(request, await _bearer(request))

    def text() -> bytes:
        house.observe()
        return house.metrics.text()

    return Response(await asyncio.to_thread(text), media_type=_METRICS_TYPE)


def _model(bundle: Bundle) -> schemas.Model:
    card = bundle.card
    return schemas.Model(
        name=card.name,
        version=card.version,
        title=card.title,
        description=card.description,
        sha256=bundle.sha256,
        labels=list(card.labels),
        spatial_dims=card.network.spatial_dims,
        modalities=list(card.input.modalities),
        body_parts=list(card.input.body_parts),
        weights_licence=card.weights_licence,
    )
