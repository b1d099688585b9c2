"""Endpoints that predict at once, and what is kept of it: predictions, what-if."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from contextlib import ExitStack
from typing import Annotated, Any

from fastapi import APIRouter, Path, Request
from starlette.responses import JSONResponse, Response

from ...errors import MediScanError, UsageError
from ...prediction.packing import MEDIA_TYPE
from ...prediction.result import Prediction
from .. import schemas
from ..answering import LINES, LineStream, predicted, while_connected
from ..auth import Caller, HouseOf, Reader, Submitter
from ..house import House
from ..lane import Work, is_plain
from ..storage.studies import Stored
from ..uploads import announced_bytes, decode_one, is_packed, read_form, read_packed, with_record

router = APIRouter(tags=["predictions"])

Id = Annotated[str, Path(pattern="^[0-9a-f]{32}$", description="Of a prediction that the server keeps.")]

FORM: dict[str, Any] = {
    "type": "object",
    "required": ["files"],
    "properties": {
        "files": {
            "type": "array",
            "items": {"type": "string", "format": "binary"},
            "minItems": 1,
            "description": "An image in any format that MediScan reads, or all files of one DICOM series.",
        },
        "clinical": {"type": "string", "description": 'Such as {"age_years": 63, "temperature_c": "38,4 C"}.'},
        "model": {"type": "string", "description": "Name of a model; the first of /v1/models where it is missing."},
        "slice": {"type": "string", "description": "A slice of a volume, counted from 0."},
        "series": {"type": "string", "description": "Which DICOM series of several."},
        "keep": {"type": "string", "enum": ["true", "false"], "description": "Whether maps can be asked for later."},
        "maps": {"type": "string", "enum": ["true", "false"], "description": "Whether raw maps are in the answer."},
    },
    "additionalProperties": False,
}
BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {"schema": FORM},
            MEDIA_TYPE: {"schema": {"type": "string", "format": "binary"}},
        },
    }
}


@router.post("/predict", openapi_extra=BODY, response_model=schemas.Predicted)
async def predict(request: Request, house: HouseOf, caller: Submitter) -> Response:
    """Predict one image, and wait for it. Volumes go to /v1/jobs, but for one slice of them.

    What `Remote` engines send may be a volume too, where they accept lines of progress (application/x-ndjson).
    """
    with ExitStack() as place:
        place.enter_context(house.admission(announced_bytes(request, house), house.compute.seconds_each))
        if is_packed(request):
            return await _predict_packed(request, house, caller, place)
        limit = house.settings.reading_time_s + house.settings.request_time_s
        async with read_form(request, house) as form:
            return await while_connected(request, _predict_form(form, house, caller), limit)


@router.get("/predictions/{identity}", response_model=schemas.Predicted)
async def kept_prediction(identity: Id, house: HouseOf, _: Reader) -> Response:
    """A prediction that was made before."""
    stored = await asyncio.to_thread(house.studies.get, identity)
    return JSONResponse(said(stored))


@router.delete("/predictions/{identity}", status_code=204)
async def forget_prediction(identity: Id, house: HouseOf, caller: Submitter) -> Response:
    """Forget a prediction with its image before its time; only who asked for it, or an admin."""
    stored = await asyncio.to_thread(house.studies.get, identity)
    check_owner(caller, stored.owner)
    await asyncio.to_thread(house.studies.forget, identity)
    await asyncio.to_thread(house.audit.append, "prediction.forgotten", caller.name, {"prediction": identity})
    return Response(status_code=204)


@router.post("/predictions/{identity}/what-if", response_model=schemas.Predicted)
async def what_if(
    identity: Id, asked: schemas.WhatIf, request: Request, house: HouseOf, caller: Submitter
) -> Response:
    """The same image with another record. The answer is not kept."""
    with house.admission(0, house.compute.seconds_each):
        first = await asyncio.to_thread(house.studies.request, identity)
        work = Work(with_record(first, asked.clinical))
        limit = (
            house.settings.volume_time_s if house.compute.is_volume(work.request) else house.settings.request_time_s
        )
        prediction = await while_connected(request, predicted(house.compute, work), limit)
        await _tell(house, caller, prediction, "prediction.what_if", {"prediction": identity})
        return JSONResponse(prediction.to_dict())


def said(stored: Stored) -> dict[str, Any]:
    """The prediction of a study.

    Raises:
        MediScanError: There is none.
    """
    if stored.error is not None:
        raise MediScanError(stored.error[1], code=stored.error[0])
    if stored.prediction is None:
        raise UsageError("This study has no prediction yet. Ask for the state of its job.", code="not_done")
    return stored.prediction


def check_owner(caller: Caller, owner: str) -> None:
    """Let only the owner and admins pass.

    Raises:
        MediScanError: It is somebody else.
    """
    if caller.name != owner and not caller.may("admin"):
        raise MediScanError("This belongs to another token.", code="role")


async def _predict_form(form: Any, house: House, caller: Caller) -> Response:
    asked = await decode_one(form, house)
    if house.compute.is_volume(asked):
        raise UsageError(
            f"{asked.image.source}: is a volume of {asked.image.shape[0]} slices. Submit it to /v1/jobs, or choose "
            "one slice.",
            code="volume",
        )
    prediction = await predicted(house.compute, Work(asked))
    headers = {}
    details: dict[str, Any] = {"content": form.digest}
    if form.keep and house.settings.keep_s:
        identity = await asyncio.to_thread(house.studies.keep, asked, prediction, caller.name, house.settings.keep_s)
        headers["Location"] = f"/v1/predictions/{identity}"
        details["prediction"] = identity
    await _tell(house, caller, prediction, "prediction.made", details)
    content = prediction.to_dict()
    if form.maps and prediction.maps is not None:
        content["raw_maps"] = json.loads(prediction.maps.to_json())
    return JSONResponse(content, headers=headers)


async def _predict_packed(request: Request, house: House, caller: Caller, place: ExitStack) -> Response:
    asked, digest = await read_packed(request, house, caller.name)
    work = Work(asked, alone=True)
    volume = house.compute.is_volume(asked)
    quick = not volume and is_plain(asked.settings)
    limit = house.settings.request_time_s if quick else house.settings.volume_time_s
    loop = asyncio.get_running_loop()
    finish = _finish(house, caller, digest)
    if LINES in request.headers.get("accept", ""):
        return _Held(LineStream(house.compute, work, limit, finish), place.pop_all())
    if volume:
        raise UsageError(f"This is a volume. Accept {LINES}, or submit it to /v1/jobs.", code="volume")
    prediction = await while_connected(request, predicted(house.compute, work), limit)
    content = await loop.run_in_executor(None, finish, prediction)
    answer = content["prediction"]
    answer["raw_maps"] = None if content["maps"] is None else json.loads(content["maps"])
    return JSONResponse(answer)


def _finish(house: House, caller: Caller, digest: str) -> Callable[[Prediction], dict[str, Any]]:
    def finish(prediction: Prediction) -> dict[str, Any]:
        house.audit.append("prediction.made", caller.name, {**_of(prediction), "pixels": digest})
        maps = None if prediction.maps is None else prediction.maps.to_json()
        return {"prediction": prediction.to_dict(), "maps": maps}

    return finish


class _Held(Response):
    """A response that keeps its place among the requests until it has been sent."""

    def __init__(self, inner: Response, place: ExitStack) -> None:
        super().__init__()
        self._inner, self._place = inner, place

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        with self._place:
            await self._inner(scope, receive, send)


async def _tell(house: House, caller: Caller, prediction: Prediction, event: str, details: dict[str, Any]) -> None:
    await asyncio.to_thread(house.audit.append, event, caller.name, {**_of(prediction), **details})


def _of(prediction: Prediction) -> dict[str, Any]:
    model = prediction.provenance
    return {"model": model.model, "version": model.model_version, "sha256": model.model_sha256}
